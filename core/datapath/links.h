/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the entry programs are attached: devices, pods' interfaces, the cgroup.
 *
 * Owns every BPF link and clsact filter of the agent and their pins below <bpffs>/links. The
 * kernel's work is done on the thread pool, so that these functions return at once. A link once
 * attached is never detached to be attached again: a new entry program replaces the old
 * one in place. Detaches only what it attached.
 */
#ifndef PB_DATAPATH_LINKS_H
#define PB_DATAPATH_LINKS_H

#include <uv.h>

#include <base/json.h>
#include <config/config.h>

struct pb_links;

struct pb_links_env {
	uv_loop_t *loop;
	const char *bpffs;	     /* the agent's directory; "links" is made below it */
	const char *cgroup;	     /* NULL: no socket hooks */
	enum pb_attach_mode mode;    /* of new attachments; adopted ones stay as they are */
	int entry_fd[PB_HOOK_COUNT]; /* entry programs by enum pb_hook; borrowed */
	/*
	 * May be NULL. Told once both pod hooks of an interface are on (0) or one couldn't be
	 * attached (negative, with the text), and once they are off.
	 */
	void (*pod_attached)(void *arg, uint32_t ifindex, int result, const char *text);
	void (*pod_detached)(void *arg, uint32_t ifindex);
	void *arg;
};

typedef void (*pb_links_done_fn)(void *arg, int result, const char *text);

/*
 * Begins to adopt pinned links (each gets the new entry program in place) and to drop those of
 * vanished devices; whatever is asked for meanwhile comes after that.
 */
int pb_links_new(const struct pb_links_env *env, struct pb_links **ret_links, struct pb_err *err);
/*
 * Begins to attach to the cgroup and to every device that matches now or appears later. Called
 * again with other patterns, it detaches from devices that no longer match, and attaches again
 * where somebody detached. A failure leaves everything else attached. With `done` (one at a time)
 * failures go there, once nothing is left to do; else each is logged once. Not called after
 * pb_links_close().
 */
int pb_links_devices(struct pb_links *links, char *const *patterns, size_t n, pb_links_done_fn done,
		     void *arg, struct pb_err *err);
/* 1: the hooks are on already; 0: begun, pod_attached() follows. Again after a failure is fine. */
int pb_links_pod_add(struct pb_links *links, uint32_t ifindex, struct pb_err *err);
/* 0: there is none; 1: begun, pod_detached() follows unless they are added again before. */
int pb_links_pod_remove(struct pb_links *links, uint32_t ifindex);
/* Devices that shall carry pod hooks, adopted ones too: fills at most max, returns how many. */
size_t pb_links_pods(struct pb_links *links, uint32_t *ret_ifindexes, size_t max);
/*
 * An array of {hook, device, ifindex, how ("tcx", "clsact", "cgroup", "" before it is chosen),
 * adopted, state}. state: "ok"; "attaching", "detaching" (waiting or under way), "reversing" (the
 * opposite of what is under way is wanted by now), "failed"; "replaced", "detached": somebody else
 * did that to our attachment.
 */
cJSON *pb_links_json(struct pb_links *links);
/*
 * Looks whether every attachment still runs our program; each that doesn't is logged once and
 * never fought for. Runs by itself every few seconds, in slices.
 */
void pb_links_check(struct pb_links *links);
/*
 * Process side only; what is attached stays. What is under way is finished, what waits isn't begun.
 * `closed` when the loop has no handle of ours.
 */
void pb_links_close(struct pb_links *links, void (*closed)(void *arg), void *arg);
/*
 * Detaches and unpins everything an agent with this configuration attached, also without one
 * running. Nothing there is fine.
 */
int pb_links_cleanup(const struct pb_config *config, struct pb_err *err);

/* True when one of datapath.devices names a device: "eth0", or "eth+" for what starts so. */
bool pb_links_match(char *const *patterns, size_t n, const char *device);

#endif
