/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP on the agent's loop: libcurl's multi interface driven by libuv's polls and timers.
 *
 * Owns the sockets, the timers and the requests. Knows nothing of Kubernetes. No callback runs
 * from inside a function that starts or cancels a request, a body is handed over for a few
 * milliseconds at most before the loop goes round, and everything may be cancelled or closed
 * from inside any callback. The process must ignore SIGPIPE: curl leaves signals alone here.
 */
#ifndef PB_KUBE_CURL_UV_H
#define PB_KUBE_CURL_UV_H

#include <curl/curl.h>
#include <uv.h>

#include <base/base.h>

struct pb_http;
struct pb_http_request;

/* How a request ended; valid during the callback. */
struct pb_http_result {
	int rc;		  /* 0: the answer came to its end; else why not, negative errno */
	long status;	  /* 0: no answer at all */
	long retry_after; /* seconds, 0: not said */
	const char *text; /* with rc < 0: the cause */
	const char *body; /* with a status outside 2xx: its first bytes, never NULL */
};

struct pb_http_calls {
	/* The head of an answer 2xx is complete. May be NULL. */
	void (*opened)(void *arg);
	/* Bytes of an answer 2xx. A negative result ends the request with it. */
	int (*body)(void *arg, const char *data, size_t len);
	/* The last call. Not made for a request that was cancelled. */
	void (*done)(void *arg, const struct pb_http_result *result);
};

int pb_http_new(uv_loop_t *loop, struct pb_http **ret_http, struct pb_err *err);
/* Drops all requests without a call, frees itself, then calls `closed`. */
void pb_http_close(struct pb_http *http, void (*closed)(void *arg), void *arg);

/*
 * Runs a prepared handle; it and the headers are owned by the request from here on, also when
 * this fails. Write, header, error and private options are set here.
 */
int pb_http_start(struct pb_http *http, CURL *easy, struct curl_slist *headers,
		  const struct pb_http_calls *calls, void *arg,
		  struct pb_http_request **ret_request);
void pb_http_cancel(struct pb_http_request *request);
/* 0 while unknown, 1 or 2. */
unsigned pb_http_version(const struct pb_http_request *request);
/*
 * Closes every connection; requests end with -ETIMEDOUT and `text`. For a connection whose
 * other end is gone: later requests must not share it. Not from inside a callback.
 */
void pb_http_reset(struct pb_http *http, const char *text);

#endif
