/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Element by element: a program that reads in between sees each of them whole. An IPv6 address is
 * four of them; it changes when the node is given another one, and then its flows end anyway.
 */
#include "kpr_settings.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

_Static_assert(sizeof(struct pb_svc_settings) % sizeof(uint64_t) == 0, "written in words");

uint64_t kpr_settings_netns_cookie(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(uint64_t);
	uint64_t cookie = 0;

	if (fd < 0)
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) < 0)
		cookie = 0;
	close(fd);
	return cookie;
}

int kpr_settings_write(struct pb_ctx *ctx, struct pb_map *map,
		       const struct pb_svc_settings *settings)
{
	uint64_t words[sizeof(*settings) / sizeof(uint64_t)];
	void *memory = NULL;
	uint64_t *at;
	size_t len = 0;
	int rc = ctx->host->map_memory(map, &memory, &len);

	if (rc < 0)
		return rc;
	if (len < sizeof(*settings))
		return -EINVAL;
	memcpy(words, settings, sizeof(words));
	at = memory;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (__atomic_load_n(&at[i], __ATOMIC_RELAXED) != words[i])
			__atomic_store_n(&at[i], words[i], __ATOMIC_RELEASE);
	return 0;
}
