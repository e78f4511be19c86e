/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other end of the control socket: one line out, one line back, within a deadline.
 *
 * Owns one connection during one call. Blocks; for programs of their own, never for the agent.
 */
#ifndef PB_CONTROL_ASK_H
#define PB_CONTROL_ASK_H

#include <base/base.h>

/*
 * `line` ends with a newline; the answer too. deadline_ms: of CLOCK_MONOTONIC. -ECONNREFUSED:
 * nobody answers; -EACCES: not allowed to ask; -EPIPE: the connection broke before the answer came;
 * -ETIMEDOUT; -EMSGSIZE: more than 80 MiB.
 */
int pb_control_ask(const char *path, const char *line, uint64_t deadline_ms,
		   struct pb_buf *ret_line, struct pb_err *err);

#endif
