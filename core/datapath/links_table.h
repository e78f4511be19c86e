/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files behind links.h share: rows, devices and the job on the pool.
 *
 * Owns the state of one struct pb_links. A row is a wish (`wanted`) and what the kernel has
 * (`attached`); where the two differ, a job on the pool brings the kernel along. There is at most
 * one job at a time, for one device or for the cgroup, so that two can never meet at a place or at
 * a qdisc. Everything here belongs to the loop but what a job carries itself. Private to links*.c.
 */
#ifndef PB_DATAPATH_LINKS_TABLE_H
#define PB_DATAPATH_LINKS_TABLE_H

#include <uthash.h>

#include <datapath/attach.h>
#include <datapath/links.h>
#include <datapath/netlink.h>

struct key {
	uint32_t hook;
	uint32_t ifindex; /* 0: the cgroup */
};

struct attachment {
	struct key key;
	struct pb_place place; /* how: 0 until the first job has chosen */
	uint32_t prog_id;
	bool wanted;
	bool attached;	/* by us, as far as we know */
	bool stale;	/* what we attached isn't there any more: detach, then attach again */
	bool touched;	/* a job worked on it, so the kernel may hold something of it */
	bool attaching; /* by the job in flight */
	bool detaching;
	int code;  /* of the last job; negative: nothing more is tried until asked again */
	int state; /* 0, -EBUSY: replaced, -ENOENT: detached, by somebody else */
	bool adopted;
	UT_hash_handle hh;
};

struct device {
	uint32_t ifindex;
	char name[IF_NAMESIZE];
	bool seen;     /* by an event since the scan began: newer than what the scan will say */
	bool gone;     /* during the scan, which may still list it */
	int last_code; /* of the last failure to attach, so that it is logged once */
	UT_hash_handle hh;
};

struct pb_links_op {
	struct pb_place place;
	bool detach;
	bool attach;
	bool detached;
	uint32_t prog_id;
	int code;
};

/* What one visit to the pool does; `run` there touches only this and links' socket and probe. */
struct pb_links_job {
	uv_work_t work;
	struct pb_links *links;
	void (*run)(struct pb_links_job *job);
	void (*done)(struct pb_links_job *job);
	uint32_t ifindex;
	bool release; /* the device's qdisc, if we made it */
	struct pb_links_op *ops;
	size_t n_ops;
	struct pb_nl_link *found; /* of a scan */
	size_t n_found;
	int code; /* of the first failure; why says which */
	struct pb_err why;
};

struct pb_links {
	struct pb_links_env env;
	char *dir;
	char *cgroup;
	char **patterns;
	size_t n_patterns;
	bool configured;
	bool adopted;
	bool scan; /* wanted: the list of devices */
	bool scanning;
	bool warn_absent;
	size_t checks; /* wanted: so many rows, from check_next on */
	bool probed;   /* whether there is TCX; by jobs only */
	bool tcx;
	int cgroup_code;
	struct attachment *attachments;
	struct attachment *check_next;
	struct device *devices;
	struct pb_links_job *job;
	struct mnl_socket *nl; /* of jobs */
	struct pb_nl_monitor *monitor;
	uv_timer_t timer;
	pb_links_done_fn
		settled; /* who waits for everything to be done, and what failed meanwhile */
	void *settled_arg;
	unsigned failures;
	struct pb_err first;
	bool closing;
	bool handles_closed;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* ---- links_table.c ---- */

struct attachment *pb_links_find(struct pb_links *links, uint32_t hook, uint32_t ifindex);
/* True when the hook is wanted there. */
bool pb_links_wanted(struct pb_links *links, uint32_t hook, uint32_t ifindex);
/*
 * Change the wish and give what failed another try. What somebody replaced stays theirs; what
 * somebody detached is attached again. Call pb_links_pump() after it.
 */
int pb_links_want(struct pb_links *links, uint32_t hook, uint32_t ifindex, struct pb_err *err);
void pb_links_unwant(struct pb_links *links, uint32_t hook, uint32_t ifindex);
/* True when the kernel's side of a row isn't as wanted and a job could help. */
bool pb_links_due(const struct attachment *a);
/* Takes a row out of the table; the kernel's side stays. */
void pb_links_forget(struct pb_links *links, struct attachment *a);
int pb_links_remember(struct pb_links *links, const struct pb_links_op *op, struct pb_err *err);
/* A failure goes to who waits, or to the log if it is another than the last one. */
void pb_links_report(struct pb_links *links, int *last_code, int code, const struct pb_err *why);
/* Applies what a job found out. */
void pb_links_applied(struct pb_links_job *job);
void pb_links_checked(struct pb_links_job *job);

/* ---- links_jobs.c ---- */

/* Starts the next job unless one is in flight; tells who waits when there is none to start. */
void pb_links_pump(struct pb_links *links);

/* ---- links_devices.c ---- */

void pb_links_scan_begin(struct pb_links *links);
void pb_links_scanned(struct pb_links_job *job);
void pb_links_on_link(void *arg, const struct nlmsghdr *msg);
void pb_links_patterns_free(struct pb_links *links);

/* ---- links.c ---- */

/* Frees what was closed, once the handles and the job are gone. */
void pb_links_finish(struct pb_links *links);

#endif
