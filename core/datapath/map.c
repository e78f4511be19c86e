/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Map handles: what stands behind the map functions of struct pb_host.
 *
 * Owns struct pb_map. A handle is resolved once, before anybody uses it, and not changed after,
 * so its functions need no lock and may be called from any thread.
 */
#include <datapath/internal.h>

/* Bytes of struct pb_map_info in ABI 1.0; never changes. */
#define PB_MAP_INFO_SIZE_1_0 32

#ifndef ENOTSUPP
#define ENOTSUPP 524 /* the kernel's own number for a map type without batches */
#endif

int pb_dp_map_new(struct pb_dp *dp, const char *plugin, const char *name, struct pb_map **ret_map)
{
	struct pb_map *map = calloc(1, sizeof(*map));

	if (!map)
		return -ENOMEM;
	map->dp = dp;
	map->plugin = strdup(plugin);
	map->name = strdup(name);
	map->info.fd = -1;
	if (!map->plugin || !map->name) {
		pb_dp_map_free(map);
		return -ENOMEM;
	}
	*ret_map = map;
	return 0;
}

struct pb_map *pb_dp_map_free(struct pb_map *map)
{
	if (!map)
		return NULL;
	pb_reg_put(map->dp, map->reg);
	free(map->plugin);
	free(map->name);
	free(map);
	return NULL;
}

static struct pb_reg_map *find_own(struct pb_map *map, struct pb_dp_object *const *objects,
				   size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct pb_reg_map *reg = pb_object_map(objects[i], map->name);

		if (reg)
			return pb_reg_ref(map->dp, reg);
	}
	return NULL;
}

static int find_shared(struct pb_map *map, struct pb_reg_map **ret_reg, struct pb_err *err)
{
	const char *slash = strchr(map->name, '/');
	PB_FREE char *owner = slash ? strndup(map->name, (size_t)(slash - map->name)) : NULL;
	struct pb_reg_map *reg;

	if (!slash)
		return pb_err_set(err, -ENOENT,
				  "plugin %s: none of its BPF objects has a map named %s",
				  map->plugin, map->name);
	reg = owner ? pb_reg_get(map->dp, owner, slash + 1, true) : NULL;
	if (!reg)
		return pb_err_set(err, -ENOENT,
				  "plugin %s: there is no map %s; is plugin %s loaded?",
				  map->plugin, map->name, owner ? owner : "");
	if (!(reg->flags & PB_MAP_SHARED) && strcmp(owner, PB_CORE_PLUGIN) != 0 &&
	    strcmp(owner, map->plugin) != 0) {
		pb_reg_put(map->dp, reg);
		return pb_err_set(err, -EACCES,
				  "plugin %s: plugin %s doesn't share its map %s (PB_MAP_SHARED)",
				  map->plugin, owner, slash + 1);
	}
	*ret_reg = reg;
	return 0;
}

static bool is_percpu(uint32_t type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_ARRAY ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE;
}

static int read_info(struct pb_map *map, struct pb_err *err)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	int rc = bpf_obj_get_info_by_fd(map->reg->fd, &info, &len);
	int cpus = libbpf_num_possible_cpus();

	if (rc < 0 || cpus < 0)
		return pb_err_set(err, rc < 0 ? rc : cpus, "map %s: can't read its properties",
				  map->name);
	map->info = (struct pb_map_info){
		.size = sizeof(map->info),
		.key_size = info.key_size,
		.value_size = is_percpu(info.type) ? (info.value_size + 7) & ~7U : info.value_size,
		.max_entries = info.max_entries,
		.type = info.type,
		.n_cpus = is_percpu(info.type) ? (uint32_t)cpus : 1,
		.fd = map->reg->fd,
		.adopted = map->reg->adopted,
	};
	return 0;
}

int pb_dp_map_resolve(struct pb_map *map, struct pb_dp_object *const *objects, size_t n,
		      struct pb_err *err)
{
	int rc = 0;

	map->reg = find_own(map, objects, n);
	if (!map->reg)
		rc = find_shared(map, &map->reg, err);
	return rc < 0 ? rc : read_info(map, err);
}

int pb_dp_map_info(struct pb_map *map, struct pb_map_info *ret_info)
{
	uint32_t size = ret_info->size;

	if (map->info.fd < 0)
		return -ENXIO;
	/* A plugin of an older minor version has a shorter structure. */
	if (size < PB_MAP_INFO_SIZE_1_0)
		return -EINVAL;
	if (size > sizeof(map->info))
		size = sizeof(map->info);
	memcpy(ret_info, &map->info, size);
	ret_info->size = size;
	return 0;
}

int pb_dp_map_lookup(struct pb_map *map, const void *key, void *ret_value)
{
	return map->info.fd < 0 ? -ENXIO : bpf_map_lookup_elem(map->info.fd, key, ret_value);
}

int pb_dp_map_update(struct pb_map *map, const void *key, const void *value, uint64_t flags)
{
	int rc = map->info.fd < 0 ? -ENXIO : bpf_map_update_elem(map->info.fd, key, value, flags);

	/* A map with entries is in use, even if none of its plugin's programs ever is. */
	if (rc == 0)
		pb_reg_commit(map->reg);
	return rc;
}

int pb_dp_map_delete(struct pb_map *map, const void *key)
{
	return map->info.fd < 0 ? -ENXIO : bpf_map_delete_elem(map->info.fd, key);
}

int pb_dp_map_next(struct pb_map *map, const void *key, void *ret_key)
{
	return map->info.fd < 0 ? -ENXIO : bpf_map_get_next_key(map->info.fd, key, ret_key);
}

int pb_dp_map_memory(struct pb_map *map, void **ret_memory, size_t *ret_len)
{
	int rc = map->info.fd < 0 ? -ENXIO : pb_reg_memory(map->reg, ret_memory, ret_len);

	/* What is stored from now on can't be seen, so the map counts as filled. */
	if (rc == 0)
		pb_reg_commit(map->reg);
	return rc;
}

/* The kernel leaves the count alone when it refuses a batch as a whole. */
static uint32_t really_done(int rc, uint32_t done, uint32_t n)
{
	return rc < 0 && done == n ? 0 : done;
}

static int update_each(struct pb_map *map, const char *keys, const char *values, uint32_t n,
		       uint64_t flags, uint32_t *done)
{
	const size_t value_size = (size_t)map->info.value_size * map->info.n_cpus;
	int rc = 0;

	for (*done = 0; rc == 0 && *done < n; *done += rc == 0)
		rc = bpf_map_update_elem(map->info.fd, keys + (size_t)*done * map->info.key_size,
					 values + *done * value_size, flags);
	return rc;
}

int pb_dp_map_update_batch(struct pb_map *map, const void *keys, const void *values, uint32_t n,
			   uint64_t flags, uint32_t *ret_done)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts, .elem_flags = flags);
	uint32_t done = n;
	int rc;

	if (ret_done)
		*ret_done = 0;
	if (map->info.fd < 0)
		return -ENXIO;
	/* The kernel's batches know no NOEXIST and no EXIST. */
	rc = flags & ~(uint64_t)BPF_F_LOCK ? -ENOTSUPP : 0;
	if (rc == 0 && n > 0)
		rc = bpf_map_update_batch(map->info.fd, keys, values, &done, &opts);
	done = really_done(rc, done, n);
	if (rc == -ENOTSUPP || rc == -EOPNOTSUPP)
		rc = update_each(map, keys, values, n, flags, &done);
	if (done > 0)
		pb_reg_commit(map->reg);
	if (ret_done)
		*ret_done = done;
	return rc;
}

static int delete_each(struct pb_map *map, const char *keys, uint32_t n, uint32_t *done)
{
	int rc = 0;

	for (*done = 0; rc == 0 && *done < n; *done += rc == 0)
		rc = bpf_map_delete_elem(map->info.fd, keys + (size_t)*done * map->info.key_size);
	return rc;
}

int pb_dp_map_delete_batch(struct pb_map *map, const void *keys, uint32_t n, uint32_t *ret_done)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	uint32_t done = n;
	int rc;

	if (ret_done)
		*ret_done = 0;
	if (map->info.fd < 0)
		return -ENXIO;
	rc = n ? bpf_map_delete_batch(map->info.fd, keys, &done, &opts) : 0;
	done = really_done(rc, done, n);
	if (rc == -ENOTSUPP || rc == -EOPNOTSUPP)
		rc = delete_each(map, keys, n, &done);
	if (ret_done)
		*ret_done = done;
	return rc;
}
