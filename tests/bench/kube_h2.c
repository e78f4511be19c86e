/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Carries bytes between nghttp2's sessions and the connections. nghttp2 must not be asked to send
 * from inside one of its callbacks, so requests wait until it has read what arrived.
 */
#include "kube_h2.h"

#include <nghttp2/nghttp2.h>
#include <utlist.h>

#define STREAMS_MAX 250 /* as the real server has it */

struct h2_stream {
	struct h2_stream *prev, *next;
	struct h2_conn *conn;
	int32_t id;
	struct h2_request request;
	struct pb_buf out;
	size_t sent; /* of out */
	bool asked;  /* the request is complete and nobody was told */
	bool ended;
};

struct h2_conn {
	struct h2_conn *prev, *next;
	struct h2_server *server;
	struct fake_conn *conn;
	nghttp2_session *session;
	struct h2_stream *streams;
};

struct h2_server {
	struct fake_http *http;
	nghttp2_session_callbacks *callbacks;
	struct h2_conn *conns;
	struct h2_calls calls;
	void *arg;
};

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "kube_server: %s\n", what);
	abort();
}

/* ---- what nghttp2 says ---- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct h2_conn *c = arg;
	struct h2_stream *s = calloc(1, sizeof(*s));

	must(s != NULL, "out of memory");
	s->conn = c;
	s->id = frame->hd.stream_id;
	DL_APPEND(c->streams, s);
	return nghttp2_session_set_stream_user_data(session, s->id, s);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_len, const uint8_t *value, size_t len, uint8_t flags, void *arg)
{
	struct h2_stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	(void)name_len;
	(void)flags;
	(void)arg;
	/* Both are NUL terminated by promise. */
	if (strcmp((const char *)name, ":path") == 0) {
		must(len < sizeof(s->request.path), "a path that is too long");
		memcpy(s->request.path, value, len + 1);
	} else if (strcmp((const char *)name, "accept-encoding") == 0) {
		s->request.gzip = strstr((const char *)value, "gzip");
	}
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct h2_stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	(void)arg;
	if (s && frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
		s->asked = true;
	return 0;
}

static void stream_free(struct h2_stream *s)
{
	struct h2_server *server = s->conn->server;

	if (!s->ended)
		server->calls.gone(server->arg, s);
	DL_DELETE(s->conn->streams, s);
	pb_buf_free(&s->out);
	free(s);
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
	(void)code;
	(void)arg;
	stream_free(nghttp2_session_get_stream_user_data(session, id));
	return 0;
}

/* nghttp2 asks for as much as the client's windows have room for. */
static ssize_t on_room(nghttp2_session *session, int32_t id, uint8_t *buf, size_t room,
		       uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct h2_stream *s = source->ptr;
	size_t n = s->out.len - s->sent;

	(void)session;
	(void)id;
	(void)arg;
	if (n == 0 && !s->ended)
		return NGHTTP2_ERR_DEFERRED;
	if (n > room)
		n = room;
	if (n)
		memcpy(buf, s->out.data + s->sent, n);
	s->sent += n;
	if (s->sent == s->out.len) {
		pb_buf_reset(&s->out);
		s->sent = 0;
		if (s->ended)
			*flags |= NGHTTP2_DATA_FLAG_EOF;
	}
	return (ssize_t)n;
}

/* ---- streams ---- */

static void conn_flush(struct h2_conn *c)
{
	const uint8_t *data;
	ssize_t n;

	while ((n = nghttp2_session_mem_send(c->session, &data)) > 0)
		fake_write(c->conn, (const char *)data, (size_t)n);
	must(n == 0, "nghttp2 can't send");
}

static nghttp2_nv header(const char *name, const char *value)
{
	/* nghttp2 copies; it only never promised to in the type. */
	return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
			    .value = (uint8_t *)(uintptr_t)value,
			    .namelen = strlen(name),
			    .valuelen = strlen(value)};
}

void h2_begin(struct h2_stream *s, const char *status, bool gzip)
{
	nghttp2_nv headers[] = {header(":status", status),
				header("content-type", "application/json"),
				header("content-encoding", "gzip")};
	nghttp2_data_provider body = {.source.ptr = s, .read_callback = on_room};

	must(nghttp2_submit_response(s->conn->session, s->id, headers,
				     PB_ARRAY_LEN(headers) - !gzip, &body) == 0,
	     "nghttp2 takes no answer");
	conn_flush(s->conn);
}

void h2_send(struct h2_stream *s, const char *data, size_t len)
{
	must(pb_buf_append(&s->out, data, len) == 0, "out of memory");
	/* Refused for a stream that only waits for room: it needs no reminder. */
	(void)nghttp2_session_resume_data(s->conn->session, s->id);
	conn_flush(s->conn);
}

void h2_end(struct h2_stream *s)
{
	s->ended = true;
	(void)nghttp2_session_resume_data(s->conn->session, s->id);
	conn_flush(s->conn);
}

/* ---- connections ---- */

static struct h2_conn *conn_new(struct h2_server *server, struct fake_conn *conn)
{
	static const nghttp2_settings_entry settings = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
							STREAMS_MAX};
	struct h2_conn *c = calloc(1, sizeof(*c));

	must(c && nghttp2_session_server_new(&c->session, server->callbacks, c) == 0 &&
		     nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, &settings, 1) == 0,
	     "out of memory");
	c->server = server;
	c->conn = conn;
	DL_APPEND(server->conns, c);
	return c;
}

static void tell_requests(struct h2_conn *c)
{
	struct h2_stream *s;

	for (;;) {
		DL_SEARCH_SCALAR(c->streams, s, asked, true);
		if (!s)
			return;
		s->asked = false;
		c->server->calls.request(c->server->arg, s, &s->request);
	}
}

static void on_bytes(void *arg, struct fake_conn *conn, const char *data, size_t len)
{
	struct h2_server *server = arg;
	struct h2_conn *c;

	DL_SEARCH_SCALAR(server->conns, c, conn, conn);
	if (!c)
		c = conn_new(server, conn);
	must(nghttp2_session_mem_recv(c->session, (const uint8_t *)data, len) == (ssize_t)len,
	     "the client speaks no HTTP/2");
	tell_requests(c);
	conn_flush(c);
}

static void on_gone(void *arg, struct fake_conn *conn)
{
	struct h2_server *server = arg;
	struct h2_conn *c;

	DL_SEARCH_SCALAR(server->conns, c, conn, conn);
	if (!c)
		return;
	while (c->streams)
		stream_free(c->streams);
	nghttp2_session_del(c->session);
	DL_DELETE(server->conns, c);
	free(c);
}

/* HTTP/1.1 is never agreed on. */
static void on_request(void *arg, struct fake_conn *conn, const struct fake_request *request)
{
	(void)arg;
	(void)request;
	fake_drop(conn);
}

struct h2_server *h2_server_new(uv_loop_t *loop, const char *cert, const char *key,
				const struct h2_calls *calls, void *arg)
{
	struct h2_server *server = calloc(1, sizeof(*server));

	must(server && nghttp2_session_callbacks_new(&server->callbacks) == 0, "out of memory");
	nghttp2_session_callbacks_set_on_begin_headers_callback(server->callbacks,
								on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(server->callbacks, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(server->callbacks, on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(server->callbacks, on_stream_close);
	server->calls = *calls;
	server->arg = arg;
	server->http = fake_http_new(loop, cert, key, on_request, on_gone, server);
	fake_http_raw(server->http, "h2", on_bytes, server);
	return server;
}

const char *h2_server_url(const struct h2_server *server)
{
	return fake_http_url(server->http);
}
