/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watch of a kind, from the resource version on where the list or the watch before ended, or
 * one that begins with the objects themselves (WatchList): its request, its end, its silence.
 */
#include <kube/reflector_priv.h>

#include <base/log.h>

/* Watches in a row that fail without an event until the resource version itself is doubted. */
#define FAILURES_MAX 5
/* Watches in a row that don't get to the end of their objects, until a list is asked for. */
#define INITIAL_FAILURES_MAX 3
/* A list that is not older than this many of the shortest watches is not repeated at once. */
#define LIST_FRESH 10

/* ---- what the server says of a version, a path ---- */

/* 410: at once, unless the server says so right after a list, again and again. */
static void expired(struct pb_reflector *r)
{
	uint64_t age = uv_now(r->loop) - r->listed_at;
	char name[128];

	pb_info("kube", "%s: the server no longer has the changes since %s; listing anew",
		reflector_name(r, name, sizeof(name)), r->rv);
	reflector_relist(r, "the server no longer had the changes (410)");
	if (age < (uint64_t)LIST_FRESH * r->timing.short_watch_ms)
		reflector_retry(r, 0, "the server forgets its changes too soon (410)");
	else
		reflector_run(r);
}

/* A resource version that no watch gets along with may be one that the cluster never had. */
static void watch_failed(struct pb_reflector *r)
{
	if (++r->watch_failures >= FAILURES_MAX) {
		r->watch_failures = 0;
		reflector_relist(r, "no watch from the last version succeeded");
	}
}

static void watch_refused(struct pb_reflector *r, const struct pb_api_answer *answer)
{
	long status = answer->http.status;

	if (status == 410) {
		expired(r);
		return;
	}
	if (status == 404) {
		r->found = false;
		reflector_relist(r, "the server no longer knew the path (404)");
	} else if (status) {
		watch_failed(r);
	}
	reflector_refused(r, answer, "watch");
}

/* ---- the end of a watch that was to begin with the objects, before they were complete ---- */

/* A plain list next, without a pause: this server doesn't have it. Asked again after an upgrade. */
static void initial_unknown(struct pb_reflector *r, const char *why)
{
	char name[128];

	pb_info("kube", "%s: the server has no WatchList (%s); listing",
		reflector_name(r, name, sizeof(name)), why);
	r->server->may_watch_list = false;
	reflector_run(r);
}

/*
 * What keeps a WatchList from its mark need not keep a list from its end: a list is answered from
 * the server's memory even while its etcd can't be asked for the current state.
 */
static void initial_failed(struct pb_reflector *r)
{
	if (++r->initial_failures >= INITIAL_FAILURES_MAX)
		r->list_once = true;
}

static void initial_refused(struct pb_reflector *r, const struct pb_api_answer *answer)
{
	long status = answer->http.rc == 0 ? answer->http.status : 0;

	if (status == 400 || status == 422) {
		initial_unknown(r, answer->text);
	} else if (status == 403) {
		/* The list may be allowed, and if not, its refusal is worth knowing too. */
		r->list_once = true;
		reflector_run(r);
	} else {
		if (status == 404)
			r->found = false;
		else if (status >= 500 || status == 410)
			initial_failed(r);
		reflector_refused(r, answer, "watch");
	}
}

static void initial_broken(struct pb_reflector *r, const char *why)
{
	char name[128], text[1400];

	initial_failed(r);
	snprintf(text, sizeof(text), "watch %s: %s", reflector_name(r, name, sizeof(name)), why);
	reflector_retry(r, 0, text);
}

static void initial_done(struct pb_reflector *r, const struct pb_api_answer *answer)
{
	r->initial = false;
	reflector_list_abort(r);
	if (!r->opened)
		initial_refused(r, answer);
	else if (r->verdict == WATCH_NO_WATCH_LIST)
		initial_unknown(r, "it sent a bookmark before the end of the objects");
	else if (r->verdict == WATCH_RELIST)
		initial_broken(r, "the server forgets its changes too soon (410)");
	else if (r->verdict == WATCH_FAILED)
		initial_broken(r, r->why);
	else
		initial_broken(r, "it ended before all objects had come");
}

/* Silent before the mark: perhaps a server that will never send one. */
static void initial_silent(struct pb_reflector *r)
{
	char name[128];

	pb_info("kube", "%s: the objects of the watch don't end; listing",
		reflector_name(r, name, sizeof(name)));
	pb_api_cancel(PB_TAKE_PTR(r->call));
	r->initial = false;
	r->list_once = true;
	reflector_list_abort(r);
	reflector_run(r);
}

/* ---- the end of a watch ---- */

static bool too_short(const struct pb_reflector *r)
{
	return !r->watch_events && uv_now(r->loop) - r->watch_started < r->timing.short_watch_ms;
}

static void on_watch_done(void *arg, const struct pb_api_answer *answer)
{
	struct pb_reflector *r = arg;
	char name[128], text[1400];

	r->call = NULL;
	reflector_line_reset(r);
	if (!r->opened)
		r->lacks_watch = answer->http.rc == 0 && answer->http.status == 403;
	if (r->initial) {
		initial_done(r, answer);
		return;
	}
	if (!r->opened) {
		watch_refused(r, answer);
		return;
	}
	if (r->verdict == WATCH_RELIST) {
		expired(r);
		return;
	}
	reflector_name(r, name, sizeof(name));
	if (r->verdict == WATCH_FAILED) {
		watch_failed(r);
		snprintf(text, sizeof(text), "watch %s: %s", name, r->why);
		reflector_retry(r, 0, text);
	} else if (too_short(r)) {
		watch_failed(r);
		snprintf(text, sizeof(text), "watch %s: the server ended it at once%s%s", name,
			 answer->text[0] ? ": " : "", answer->text);
		reflector_retry(r, 0, text);
	} else {
		r->recheck = r->version > 0;
		reflector_run(r);
	}
}

static int on_watch_body(void *arg, const char *data, size_t len)
{
	return reflector_feed(arg, data, len);
}

static void on_watch_opened(void *arg)
{
	struct pb_reflector *r = arg;

	r->opened = true;
	r->lacks_watch = false;
	r->last_byte = uv_now(r->loop);
	if (r->initial) {
		reflector_list_begin(r);
		return;
	}
	if (!r->healthy)
		pb_info("kube", "%s: watching again", r->resource->plural);
	reflector_state(r, true, "watching");
}

/* ---- silence ---- */

static void watch_again(struct pb_reflector *r)
{
	pb_api_cancel(PB_TAKE_PTR(r->call));
	pb_buf_reset(&r->line);
	reflector_run(r);
}

/*
 * HTTP/2 can be asked on the same connection. HTTP/1.1 can't: after three heart beats, which is
 * longer than a server waits before it sends a bookmark, the watch is simply renewed.
 */
static void on_watch_tick(uv_timer_t *timer)
{
	struct pb_reflector *r = timer->data;
	uint64_t now = uv_now(r->loop), silence = now - r->last_byte;
	uint64_t beat = r->timing.heartbeat_ms;

	if (!r->opened && silence >= beat) {
		r->doubt(r->doubt_arg);
		pb_api_give_up(PB_TAKE_PTR(r->call));
		if (r->initial)
			initial_failed(r);
		else
			watch_failed(r);
		r->initial = false;
		reflector_retry(r, 0, "watch: the server doesn't answer");
	} else if (r->initial) {
		if (r->opened && silence >= r->timing.initial_ms)
			initial_silent(r);
	} else if (now - r->watch_started > r->watch_seconds * 1000ULL + beat) {
		r->recheck = r->version > 0;
		watch_again(r);
	} else if (silence >= 3 * beat && pb_api_http_version(r->call) < 2) {
		pb_debug("kube", "%s: no byte for %u ms; watching anew", r->resource->plural,
			 (unsigned)silence);
		watch_again(r);
	} else if (silence >= beat && pb_api_http_version(r->call) == 2) {
		r->last_byte = now;
		r->doubt(r->doubt_arg);
	}
}

static int watch_start(struct pb_reflector *r, const char *how, bool with_objects)
{
	static const struct pb_api_calls calls = {
		.opened = on_watch_opened,
		.body = on_watch_body,
		.done = on_watch_done,
	};
	PB_FREE char *path = reflector_path(r);
	PB_FREE char *url = NULL;
	unsigned beat = r->timing.heartbeat_ms, tick;
	int rc;

	r->watch_seconds = reflector_watch_seconds(r);
	if (path)
		url = pb_sprintf("%swatch=1&%s&allowWatchBookmarks=true&timeoutSeconds=%u", path,
				 how, r->watch_seconds);
	if (!url)
		return -ENOMEM;
	r->state = REFLECTOR_WATCHING;
	r->verdict = WATCH_GO_ON;
	r->began_with_objects = r->initial = with_objects;
	r->opened = false;
	r->watch_events = 0;
	r->watch_started = r->last_byte = uv_now(r->loop);
	pb_buf_reset(&r->line);
	rc = pb_api_get(r->client, url, 0, &calls, r, &r->call);
	tick = (with_objects && r->timing.initial_ms < beat ? r->timing.initial_ms : beat) / 3 + 1;
	if (rc == 0)
		uv_timer_start(&r->timer, on_watch_tick, tick, tick);
	return rc;
}

int reflector_watch(struct pb_reflector *r)
{
	PB_FREE char *rv = reflector_escape(r->rv);
	PB_FREE char *how = rv ? pb_sprintf("resourceVersion=%s", rv) : NULL;

	return how ? watch_start(r, how, false) : -ENOMEM;
}

bool reflector_may_watch_list(const struct pb_reflector *r)
{
	return r->server->may_watch_list && !r->list_once && !r->next_page;
}

int reflector_watch_list(struct pb_reflector *r)
{
	return watch_start(r, "sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true);
}
