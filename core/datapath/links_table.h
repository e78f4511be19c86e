/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files behind links.h share: the table of attachments and the known devices.
 *
 * Owns the state of one struct pb_links. Private to links*.c.
 */
#ifndef PB_DATAPATH_LINKS_TABLE_H
#define PB_DATAPATH_LINKS_TABLE_H

#include <uthash.h>

#include <datapath/attach.h>
#include <datapath/links.h>
#include <datapath/netlink.h>

struct key {
	uint32_t hook;
	uint32_t ifindex;
};

struct attachment {
	struct key key;
	struct pb_place place;
	uint32_t prog_id;
	bool adopted;
	int state; /* 0, -EBUSY: replaced, -ENOENT: detached, by somebody else */
	UT_hash_handle hh;
};

struct device {
	uint32_t ifindex;
	char name[IF_NAMESIZE];
	bool seen;     /* during a rescan */
	int last_code; /* of the last failure to attach, so that it is logged once */
	UT_hash_handle hh;
};

struct pb_links {
	struct pb_links_env env;
	char *dir;
	char *cgroup;
	char **patterns;
	size_t n_patterns;
	bool configured;
	bool probed;
	bool tcx;
	struct attachment *attachments;
	struct attachment *check_next;
	struct device *devices;
	struct mnl_socket *nl;
	struct pb_nl_monitor *monitor;
	uv_timer_t timer;
	void (*closed)(void *arg);
	void *closed_arg;
};
struct attachment *pb_links_find(struct pb_links *links, uint32_t hook, uint32_t ifindex);
/* What somebody replaced stays theirs; what somebody detached is attached again. */
int pb_links_attach(struct pb_links *links, uint32_t hook, uint32_t ifindex, struct pb_err *err);
/* Nothing attached there is fine. */
int pb_links_detach(struct pb_links *links, uint32_t hook, uint32_t ifindex, struct pb_err *err);
/* Takes a row out of the table; the kernel's side stays. */
void pb_links_forget(struct pb_links *links, struct attachment *a);
int pb_links_adopt(struct pb_links *links, struct pb_err *err);
void pb_links_on_timer(uv_timer_t *timer);

void pb_links_on_link(void *arg, const struct nlmsghdr *msg);
void pb_links_patterns_free(struct pb_links *links);

#endif
