/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One question over the control socket, as a program asks it that has nothing else to do.
 */
#include <control/ask.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ANSWER_MAX (80U << 20)

static uint64_t now_ms(void)
{
	return pb_now_ns() / 1000000;
}

static int wait_for(int fd, short events, uint64_t deadline)
{
	for (;;) {
		uint64_t now = now_ms();
		struct pollfd p = {.fd = fd, .events = events};
		int n = poll(&p, 1, now < deadline ? (int)(deadline - now) : 0);

		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

/* An agent that hangs accepts nobody: once its queue is full, connecting waits too. */
static int connect_until(int fd, const struct sockaddr_un *addr, uint64_t deadline)
{
	uint64_t now = now_ms(), left = now < deadline ? deadline - now : 1;
	const struct timeval patience = {.tv_sec = (time_t)(left / 1000),
					 .tv_usec = (suseconds_t)(left % 1000 * 1000)};

	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
	    connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return 0;
}

static int open_socket(const char *path, uint64_t deadline, int *ret_fd, struct pb_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	PB_CLOSE int fd = -1;
	int rc;

	if (strlen(path) >= sizeof(addr.sun_path))
		return pb_err_set(err, -ECONNREFUSED, "%s: too long for a socket's address", path);
	memcpy(addr.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return pb_err_set(err, -errno, "socket: %s", strerror(errno));
	rc = connect_until(fd, &addr, deadline);
	if (rc == -EACCES)
		return pb_err_set(err, rc,
				  "%s: Permission denied; ask as root, or as a member of the group "
				  "in control.group",
				  path);
	if (rc == -ETIMEDOUT)
		return pb_err_set(err, rc, "%s: the agent accepts no connection in time", path);
	if (rc < 0)
		return pb_err_set(err, -ECONNREFUSED, "%s: %s", path, strerror(-rc));
	*ret_fd = PB_TAKE_FD(fd);
	return 0;
}

static int send_line(int fd, const char *line, uint64_t deadline)
{
	size_t len = strlen(line);

	while (len) {
		ssize_t n = send(fd, line, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		int rc = 0;

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -EPIPE;
		if (n < 0)
			rc = wait_for(fd, POLLOUT, deadline);
		if (rc < 0)
			return rc;
		line += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int receive_line(int fd, struct pb_buf *line, uint64_t deadline)
{
	char chunk[65536];

	while (line->len < ANSWER_MAX) {
		int rc = wait_for(fd, POLLIN, deadline);
		ssize_t n;

		if (rc < 0)
			return rc;
		n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return -EPIPE;
		rc = pb_buf_append(line, chunk, (size_t)n);
		if (rc < 0)
			return rc;
		if (line->data[line->len - 1] == '\n')
			return 0;
	}
	return -EMSGSIZE;
}

int pb_control_ask(const char *path, const char *line, uint64_t deadline_ms,
		   struct pb_buf *ret_line, struct pb_err *err)
{
	PB_CLOSE int fd = -1;
	int rc = open_socket(path, deadline_ms, &fd, err);

	if (rc < 0)
		return rc;
	rc = send_line(fd, line, deadline_ms);
	/* An agent that refuses says why before it hangs up, without reading the question. */
	if (rc == 0 || rc == -EPIPE)
		rc = receive_line(fd, ret_line, deadline_ms);
	if (rc == -ETIMEDOUT)
		return pb_err_set(err, rc, "no answer in time");
	if (rc == -EPIPE)
		return pb_err_set(err, rc, "the agent closed the connection before it answered");
	return rc < 0 ? pb_err_set(err, rc, "%s: %s", path, strerror(-rc)) : 0;
}
