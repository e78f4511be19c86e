/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An API server for tests: list, watch, paging, bookmarks, compaction and discovery as the real
 * one does them, and faults on request.
 *
 * Owns its objects and their history. Everything happens on the test's loop when the test lets
 * it run, so a test is the same on every machine. It checks nothing about objects.
 */
#ifndef KUBE_FAKE_API_H
#define KUBE_FAKE_API_H

#include "kube_fake_conn.h"

struct fake_api;

struct fake_api *fake_api_new(uv_loop_t *loop, const char *cert, const char *key);
void fake_api_close(struct fake_api *api);
struct fake_http *fake_api_http(struct fake_api *api);

/* ---- objects; collection is a path such as "/api/v1/services" ---- */

/* more: further members of the object ("\"spec\":{}") or "". Returns the resource version. */
unsigned long fake_api_put(struct fake_api *api, const char *collection, const char *ns,
			   const char *name, const char *more);
unsigned long fake_api_delete(struct fake_api *api, const char *collection, const char *ns,
			      const char *name);
/* The cluster changes elsewhere: the resource version grows, no watch hears of it. */
void fake_api_tick(struct fake_api *api);
/* Forgets the history: an older watch or an older page's token is 410 from now on. */
void fake_api_compact(struct fake_api *api);
unsigned long fake_api_version(const struct fake_api *api);

/* ---- what it does to watches that are open ---- */

void fake_api_bookmark(struct fake_api *api);
/* Sends text as it is to each watch. */
void fake_api_raw(struct fake_api *api, const char *text);
/* Ends each watch in order (clean) or breaks its connection. */
void fake_api_end_watches(struct fake_api *api, bool clean);
unsigned fake_api_watches(const struct fake_api *api);

/* ---- faults and settings ---- */

/* The next `times` requests whose path contains `match` are answered so. Up to 8 at a time. */
void fake_api_fail(struct fake_api *api, const char *match, int times, int status,
		   const char *headers, const char *body);
/* Called for a page before it is answered: the place to compact between two pages. */
void fake_api_on_page(struct fake_api *api, void (*fn)(void *arg, unsigned page), void *arg);
/* Break the connection in the middle of the next n lists, after at least one item. */
void fake_api_cut_lists(struct fake_api *api, unsigned n);
void fake_api_page_max(struct fake_api *api, unsigned items);
/* 410 as an answer's status, not inside the stream. */
void fake_api_gone_as_status(struct fake_api *api, bool on);
void fake_api_compress(struct fake_api *api, bool on);
/* "Bearer x": anything else is answered 401. NULL: everybody may. */
void fake_api_require(struct fake_api *api, const char *authorization);
/* What GET /version says; 1.26 unless told: before WatchList. */
void fake_api_is(struct fake_api *api, const char *minor, const char *git_version);
enum fake_watch_list {
	FAKE_WATCH_LIST_INVALID, /* 422: since 1.19, when it isn't there or switched off */
	FAKE_WATCH_LIST_IGNORED, /* before 1.19: the objects come, their end is never marked */
	FAKE_WATCH_LIST_SERVED,
	FAKE_WATCH_LIST_MUTE,	  /* no answer at all */
	FAKE_WATCH_LIST_UNMARKED, /* served, but the mark waits for fake_api_mark() */
};
void fake_api_watch_list(struct fake_api *api, enum fake_watch_list how);
/* Sends each watch the bookmark that ends the initial objects. */
void fake_api_mark(struct fake_api *api);
/* Space separated names of what /apis/discovery.k8s.io/VERSION serves; NULL: 404. */
void fake_api_serve(struct fake_api *api, const char *version, const char *plurals);

/* ---- what was asked ---- */

/* How many requests' paths contain all of a and b (b may be NULL). */
unsigned fake_api_asked(const struct fake_api *api, const char *a, const char *b);
const char *fake_api_last(const struct fake_api *api, const char *match);
/* The last Host header. */
const char *fake_api_host(const struct fake_api *api);

#endif
