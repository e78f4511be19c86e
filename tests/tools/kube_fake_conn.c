/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small HTTP/1.1 server on a libuv loop, GET only. TLS runs over memory BIOs, so that the
 * same loop serves both sides of a test and nothing depends on timing.
 */
#include "kube_fake_conn.h"

#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utlist.h>

struct fake_http {
	uv_loop_t *loop;
	uv_tcp_t *listener;
	SSL_CTX *tls;
	fake_request_fn request;
	fake_gone_fn gone;
	void *arg;
	struct fake_conn *conns;
	char url[64];
	int port;
	size_t chunk;
	bool frozen;
	unsigned accepted;
	unsigned char protocol[32]; /* as ALPN has it: length, name */
	fake_bytes_fn bytes;
	void *bytes_arg;
};

struct fake_conn {
	uv_tcp_t tcp;
	struct fake_http *http;
	struct fake_conn *prev, *next;
	SSL *ssl;
	BIO *in, *out;
	char head[16384];
	size_t len;
	bool closing;
};

/* ---- bytes out ---- */

static void on_written(uv_write_t *write, int status)
{
	(void)status;
	free(write->data);
	free(write);
}

static void write_raw(struct fake_conn *c, const char *data, size_t len)
{
	uv_write_t *write = calloc(1, sizeof(*write));
	uv_buf_t buf = uv_buf_init(malloc(len + 1), (unsigned)len);

	memcpy(buf.base, data, len);
	write->data = buf.base;
	if (uv_write(write, (uv_stream_t *)&c->tcp, &buf, 1, on_written) < 0)
		on_written(write, 0);
}

static void tls_flush(struct fake_conn *c)
{
	char data[16384];
	int n;

	while ((n = BIO_read(c->out, data, sizeof(data))) > 0)
		write_raw(c, data, (size_t)n);
}

void fake_write(struct fake_conn *c, const char *data, size_t len)
{
	if (c->closing || !len)
		return;
	if (!c->ssl) {
		write_raw(c, data, len);
		return;
	}
	SSL_write(c->ssl, data, (int)len);
	tls_flush(c);
}

/* ---- connections ---- */

static void on_conn_closed(uv_handle_t *handle)
{
	struct fake_conn *c = handle->data;

	if (c->ssl)
		SSL_free(c->ssl);
	free(c);
}

void fake_drop(struct fake_conn *c)
{
	if (c->closing)
		return;
	c->closing = true;
	DL_DELETE(c->http->conns, c);
	c->http->gone(c->http->arg, c);
	uv_close((uv_handle_t *)&c->tcp, on_conn_closed);
}

static void header_value(const char *head, const char *name, char *buf, size_t size)
{
	const char *line = strcasestr(head, name);
	size_t len;

	buf[0] = '\0';
	if (!line)
		return;
	line += strlen(name);
	len = strcspn(line, "\r\n");
	snprintf(buf, size, "%.*s", (int)len, line);
}

static void take_requests(struct fake_conn *c)
{
	struct fake_request *r = calloc(1, sizeof(*r));
	char *end;

	while (!c->closing && !c->http->frozen && (end = strstr(c->head, "\r\n\r\n"))) {
		char encoding[64];

		end[2] = '\0';
		if (sscanf(c->head, "GET %4095s HTTP/1.1", r->path) != 1) {
			fake_drop(c);
			break;
		}
		header_value(c->head, "\r\nauthorization: ", r->authorization,
			     sizeof(r->authorization));
		header_value(c->head, "\r\nhost: ", r->host, sizeof(r->host));
		header_value(c->head, "\r\naccept-encoding: ", encoding, sizeof(encoding));
		r->gzip = strstr(encoding, "gzip");
		end += 4;
		c->len -= (size_t)(end - c->head);
		memmove(c->head, end, c->len + 1);
		c->http->request(c->http->arg, c, r);
	}
	free(r);
}

static void take_bytes(struct fake_conn *c, const char *data, size_t len)
{
	if (c->http->bytes) {
		c->http->bytes(c->http->bytes_arg, c, data, len);
		return;
	}
	if (c->len + len >= sizeof(c->head)) {
		fake_drop(c);
		return;
	}
	memcpy(c->head + c->len, data, len);
	c->len += len;
	c->head[c->len] = '\0';
	take_requests(c);
}

static void take_tls(struct fake_conn *c, const char *data, size_t len)
{
	char plain[16384];
	int n;

	BIO_write(c->in, data, (int)len);
	do {
		n = SSL_read(c->ssl, plain, sizeof(plain));
		tls_flush(c);
		if (n > 0)
			take_bytes(c, plain, (size_t)n);
	} while (n > 0 && !c->closing);
	if (!c->closing && n <= 0 && SSL_get_error(c->ssl, n) != SSL_ERROR_WANT_READ)
		fake_drop(c);
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
	(void)handle;
	*buf = uv_buf_init(malloc(size), (unsigned)size);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct fake_conn *c = stream->data;

	if (n < 0)
		fake_drop(c);
	else if (n > 0 && c->ssl)
		take_tls(c, buf->base, (size_t)n);
	else if (n > 0)
		take_bytes(c, buf->base, (size_t)n);
	free(buf->base);
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct fake_http *http = listener->data;
	struct fake_conn *c = calloc(1, sizeof(*c));

	if (status < 0 || !c)
		abort();
	c->http = http;
	uv_tcp_init(http->loop, &c->tcp);
	c->tcp.data = c;
	uv_accept(listener, (uv_stream_t *)&c->tcp);
	/* As the real server does; else an event waits for the acknowledgement of the one before.
	 */
	uv_tcp_nodelay(&c->tcp, 1);
	http->accepted++;
	if (http->tls) {
		c->ssl = SSL_new(http->tls);
		c->in = BIO_new(BIO_s_mem());
		c->out = BIO_new(BIO_s_mem());
		SSL_set_bio(c->ssl, c->in, c->out);
		SSL_set_accept_state(c->ssl);
	}
	DL_APPEND(http->conns, c);
	if (!http->frozen)
		uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

/* ---- answers ---- */

void fake_reply(struct fake_conn *c, int status, const char *headers, const char *body, size_t len)
{
	char head[1024];
	int n = snprintf(head, sizeof(head),
			 "HTTP/1.1 %d Fake\r\nContent-Type: application/json\r\n%s"
			 "Content-Length: %zu\r\n\r\n",
			 status, headers, len);

	fake_write(c, head, (size_t)n);
	fake_write(c, body, len);
}

void fake_begin(struct fake_conn *c, const char *headers)
{
	char head[1024];
	int n = snprintf(head, sizeof(head),
			 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%s"
			 "Transfer-Encoding: chunked\r\n\r\n",
			 headers);

	fake_write(c, head, (size_t)n);
}

void fake_send(struct fake_conn *c, const char *data, size_t len)
{
	size_t step = c->http->chunk ? c->http->chunk : len;
	char head[32];

	for (size_t at = 0; at < len; at += step) {
		size_t part = len - at < step ? len - at : step;

		fake_write(c, head, (size_t)snprintf(head, sizeof(head), "%zx\r\n", part));
		fake_write(c, data + at, part);
		fake_write(c, "\r\n", 2);
	}
}

void fake_end(struct fake_conn *c)
{
	fake_write(c, "0\r\n\r\n", 5);
}

/* ---- the server ---- */

static void on_listener_closed(uv_handle_t *handle)
{
	free(handle);
}

void fake_http_drop_all(struct fake_http *http)
{
	struct fake_conn *c, *next;

	DL_FOREACH_SAFE(http->conns, c, next)
	{
		fake_drop(c);
	}
}

void fake_http_up(struct fake_http *http)
{
	struct sockaddr_in addr;
	int len = sizeof(addr);

	http->listener = calloc(1, sizeof(*http->listener));
	uv_tcp_init(http->loop, http->listener);
	http->listener->data = http;
	uv_ip4_addr("127.0.0.1", http->port, &addr);
	if (uv_tcp_bind(http->listener, (struct sockaddr *)&addr, 0) < 0 ||
	    uv_listen((uv_stream_t *)http->listener, 64, on_connection) < 0)
		abort();
	uv_tcp_getsockname(http->listener, (struct sockaddr *)&addr, &len);
	http->port = ntohs(addr.sin_port);
	snprintf(http->url, sizeof(http->url), "%s://127.0.0.1:%d", http->tls ? "https" : "http",
		 http->port);
}

void fake_http_down(struct fake_http *http)
{
	if (http->listener)
		uv_close((uv_handle_t *)http->listener, on_listener_closed);
	http->listener = NULL;
	fake_http_drop_all(http);
}

void fake_http_freeze(struct fake_http *http, bool frozen)
{
	struct fake_conn *c;

	http->frozen = frozen;
	DL_FOREACH (http->conns, c) {
		if (frozen)
			uv_read_stop((uv_stream_t *)&c->tcp);
		else
			uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
	}
}

struct fake_http *fake_http_new(uv_loop_t *loop, const char *cert, const char *key,
				fake_request_fn request, fake_gone_fn gone, void *arg)
{
	struct fake_http *http = calloc(1, sizeof(*http));

	http->loop = loop;
	http->request = request;
	http->gone = gone;
	http->arg = arg;
	if (cert) {
		http->tls = SSL_CTX_new(TLS_server_method());
		if (SSL_CTX_use_certificate_chain_file(http->tls, cert) != 1 ||
		    SSL_CTX_use_PrivateKey_file(http->tls, key, SSL_FILETYPE_PEM) != 1)
			abort();
	}
	fake_http_up(http);
	return http;
}

void fake_http_close(struct fake_http *http)
{
	fake_http_down(http);
	/* Connections still close on the loop; they don't look at the server any more. */
	if (http->tls)
		SSL_CTX_free(http->tls);
	free(http);
}

const char *fake_http_url(const struct fake_http *http)
{
	return http->url;
}

void fake_http_chunk(struct fake_http *http, size_t bytes)
{
	http->chunk = bytes;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
		   const unsigned char *offered, unsigned offered_len, void *arg)
{
	struct fake_http *http = arg;
	unsigned char *chosen;

	(void)ssl;
	if (SSL_select_next_proto(&chosen, out_len, http->protocol, http->protocol[0] + 1U, offered,
				  offered_len) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_NOACK;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

void fake_http_raw(struct fake_http *http, const char *protocol, fake_bytes_fn bytes, void *arg)
{
	http->protocol[0] = (unsigned char)strlen(protocol);
	memcpy(http->protocol + 1, protocol, http->protocol[0]);
	http->bytes = bytes;
	http->bytes_arg = arg;
	SSL_CTX_set_alpn_select_cb(http->tls, on_alpn, http);
}

unsigned fake_http_accepted(const struct fake_http *http)
{
	return http->accepted;
}
