/* SPDX-License-Identifier: Apache-2.0 */
/* The datapath's maps, played in memory: they outlive the "process" as pinned ones do. */
#include "peers_harness.h"

/* Entries are found by linear search. */

struct entry {
	uint8_t key[24];
	uint8_t value[32];
};

struct pb_map {
	const char *name;
	uint32_t key_size, value_size, max;
	struct entry *entries;
	unsigned n;
};

static struct pb_map maps[] = {
	{"core/pb_ipcache4", sizeof(struct pb_ipcache_key4), sizeof(struct pb_ipcache_value),
	 524288, NULL, 0},
	{"core/pb_ipcache6", sizeof(struct pb_ipcache_key6), sizeof(struct pb_ipcache_value),
	 524288, NULL, 0},
	{"core/pb_identities", 4, 32, 131072, NULL, 0},
};
static unsigned writes;

int pb_dp_map_new(struct pb_dp *dp, const char *plugin, const char *name, struct pb_map **ret_map)
{
	(void)dp;
	cr_assert_str_eq(plugin, "core");
	for (size_t i = 0; i < PB_ARRAY_LEN(maps); i++)
		if (strcmp(maps[i].name, name) == 0)
			*ret_map = &maps[i];
	return 0;
}

int pb_dp_map_resolve(struct pb_map *map, struct pb_dp_object *const *objects, size_t n,
		      struct pb_err *err)
{
	(void)map;
	(void)objects;
	(void)n;
	(void)err;
	return 0;
}

struct pb_map *pb_dp_map_free(struct pb_map *map)
{
	(void)map;
	return NULL;
}

int pb_dp_map_info(struct pb_map *map, struct pb_map_info *ret_info)
{
	ret_info->max_entries = map->max;
	return 0;
}

static struct entry *find(struct pb_map *map, const void *key)
{
	for (unsigned i = 0; i < map->n; i++)
		if (memcmp(map->entries[i].key, key, map->key_size) == 0)
			return &map->entries[i];
	return NULL;
}

int pb_dp_map_lookup(struct pb_map *map, const void *key, void *ret_value)
{
	struct entry *entry = find(map, key);

	if (entry)
		memcpy(ret_value, entry->value, map->value_size);
	return entry ? 0 : -ENOENT;
}

int pb_dp_map_update(struct pb_map *map, const void *key, const void *value, uint64_t flags)
{
	struct entry *entry = find(map, key);

	cr_assert_eq(flags, 0);
	if (!entry && map->n >= map->max)
		return map->key_size == 4 ? -E2BIG : -ENOSPC;
	if (!entry) {
		map->entries = realloc(map->entries, (map->n + 1) * sizeof(*map->entries));
		entry = &map->entries[map->n++];
		memcpy(entry->key, key, map->key_size);
	}
	memcpy(entry->value, value, map->value_size);
	writes += map != &maps[2];
	return 0;
}

int pb_dp_map_delete(struct pb_map *map, const void *key)
{
	struct entry *entry = find(map, key);

	if (!entry)
		return -ENOENT;
	*entry = map->entries[--map->n];
	return 0;
}

/* In the order of the list; like the kernel's it begins anew when the key is gone. */
int pb_dp_map_next(struct pb_map *map, const void *key, void *ret_key)
{
	struct entry *entry = key ? find(map, key) : NULL;
	size_t i = entry ? (size_t)(entry - map->entries) + 1 : 0;

	if (i >= map->n)
		return -ENOENT;
	memcpy(ret_key, map->entries[i].key, map->key_size);
	return 0;
}

unsigned map_entries(void)
{
	return maps[0].n + maps[1].n;
}

unsigned map_identities(void)
{
	return maps[2].n;
}

unsigned map_writes(void)
{
	unsigned n = writes;

	writes = 0;
	return n;
}

void map_limit(uint32_t identities, uint32_t ipcache)
{
	maps[0].max = maps[1].max = ipcache;
	maps[2].max = identities;
}

static bool covers(const uint8_t *net, uint32_t bits, const uint8_t *addr)
{
	for (uint32_t bit = 0; bit < bits; bit++)
		if ((net[bit / 8] ^ addr[bit / 8]) & (0x80 >> bit % 8))
			return false;
	return true;
}

struct pb_ipcache_value lookup_value(const char *text)
{
	struct pb_kube_addr addr = address(text);
	const struct pb_map *map = &maps[addr.family == 6];
	struct pb_ipcache_value best = {.identity = PB_IDENTITY_WORLD};
	uint32_t best_bits = 0;

	for (unsigned i = 0; i < map->n; i++) {
		uint32_t bits;

		memcpy(&bits, map->entries[i].key, sizeof(bits));
		if (bits < best_bits || !covers(map->entries[i].key + 4, bits, addr.addr.bytes))
			continue;
		best_bits = bits;
		memcpy(&best, map->entries[i].value, sizeof(best));
	}
	return best;
}

uint32_t lookup(const char *addr)
{
	return lookup_value(addr).identity;
}

bool map_has_identity(uint32_t number)
{
	for (size_t m = 0; m < 2; m++)
		for (unsigned i = 0; i < maps[m].n; i++) {
			struct pb_ipcache_value value;

			memcpy(&value, maps[m].entries[i].value, sizeof(value));
			if (value.identity == number)
				return true;
		}
	return false;
}

/* A copy of the maps as they are; what the orderly end does to them is undone. */
void harness_kill(void)
{
	struct pb_map copies[PB_ARRAY_LEN(maps)];

	for (size_t i = 0; i < PB_ARRAY_LEN(maps); i++) {
		copies[i] = maps[i];
		copies[i].entries = malloc(maps[i].n * sizeof(*maps[i].entries) + 1);
		if (maps[i].n)
			memcpy(copies[i].entries, maps[i].entries,
			       maps[i].n * sizeof(*maps[i].entries));
	}
	harness_stop();
	for (size_t i = 0; i < PB_ARRAY_LEN(maps); i++) {
		free(maps[i].entries);
		maps[i] = copies[i];
	}
}
