/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fake host: drives a plugin in a unit test, without root, kernel, cluster or agent.
 *
 * Owns an implementation of struct pb_host in plain user space: maps in memory, topics that are
 * recorded and replayed, Kubernetes objects given as C structures, a clock that only the test
 * moves. Nothing happens behind the test's back: callbacks run inside the pb_fake_* function
 * that caused them, on the calling thread, and what a callback triggers (topic records, work,
 * timers that became due) has run when that function returns.
 *
 * A test links the plugin's own .c file and libpatchbay-fakehost.a:
 *
 *   struct pb_fake *fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, "{}", "node-a");
 *
 *   pb_fake_map_define(fake, "services", BPF_MAP_TYPE_HASH, 8, 4, 1024);
 *   assert(pb_fake_load(fake) == 0);
 *   pb_fake_kube(fake, PB_KUBE_PUT, &service.meta);
 *   assert(pb_fake_map_get(fake, "services", &key, &value) == 0);
 *   pb_fake_free(fake);
 *
 * What it can't show: that BPF programs load and work. Objects and slots are only recorded.
 * Errors are negative errno, as the host's. Functions that return a `const` pointer keep
 * owning it.
 */
#ifndef PATCHBAY_TESTING_H
#define PATCHBAY_TESTING_H

#include <stdbool.h>

#include <patchbay/kube.h>
#include <patchbay/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pb_fake;

/* Possible CPUs of the fake machine: a value of a per-CPU map is this many values. */
#define PB_FAKE_CPUS 2

/*
 * The two symbols that PB_PLUGIN() makes in the plugin's .c file. A test of one plugin names
 * them; a test of several gives each plugin's addresses to a fake host of its own.
 */
extern const struct pb_manifest pb_manifest_v1;
extern const struct pb_plugin pb_plugin_v1;

/*
 * A host with one plugin that isn't loaded yet. `config` is its section of patchbay.yaml as
 * JSON text (NULL: "{}"), `node` the name of this node. Both are copied. NULL without memory or
 * when the manifest would be refused by the agent (magic, size, ABI, name).
 */
struct pb_fake *pb_fake_new(const struct pb_manifest *manifest, const struct pb_plugin *plugin,
			    const char *config, const char *node);
/* Stops every generation that still runs and frees everything. NULL is fine. */
void pb_fake_free(struct pb_fake *fake);
/* Another configuration for generations prepared from here on. */
int pb_fake_config(struct pb_fake *fake, const char *config);

/* ---- life: whole operations ------------------------------------------------------------ */

/* First load: prepare, maps, replay, start. On error the plugin is not loaded. */
int pb_fake_load(struct pb_fake *fake);
/*
 * Reload: prepare the new generation, quiesce and save the old one, restore the new one,
 * replay, start, stop the old one. On error before start the old one has been resumed.
 */
int pb_fake_reload(struct pb_fake *fake);
/*
 * As pb_fake_reload(), but the new generation is another build of the plugin: other callbacks,
 * and the state schema of `manifest` decides whether state is handed over.
 */
int pb_fake_reload_as(struct pb_fake *fake, const struct pb_manifest *manifest,
		      const struct pb_plugin *plugin);
/* Stops the plugin; maps and Kubernetes objects stay, its topic records are withdrawn. */
int pb_fake_unload(struct pb_fake *fake);

/* ---- life: single steps, in the order of a reload -------------------------------------- */

/* A new generation beside the current one, if any. -EBUSY: one is being prepared already. */
int pb_fake_prepare(struct pb_fake *fake);
/* The current generation's events are held back from here on. */
int pb_fake_quiesce(struct pb_fake *fake);
/* Keeps the current generation's state blob for pb_fake_restore(). */
int pb_fake_save(struct pb_fake *fake);
/* Hands the saved blob to the new generation; 0 when either side has no state. */
int pb_fake_restore(struct pb_fake *fake);
/* Replays topics and objects to the new generation and makes it the current one. */
int pb_fake_start(struct pb_fake *fake);
/* Stops the generation that was replaced, or the current one when none was. */
int pb_fake_stop(struct pb_fake *fake);
/* Calls the reload off: the new generation is dropped, the current one gets what was held. */
int pb_fake_resume(struct pb_fake *fake);
/* New configuration for the running generation: its reconfigure(). -ENOTSUP: it has none. */
int pb_fake_reconfigure(struct pb_fake *fake, const char *config);

/* The running generation's ctx->self, NULL when nothing runs. */
void *pb_fake_self(const struct pb_fake *fake);
/* The blob that pb_fake_save() or the last reload kept. NULL: none. */
const void *pb_fake_state(const struct pb_fake *fake, size_t *ret_len);
/* Replaces that blob, to show what restore() makes of an old or broken one. */
int pb_fake_state_set(struct pb_fake *fake, uint32_t schema, const void *data, size_t len);

/* ---- Kubernetes ------------------------------------------------------------------------ */

/*
 * Adds, replaces or deletes one object and tells the watchers of its kind (meta.kind). `event`
 * is PB_KUBE_PUT or PB_KUBE_DELETE. The object is not copied: it must stay valid until it has
 * been replaced or deleted, or the fake is freed; with a quiesced generation, until that one
 * was resumed or stopped. -ENOENT: delete of an object that isn't there.
 */
int pb_fake_kube(struct pb_fake *fake, uint32_t event, const struct pb_kube_meta *object);
/* The first full list of `kind` (enum pb_kube_kind) is complete. */
int pb_fake_kube_synced(struct pb_fake *fake, uint32_t kind);
/* The cluster doesn't serve `kind`. */
int pb_fake_kube_absent(struct pb_fake *fake, uint32_t kind);
/* The API version that SYNCED of `kind` tells from here on; "" until a test says another. */
int pb_fake_kube_version(struct pb_fake *fake, uint32_t kind, const char *api_version);
/* True when the running generation watches `kind`. */
bool pb_fake_kube_watched(const struct pb_fake *fake, uint32_t kind);

/* ---- topics ---------------------------------------------------------------------------- */

/* Publishes and withdraws as another plugin would; errors as host->publish(). */
int pb_fake_publish(struct pb_fake *fake, const char *topic, uint32_t version, const char *key,
		    const void *value, size_t len);
int pb_fake_withdraw(struct pb_fake *fake, const char *topic, const char *key);
int pb_fake_synced(struct pb_fake *fake, const char *name);
/* The retained value of a key, whoever published it. NULL: none. ret_len may be NULL. */
const void *pb_fake_topic_get(const struct pb_fake *fake, const char *topic, const char *key,
			      size_t *ret_len);
/* How many records are retained. */
size_t pb_fake_topic_count(const struct pb_fake *fake, const char *name);
/* True once a publisher has called synced(). */
bool pb_fake_topic_synced(const struct pb_fake *fake, const char *name);
/* Puts and withdrawals since the fake was made: shows that nothing was published twice. */
uint64_t pb_fake_topic_changes(const struct pb_fake *fake, const char *name);

/* ---- maps ------------------------------------------------------------------------------ */

/*
 * Says what the plugin's BPF objects would say: that a map `name` ("PLUGIN/MAP" for another
 * plugin's) exists, of what type (enum bpf_map_type: hash, LRU hash, array and their per-CPU
 * kinds) and size. Before the generation that uses it is prepared. -EEXIST, -ENOTSUP.
 */
int pb_fake_map_define(struct pb_fake *fake, const char *name, uint32_t type, uint32_t key_size,
		       uint32_t value_size, uint32_t max_entries);
/*
 * A defined array has BPF_F_MMAPABLE: host->map_memory() gives its memory. Before the generation
 * that uses it is prepared. -ENOENT: not defined. -ENOTSUP: not an array.
 */
int pb_fake_map_mappable(struct pb_fake *fake, const char *name);
/*
 * Looks into, fills and empties the map that the running generation uses; errors as the host's
 * map functions. -ENOENT also for a map that nobody has opened.
 */
int pb_fake_map_get(const struct pb_fake *fake, const char *name, const void *key, void *ret_value);
int pb_fake_map_put(struct pb_fake *fake, const char *name, const void *key, const void *value);
int pb_fake_map_del(struct pb_fake *fake, const char *name, const void *key);
/* Entries in the map; for an array its size. */
uint32_t pb_fake_map_count(const struct pb_fake *fake, const char *name);
/* Calls fn for every entry; for an array in order. A non-zero result ends it and is returned. */
int pb_fake_map_each(const struct pb_fake *fake, const char *name,
		     int (*fn)(void *arg, const void *key, const void *value), void *arg);
/*
 * Entries written and deleted by the plugin: shows that a change touches only what it must. What
 * is stored through map_memory() isn't counted.
 */
uint64_t pb_fake_map_writes(const struct pb_fake *fake, const char *name);

/* ---- BPF objects, slots, constants ----------------------------------------------------- */

/* The slot of this name on a hook (enum pb_hook) of the running generation. NULL: none. */
const struct pb_slot *pb_fake_slot(const struct pb_fake *fake, uint32_t hook, const char *name);
/* The value last given to host->bpf_const(). NULL: none. */
const void *pb_fake_const(const struct pb_fake *fake, const char *object, const char *name,
			  size_t *ret_len);

/* ---- ranges of addresses --------------------------------------------------------------- */

/* The identity of a range that some generation holds; 0: none does. */
uint32_t pb_fake_cidr(const struct pb_fake *fake, const struct pb_cidr *cidr);

/* ---- time, files, work, ring events ---------------------------------------------------- */

/*
 * Moves the clock of all fakes of this process, which starts at one hour, and runs the timers
 * of this one in the order in which they become due.
 */
void pb_fake_advance_ms(struct pb_fake *fake, uint64_t ms);
uint64_t pb_fake_now_ns(void);
/* Timers that the running generation has started and that aren't over. */
uint32_t pb_fake_timers(const struct pb_fake *fake);
/* Tells the watcher of fd that it is ready (PB_FD_*). -ENOENT: nobody watches it for that. */
int pb_fake_fd(struct pb_fake *fake, int fd, uint32_t events);
/*
 * For plugins that have real descriptors: asks the kernel which watched ones are ready, waiting for
 * at most timeout_ms (the fake's clock stands still), and tells their watchers. Returns how many
 * were told.
 */
int pb_fake_poll(struct pb_fake *fake, int timeout_ms);
/* How many file descriptors host->fd_keep() keeps; unloading closes them. */
uint32_t pb_fake_kept(const struct pb_fake *fake);
/* Hands a ring event to its subscribers; returns how many there were. */
int pb_fake_event(struct pb_fake *fake, const struct pb_event *event);

/* ---- what the plugin said -------------------------------------------------------------- */

/* The text of the last host->fail(), "" when there was none. */
const char *pb_fake_failure(const struct pb_fake *fake);
/*
 * All log lines so far, each "error: ...", "warn: ...", "info: ..." or "debug: ...". Timers and
 * watched files that stop() left behind are one more: "warn: generation N left ...".
 */
const char *pb_fake_log(const struct pb_fake *fake);
/* Forgets failure text and log. */
void pb_fake_log_clear(struct pb_fake *fake);
/* The value of a metric by its name without prefix; 0 when it doesn't exist. */
uint64_t pb_fake_metric(const struct pb_fake *fake, const char *name);
/*
 * Calls a command as `patchbay NAME ARGS...` would; *ret_json is its answer, to be freed with
 * free(). -ENOENT: the running generation has no such command.
 */
int pb_fake_command(struct pb_fake *fake, const char *name, const char *const *args,
		    uint32_t n_args, char **ret_json);

/* ---- failures on purpose --------------------------------------------------------------- */

/*
 * Makes the host function `function` (its name in struct pb_host, for example "map_update")
 * fail with `err`: once, after `skip` calls that succeed. -ENOENT: it can't fail in the fake.
 */
int pb_fake_fail(struct pb_fake *fake, const char *function, uint32_t skip, int err);

#ifdef __cplusplus
}
#endif
#endif
