/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of a map as JSON, by the map's BTF, or as hexadecimal digits without it.
 *
 * Knows no map. Of types it knows the kernel's big-endian names and the SDK's union pb_addr, so
 * that ports and addresses read as an admin writes them.
 */
#include <datapath/internal.h>

#include <arpa/inet.h>

#define DUMP_DEPTH 16
#define DUMP_ENTRIES 4096 /* of one answer: it is made on the loop */

struct dump {
	const struct btf *btf; /* NULL: hexadecimal */
	struct bpf_map_info info;
	int fd;
	uint32_t n_cpus;
	uint32_t stride; /* of one CPU's value */
};

static cJSON *dump_type(const struct btf *btf, uint32_t id, const unsigned char *data, int depth);

static cJSON *dump_hex(const unsigned char *data, size_t len)
{
	PB_BUF_FREE struct pb_buf text = {0};

	for (size_t i = 0; i < len; i++)
		pb_buf_printf(&text, "%02x", data[i]);
	return cJSON_CreateString(text.data ? text.data : "");
}

static cJSON *dump_address(const unsigned char *data)
{
	static const unsigned char zero[12];
	char text[INET6_ADDRSTRLEN];
	bool v4 = memcmp(data + 4, zero, sizeof(zero)) == 0;

	return cJSON_CreateString(
		inet_ntop(v4 ? AF_INET : AF_INET6, data, text, sizeof(text)) ? text : "");
}

static cJSON *dump_int(const struct btf_type *t, const unsigned char *data)
{
	bool is_signed = btf_is_int(t) && (btf_int_encoding(t) & BTF_INT_SIGNED);
	uint64_t value = 0;
	char text[24];

	if (t->size > sizeof(value))
		return dump_hex(data, t->size);
	memcpy(&value, data, t->size);
	if (is_signed && t->size < sizeof(value) && (value >> (t->size * 8 - 1)))
		value |= ~0ULL << (t->size * 8);
	/* A double holds 53 bits; beyond that, digits in a string stay exact. */
	if (is_signed ? llabs((int64_t)value) < 1LL << 53 : value < 1ULL << 53)
		return cJSON_CreateNumber(is_signed ? (double)(int64_t)value : (double)value);
	snprintf(text, sizeof(text), is_signed ? "%lld" : "%llu", (unsigned long long)value);
	return cJSON_CreateString(text);
}

static cJSON *dump_bits(uint32_t at, uint32_t bits, const unsigned char *data)
{
	uint64_t value = 0;

	for (uint32_t i = 0; i < bits && i < 64; i++)
		value |= (uint64_t)((data[(at + i) / 8] >> ((at + i) % 8)) & 1) << i;
	return cJSON_CreateNumber((double)value);
}

static cJSON *dump_struct(const struct btf *btf, const struct btf_type *t,
			  const unsigned char *data, int depth)
{
	const char *type_name = btf__name_by_offset(btf, t->name_off);
	cJSON *object;

	if (btf_is_union(t) && t->size == 16 && type_name && strcmp(type_name, "pb_addr") == 0)
		return dump_address(data);
	object = cJSON_CreateObject();
	for (uint16_t i = 0; i < btf_vlen(t); i++) {
		const struct btf_member *m = btf_members(t) + i;
		const char *name = btf__name_by_offset(btf, m->name_off);
		uint32_t at = btf_member_bit_offset(t, i), bits = btf_member_bitfield_size(t, i);
		cJSON *value = bits ? dump_bits(at, bits, data)
				    : dump_type(btf, m->type, data + at / 8, depth + 1);

		cJSON_AddItemToObject(object, name && *name ? name : "anonymous", value);
	}
	return object;
}

static cJSON *dump_array(const struct btf *btf, const struct btf_array *a,
			 const unsigned char *data, int depth)
{
	int64_t size = btf__resolve_size(btf, a->type);
	int64_t id = btf__resolve_type(btf, a->type);
	const struct btf_type *elem = btf__type_by_id(btf, (uint32_t)id);
	cJSON *list;

	if (size <= 0 || id < 0 || !elem)
		return cJSON_CreateNull();
	if (size == 1 && btf_is_int(elem) &&
	    (btf_int_encoding(elem) & (BTF_INT_CHAR | BTF_INT_SIGNED)))
		return cJSON_CreateString(memchr(data, 0, a->nelems) ? (const char *)data
								     : "(not terminated)");
	if (size == 1)
		return dump_hex(data, a->nelems);
	list = cJSON_CreateArray();
	for (uint32_t i = 0; i < a->nelems; i++)
		cJSON_AddItemToArray(list,
				     dump_type(btf, a->type, data + i * (size_t)size, depth + 1));
	return list;
}

static cJSON *dump_named(const struct btf *btf, const struct btf_type *t, const unsigned char *data)
{
	const char *name = btf__name_by_offset(btf, t->name_off);
	char text[INET_ADDRSTRLEN];

	if (name && strcmp(name, "__be16") == 0)
		return cJSON_CreateNumber(data[0] << 8 | data[1]);
	if (name && strcmp(name, "__be32") == 0)
		return cJSON_CreateString(inet_ntop(AF_INET, data, text, sizeof(text)) ? text : "");
	return NULL;
}

static cJSON *dump_type(const struct btf *btf, uint32_t id, const unsigned char *data, int depth)
{
	const struct btf_type *t = btf__type_by_id(btf, id);

	while (t && (btf_is_mod(t) || btf_is_typedef(t))) {
		cJSON *named = btf_is_typedef(t) ? dump_named(btf, t, data) : NULL;

		if (named)
			return named;
		t = btf__type_by_id(btf, t->type);
	}
	if (!t || depth > DUMP_DEPTH)
		return cJSON_CreateNull();
	if (btf_is_int(t) || btf_is_any_enum(t))
		return dump_int(t, data);
	if (btf_is_composite(t))
		return dump_struct(btf, t, data, depth);
	if (btf_is_array(t))
		return dump_array(btf, btf_array(t), data, depth);
	return cJSON_CreateNull();
}

/* ---- entries ---- */

static cJSON *dump_part(const struct dump *d, uint32_t type_id, const unsigned char *data,
			size_t len)
{
	return d->btf && type_id ? dump_type(d->btf, type_id, data, 0) : dump_hex(data, len);
}

static void dump_entry(const struct dump *d, cJSON *items, const unsigned char *key,
		       const unsigned char *value)
{
	for (uint32_t cpu = 0; cpu < d->n_cpus; cpu++) {
		cJSON *item = cJSON_CreateObject();

		cJSON_AddItemToObject(item, "key",
				      dump_part(d, d->info.btf_key_type_id, key, d->info.key_size));
		if (d->n_cpus > 1)
			cJSON_AddNumberToObject(item, "cpu", cpu);
		cJSON_AddItemToObject(item, "value",
				      dump_part(d, d->info.btf_value_type_id,
						value + (size_t)cpu * d->stride,
						d->info.value_size));
		cJSON_AddItemToArray(items, item);
	}
}

static int dump_entries(const struct dump *d, cJSON *items, bool *ret_more)
{
	PB_FREE unsigned char *key = calloc(1, d->info.key_size + 1);
	PB_FREE unsigned char *next = calloc(1, d->info.key_size + 1);
	PB_FREE unsigned char *value = calloc(d->n_cpus, d->stride ? d->stride : 1);
	size_t n = 0;
	int rc;

	if (!key || !next || !value)
		return -ENOMEM;
	rc = bpf_map_get_next_key(d->fd, NULL, next);
	while (rc == 0 && n < DUMP_ENTRIES) {
		memcpy(key, next, d->info.key_size);
		/* An empty place of an array of programs, or an entry that went meanwhile. */
		if (bpf_map_lookup_elem(d->fd, key, value) == 0) {
			dump_entry(d, items, key, value);
			n += d->n_cpus;
		}
		rc = bpf_map_get_next_key(d->fd, key, next);
	}
	*ret_more = rc == 0;
	return rc == -ENOENT || rc == 0 ? 0 : rc;
}

static int dump_open(struct dump *d, int fd, const char *name, struct pb_err *err)
{
	uint32_t len = sizeof(d->info);
	int rc = bpf_obj_get_info_by_fd(fd, &d->info, &len);
	int cpus = libbpf_num_possible_cpus();

	if (rc < 0 || cpus < 0)
		return pb_err_set(err, rc < 0 ? rc : cpus, "map %s: can't read its properties",
				  name);
	if (d->info.key_size == 0)
		return pb_err_set(err, -ENOTSUP, "map %s is a %s: it has no entries to list", name,
				  libbpf_bpf_map_type_str(d->info.type));
	d->fd = fd;
	d->n_cpus = 1;
	d->stride = d->info.value_size;
	if (d->info.type == BPF_MAP_TYPE_PERCPU_HASH || d->info.type == BPF_MAP_TYPE_PERCPU_ARRAY ||
	    d->info.type == BPF_MAP_TYPE_LRU_PERCPU_HASH) {
		d->n_cpus = (uint32_t)cpus;
		d->stride = (d->info.value_size + 7) & ~7U;
	}
	return 0;
}

int pb_dp_map_dump_json(struct pb_dp *dp, const char *name, cJSON **ret_table, struct pb_err *err)
{
	static const struct pb_json_column plain[] = {{"KEY", "key"},
						      {"VALUE", "value"},
						      {NULL, NULL}};
	static const struct pb_json_column percpu[] = {{"KEY", "key"},
						       {"CPU", "cpu"},
						       {"VALUE", "value"},
						       {NULL, NULL}};
	const char *slash = strchr(name, '/');
	PB_FREE char *owner = slash ? strndup(name, (size_t)(slash - name)) : NULL;
	struct pb_reg_map *map = owner ? pb_reg_get(dp, owner, slash + 1, false) : NULL;
	PB_JSON_FREE cJSON *table = NULL;
	struct dump d = {0};
	struct btf *btf = NULL;
	cJSON *items;
	bool more = false;
	int rc;

	if (!map)
		return pb_err_set(
			err, -ENOENT,
			"there is no map %s; names are PLUGIN/MAP, see `patchbay map list`", name);
	rc = dump_open(&d, map->fd, name, err);
	if (rc == 0) {
		d.btf = btf = d.info.btf_id ? btf__load_from_kernel_by_id(d.info.btf_id) : NULL;
		table = pb_json_table(d.n_cpus > 1 ? percpu : plain, &items);
		rc = table ? dump_entries(&d, items, &more) : -ENOMEM;
		if (rc < 0)
			pb_err_set(err, rc, "map %s: can't read its entries: %s", name,
				   strerror(-rc));
		else if (more)
			cJSON_AddTrueToObject(table, "truncated");
	}
	btf__free(btf);
	pb_reg_put(dp, map);
	if (rc == 0)
		*ret_table = PB_TAKE_PTR(table);
	return rc;
}
