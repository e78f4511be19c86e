/* SPDX-License-Identifier: Apache-2.0 */
/* The listening socket. Made by us and not by the library, whose errors say nothing. */
#include <http/private.h>

#include <base/unix.h>

#include <grp.h>
#include <netinet/in.h>
#include <sys/un.h>

static int unix_socket(const struct pb_httpd *http, const struct pb_listen *where, int *ret_fd,
		       struct stat *ret_file, struct pb_err *err)
{
	const struct sockaddr_un *addr = (const struct sockaddr_un *)&where->addr;
	const struct group *group = http->group ? getgrnam(http->group) : NULL;
	const struct pb_unix opts = {
		.path = addr->sun_path,
		.group = group ? &group->gr_gid : NULL,
		.backlog = HTTP_CONNECTIONS_MAX,
		.key = "http.listen",
		.other = "process",
		.remedy = "another http.listen",
	};

	return pb_unix_listen(&opts, ret_fd, ret_file, err);
}

int http_socket(const struct pb_httpd *http, const struct pb_listen *where, int *ret_fd,
		struct stat *ret_file, struct pb_err *err)
{
	const struct sockaddr *addr = (const struct sockaddr *)&where->addr;
	PB_CLOSE int fd = -1;
	int on = 1;

	if (addr->sa_family == AF_UNIX)
		return unix_socket(http, where, ret_fd, ret_file, err);
	fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return pb_err_set(err, -errno, "socket: %s", strerror(errno));
	/* Connections of an earlier agent that are still ending must not be in the way. */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (addr->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, addr, where->len) < 0 || listen(fd, HTTP_CONNECTIONS_MAX) < 0)
		return pb_err_set(err, -errno, "%s", strerror(errno));
	*ret_fd = PB_TAKE_FD(fd);
	return 0;
}
