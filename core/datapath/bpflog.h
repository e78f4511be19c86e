/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What libbpf and the verifier say, per thread.
 *
 * Owns libbpf's print callback, which is process-wide, and one thread-local pointer: the capture
 * that is running on this thread. Everything libbpf says goes to the debug log too.
 */
#ifndef PB_DATAPATH_BPFLOG_H
#define PB_DATAPATH_BPFLOG_H

#include <base/base.h>

/* Installs the callback. May be called again. */
void pb_bpflog_setup(void);
/* Collects this thread's warnings in `out` until pb_bpflog_end(). Does not nest. */
void pb_bpflog_begin(struct pb_buf *out);
void pb_bpflog_end(void);
/*
 * The lines of a captured log that tell the cause, joined by "; ": the end of the verifier's
 * log when there is one, else libbpf's last words. Pure.
 */
void pb_bpflog_cause(const char *log, char *buf, size_t size);

#endif
