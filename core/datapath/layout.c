/* SPDX-License-Identifier: Apache-2.0 */
/* Walks two BTF types in step and names the first difference by its path. */
#include <datapath/layout.h>

#define LAYOUT_DEPTH 16
#define LAYOUT_PATH 128

struct layout {
	const struct btf *was;
	const struct btf *now;
	char path[LAYOUT_PATH]; /* "a.b" */
	char *why;
	size_t len;
};

static bool layout_same(struct layout *l, uint32_t was_id, uint32_t now_id, int depth);

__attribute__((format(printf, 2, 3))) static bool differ(struct layout *l, const char *fmt, ...)
{
	size_t used;
	va_list ap;

	snprintf(l->why, l->len, "%s%s", l->path[0] ? "member " : "the type", l->path);
	used = strlen(l->why);
	va_start(ap, fmt);
	vsnprintf(l->why + used, l->len - used, fmt, ap);
	va_end(ap);
	return false;
}

static const struct btf_type *skip_names(const struct btf *btf, uint32_t id, uint32_t *ret_id)
{
	const struct btf_type *t = btf__type_by_id(btf, id);

	while (t && (btf_is_mod(t) || btf_is_typedef(t))) {
		id = t->type;
		t = btf__type_by_id(btf, id);
	}
	*ret_id = id;
	return t;
}

static bool is_number(const struct btf_type *t)
{
	return btf_is_int(t) || btf_is_any_enum(t);
}

static bool members_same(struct layout *l, const struct btf_type *was, const struct btf_type *now,
			 int depth)
{
	const struct btf_member *a = btf_members(was), *b = btf_members(now);
	size_t used = strlen(l->path);
	uint16_t n = btf_vlen(was) < btf_vlen(now) ? btf_vlen(was) : btf_vlen(now);

	for (uint16_t i = 0; i < n; i++) {
		const char *was_name = btf__name_by_offset(l->was, a[i].name_off);
		const char *now_name = btf__name_by_offset(l->now, b[i].name_off);
		uint32_t was_at = btf_member_bit_offset(was, i);
		uint32_t now_at = btf_member_bit_offset(now, i);

		snprintf(l->path + used, sizeof(l->path) - used, "%s%s", used ? "." : "", was_name);
		if (strcmp(was_name, now_name) != 0)
			return differ(l, " at offset %u is now named %s", was_at / 8, now_name);
		if (was_at != now_at)
			return differ(l, " moved from offset %u to %u", was_at / 8, now_at / 8);
		if (btf_member_bitfield_size(was, i) != btf_member_bitfield_size(now, i))
			return differ(l, " has another number of bits");
		if (!layout_same(l, a[i].type, b[i].type, depth + 1))
			return false;
		l->path[used] = '\0';
	}
	if (btf_vlen(was) == btf_vlen(now))
		return true;
	snprintf(l->path + used, sizeof(l->path) - used, "%s%s", used ? "." : "",
		 btf_vlen(was) > n ? btf__name_by_offset(l->was, a[n].name_off)
				   : btf__name_by_offset(l->now, b[n].name_off));
	return differ(l, "%s", btf_vlen(was) > n ? " is gone" : " is new");
}

static bool layout_same(struct layout *l, uint32_t was_id, uint32_t now_id, int depth)
{
	const struct btf_type *was = skip_names(l->was, was_id, &was_id);
	const struct btf_type *now = skip_names(l->now, now_id, &now_id);
	int64_t was_size = btf__resolve_size(l->was, was_id);
	int64_t now_size = btf__resolve_size(l->now, now_id);

	if (!was || !now || depth > LAYOUT_DEPTH)
		return differ(l, " can't be compared");
	if (btf_is_composite(was) && btf_kind(was) == btf_kind(now)) {
		if (!members_same(l, was, now, depth))
			return false;
	} else if (btf_is_array(was) && btf_is_array(now)) {
		const struct btf_array *a = btf_array(was), *b = btf_array(now);

		if (a->nelems != b->nelems)
			return differ(l, " had %u elements and has %u", a->nelems, b->nelems);
		return layout_same(l, a->type, b->type, depth + 1);
	} else if (btf_kind(was) != btf_kind(now) && !(is_number(was) && is_number(now))) {
		return differ(l, " is of another kind");
	}
	if (was_size != now_size)
		return differ(l, " had %lld bytes and has %lld", (long long)was_size,
			      (long long)now_size);
	return true;
}

bool pb_layout_same(const struct btf *was, uint32_t was_id, const struct btf *now, uint32_t now_id,
		    char *why, size_t len)
{
	struct layout l = {.was = was, .now = now, .why = why, .len = len};

	return layout_same(&l, was_id, now_id, 0);
}
