/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames in, frames out. No stream sends more than both of its windows have room for, and a
 * stream that waits for room doesn't keep others waiting.
 */
#include "h2_server.h"

#include <utlist.h>

#include "h2_hpack.h"

#define PREFACE 24 /* bytes before a client's first frame */
#define HEAD 9
#define PAYLOAD_MAX 16384 /* what every client accepts unasked */
#define WINDOW 65535

enum frame_type {
	FRAME_DATA = 0,
	FRAME_HEADERS = 1,
	FRAME_RST = 3,
	FRAME_SETTINGS = 4,
	FRAME_PING = 6,
	FRAME_WINDOW = 8,
};

#define END_STREAM 1U
#define ACK 1U
#define END_HEADERS 4U
#define PADDED 8U
#define PRIORITY 0x20U
#define SETTING_WINDOW 4

struct h2_stream {
	struct h2_stream *prev, *next;
	struct h2_conn *conn;
	unsigned id;
	int64_t window;
	struct pb_buf out;
	size_t sent; /* of out */
	bool ended;
};

struct h2_conn {
	struct h2_conn *prev, *next;
	struct h2_server *server;
	struct fake_conn *conn;
	struct h2_stream *streams;
	struct pb_buf in;
	int64_t window;
	int64_t stream_window; /* of a new stream */
	bool greeted;
};

struct h2_server {
	struct fake_http *http;
	struct h2_conn *conns;
	struct h2_calls calls;
	void *arg;
};

static uint32_t number_at(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Head and payload in one write: they share a TLS record. */
static void frame(struct h2_conn *c, unsigned type, unsigned flags, unsigned stream,
		  const char *data, size_t len)
{
	unsigned char text[HEAD + PAYLOAD_MAX] = {
		(unsigned char)(len >> 16),
		(unsigned char)(len >> 8),
		(unsigned char)len,
		(unsigned char)type,
		(unsigned char)flags,
		(unsigned char)(stream >> 24),
		(unsigned char)(stream >> 16),
		(unsigned char)(stream >> 8),
		(unsigned char)stream,
	};

	memcpy(text + HEAD, data, len);
	fake_write(c->conn, (const char *)text, HEAD + len);
}

/* ---- streams ---- */

static void stream_free(struct h2_stream *s)
{
	DL_DELETE(s->conn->streams, s);
	pb_buf_free(&s->out);
	free(s);
}

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Sends one frame's worth, if there is room; true when more could follow. */
static bool stream_push(struct h2_stream *s)
{
	int64_t waiting = (int64_t)(s->out.len - s->sent);
	int64_t n = least(least(waiting, PAYLOAD_MAX), least(s->window, s->conn->window));
	bool last = s->ended && n == waiting;

	if (n <= 0 && !(last && waiting == 0))
		return false;
	frame(s->conn, FRAME_DATA, last ? END_STREAM : 0, s->id, s->out.data + s->sent, (size_t)n);
	s->sent += (size_t)n;
	s->window -= n;
	s->conn->window -= n;
	if (s->sent == s->out.len) {
		pb_buf_reset(&s->out);
		s->sent = 0;
	}
	if (last)
		stream_free(s);
	return !last;
}

static void conn_push(struct h2_conn *c)
{
	struct h2_stream *s, *next;

	DL_FOREACH_SAFE(c->streams, s, next)
	{
		while ((s->out.len > s->sent || s->ended) && stream_push(s))
			;
	}
}

void h2_begin(struct h2_stream *s, unsigned status)
{
	char head[8];

	/* ":status: 200" is entry 8 of the static table; others are spelled out under its name. */
	if (status == 200)
		frame(s->conn, FRAME_HEADERS, END_HEADERS, s->id, "\x88", 1);
	else
		frame(s->conn, FRAME_HEADERS, END_HEADERS, s->id, head,
		      (size_t)snprintf(head, sizeof(head), "\x08\x03%03u", status % 1000));
}

void h2_send(struct h2_stream *s, const char *data, size_t len)
{
	if (pb_buf_append(&s->out, data, len) < 0)
		abort();
	while (s->out.len > s->sent && stream_push(s))
		;
}

void h2_end(struct h2_stream *s)
{
	s->ended = true;
	while (stream_push(s))
		;
}

static struct h2_stream *stream_find(struct h2_conn *c, unsigned id)
{
	struct h2_stream *s;

	DL_SEARCH_SCALAR(c->streams, s, id, id);
	return s;
}

static void stream_gone(struct h2_stream *s)
{
	struct h2_server *server = s->conn->server;

	if (!s->ended)
		server->calls.gone(server->arg, s);
	stream_free(s);
}

/* ---- what arrives ---- */

static void on_headers(struct h2_conn *c, unsigned flags, unsigned id, const unsigned char *p,
		       size_t len)
{
	size_t skip = (flags & PADDED ? 1U : 0) + (flags & PRIORITY ? 5U : 0);
	size_t pad = flags & PADDED && len ? p[0] : 0;
	struct h2_stream *s = calloc(1, sizeof(*s));
	char path[4096];

	if (!s || skip + pad > len ||
	    !h2_hpack_path(p + skip, len - skip - pad, path, sizeof(path)))
		abort();
	s->conn = c;
	s->id = id;
	s->window = c->stream_window;
	DL_APPEND(c->streams, s);
	c->server->calls.request(c->server->arg, s, path);
}

static void on_settings(struct h2_conn *c, unsigned flags, const unsigned char *p, size_t len)
{
	struct h2_stream *s;

	if (flags & ACK)
		return;
	for (; len >= 6; p += 6, len -= 6) {
		int64_t value = number_at(p + 2);

		if (((unsigned)p[0] << 8 | p[1]) != SETTING_WINDOW)
			continue;
		DL_FOREACH (c->streams, s)
			s->window += value - c->stream_window;
		c->stream_window = value;
	}
	frame(c, FRAME_SETTINGS, ACK, 0, "", 0);
}

static void on_window(struct h2_conn *c, unsigned id, const unsigned char *p)
{
	struct h2_stream *s = stream_find(c, id);

	if (id == 0)
		c->window += number_at(p);
	else if (s)
		s->window += number_at(p);
}

static void on_frame(struct h2_conn *c, const unsigned char *head, size_t len)
{
	unsigned id = number_at(head + 5) & 0x7fffffff, flags = head[4];
	const unsigned char *p = head + HEAD;
	struct h2_stream *s;

	switch (head[3]) {
	case FRAME_HEADERS:
		on_headers(c, flags, id, p, len);
		break;
	case FRAME_SETTINGS:
		on_settings(c, flags, p, len);
		break;
	case FRAME_WINDOW:
		on_window(c, id, p);
		break;
	case FRAME_PING:
		if (!(flags & ACK))
			frame(c, FRAME_PING, ACK, 0, (const char *)p, len);
		break;
	case FRAME_RST:
		s = stream_find(c, id);
		if (s)
			stream_gone(s);
		break;
	default:
		break;
	}
}

static struct h2_conn *conn_of(struct h2_server *server, struct fake_conn *conn)
{
	struct h2_conn *c;

	DL_SEARCH_SCALAR(server->conns, c, conn, conn);
	if (c)
		return c;
	c = calloc(1, sizeof(*c));
	if (!c)
		abort();
	c->server = server;
	c->conn = conn;
	c->window = c->stream_window = WINDOW;
	DL_APPEND(server->conns, c);
	return c;
}

static void on_bytes(void *arg, struct fake_conn *conn, const char *data, size_t len)
{
	struct h2_conn *c = conn_of(arg, conn);
	size_t at = 0;

	if (pb_buf_append(&c->in, data, len) < 0)
		abort();
	if (!c->greeted && c->in.len >= PREFACE) {
		c->greeted = true;
		at = PREFACE;
		frame(c, FRAME_SETTINGS, 0, 0, "", 0);
	}
	while (c->greeted && c->in.len - at >= HEAD) {
		const unsigned char *p = (const unsigned char *)c->in.data + at;
		size_t n = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];

		if (c->in.len - at < HEAD + n)
			break;
		at += HEAD + n;
		on_frame(c, p, n);
	}
	memmove(c->in.data, c->in.data + at, c->in.len - at);
	c->in.len -= at;
	conn_push(c);
}

static void on_gone(void *arg, struct fake_conn *conn)
{
	struct h2_conn *c = conn_of(arg, conn);

	while (c->streams)
		stream_gone(c->streams);
	DL_DELETE(c->server->conns, c);
	pb_buf_free(&c->in);
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

	if (!server)
		abort();
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

void h2_server_close(struct h2_server *server)
{
	fake_http_close(server->http);
	free(server);
}
