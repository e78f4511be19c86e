/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the load generator: one worker's requests and what became of them.
 *
 * A request is one sequence number. It is answered (the right answer came), failed (an errno),
 * wrong (an answer to something else) or lost (nothing came in time). The four add up to sent.
 */
#ifndef PB_LOAD_H
#define PB_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define LOAD_ERRORS 160
#define LOAD_BACKENDS 64
#define LOAD_NAME 64

enum load_mode {
	LOAD_HTTP,   /* a connection, a GET with the sequence number in its path, the answer */
	LOAD_CRR,    /* a connection, eight bytes there and back */
	LOAD_RR,     /* one connection a worker: a byte there and back */
	LOAD_STREAM, /* one connection a worker: 128 KiB writes */
	LOAD_UDP,    /* one socket a worker: a datagram with the sequence number, and its echo */
};

struct load_backend {
	char name[LOAD_NAME];
	uint64_t answers;
};

struct load_stats {
	uint64_t sent;
	uint64_t answered;
	uint64_t failed;
	uint64_t wrong;
	uint64_t lost;
	uint64_t bytes;
	uint64_t errors[LOAD_ERRORS];
	struct load_backend backends[LOAD_BACKENDS];
	uint32_t *latencies_ns;
	size_t n_latencies;
	size_t cap_latencies;
};

/* What all workers share. */
struct load {
	enum load_mode mode;
	struct sockaddr_storage to;
	socklen_t to_len;
	unsigned timeout_ms;
	unsigned rate; /* requests a second and worker, 0: as fast as answers come */
	bool connected;
	uint64_t count; /* 0: until the time is over */
	uint64_t deadline_ns;
	atomic_uint_least64_t next; /* sequence number */
	atomic_bool stop;
};

uint64_t load_now_ns(void);
/* The next sequence number; false when the load is over. */
bool load_next(struct load *load, uint64_t *ret_seq);

/* Notes the end of a request that began at `start_ns`; result: 0 or a negative errno. */
void load_answered(struct load_stats *stats, uint64_t start_ns);
void load_failed(struct load_stats *stats, int err);
void load_backend(struct load_stats *stats, const char *name, uint64_t n);

/* One worker's whole run. */
void load_requests(struct load *load, struct load_stats *stats);
void load_connection(struct load *load, struct load_stats *stats);
void load_datagrams(struct load *load, struct load_stats *stats);

#endif
