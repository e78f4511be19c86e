/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET requests to an API server: which of its addresses, as whom, over which TLS.
 *
 * Owns the settings, the token of the moment and the choice of server. Knows no kind of object
 * and never repeats a request by itself: it tells its caller whether a repetition makes sense.
 */
#ifndef PB_KUBE_API_CLIENT_H
#define PB_KUBE_API_CLIENT_H

#include <kube/curl_uv.h>
#include <kube/kubeconfig.h>

struct pb_api_client;
struct pb_api_call;

/* How often things happen. Tests have hurried ones. */
struct pb_api_timing {
	unsigned heartbeat_ms; /* silence after which a connection is doubted */
	unsigned connect_ms;   /* a connection that takes longer is given up */
	unsigned token_ms;     /* age at which a token file is read again */
	unsigned backoff_ms;   /* the first pause; each further one is twice as long */
	unsigned backoff_max_ms;
	unsigned backoff_reset_ms; /* so long without an error: the next pause is the first */
	unsigned short_watch_ms;   /* a watch without event that ends sooner has failed */
	unsigned watch_min_s;	   /* timeoutSeconds is chosen between these */
	unsigned watch_max_s;
	unsigned initial_ms; /* silence before a WatchList's objects are complete */
	unsigned version_ms; /* how often the server's version is asked for */
	unsigned absent_ms;  /* how often a kind that isn't served is asked for again */
};

extern const struct pb_api_timing pb_api_timing_default;

struct pb_api_answer {
	struct pb_http_result http;
	char text[1024]; /* with http.rc < 0 or a status outside 2xx: why, for people */
	bool again;	 /* with another server or token it may work at once */
};

struct pb_api_calls {
	void (*opened)(void *arg); /* as in struct pb_http_calls */
	int (*body)(void *arg, const char *data, size_t len);
	void (*done)(void *arg, const struct pb_api_answer *answer);
};

/* Takes the configuration, also when it fails. */
int pb_api_client_new(uv_loop_t *loop, struct pb_api_config *config,
		      const struct pb_api_timing *timing, struct pb_api_client **ret_client,
		      struct pb_err *err);
/* Every call must have ended or been cancelled. */
void pb_api_client_close(struct pb_api_client *client, void (*closed)(void *arg), void *arg);

#define PB_API_COMPRESSED (1U << 0) /* ask for gzip */
#define PB_API_QUICK (1U << 1)	    /* a small answer: must be complete within connect_ms */

/* path: with the query, starts with a slash. */
int pb_api_get(struct pb_api_client *client, const char *path, unsigned flags,
	       const struct pb_api_calls *calls, void *arg, struct pb_api_call **ret_call);
void pb_api_cancel(struct pb_api_call *call);
/* The same because its server doesn't answer: the next server's turn. */
void pb_api_give_up(struct pb_api_call *call);
unsigned pb_api_http_version(const struct pb_api_call *call);
/* The connections are dead: every call ends with -ETIMEDOUT. Not from inside a callback. */
void pb_api_client_reset(struct pb_api_client *client, const char *why);

const struct pb_api_config *pb_api_client_config(const struct pb_api_client *client);
const char *pb_api_client_server(const struct pb_api_client *client);

#endif
