/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layout of the crash marker, RUN_DIR/state/marker, as docs/design/reload-protocol.md has it.
 *
 * Owns the bytes that one agent process leaves to the next. A page of another version or with
 * another magic is ignored and overwritten.
 */
#ifndef PB_CRASH_PAGE_H
#define PB_CRASH_PAGE_H

#include <stdatomic.h>

#include <base/base.h>

#define PB_CRASH_MAGIC "PBCRASH"
#define PB_CRASH_VERSION 1
#define PB_CRASH_THREADS 64
#define PB_CRASH_CULPRITS 128
#define PB_CRASH_HANG 0x10000U /* `cause`: the watchdog; else the number of the signal */

struct pb_crash_culprit {
	_Atomic uint32_t used;
	uint32_t reserved;
	uint64_t hash;
	char plugin[PB_NAME_MAX];
};

struct pb_crash_thread {
	_Atomic uint32_t culprit; /* index + 1; 0: no plugin's code runs */
	uint32_t step;
	_Atomic uint64_t start_ns; /* 0: the deadline doesn't apply */
};

struct pb_crash_page {
	char magic[8];
	uint32_t version;
	_Atomic uint32_t cause; /* 0: the process ended otherwise */
	uint32_t culprit;	/* index + 1 */
	uint32_t step;
	uint32_t deadline_ms;
	uint32_t reserved;
	struct pb_crash_thread threads[PB_CRASH_THREADS];
	struct pb_crash_culprit culprits[PB_CRASH_CULPRITS];
};

/* Turns what the last process left into a crash record and clears the page. */
int pb_crash_page_take(struct pb_crash_page *page, const char *run_dir, struct pb_err *err);

#endif
