/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtnetlink in three pieces: a request with its answers, a monitor on the loop, a link decoded.
 *
 * Owns sockets only, no state about devices. A request blocks until the kernel has answered,
 * which it does at once. Always the network namespace of the process.
 */
#ifndef PB_DATAPATH_NETLINK_H
#define PB_DATAPATH_NETLINK_H

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <uv.h>

#include <base/base.h>

struct pb_nl_monitor;

/* What matters of a network device. Names are cut to fit, kind is "" for a physical one. */
struct pb_nl_link {
	uint32_t ifindex;
	uint32_t master; /* 0: none */
	bool loopback;
	char name[IF_NAMESIZE];
	char kind[16];
};

int pb_nl_open(struct mnl_socket **ret_socket, struct pb_err *err);
void pb_cleanup_nl(struct mnl_socket **nl);
#define PB_NL_CLOSE __attribute__((cleanup(pb_cleanup_nl)))

/*
 * Sends a request and hands every answer to `fn` (may be NULL). NLM_F_REQUEST is set, as is
 * NLM_F_ACK on what isn't a dump. Returns what the kernel returned; -EINTR: the dump changed
 * while it was read, ask again.
 */
int pb_nl_talk(struct mnl_socket *nl, struct nlmsghdr *request, mnl_cb_t fn, void *arg);

/* False for what isn't a message about a device itself, such as a bridge about its port. */
bool pb_nl_link_parse(const struct nlmsghdr *msg, struct pb_nl_link *ret_link);
/* One device; -ENODEV. */
int pb_nl_link_get(struct mnl_socket *nl, uint32_t ifindex, struct pb_nl_link *ret_link);
typedef void (*pb_nl_link_fn)(void *arg, const struct pb_nl_link *link);
int pb_nl_link_dump(struct mnl_socket *nl, pb_nl_link_fn fn, void *arg, struct pb_err *err);

/* How many filters hang on clsact's hook `parent` of a device; negative errno. */
int pb_nl_filter_count(struct mnl_socket *nl, uint32_t ifindex, uint32_t parent);

/* Called for each message of the groups; NULL: the kernel dropped some, look at everything. */
typedef void (*pb_nl_event_fn)(void *arg, const struct nlmsghdr *msg);
/* groups: RTMGRP_* */
int pb_nl_monitor_new(uv_loop_t *loop, uint32_t groups, pb_nl_event_fn fn, void *arg,
		      struct pb_nl_monitor **ret_monitor, struct pb_err *err);
/* `closed` may be NULL. A NULL monitor calls it at once. */
void pb_nl_monitor_close(struct pb_nl_monitor *monitor, void (*closed)(void *arg), void *arg);

#endif
