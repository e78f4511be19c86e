/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2: all requests share a connection, so one that went silent has to be noticed, closed and
 * replaced as a whole. The server here writes frames (RFC 9113) by hand and answers by the order
 * of the streams: 3 is the list, 5 the watch, all others ask for /version.
 */
#include "kube_api_harness.h"
#include "kube_api_pki.h"

#define SVC PB_KUBE_SERVICE
#define PREFACE 24 /* bytes before the client's first frame */

enum frame_type {
	FRAME_DATA = 0,
	FRAME_HEADERS = 1,
	FRAME_SETTINGS = 4,
};

#define END_STREAM 1
#define ACK 1
#define END_HEADERS 4

#define FRAME_MAX ((size_t)16384) /* the most that a client accepts unasked */

struct h2 {
	const char *list;	/* what the third stream is answered with */
	struct fake_conn *conn; /* the one that is open */
	struct pb_buf in;
	/* The first connection answers /version only, the second these in order, ended by NULL. */
	const char *const *second;
	unsigned conns;
	unsigned streams; /* that were opened on this connection */
	bool deaf;	  /* answers nothing more on this connection */
};

static void frame(struct fake_conn *conn, unsigned type, unsigned flags, unsigned stream,
		  const char *data, size_t len)
{
	unsigned char head[9] = {(unsigned char)(len >> 16),
				 (unsigned char)(len >> 8),
				 (unsigned char)len,
				 (unsigned char)type,
				 (unsigned char)flags,
				 (unsigned char)(stream >> 24),
				 (unsigned char)(stream >> 16),
				 (unsigned char)(stream >> 8),
				 (unsigned char)stream};

	fake_write(conn, (const char *)head, sizeof(head));
	fake_write(conn, data, len);
}

/* ":status: 200" is entry 8 of HPACK's static table. */
static void answer(struct fake_conn *conn, unsigned stream, const char *body, bool end)
{
	size_t len = strlen(body), part;

	frame(conn, FRAME_HEADERS, END_HEADERS, stream, "\x88", 1);
	for (; len > FRAME_MAX; body += part, len -= part) {
		part = FRAME_MAX;
		frame(conn, FRAME_DATA, 0, stream, body, part);
	}
	frame(conn, FRAME_DATA, end ? END_STREAM : 0, stream, body, len);
}

static const char list[] = "{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[]}";

static void on_stream(struct h2 *h2, unsigned stream)
{
	static const char event[] =
		"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Service\",\"metadata\":"
		"{\"name\":\"one\",\"namespace\":\"a\",\"resourceVersion\":"
		"\"8\"}}}\n";

	h2->streams++;
	if (h2->second && h2->conns == 1 && stream == 3)
		h2->deaf = true;
	if (h2->deaf)
		return;
	if (h2->conns == 2 && h2->second) {
		answer(h2->conn, stream, *h2->second ? *h2->second : "", *h2->second);
		h2->second += *h2->second != NULL;
	} else if (h2->conns == 2) { /* the connection after the silent one: the watch again */
		answer(h2->conn, stream, event, false);
	} else if (stream == 3) {
		answer(h2->conn, stream, h2->list ? h2->list : list, true);
	} else if (stream == 5) {
		answer(h2->conn, stream, "", false);
	} else {
		answer(h2->conn, stream, "{\"gitVersion\":\"v1.33.1\"}", true);
	}
}

static void take_frames(struct h2 *h2)
{
	size_t at = 0;

	while (h2->in.len - at >= 9) {
		const unsigned char *p = (const unsigned char *)h2->in.data + at;
		size_t len = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];

		if (h2->in.len - at < 9 + len)
			break;
		at += 9 + len;
		if (p[3] == FRAME_SETTINGS && !(p[4] & ACK))
			frame(h2->conn, FRAME_SETTINGS, ACK, 0, "", 0);
		if (p[3] == FRAME_HEADERS)
			on_stream(h2, (unsigned)p[7] << 8 | p[8]);
	}
	memmove(h2->in.data, h2->in.data + at, h2->in.len - at);
	h2->in.len -= at;
}

static void on_bytes(void *arg, struct fake_conn *conn, const char *data, size_t len)
{
	struct h2 *h2 = arg;

	if (h2->conn != conn) {
		h2->conn = conn;
		h2->conns++;
		h2->streams = 0;
		h2->deaf = false;
		pb_buf_reset(&h2->in);
		frame(conn, FRAME_SETTINGS, 0, 0, "", 0);
		data += PREFACE;
		len -= PREFACE;
	}
	pb_buf_append(&h2->in, data, len);
	take_frames(h2);
}

static void start_h2(struct bench *b, const struct pki *pki, uint32_t kind)
{
	struct pb_api_config *config = bench_config(b);

	config->ca.file = strdup(pki->ca);
	config->tls_server_name = strdup("kubernetes");
	bench_start(b, config, kind);
}

static void begin_h2(struct bench *b, struct h2 *h2, struct pki *pki, uint32_t kind)
{
	pki_make(pki);
	bench_open_tls(b, pki->cert, pki->key);
	fake_http_raw(fake_api_http(b->api), "h2", on_bytes, h2);
	b->timing.heartbeat_ms = 100;
	b->timing.connect_ms = 1000;
	start_h2(b, pki, kind);
}

static void open_h2(struct bench *b, struct h2 *h2, struct pki *pki)
{
	begin_h2(b, h2, pki, SVC);
	WAIT(b, h2->streams >= 3 && bench_says(b, SVC, "watching"));
	cr_assert_eq(h2->conns, 1);
}

Test(kube_api_h2, requests_share_a_connection_and_one_that_went_silent_is_replaced)
{
	struct h2 h2 = {0};
	struct bench b;
	struct pki pki;

	open_h2(&b, &h2, &pki);
	h2.deaf = true;
	WAIT(&b, h2.conns == 2);
	WAIT(&b, strcmp(bench_objects(&b, SVC), "a/one") == 0);
	cr_assert_eq(b.sink.synced[SVC], 1, "the watch went on; nothing was listed again");
	bench_close(&b);
	pb_buf_free(&h2.in);
	pki_remove(&pki);
}

Test(kube_api_h2, a_silent_watch_whose_connection_answers_is_left_alone)
{
	struct h2 h2 = {0};
	struct bench b;
	struct pki pki;

	open_h2(&b, &h2, &pki);
	WAIT(&b, h2.streams >= 6);
	cr_assert_eq(h2.conns, 1);
	cr_assert(bench_says(&b, SVC, "watching"));
	bench_close(&b);
	pb_buf_free(&h2.in);
	pki_remove(&pki);
}

/* The next try would else be a stream of the same dead connection, and the one after it too. */
static void silent_from_the_first_request(uint32_t kind, const char *const *second)
{
	struct h2 h2 = {.second = second};
	struct bench b;
	struct pki pki;

	begin_h2(&b, &h2, &pki, kind);
	WAIT(&b, h2.conns == 2 && bench_says(&b, kind, "watching"));
	cr_assert_eq(b.sink.synced[kind], 1);
	bench_close(&b);
	pb_buf_free(&h2.in);
	pki_remove(&pki);
}

Test(kube_api_h2, a_connection_that_went_silent_during_the_list_is_replaced)
{
	silent_from_the_first_request(SVC, (const char *const[]){list, NULL});
}

Test(kube_api_h2, a_connection_that_went_silent_during_discovery_is_replaced)
{
	/* The end of the old connection is one more doubt, so /version comes first. */
	static const char version[] = "{\"gitVersion\":\"v1.33.1\"}";
	static const char found[] = "{\"resources\":[{\"name\":\"endpointslices\"}]}";

	silent_from_the_first_request(PB_KUBE_ENDPOINTSLICE,
				      (const char *const[]){version, found, list, NULL});
}

/* Pausing one stream of several is where HTTP clients have their bugs. */
Test(kube_api_h2, a_long_list_is_read_in_slices)
{
	PB_BUF_FREE struct pb_buf list = {0};
	struct h2 h2 = {0};
	struct bench b;
	struct pki pki;

	pb_buf_printf(&list, "{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[");
	for (int i = 0; i < 300; i++)
		pb_buf_printf(&list, "%s{\"metadata\":{\"name\":\"s%d\",\"x\":\"%04000d\"}}",
			      i ? "," : "", i, 0);
	pb_buf_printf(&list, "]}");
	h2.list = list.data;
	pki_make(&pki);
	bench_open_tls(&b, pki.cert, pki.key);
	b.sink.put_ms = 1;
	fake_http_raw(fake_api_http(b.api), "h2", on_bytes, &h2);
	start_h2(&b, &pki, SVC);
	while (!b.sink.synced[SVC])
		bench_counted_turn(&b);
	/* A slice has 2 ms and each put takes one, but what curl has in hand it hands over. */
	cr_assert_lt(b.most_puts, 60, "%u of 300 in one round of the loop", b.most_puts);
	WAIT(&b, h2.streams == 3 && bench_says(&b, SVC, "watching"));
	cr_assert_eq(h2.conns, 1);
	bench_close(&b);
	pb_buf_free(&h2.in);
	pki_remove(&pki);
}
