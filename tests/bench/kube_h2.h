/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 over TLS for the benchmark's API server: nghttp2 on connections of the fake API server.
 *
 * Owns streams and what they have yet to send. Understands of a request its path and whether gzip
 * is welcome, and answers with JSON. Its one client is the agent: one that breaks the protocol
 * breaks the benchmark.
 */
#ifndef BENCH_KUBE_H2_H
#define BENCH_KUBE_H2_H

#include <base/base.h>

#include "../tools/kube_fake_conn.h"

struct h2_server;
struct h2_stream;

struct h2_request {
	char path[4096]; /* with the query */
	bool gzip;
};

struct h2_calls {
	/* The request lives as long as the stream. */
	void (*request)(void *arg, struct h2_stream *stream, const struct h2_request *request);
	/* The client let go of a stream that has not ended, or its connection broke. */
	void (*gone)(void *arg, struct h2_stream *stream);
};

/* Listens on a free port of 127.0.0.1; certificate and key as PEM files. */
struct h2_server *h2_server_new(uv_loop_t *loop, const char *cert, const char *key,
				const struct h2_calls *calls, void *arg);
const char *h2_server_url(const struct h2_server *server);

/* The answer's head: a status of three digits; gzip: the body will be compressed. */
void h2_begin(struct h2_stream *stream, const char *status, bool gzip);
/* Queues bytes; they go out as the client's windows allow. */
void h2_send(struct h2_stream *stream, const char *data, size_t len);
/* Nothing follows what is queued; the stream must not be used again. */
void h2_end(struct h2_stream *stream);

#endif
