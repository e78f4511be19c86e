/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a CNI plugin says of an endpoint, as JSON: the argument of the commands "endpoint add",
 * "endpoint delete" and "endpoint check", and the record that the agent keeps of it.
 *
 * Owns the rules for that text: strict, bounded, one clear error. Pure: knows no node.
 */
#ifndef PB_NODE_ANNOUNCE_H
#define PB_NODE_ANNOUNCE_H

#include <net/if.h>

#include <base/json.h>
#include <patchbay/kube.h>

#define NODE_ANNOUNCE_ADDRS 16
#define NODE_ANNOUNCE_TIMEOUT_MS 30000

struct node_announce {
	char ns[64];
	char name[254];
	char uid[65];		     /* "": the runtime doesn't say */
	char container[129];	     /* "": not said */
	char interface[IF_NAMESIZE]; /* host side */
	struct pb_kube_addr ips[NODE_ANNOUNCE_ADDRS];
	uint32_t n_ips;
	uint32_t timeout_ms;
	uint32_t id;	  /* records only */
	uint32_t ifindex; /* records only */
};

enum node_announce_use {
	NODE_ANNOUNCE_ADD = 0,	  /* and check */
	NODE_ANNOUNCE_DELETE = 1, /* namespace, name and container alone */
	NODE_ANNOUNCE_RECORD = 2, /* endpoint and ifindex too */
};

/* -EINVAL names the member and what it has to be. */
int node_announce_parse(const char *json, enum node_announce_use use,
			struct node_announce *ret_announce, struct pb_err *err);
/* The text of a record; NULL without memory. */
char *node_announce_record(const struct node_announce *announce);

/* "10.1.0.2" or "fd00::2" into an address. */
bool node_addr_parse(const char *text, struct pb_kube_addr *ret_addr);
/* At least INET6_ADDRSTRLEN bytes. Returns `text`. */
const char *node_addr_str(const struct pb_kube_addr *addr, char *text, size_t len);

#endif
