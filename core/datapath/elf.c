/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From ELF bytes to the kernel: opening, constants, loading.
 *
 * The ELF is opened anew for every load, since every load has other constants. Whatever libbpf
 * and the verifier say ends up in the caller's error.
 */
#include <datapath/object.h>
#include <datapath/bpflog.h>

/* ---- constants ---- */

static const struct btf_var_secinfo *find_global(const struct btf *btf, const char *section,
						 const char *name)
{
	int id = btf ? btf__find_by_name_kind(btf, section, BTF_KIND_DATASEC) : -1;
	const struct btf_type *sec = id < 0 ? NULL : btf__type_by_id(btf, (uint32_t)id);

	for (uint16_t i = 0; sec && i < btf_vlen(sec); i++) {
		const struct btf_var_secinfo *v = btf_var_secinfos(sec) + i;
		const struct btf_type *var = btf__type_by_id(btf, v->type);

		if (!name || strcmp(btf__name_by_offset(btf, var->name_off), name) == 0)
			return v;
	}
	return NULL;
}

static struct bpf_map *find_rodata(const struct bpf_object *obj)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, obj)
	{
		const char *suffix = strrchr(bpf_map__name(map), '.');

		if (bpf_map__is_internal(map) && suffix && strcmp(suffix, ".rodata") == 0)
			return map;
	}
	return NULL;
}

static int write_const(const struct pb_dp_object *o, struct bpf_object *obj, const char *name,
		       const void *value, uint32_t len, struct pb_err *err)
{
	const struct btf_var_secinfo *v = find_global(bpf_object__btf(obj), ".rodata", name);
	struct bpf_map *map = find_rodata(obj);
	size_t size = 0;
	/* libbpf gives its private copy of the section, const only by its prototype. */
	char *data = map ? (char *)bpf_map__initial_value(map, &size) : NULL;

	if (!v || !data)
		return pb_object_err(
			o, err, -ENOENT,
			"the object has no constant %s; declare it as `const volatile`, "
			"global and not static",
			name);
	if (v->size != len || v->offset + v->size > size)
		return pb_object_err(o, err, -EINVAL, "the constant %s has %u bytes, %u were given",
				     name, v->size, len);
	memcpy(data + v->offset, value, len);
	return 0;
}

int pb_elf_write_consts(const struct pb_dp_object *o, struct bpf_object *obj, struct pb_err *err)
{
	int rc = 0;

	uv_mutex_lock(&o->dp->lock);
	for (const struct object_const *c = o->consts; rc == 0 && c; c = c->next)
		rc = write_const(o, obj, c->name, c->value, c->len, err);
	for (const struct object_const *c = o->tried; rc == 0 && c; c = c->next)
		rc = write_const(o, obj, c->name, c->value, c->len, err);
	uv_mutex_unlock(&o->dp->lock);
	return rc;
}

int pb_elf_write_place(const struct pb_dp_object *o, struct bpf_object *obj,
		       const struct pb_place *place, struct pb_err *err)
{
	const struct {
		const char *name;
		uint32_t value;
	} consts[] = {
		{"pb_hook_id", place->hook},	      {"pb_slot_next", place->slot_next},
		{"pb_slot_exit", place->slot_exit},   {"pb_observed", place->observed},
		{"pb_generation", place->generation},
	};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < PB_ARRAY_LEN(consts); i++)
		rc = write_const(o, obj, consts[i].name, &consts[i].value, sizeof(uint32_t), err);
	return rc;
}

/* ---- opening ---- */

/*
 * Global variables live as long as a load, so a plugin that kept state in them would lose it at
 * every reload, and each program of a chain would have its own copy.
 */
static int refuse_globals(const struct pb_dp_object *o, struct bpf_object *obj, struct pb_err *err)
{
	static const char *const sections[] = {".data", ".bss"};
	const struct btf *btf = bpf_object__btf(obj);
	struct bpf_map *map;

	if (!btf)
		return pb_object_err(o, err, -EINVAL,
				     "the ELF has no BTF; compile with clang -g -target bpf");
	bpf_object__for_each_map(map, obj)
	{
		for (size_t i = 0; bpf_map__is_internal(map) && i < PB_ARRAY_LEN(sections); i++) {
			const struct btf_var_secinfo *v;

			if (!strstr(bpf_map__name(map), sections[i]))
				continue;
			v = find_global(btf, sections[i], NULL);
			return pb_object_err(
				o, err, -EINVAL,
				"the variable %s (%s) is writable global data, which doesn't "
				"outlive a generation; keep state in a map, or make it `const "
				"volatile`",
				v ? btf__name_by_offset(btf,
							btf__type_by_id(btf, v->type)->name_off)
				  : "?",
				sections[i]);
		}
	}
	return 0;
}

int pb_elf_open(const struct pb_dp_object *o, struct bpf_object **ret_obj, struct pb_err *err)
{
	PB_BUF_FREE struct pb_buf log = {0};
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = o->name);
	struct bpf_object *obj;
	char cause[512];
	int rc;

	pb_bpflog_begin(&log);
	obj = bpf_object__open_mem(o->elf, o->elf_len, &opts);
	rc = obj ? 0 : -errno;
	pb_bpflog_end();
	if (rc < 0) {
		pb_bpflog_cause(log.data ? log.data : "", cause, sizeof(cause));
		return pb_object_err(o, err, rc, "not a BPF object that libbpf can open: %s",
				     cause[0] ? cause : strerror(-rc));
	}
	rc = refuse_globals(o, obj, err);
	if (rc < 0) {
		bpf_object__close(obj);
		return rc;
	}
	*ret_obj = obj;
	return 0;
}

/* ---- loading ---- */

int pb_elf_load(const struct pb_dp_object *o, struct bpf_object *obj, const char *what,
		struct pb_err *err)
{
	PB_BUF_FREE struct pb_buf log = {0};
	char cause[768];
	int rc;

	pb_bpflog_begin(&log);
	rc = bpf_object__load(obj);
	pb_bpflog_end();
	if (rc == 0)
		return 0;
	pb_bpflog_cause(log.data ? log.data : "", cause, sizeof(cause));
	return pb_object_err(o, err, rc, "%s: the kernel refused it: %s", what,
			     cause[0] ? cause : strerror(-rc));
}
