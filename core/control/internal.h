/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of core/control only: the listener, its peers and their requests.
 */
#ifndef PB_CONTROL_INTERNAL_H
#define PB_CONTROL_INTERNAL_H

#include <base/unix.h>
#include <control/control.h>

/*
 * More than NODE_WAITERS_MAX, so that while so many CNI plugins wait, there is room for who asks
 * for the state of it.
 */
#define CONTROL_PEERS_MAX 256
/* Enough for words and a path; parsing as much takes a millisecond at most. */
#define CONTROL_LINE_MAX (64U << 10)
#define CONTROL_ANSWER_MAX (64U << 20)
/* A peer with this many unread bytes or open requests is not read from until it catches up. */
#define CONTROL_QUEUE_MAX (1U << 20)
#define CONTROL_REQUESTS_MAX 32
/* The requests that one peer may have answered in a turn of the loop; a started one is finished. */
#define CONTROL_TURN_NS 2000000U
/* libuv before 1.45 runs a timer of 0 ms that a timer starts in the same turn. */
#define CONTROL_PAUSE_MS 1
/* A peer that takes no byte of its answer for two such periods is dropped. */
#define CONTROL_STALL_MS 10000

struct control_command {
	char *name;
	char *usage;
	char *help;
	pb_control_fn fn;
	void *arg;
};

struct pb_control {
	uv_pipe_t pipe;
	char *path;
	struct stat file; /* of the socket, to remove no other's */
	gid_t group;
	bool has_group;
	bool closing;
	struct control_command *commands; /* by name */
	size_t n_commands;
	struct control_peer *peers;
	unsigned n_peers;
	uint64_t n_requests;
	char chunk[65536]; /* what a read brings, used up before the next */
	void (*closed)(void *arg);
	void *closed_arg;
};

struct control_peer {
	struct pb_control *control;
	struct control_peer *prev, *next;
	uv_pipe_t pipe;
	uv_timer_t stall;
	uv_timer_t turn; /* serves on after the loop looked at others */
	unsigned handles;
	struct pb_buf in;
	struct pb_request *requests;
	unsigned n_requests;
	size_t queued;	   /* bytes handed to libuv and not yet taken by the peer */
	size_t last_queue; /* at the last look of the stall timer */
	bool reading;
	bool serving; /* inside peer_serve() */
	bool more;    /* lines are left for the next turn */
	bool eof;     /* the peer sends no more */
	bool last;    /* take no more lines, close when everything is sent */
	bool closing;
};

struct pb_request {
	struct control_peer *peer; /* NULL: gone, the answer goes nowhere */
	struct pb_request *prev, *next;
	cJSON *body;
	cJSON *id; /* part of body: sent back with the answer */
	const char **args;
	uint32_t n_args;
};

/* listen.c: a listening socket at `path`, and what its file is. */
int control_listen(struct pb_control *control, int *ret_fd, struct pb_err *err);
/* listen.c: 0, or -EACCES with the reason. */
int control_check_peer(const struct pb_control *control, int fd, struct pb_err *err);

/* peer.c */
void control_peer_accept(struct pb_control *control);
void control_peer_close(struct control_peer *peer);

/* control.c: answers the request sooner or later. Takes it over. */
void control_dispatch(struct pb_control *control, struct pb_request *req);
/* control.c: called when the listener or a peer is gone. */
void control_maybe_closed(struct pb_control *control);

#endif
