/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UNIX sockets that the agent listens on: mode 0660, made beside no living server, removed with
 * their server.
 */
#ifndef PB_UNIX_H
#define PB_UNIX_H

#include <sys/stat.h>

#include <base/base.h>

struct pb_unix {
	const char *path;   /* absolute */
	const gid_t *group; /* may use the socket besides its owner; NULL: nobody */
	int backlog;
	bool wait; /* up to 2 s for another process that is about to listen in the directory */
	const char *key;    /* of the configuration, for messages */
	const char *other;  /* who may be there already: "agent" */
	const char *remedy; /* what to give this one instead */
};

/* -EADDRINUSE when somebody answers there; a dead server's socket is replaced. */
int pb_unix_listen(const struct pb_unix *opts, int *ret_fd, struct stat *ret_st,
		   struct pb_err *err);
/* Removes the file unless it is another one by now. */
void pb_unix_remove(const char *path, const struct stat *st);

#endif
