/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 (RFC 9113) over TLS for the benchmark's API server: as much of it as one well-behaved
 * client needs.
 *
 * Owns streams and flow control. Understands of a request only its path, and answers everything
 * with status 200 and JSON: what must be refused is refused in the body of the tests' own server.
 */
#ifndef BENCH_H2_SERVER_H
#define BENCH_H2_SERVER_H

#include <base/base.h>

#include "../tools/kube_fake_conn.h"

struct h2_server;
struct h2_stream;

struct h2_calls {
	void (*request)(void *arg, struct h2_stream *stream, const char *path);
	/* The client let go of a stream that has not ended, or its connection broke. */
	void (*gone)(void *arg, struct h2_stream *stream);
};

/* Listens on a free port of 127.0.0.1; certificate and key as PEM files. */
struct h2_server *h2_server_new(uv_loop_t *loop, const char *cert, const char *key,
				const struct h2_calls *calls, void *arg);
const char *h2_server_url(const struct h2_server *server);
void h2_server_close(struct h2_server *server);

/* The answer's head: 200, or another status without a body. */
void h2_begin(struct h2_stream *stream, unsigned status);
/* Queues bytes; they go out as the client's windows allow. */
void h2_send(struct h2_stream *stream, const char *data, size_t len);
/* Nothing follows what is queued; the stream must not be used again. */
void h2_end(struct h2_stream *stream);

#endif
