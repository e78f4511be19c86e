/* SPDX-License-Identifier: Apache-2.0 */
/*
 * echo PORT: sends TCP and UDP payloads back, on IPv4 and IPv6.
 *
 * A TCP connection whose first byte is 'S' is a stream: its bytes are only read. Serves every
 * connection from one epoll loop; `echo --serial PORT` serves TCP only, one connection after
 * the other and without epoll, which is the least work a server can do for a benchmark. Ends
 * at SIGTERM.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FDS 20000

/* One byte of state for each fd: whether its connection is a stream. */
static bool stream[MAX_FDS];

static int bound(int type, uint16_t port)
{
	struct sockaddr_in6 addr = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int fd = socket(AF_INET6, type | SOCK_CLOEXEC, 0), off = 0, on = 1;

	if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    (type == SOCK_STREAM && listen(fd, 4096) < 0)) {
		perror("echo: listen");
		exit(1);
	}
	return fd;
}

/* Serves what has arrived. False when the connection is over. */
static bool tcp_serve(int fd, bool *is_stream, bool first)
{
	static char buf[262144];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n <= 0)
		return false;
	if (first)
		*is_stream = buf[0] == 'S';
	return *is_stream || write(fd, buf, (size_t)n) == n;
}

static void serve_serial(uint16_t port)
{
	int listener = bound(SOCK_STREAM, port);

	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		bool is_stream = false, first = true;

		if (fd < 0)
			continue;
		while (tcp_serve(fd, &is_stream, first))
			first = false;
		close(fd);
	}
}

static void watch(int poll, int fd, uint32_t tag)
{
	struct epoll_event event = {.events = EPOLLIN,
				    .data.u64 = (uint64_t)tag << 32 | (uint32_t)fd};

	if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0) {
		perror("echo: epoll_ctl");
		exit(1);
	}
}

static void udp_serve(int fd)
{
	struct sockaddr_storage from;
	socklen_t from_len = sizeof(from);
	char buf[65536];
	ssize_t n = recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &from_len);

	/* A client that has gone is no concern of the server's. */
	if (n >= 0 && sendto(fd, buf, (size_t)n, 0, (struct sockaddr *)&from, from_len) < 0)
		return;
}

enum tag { TAG_TCP_NEW, TAG_TCP, TAG_UDP, TAG_LISTENER };

static void ready(int poll, uint64_t data)
{
	int fd = (int)(uint32_t)data, client;
	enum tag tag = (enum tag)(data >> 32);
	struct epoll_event event = {.events = EPOLLIN,
				    .data.u64 = (uint64_t)TAG_TCP << 32 | (uint32_t)fd};

	switch (tag) {
	case TAG_LISTENER:
		client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (client >= MAX_FDS)
			close(client);
		else if (client >= 0)
			watch(poll, client, TAG_TCP_NEW);
		break;
	case TAG_UDP:
		udp_serve(fd);
		break;
	case TAG_TCP_NEW:
	case TAG_TCP:
		if (!tcp_serve(fd, &stream[fd], tag == TAG_TCP_NEW))
			close(fd);
		else if (tag == TAG_TCP_NEW)
			epoll_ctl(poll, EPOLL_CTL_MOD, fd, &event);
		break;
	}
}

static void serve(uint16_t port)
{
	int poll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event events[64];

	watch(poll, bound(SOCK_STREAM, port), TAG_LISTENER);
	watch(poll, bound(SOCK_DGRAM, port), TAG_UDP);
	for (;;) {
		int n = epoll_wait(poll, events, 64, -1);

		for (int i = 0; i < n; i++)
			ready(poll, events[i].data.u64);
	}
}

int main(int argc, char **argv)
{
	bool serial = argc == 3 && strcmp(argv[1], "--serial") == 0;
	unsigned long port = argc == (serial ? 3 : 2) ? strtoul(argv[argc - 1], NULL, 10) : 0;

	if (port == 0 || port > 65535) {
		fprintf(stderr, "usage: echo [--serial] PORT\n");
		return 2;
	}
	if (serial)
		serve_serial((uint16_t)port);
	else
		serve((uint16_t)port);
}
