/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares a map that exists with what an object declares.
 *
 * Owns the words for each difference. Nothing here changes a map or the list of maps.
 */
#include <datapath/internal.h>
#include <datapath/layout.h>

static int differs(struct pb_reg_diff *diff, const char *fmt, ...) PB_PRINTF(2, 3);

static int differs(struct pb_reg_diff *diff, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(diff->what, sizeof(diff->what), fmt, ap);
	va_end(ap);
	return 1;
}

static int compare_part(const char *part, const struct btf *was, uint32_t was_id,
			const struct btf *now, uint32_t now_id, struct pb_reg_diff *diff)
{
	char why[192];

	if (was_id == 0 || now_id == 0 ||
	    pb_layout_same(was, was_id, now, now_id, why, sizeof(why)))
		return 0;
	return differs(diff, "the layout of its %s changed: %s", part, why);
}

static int compare_btf(const struct pb_reg_map *map, const struct bpf_map_info *info,
		       const struct bpf_map *want, const struct btf *btf, struct pb_reg_diff *diff,
		       struct pb_err *err)
{
	struct btf *was;
	int rc;

	if (info->btf_id == 0 || !btf)
		return 0;
	was = btf__load_from_kernel_by_id(info->btf_id);
	if (!was)
		return pb_err_set(err, -errno, "map %s/%s: can't read its BTF from the kernel: %s",
				  map->plugin, map->name, strerror(errno));
	rc = compare_part("key", was, info->btf_key_type_id, btf, bpf_map__btf_key_type_id(want),
			  diff);
	if (rc == 0)
		rc = compare_part("value", was, info->btf_value_type_id, btf,
				  bpf_map__btf_value_type_id(want), diff);
	btf__free(was);
	return rc;
}

int pb_reg_compare(const struct pb_reg_map *map, const struct bpf_map *want, const struct btf *btf,
		   struct pb_reg_diff *diff, struct pb_err *err)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	int rc = bpf_obj_get_info_by_fd(map->fd, &info, &len);

	if (rc < 0)
		return pb_err_set(err, rc, "map %s/%s: can't read its properties: %s", map->plugin,
				  map->name, strerror(-rc));
	diff->max_entries = info.max_entries;
	if (info.type != (uint32_t)bpf_map__type(want))
		return differs(diff, "its type is %s and would become %s",
			       libbpf_bpf_map_type_str(info.type),
			       libbpf_bpf_map_type_str(bpf_map__type(want)));
	/* Before the sizes: the member that grew says more than the sum. */
	rc = compare_btf(map, &info, want, btf, diff, err);
	if (rc != 0)
		return rc;
	if (info.key_size != bpf_map__key_size(want))
		return differs(diff, "its key has %u bytes and would have %u", info.key_size,
			       bpf_map__key_size(want));
	if (info.value_size != bpf_map__value_size(want))
		return differs(diff, "its value has %u bytes and would have %u", info.value_size,
			       bpf_map__value_size(want));
	if (info.map_flags != bpf_map__map_flags(want))
		return differs(diff, "its flags are 0x%x and would be 0x%x", info.map_flags,
			       bpf_map__map_flags(want));
	return 0;
}
