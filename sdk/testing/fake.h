/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the fake host: what its files share.
 *
 * Owns struct pb_fake and struct fake_gen, one generation of the plugin. A test's call is the
 * only thing that ever runs plugin code: host functions put tasks into fake->tasks and the
 * driving pb_fake_* function runs them with fake_drain() before it returns.
 */
#ifndef PB_FAKE_H
#define PB_FAKE_H

#include <uthash.h>
#include <utlist.h>

#include <base/base.h>
#include <patchbay/testing.h>

enum fake_phase {
	FAKE_PREPARING, /* inside prepare() */
	FAKE_PREPARED,	/* nothing is delivered yet */
	FAKE_RUNNING,
	FAKE_QUIESCED, /* what comes is held back */
};

struct fake_object {
	char *name;
	struct pb_map_opts *maps;
	uint32_t n_maps;
	struct fake_object *next;
};

struct fake_const {
	char *object;
	char *name;
	void *value;
	size_t len;
	struct fake_const *next;
};

struct fake_slot {
	struct pb_slot slot; /* strings are copies */
	struct fake_slot *next;
};

struct fake_sub {
	struct fake_gen *gen;
	char *topic;
	uint32_t version;
	pb_topic_fn fn;
	void *arg;
	struct fake_sub *next;
};

struct fake_watch {
	struct fake_gen *gen;
	uint32_t kind;
	uint32_t id; /* of kube_watch_open(); 0: declared in prepare() */
	pb_kube_fn fn;
	void *arg;
	struct fake_watch *next;
};

struct fake_event_sub {
	uint16_t type;
	pb_event_fn fn;
	void *arg;
	struct fake_event_sub *next;
};

struct fake_timer {
	uint32_t id;
	uint64_t due_ns;
	uint64_t repeat_ns;
	pb_timer_fn fn;
	void *arg;
	struct fake_timer *next;
};

struct fake_fd {
	int fd;
	uint32_t events;
	pb_fd_fn fn;
	void *arg;
	struct fake_fd *next;
};

struct fake_command {
	struct pb_command command; /* strings are copies */
	struct fake_command *next;
};

/* One map with its content. */
struct fake_entry {
	UT_hash_handle hh;
	char *value; /* behind the key */
	char key[];
};

struct fake_map {
	char *name;
	uint32_t schema;
	struct pb_map_info info;
	size_t value_len; /* of all CPUs */
	size_t stride;	  /* of an array: from one element to the next */
	bool mappable;
	struct fake_entry *entries;
	char *array;
	uint64_t writes;
	struct fake_map *next;
};

/* What a test said about a map. */
struct fake_map_def {
	char *name;
	uint32_t type;
	uint32_t key_size;
	uint32_t value_size;
	uint32_t max_entries;
	bool mappable;
	struct fake_map_def *next;
};

/* A handle of a generation. */
struct pb_map {
	struct fake_gen *gen;
	char *name;
	struct fake_map *map; /* NULL until prepare() has returned */
	struct pb_map *next;
};

struct fake_gen {
	struct pb_ctx ctx;
	struct pb_fake *fake;
	const struct pb_manifest *manifest;
	const struct pb_plugin *plugin;
	uint32_t number;
	enum fake_phase phase;
	bool started;  /* inside start() or behind it */
	bool stopping; /* inside stop() */
	uint32_t watch_ids;
	char *config;
	struct fake_object *objects;
	struct fake_const *consts;
	struct fake_slot *slots;
	struct fake_sub *subs;
	struct fake_watch *watches;
	struct fake_event_sub *event_subs;
	struct fake_timer *timers;
	struct fake_fd *fds;
	struct fake_command *commands;
	struct pb_map *handles;
	struct fake_map *maps; /* ephemeral ones */
};

struct fake_record {
	UT_hash_handle hh;
	char *key;
	void *value;
	size_t len;
	uint32_t gen; /* 0: published by the test */
};

struct fake_topic {
	char *name;
	uint32_t version;
	bool synced;
	bool synced_by_plugin;
	uint64_t changes;
	struct fake_record *records;
	struct fake_topic *next;
};

struct fake_kube_object {
	const struct pb_kube_meta *object;
	struct fake_kube_object *next;
	struct fake_kube_object *prev;
};

/* How often one generation holds one range. */
struct fake_hold {
	const struct fake_gen *gen;
	struct pb_cidr cidr;
	uint32_t identity;
	uint32_t count;
	struct fake_hold *next;
};

#define FAKE_KINDS (PB_KUBE_NAMESPACE + 1)

struct fake_metric {
	char *name;
	uint64_t value;
	struct fake_metric *next;
};

struct fake_event_type {
	char *name;
	struct fake_event_type *next;
};

/* What host->fd_keep() keeps; belongs to the plugin. */
struct fake_kept {
	char *name;
	int fd;
	struct fake_kept *next;
};

struct fake_fault {
	char *function;
	uint32_t skip;
	int err;
	struct fake_fault *next;
};

enum fake_task_kind {
	FAKE_TASK_RECORD,
	FAKE_TASK_KUBE,
	FAKE_TASK_WORK,
};

/* Something that waits to be delivered to a generation. */
struct fake_task {
	struct fake_gen *gen;
	enum fake_task_kind kind;
	struct fake_sub *sub;
	struct pb_record record;
	struct fake_watch *watch;
	struct pb_kube_event event;
	pb_work_fn work;
	pb_done_fn done;
	void *arg;
	struct fake_task *next;
	struct fake_task *prev;
};

/* Memory that a held back or running callback may still look at. */
struct fake_grave {
	void *memory;
	struct fake_grave *next;
};

struct pb_fake {
	const struct pb_manifest *manifest;
	const struct pb_plugin *plugin;
	char *config;
	char *node;
	uint32_t generations;
	struct fake_gen *current;
	struct fake_gen *next;
	struct fake_gen *retired;
	bool have_state;
	uint32_t state_schema;
	struct pb_buf state;
	struct fake_map_def *defs;
	struct fake_map *maps; /* persistent ones */
	struct fake_topic *topics;
	struct fake_kube_object *kube[FAKE_KINDS];
	uint32_t kube_state[FAKE_KINDS]; /* 0, PB_KUBE_SYNCED or PB_KUBE_ABSENT */
	char *kube_version[FAKE_KINDS];
	struct fake_hold *holds;
	uint32_t identities; /* numbers given to ranges so far */
	struct fake_metric *metrics;
	struct fake_event_type *event_types;
	struct fake_kept *kept;
	struct fake_fault *faults;
	struct fake_task *tasks;
	struct fake_grave *graves;
	uint32_t timer_ids;
	char failure[1024];
	struct pb_buf log;
};

extern const struct pb_host fake_host;

static inline struct fake_gen *fake_gen_of(struct pb_ctx *ctx)
{
	return PB_CONTAINER_OF(ctx, struct fake_gen, ctx);
}

static inline bool fake_gen_listens(const struct fake_gen *gen)
{
	return gen && (gen->phase == FAKE_RUNNING || gen->phase == FAKE_QUIESCED);
}

/* 0, or the error that pb_fake_fail() asked this function for. */
int fake_fault(struct pb_fake *fake, const char *function);
/* -EPERM with a text unless `gen` is inside prepare(). */
int fake_prepare_only(struct fake_gen *gen, const char *function);

/* Queues a zeroed task at the end. NULL without memory. */
struct fake_task *fake_task_add(struct fake_gen *gen, enum fake_task_kind kind);
/* Runs what may run until nothing is left, then frees the graves. */
void fake_drain(struct pb_fake *fake);
/* Frees `memory` once no task can refer to it. */
void fake_bury(struct pb_fake *fake, void *memory);

/* maps.c */
int fake_maps_resolve(struct fake_gen *gen);
void fake_map_free(struct fake_map *map);
int fake_host_map(struct pb_ctx *ctx, const char *name, struct pb_map **ret_map);
int fake_host_map_info(struct pb_map *handle, struct pb_map_info *ret_info);
int fake_host_map_lookup(struct pb_map *handle, const void *key, void *ret_value);
int fake_host_map_update(struct pb_map *handle, const void *key, const void *value, uint64_t flags);
int fake_host_map_delete(struct pb_map *handle, const void *key);
int fake_host_map_next(struct pb_map *handle, const void *key, void *ret_key);
int fake_host_map_update_batch(struct pb_map *handle, const void *keys, const void *values,
			       uint32_t n, uint64_t flags, uint32_t *ret_done);
int fake_host_map_delete_batch(struct pb_map *handle, const void *keys, uint32_t n,
			       uint32_t *ret_done);
int fake_host_map_memory(struct pb_map *handle, void **ret_memory, size_t *ret_len);

/* topics.c */
int fake_topics_check(struct fake_gen *gen);
int fake_topics_replay(struct fake_gen *gen);
void fake_topics_withdraw_older(struct pb_fake *fake, const char *name, uint32_t gen);
void fake_topics_free(struct pb_fake *fake);
int fake_host_publish(struct pb_ctx *ctx, const char *topic, uint32_t version, const char *key,
		      const void *value, size_t len);
int fake_host_withdraw(struct pb_ctx *ctx, const char *topic, const char *key);
int fake_host_synced(struct pb_ctx *ctx, const char *name);
int fake_host_subscribe(struct pb_ctx *ctx, const char *topic, uint32_t version, pb_topic_fn fn,
			void *arg);

/* kube.c */
int fake_kube_replay(struct fake_gen *gen);
int fake_host_kube_watch(struct pb_ctx *ctx, uint32_t kind, pb_kube_fn fn, void *arg);
int fake_host_kube_watch_open(struct pb_ctx *ctx, uint32_t kind, pb_kube_fn fn, void *arg,
			      uint32_t *ret_id);
int fake_host_kube_watch_close(struct pb_ctx *ctx, uint32_t id);

/* cidr.c */
int fake_host_cidr_hold(struct pb_ctx *ctx, const struct pb_cidr *cidr, uint32_t *ret_identity);
int fake_host_cidr_release(struct pb_ctx *ctx, const struct pb_cidr *cidr);
void fake_cidrs_release(struct fake_gen *gen);

/* kept.c */
int fake_host_fd_keep(struct pb_ctx *ctx, const char *name, int fd);
int fake_host_fd_kept(struct pb_ctx *ctx, const char *name, int *ret_fd);
int fake_host_fd_drop(struct pb_ctx *ctx, const char *name);
void fake_kept_free(struct pb_fake *fake);

/* loop.c */
int fake_host_event_type(struct pb_ctx *ctx, const char *name, uint16_t *ret_type);
int fake_host_event_subscribe(struct pb_ctx *ctx, uint16_t type, pb_event_fn fn, void *arg);
int fake_host_timer_start(struct pb_ctx *ctx, uint64_t delay_ms, uint64_t repeat_ms, pb_timer_fn fn,
			  void *arg, uint32_t *ret_id);
int fake_host_timer_stop(struct pb_ctx *ctx, uint32_t id);
int fake_host_fd_watch(struct pb_ctx *ctx, int fd, uint32_t events, pb_fd_fn fn, void *arg);
int fake_host_fd_unwatch(struct pb_ctx *ctx, int fd);
int fake_host_work(struct pb_ctx *ctx, pb_work_fn fn, pb_done_fn done, void *arg);

/* host.c */
void fake_gen_free(struct fake_gen *gen);

#endif
