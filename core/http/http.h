/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's HTTP server: metrics for Prometheus, health for kubelet.
 *
 * Owns a listening socket (http.listen of the configuration, loopback unless the admin says
 * otherwise) and bounded connections, driven by the agent's loop without a thread of its own. Knows
 * paths and who answers them, not what they say. Never reads a request's body, never takes a
 * request that changes something, and a port that is taken never stops the agent: it is reported
 * and tried again.
 */
#ifndef PB_HTTP_H
#define PB_HTTP_H

#include <uv.h>

#include <base/json.h>
#include <config/config.h>

struct pb_httpd;

struct pb_httpd_answer {
	unsigned status;	  /* 200 unless set */
	const char *content_type; /* "text/plain; charset=utf-8" unless set; a literal */
	struct pb_buf body;
};

struct pb_httpd_request {
	const char *path;
	bool brief; /* header "brief: true", as kubelet's probes for Cilium send it */
};

/* Called on the loop for GET and HEAD; must not block. Negative errno: 500. */
typedef int (*pb_httpd_fn)(void *arg, const struct pb_httpd_request *request,
			   struct pb_httpd_answer *answer);

/* Listens, unless http.listen is "off". What can't listen now is tried again every 10 s. */
int pb_httpd_new(uv_loop_t *loop, const struct pb_config *config, struct pb_httpd **ret_http,
		 struct pb_err *err);
/* -EEXIST: the path is taken. `path` is a literal. */
int pb_httpd_add(struct pb_httpd *http, const char *path, pb_httpd_fn fn, void *arg);
/* Another http.listen: the new socket before the old one closes. */
int pb_httpd_reconfigure(struct pb_httpd *http, const struct pb_config *config, struct pb_err *err);
void pb_httpd_close(struct pb_httpd *http, void (*closed)(void *arg), void *arg);
/* For `status`: where it listens, or why it doesn't. The caller owns the result. */
cJSON *pb_httpd_status_json(const struct pb_httpd *http);

#endif
