/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses as text, and the calls of an application: what it reaches and whom it believes it
 * talks to.
 */
#include <arpa/inet.h>
#include <poll.h>

#include "sock_bed.h"

const char *const servers[N_SERVERS] = {"127.0.0.1:8001", "127.0.0.1:8002",  "[::1]:8001",
					"[::1]:8002",	  HOST_ADDR ":8001", HOST_ADDR ":8002"};
int tcp_servers[N_SERVERS];
int udp_servers[N_SERVERS];

/* ---- addresses ---- */

struct addr parse(const char *text)
{
	struct addr a = {0};
	char host[64];
	uint16_t port = (uint16_t)atoi(strrchr(text, ':') + 1);

	if (text[0] == '[') {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&a.ss;

		snprintf(host, sizeof(host), "%.*s", (int)strcspn(text + 1, "]"), text + 1);
		*in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
		inet_pton(AF_INET6, host, &in6->sin6_addr);
		a.len = sizeof(*in6);
	} else {
		struct sockaddr_in *in = (struct sockaddr_in *)&a.ss;

		snprintf(host, sizeof(host), "%.*s", (int)strcspn(text, ":"), text);
		*in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
		inet_pton(AF_INET, host, &in->sin_addr);
		a.len = sizeof(*in);
	}
	return a;
}

const char *show(const struct sockaddr_storage *ss)
{
	static char text[128];
	char host[INET6_ADDRSTRLEN];

	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)ss;

		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(text, sizeof(text), "%s:%u", host, ntohs(in->sin_port));
	} else {
		const struct sockaddr_in6 *in6 = (const void *)ss;

		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(text, sizeof(text), "[%s]:%u", host, ntohs(in6->sin6_port));
	}
	return text;
}

/* ---- sockets ---- */

int serve(const char *at, int type)
{
	struct addr a = parse(at);
	int fd = socket(a.ss.ss_family, type, 0);
	int on = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&a.ss, a.len) < 0 ||
	    (type == SOCK_STREAM && listen(fd, 512) < 0)) {
		perror(at);
		exit(1);
	}
	return fd;
}

int dial(const char *to, int type, int protocol)
{
	struct addr a = parse(to);
	int fd = socket(a.ss.ss_family, type, protocol);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&a.ss, a.len) < 0) {
		int err = errno;

		close(fd);
		errno = err;
		return -1;
	}
	return fd;
}

const char *peer(int fd)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);

	return getpeername(fd, (struct sockaddr *)&ss, &len) == 0 ? show(&ss) : strerror(errno);
}

int who_was_asked(const int *fds)
{
	struct pollfd polls[N_SERVERS];

	for (size_t i = 0; i < N_SERVERS; i++)
		polls[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
	if (poll(polls, N_SERVERS, 1000) <= 0)
		return -1;
	for (size_t i = 0; i < N_SERVERS; i++)
		if (polls[i].revents)
			return (int)i;
	return -1;
}

int reach_tcp(const char *to, char *name)
{
	int fd = dial(to, SOCK_STREAM, 0);
	struct linger reset = {.l_onoff = 1};
	int who = -1;

	CHECK(fd >= 0);
	if (fd >= 0) {
		who = who_was_asked(tcp_servers);
		if (who >= 0)
			close(accept(tcp_servers[who], NULL, NULL));
		if (name)
			snprintf(name, 128, "%s", peer(fd));
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(fd);
	}
	return who;
}

const char *ask_udp(int fd, const char *to, int *ret_who)
{
	struct addr a = parse(to);
	struct sockaddr_storage from = {0};
	socklen_t len = sizeof(from);
	char byte = 'x';
	int who;

	if (sendto(fd, &byte, 1, 0, (struct sockaddr *)&a.ss, a.len) != 1)
		return strerror(errno);
	who = who_was_asked(udp_servers);
	if (ret_who)
		*ret_who = who;
	if (who < 0 || recvfrom(udp_servers[who], &byte, 1, 0, (struct sockaddr *)&from, &len) != 1)
		return "nobody was asked";
	sendto(udp_servers[who], &byte, 1, 0, (struct sockaddr *)&from, len);
	len = sizeof(from);
	if (recvfrom(fd, &byte, 1, 0, (struct sockaddr *)&from, &len) != 1)
		return strerror(errno);
	return show(&from);
}

int udp_socket(int family)
{
	struct timeval second = {.tv_sec = 1};
	int fd = socket(family, SOCK_DGRAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	return fd;
}

void serve_all(void)
{
	for (size_t i = 0; i < N_SERVERS; i++) {
		tcp_servers[i] = serve(servers[i], SOCK_STREAM);
		udp_servers[i] = serve(servers[i], SOCK_DGRAM);
	}
}

int try_bind(const char *at, int type, int protocol)
{
	struct addr a = parse(at);
	int fd = socket(a.ss.ss_family, type, protocol);
	int err = 0;

	if (fd < 0 || bind(fd, (struct sockaddr *)&a.ss, a.len) < 0)
		err = errno;
	if (fd >= 0)
		close(fd);
	return err;
}
