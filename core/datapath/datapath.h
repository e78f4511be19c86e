/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel side of the agent: entry programs, gates, chains, maps, ring, devices.
 *
 * Owns every BPF object of the process and every pin below the bpffs directory. A chain is an
 * immutable generation: it is built whole beside the live one and becomes live by one slot
 * write per hook. Nothing here may ever delete a slot, rewrite a slot of a live chain, or leave
 * a hook without a chain. Knows plugins by name only.
 *
 * Threads: a function marked [pool] blocks and runs on the thread pool, one at a time (the
 * plugin manager sees to that); the rest belongs to the loop thread.
 */
#ifndef PB_DATAPATH_H
#define PB_DATAPATH_H

#include <uv.h>

#include <base/json.h>
#include <config/config.h>

struct pb_dp;
struct pb_dp_object;
struct pb_dp_build;
struct pb_map; /* what plugins hold; defined in registry.h */

/*
 * Opens or adopts the pinned datapath: bpffs, core maps, gates, entry programs. Gates that are
 * empty get a chain of exit alone. Attaches nothing yet. Blocks; called once at start. -EBUSY:
 * another agent holds the same bpffs directory.
 */
int pb_dp_open(uv_loop_t *loop, const struct pb_config *config, struct pb_dp **ret_dp,
	       struct pb_err *err);
typedef void (*pb_dp_done_fn)(void *arg, int result, const char *text);
/*
 * Attaches the entries: socket hooks to the cgroup, device hooks to every device that the
 * configuration names now or that appears later (netlink). Adopted links stay attached and get
 * the new entry program atomically. Calls `done` on the loop unless the datapath is closed before.
 */
int pb_dp_attach(struct pb_dp *dp, pb_dp_done_fn done, void *arg, struct pb_err *err);
/* Begins to apply changed datapath.devices; failures at a device are logged. */
int pb_dp_reconfigure(struct pb_dp *dp, const struct pb_config *config, struct pb_err *err);
/* Lets go of everything in the process; pins and links stay. Asynchronous handles are closed. */
void pb_dp_close(struct pb_dp *dp, void (*closed)(void *arg), void *arg);
/* Removes every pin, link and filter an agent with this configuration made. Needs no pb_dp. */
int pb_dp_cleanup(const struct pb_config *config, struct pb_err *err);

/*
 * Begins to attach or detach the pod hooks of an interface and keeps its endpoint record, which is
 * there before the hooks and until they are off. pb_dp_pod_add(): 1 when they are on already, 0
 * when the listener will be told.
 */
int pb_dp_pod_add(struct pb_dp *dp, uint32_t ifindex, const struct pb_endpoint *ep,
		  struct pb_err *err);
int pb_dp_pod_remove(struct pb_dp *dp, uint32_t ifindex);
/* The endpoint record of an interface, one of an agent before included; -ENOENT. */
int pb_dp_pod_get(struct pb_dp *dp, uint32_t ifindex, struct pb_endpoint *ret_ep);
/* How pb_dp_pod_add() ended, on the loop; one listener, NULL: none. */
typedef void (*pb_dp_pod_fn)(void *arg, uint32_t ifindex, int result, const char *text);
void pb_dp_pod_listen(struct pb_dp *dp, pb_dp_pod_fn fn, void *arg);
/* Devices that shall carry pod hooks, adopted ones too: fills at most max, returns how many. */
size_t pb_dp_pods(struct pb_dp *dp, uint32_t *ret_ifindexes, size_t max);

/* ---- objects of plugins ---- */

/* Copies the options, borrows the ELF bytes. Cheap; opens nothing. */
int pb_dp_object_new(struct pb_dp *dp, const char *plugin, const struct pb_bpf_object *opts,
		     struct pb_dp_object **ret_object, struct pb_err *err);
/* For every load from now on; pb_dp_object_keep_consts() decides whether it stays so. */
int pb_dp_object_const(struct pb_dp_object *object, const char *name, const void *value,
		       uint32_t len, struct pb_err *err);
/* Constants set since the last call stay in force, or never were. Any thread. */
void pb_dp_object_keep_consts(struct pb_dp_object *object, bool keep);
/*
 * [pool] Opens the object and creates or reuses its maps. Pinned maps are compared with the
 * object's BTF member by member: a change without a new schema number is -EINVAL and says
 * which member.
 */
int pb_dp_object_prepare(struct pb_dp_object *object, struct pb_err *err);
/* Whether one of its maps is borrowed from that plugin (PB_MAP_BORROWED). */
bool pb_dp_object_borrows(const struct pb_dp_object *object, const char *plugin);
/* Whether `name` is OWNER__MAP with this plugin as OWNER. Pure. */
bool pb_borrow_from(const char *name, const char *plugin);
/* Frees the object; persistent maps stay pinned. NULL is fine. Returns NULL. */
struct pb_dp_object *pb_dp_object_free(struct pb_dp_object *object);

/* A handle for plugins. Resolved by pb_dp_map_resolve(), -ENXIO until then. */
int pb_dp_map_new(struct pb_dp *dp, const char *plugin, const char *name, struct pb_map **ret_map);
/* [pool] Looks in the objects given first, then for a shared map "PLUGIN/MAP". */
int pb_dp_map_resolve(struct pb_map *map, struct pb_dp_object *const *objects, size_t n,
		      struct pb_err *err);
struct pb_map *pb_dp_map_free(struct pb_map *map);

/* The map functions of struct pb_host; any thread. */
int pb_dp_map_info(struct pb_map *map, struct pb_map_info *ret_info);
int pb_dp_map_lookup(struct pb_map *map, const void *key, void *ret_value);
int pb_dp_map_update(struct pb_map *map, const void *key, const void *value, uint64_t flags);
int pb_dp_map_delete(struct pb_map *map, const void *key);
int pb_dp_map_next(struct pb_map *map, const void *key, void *ret_key);
int pb_dp_map_update_batch(struct pb_map *map, const void *keys, const void *values, uint32_t n,
			   uint64_t flags, uint32_t *ret_done);
int pb_dp_map_delete_batch(struct pb_map *map, const void *keys, uint32_t n, uint32_t *ret_done);
int pb_dp_map_memory(struct pb_map *map, void **ret_memory, size_t *ret_len);

/* ---- chains ---- */

/* One program of the plan; strings and object are borrowed until the build is freed. */
struct pb_dp_slot {
	uint32_t hook; /* enum pb_hook */
	uint32_t band; /* enum pb_band */
	const char *plugin;
	const char *name;
	const char *program;
	const char *before; /* "" when none */
	const char *after;
	struct pb_dp_object *object;
};

/*
 * Solves the order of one hook's slots in place: bands, then before/after, then name.
 * -ELOOP: a cycle, and err->text shows it. Pure; unit-tested without a kernel.
 */
int pb_dp_order(struct pb_dp_slot *slots, size_t n, struct pb_err *err);

/*
 * [pool] Builds a new generation of the chains of every hook of `hooks` (a bit per enum
 * pb_hook) from the whole plan: orders, loads every program with its place, fills a private
 * program array, pins it. Nothing is live.
 */
int pb_dp_build(struct pb_dp *dp, const struct pb_dp_slot *slots, size_t n, uint32_t hooks,
		struct pb_dp_build **ret_build, struct pb_err *err);
/*
 * [pool] Makes a build live: one gate write per hook, consumers before producers. On error the
 * hooks already flipped are flipped back.
 */
int pb_dp_flip(struct pb_dp_build *build, struct pb_err *err);
/* [pool] Waits until no packet runs in the chains that the flip replaced, then frees those. */
int pb_dp_retire(struct pb_dp_build *build, struct pb_err *err);
/* Drops a build: before the flip with all it loaded, after it only the bookkeeping. NULL: fine. */
struct pb_dp_build *pb_dp_build_free(struct pb_dp_build *build);
/* Nanoseconds the last flip took, all hooks. */
uint64_t pb_dp_flip_ns(const struct pb_dp *dp);

/* ---- events and reports ---- */

typedef void (*pb_dp_event_fn)(void *arg, const struct pb_event *event);
/* Called on the loop for every ring event. One reader: the plugin manager. */
void pb_dp_events(struct pb_dp *dp, pb_dp_event_fn fn, void *arg);
/* Makes exit send PB_EVENT_DROP (or stop sending). */
int pb_dp_observe_drops(struct pb_dp *dp, bool on);

/* Tables for `patchbay chain show`, `map list`, `map dump`; docs/design/ has the fields. */
cJSON *pb_dp_chain_json(struct pb_dp *dp);
cJSON *pb_dp_map_list_json(struct pb_dp *dp);
int pb_dp_map_dump_json(struct pb_dp *dp, const char *name, cJSON **ret_table, struct pb_err *err);
/* Counters by hook, drops by reason, missed calls, devices, attach mode: for `status`. */
cJSON *pb_dp_status_json(struct pb_dp *dp);
/* What is attached where, and in what state: the list "links" of the status, without its cost. */
cJSON *pb_dp_links_json(struct pb_dp *dp);

/* "pod-egress" and so on; NULL for an unknown number. */
const char *pb_hook_name(uint32_t hook);
const char *pb_band_name(uint32_t band);
/* Name of a drop reason, "reason 42" in `buf` for one without. */
const char *pb_reason_name(uint32_t reason, char *buf, size_t len);

#endif
