/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP side of the load generator. Connections end by RST, so that no TIME_WAIT piles up.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "load.h"

/* A connected socket or a negative errno; a time-out is -ETIMEDOUT. */
static int tcp_connect(const struct load *load)
{
	struct timeval timeout = {.tv_sec = load->timeout_ms / 1000,
				  .tv_usec = load->timeout_ms % 1000 * 1000};
	struct linger reset = {.l_onoff = 1};
	int fd = socket(load->to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, err = 0;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
	    connect(fd, (const struct sockaddr *)&load->to, load->to_len) < 0)
		err = errno == EINPROGRESS ? -ETIMEDOUT : -errno;
	if (err < 0) {
		close(fd);
		return err;
	}
	return fd;
}

static int io_error(ssize_t n)
{
	if (n == 0)
		return -ECONNRESET;
	return errno == EAGAIN || errno == EWOULDBLOCK ? -ETIMEDOUT : -errno;
}

/* Sends a sequence number and reads it back. 1: another one came. */
static int exchange_echo(int fd, uint64_t seq)
{
	/* 'E' first: the server takes an 'S' for a stream. */
	char out[9] = "E", in[9];
	size_t got = 0;

	memcpy(out + 1, &seq, sizeof(seq));
	if (write(fd, out, sizeof(out)) != (ssize_t)sizeof(out))
		return io_error(-1);
	while (got < sizeof(in)) {
		ssize_t n = read(fd, in + got, sizeof(in) - got);

		if (n <= 0)
			return io_error(n);
		got += (size_t)n;
	}
	return memcmp(in, out, sizeof(in)) != 0;
}

/* The body is "NAME /SEQ\n". 1: the answer is none of ours. */
static int http_check(struct load_stats *stats, char *answer, uint64_t seq)
{
	char *body = strstr(answer, "\r\n\r\n"), *path;
	char want[32];

	if (!body || strncmp(answer, "HTTP/1.1 200 ", 13) != 0)
		return 1;
	body += 4;
	path = strchr(body, ' ');
	snprintf(want, sizeof(want), " /%llu\n", (unsigned long long)seq);
	if (!path || strcmp(path, want) != 0)
		return 1;
	*path = '\0';
	load_backend(stats, body, 1);
	return 0;
}

static int exchange_http(struct load_stats *stats, int fd, uint64_t seq)
{
	char request[128], answer[2048];
	size_t got = 0;
	ssize_t n;
	int len = snprintf(request, sizeof(request),
			   "GET /%llu HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n",
			   (unsigned long long)seq);

	if (write(fd, request, (size_t)len) != len)
		return io_error(-1);
	while ((n = read(fd, answer + got, sizeof(answer) - 1 - got)) > 0)
		got += (size_t)n;
	if (n < 0)
		return io_error(n);
	answer[got] = '\0';
	return http_check(stats, answer, seq);
}

void load_requests(struct load *load, struct load_stats *stats)
{
	uint64_t seq, start;
	int fd, rc;

	while (load_next(load, &seq)) {
		start = load_now_ns();
		stats->sent++;
		fd = tcp_connect(load);
		rc = fd;
		if (fd >= 0) {
			rc = load->mode == LOAD_HTTP ? exchange_http(stats, fd, seq)
						     : exchange_echo(fd, seq);
			close(fd);
		}
		if (rc < 0)
			load_failed(stats, rc);
		else if (rc > 0)
			stats->wrong++;
		else
			load_answered(stats, start);
	}
}

static int exchange_byte(int fd)
{
	char byte = 'E';
	ssize_t n = write(fd, &byte, 1);

	if (n == 1)
		n = read(fd, &byte, 1);
	return n == 1 ? 0 : io_error(n);
}

static int exchange_block(int fd, struct load_stats *stats, const char *block, size_t len)
{
	ssize_t n = write(fd, block, len);

	if (n <= 0)
		return io_error(n);
	stats->bytes += (uint64_t)n;
	return 0;
}

void load_connection(struct load *load, struct load_stats *stats)
{
	static char block[131072] = "S";
	int fd = tcp_connect(load), rc = 0;
	uint64_t seq, start;

	if (fd < 0) {
		stats->sent++;
		load_failed(stats, fd);
		return;
	}
	while (rc == 0 && load_next(load, &seq)) {
		start = load_now_ns();
		stats->sent++;
		rc = load->mode == LOAD_RR ? exchange_byte(fd)
					   : exchange_block(fd, stats, block, sizeof(block));
		if (rc < 0)
			load_failed(stats, rc);
		else
			load_answered(stats, start);
	}
	close(fd);
}
