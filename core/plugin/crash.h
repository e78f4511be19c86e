/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The crash marker, the watchdog and the records of crashes.
 *
 * Owns a mapped page in the run directory that says at every moment which plugin's code runs on
 * which thread, and the decision to execute the agent anew. Nothing here may allocate, lock or
 * log between a fatal signal and the execve().
 */
#ifndef PB_CRASH_H
#define PB_CRASH_H

#include <base/base.h>

enum pb_crash_step {
	PB_STEP_NONE = 0,
	PB_STEP_DLOPEN,
	PB_STEP_PREPARE,
	PB_STEP_QUIESCE,
	PB_STEP_SAVE,
	PB_STEP_RESTORE,
	PB_STEP_START,
	PB_STEP_RESUME,
	PB_STEP_STOP,
	PB_STEP_RECONFIGURE,
	PB_STEP_TOPIC,
	PB_STEP_KUBE,
	PB_STEP_TIMER,
	PB_STEP_FD,
	PB_STEP_WORK,
	PB_STEP_DONE,
	PB_STEP_EVENT,
	PB_STEP_COMMAND,
	PB_STEP_DLCLOSE,
	PB_STEP_COUNT,
};

/* "prepare()", "a topic callback", ... */
const char *pb_crash_step_name(enum pb_crash_step step);

/* A file of a plugin, as the marker names it. Lives in the mapped page. */
struct pb_crash_culprit;

/* NULL when the page's table is full or there is no page: crashes then name nobody. */
struct pb_crash_culprit *pb_crash_culprit_new(const char *plugin, uint64_t hash);
void pb_crash_culprit_free(struct pb_crash_culprit *culprit);

/* What ran before, for callbacks inside callbacks. */
struct pb_crash_call {
	uint32_t culprit;
	uint32_t step;
	uint64_t start_ns;
};

/* Any thread; a few stores. `watched`: the watchdog's deadline applies. */
void pb_crash_enter(struct pb_crash_culprit *culprit, enum pb_crash_step step, uint64_t now_ns,
		    bool watched, struct pb_crash_call *saved);
void pb_crash_leave(const struct pb_crash_call *saved);

/* The watchdog thread; without it hangs aren't noticed. */
int pb_crash_watch(unsigned deadline_ms, struct pb_err *err);
void pb_crash_unwatch(void);

/* ---- records: RUN_DIR/state/crash-HASH.json, one a file that crashed ---- */

struct pb_crash_record {
	char plugin[PB_NAME_MAX];
	uint64_t hash;
	unsigned count;
	bool fresh;	/* written by the restart that began this process */
	char text[256]; /* the last crash in words */
	struct pb_crash_record *next;
};

int pb_crash_records_read(const char *run_dir, struct pb_crash_record **ret_records,
			  struct pb_err *err);
struct pb_crash_record *pb_crash_records_free(struct pb_crash_record *records);
/* Crashes of this very file; 0 when it never did. */
unsigned pb_crash_count(const struct pb_crash_record *records, const char *plugin, uint64_t hash);
const struct pb_crash_record *pb_crash_find(const struct pb_crash_record *records,
					    const char *plugin, uint64_t hash);

#endif
