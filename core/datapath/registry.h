/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps by plugin, name and schema, and the handles that plugins hold.
 *
 * Owns the fds, pins and mapped memory of all maps. A persistent map is opened once per process,
 * shared by all generations of its plugin and pinned at <bpffs>/plugins/<plugin>/<map>_v<schema>
 * (core maps: <bpffs>/core/<map>_v1). A map made for a generation that never went live is unpinned
 * again, so that a layout that was only tried never stands in the way of its correction.
 *
 * A map whose size is the admin's (pb_map_opts.max_entries) may grow: a larger one gets a copy of
 * the entries and is pinned beside the map that is in use; going live it takes over its pin.
 */
#ifndef PB_DATAPATH_REGISTRY_H
#define PB_DATAPATH_REGISTRY_H

#include <stdatomic.h>

#include <bpf/libbpf.h>

#include <base/base.h>

struct pb_dp;

struct pb_reg_map {
	struct pb_reg_map *next;
	char *plugin;
	char *name;
	char *pin; /* NULL: ephemeral */
	uint32_t schema;
	uint32_t flags; /* PB_MAP_*, as the live generation has it */
	int fd;
	unsigned refs;
	bool adopted;	   /* the pin is older than this process */
	bool outgrown;	   /* the pin belongs to a larger map now */
	bool live;	   /* programs of a live chain use it, or did */
	atomic_bool fresh; /* made for a generation that isn't live yet */
	void *memory;	   /* of an array that can be mapped, once somebody asked */
	size_t memory_len;
	/* Both until it is live: where it is pinned, and whose pin it will take over. */
	char *pin_beside;
	struct pb_reg_map *grown_from;
	struct pb_dp *dp;
};

/* What plugins hold. */
struct pb_map {
	struct pb_dp *dp;
	char *plugin;
	char *name;
	struct pb_reg_map *reg; /* NULL until resolved */
	struct pb_map_info info;
};

/* Which map a plugin's object asks for. */
struct pb_reg_key {
	const char *plugin;
	const char *name;
	uint32_t schema;
	uint32_t flags; /* PB_MAP_* */
	bool sized;	/* max_entries is the admin's */
};

/*
 * [pool] Finds the map in the process or by its pin and checks that it is what `want` declares.
 * *ret_map stays NULL when there is none yet, or one that is too small: it is *ret_small then.
 * Takes a reference.
 */
int pb_reg_find(struct pb_dp *dp, const struct pb_reg_key *key, const struct bpf_map *want,
		const struct btf *btf, struct pb_reg_map **ret_map, struct pb_reg_map **ret_small,
		struct pb_err *err);
/* What sets a map apart from what an object declares. */
struct pb_reg_diff {
	char what[256];
	uint32_t max_entries; /* of the map; not compared */
};
/* 0: the same, 1: *diff says what differs, negative: can't be found out. */
int pb_reg_compare(const struct pb_reg_map *map, const struct bpf_map *want, const struct btf *btf,
		   struct pb_reg_diff *diff, struct pb_err *err);
/*
 * [pool] Registers a map that was just created, and pins it. Takes over nothing: fd is dupped.
 * `small`: what pb_reg_find() found too small, or NULL; its entries are copied.
 */
int pb_reg_add(struct pb_dp *dp, const struct pb_reg_key *key, int fd, struct pb_reg_map *small,
	       struct pb_reg_map **ret_map, struct pb_err *err);
/*
 * A map by owner and name, any schema (the highest wins); takes a reference. `in_use`: only one
 * whose plugin is loaded.
 */
struct pb_reg_map *pb_reg_get(struct pb_dp *dp, const char *plugin, const char *name, bool in_use);
struct pb_reg_map *pb_reg_ref(struct pb_dp *dp, struct pb_reg_map *map);
/* Drops a reference; NULL is fine. Returns NULL. */
struct pb_reg_map *pb_reg_put(struct pb_dp *dp, struct pb_reg_map *map);
/*
 * The memory of an array with BPF_F_MMAPABLE, mapped until the last reference is dropped. Any
 * thread. -EOPNOTSUPP: another kind of map.
 */
int pb_reg_memory(struct pb_reg_map *map, void **ret_memory, size_t *ret_len);
/* The map is in use: its pin stays. Any thread. */
void pb_reg_commit(struct pb_reg_map *map);
/*
 * Programs of a live chain use it. Pins of the same name with another schema go, each once nobody
 * holds its map: what such a map says is of the past, and whoever came back to it would act on it.
 */
void pb_reg_live(struct pb_reg_map *map);
void pb_reg_set_flags(struct pb_dp *dp, struct pb_reg_map *map, uint32_t flags);
/* Closes every fd; pins stay, except those of maps that never went live. */
void pb_reg_close_all(struct pb_dp *dp);

#endif
