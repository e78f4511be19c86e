/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One reflector, shared by the files that make it up: reflector.c (life, discovery, pauses),
 * reflector_list.c and reflector_watch.c. Nobody else includes this.
 */
#ifndef PB_KUBE_REFLECTOR_PRIV_H
#define PB_KUBE_REFLECTOR_PRIV_H

#include <kube/json_stream.h>
#include <kube/reflector.h>

/* etcd refuses objects above 1.5 MiB by default; this leaves room for larger settings. */
#define OBJECT_MAX ((size_t)4 * 1024 * 1024)
#define DISCOVERY_MAX ((size_t)1024 * 1024)
#define RV_MAX 128

enum reflector_state {
	REFLECTOR_OFF,
	REFLECTOR_DISCOVERING,
	REFLECTOR_LISTING,
	REFLECTOR_WATCHING,
	REFLECTOR_WAITING,
};

/* How the next list is asked for. */
enum list_options {
	LIST_FROM_CACHE, /* resourceVersion=0: whatever the server has in memory */
	LIST_CURRENT,	 /* a quorum read, in pages */
	LIST_WHOLE,	 /* a quorum read in one answer: pages expired under way */
};

/* What the watch's own words ask for once it has ended. */
enum watch_verdict {
	WATCH_GO_ON,
	WATCH_RELIST,
	WATCH_FAILED,
};

struct pb_reflector {
	uv_loop_t *loop;
	struct pb_sink *sink;
	struct pb_api_client *client;
	const struct pb_api_resource *resource;
	struct pb_api_timing timing;
	void (*doubt)(void *arg);
	void *doubt_arg;

	enum reflector_state state;
	bool stopped;
	bool found;	  /* discovery has settled on `version` */
	bool told_absent; /* to the sink, and not synced since */
	size_t version;	  /* index in resource->versions */
	uv_timer_t timer; /* the pause, or the heart beat of a request */
	struct pb_api_call *call;
	char rv[RV_MAX]; /* where the watch goes on; "": a list is due */

	enum list_options list_options;
	bool listing; /* the sink was told that a list began */
	char *next_page;
	struct pb_json_stream *list;

	struct pb_buf line; /* the part of a watch's line that has arrived */
	enum watch_verdict verdict;
	char why[1024]; /* with WATCH_FAILED */
	bool opened;
	uint64_t watch_started;
	unsigned watch_seconds;	 /* what was asked for */
	uint64_t watch_events;	 /* of this watch */
	unsigned watch_failures; /* in a row, without any event */

	uint64_t listed_at;
	uint64_t last_byte;
	uint64_t last_error;
	unsigned failures;

	bool healthy;
	char text[1700];
	uint64_t lists, watches, events, bytes, last_event;

	void (*closed)(void *arg);
	void *closed_arg;
};

const char *reflector_name(const struct pb_reflector *r, char *buf, size_t size);
/* "v1", "discovery.k8s.io/v1" */
void reflector_api_version(const struct pb_reflector *r, char *buf, size_t size);
void reflector_state(struct pb_reflector *r, bool healthy, const char *fmt, ...) PB_PRINTF(3, 4);
/* Goes on with whatever is due: discovery, list or watch. */
void reflector_run(struct pb_reflector *r);
/* The same after a pause that grows; at least server_wants_s long. */
void reflector_retry(struct pb_reflector *r, long server_wants_s, const char *why);
/* The same from the loop's next round. */
void reflector_again(struct pb_reflector *r);
void reflector_refused(struct pb_reflector *r, const struct pb_api_answer *answer,
		       const char *verb);
void reflector_absent(struct pb_reflector *r);
unsigned reflector_watch_seconds(const struct pb_reflector *r);
/* The collection's path of this kind, with "?" and the selector's part of the query. */
char *reflector_path(const struct pb_reflector *r);
char *reflector_escape(const char *text); /* for a query */

int reflector_list(struct pb_reflector *r);
void reflector_list_abort(struct pb_reflector *r);
int reflector_watch(struct pb_reflector *r);

#endif
