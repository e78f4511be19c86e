/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watch of a kind: lines of JSON, each an event, from the resource version on where the
 * list or the watch before ended. A line that was cut off is dropped: the next watch brings it.
 */
#include <kube/reflector_priv.h>

#include <base/log.h>

/* Watches in a row that fail without an event until the resource version itself is doubted. */
#define FAILURES_MAX 5
#define LINE_KEPT ((size_t)64 * 1024)
/* A list that is not older than this many of the shortest watches is not repeated at once. */
#define LIST_FRESH 10

static int watch_ends(struct pb_reflector *r, enum watch_verdict verdict)
{
	r->verdict = verdict;
	return -ECANCELED;
}

static int watch_fails(struct pb_reflector *r, const char *fmt, ...) PB_PRINTF(2, 3);

static int watch_fails(struct pb_reflector *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r->why, sizeof(r->why), fmt, ap);
	va_end(ap);
	return watch_ends(r, WATCH_FAILED);
}

/* ---- events ---- */

/* A Status inside the stream: 410 asks for a new list, anything else for a pause. */
static int on_error_event(struct pb_reflector *r, struct pb_json_span object)
{
	PB_JSON_FREE cJSON *status = cJSON_ParseWithLength(object.text, object.len);
	const char *reason = pb_json_str(status, "reason", "");
	int code = (int)pb_json_num(status, "code", 0);

	if (code == 410 || strcmp(reason, "Expired") == 0 || strcmp(reason, "Gone") == 0)
		return watch_ends(r, WATCH_RELIST);
	return watch_fails(r, "the server ended the watch with %d: %s", code,
			   pb_json_str(status, "message", reason));
}

static void event_delete(struct pb_reflector *r, struct pb_json_span metadata)
{
	char name[512], ns[256];

	pb_json_member_text(metadata, "name", name, sizeof(name));
	pb_json_member_text(metadata, "namespace", ns, sizeof(ns));
	pb_sink_delete(r->sink, r->resource->kind, ns, name);
}

static void event_put(struct pb_reflector *r, struct pb_json_span object)
{
	struct pb_err err;

	if (pb_sink_put(r->sink, r->resource->kind, NULL, object.text, object.len, &err) < 0)
		pb_warn("kube", "%s", err.text);
}

static int on_event(struct pb_reflector *r, const char *line, size_t len)
{
	struct pb_json_span event = {line, len}, object, metadata;
	char type[16], rv[RV_MAX];

	pb_json_member_text(event, "type", type, sizeof(type));
	if (!type[0] || pb_json_member(event, "object", &object) < 0)
		return watch_fails(r, "a line of the watch is not an event");
	if (strcmp(type, "ERROR") == 0)
		return on_error_event(r, object);
	if (pb_json_member(object, "metadata", &metadata) < 0)
		return watch_fails(r, "an event of the watch has no metadata");
	pb_json_member_text(metadata, "resourceVersion", rv, sizeof(rv));
	if (!rv[0])
		return watch_fails(r, "an event of the watch has no resourceVersion");
	if (strcmp(type, "DELETED") == 0)
		event_delete(r, metadata);
	else if (strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0)
		event_put(r, object);
	if (r->stopped || !r->call)
		return -ECANCELED;
	memcpy(r->rv, rv, strlen(rv) + 1);
	r->events++;
	r->watch_events++;
	r->watch_failures = 0;
	r->last_event = uv_now(r->loop);
	return 0;
}

static int on_line(struct pb_reflector *r, const char *line, size_t len)
{
	while (len && (line[len - 1] == '\r' || line[len - 1] == ' '))
		len--;
	return len ? on_event(r, line, len) : 0;
}

/* One large object must not cost its memory for ever. */
static void line_reset(struct pb_reflector *r)
{
	if (r->line.cap > LINE_KEPT)
		pb_buf_free(&r->line);
	else
		pb_buf_reset(&r->line);
}

/* A line inside one chunk is read where it lies. */
static int on_watch_body(void *arg, const char *data, size_t len)
{
	struct pb_reflector *r = arg;
	int rc = 0;

	r->last_byte = uv_now(r->loop);
	r->bytes += len;
	while (len && rc == 0) {
		const char *end = memchr(data, '\n', len);
		size_t part = end ? (size_t)(end - data) : len;

		if (r->line.len + part > OBJECT_MAX)
			return watch_fails(r, "an event is larger than %zu bytes", OBJECT_MAX);
		if (end && !r->line.len) {
			rc = on_line(r, data, part);
		} else {
			rc = pb_buf_append(&r->line, data, part);
			if (rc == 0 && end)
				rc = on_line(r, r->line.data, r->line.len);
			if (end)
				line_reset(r);
		}
		data += part + (end ? 1 : 0);
		len -= part + (end ? 1 : 0);
	}
	return rc;
}

/* ---- the end of a watch ---- */

static void relist(struct pb_reflector *r)
{
	r->rv[0] = '\0';
	r->list_options = LIST_CURRENT;
}

/* 410: at once, unless the server says so right after a list, again and again. */
static void expired(struct pb_reflector *r)
{
	uint64_t age = uv_now(r->loop) - r->listed_at;
	char name[128];

	pb_info("kube", "%s: the server no longer has the changes since %s; listing anew",
		reflector_name(r, name, sizeof(name)), r->rv);
	relist(r);
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
		relist(r);
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
		relist(r);
	} else if (status) {
		watch_failed(r);
	}
	reflector_refused(r, answer, "watch");
}

static bool too_short(const struct pb_reflector *r)
{
	return !r->watch_events && uv_now(r->loop) - r->watch_started < r->timing.short_watch_ms;
}

static void on_watch_done(void *arg, const struct pb_api_answer *answer)
{
	struct pb_reflector *r = arg;
	char name[128], text[1400];

	r->call = NULL;
	line_reset(r);
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
		reflector_run(r);
	}
}

static void on_watch_opened(void *arg)
{
	struct pb_reflector *r = arg;

	r->opened = true;
	r->last_byte = uv_now(r->loop);
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
		pb_api_give_up(PB_TAKE_PTR(r->call));
		watch_failed(r);
		reflector_retry(r, 0, "watch: the server doesn't answer");
	} else if (now - r->watch_started > r->watch_seconds * 1000ULL + beat) {
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

int reflector_watch(struct pb_reflector *r)
{
	static const struct pb_api_calls calls = {
		.opened = on_watch_opened,
		.body = on_watch_body,
		.done = on_watch_done,
	};
	PB_FREE char *path = reflector_path(r);
	PB_FREE char *rv = reflector_escape(r->rv);
	PB_FREE char *url = NULL;
	int rc;

	r->watch_seconds = reflector_watch_seconds(r);
	if (path && rv)
		url = pb_sprintf("%swatch=1&resourceVersion=%s&allowWatchBookmarks=true"
				 "&timeoutSeconds=%u",
				 path, rv, r->watch_seconds);
	if (!url)
		return -ENOMEM;
	r->state = REFLECTOR_WATCHING;
	r->verdict = WATCH_GO_ON;
	r->opened = false;
	r->watch_events = 0;
	r->watch_started = r->last_byte = uv_now(r->loop);
	r->watches++;
	pb_buf_reset(&r->line);
	rc = pb_api_get(r->client, url, 0, &calls, r, &r->call);
	if (rc == 0)
		uv_timer_start(&r->timer, on_watch_tick, r->timing.heartbeat_ms / 3 + 1,
			       r->timing.heartbeat_ms / 3 + 1);
	return rc;
}
