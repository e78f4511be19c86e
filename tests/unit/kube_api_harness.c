/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bench and its sink. The sink compares lists as the contract of kube/source.h asks of the
 * store: only a complete list deletes what it didn't show.
 */
#include "kube_api_harness.h"

#include <signal.h>
#include <utlist.h>

#include <base/json.h>
#include <base/log.h>

static const struct pb_api_timing hurried = {
	.heartbeat_ms = 30000,
	.connect_ms = 5000,
	.token_ms = 60000,
	.backoff_ms = 20,
	.backoff_max_ms = 100,
	.backoff_reset_ms = 120000,
	.short_watch_ms = 0,
	.watch_min_s = 300,
	.watch_max_s = 600,
	.initial_ms = 10000,
	.version_ms = 600000,
	.absent_ms = 50,
};

/* ---- the sink ---- */

static struct held *find(struct pb_sink *s, uint32_t kind, const char *key)
{
	struct held *h;

	DL_FOREACH (s->objects, h) {
		if (h->kind == kind && strcmp(h->key, key) == 0)
			return h;
	}
	return NULL;
}

static void drop(struct pb_sink *s, struct held *h)
{
	pb_buf_printf(&s->log, "delete %s\n", h->key);
	DL_DELETE(s->objects, h);
	free(h);
}

void pb_sink_list_begin(struct pb_sink *s, uint32_t kind)
{
	struct held *h;

	cr_assert_not(s->listing[kind], "a list began inside a list");
	s->listing[kind] = true;
	DL_FOREACH (s->objects, h) {
		if (h->kind == kind)
			h->seen = false;
	}
	pb_buf_printf(&s->log, "begin\n");
}

int pb_sink_put(struct pb_sink *s, uint32_t kind, const char *api_version, const char *json,
		size_t len, struct pb_err *err)
{
	PB_JSON_FREE cJSON *object = cJSON_ParseWithLength(json, len);
	const cJSON *meta = cJSON_GetObjectItemCaseSensitive(object, "metadata");
	uint64_t until = uv_hrtime() + s->put_ms * 1000000ULL;
	struct held *h;
	char key[128];

	cr_assert_not_null(meta, "no object: %.*s", (int)len, json);
	snprintf(key, sizeof(key), "%s/%s", pb_json_str(meta, "namespace", ""),
		 pb_json_str(meta, "name", ""));
	snprintf(s->api_version, sizeof(s->api_version), "%s", api_version ? api_version : "");
	cr_assert(api_version || pb_json_str(object, "kind", NULL), "neither kind nor version");
	if (strstr(key, "undecodable"))
		return pb_err_set(err, -EINVAL, "%s: can't be decoded", key);
	h = find(s, kind, key);
	if (!h) {
		h = calloc(1, sizeof(*h));
		DL_APPEND(s->objects, h);
	}
	s->puts++;
	h->kind = kind;
	h->len = len;
	h->seen = true;
	snprintf(h->key, sizeof(h->key), "%s", key);
	pb_buf_printf(&s->log, "put %s\n", key);
	while (s->put_ms && uv_hrtime() < until)
		;
	if (s->on_put)
		s->on_put(s->on_put_arg);
	return 0;
}

int pb_sink_put_doc(struct pb_sink *s, uint32_t kind, const char *api_version,
		    const struct pb_scan_doc *doc, struct pb_err *err)
{
	return pb_sink_put(s, kind, api_version, doc->root.p, (size_t)(doc->root.end - doc->root.p),
			   err);
}

int pb_sink_delete(struct pb_sink *s, uint32_t kind, const char *ns, const char *name,
		   const char *uid)
{
	struct held *h;
	char key[128];

	(void)uid;
	snprintf(key, sizeof(key), "%s/%s", ns, name);
	h = find(s, kind, key);
	if (!h)
		return -ENOENT;
	drop(s, h);
	return 0;
}

void pb_sink_list_end(struct pb_sink *s, uint32_t kind)
{
	struct held *h, *next;

	cr_assert(s->listing[kind], "a list ended that never began");
	s->listing[kind] = false;
	DL_FOREACH_SAFE(s->objects, h, next)
	{
		if (h->kind == kind && !h->seen)
			drop(s, h);
	}
	s->synced[kind]++;
	pb_buf_printf(&s->log, "end\n");
}

void pb_sink_list_abort(struct pb_sink *s, uint32_t kind)
{
	cr_assert(s->listing[kind], "a list broke off that never began");
	s->listing[kind] = false;
	pb_buf_printf(&s->log, "abort\n");
}

void pb_sink_version(struct pb_sink *s, uint32_t kind, const char *api_version)
{
	cr_assert(s->listing[kind], "a version without a list");
	snprintf(s->version[kind], sizeof(s->version[kind]), "%s", api_version);
}

void pb_sink_absent(struct pb_sink *s, uint32_t kind)
{
	s->absent[kind]++;
	pb_buf_printf(&s->log, "absent\n");
}

void pb_sink_state(struct pb_sink *s, uint32_t kind, bool healthy, const char *text)
{
	snprintf(s->state[kind], sizeof(s->state[kind]), "%s", text);
	s->healthy[kind] = healthy;
}

void pb_sink_error(struct pb_sink *s, uint32_t kind, const char *text)
{
	(void)s;
	(void)kind;
	(void)text;
}

/* ---- the bench ---- */

static void on_tick(uv_timer_t *timer)
{
	(void)timer;
}

void bench_open_tls(struct bench *b, const char *cert, const char *key)
{
	memset(b, 0, sizeof(*b));
	signal(SIGPIPE, SIG_IGN);
	pb_log_setup(PB_LOG_LOGFMT, PB_LOG_ERROR, 2);
	uv_loop_init(&b->loop);
	uv_timer_init(&b->loop, &b->tick);
	uv_timer_start(&b->tick, on_tick, 5, 5);
	b->timing = hurried;
	b->api = fake_api_new(&b->loop, cert, key);
}

void bench_open(struct bench *b)
{
	bench_open_tls(b, NULL, NULL);
}

struct pb_api_config *bench_config(struct bench *b)
{
	struct pb_api_config *c = calloc(1, sizeof(*c));

	c->origin = strdup("test");
	c->servers = calloc(1, sizeof(*c->servers));
	c->servers[0] = strdup(fake_http_url(fake_api_http(b->api)));
	c->n_servers = 1;
	return c;
}

void bench_start(struct bench *b, struct pb_api_config *config, uint32_t kind)
{
	struct pb_err err = {0};

	if (!config)
		config = bench_config(b);
	cr_assert_eq(pb_api_source_start(&b->loop, &b->sink, config, &b->timing, &b->source, &err),
		     0, "%s", err.text);
	if (kind)
		bench_want(b, kind, true);
}

void bench_want(struct bench *b, uint32_t kind, bool on)
{
	b->source->ops->want(b->source, kind, on);
}

static void on_closed(void *arg)
{
	struct bench *b = arg;

	b->closed = true;
}

void bench_close_source(struct bench *b)
{
	b->source->ops->close(b->source, on_closed, b);
	b->source = NULL;
}

void bench_close(struct bench *b)
{
	struct held *h, *next;

	if (b->source)
		bench_close_source(b);
	WAIT(b, b->closed);
	fake_api_close(b->api);
	uv_close((uv_handle_t *)&b->tick, NULL);
	uv_run(&b->loop, UV_RUN_DEFAULT);
	cr_assert_eq(uv_loop_close(&b->loop), 0, "handles were left open");
	DL_FOREACH_SAFE(b->sink.objects, h, next)
	{
		free(h);
	}
	pb_buf_free(&b->sink.log);
}

void bench_turn(struct bench *b)
{
	uv_run(&b->loop, UV_RUN_ONCE);
}

void bench_counted_turn(struct bench *b)
{
	unsigned before = b->sink.puts;

	bench_turn(b);
	if (b->sink.puts - before > b->most_puts)
		b->most_puts = b->sink.puts - before;
}

void bench_pass(struct bench *b, unsigned ms)
{
	uint64_t until = uv_hrtime() + ms * 1000000ULL;

	while (uv_hrtime() < until)
		bench_turn(b);
}

static int by_key(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

const char *bench_objects(struct bench *b, uint32_t kind)
{
	static char text[4096];
	const char *keys[256];
	struct held *h;
	size_t n = 0;

	DL_FOREACH (b->sink.objects, h) {
		if (h->kind == kind && n < 256)
			keys[n++] = h->key;
	}
	qsort(keys, n, sizeof(keys[0]), by_key);
	text[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		strcat(text, i ? " " : "");
		strcat(text, keys[i]);
	}
	return text;
}

bool bench_says(struct bench *b, uint32_t kind, const char *part)
{
	return strstr(b->sink.state[kind], part);
}

void bench_forget(struct bench *b)
{
	pb_buf_reset(&b->sink.log);
}

const char *bench_log(struct bench *b)
{
	return b->sink.log.data ? b->sink.log.data : "";
}
