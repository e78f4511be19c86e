/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets: opened, kept over a reload, accepted from.
 *
 * Connections are handed on when their first bytes are there (TCP_DEFER_ACCEPT), so one that only
 * sits and waits costs the kernel a little and the agent nothing.
 */
#include "kpr_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BACKLOG 128
#define DEFER_S 5
/* How many a turn of the loop takes. */
#define ACCEPTS_MAX 16
/* No descriptor is left: when to look again. */
#define PAUSE_MS 1000

union address {
	struct sockaddr any;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
	struct sockaddr_storage storage;
};

void kpr_listeners_init(struct kpr_listeners *list, struct pb_ctx *ctx, kpr_accept_fn accept,
			kpr_accepted_fn accepted, void *arg)
{
	*list = (struct kpr_listeners){.ctx = ctx,
				       .accept = accept,
				       .accepted = accepted,
				       .arg = arg};
}

/* ---- accepting ---- */

static void on_connections(struct pb_ctx *ctx, void *arg, int fd, uint32_t events);

static int watch(struct kpr_listener *listener)
{
	struct pb_ctx *ctx = listener->list->ctx;
	int rc = ctx->host->fd_watch(ctx, listener->fd, PB_FD_READ, on_connections, listener);

	listener->watched = rc == 0;
	return rc;
}

static void unwatch(struct kpr_listener *listener)
{
	struct pb_ctx *ctx = listener->list->ctx;

	if (listener->watched)
		ctx->host->fd_unwatch(ctx, listener->fd);
	listener->watched = false;
}

static void on_pause_over(struct pb_ctx *ctx, void *arg)
{
	struct kpr_listeners *list = arg;

	(void)ctx;
	list->timer_runs = false;
	for (uint32_t i = 0; i < list->n; i++) {
		if (!list->all[i]->paused)
			continue;
		list->all[i]->paused = false;
		watch(list->all[i]);
	}
}

/* A socket that can't be emptied would keep the loop busy. */
static void pause_for_a_while(struct kpr_listener *listener)
{
	struct kpr_listeners *list = listener->list;
	struct pb_ctx *ctx = list->ctx;

	unwatch(listener);
	listener->paused = true;
	if (list->timer_runs)
		return;
	if (!list->said)
		ctx->host->log(ctx, PB_LOG_WARN,
			       "health checks wait: no file descriptor is left; raise the agent's "
			       "limit (LimitNOFILE)");
	list->said = true;
	list->timer_runs =
		ctx->host->timer_start(ctx, PAUSE_MS, 0, on_pause_over, list, &list->timer) == 0;
}

static void on_connections(struct pb_ctx *ctx, void *arg, int fd, uint32_t events)
{
	struct kpr_listener *listener = arg;
	struct kpr_listeners *list = listener->list;

	(void)ctx;
	(void)events;
	for (int i = 0; i < ACCEPTS_MAX; i++) {
		union address peer;
		socklen_t len = sizeof(peer);
		int client = accept4(fd, &peer.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (client >= 0) {
			list->said = false;
			list->accept(list->arg, client, &peer.any, len);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			pause_for_a_while(listener);
		break;
	}
	list->accepted(list->arg);
}

/* ---- sockets ---- */

static socklen_t address_of(const struct pb_kube_addr *addr, uint16_t port, union address *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (addr->family == 4) {
		ret->in4.sin_family = AF_INET;
		ret->in4.sin_port = htons(port);
		memcpy(&ret->in4.sin_addr, &addr->addr, sizeof(ret->in4.sin_addr));
		return sizeof(ret->in4);
	}
	ret->in6.sin6_family = AF_INET6;
	ret->in6.sin6_port = htons(port);
	if (addr->family == 6)
		memcpy(&ret->in6.sin6_addr, &addr->addr, sizeof(ret->in6.sin6_addr));
	return sizeof(ret->in6);
}

static int socket_of(const struct pb_kube_addr *addr, uint16_t port, int *ret_fd)
{
	int v6_only = addr->family == 6, on = 1, defer = DEFER_S, rc = 0;
	union address at;
	socklen_t len = address_of(addr, port, &at);
	int fd = socket(at.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &defer, sizeof(defer)) < 0 ||
	    (at.any.sa_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof(v6_only)) < 0) ||
	    bind(fd, &at.any, len) < 0 || listen(fd, BACKLOG) < 0)
		rc = -errno;
	if (rc < 0)
		close(fd);
	else
		*ret_fd = fd;
	return rc;
}

/* Whether a socket is the one that socket_of() would make. */
static bool socket_is(int fd, const struct pb_kube_addr *addr, uint16_t port)
{
	union address is, wanted;
	socklen_t is_len = sizeof(is), option_len;
	socklen_t len = address_of(addr, port, &wanted);
	int v6_only = 0;

	option_len = sizeof(v6_only);
	memset(&is, 0, sizeof(is));
	if (getsockname(fd, &is.any, &is_len) < 0 || is_len != len ||
	    memcmp(&is, &wanted, len) != 0)
		return false;
	return addr->family == 4 ||
	       (getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, &option_len) == 0 &&
		v6_only == (addr->family == 6));
}

/* ---- keeping ---- */

static const char *slot_name(uint32_t slot, char *buf, size_t len)
{
	snprintf(buf, len, "listen-%u", slot);
	return buf;
}

/* Without it a reload cuts connections that wait; everything else works. */
static void keep(struct kpr_listener *listener)
{
	struct pb_ctx *ctx = listener->list->ctx;
	char name[32];

	if (!PB_HOST_HAS(ctx->host, fd_keep))
		return;
	listener->kept = ctx->host->fd_keep(ctx, slot_name(listener->slot, name, sizeof(name)),
					    listener->fd) == 0;
}

static void drop(struct kpr_listeners *list, uint32_t slot)
{
	char name[32];

	if (PB_HOST_HAS(list->ctx->host, fd_drop))
		list->ctx->host->fd_drop(list->ctx, slot_name(slot, name, sizeof(name)));
}

static int add(struct kpr_listeners *list, int fd, struct kpr_listener **ret_listener)
{
	struct kpr_listener *listener = calloc(1, sizeof(*listener));
	uint32_t cap = list->cap ? 2 * list->cap : 8;
	struct kpr_listener **all = list->all;

	if (listener && list->n == list->cap) {
		all = realloc(all, cap * sizeof(*all));
		if (all) {
			list->all = all;
			list->cap = cap;
		}
	}
	if (!listener || !all) {
		free(listener);
		return -ENOMEM;
	}
	*listener = (struct kpr_listener){.list = list, .fd = fd, .slot = list->n};
	list->all[list->n++] = listener;
	*ret_listener = listener;
	return 0;
}

void kpr_listeners_adopt(struct kpr_listeners *list)
{
	const struct pb_host *host = list->ctx->host;
	struct kpr_listener *listener;
	char name[32];
	int fd;

	if (!PB_HOST_HAS(host, fd_kept))
		return;
	while (host->fd_kept(list->ctx, slot_name(list->n, name, sizeof(name)), &fd) == 0) {
		if (add(list, fd, &listener) < 0) {
			close(fd);
			return;
		}
		listener->kept = true;
	}
}

void kpr_listener_close(struct kpr_listener *listener)
{
	struct kpr_listeners *list;
	struct kpr_listener *last;

	if (!listener)
		return;
	list = listener->list;
	last = list->all[list->n - 1];
	unwatch(listener);
	close(listener->fd);
	/* No gap: the last one takes the place. */
	if (last != listener) {
		list->all[listener->slot] = last;
		last->slot = listener->slot;
		keep(last);
	}
	drop(list, list->n - 1);
	list->n--;
	free(listener);
}

void kpr_listeners_drop_others(struct kpr_listeners *list)
{
	for (uint32_t i = list->n; i-- > 0;)
		if (!list->all[i]->watched && !list->all[i]->paused)
			kpr_listener_close(list->all[i]);
}

void kpr_listeners_free(struct kpr_listeners *list)
{
	if (list->timer_runs)
		list->ctx->host->timer_stop(list->ctx, list->timer);
	for (uint32_t i = 0; i < list->n; i++) {
		unwatch(list->all[i]);
		close(list->all[i]->fd);
		free(list->all[i]);
	}
	free(list->all);
	kpr_listeners_init(list, list->ctx, list->accept, list->accepted, list->arg);
}

static struct kpr_listener *found(const struct kpr_listeners *list, const struct pb_kube_addr *addr,
				  uint16_t port)
{
	for (uint32_t i = 0; i < list->n; i++)
		if (!list->all[i]->watched && !list->all[i]->paused &&
		    socket_is(list->all[i]->fd, addr, port))
			return list->all[i];
	return NULL;
}

static int open_new(struct kpr_listeners *list, const struct pb_kube_addr *addr, uint16_t port,
		    struct kpr_listener **ret_listener)
{
	int fd = -1, rc = socket_of(addr, port, &fd);

	if (rc == 0)
		rc = add(list, fd, ret_listener);
	if (rc < 0 && fd >= 0)
		close(fd);
	if (rc == 0)
		keep(*ret_listener);
	return rc;
}

int kpr_listener_open(struct kpr_listeners *list, const struct pb_kube_addr *addr, uint16_t port,
		      struct kpr_listener **ret_listener)
{
	/* On a machine without IPv6. */
	const struct pb_kube_addr any4 = {.family = 4};
	struct kpr_listener *listener = found(list, addr, port);
	int rc = 0;

	if (!listener && addr->family == 0)
		listener = found(list, &any4, port);
	if (!listener)
		rc = open_new(list, addr, port, &listener);
	if (rc == -EAFNOSUPPORT && addr->family == 0)
		rc = open_new(list, &any4, port, &listener);
	if (rc == 0)
		rc = watch(listener);
	if (rc == 0)
		*ret_listener = listener;
	else
		kpr_listener_close(listener);
	return rc;
}
