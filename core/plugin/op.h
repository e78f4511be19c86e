/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations: load, reload, unload, reconfigure, and the joint flip of the first apply.
 *
 * Owns the queue's vocabulary. ops.c decides what runs next, lifecycle.c walks one operation
 * through its steps; an operation ends in pb_op_finish() exactly once.
 */
#ifndef PB_OP_H
#define PB_OP_H

#include <plugin/private.h>

enum pb_op_kind {
	PB_OP_LOAD = 1,
	PB_OP_RELOAD,
	PB_OP_UNLOAD,
	PB_OP_RECONFIGURE,
	PB_OP_JOIN, /* all plugins' programs into all chains */
};

struct pb_op {
	struct pb_manager *m;
	enum pb_op_kind kind;
	char *name;
	char *path;    /* NULL: by the configuration */
	char *config;  /* JSON; NULL: by the configuration */
	bool explicit; /* the admin asks for this file whatever it did before */
	pb_manager_done_fn done;
	void *arg;

	struct pb_plugin_entry *plugin;
	struct pb_generation *old, *gen;
	bool quiesced;	  /* old->quiesce() returned 0 */
	bool held;	  /* old's events are kept back */
	bool retry_later; /* failed for want of, or because of, another plugin */
	bool left_out;
	struct pb_buf note; /* for last_error although the operation succeeded */
	struct pb_buf state;
	struct pb_host_config *new_config; /* of a reconfiguration, until it is in force */
	uint64_t quiesce_ns, replay_ns;

	struct pb_dp_slot *plan;
	size_t n_plan;
	uint32_t hooks;
	struct pb_dp_build *build;

	uv_work_t work;
	int (*blocking)(struct pb_op *op, struct pb_err *err); /* [pool] */
	void (*then)(struct pb_op *op, int rc);
	int rc;
	uv_idle_t replay;
	struct pb_err err;
	struct pb_op *next;
};

int pb_op_queue(struct pb_manager *m, enum pb_op_kind kind, const char *name, const char *path,
		const char *config, bool explicit, pb_manager_done_fn done, void *arg);
/* lifecycle.c: the first step; later ones follow from the loop. */
void pb_op_start(struct pb_op *op);
/* ops.c: reports the result, frees, starts the next. */
void pb_op_finish(struct pb_op *op, int rc);
/* ops.c: for an operation that hasn't started. */
void pb_op_cancel(struct pb_op *op);

void pb_op_pool(struct pb_op *op, int (*blocking)(struct pb_op *op, struct pb_err *err),
		void (*then)(struct pb_op *op, int rc));

/* takeover.c: from quiesce to start, and the way back. */
void pb_op_takeover(struct pb_op *op);
void pb_op_fail(struct pb_op *op, int rc);
/* chains.c: the plan of a whole agent and the blocking steps on it. */
int pb_op_plan(struct pb_op *op, struct pb_generation *without, struct pb_generation *with);
int pb_op_build(struct pb_op *op, struct pb_err *err);
int pb_op_flip(struct pb_op *op, struct pb_err *err);
int pb_op_retire(struct pb_op *op, struct pb_err *err);

#endif
