/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs on the hooks, which maps there are, what was counted: for `patchbay`.
 *
 * Reads only. Sums per-CPU counters; a sum over running CPUs is not one moment's.
 */
#include <datapath/internal.h>

/* ---- chains ---- */

static void chain_row(cJSON *items, const struct pb_chain *c, size_t position, const char *band,
		      const char *plugin, const char *slot, const char *program)
{
	cJSON *item = cJSON_CreateObject();

	cJSON_AddStringToObject(item, "hook", pb_hook_name(c->hook));
	cJSON_AddNumberToObject(item, "generation", c->generation);
	cJSON_AddNumberToObject(item, "position", (double)position);
	cJSON_AddStringToObject(item, "band", band);
	cJSON_AddStringToObject(item, "plugin", plugin);
	cJSON_AddStringToObject(item, "slot", slot);
	cJSON_AddStringToObject(item, "program", program);
	cJSON_AddBoolToObject(item, "adopted", c->adopted);
	cJSON_AddItemToArray(items, item);
}

/* Nothing but the kernel knows an adopted chain's programs. */
static void adopted_rows(cJSON *items, const struct pb_chain *c)
{
	for (uint32_t slot = 0; slot < PB_CHAIN_MAX; slot++) {
		struct bpf_prog_info info = {0};
		uint32_t len = sizeof(info), id = 0;
		int fd;

		if (bpf_map_lookup_elem(c->array_fd, &slot, &id) < 0)
			break;
		fd = bpf_prog_get_fd_by_id(id);
		if (fd < 0)
			continue;
		if (bpf_obj_get_info_by_fd(fd, &info, &len) == 0)
			chain_row(items, c, slot, "", "", "", info.name);
		close(fd);
	}
}

cJSON *pb_dp_chain_json(struct pb_dp *dp)
{
	static const struct pb_json_column columns[] = {{"HOOK", "hook"},
							{"GENERATION", "generation"},
							{"POS", "position"},
							{"BAND", "band"},
							{"SLOT", "slot"},
							{"PLUGIN", "plugin"},
							{"PROGRAM", "program"},
							{"ADOPTED", "adopted"},
							{NULL, NULL}};
	cJSON *items, *table = pb_json_table(columns, &items);

	if (!table)
		return NULL;
	uv_mutex_lock(&dp->lock);
	for (size_t hook = 0; hook < PB_HOOK_COUNT; hook++) {
		const struct pb_chain *c = dp->live[hook];

		if (!c)
			continue;
		if (c->adopted) {
			adopted_rows(items, c);
			continue;
		}
		for (size_t i = 0; i < c->n_slots; i++)
			chain_row(items, c, i, pb_band_name(c->slots[i].band), c->slots[i].plugin,
				  c->slots[i].name, c->slots[i].program);
		chain_row(items, c, c->n_slots, "", PB_CORE_PLUGIN, "exit",
			  pb_hook_kinds[hook].exit);
	}
	uv_mutex_unlock(&dp->lock);
	return table;
}

/* ---- maps ---- */

/* What the kernel charges for the map; 0 when it doesn't say. */
static double map_bytes(int fd)
{
	PB_FREE char *path = pb_sprintf("/proc/self/fdinfo/%d", fd);
	PB_BUF_FREE struct pb_buf text = {0};
	const char *at;

	if (!path || pb_file_read(path, 65536, &text, NULL) < 0 || !text.data)
		return 0;
	at = strstr(text.data, "memlock:");
	return at ? strtod(at + strlen("memlock:"), NULL) : 0;
}

static void map_row(cJSON *items, const struct pb_reg_map *map)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	PB_FREE char *name = pb_sprintf("%s/%s", map->plugin, map->name);
	const char *type;
	cJSON *item;

	if (!name || bpf_obj_get_info_by_fd(map->fd, &info, &len) < 0)
		return;
	type = libbpf_bpf_map_type_str(info.type);
	item = cJSON_CreateObject();
	cJSON_AddStringToObject(item, "name", name);
	cJSON_AddStringToObject(item, "type", type ? type : "?");
	cJSON_AddNumberToObject(item, "key_size", info.key_size);
	cJSON_AddNumberToObject(item, "value_size", info.value_size);
	cJSON_AddNumberToObject(item, "max_entries", info.max_entries);
	cJSON_AddNumberToObject(item, "schema", map->schema);
	cJSON_AddNumberToObject(item, "bytes", map_bytes(map->fd));
	cJSON_AddBoolToObject(item, "pinned", map->pin != NULL);
	cJSON_AddBoolToObject(item, "adopted", map->adopted);
	cJSON_AddBoolToObject(item, "in_use", map->refs > 0);
	cJSON_AddItemToArray(items, item);
}

cJSON *pb_dp_map_list_json(struct pb_dp *dp)
{
	static const struct pb_json_column columns[] = {
		{"NAME", "name"},	 {"TYPE", "type"},	 {"KEY", "key_size"},
		{"VALUE", "value_size"}, {"MAX", "max_entries"}, {"SCHEMA", "schema"},
		{"BYTES", "bytes"},	 {"PINNED", "pinned"},	 {NULL, NULL}};
	cJSON *items, *table = pb_json_table(columns, &items);

	if (!table)
		return NULL;
	uv_mutex_lock(&dp->lock);
	for (const struct pb_reg_map *map = dp->maps; map; map = map->next)
		map_row(items, map);
	uv_mutex_unlock(&dp->lock);
	return table;
}

/* ---- counters ---- */

static void sum_counters(int fd, uint32_t hook, int n_cpus, struct pb_counters *sum,
			 struct pb_counters *values)
{
	memset(sum, 0, sizeof(*sum));
	if (bpf_map_lookup_elem(fd, &hook, values) < 0)
		return;
	for (int cpu = 0; cpu < n_cpus; cpu++) {
		sum->packets += values[cpu].packets;
		sum->bytes += values[cpu].bytes;
		sum->missed += values[cpu].missed;
		for (size_t v = 0; v < PB_ARRAY_LEN(sum->verdicts); v++)
			sum->verdicts[v] += values[cpu].verdicts[v];
	}
}

/* Returns a bit per hook that dropped something. */
static uint32_t hooks_json(struct pb_dp *dp, cJSON *status, int n_cpus)
{
	PB_FREE struct pb_counters *values = calloc((size_t)n_cpus, sizeof(*values));
	cJSON *list = cJSON_AddArrayToObject(status, "hooks");
	uint64_t missed = 0;
	uint32_t dropped = 0;

	for (uint32_t hook = 0; values && hook < PB_HOOK_COUNT; hook++) {
		cJSON *item = cJSON_CreateObject();
		struct pb_counters sum;

		sum_counters(pb_dp_core_fd(dp, "pb_counters"), hook, n_cpus, &sum, values);
		missed += sum.missed;
		if (sum.missed || sum.verdicts[PB_VERDICT_DROP])
			dropped |= 1U << hook;
		cJSON_AddStringToObject(item, "hook", pb_hook_name(hook));
		uv_mutex_lock(&dp->lock);
		if (dp->live[hook])
			cJSON_AddNumberToObject(item, "generation", dp->live[hook]->generation);
		uv_mutex_unlock(&dp->lock);
		cJSON_AddNumberToObject(item, "packets", (double)sum.packets);
		cJSON_AddNumberToObject(item, "bytes", (double)sum.bytes);
		cJSON_AddNumberToObject(item, "pass", (double)sum.verdicts[PB_VERDICT_PASS]);
		cJSON_AddNumberToObject(item, "drop", (double)sum.verdicts[PB_VERDICT_DROP]);
		cJSON_AddNumberToObject(item, "redirect",
					(double)sum.verdicts[PB_VERDICT_REDIRECT]);
		cJSON_AddNumberToObject(item, "missed", (double)sum.missed);
		cJSON_AddItemToArray(list, item);
	}
	cJSON_AddNumberToObject(status, "missed", (double)missed);
	return dropped;
}

/* One lookup reads one reason of one hook, so hooks that dropped nothing are left out. */
static void drops_json(struct pb_dp *dp, cJSON *status, int n_cpus, uint32_t hooks)
{
	PB_FREE uint64_t *values = calloc((size_t)n_cpus, sizeof(*values));
	cJSON *list = cJSON_AddArrayToObject(status, "drops");
	int fd = pb_dp_core_fd(dp, "pb_drops");

	for (uint32_t key = 0; values && key < PB_HOOK_COUNT * PB_REASON_COUNT; key++) {
		uint64_t sum = 0;
		char buf[32];
		cJSON *item;

		if (!(hooks & (1U << (key / PB_REASON_COUNT))) ||
		    bpf_map_lookup_elem(fd, &key, values) < 0)
			continue;
		for (int cpu = 0; cpu < n_cpus; cpu++)
			sum += values[cpu];
		if (sum == 0)
			continue;
		item = cJSON_CreateObject();
		cJSON_AddStringToObject(item, "hook", pb_hook_name(key / PB_REASON_COUNT));
		cJSON_AddStringToObject(item, "reason",
					pb_reason_name(key % PB_REASON_COUNT, buf, sizeof(buf)));
		cJSON_AddNumberToObject(item, "packets", (double)sum);
		cJSON_AddItemToArray(list, item);
	}
}

cJSON *pb_dp_links_json(struct pb_dp *dp)
{
	return dp->links ? pb_links_json(dp->links) : cJSON_CreateArray();
}

cJSON *pb_dp_status_json(struct pb_dp *dp)
{
	static const char *const modes[] = {
		[PB_ATTACH_AUTO] = "auto", [PB_ATTACH_TCX] = "tcx", [PB_ATTACH_CLSACT] = "clsact"};
	cJSON *status = cJSON_CreateObject();
	int n_cpus = libbpf_num_possible_cpus();

	if (!status || n_cpus < 1)
		return status;
	cJSON_AddStringToObject(status, "attach", modes[dp->attach]);
	cJSON_AddStringToObject(status, "bpffs", dp->bpffs);
	if (dp->cgroup)
		cJSON_AddStringToObject(status, "cgroup", dp->cgroup);
	cJSON_AddNumberToObject(status, "flip_ns", (double)dp->flip_ns);
	drops_json(dp, status, n_cpus, hooks_json(dp, status, n_cpus));
	cJSON_AddItemToObject(status, "links", pb_dp_links_json(dp));
	return status;
}
