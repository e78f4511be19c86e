/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP side of the load generator: one datagram in flight a worker. An echo that comes after its
 * time-out is not counted twice: its request is lost.
 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "load.h"

static int udp_socket(const struct load *load)
{
	struct timeval timeout = {.tv_sec = load->timeout_ms / 1000,
				  .tv_usec = load->timeout_ms % 1000 * 1000};
	int fd = socket(load->to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    (load->connected && connect(fd, (const struct sockaddr *)&load->to, load->to_len) < 0))
		err = -errno;
	if (err < 0) {
		close(fd);
		return err;
	}
	return fd;
}

/* Whether the answer comes from the address that was asked, as the application sees it. */
static bool same_peer(const struct load *load, const struct sockaddr_storage *from, socklen_t len)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)from;
	const struct sockaddr_in *to = (const struct sockaddr_in *)&load->to;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
	const struct sockaddr_in6 *to6 = (const struct sockaddr_in6 *)&load->to;

	if (load->connected)
		return true;
	if (len != load->to_len || from->ss_family != load->to.ss_family)
		return false;
	if (from->ss_family == AF_INET)
		return in->sin_port == to->sin_port && in->sin_addr.s_addr == to->sin_addr.s_addr;
	return in6->sin6_port == to6->sin6_port &&
	       memcmp(&in6->sin6_addr, &to6->sin6_addr, sizeof(in6->sin6_addr)) == 0;
}

static int exchange(const struct load *load, int fd, uint64_t seq)
{
	struct sockaddr_storage from = {0};
	socklen_t from_len;
	uint64_t in = 0;
	ssize_t n = sendto(fd, &seq, sizeof(seq), 0,
			   load->connected ? NULL : (const struct sockaddr *)&load->to,
			   load->connected ? 0 : load->to_len);

	while (n == sizeof(seq)) {
		from_len = sizeof(from);
		n = recvfrom(fd, &in, sizeof(in), 0, (struct sockaddr *)&from, &from_len);
		if (n == sizeof(in) && in == seq)
			return same_peer(load, &from, from_len) ? 0 : 1;
	}
	if (n >= 0)
		return 1;
	return errno == EAGAIN || errno == EWOULDBLOCK ? -ETIMEDOUT : -errno;
}

void load_datagrams(struct load *load, struct load_stats *stats)
{
	int fd = udp_socket(load), rc;
	uint64_t seq, start;

	if (fd < 0) {
		stats->sent++;
		load_failed(stats, fd);
		return;
	}
	while (load_next(load, &seq)) {
		start = load_now_ns();
		stats->sent++;
		rc = exchange(load, fd, seq);
		if (rc < 0)
			load_failed(stats, rc);
		else if (rc > 0)
			stats->wrong++;
		else
			load_answered(stats, start);
	}
	close(fd);
}
