/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 for the fake API server, with every byte under the test's control.
 *
 * Owns sockets on the test's loop, plain or TLS, on loopback only. Knows nothing of Kubernetes.
 */
#ifndef KUBE_FAKE_CONN_H
#define KUBE_FAKE_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct fake_http;
struct fake_conn;

struct fake_request {
	char path[4096]; /* with the query */
	char authorization[4096];
	char host[256];
	bool gzip;
};

typedef void (*fake_request_fn)(void *arg, struct fake_conn *conn, const struct fake_request *r);
typedef void (*fake_gone_fn)(void *arg, struct fake_conn *conn);

/* cert NULL: plain HTTP. `gone` tells of every connection that closes, whoever closed it. */
struct fake_http *fake_http_new(uv_loop_t *loop, const char *cert, const char *key,
				fake_request_fn request, fake_gone_fn gone, void *arg);
void fake_http_close(struct fake_http *http);
const char *fake_http_url(const struct fake_http *http);
/* Bytes of a chunk of a chunked answer; 0: as they come. */
void fake_http_chunk(struct fake_http *http, size_t bytes);
/* Reads nothing and answers nothing from now on; the kernel still acknowledges. */
void fake_http_freeze(struct fake_http *http, bool frozen);
/* No HTTP/1.1: TLS agrees on `protocol` and the test reads and writes the bytes itself. */
typedef void (*fake_bytes_fn)(void *arg, struct fake_conn *conn, const char *data, size_t len);
void fake_http_raw(struct fake_http *http, const char *protocol, fake_bytes_fn bytes, void *arg);
void fake_write(struct fake_conn *conn, const char *data, size_t len);
/* Connections that were opened so far. */
unsigned fake_http_accepted(const struct fake_http *http);
void fake_http_drop_all(struct fake_http *http);
/* Stops listening and drops everything: connections are refused until resumed. */
void fake_http_down(struct fake_http *http);
void fake_http_up(struct fake_http *http);

/* A whole answer. headers: lines each with CRLF, or "". */
void fake_reply(struct fake_conn *conn, int status, const char *headers, const char *body,
		size_t len);
/* An answer whose length isn't known: head, chunks, end. */
void fake_begin(struct fake_conn *conn, const char *headers);
void fake_send(struct fake_conn *conn, const char *data, size_t len);
void fake_end(struct fake_conn *conn);
void fake_drop(struct fake_conn *conn);

#endif
