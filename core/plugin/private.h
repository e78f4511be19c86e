/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this room share: the manager, a plugin, its generations, their handles.
 *
 * Owns the structures only. Nothing outside core/plugin includes this. Loop thread only unless
 * a comment says [pool] or "any thread".
 */
#ifndef PB_PLUGIN_PRIVATE_H
#define PB_PLUGIN_PRIVATE_H

#include <stdatomic.h>

#include <uthash.h>
#include <utlist.h>

#include <plugin/crash.h>
#include <plugin/manager.h>

#define PB_SLOW_NS 10000000ULL		/* a callback that runs longer is named in the log */
#define PB_SLICE_NS 1000000ULL		/* records are delivered in slices of this length */
#define PB_REPLAY_MAX_NS 30000000000ULL /* then a load whose replay hasn't ended is off */
#define PB_GOOD_AFTER_NS 10000000000ULL /* a file that ran this long is the last good one */
#define PB_LINGER_MAX 4			/* generations that may wait to be unmapped */
#define PB_HELD_MAX 4096		/* ring events kept back for one generation */
#define PB_METRICS_MAX 1024
#define PB_KEPT_MAX 1024    /* fds kept for one plugin */
#define PB_POOL_THREADS "8" /* of libuv's pool, for operations, work and name look-ups */
#define PB_WORKS_MAX 4	    /* of them for plugins' work, so that operations never wait */

enum pb_gen_state {
	PB_GEN_STAGED = 0, /* mapped, no callback has run */
	PB_GEN_PREPARING,  /* inside prepare() */
	PB_GEN_PREPARED,   /* prepare() returned 0; maps and chains are being built */
	PB_GEN_TAKEOVER,   /* inside restore() or being replayed; maps can be used */
	PB_GEN_LIVE,
	PB_GEN_QUIESCED, /* a successor is taking over: events are kept back */
	PB_GEN_RETIRING, /* out of every chain; waits for its work to end */
	PB_GEN_STOPPED,	 /* no callback will ever run again */
};

struct pb_generation;
struct pb_plugin_entry;

struct pb_host_timer {
	uv_timer_t uv;
	struct pb_generation *gen;
	uint32_t id;
	uint64_t repeat_ms;
	pb_timer_fn fn;
	void *arg;
	bool due; /* fired while events were kept back */
	struct pb_host_timer *prev, *next;
};

struct pb_host_fd {
	uv_poll_t uv;
	struct pb_generation *gen;
	int fd;
	uint32_t events;
	pb_fd_fn fn;
	void *arg;
	struct pb_host_fd *prev, *next;
};

struct pb_host_work {
	uv_work_t uv;
	struct pb_generation *gen;
	pb_work_fn fn;
	pb_done_fn done;
	void *arg;
	int result;
	bool queued;   /* handed to the thread pool */
	bool finished; /* fn has returned; done() is still owed */
	struct pb_host_work *prev, *next;
};

struct pb_host_kube {
	struct pb_generation *gen;
	uint32_t kind;
	uint32_t id; /* of kube_watch_open(); 0: declared in prepare() */
	pb_kube_fn fn;
	void *arg;
	struct pb_kube_watch *watch;
	struct pb_host_kube *next;
};

struct pb_host_event_sub {
	struct pb_generation *gen;
	uint16_t type;
	pb_event_fn fn;
	void *arg;
	struct pb_host_event_sub *next;
};

struct pb_held_event {
	struct pb_held_event *prev, *next;
	uint64_t event[]; /* struct pb_event, aligned */
};

/* A command as one generation declared it. */
struct pb_host_command {
	char *name, *usage, *help;
	pb_command_fn fn;
	void *arg;
	struct pb_host_command *next;
};

struct pb_host_slot {
	uint32_t hook, band;
	char *name, *object, *program, *before, *after;
	struct pb_host_slot *next;
};

struct pb_host_object {
	char *name;
	struct pb_dp_object *dp;
	struct pb_host_object *next;
};

struct pb_host_map {
	struct pb_map *map;
	struct pb_host_map *next;
};

/* Configuration texts handed out stay valid until stop(). */
struct pb_host_config {
	char *json;
	struct pb_host_config *next;
};

/* What a generation published before it was live: the last word on each key. */
struct pb_pending {
	char *id; /* topic, NUL, key */
	size_t id_len;
	const char *topic, *key; /* into id */
	uint32_t version;
	bool withdraw;
	void *value;
	size_t len;
	UT_hash_handle hh;
};

struct pb_pending_sync {
	struct pb_pending_sync *next;
	char topic[];
};

struct pb_generation {
	struct pb_ctx ctx; /* first: a plugin's ctx is its generation */
	struct pb_manager *manager;
	struct pb_plugin_entry *plugin;
	uint32_t number;
	enum pb_gen_state state;
	struct pb_manifest manifest;
	char *source; /* the file asked for */
	char *staged; /* the private copy that is mapped */
	uint64_t hash;
	void *dl;
	const struct pb_plugin *code;
	struct pb_crash_culprit *culprit;
	struct pb_err fail; /* host->fail() of the running callback */

	bool hold_data;	    /* topics and kube */
	bool hold_events;   /* timers, fds, work, ring events, commands */
	bool collect;	    /* keep ring events for release; else drop them while held */
	bool consts_dirty;  /* bpf_const() in reconfigure(): programs must be loaded again */
	bool reconfiguring; /* inside reconfigure() */
	bool prepared;	    /* prepare() returned 0, so stop() is owed */
	uint64_t live_ns;   /* when start() returned */
	uint64_t slow_calls;
	char leak[160]; /* what it left behind when it stopped */

	struct pb_host_config *configs; /* newest first */
	struct pb_host_object *objects;
	struct pb_host_slot *slots;
	struct pb_host_map *maps;
	struct pb_host_timer *timers;
	struct pb_host_fd *fds;
	struct pb_host_work *works;
	struct pb_host_kube *kube;
	struct pb_host_event_sub *event_subs;
	struct pb_held_event *held_events;
	unsigned n_held, n_held_lost;
	struct pb_host_command *commands;
	struct pb_pending *pending;
	struct pb_pending_sync *pending_syncs;
	struct pb_topic_sub *subs; /* topic.h */
	bool cidrs_held;	   /* cidr_hold() succeeded once */
	uint32_t next_timer;
	uint32_t next_kube;
	unsigned works_running;
	struct pb_generation *next_lingering;
};

/* A duplicate of a plugin's file descriptor, over its generations. */
struct pb_kept_fd {
	char *name;
	int fd;
	UT_hash_handle hh;
};

/* A plugin by name, over all its generations. */
struct pb_plugin_entry {
	char *name;
	char *path; /* where the live generation was read from */
	struct pb_generation *live;
	struct pb_generation *next_gen; /* being loaded */
	struct pb_kept_fd *kept;	/* host->fd_keep() */
	char last_error[1024];
	uint64_t swap_ns;
	uint64_t flip_ns;
	uint64_t since_ms; /* wall clock of the last change of state */
	uint32_t generations;
	uint64_t slow_calls;
	char leak[160]; /* what a stopped generation left behind */
	bool left_out;
	bool failed;
	bool marked_good;
	struct pb_plugin_entry *next;
};

struct pb_metric {
	struct pb_plugin_entry *owner;
	enum pb_metric_kind kind;
	char *name, *help;
	_Atomic uint64_t value;
};

/* A command name given to the control socket. */
struct pb_command_entry {
	char *name, *usage, *help;
	struct pb_manager *manager;
	struct pb_plugin_entry *owner;
	struct pb_command_entry *next;
};

struct pb_command_request {
	struct pb_request *req;
	struct pb_command_entry *entry;
	const char *const *args;
	uint32_t n_args;
	struct pb_command_request *next;
};

struct pb_event_name {
	char *name;
	uint16_t type;
	struct pb_event_name *next;
};

/* A callback that this plugin has; older plugins have a shorter struct pb_plugin. */
#define PB_CODE_HAS(code_, field_)                                                                 \
	((code_)->size >= offsetof(struct pb_plugin, field_) + sizeof((code_)->field_) &&          \
	 (code_)->field_ != NULL)

struct pb_op;
struct pb_apply;
struct pb_topic;

struct pb_manager {
	struct pb_manager_env env;
	const struct pb_config *config;
	char *node_name;
	struct pb_plugin_entry *plugins;
	struct pb_generation *lingering;
	unsigned n_lingering;
	unsigned works_running;

	struct pb_op *ops; /* the running one first */
	bool op_running;
	struct pb_op *finishing;   /* whose done function runs */
	struct pb_apply *applying; /* the running one first */
	bool first_apply; /* chains are built once, after all plugins of the configuration */

	struct pb_topic *topics;
	struct pb_topic_sub *dead_subs; /* of generations that are gone, to be freed */
	uv_idle_t pump;
	struct pb_command_entry *commands;
	struct pb_command_request *requests;
	struct pb_event_name *event_names;
	bool drops_observed;
	struct pb_generation *core; /* publishes for the core; made when it first does */
	_Atomic(struct pb_metric *) metrics[PB_METRICS_MAX];
	_Atomic uint32_t n_metrics;

	uv_timer_t good_timer;
	char *stage_dir;
	struct pb_crash_record *crashes;
	unsigned handles; /* of ours on the loop, closing ones included */
	bool close_wanted, closing;
	pb_manager_done_fn closed;
	void *closed_arg;
};

static inline struct pb_generation *pb_gen(struct pb_ctx *ctx)
{
	return (struct pb_generation *)ctx;
}

/* ---- generation.c ---- */
/* NULL: fine. Returns NULL. */
struct pb_host_config *pb_host_config_free(struct pb_host_config *config);
struct pb_generation *pb_gen_new(struct pb_manager *m, struct pb_plugin_entry *plugin,
				 const char *config);
/*
 * Takes back everything the generation obtained and unmaps it; notes in ->leak what stop()
 * should have ended. Its work must have ended.
 */
void pb_gen_free(struct pb_generation *gen);
/* Runs stop() and frees, now or when its last work function has returned. */
void pb_gen_retire(struct pb_generation *gen);
/* Called when a work function of a retiring generation has ended. */
void pb_gen_linger_check(struct pb_generation *gen);
void pb_gen_hold(struct pb_generation *gen);	/* quiesce: data and events */
void pb_gen_release(struct pb_generation *gen); /* live, or live again */
bool pb_gen_replayed(const struct pb_generation *gen);
int pb_gen_watch(struct pb_generation *gen, struct pb_err *err); /* starts data */
uint32_t pb_gen_hooks(const struct pb_generation *gen);
/* What bpf_const() set since the last call stays in force, or never was. */
void pb_gen_keep_consts(struct pb_generation *gen, bool keep);

/* A callback of a plugin: the marker is set, the clock runs. */
struct pb_call {
	uint64_t start_ns;
	struct pb_crash_call saved;
};
void pb_call_enter(struct pb_generation *gen, enum pb_crash_step step, struct pb_call *call);
void pb_call_leave(struct pb_generation *gen, enum pb_crash_step step, struct pb_call *call);
/* Turns a step's result into an error text: what host->fail() said, or that it said nothing. */
int pb_call_result(struct pb_generation *gen, const char *step, int rc, struct pb_err *err);

/* ---- stage.c ---- */
/* [pool] Checks, copies, inspects the copy and maps it. */
int pb_stage(struct pb_generation *gen, struct pb_err *err);
void pb_stage_drop(struct pb_generation *gen); /* dlclose and remove the copy unless good */
int pb_stage_open(struct pb_manager *m, struct pb_err *err); /* directory, left-over copies */
int pb_stage_mark_good(struct pb_manager *m, const char *name, const char *staged);
char *pb_stage_good(struct pb_manager *m, const char *name);		     /* path or NULL */
int pb_stage_hash(const char *path, uint64_t *ret_hash, struct pb_err *err); /* [pool] */

/* ---- the host's functions, by file ---- */
extern const struct pb_host pb_host_table;
int pb_host_wrong_step(struct pb_generation *gen, const char *function, const char *steps);
/*
 * Copies an options structure of a plugin, whose minor version may be another one: what it lacks
 * is zero. -EINVAL: shorter than it ever was, or longer than what we know and not zero there.
 */
int pb_host_opts(void *ret_opts, size_t len, size_t len_1_0, const void *opts);

int pb_host_bpf_object(struct pb_ctx *ctx, const struct pb_bpf_object *opts);
int pb_host_bpf_const(struct pb_ctx *ctx, const char *object, const char *name, const void *value,
		      uint32_t len);
int pb_host_slot_add(struct pb_ctx *ctx, const struct pb_slot *opts);
int pb_host_map_open(struct pb_ctx *ctx, const char *name, struct pb_map **ret_map);
void pb_host_bpf_free(struct pb_generation *gen);

int pb_host_event_type(struct pb_ctx *ctx, const char *name, uint16_t *ret_type);
int pb_host_event_subscribe(struct pb_ctx *ctx, uint16_t type, pb_event_fn fn, void *arg);
void pb_host_event(void *manager, const struct pb_event *event); /* pb_dp_event_fn */
void pb_host_events_release(struct pb_generation *gen);
void pb_host_events_drop_held(struct pb_generation *gen);
void pb_host_events_free(struct pb_generation *gen);
void pb_host_events_observe(struct pb_manager *m);

int pb_host_publish(struct pb_ctx *ctx, const char *topic, uint32_t version, const char *key,
		    const void *value, size_t len);
int pb_host_withdraw(struct pb_ctx *ctx, const char *topic, const char *key);
int pb_host_synced(struct pb_ctx *ctx, const char *topic);
int pb_host_subscribe(struct pb_ctx *ctx, const char *topic, uint32_t version, pb_topic_fn fn,
		      void *arg);
/* Puts into force what was published before the generation was live. */
void pb_host_pending_apply(struct pb_generation *gen);
void pb_host_pending_free(struct pb_generation *gen);

int pb_host_kube_watch(struct pb_ctx *ctx, uint32_t kind, pb_kube_fn fn, void *arg);
int pb_host_kube_open(struct pb_ctx *ctx, uint32_t kind, pb_kube_fn fn, void *arg,
		      uint32_t *ret_id);
int pb_host_kube_close(struct pb_ctx *ctx, uint32_t id);
int pb_host_kube_start(struct pb_generation *gen, struct pb_err *err);
void pb_host_kube_free(struct pb_generation *gen);

int pb_host_cidr_hold(struct pb_ctx *ctx, const struct pb_cidr *cidr, uint32_t *ret_identity);
int pb_host_cidr_release(struct pb_ctx *ctx, const struct pb_cidr *cidr);
void pb_host_cidr_free(struct pb_generation *gen);

int pb_host_fd_keep(struct pb_ctx *ctx, const char *name, int fd);
int pb_host_fd_kept(struct pb_ctx *ctx, const char *name, int *ret_fd);
int pb_host_fd_drop(struct pb_ctx *ctx, const char *name);
/* Closes all that is kept for a plugin. */
void pb_host_kept_free(struct pb_plugin_entry *plugin);

int pb_host_timer_start(struct pb_ctx *ctx, uint64_t delay_ms, uint64_t repeat_ms, pb_timer_fn fn,
			void *arg, uint32_t *ret_id);
int pb_host_timer_stop(struct pb_ctx *ctx, uint32_t id);
int pb_host_fd_watch(struct pb_ctx *ctx, int fd, uint32_t events, pb_fd_fn fn, void *arg);
int pb_host_fd_unwatch(struct pb_ctx *ctx, int fd);
int pb_host_work_start(struct pb_ctx *ctx, pb_work_fn fn, pb_done_fn done, void *arg);
void pb_host_loop_hold(struct pb_generation *gen);
void pb_host_loop_release(struct pb_generation *gen);
/* Ends work that never started, tells done() of work that ended: -ECANCELED. */
void pb_host_work_cancel(struct pb_generation *gen);
void pb_host_loop_leaks(struct pb_generation *gen);
void pb_host_loop_free(struct pb_generation *gen);

int pb_host_metric(struct pb_ctx *ctx, uint32_t kind, const char *name, const char *help,
		   uint32_t *ret_id);
void pb_host_metric_add(struct pb_ctx *ctx, uint32_t id, uint64_t n);
void pb_host_metric_set(struct pb_ctx *ctx, uint32_t id, uint64_t value);
void pb_host_metrics_free(struct pb_manager *m);

int pb_host_command(struct pb_ctx *ctx, const struct pb_command *opts);
/* Names follow the live generation. */
void pb_host_commands_commit(struct pb_plugin_entry *plugin, struct pb_manager *m);
void pb_host_commands_run(struct pb_manager *m); /* requests that waited */
void pb_host_commands_free(struct pb_generation *gen);
void pb_host_commands_close(struct pb_manager *m);

/* ---- core_topics.c ---- */
void pb_core_topics_free(struct pb_manager *m);

/* ---- manager.c, ops.c ---- */
struct pb_plugin_entry *pb_plugin_find(struct pb_manager *m, const char *name);
struct pb_plugin_entry *pb_plugin_get(struct pb_manager *m, const char *name); /* makes it */
const struct pb_config_plugin *pb_config_plugin_find(const struct pb_config *config,
						     const char *name);
void pb_manager_check_closed(struct pb_manager *m);
void pb_manager_handle_closed(uv_handle_t *handle); /* uv_close_cb for handles in the manager */
void pb_manager_good_later(struct pb_manager *m);

#endif
