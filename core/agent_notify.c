/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent says to and asks from whoever started it. All of it is optional: nothing here
 * fails.
 */
#include <agent_private.h>

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

void agent_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	PB_CLOSE int fd = -1;
	size_t len = path ? strlen(path) : 0;

	if (len == 0 || len >= sizeof(addr.sun_path) || (*path != '/' && *path != '@'))
		return;
	memcpy(addr.sun_path, path, len);
	if (*path == '@')
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	len += offsetof(struct sockaddr_un, sun_path);
	if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&addr,
			     (socklen_t)len) < 0)
		pb_debug("core", "NOTIFY_SOCKET %s: %s", path, strerror(errno));
}

static void raise_limit(int resource, const char *name, rlim_t wanted)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) < 0)
		return;
	limit.rlim_cur = wanted;
	if (limit.rlim_max < wanted && limit.rlim_max != RLIM_INFINITY)
		limit.rlim_max = wanted;
	if (setrlimit(resource, &limit) == 0)
		return;
	pb_debug("core", "%s stays below the wanted limit: %s", name, strerror(errno));
	/* Without the privilege to go beyond it, the hard limit is what there is. */
	if (getrlimit(resource, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(resource, &limit);
	}
}

void agent_raise_limits(void)
{
	raise_limit(RLIMIT_NOFILE, "RLIMIT_NOFILE", 65536);
	raise_limit(RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK", RLIM_INFINITY);
}
