/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the API-server source share: a loop, a fake server, a sink that keeps what
 * it is told the way the store does, and waiting for a condition with a deadline.
 */
#ifndef KUBE_API_HARNESS_H
#define KUBE_API_HARNESS_H

#include <criterion/criterion.h>
#include <kube/api_source.h>

#include "../tools/kube_fake_api.h"

#define SERVICES "/api/v1/services"
#define SLICES "/apis/discovery.k8s.io/v1/endpointslices"
#define SLICES_BETA "/apis/discovery.k8s.io/v1beta1/endpointslices"

#define KINDS 8

struct held {
	uint32_t kind;
	char key[128]; /* "ns/name" */
	size_t len;
	bool seen; /* by the list that is going on */
	struct held *prev, *next;
};

struct pb_sink {
	struct pb_buf log; /* "begin", "put a/b", "delete a/b", "end", "abort", "absent" */
	struct held *objects;
	bool listing[KINDS];
	unsigned synced[KINDS], absent[KINDS];
	char state[KINDS][2048];
	char api_version[128];	  /* of the last put, "" for NULL */
	char version[KINDS][128]; /* what pb_sink_version() said */
	bool healthy[KINDS];
	/* Called after a put; may do anything to the source. */
	void (*on_put)(void *arg);
	void *on_put_arg;
	unsigned puts;
	unsigned put_ms; /* how long a put keeps the loop */
};

struct bench {
	uv_loop_t loop;
	uv_timer_t tick;
	struct pb_sink sink;
	struct fake_api *api;
	struct pb_source *source;
	struct pb_api_timing timing;
	bool closed;
	unsigned most_puts; /* in one round of bench_counted_turn() */
};

/* A plain server, no source yet. */
void bench_open(struct bench *b);
/* The same over TLS. */
void bench_open_tls(struct bench *b, const char *cert, const char *key);
/* Settings with the bench's server in it. */
struct pb_api_config *bench_config(struct bench *b);
/* Starts the source; `kind` is wanted. Takes the settings. */
void bench_start(struct bench *b, struct pb_api_config *config, uint32_t kind);
void bench_want(struct bench *b, uint32_t kind, bool on);
void bench_close_source(struct bench *b);
/* Closes everything; the loop must be empty then. */
void bench_close(struct bench *b);

void bench_turn(struct bench *b);
void bench_counted_turn(struct bench *b);
/* Lets the loop go round for a while, for what must not happen. */
void bench_pass(struct bench *b, unsigned ms);
/* The keys of a kind, sorted, "a/b c/d". Valid until the next call. */
const char *bench_objects(struct bench *b, uint32_t kind);
bool bench_says(struct bench *b, uint32_t kind, const char *part_of_state);
/* Since this the log is empty. */
void bench_forget(struct bench *b);
const char *bench_log(struct bench *b);

#define WAIT(b_, cond_)                                                                            \
	do {                                                                                       \
		uint64_t deadline_ = uv_hrtime() + 20000000000ULL;                                 \
		while (!(cond_)) {                                                                 \
			cr_assert(uv_hrtime() < deadline_, "never came true: %s; log:\n%s",        \
				  #cond_, bench_log(b_));                                          \
			bench_turn(b_);                                                            \
		}                                                                                  \
	} while (0)

#endif
