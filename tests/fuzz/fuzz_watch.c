/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: a whole watch, cut into pieces or not, says the same and breaks no promise of
 * a sink. The first byte of the input chooses the size of the pieces, the second whether the watch
 * begins with the objects.
 */
#include <kube/reflector_priv.h>

#include <base/log.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the watch said: one line a call. */
struct pb_sink {
	struct pb_buf said;
	bool listing;
};

void pb_sink_list_begin(struct pb_sink *sink, uint32_t kind)
{
	(void)kind;
	if (sink->listing)
		abort();
	sink->listing = true;
}

int pb_sink_put(struct pb_sink *sink, uint32_t kind, const char *api_version, const char *json,
		size_t len, struct pb_err *err)
{
	(void)kind;
	(void)err;
	if (api_version || !len || len > OBJECT_MAX)
		abort();
	pb_buf_printf(&sink->said, "put %zu ", len);
	return pb_buf_append(&sink->said, json, len);
}

/* What was checked on the way is what a check of the object alone finds. */
int pb_sink_put_doc(struct pb_sink *sink, uint32_t kind, const char *api_version,
		    const struct pb_scan_doc *doc, struct pb_err *err)
{
	size_t len = (size_t)(doc->root.end - doc->root.p);
	struct pb_scan_doc alone;

	if (pb_scan_check_doc(doc->root.p, len, &alone, NULL) < 0 || alone.n != doc->n ||
	    alone.root.p != doc->root.p || alone.root.end != doc->root.end)
		abort();
	return pb_sink_put(sink, kind, api_version, doc->root.p, len, err);
}

int pb_sink_delete(struct pb_sink *sink, uint32_t kind, const char *ns, const char *name,
		   const char *uid)
{
	(void)kind;
	return pb_buf_printf(&sink->said, "delete %s/%s %s\n", ns, name, uid);
}

void pb_sink_list_end(struct pb_sink *sink, uint32_t kind)
{
	(void)kind;
	if (!sink->listing)
		abort();
	sink->listing = false;
	pb_buf_printf(&sink->said, "end\n");
}

void pb_sink_list_abort(struct pb_sink *sink, uint32_t kind)
{
	(void)kind;
	sink->listing = false;
}

void reflector_state(struct pb_reflector *r, bool healthy, const char *fmt, ...)
{
	(void)fmt;
	r->healthy = healthy;
}

/* As in reflector_list.c, without what a list of pages needs. */
void reflector_list_end(struct pb_reflector *r, const char *version)
{
	if (r->initial || strlen(version) >= sizeof(r->rv))
		abort();
	memcpy(r->rv, version, strlen(version) + 1);
	pb_sink_list_end(r->sink, 0);
}

static int watch(uv_loop_t *loop, const char *text, size_t len, size_t step, bool with_objects,
		 struct pb_buf *said)
{
	static const struct pb_api_resource resource = {.group = "", .plural = "pods"};
	struct pb_sink sink = {0};
	struct pb_reflector r = {.loop = loop,
				 .sink = &sink,
				 .resource = &resource,
				 .opened = true,
				 .initial = with_objects,
				 .call = (struct pb_api_call *)&sink};
	int rc = 0;

	if (with_objects)
		pb_sink_list_begin(&sink, 0);
	for (size_t at = 0; at < len && rc == 0; at += step)
		rc = reflector_feed(&r, text + at, len - at < step ? len - at : step);
	/* Until the mark nothing is known; what ended a watch has a verdict. */
	if ((r.initial && r.rv[0]) || (rc < 0 && r.verdict == WATCH_GO_ON))
		abort();
	pb_buf_printf(&sink.said, "%d %d %s %s", rc, (int)r.verdict, r.rv, r.why);
	pb_buf_free(&r.line);
	*said = sink.said;
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uv_loop_t loop;
	static bool ready;
	PB_BUF_FREE struct pb_buf whole = {0};
	PB_BUF_FREE struct pb_buf pieces = {0};
	const char *text = (const char *)data + 2;

	if (!ready) {
		uv_loop_init(&loop);
		pb_log_setup(PB_LOG_LOGFMT, PB_LOG_ERROR, 2);
		ready = true;
	}
	if (size < 3)
		return 0;
	watch(&loop, text, size - 2, size - 2, data[1] & 1, &whole);
	watch(&loop, text, size - 2, (size_t)data[0] % 61 + 1, data[1] & 1, &pieces);
	if (whole.len != pieces.len || memcmp(whole.data, pieces.data, whole.len) != 0)
		abort();
	return 0;
}
