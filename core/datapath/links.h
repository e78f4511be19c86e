/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the entry programs are attached: devices, pods' interfaces, the cgroup.
 *
 * Owns every BPF link and clsact filter of the agent and their pins below <bpffs>/links. A link
 * once attached is never detached to be attached again: a new entry program replaces the old
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
};

/* Adopts pinned links (each gets the new entry program in place); drops those of vanished devices.
 */
int pb_links_new(const struct pb_links_env *env, struct pb_links **ret_links, struct pb_err *err);
/*
 * Attaches to the cgroup and to every device that matches now or appears later. Called again
 * with other patterns, it detaches from devices that no longer match, and attaches again where
 * somebody detached. A failure leaves everything else attached; the text has the first one.
 */
int pb_links_devices(struct pb_links *links, char *const *patterns, size_t n, struct pb_err *err);
int pb_links_pod_add(struct pb_links *links, uint32_t ifindex, struct pb_err *err);
int pb_links_pod_remove(struct pb_links *links, uint32_t ifindex);
/* Devices that carry pod hooks, adopted ones too: fills at most max, returns how many there are. */
size_t pb_links_pods(struct pb_links *links, uint32_t *ret_ifindexes, size_t max);
/*
 * An array of {hook, device, ifindex, how ("tcx", "clsact", "cgroup"), adopted, state ("ok",
 * "replaced", "detached")}. The last two: somebody else did that to our attachment.
 */
cJSON *pb_links_json(struct pb_links *links);
/*
 * Looks whether every attachment still runs our program; each that doesn't is logged once and
 * never fought for. Returns how many don't. Runs by itself every few seconds, in slices.
 */
unsigned pb_links_check(struct pb_links *links);
/* Process side only; everything stays attached. `closed` when the loop has no handle of ours. */
void pb_links_close(struct pb_links *links, void (*closed)(void *arg), void *arg);
/*
 * Detaches and unpins everything an agent with this configuration attached, also without one
 * running. Nothing there is fine.
 */
int pb_links_cleanup(const struct pb_config *config, struct pb_err *err);

/* True when one of datapath.devices names a device: "eth0", or "eth+" for what starts so. */
bool pb_links_match(char *const *patterns, size_t n, const char *device);

#endif
