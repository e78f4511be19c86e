/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One reflector, shared by the files that make it up: reflector.c (life, pauses),
 * reflector_discovery.c, reflector_list.c, reflector_watch.c (requests and their ends) and
 * reflector_events.c (what a watch says). Nobody else includes this.
 */
#ifndef PB_KUBE_REFLECTOR_PRIV_H
#define PB_KUBE_REFLECTOR_PRIV_H

#include <kube/json_stream.h>
#include <kube/reflector.h>

/* etcd refuses objects above 1.5 MiB by default; this leaves room for larger settings. */
#define OBJECT_MAX ((size_t)4 * 1024 * 1024)
/* A tree is made of it. The lists of the groups in question have less than a KiB. */
#define DISCOVERY_MAX ((size_t)64 * 1024)
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
	WATCH_NO_WATCH_LIST, /* the server doesn't know how to begin with the objects */
};

struct pb_reflector {
	uv_loop_t *loop;
	struct pb_sink *sink;
	struct pb_api_client *client;
	const struct pb_api_resource *resource;
	struct pb_api_timing timing;
	struct pb_api_server_facts *server;
	void (*doubt)(void *arg);
	void *doubt_arg;

	enum reflector_state state;
	bool stopped;
	bool found;	  /* discovery has settled on `version` */
	bool told_absent; /* to the sink, and not synced since */
	bool recheck;	  /* a better version may be served by now */
	size_t version;	  /* index in resource->versions */
	size_t candidate; /* the one that discovery asks for */
	uv_timer_t timer; /* the pause, or the heart beat of a request */
	struct pb_api_call *call;
	char rv[RV_MAX]; /* where the watch goes on; "": a list is due */

	enum list_options list_options;
	bool listing;	/* the sink was told that a list began */
	bool list_once; /* the next list isn't a WatchList */
	char relist_reason[128];
	char *next_page;
	struct pb_json_stream *list;

	struct pb_buf line; /* the part of a watch's line that has arrived */
	enum watch_verdict verdict;
	char why[1024]; /* with WATCH_FAILED */
	bool opened;
	bool began_with_objects;   /* this watch is a WatchList */
	bool initial;		   /* and the mark after its objects has not come yet */
	unsigned initial_failures; /* in a row */
	uint64_t watch_started;
	unsigned watch_seconds;	 /* what was asked for */
	uint64_t watch_events;	 /* of this watch */
	unsigned watch_failures; /* in a row, without any event */

	uint64_t listed_at;
	uint64_t last_byte;
	uint64_t last_error;
	unsigned failures;

	bool healthy;
	bool lacks_list, lacks_watch; /* refused with 403, and not allowed since */
	char text[1700];
	char name[128]; /* for status */
	uint64_t lists; /* complete ones since the start */
	uint64_t bytes, last_event;

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
unsigned reflector_watch_seconds(const struct pb_reflector *r);
/* The collection's path of this kind, with "?" and the selector's part of the query. */
char *reflector_path(const struct pb_reflector *r);
char *reflector_escape(const char *text); /* for a query */

/* Pauses `ms`, then goes on with whatever is due. */
void reflector_wait(struct pb_reflector *r, uint64_t ms);

/* ---- reflector_discovery.c ---- */

bool reflector_must_discover(const struct pb_reflector *r);
int reflector_discover(struct pb_reflector *r);
void reflector_absent(struct pb_reflector *r);

/* ---- reflector_list.c ---- */

int reflector_list(struct pb_reflector *r);
void reflector_list_begin(struct pb_reflector *r);
/* The list, or the part of a watch that stands for it, is complete up to `version`. */
void reflector_list_end(struct pb_reflector *r, const char *version);
void reflector_list_abort(struct pb_reflector *r);
/* The next thing due is a list. */
void reflector_relist(struct pb_reflector *r, const char *reason);

/* ---- reflector_watch.c ---- */

int reflector_watch(struct pb_reflector *r);
/* A watch that begins with the objects (WatchList). */
bool reflector_may_watch_list(const struct pb_reflector *r);
int reflector_watch_list(struct pb_reflector *r);

/* ---- reflector_events.c ---- */

/* Bytes of a watch. Negative ends the watch; r->verdict says what follows. */
int reflector_feed(struct pb_reflector *r, const char *data, size_t len);
void reflector_line_reset(struct pb_reflector *r);

#endif
