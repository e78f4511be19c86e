/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An API server for the benchmark:
 *
 *   kube_server CERT KEY MINOR SERVICES ENDPOINTS SLICE BIG
 *
 * A cluster "v1.MINOR" of SERVICES Services with ENDPOINTS each in slices of at most SLICE, and
 * one Service with BIG more if that isn't 0. Serves version, discovery, lists in pages, watches
 * (with the objects in them for who asks and MINOR from 33 on) and bookmarks over HTTP/2 and TLS;
 * long lists compressed for who asks, watches never, as the real server does it.
 * Prints "url URL", then obeys lines on standard input, each answered by one line:
 *
 *   show N               what the next change of slice N will be: "next NS SERVICE OLD NEW"
 *   touch N              changes slice N: "touched NS SERVICE OLD NEW"
 *   rate EVENTS SECONDS  so many changes a second, over all slices: "sent EVENTS BYTES NS SERVICE
 *                        OLD NEW" of the last one, at the end
 *   quit
 *
 * NS is CLOCK_MONOTONIC just before the event goes to the socket. Checks no input: its one client
 * is the agent.
 */
#include <uv.h>
#include <zlib.h>

#include "kube_h2.h"
#include "kube_objects.h"

#define WATCHES 16
#define BOOKMARK_MS 20000
#define TICK_MS 5
/* The real server's: shorter answers go out as they are. */
#define GZIP_FROM ((size_t)128 * 1024)
#define STRIDE 997 /* prime: changes that follow each other are in Services far apart */

struct watch {
	struct h2_stream *stream;
	char kind[32];
	char version[32];
	bool slices;
};

struct server {
	uv_loop_t loop;
	struct h2_server *h2;
	struct cluster cluster;
	unsigned minor;
	struct watch watches[WATCHES];
	uv_pipe_t in;
	struct pb_buf line;
	char chunk[4096];
	uv_timer_t bookmarks, pace;
	uint64_t rate_start;
	unsigned rate, rate_sent, rate_end;
	uint64_t rate_bytes;
};

/* ---- requests ---- */

static const char *query(const char *path, const char *key)
{
	const char *at = strchr(path, '?');
	size_t len = strlen(key);

	for (; at; at = strchr(at, '&')) {
		at++;
		if (strncmp(at, key, len) == 0 && at[len] == '=')
			return at + len + 1;
	}
	return NULL;
}

static void answer(struct h2_stream *stream, const char *text, size_t len)
{
	h2_begin(stream, "200", false);
	h2_send(stream, text, len);
	h2_end(stream);
}

static void answer_gzip(struct h2_stream *stream, char *text, size_t len)
{
	const int gzip = 16; /* added to the window's bits: with gzip's head, not zlib's */
	z_stream z = {.next_in = (unsigned char *)text, .avail_in = (unsigned)len};
	unsigned char *out;
	size_t room;

	if (deflateInit2(&z, Z_BEST_SPEED, Z_DEFLATED, MAX_WBITS + gzip, MAX_MEM_LEVEL - 1,
			 Z_DEFAULT_STRATEGY) != Z_OK)
		abort();
	room = deflateBound(&z, len);
	z.next_out = out = malloc(room);
	z.avail_out = (unsigned)room;
	if (!out || deflate(&z, Z_FINISH) != Z_STREAM_END)
		abort();
	h2_begin(stream, "200", true);
	h2_send(stream, (char *)out, room - z.avail_out);
	h2_end(stream);
	deflateEnd(&z);
	free(out);
}

enum what {
	SERVICES,
	SLICES,
	OTHER, /* something the cluster has none of */
};

static enum what what_of(const char *path, const char **ret_kind, const char **ret_version)
{
	static const struct {
		const char *path, *kind, *version;
		enum what what;
	} kinds[] = {
		{"/api/v1/services?", "Service", "v1", SERVICES},
		{"/apis/discovery.k8s.io/v1/endpointslices?", "EndpointSlice",
		 "discovery.k8s.io/v1", SLICES},
		{"/api/v1/endpoints?", "Endpoints", "v1", OTHER},
		{"/api/v1/pods?", "Pod", "v1", OTHER},
		{"/api/v1/nodes?", "Node", "v1", OTHER},
		{"/api/v1/namespaces?", "Namespace", "v1", OTHER},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(kinds); i++) {
		if (strncmp(path, kinds[i].path, strlen(kinds[i].path)) != 0)
			continue;
		*ret_kind = kinds[i].kind;
		*ret_version = kinds[i].version;
		return kinds[i].what;
	}
	*ret_kind = *ret_version = "";
	return OTHER;
}

static unsigned count_of(const struct server *s, enum what what)
{
	return what == SERVICES ? cluster_services(&s->cluster)
	       : what == SLICES ? s->cluster.n_slices
				: 0;
}

static void print_object(const struct server *s, enum what what, unsigned i, struct pb_buf *out)
{
	if (what == SERVICES)
		cluster_print_service(&s->cluster, i, out);
	else
		cluster_print_slice(&s->cluster, i, false, out);
}

static void on_list(struct server *s, struct h2_stream *stream, const struct h2_request *request)
{
	const char *path = request->path;
	const char *limit = query(path, "limit"), *token = query(path, "continue");
	unsigned from = token ? (unsigned)strtoul(token, NULL, 10) : 0, to;
	PB_BUF_FREE struct pb_buf out = {0};
	const char *kind, *version;
	enum what what = what_of(path, &kind, &version);

	to = count_of(s, what);
	pb_buf_printf(&out,
		      "{\"kind\":\"%sList\",\"apiVersion\":\"%s\",\"metadata\":{"
		      "\"resourceVersion\":\"%u\"",
		      kind, version, s->cluster.version);
	if (limit && from + strtoul(limit, NULL, 10) < to) {
		to = from + (unsigned)strtoul(limit, NULL, 10);
		pb_buf_printf(&out, ",\"continue\":\"%u\"", to);
	}
	pb_buf_printf(&out, "},\"items\":[");
	for (unsigned i = from; i < to; i++) {
		if (i > from)
			pb_buf_printf(&out, ",");
		print_object(s, what, i, &out);
	}
	pb_buf_printf(&out, "]}\n");
	if (request->gzip && out.len > GZIP_FROM)
		answer_gzip(stream, out.data, out.len);
	else
		answer(stream, out.data, out.len);
}

static void send_bookmark(const struct server *s, const struct watch *w, const char *annotations)
{
	char line[512];
	int n = snprintf(
		line, sizeof(line),
		"{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"%s\",\"apiVersion\":\"%s\","
		"\"metadata\":{\"resourceVersion\":\"%u\",\"creationTimestamp\":null%s}}}\n",
		w->kind, w->version, s->cluster.version, annotations);

	h2_send(w->stream, line, (size_t)n);
}

static void send_all(struct server *s, const struct watch *w, enum what what)
{
	PB_BUF_FREE struct pb_buf out = {0};
	size_t brace;

	for (unsigned i = 0; i < count_of(s, what); i++) {
		pb_buf_reset(&out);
		pb_buf_printf(
			&out,
			"{\"type\":\"ADDED\",\"object\":{\"kind\":\"%s\",\"apiVersion\":\"%s\"",
			w->kind, w->version);
		brace = out.len;
		print_object(s, what, i, &out);
		/* Kind and version are members like the others. */
		out.data[brace] = ',';
		pb_buf_printf(&out, "}\n");
		h2_send(w->stream, out.data, out.len);
	}
	send_bookmark(s, w, ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}");
}

static void on_watch(struct server *s, struct h2_stream *stream, const char *path)
{
	const char *kind, *version;
	enum what what = what_of(path, &kind, &version);
	struct watch *w = s->watches;

	while (w < s->watches + WATCHES && w->stream)
		w++;
	if (w == s->watches + WATCHES)
		abort();
	w->stream = stream;
	w->slices = what == SLICES;
	snprintf(w->kind, sizeof(w->kind), "%s", kind);
	snprintf(w->version, sizeof(w->version), "%s", version);
	h2_begin(stream, "200", false);
	if (query(path, "sendInitialEvents"))
		send_all(s, w, what);
}

static void on_request(void *arg, struct h2_stream *stream, const struct h2_request *request)
{
	static const char resources[] =
		"{\"kind\":\"APIResourceList\",\"apiVersion\":\"v1\",\"groupVersion\":"
		"\"discovery.k8s.io/v1\",\"resources\":[{\"name\":\"endpointslices\","
		"\"singularName\":\"endpointslice\",\"namespaced\":true,\"kind\":\"EndpointSlice\","
		"\"verbs\":[\"get\",\"list\",\"watch\"]}]}\n";
	const char *kind, *version, *path = request->path;
	struct server *s = arg;
	char text[128];

	what_of(path, &kind, &version);
	if (strcmp(path, "/version") == 0) {
		snprintf(text, sizeof(text),
			 "{\"major\":\"1\",\"minor\":\"%u\",\"gitVersion\":\"v1.%u.0\"}", s->minor,
			 s->minor);
		answer(stream, text, strlen(text));
	} else if (strcmp(path, "/apis/discovery.k8s.io/v1") == 0) {
		answer(stream, resources, strlen(resources));
	} else if (!*kind) {
		h2_begin(stream, "404", false);
		h2_end(stream);
	} else if (query(path, "watch")) {
		on_watch(s, stream, path);
	} else {
		on_list(s, stream, request);
	}
}

static void on_gone(void *arg, struct h2_stream *stream)
{
	struct server *s = arg;

	for (size_t i = 0; i < WATCHES; i++)
		if (s->watches[i].stream == stream)
			s->watches[i].stream = NULL;
}

static void on_bookmarks(uv_timer_t *timer)
{
	struct server *s = timer->data;

	for (size_t i = 0; i < WATCHES; i++)
		if (s->watches[i].stream)
			send_bookmark(s, &s->watches[i], "");
}

/* ---- changes ---- */

static size_t send_change(struct server *s, unsigned slice, struct cluster_change *ret_change,
			  uint64_t *ret_ns)
{
	PB_BUF_FREE struct pb_buf out = {0};

	cluster_next(&s->cluster, slice, ret_change);
	cluster_change(&s->cluster, slice);
	pb_buf_printf(&out, "{\"type\":\"MODIFIED\",\"object\":");
	cluster_print_slice(&s->cluster, slice, true, &out);
	pb_buf_printf(&out, "}\n");
	*ret_ns = pb_now_ns();
	for (size_t i = 0; i < WATCHES; i++)
		if (s->watches[i].stream && s->watches[i].slices)
			h2_send(s->watches[i].stream, out.data, out.len);
	return out.len;
}

static void on_pace(uv_timer_t *timer)
{
	struct server *s = timer->data;
	uint64_t due = (pb_now_ns() - s->rate_start) * s->rate / 1000000000ULL;
	struct cluster_change change;
	uint64_t ns;

	if (due > s->rate_end)
		due = s->rate_end;
	while (s->rate_sent < due) {
		unsigned slice = s->rate_sent++ * STRIDE % s->cluster.n_slices;

		s->rate_bytes += send_change(s, slice, &change, &ns);
		if (s->rate_sent < s->rate_end)
			continue;
		uv_timer_stop(timer);
		printf("sent %u %llu %llu %s %s %s\n", s->rate_sent,
		       (unsigned long long)s->rate_bytes, (unsigned long long)ns, change.service,
		       change.old, change.new);
	}
}

static void obey(struct server *s, const char *line)
{
	struct cluster_change change;
	unsigned n, seconds;
	uint64_t ns;

	if (sscanf(line, "show %u", &n) == 1 && n < s->cluster.n_slices) {
		cluster_next(&s->cluster, n, &change);
		printf("next 0 %s %s %s\n", change.service, change.old, change.new);
	} else if (sscanf(line, "touch %u", &n) == 1 && n < s->cluster.n_slices) {
		send_change(s, n, &change, &ns);
		printf("touched %llu %s %s %s\n", (unsigned long long)ns, change.service,
		       change.old, change.new);
	} else if (sscanf(line, "rate %u %u", &n, &seconds) == 2 && n && seconds) {
		s->rate = n;
		s->rate_sent = 0;
		s->rate_bytes = 0;
		s->rate_end = n * seconds;
		s->rate_start = pb_now_ns();
		uv_timer_start(&s->pace, on_pace, 0, TICK_MS);
	} else if (strcmp(line, "quit") == 0) {
		uv_stop(&s->loop);
	} else {
		printf("unknown: %s\n", line);
	}
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
	struct server *s = handle->data;

	(void)size;
	*buf = uv_buf_init(s->chunk, sizeof(s->chunk));
}

static void on_input(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct server *s = stream->data;

	if (n < 0)
		uv_stop(&s->loop);
	for (ssize_t i = 0; i < n; i++) {
		if (buf->base[i] != '\n') {
			pb_buf_append(&s->line, &buf->base[i], 1);
			continue;
		}
		pb_buf_append(&s->line, "", 1);
		obey(s, s->line.data);
		pb_buf_reset(&s->line);
	}
}

int main(int argc, char **argv)
{
	static const struct h2_calls calls = {on_request, on_gone};
	static struct server s;

	if (argc != 8) {
		fputs("usage: kube_server CERT KEY MINOR SERVICES ENDPOINTS SLICE BIG\n", stderr);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	s.minor = (unsigned)strtoul(argv[3], NULL, 10);
	s.cluster.services = (unsigned)strtoul(argv[4], NULL, 10);
	s.cluster.endpoints = (unsigned)strtoul(argv[5], NULL, 10);
	s.cluster.slice = (unsigned)strtoul(argv[6], NULL, 10);
	s.cluster.big = (unsigned)strtoul(argv[7], NULL, 10);
	cluster_init(&s.cluster);
	uv_loop_init(&s.loop);
	uv_timer_init(&s.loop, &s.bookmarks);
	uv_timer_init(&s.loop, &s.pace);
	uv_pipe_init(&s.loop, &s.in, 0);
	s.bookmarks.data = s.pace.data = s.in.data = &s;
	s.h2 = h2_server_new(&s.loop, argv[1], argv[2], &calls, &s);
	uv_timer_start(&s.bookmarks, on_bookmarks, BOOKMARK_MS, BOOKMARK_MS);
	uv_pipe_open(&s.in, 0);
	uv_read_start((uv_stream_t *)&s.in, on_alloc, on_input);
	printf("url %s\n", h2_server_url(s.h2));
	uv_run(&s.loop, UV_RUN_DEFAULT);
	cluster_free(&s.cluster);
	pb_buf_free(&s.line);
	return 0;
}
