/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One entry program at one place in the kernel: TCX link, clsact filter or cgroup link.
 *
 * Owns the kernel's calls and the pins that remember what is ours, no table and no policy about
 * what should be attached where. A place that holds somebody else's program is never touched.
 */
#ifndef PB_DATAPATH_ATTACH_H
#define PB_DATAPATH_ATTACH_H

#include <base/base.h>

/* Where our clsact filters sit; "PB" as a number. */
#define PB_TC_PRIORITY 0x5042
#define PB_TC_HANDLE 1

enum pb_attach_how {
	PB_HOW_TCX = 1,
	PB_HOW_CLSACT = 2,
	PB_HOW_CGROUP = 3,
};

struct pb_place {
	const char *dir; /* <bpffs>/links; borrowed */
	enum pb_attach_how how;
	uint32_t hook;	  /* enum pb_hook */
	uint32_t ifindex; /* 0 on a cgroup */
};

/* "eth0 (dev-ingress, tcx)" or "connect4" for messages; returns buf. */
const char *pb_place_str(const struct pb_place *place, char *buf, size_t len);
const char *pb_how_name(enum pb_attach_how how);
/* The place that a pin's file name stands for; false for names that aren't a place's. */
bool pb_place_parse(const char *pin, const char *dir, struct pb_place *ret_place);

/* Kernel's number of a loaded program; 0 when fd is no program. */
uint32_t pb_prog_id(int prog_fd);
/* True when the kernel has TCX. Attaches nothing. */
bool pb_tcx_supported(int prog_fd);

/*
 * Attaches, or replaces in place what is ours there already. -EBUSY: somebody else's program is
 * at our place; it stays. -ENOLINK: what the pin was attached to is gone (drop it with
 * pb_detach()). `cgroup` only for PB_HOW_CGROUP.
 */
int pb_attach(const struct pb_place *place, const char *cgroup, int prog_fd, struct pb_err *err);
/* 0: program `prog_id` is attached; -EBUSY: another one is; -ENOENT: none is. */
int pb_attach_check(const struct pb_place *place, uint32_t prog_id);
/* True when the pinned link of a socket hook is attached to this cgroup. */
bool pb_attach_is_on_cgroup(const struct pb_place *place, const char *cgroup);
/* Detaches what is ours and removes its pins; what isn't ours stays. Nothing there is fine. */
int pb_detach(const struct pb_place *place, struct pb_err *err);
/* Removes the mark that we made a device's clsact qdisc, and the qdisc if it is empty. */
void pb_clsact_release(const char *dir, uint32_t ifindex);

/* The two backends behind pb_attach() and its siblings. */
int pb_link_attach(const struct pb_place *place, const char *cgroup, int prog_fd,
		   struct pb_err *err);
int pb_link_check(const struct pb_place *place, uint32_t prog_id);
int pb_link_detach(const struct pb_place *place, struct pb_err *err);
int pb_clsact_attach(const struct pb_place *place, int prog_fd, struct pb_err *err);
int pb_clsact_check(const struct pb_place *place, uint32_t prog_id);
int pb_clsact_detach(const struct pb_place *place, struct pb_err *err);
char *pb_place_pin(const struct pb_place *place, const char *prefix);

#endif
