/* SPDX-License-Identifier: Apache-2.0 */
/*
 * whoami NAME PORT...: a TCP and UDP server that says who answered and whom it saw.
 *
 * The answer is one line, "NAME CLIENT_ADDRESS CLIENT_PORT BYTES\n": the client as the server's
 * socket has it, so that a test sees whether the source was kept, and how many bytes came. Over
 * TCP it follows the first bytes, and the connection stays open for more: each further read is
 * answered again. A UDP answer is as long as the question (filled up with dots), so that fragments
 * go both ways. A question that begins with "GET " is answered as HTTP. IPv4 and IPv6; an IPv4
 * client is named without ::ffff:. Ends at SIGTERM.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_DATAGRAM 65536
#define LINE 160

enum tag { TAG_TCP, TAG_UDP, TAG_LISTENER };

static const char *name;

static int bound(int type, uint16_t port)
{
	struct sockaddr_in6 addr = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int fd = socket(AF_INET6, type | SOCK_CLOEXEC, 0), off = 0, on = 1;

	if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0 ||
	    setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    (type == SOCK_STREAM && listen(fd, 1024) < 0)) {
		perror("whoami: listen");
		exit(1);
	}
	return fd;
}

static int line_of(char *line, const struct sockaddr_in6 *from, size_t bytes)
{
	char text[INET6_ADDRSTRLEN];
	const char *at = inet_ntop(AF_INET6, &from->sin6_addr, text, sizeof(text));

	if (IN6_IS_ADDR_V4MAPPED(&from->sin6_addr))
		at = inet_ntop(AF_INET, &from->sin6_addr.s6_addr[12], text, sizeof(text));
	return snprintf(line, LINE, "%s %s %u %zu\n", name, at, ntohs(from->sin6_port), bytes);
}

/* False when the connection is over. */
static int tcp_serve(int fd)
{
	struct sockaddr_in6 from = {0};
	socklen_t from_len = sizeof(from);
	char buf[4096], line[LINE], http[LINE + 128];
	ssize_t n = read(fd, buf, sizeof(buf));
	int len;

	if (n <= 0 || getpeername(fd, (struct sockaddr *)&from, &from_len) < 0)
		return 0;
	len = line_of(line, &from, (size_t)n);
	if (n < 4 || memcmp(buf, "GET ", 4) != 0)
		return write(fd, line, (size_t)len) == len;
	len = snprintf(http, sizeof(http),
		       "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len,
		       line);
	/* Whether it arrives is the client's to find out. */
	return write(fd, http, (size_t)len) != len;
}

/* The answer comes from the address that was asked, also on a node with several. */
static void udp_serve(int fd)
{
	static char buf[MAX_DATAGRAM];
	char control[CMSG_SPACE(sizeof(struct in6_pktinfo))];
	struct sockaddr_in6 from = {0};
	struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};
	struct msghdr msg = {.msg_name = &from,
			     .msg_namelen = sizeof(from),
			     .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(fd, &msg, 0);
	struct cmsghdr *cmsg;
	char line[LINE];
	int len;

	if (n < 0)
		return;
	for (cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg))
		if (cmsg->cmsg_type == IPV6_PKTINFO)
			((struct in6_pktinfo *)(void *)CMSG_DATA(cmsg))->ipi6_ifindex = 0;
	len = line_of(line, &from, (size_t)n);
	memset(buf, '.', (size_t)n);
	memcpy(buf, line, (size_t)len);
	iov.iov_len = n > len ? (size_t)n : (size_t)len;
	/* A client that has gone is no concern of the server's. */
	if (sendmsg(fd, &msg, 0) < 0)
		return;
}

static void watch(int poll, int fd, enum tag tag)
{
	struct epoll_event event = {.events = EPOLLIN,
				    .data.u64 = (uint64_t)tag << 32 | (uint32_t)fd};

	if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0) {
		perror("whoami: epoll_ctl");
		exit(1);
	}
}

static void ready(int poll, uint64_t data)
{
	int fd = (int)(uint32_t)data, client;

	switch ((enum tag)(data >> 32)) {
	case TAG_LISTENER:
		client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (client >= 0)
			watch(poll, client, TAG_TCP);
		break;
	case TAG_UDP:
		udp_serve(fd);
		break;
	case TAG_TCP:
		if (!tcp_serve(fd))
			close(fd);
		break;
	}
}

int main(int argc, char **argv)
{
	int poll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event events[64];

	if (argc < 3 || poll < 0) {
		fprintf(stderr, "usage: whoami NAME PORT...\n");
		return 2;
	}
	name = argv[1];
	for (int i = 2; i < argc; i++) {
		unsigned long port = strtoul(argv[i], NULL, 10);

		if (port == 0 || port > 65535) {
			fprintf(stderr, "whoami: %s is not a port\n", argv[i]);
			return 2;
		}
		watch(poll, bound(SOCK_STREAM, (uint16_t)port), TAG_LISTENER);
		watch(poll, bound(SOCK_DGRAM, (uint16_t)port), TAG_UDP);
	}
	for (;;) {
		int n = epoll_wait(poll, events, 64, -1);

		for (int i = 0; i < n; i++)
			ready(poll, events[i].data.u64);
	}
}
