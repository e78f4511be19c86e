/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets that outlive a generation of the plugin.
 *
 * Owns the sockets and where the agent keeps their duplicates: "listen-0" and so on without a gap,
 * so that a successor finds all of them; which port one has, the socket itself knows. Nothing here
 * knows HTTP.
 */
#ifndef KPR_LISTEN_H
#define KPR_LISTEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <patchbay/kube.h>
#include <patchbay/plugin.h>

/* A connection came: fd is the callee's. */
typedef void (*kpr_accept_fn)(void *arg, int fd, const struct sockaddr *peer, socklen_t len);
/* After the last connection of a turn. */
typedef void (*kpr_accepted_fn)(void *arg);

struct kpr_listener {
	struct kpr_listeners *list;
	int fd;
	uint32_t slot;
	bool kept;    /* the agent has a duplicate in `slot` */
	bool watched; /* false: found at start and not asked for yet, or paused */
	bool paused;
};

struct kpr_listeners {
	struct pb_ctx *ctx;
	kpr_accept_fn accept;
	kpr_accepted_fn accepted;
	void *arg;
	struct kpr_listener **all; /* by slot */
	uint32_t n;
	uint32_t cap;
	bool said;	/* that connections wait */
	uint32_t timer; /* goes on with what was paused */
	bool timer_runs;
};

void kpr_listeners_init(struct kpr_listeners *list, struct pb_ctx *ctx, kpr_accept_fn accept,
			kpr_accepted_fn accepted, void *arg);
/* Finds what the generation before has kept. From start() on. */
void kpr_listeners_adopt(struct kpr_listeners *list);
/* Closes what was found and not asked for since. */
void kpr_listeners_drop_others(struct kpr_listeners *list);
/* Closes this generation's descriptors; what is kept stays kept. */
void kpr_listeners_free(struct kpr_listeners *list);

/*
 * Listens on a port of an address; family 0 is all addresses of both families. One that was found
 * is used as it is. An address that the node doesn't have yet is no error. Errors of bind(2).
 */
int kpr_listener_open(struct kpr_listeners *list, const struct pb_kube_addr *addr, uint16_t port,
		      struct kpr_listener **ret_listener);
/* Closes it for good. NULL is fine. */
void kpr_listener_close(struct kpr_listener *listener);

#endif
