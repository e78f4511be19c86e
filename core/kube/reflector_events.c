/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a watch says: lines of JSON, each an event, told to the sink. A line that was cut off is
 * dropped: the next watch brings it. The resource version moves after the sink has the object.
 *
 * Owns the bytes of the line that is arriving, nothing else. Starts no request: a verdict says
 * what the end of the watch has to bring.
 */
#include <kube/reflector_priv.h>

#include <base/log.h>

#define LINE_KEPT ((size_t)64 * 1024)
/* {"type":"MODIFIED","object":} and room for blanks. */
#define ENVELOPE_MAX ((size_t)64)

/* What an event is about. A watch line is long, so it is passed over once: by the check. */
struct subject {
	struct pb_json_span text;
	struct pb_scan_doc doc;
	bool valid; /* doc is of the text, which else only looks like an object */
};

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

static int status_code(struct pb_json_span status)
{
	struct pb_json_span code;
	char text[16];

	if (pb_json_member(status, "code", &code) < 0)
		return 0;
	snprintf(text, sizeof(text), "%.*s", code.len < 16 ? (int)code.len : 0, code.text);
	return atoi(text);
}

/*
 * A Status inside the stream: 410 asks for a new list, anything else for a pause. Its members are
 * looked up in the text: a tree of it could be forty times as large.
 */
static int on_error_event(struct pb_reflector *r, struct pb_json_span status)
{
	char reason[64], message[sizeof(r->why) - 64];
	int code = status_code(status);

	pb_json_member_text(status, "reason", reason, sizeof(reason));
	pb_json_member_text(status, "message", message, sizeof(message));

	if (code == 410 || strcmp(reason, "Expired") == 0 || strcmp(reason, "Gone") == 0)
		return watch_ends(r, WATCH_RELIST);
	return watch_fails(r, "the server ended the watch with %d: %s", code,
			   message[0] ? message : reason);
}

static void event_delete(struct pb_reflector *r, struct pb_json_span metadata)
{
	char name[512], ns[256], uid[128];

	pb_json_member_text(metadata, "name", name, sizeof(name));
	pb_json_member_text(metadata, "namespace", ns, sizeof(ns));
	pb_json_member_text(metadata, "uid", uid, sizeof(uid));
	pb_sink_delete(r->sink, r->resource->kind, ns, name, uid);
}

static void event_put(struct pb_reflector *r, const struct subject *object)
{
	uint32_t kind = r->resource->kind;
	struct pb_err err;
	int rc;

	if (object->valid)
		rc = pb_sink_put_doc(r->sink, kind, NULL, &object->doc, &err);
	else
		rc = pb_sink_put(r->sink, kind, NULL, object->text.text, object->text.len, &err);
	if (rc < 0)
		pb_warn("kube", "%s", err.text);
}

/*
 * The mark that ends the objects of a WatchList. Any other bookmark before it comes from a server
 * that has never heard of it: one that has keeps its bookmarks back until then.
 */
static int initial_mark(struct pb_reflector *r, struct pb_json_span metadata, const char *version)
{
	struct pb_json_span annotations;
	char end[8] = "";

	if (pb_json_member(metadata, "annotations", &annotations) == 0)
		pb_json_member_text(annotations, "k8s.io/initial-events-end", end, sizeof(end));
	if (strcmp(end, "true") != 0)
		return watch_ends(r, WATCH_NO_WATCH_LIST);
	r->initial = false;
	reflector_list_end(r, version);
	if (!r->stopped && r->call)
		reflector_state(r, true, "watching");
	return 0;
}

/* What has arrived: events before the mark of a WatchList are parts of a list. */
static void event_counts(struct pb_reflector *r, const char *version)
{
	r->watch_events++;
	r->last_event = uv_now(r->loop);
	if (r->initial)
		return;
	memcpy(r->rv, version, strlen(version) + 1);
	r->watch_failures = 0;
}

static int on_change(struct pb_reflector *r, const char *type, const struct subject *object)
{
	struct pb_json_span metadata;
	char version[RV_MAX];
	int rc = 0;

	if (object->text.len > OBJECT_MAX)
		return watch_fails(r, "an object of the watch is larger than %zu bytes",
				   OBJECT_MAX);
	if (pb_json_member(object->text, "metadata", &metadata) < 0)
		return watch_fails(r, "an event of the watch has no metadata");
	pb_json_member_text(metadata, "resourceVersion", version, sizeof(version));
	if (!version[0])
		return watch_fails(r, "an event of the watch has no resourceVersion");
	if (strcmp(type, "DELETED") == 0)
		event_delete(r, metadata);
	else if (strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0)
		event_put(r, object);
	else if (strcmp(type, "BOOKMARK") == 0 && r->initial)
		rc = initial_mark(r, metadata, version);
	if (rc == 0 && (r->stopped || !r->call))
		rc = -ECANCELED;
	if (rc == 0)
		event_counts(r, version);
	return rc;
}

static int subject_find(struct pb_json_span event, struct subject *ret_object)
{
	struct pb_json_span rest;
	int rc = pb_json_member_rest(event, "object", &rest);

	if (rc < 0)
		return rc;
	ret_object->valid = pb_scan_check_front(rest.text, rest.len, &ret_object->doc) == 0;
	if (!ret_object->valid)
		return pb_json_member(event, "object", &ret_object->text);
	ret_object->text.text = ret_object->doc.root.p;
	ret_object->text.len = (size_t)(ret_object->doc.root.end - ret_object->doc.root.p);
	return 0;
}

static int on_event(struct pb_reflector *r, const char *line, size_t len)
{
	struct pb_json_span event = {line, len};
	struct subject object;
	char type[16];

	pb_json_member_text(event, "type", type, sizeof(type));
	if (!type[0] || subject_find(event, &object) < 0)
		return watch_fails(r, "a line of the watch is not an event");
	if (strcmp(type, "ERROR") == 0)
		return on_error_event(r, object.text);
	return on_change(r, type, &object);
}

static int on_line(struct pb_reflector *r, const char *line, size_t len)
{
	while (len && (line[len - 1] == '\r' || line[len - 1] == ' '))
		len--;
	return len ? on_event(r, line, len) : 0;
}

/* One large object must not cost its memory for ever. */
void reflector_line_reset(struct pb_reflector *r)
{
	if (r->line.cap > LINE_KEPT)
		pb_buf_free(&r->line);
	else
		pb_buf_reset(&r->line);
}

/* A line inside one chunk is read where it lies. */
int reflector_feed(struct pb_reflector *r, const char *data, size_t len)
{
	int rc = 0;

	r->last_byte = uv_now(r->loop);
	r->bytes += len;
	while (len && rc == 0) {
		const char *end = memchr(data, '\n', len);
		size_t part = end ? (size_t)(end - data) : len;

		if (r->line.len + part > OBJECT_MAX + ENVELOPE_MAX)
			return watch_fails(r, "an object of the watch is larger than %zu bytes",
					   OBJECT_MAX);
		if (end && !r->line.len) {
			rc = on_line(r, data, part);
		} else {
			rc = pb_buf_append(&r->line, data, part);
			if (rc == 0 && end)
				rc = on_line(r, r->line.data, r->line.len);
			if (end)
				reflector_line_reset(r);
		}
		data += part + (end ? 1 : 0);
		len -= part + (end ? 1 : 0);
	}
	return rc;
}
