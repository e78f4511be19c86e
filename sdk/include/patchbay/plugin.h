/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user side of the SDK: everything a Patchbay plugin calls and everything it exports.
 *
 * Owns the binary interface between the agent and a plugin. Two data symbols, both made by
 * PB_PLUGIN(), are all that a plugin exports; one function table, struct pb_host, is all that
 * it calls. No type of libuv, libbpf, cJSON, libcurl or mbedTLS ever appears here, and nothing
 * here is ever renumbered or reordered: tables and option structures grow at their end, a
 * plugin asks PB_HOST_HAS() before it calls a function newer than its own minor version.
 *
 * Rules that hold for every function unless its comment says otherwise:
 * - Thread: the agent's loop thread, which is also where every callback of a plugin runs. A
 *   callback must return within milliseconds; one that runs past its deadline is treated as a
 *   crash (the agent restarts itself, adopts its datapath and leaves the culprit out).
 * - Errors: 0 or a negative errno. Say the reason with host->fail(); the agent reports it once.
 * - Ownership: what a caller passes is copied if it is kept. What a callback receives is valid
 *   until it returns, unless said otherwise.
 * - Lifetime: everything a plugin obtains from the host belongs to its generation and is taken
 *   back by the host when the generation retires. A plugin starts no thread, installs no signal
 *   handler, keeps no global state (its state hangs off ctx->self) and calls no atexit().
 */
#ifndef PATCHBAY_PLUGIN_H
#define PATCHBAY_PLUGIN_H

#include <stdint.h>
#include <stddef.h>
#include <patchbay/abi.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PB_PRINTF(fmt_, args_) __attribute__((format(printf, fmt_, args_)))
#define PB_EXPORT __attribute__((visibility("default")))
#define PB_SECTION(name_) __attribute__((section(name_)))
#else
#define PB_PRINTF(fmt_, args_)
#define PB_EXPORT
#define PB_SECTION(name_)
#endif

struct pb_cidr; /* patchbay/kube.h */
struct pb_host;
struct pb_map;

/*
 * What a plugin is given in every callback. The host owns it; a plugin keeps its own state in
 * `self` and changes nothing else.
 */
struct pb_ctx {
	const struct pb_host *host;
	void *self;
};

/* Bytes that grow; owned by the host. Written by host->buf_append(). */
struct pb_buf;

/* ---- the manifest ---------------------------------------------------------------------- */

#define PB_MANIFEST_MAGIC "PATCHBAY" /* 8 bytes, without the NUL */
#define PB_MANIFEST_SECTION ".pb_manifest"
#define PB_NAME_MAX 32

/*
 * Flat, so that the agent can read it out of the ELF file before any code of the plugin runs.
 * `name` is lower case letters, digits and dashes. `requires` lists the names of plugins that
 * must be loaded too, separated by blanks.
 */
struct pb_manifest {
	char magic[8];
	uint32_t size; /* sizeof(struct pb_manifest) */
	uint16_t abi_major;
	uint16_t abi_minor;
	uint32_t state_schema;	   /* version of the blob that save() writes; 0: no state */
	uint32_t state_schema_min; /* oldest version that restore() accepts */
	char name[PB_NAME_MAX];
	char version[PB_NAME_MAX];
	char requires[128];
	uint8_t reserved[40]; /* zero */
};

/* ---- the callbacks --------------------------------------------------------------------- */

/* Saved state as restore() receives it. `schema` is that of the plugin that wrote it. */
struct pb_state {
	uint32_t size;
	uint32_t schema;
	const void *data;
	size_t len;
};

/*
 * The steps of a plugin's life, in order. Only prepare is mandatory. docs/design/
 * reload-protocol.md says what each failure does.
 */
struct pb_plugin {
	uint32_t size;	/* sizeof(struct pb_plugin) */
	uint32_t flags; /* 0 */
	/*
	 * Declare everything: parse host->config(), register BPF objects, slots, maps, topics,
	 * watches, timers and commands. Nothing is live yet: no subscription has fired, maps can't
	 * be used before restore(). An error drops this generation; an older one goes on serving.
	 */
	int (*prepare)(struct pb_ctx *ctx);
	/*
	 * Take over the state that the previous generation saved. Not called on a first load or
	 * when either side has no state. Maps may be used from here on. An error rolls back.
	 */
	int (*restore)(struct pb_ctx *ctx, const struct pb_state *in);
	/*
	 * The chains with this generation's programs are live, or become live right after on a
	 * first load. Subscriptions have been replayed before it. An error is reported; the
	 * generation stays loaded.
	 */
	int (*start)(struct pb_ctx *ctx);
	/*
	 * A successor is about to take over: from now on the host holds back this generation's
	 * events. The datapath keeps running. An error calls the reload off.
	 */
	int (*quiesce)(struct pb_ctx *ctx);
	/* Write the state blob with host->buf_append(). An error calls the reload off. */
	int (*save)(struct pb_ctx *ctx, struct pb_buf *out);
	/* The reload was called off after quiesce(): events that were held back follow. */
	void (*resume)(struct pb_ctx *ctx);
	/*
	 * The last callback: free `self`, stop timers, unwatch and close fds. Called for every
	 * generation whose prepare() returned 0; after a reload or an unload its programs are out
	 * of every chain. Never empty a persistent map here: a load that was called off shares it
	 * with the generation that goes on, a successor works with it already, and when the agent
	 * stops the programs stay in their chains and go on reading it.
	 */
	void (*stop)(struct pb_ctx *ctx);
	/*
	 * The plugin's section of the config file changed; `config` is its JSON, valid until
	 * stop(); host->config() gives it once it is in force. -ENOTSUP or NULL: the host reloads
	 * the plugin instead. Another error keeps the old configuration in force: what bpf_const()
	 * set is forgotten. Called a second time, with the old configuration, when the programs
	 * can't be loaded with the new constants.
	 */
	int (*reconfigure)(struct pb_ctx *ctx, const char *config);
};

/*
 * Exports a plugin, once in a shared object, outside of functions. What follows name and version
 * initialises struct pb_plugin. PB_PLUGIN_STATEFUL also names the version of the state that
 * save() writes and the oldest that restore() accepts; PB_PLUGIN_FULL the plugins it requires.
 *
 *   PB_PLUGIN("hello", "1.0.0", .prepare = hello_prepare)
 */
#define PB_PLUGIN(name_, version_, ...) PB_PLUGIN_FULL(name_, version_, 0, 0, "", __VA_ARGS__)

#define PB_PLUGIN_STATEFUL(name_, version_, schema_, schema_min_, ...)                             \
	PB_PLUGIN_FULL(name_, version_, schema_, schema_min_, "", __VA_ARGS__)

#define PB_PLUGIN_FULL(name_, version_, schema_, schema_min_, requires_, ...)                      \
	PB_EXPORT extern const struct pb_manifest pb_manifest_v1;                                  \
	PB_EXPORT extern const struct pb_plugin pb_plugin_v1;                                      \
	PB_EXPORT PB_SECTION(PB_MANIFEST_SECTION) const struct pb_manifest pb_manifest_v1 = {      \
		.magic = {'P', 'A', 'T', 'C', 'H', 'B', 'A', 'Y'},                                 \
		.size = sizeof(struct pb_manifest),                                                \
		.abi_major = PB_ABI_MAJOR,                                                         \
		.abi_minor = PB_ABI_MINOR,                                                         \
		.state_schema = (schema_),                                                         \
		.state_schema_min = (schema_min_),                                                 \
		.name = name_,                                                                     \
		.version = version_,                                                               \
		.requires = requires_,                                                             \
	};                                                                                         \
	PB_EXPORT const struct pb_plugin pb_plugin_v1 = {.size = sizeof(struct pb_plugin),         \
							 __VA_ARGS__}

/* ---- options --------------------------------------------------------------------------- */

enum pb_log_level {
	PB_LOG_ERROR = 0,
	PB_LOG_WARN = 1,
	PB_LOG_INFO = 2,
	PB_LOG_DEBUG = 3,
};

/* Pinned and reused by every later generation and by a restarted agent. The default. */
#define PB_MAP_PERSISTENT 0U
/* Created anew for each generation. */
#define PB_MAP_EPHEMERAL (1U << 0)
/* May be opened by other plugins by the name "PLUGIN/MAP". */
#define PB_MAP_SHARED (1U << 1)
/*
 * Since 1.2. Another plugin's shared map, for this object's programs: opts.name is the map's name
 * in this object, PLUGIN__MAP with two underscores (dashes of PLUGIN as underscores). Key and value
 * are compared member by member as with a pinned map; schema must be that of the owner's map. The
 * owner must be loaded (name it in the manifest's `requires`); when it is reloaded with another map
 * the chains of both are built anew. Such a plugin writes only where the map's header allows it.
 */
#define PB_MAP_BORROWED (1U << 2)

/* How the host treats one map of a BPF object. */
struct pb_map_opts {
	uint32_t size;
	uint32_t flags;	      /* PB_MAP_* */
	uint32_t schema;      /* version of key and value; 1 when the map isn't listed */
	uint32_t max_entries; /* 0: as compiled */
	const char *name;
};

/* One BPF object, as compiled by clang and embedded in the plugin. */
struct pb_bpf_object {
	uint32_t size;
	uint32_t n_maps;
	const char *name; /* unique inside the plugin */
	const void *elf;  /* must stay valid as long as the plugin is mapped */
	size_t elf_len;
	const struct pb_map_opts *maps; /* only those that differ from the default */
};

/* One program on one hook. Names are unique on a hook. */
struct pb_slot {
	uint32_t size;
	uint32_t hook;	     /* enum pb_hook */
	uint32_t band;	     /* enum pb_band */
	uint32_t flags;	     /* 0 */
	const char *name;    /* what before and after of others refer to */
	const char *object;  /* struct pb_bpf_object.name */
	const char *program; /* name of the C function */
	const char *before;  /* blank separated slot names of the same band, or NULL; */
	const char *after;   /* names that don't exist are ignored */
};

/* Values of struct pb_record.kind. */
enum pb_record_kind {
	PB_RECORD_PUT = 1,    /* key has a new value */
	PB_RECORD_DELETE = 2, /* key is gone; value is NULL */
	PB_RECORD_SYNCED = 3, /* everything known so far has been sent; key and value are NULL */
};

/*
 * One record of a topic as a subscriber sees it. Key and value stay valid until the subscriber
 * has been told of their replacement or removal, so a subscriber may keep the pointers.
 */
struct pb_record {
	uint32_t size;
	uint32_t kind;
	const char *key;
	const void *value;
	size_t len;
};

typedef void (*pb_topic_fn)(struct pb_ctx *ctx, void *arg, const struct pb_record *record);
typedef void (*pb_timer_fn)(struct pb_ctx *ctx, void *arg);
typedef void (*pb_fd_fn)(struct pb_ctx *ctx, void *arg, int fd, uint32_t events);
typedef int (*pb_work_fn)(void *arg);
typedef void (*pb_done_fn)(struct pb_ctx *ctx, void *arg, int result);
typedef void (*pb_event_fn)(struct pb_ctx *ctx, void *arg, const struct pb_event *event);

/* Kinds of Kubernetes objects that the core decodes; the structures are in patchbay/kube.h. */
enum pb_kube_kind {
	PB_KUBE_SERVICE = 1,
	PB_KUBE_ENDPOINTSLICE = 2,
	PB_KUBE_ENDPOINTS = 3,
	PB_KUBE_POD = 4,
	PB_KUBE_NODE = 5,
	PB_KUBE_NAMESPACE = 6,
};

/* Values of struct pb_kube_event.kind. */
enum pb_kube_event_kind {
	PB_KUBE_PUT = 1,
	PB_KUBE_DELETE = 2,
	/* The first full list has been delivered. Again when another version of the API is read. */
	PB_KUBE_SYNCED = 3,
	/*
	 * The source doesn't serve this kind: no object will come. Told before the deletions of
	 * what was there, so that a watcher can look elsewhere first.
	 */
	PB_KUBE_ABSENT = 4,
};

/*
 * One change of one object. `object` and `old` point to the structure of the kind (for example
 * struct pb_kube_service). An object stays valid until the watcher has been told of its
 * replacement or deletion, so a watcher may keep the pointer that long.
 */
struct pb_kube_event {
	uint32_t size;
	uint32_t kind;
	uint32_t object_kind;
	uint32_t reserved;
	const void *object; /* PUT: the new one; DELETE: the last one known */
	const void *old;    /* PUT: the one replaced, or NULL */
	/*
	 * Since 1.1. SYNCED: the version of the API that the list was read from, for example
	 * "discovery.k8s.io/v1beta1"; "" when the source has no versions. Else "".
	 */
	const char *api_version;
};

typedef void (*pb_kube_fn)(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event);

/*
 * Answers `patchbay NAME ARGS...`. Writes one JSON value to `out` with host->buf_append(): an
 * object {"columns":[{"title":"NAME","field":"name"},...],"items":[{...},...]} is shown as a
 * table (and the items by -o json), any other object as indented lines. On error, host->fail()
 * tells the user. A list that takes long comes in pages: with "next":"TEXT" beside the items the
 * tool asks again with one more argument, "--after=TEXT", and shows all as one. What a command
 * called "NAME status" says without arguments is in `patchbay status --verbose`, too.
 */
typedef int (*pb_command_fn)(struct pb_ctx *ctx, void *arg, const char *const *args,
			     uint32_t n_args, struct pb_buf *out);

struct pb_command {
	uint32_t size;
	uint32_t flags;	   /* 0 */
	const char *name;  /* two words, for example "service list" */
	const char *usage; /* arguments, for example "[NAMESPACE]", or "" */
	const char *help;  /* one line */
	pb_command_fn fn;
	void *arg;
};

enum pb_metric_kind {
	PB_METRIC_COUNTER = 1,
	PB_METRIC_GAUGE = 2,
};

/* host->fd_watch(): what to wait for, and what happened. */
#define PB_FD_READ (1U << 0)
#define PB_FD_WRITE (1U << 1)
#define PB_FD_GONE (1U << 2)

/* host->map_update*(): as the kernel's BPF_ANY, BPF_NOEXIST and BPF_EXIST (linux/bpf.h). */
#define PB_MAP_ANY 0U
#define PB_MAP_NOEXIST 1U
#define PB_MAP_EXIST 2U

/* What host->map_info() tells. Sizes in bytes. */
struct pb_map_info {
	uint32_t size; /* set it to sizeof(struct pb_map_info) before the call */
	uint32_t key_size;
	uint32_t value_size; /* per-CPU maps: of one CPU's value, rounded up to 8 */
	uint32_t max_entries;
	uint32_t type;	  /* enum bpf_map_type */
	uint32_t n_cpus;  /* values per key: possible CPUs for per-CPU maps, else 1 */
	int32_t fd;	  /* owned by the host; -1 with the fake host */
	uint32_t adopted; /* 1: existed before this agent process started */
};

/* True when the running host is new enough to have `field_`. */
#define PB_HOST_HAS(host_, field_)                                                                 \
	((host_)->size >= offsetof(struct pb_host, field_) + sizeof((host_)->field_) &&            \
	 (host_)->field_ != NULL)

/* ---- the host -------------------------------------------------------------------------- */

struct pb_host {
	uint32_t size; /* bytes of this table that the running host knows */
	uint16_t abi_major;
	uint16_t abi_minor;

	/* Writes one line to the agent's log, tagged with plugin and generation. Any thread. */
	void (*log)(struct pb_ctx *ctx, uint32_t level, const char *fmt, ...) PB_PRINTF(3, 4);
	/*
	 * Keeps the reason of a failure for whoever is told of it and returns `err`, so that
	 * `return host->fail(ctx, -EINVAL, "...")` is one statement. The last call counts.
	 */
	int (*fail)(struct pb_ctx *ctx, int err, const char *fmt, ...) PB_PRINTF(3, 4);

	/*
	 * The plugin's section of the config file as JSON text, "{}" when empty; after a
	 * reconfiguration the new text. Valid until stop() has returned. Any callback.
	 */
	const char *(*config)(struct pb_ctx *ctx);
	/* Name of this node as Kubernetes knows it. Valid until stop() has returned. */
	const char *(*node_name)(struct pb_ctx *ctx);

	/*
	 * Registers an embedded BPF object. prepare() only. Its maps are created or reused after
	 * prepare(), its programs are loaded once per chain they take part in.
	 * -EEXIST: the name is taken. -EINVAL: unknown bits in the options.
	 */
	int (*bpf_object)(struct pb_ctx *ctx, const struct pb_bpf_object *opts);
	/*
	 * Sets a `const volatile` global of a registered object for all later loads. prepare() or
	 * reconfigure(). The core checks name and size when it loads: a wrong one fails the load.
	 */
	int (*bpf_const)(struct pb_ctx *ctx, const char *object, const char *name,
			 const void *value, uint32_t len);
	/* Puts a program on a hook. prepare() only. -ENOENT: no such object. */
	int (*slot)(struct pb_ctx *ctx, const struct pb_slot *opts);

	/*
	 * A handle to a map: one of the plugin's objects by its name, another plugin's shared map
	 * as "PLUGIN/MAP". prepare() only; the handle can be used from restore() on, or from the
	 * first subscription callback. Valid until stop() has returned. That there is no such map
	 * (-ENOENT) or that it isn't shared (-EACCES) is found out after prepare().
	 */
	int (*map)(struct pb_ctx *ctx, const char *name, struct pb_map **ret_map);
	/*
	 * The map functions may be called from the loop thread and from work functions. Keys and
	 * values have the sizes of the map; a value of a per-CPU map is n_cpus values of
	 * value_size each. Errors are those of bpf(2): -ENOENT, -EEXIST, -E2BIG (full); -ENXIO
	 * before the map exists. map_info() fills as much as ret_info->size says and sets it to
	 * what the host knows; -EINVAL when it isn't set.
	 */
	int (*map_info)(struct pb_map *map, struct pb_map_info *ret_info);
	int (*map_lookup)(struct pb_map *map, const void *key, void *ret_value);
	int (*map_update)(struct pb_map *map, const void *key, const void *value, uint64_t flags);
	int (*map_delete)(struct pb_map *map, const void *key);
	/* The key after `key` (NULL: the first). -ENOENT at the end. */
	int (*map_next)(struct pb_map *map, const void *key, void *ret_key);
	/*
	 * Writes or deletes n entries with as few system calls as the kernel allows. *ret_done, if
	 * not NULL, says how many were done, also after an error.
	 */
	int (*map_update_batch)(struct pb_map *map, const void *keys, const void *values,
				uint32_t n, uint64_t flags, uint32_t *ret_done);
	int (*map_delete_batch)(struct pb_map *map, const void *keys, uint32_t n,
				uint32_t *ret_done);

	/*
	 * A number for an event type of this plugin, the same for all generations. prepare() only.
	 * -EINVAL: no name.
	 */
	int (*event_type)(struct pb_ctx *ctx, const char *name, uint16_t *ret_type);
	/*
	 * Calls fn for every ring event of `type`, PB_EVENT_* or the number of event_type(), once
	 * this generation is live; up to 4096 that arrive during the swap are kept for it. From
	 * prepare() to quiesce(). The event is valid until fn returns.
	 */
	int (*event_subscribe)(struct pb_ctx *ctx, uint16_t type, pb_event_fn fn, void *arg);

	/*
	 * Topics: named, versioned, retained records. Subscribers are told of records in the order
	 * of their last publication, also in a replay. A record that changes again before a
	 * subscriber was told of it goes to the end of what that one is owed and is told once, as
	 * it is then: so one that is published again and again faster than subscribers are served
	 * (1 ms a turn of the loop) reaches them when the others have, in its latest form.
	 * publish() replaces the record of `key`; withdraw() removes it (-ENOENT: there was none);
	 * synced() tells subscribers that all of a first full view has been published: SYNCED comes
	 * behind every record that a subscriber was owed at that time, and doesn't wait for later
	 * ones. Records of a retired generation stay until its
	 * successor has called synced(), then those it didn't publish are withdrawn by the host.
	 * From prepare() to quiesce(); what is published before start() is unseen until then and
	 * forgotten if the load is called off. Subscribers are told later, never inside the call.
	 * -EEXIST: another plugin publishes this key. -EPROTO: the topic has another version.
	 * -EINVAL: empty topic or key, version 0. -EPERM: not in this step.
	 */
	int (*publish)(struct pb_ctx *ctx, const char *topic, uint32_t version, const char *key,
		       const void *value, size_t len);
	int (*withdraw)(struct pb_ctx *ctx, const char *topic, const char *key);
	int (*synced)(struct pb_ctx *ctx, const char *topic);
	/*
	 * Subscribes to a topic. prepare() only. What is retained is replayed between restore()
	 * and start(), ending with SYNCED if the publisher has synced.
	 * -EPROTO (after prepare()): the topic is published with another major version.
	 */
	int (*subscribe)(struct pb_ctx *ctx, const char *topic, uint32_t version, pb_topic_fn fn,
			 void *arg);

	/*
	 * Watches one kind of Kubernetes object. prepare() only; what the store holds is replayed
	 * like a topic's records.
	 */
	int (*kube_watch)(struct pb_ctx *ctx, uint32_t kind, pb_kube_fn fn, void *arg);

	/*
	 * Calls fn once after delay_ms, then every repeat_ms unless that is 0. *ret_id, if not
	 * NULL, is for timer_stop(). Milliseconds of CLOCK_MONOTONIC. Timers, fds and work: from
	 * prepare() on until stop() is called; nothing of them is called before start() nor while
	 * the generation is quiesced, a timer that becomes due meanwhile fires once afterwards.
	 * -EINVAL: no function. -EPERM: in stop().
	 */
	int (*timer_start)(struct pb_ctx *ctx, uint64_t delay_ms, uint64_t repeat_ms,
			   pb_timer_fn fn, void *arg, uint32_t *ret_id);
	/* -ENOENT: not running. A timer may stop itself in its callback. */
	int (*timer_stop)(struct pb_ctx *ctx, uint32_t id);
	/*
	 * Calls fn when fd is ready (PB_FD_*), again and again as long as it is. PB_FD_GONE is
	 * always told, asked for or not: unwatch then. The plugin owns fd and calls fd_unwatch()
	 * before it closes it; fn may do so. -EEXIST: this generation watches it already.
	 * fd_unwatch(): -ENOENT: it isn't watched.
	 */
	int (*fd_watch)(struct pb_ctx *ctx, int fd, uint32_t events, pb_fd_fn fn, void *arg);
	int (*fd_unwatch)(struct pb_ctx *ctx, int fd);
	/*
	 * Runs fn(arg) on the thread pool and then done(ctx, arg, result of fn) on the loop. fn may
	 * call map functions and log only. A generation isn't unmapped while its work runs; up to
	 * four work functions of all plugins run at once, the others wait. When the generation
	 * retires, done() is told -ECANCELED for work that hasn't begun and for work whose end it
	 * hasn't heard of, before stop(), so that `arg` can be freed. `done` may be NULL.
	 */
	int (*work)(struct pb_ctx *ctx, pb_work_fn fn, pb_done_fn done, void *arg);

	/*
	 * A metric named patchbay_plugin_<plugin>_<name>, dashes as underscores; its value is kept
	 * over generations by its name, and lost with the agent's process. Any callback.
	 * metric_add() and metric_set() may be called from any thread and ignore unknown ids.
	 * -EINVAL: not lower case letters, digits and underscores. -EEXIST: of another kind, or
	 * another plugin's. -ENOSPC: the agent has 1024.
	 */
	int (*metric)(struct pb_ctx *ctx, uint32_t kind, const char *name, const char *help,
		      uint32_t *ret_id);
	void (*metric_add)(struct pb_ctx *ctx, uint32_t id, uint64_t n);
	void (*metric_set)(struct pb_ctx *ctx, uint32_t id, uint64_t value);

	/*
	 * Adds a command to the `patchbay` tool. prepare() only. -EEXIST: the name is taken.
	 * -EINVAL: no name or function, or flags.
	 */
	int (*command)(struct pb_ctx *ctx, const struct pb_command *opts);
	/* Appends to a buffer of the host, in the callback that was given it. -ENOMEM. */
	int (*buf_append)(struct pb_buf *buf, const void *data, size_t len);

	/* The same clock as struct pb_event.time_ns: CLOCK_MONOTONIC. Any thread. */
	uint64_t (*now_ns)(void);

	/* ---- since ABI 1.1 ---- */

	/*
	 * As kube_watch(), but from start() to quiesce(): for what only events can decide. The
	 * replay comes later, from the loop. A successor prepared meanwhile declares its own.
	 * -EINVAL: no such kind. -EPERM: not in this step.
	 */
	int (*kube_watch_open)(struct pb_ctx *ctx, uint32_t kind, pb_kube_fn fn, void *arg,
			       uint32_t *ret_id);
	/*
	 * Ends a watch of kube_watch_open(), also from inside its callback; any callback. Objects
	 * that it brought are invalid from then on. A watch that is left open is closed when the
	 * generation retires. -ENOENT: no such watch.
	 */
	int (*kube_watch_close)(struct pb_ctx *ctx, uint32_t id);
	/*
	 * The memory of an array map that was declared with BPF_F_MMAPABLE (linux/bpf.h): elements
	 * of value_size rounded up to 8 bytes, one behind the other. Programs see a store at once;
	 * an aligned store of up to 8 bytes is seen whole or not at all, which map_update() doesn't
	 * promise. From restore() on, valid until stop() has returned. Any thread.
	 * -EOPNOTSUPP: another kind of map. -ENXIO: before the map exists.
	 */
	int (*map_memory)(struct pb_map *map, void **ret_memory, size_t *ret_len);
	/*
	 * The identity of a range of addresses that no pod and no node has, the same number for
	 * equal ranges; programs find it in the ipcache (patchbay/bpf.h). Counted: each hold wants
	 * a release; what a generation holds is released when it retires, after its successor's
	 * start(), so a range that both hold keeps its number. The number may be used once the call
	 * has returned. From prepare() to quiesce(). -ENOSPC: no number or no room left in the
	 * ipcache. -EINVAL: bits outside of the prefix, or no such family. -ENOENT: released more
	 * often than held. -EOPNOTSUPP: this agent has no ipcache.
	 */
	int (*cidr_hold)(struct pb_ctx *ctx, const struct pb_cidr *cidr, uint32_t *ret_identity);
	int (*cidr_release)(struct pb_ctx *ctx, const struct pb_cidr *cidr);

	/* ---- since ABI 1.2 ---- */

	/*
	 * Keeps a duplicate of a file descriptor, for example of a listening socket, under a name
	 * of this plugin, so that a later generation goes on with it and no connection that waits
	 * in it is lost. It is closed when fd_drop() is called, when the plugin is unloaded or when
	 * the agent ends. Keeping another one under the same name replaces it. From start() until
	 * stop().
	 * -EINVAL: no name. -EMFILE: 1024 are kept, or the process has no more.
	 */
	int (*fd_keep)(struct pb_ctx *ctx, const char *name, int fd);
	/*
	 * *ret_fd is a new duplicate of what is kept; the caller closes it. Any callback.
	 * -ENOENT: nothing is kept under that name.
	 */
	int (*fd_kept)(struct pb_ctx *ctx, const char *name, int *ret_fd);
	/* Closes what is kept. From start() until stop(). -ENOENT: nothing is kept by that name. */
	int (*fd_drop)(struct pb_ctx *ctx, const char *name);
};

#ifndef __cplusplus
_Static_assert(sizeof(struct pb_manifest) == 256, "the manifest's layout is ABI");
_Static_assert(sizeof(struct pb_ctx) == 2 * sizeof(void *), "struct pb_ctx is ABI");
_Static_assert(sizeof(void *) != 8 || sizeof(struct pb_plugin) == 72, "struct pb_plugin is ABI");
_Static_assert(sizeof(void *) != 8 || offsetof(struct pb_host, now_ns) == 264,
	       "struct pb_host grows at its end only");
_Static_assert(sizeof(void *) != 8 || (offsetof(struct pb_host, kube_watch_open) == 272 &&
				       offsetof(struct pb_host, kube_watch_close) == 280 &&
				       offsetof(struct pb_host, map_memory) == 288 &&
				       offsetof(struct pb_host, cidr_hold) == 296 &&
				       offsetof(struct pb_host, cidr_release) == 304),
	       "struct pb_host of ABI 1.1");
_Static_assert(sizeof(void *) != 8 || (offsetof(struct pb_host, fd_keep) == 312 &&
				       offsetof(struct pb_host, fd_kept) == 320 &&
				       offsetof(struct pb_host, fd_drop) == 328),
	       "struct pb_host of ABI 1.2");
_Static_assert(sizeof(void *) != 8 || offsetof(struct pb_kube_event, api_version) == 32,
	       "struct pb_kube_event grows at its end only");
#endif

#ifdef __cplusplus
}
#endif
#endif
