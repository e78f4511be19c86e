/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plugin manager on a real datapath in a private place, driven from a test.
 *
 * Owns the agent's parts that a test doesn't look at: an empty store of Kubernetes objects and
 * a control socket that is called instead of connected to.
 */
#ifndef PB_TESTS_MANAGER_SANDBOX_H
#define PB_TESTS_MANAGER_SANDBOX_H

#include <plugin/manager.h>

#include "../bpf/sandbox.h"

struct agent {
	struct pb_manager *manager;
	struct pb_kube *kube;
	char dir[64];	   /* run directory, removed by agent_stop() */
	int rc;		   /* of the last operation */
	char text[1200];   /* its reason */
	char answer[4096]; /* of the last command, JSON or error text */
};
extern struct agent agent;

/* A manager with an empty configuration; agent_apply() was called once. */
void agent_start(void);
void agent_stop(void);
/*
 * Closes the manager and opens another one on the same datapath and run directory, with a frame
 * through the hook in every round of the loop meanwhile. Returns the number of frames.
 */
double agent_frames_while_restarting(const char *const *triples);
extern bool agent_required; /* what agent_apply() configures is `required: always` */
/* The file of a variant of the test plugin. Static memory, valid until the next call. */
const char *agent_file(const char *variant);
/* Operations, run to their end. 0 or negative errno. */
int agent_load(const char *name, const char *file);
int agent_reload(const char *name, const char *file);
int agent_unload(const char *name);
/* Configures plugins, given as NAME, FILE, JSON triples that end with NULL, and applies. */
int agent_apply(const char *const *triples);
/* Runs a command and the loop until it is answered. */
int agent_command(const char *name, const char *arg1, const char *arg2);
/* The row of `plugin list` of a plugin, or NULL; free with cJSON_Delete(). */
cJSON *agent_row(const char *name);
/* Runs the loop until the condition holds; fails the test after ten seconds. */
#define agent_until(condition_)                                                                    \
	do {                                                                                       \
		uint64_t until_ = pb_now_ns() + 10000000000ULL;                                    \
		while (!(condition_)) {                                                            \
			cr_assert(pb_now_ns() < until_, "not within 10 s: %s", #condition_);       \
			uv_run(&sandbox.loop, UV_RUN_NOWAIT);                                      \
		}                                                                                  \
	} while (0)
/* Sends one frame through the hook and says what the test plugin that serves answers. */
void agent_expect_serves(const char *version);

#endif
