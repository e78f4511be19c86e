/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's control socket and its commands.
 *
 * Owns a UNIX stream socket, mode 0660, peers checked by SO_PEERCRED (root, or a member of
 * control.group). Requests and answers are one JSON object a line: {"command":"map dump",
 * "args":["core/pb_switches"]} -> {"ok":true,"result":{...}} or
 * {"ok":false,"errno":2,"error":"..."}. A slow or hostile peer costs a bounded amount of memory and
 * never delays the loop.
 */
#ifndef PB_CONTROL_H
#define PB_CONTROL_H

#include <uv.h>

#include <base/json.h>
#include <config/config.h>

struct pb_control;
struct pb_request; /* one unanswered command */

/*
 * A command's handler answers exactly once with one of the two functions below, now or later.
 * args are valid until the answer.
 */
typedef void (*pb_control_fn)(void *arg, struct pb_request *req, const char *const *args,
			      uint32_t n_args);

struct pb_control_command {
	const char *name;  /* "plugin list": one to three words */
	const char *usage; /* "NAME [FILE]" */
	const char *help;
	pb_control_fn fn;
	void *arg;
};

/* Listens. -EADDRINUSE when a living agent answers on the socket; a dead one's is replaced. */
int pb_control_new(uv_loop_t *loop, const struct pb_config *config, struct pb_control **ret_control,
		   struct pb_err *err);
/* -EEXIST: the name is taken. Strings are copied. "help" lists all commands by itself. */
int pb_control_add(struct pb_control *control, const struct pb_control_command *command);
void pb_control_remove(struct pb_control *control, const char *name);
void pb_control_close(struct pb_control *control, void (*closed)(void *arg), void *arg);

struct pb_control_counts {
	unsigned peers;	   /* connected now */
	uint64_t requests; /* that came so far */
};
void pb_control_count(const struct pb_control *control, struct pb_control_counts *ret_counts);

/* Takes over `result` (NULL: an empty object). */
void pb_request_reply(struct pb_request *req, cJSON *result);
void pb_request_fail(struct pb_request *req, int err, const char *fmt, ...) PB_PRINTF(3, 4);

#endif
