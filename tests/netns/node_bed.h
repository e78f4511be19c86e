/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node in a sandbox, whose datapath, pod list and labels are played by node_bed.c. Routes,
 * bridges and their events are the kernel's.
 */
#ifndef TESTS_NETNS_NODE_BED_H
#define TESTS_NETNS_NODE_BED_H

#include "sandbox.h"

#include <net/if.h>

#include <node/node.h>

struct hooked {
	uint32_t ifindex; /* 0: free */
	struct pb_endpoint ep;
};

extern struct hooked hooked[512];
extern int refuse_add;		  /* what pb_dp_pod_add() fails with */
extern bool add_later;		  /* the test says how it ended, by hooks_ended() */
extern unsigned unhooks;	  /* how many interfaces lost their hooks */
extern uint32_t identity_of_pods; /* 0: no labels are known yet */

struct pod {
	struct pb_kube_pod pod;
	struct pb_kube_addr ips[2];
};

struct bed {
	uv_loop_t loop;
	struct pb_node *node;
	struct pb_config config;
};

extern struct pb_endpoint_record published; /* the last one; size 0: withdrawn */
extern unsigned endpoints_synced;
extern uint32_t n_host_addrs;
/* What peers were told of an address of this node, on the interface; NULL: it isn't there. */
const struct pb_node_address *host_addr(const char *text, const char *ifname);

/* A new sandbox and a node "node-a" whose datapath.devices is "up+". */
void bed_setup(struct bed *bed);
/* The agent ends; hooks, records and the network stay. */
void bed_stop(struct bed *bed);
/* An agent begins, with whatever is hooked already. */
void bed_start(struct bed *bed);
void bed_end(struct bed *bed);

struct pb_kube_addr address(const char *text);
/* A running pod shop/NAME of this node. */
void pod_init(struct pod *p, const char *name, const char *uid, const char *ip4, const char *ip6);
void tell(uint32_t kind, const struct pod *p);
/* The Node object with its pod CIDRs; cidr6 may be NULL. */
void tell_node(const char *cidr4, uint32_t bits4, const char *cidr6, uint32_t bits6);
/* Both lists are complete. */
void synced(void);
/* The labels of shop/NAME, and from now on those of every pod. */
void labels_came(const char *name, uint32_t identity);
/* How many addresses of shop/NAME peers know: 0 until they are told. */
uint32_t n_told(const char *name);
void hooks_ended(uint32_t ifindex, int result, const char *text);

/* What is hooked there, or NULL. */
struct hooked *on(uint32_t ifindex);
void expect_hooked(struct bed *bed, uint32_t ifindex, bool wanted);
/* Longer than events need to settle. */
void settle(struct bed *bed);
void expect_nothing_hooked(struct bed *bed);

/* A veth whose other end stays here too: routes and device events are all that matters. */
uint32_t veth(const char *name);
uint32_t veth_with_route(const char *name, const char *ip);
/* cni0 with 10.1.0.1/24, and pod N in a namespace of its own behind portN, 10.1.0.N. */
void bridge(void);
uint32_t bridge_pod(int n);

/* A member of the endpoint list's row of a pod; "" or 0 when there is none. */
const char *listed(struct bed *bed, const char *pod, const char *field);

#endif
