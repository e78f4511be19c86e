/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps of the fake host: bytes in memory with the semantics of bpf(2).
 *
 * Owns the content of every map. Hashes refuse what doesn't fit, LRU hashes evict the entry
 * written longest ago, arrays can't be deleted from. A map is only found if the test defined it.
 */
#include <linux/bpf.h>

#include "fake.h"

static bool map_is_array(const struct fake_map *map)
{
	return map->info.type == BPF_MAP_TYPE_ARRAY || map->info.type == BPF_MAP_TYPE_PERCPU_ARRAY;
}

static bool type_is_percpu(uint32_t type)
{
	return type == BPF_MAP_TYPE_PERCPU_ARRAY || type == BPF_MAP_TYPE_PERCPU_HASH ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

static bool type_is_lru(uint32_t type)
{
	return type == BPF_MAP_TYPE_LRU_HASH || type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

static void entry_free(struct fake_map *map, struct fake_entry *entry)
{
	HASH_DEL(map->entries, entry);
	free(entry);
}

void fake_map_free(struct fake_map *map)
{
	struct fake_entry *entry, *tmp;

	HASH_ITER (hh, map->entries, entry, tmp)
		entry_free(map, entry);
	free(map->array);
	free(map->name);
	free(map);
}

static struct fake_map *map_new(const struct fake_map_def *def, const struct pb_map_opts *opts)
{
	struct fake_map *map = calloc(1, sizeof(*map));
	uint32_t max = opts && opts->max_entries ? opts->max_entries : def->max_entries;

	if (!map)
		return NULL;
	map->schema = opts ? opts->schema : 1;
	map->info = (struct pb_map_info){
		.size = sizeof(map->info),
		.key_size = def->key_size,
		.value_size = def->value_size,
		.max_entries = max,
		.type = def->type,
		.n_cpus = 1,
		.fd = -1,
	};
	if (type_is_percpu(def->type)) {
		map->info.value_size = (def->value_size + 7) / 8 * 8;
		map->info.n_cpus = PB_FAKE_CPUS;
	}
	map->value_len = (size_t)map->info.value_size * map->info.n_cpus;
	map->stride = (map->value_len + 7) / 8 * 8;
	map->mappable = def->mappable;
	map->name = strdup(def->name);
	if (map_is_array(map))
		map->array = calloc(max, map->stride);
	if (!map->name || (map_is_array(map) && !map->array)) {
		fake_map_free(map);
		return NULL;
	}
	return map;
}

/* ---- the plain operations -------------------------------------------------------------- */

static struct fake_entry *map_find(struct fake_map *map, const void *key)
{
	struct fake_entry *entry;

	HASH_FIND(hh, map->entries, key, map->info.key_size, entry);
	return entry;
}

static char *array_at(struct fake_map *map, const void *key)
{
	uint32_t index;

	memcpy(&index, key, sizeof(index));
	return index < map->info.max_entries ? map->array + index * map->stride : NULL;
}

static int map_lookup(struct fake_map *map, const void *key, void *ret_value)
{
	struct fake_entry *entry;
	char *value;

	if (map_is_array(map)) {
		value = array_at(map, key);
	} else {
		entry = map_find(map, key);
		value = entry ? entry->value : NULL;
	}
	if (!value)
		return -ENOENT;
	memcpy(ret_value, value, map->value_len);
	return 0;
}

static int array_update(struct fake_map *map, const void *key, const void *value, uint64_t flags)
{
	char *at = array_at(map, key);

	if (flags == PB_MAP_NOEXIST)
		return -EEXIST;
	if (!at)
		return -E2BIG;
	memcpy(at, value, map->value_len);
	map->writes++;
	return 0;
}

static int map_update(struct fake_map *map, const void *key, const void *value, uint64_t flags)
{
	struct fake_entry *entry;

	if (flags > PB_MAP_EXIST)
		return -EINVAL;
	if (map_is_array(map))
		return array_update(map, key, value, flags);
	entry = map_find(map, key);
	if (entry && flags == PB_MAP_NOEXIST)
		return -EEXIST;
	if (!entry && flags == PB_MAP_EXIST)
		return -ENOENT;
	if (!entry && HASH_COUNT(map->entries) >= map->info.max_entries) {
		if (!type_is_lru(map->info.type))
			return -E2BIG;
		entry_free(map, map->entries);
	}
	if (!entry) {
		entry = calloc(1, sizeof(*entry) + map->info.key_size + map->value_len);
		if (!entry)
			return -ENOMEM;
		memcpy(entry->key, key, map->info.key_size);
		entry->value = entry->key + map->info.key_size;
		HASH_ADD_KEYPTR(hh, map->entries, entry->key, map->info.key_size, entry);
	}
	memcpy(entry->value, value, map->value_len);
	map->writes++;
	return 0;
}

static int map_delete(struct fake_map *map, const void *key)
{
	struct fake_entry *entry;

	if (map_is_array(map))
		return -EINVAL;
	entry = map_find(map, key);
	if (!entry)
		return -ENOENT;
	entry_free(map, entry);
	map->writes++;
	return 0;
}

static int array_next(const struct fake_map *map, const void *key, void *ret_key)
{
	uint32_t index = 0;

	if (key) {
		memcpy(&index, key, sizeof(index));
		index = index < map->info.max_entries ? index + 1 : 0;
	}
	if (index >= map->info.max_entries)
		return -ENOENT;
	memcpy(ret_key, &index, sizeof(index));
	return 0;
}

static int map_next(struct fake_map *map, const void *key, void *ret_key)
{
	struct fake_entry *entry;

	if (map_is_array(map))
		return array_next(map, key, ret_key);
	/* A key that is gone starts over, as in the kernel. */
	entry = key ? map_find(map, key) : NULL;
	entry = entry ? entry->hh.next : map->entries;
	if (!entry)
		return -ENOENT;
	memcpy(ret_key, entry->key, map->info.key_size);
	return 0;
}

/* ---- what a plugin calls --------------------------------------------------------------- */

int fake_host_map(struct pb_ctx *ctx, const char *name, struct pb_map **ret_map)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "map");
	struct pb_map *handle;

	if (err == 0)
		err = fake_prepare_only(gen, "map");
	if (err < 0)
		return err;
	handle = calloc(1, sizeof(*handle));
	if (!handle)
		return -ENOMEM;
	handle->gen = gen;
	handle->name = strdup(name);
	if (!handle->name) {
		free(handle);
		return -ENOMEM;
	}
	LL_APPEND(gen->handles, handle);
	*ret_map = handle;
	return 0;
}

/* Whether a handle may be used now for `function`. */
static int map_ready(const struct pb_map *handle, const char *function)
{
	int err = fake_fault(handle->gen->fake, function);

	if (err < 0)
		return err;
	return handle->map ? 0 : -ENXIO;
}

int fake_host_map_info(struct pb_map *handle, struct pb_map_info *ret_info)
{
	uint32_t size = ret_info->size < sizeof(*ret_info) ? ret_info->size : sizeof(*ret_info);
	int err = map_ready(handle, "map_info");

	/* The host refuses a structure without its size, so a test has to find that out. */
	if (err == 0 && size == 0)
		err = -EINVAL;
	if (err == 0) {
		memcpy(ret_info, &handle->map->info, size);
		ret_info->size = size;
	}
	return err;
}

int fake_host_map_lookup(struct pb_map *handle, const void *key, void *ret_value)
{
	int err = map_ready(handle, "map_lookup");

	return err < 0 ? err : map_lookup(handle->map, key, ret_value);
}

int fake_host_map_update(struct pb_map *handle, const void *key, const void *value, uint64_t flags)
{
	int err = map_ready(handle, "map_update");

	return err < 0 ? err : map_update(handle->map, key, value, flags);
}

int fake_host_map_delete(struct pb_map *handle, const void *key)
{
	int err = map_ready(handle, "map_delete");

	return err < 0 ? err : map_delete(handle->map, key);
}

int fake_host_map_next(struct pb_map *handle, const void *key, void *ret_key)
{
	int err = map_ready(handle, "map_next");

	return err < 0 ? err : map_next(handle->map, key, ret_key);
}

int fake_host_map_update_batch(struct pb_map *handle, const void *keys, const void *values,
			       uint32_t n, uint64_t flags, uint32_t *ret_done)
{
	int err = map_ready(handle, "map_update_batch");
	uint32_t done = 0;

	for (; err == 0 && done < n; done += err == 0)
		err = map_update(handle->map,
				 (const char *)keys + (size_t)done * handle->map->info.key_size,
				 (const char *)values + (size_t)done * handle->map->value_len,
				 flags);
	if (ret_done)
		*ret_done = done;
	return err;
}

int fake_host_map_delete_batch(struct pb_map *handle, const void *keys, uint32_t n,
			       uint32_t *ret_done)
{
	int err = map_ready(handle, "map_delete_batch");
	uint32_t done = 0;

	for (; err == 0 && done < n; done += err == 0)
		err = map_delete(handle->map,
				 (const char *)keys + (size_t)done * handle->map->info.key_size);
	if (ret_done)
		*ret_done = done;
	return err;
}

int fake_host_map_memory(struct pb_map *handle, void **ret_memory, size_t *ret_len)
{
	int err = map_ready(handle, "map_memory");

	if (err == 0 && !handle->map->mappable)
		err = -EOPNOTSUPP;
	if (err < 0)
		return err;
	*ret_memory = handle->map->array;
	*ret_len = handle->map->info.max_entries * handle->map->stride;
	return 0;
}

/* ---- which map a name means ------------------------------------------------------------ */

static struct fake_map_def *def_find(const struct pb_fake *fake, const char *name)
{
	struct fake_map_def *def;

	LL_FOREACH (fake->defs, def)
		if (strcmp(def->name, name) == 0)
			return def;
	return NULL;
}

static const struct pb_map_opts *opts_find(const struct fake_gen *gen, const char *name)
{
	struct fake_object *object;

	LL_FOREACH (gen->objects, object)
		for (uint32_t i = 0; i < object->n_maps; i++)
			if (strcmp(object->maps[i].name, name) == 0)
				return &object->maps[i];
	return NULL;
}

static struct fake_map *map_of(struct fake_map *list, const char *name, uint32_t schema)
{
	struct fake_map *map;

	LL_FOREACH (list, map)
		if (strcmp(map->name, name) == 0 && map->schema == schema)
			return map;
	return NULL;
}

static int handle_resolve(struct fake_gen *gen, struct pb_map *handle)
{
	struct pb_fake *fake = gen->fake;
	const struct fake_map_def *def = def_find(fake, handle->name);
	const struct pb_map_opts *opts = opts_find(gen, handle->name);
	bool ephemeral = opts && (opts->flags & PB_MAP_EPHEMERAL);
	struct fake_map **list = ephemeral ? &gen->maps : &fake->maps;

	if (!def)
		return gen->ctx.host->fail(&gen->ctx, -ENOENT,
					   "map %s: not defined; call pb_fake_map_define()",
					   handle->name);
	handle->map = map_of(*list, handle->name, opts ? opts->schema : 1);
	if (handle->map)
		return 0;
	handle->map = map_new(def, opts);
	if (!handle->map)
		return -ENOMEM;
	LL_PREPEND(*list, handle->map);
	return 0;
}

int fake_maps_resolve(struct fake_gen *gen)
{
	struct pb_map *handle;
	int err = 0;

	LL_FOREACH (gen->handles, handle) {
		err = handle_resolve(gen, handle);
		if (err < 0)
			return err;
	}
	return 0;
}

/* The running generation's map, else the newest one of that name. */
static struct fake_map *map_seen(const struct pb_fake *fake, const char *name)
{
	struct pb_map *handle;
	struct fake_map *map;

	if (fake->current)
		LL_FOREACH (fake->current->handles, handle)
			if (strcmp(handle->name, name) == 0)
				return handle->map;
	LL_FOREACH (fake->maps, map)
		if (strcmp(map->name, name) == 0)
			return map;
	return NULL;
}

/* ---- what a test calls ----------------------------------------------------------------- */

int pb_fake_map_define(struct pb_fake *fake, const char *name, uint32_t type, uint32_t key_size,
		       uint32_t value_size, uint32_t max_entries)
{
	bool array = type == BPF_MAP_TYPE_ARRAY || type == BPF_MAP_TYPE_PERCPU_ARRAY;
	struct fake_map_def *def;

	if (def_find(fake, name))
		return -EEXIST;
	if (!array && type != BPF_MAP_TYPE_HASH && type != BPF_MAP_TYPE_PERCPU_HASH &&
	    !type_is_lru(type))
		return -ENOTSUP;
	if (key_size == 0 || value_size == 0 || max_entries == 0 || (array && key_size != 4))
		return -EINVAL;
	def = calloc(1, sizeof(*def));
	if (!def)
		return -ENOMEM;
	*def = (struct fake_map_def){
		.name = strdup(name),
		.type = type,
		.key_size = key_size,
		.value_size = value_size,
		.max_entries = max_entries,
	};
	if (!def->name) {
		free(def);
		return -ENOMEM;
	}
	LL_PREPEND(fake->defs, def);
	return 0;
}

int pb_fake_map_mappable(struct pb_fake *fake, const char *name)
{
	struct fake_map_def *def = def_find(fake, name);

	if (!def)
		return -ENOENT;
	if (def->type != BPF_MAP_TYPE_ARRAY)
		return -ENOTSUP;
	def->mappable = true;
	return 0;
}

int pb_fake_map_get(const struct pb_fake *fake, const char *name, const void *key, void *ret_value)
{
	struct fake_map *map = map_seen(fake, name);

	return map ? map_lookup(map, key, ret_value) : -ENOENT;
}

int pb_fake_map_put(struct pb_fake *fake, const char *name, const void *key, const void *value)
{
	struct fake_map *map = map_seen(fake, name);
	const struct fake_map_def *def = def_find(fake, name);
	int err;

	if (!map && def) {
		map = map_new(def, NULL);
		if (!map)
			return -ENOMEM;
		map->info.adopted = 1;
		LL_PREPEND(fake->maps, map);
	}
	if (!map)
		return -ENOENT;
	err = map_update(map, key, value, PB_MAP_ANY);
	map->writes -= err == 0;
	return err;
}

int pb_fake_map_del(struct pb_fake *fake, const char *name, const void *key)
{
	struct fake_map *map = map_seen(fake, name);
	int err;

	if (!map)
		return -ENOENT;
	err = map_delete(map, key);
	map->writes -= err == 0;
	return err;
}

uint32_t pb_fake_map_count(const struct pb_fake *fake, const char *name)
{
	struct fake_map *map = map_seen(fake, name);

	if (!map)
		return 0;
	return map_is_array(map) ? map->info.max_entries : HASH_COUNT(map->entries);
}

int pb_fake_map_each(const struct pb_fake *fake, const char *name,
		     int (*fn)(void *arg, const void *key, const void *value), void *arg)
{
	struct fake_map *map = map_seen(fake, name);
	struct fake_entry *entry, *tmp;
	int err = 0;

	if (!map)
		return -ENOENT;
	if (map_is_array(map)) {
		for (uint32_t i = 0; i < map->info.max_entries && err == 0; i++)
			err = fn(arg, &i, map->array + i * map->stride);
		return err;
	}
	HASH_ITER (hh, map->entries, entry, tmp) {
		err = fn(arg, entry->key, entry->value);
		if (err != 0)
			return err;
	}
	return 0;
}

uint64_t pb_fake_map_writes(const struct pb_fake *fake, const char *name)
{
	const struct fake_map *map = map_seen(fake, name);

	return map ? map->writes : 0;
}
