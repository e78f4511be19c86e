/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identities and ipcache with a real store of Kubernetes objects. The maps are in memory
 * (peers_maps.c) or the kernel's (tests/bpf/ipcache_test.c).
 */
#ifndef TESTS_PEERS_HARNESS_H
#define TESTS_PEERS_HARNESS_H

#include <criterion/criterion.h>

#include <arpa/inet.h>

#include <kube/kube.h>
#include <kube/source.h>
#include <node/peers.h>
#include <patchbay/topics/identities.h>

struct harness {
	uv_loop_t loop;
	struct pb_config config;
	struct pb_dp *dp; /* NULL with the maps of peers_maps.c */
	struct pb_kube *kube;
	struct pb_sink *sink;
	struct pb_peers *peers;
	char log[65536]; /* what was published and told */
	bool log_on;
};
extern struct harness h;

/* A process begins: peers, store. Publishes into the log. */
void harness_start(void);
void harness_stop(void); /* it ends in order */
/* Runs the loop until nothing is left to do at once. */
void settle(void);

/* ---- objects ---- */

/* labels: "a=b,c=d"; ips: "10.0.0.1,fd00::1". */
struct pod {
	const char *ns, *name, *labels, *ips, *node, *phase, *account;
	bool host_network;
};
void put_pod(const struct pod *pod);
void put_namespace(const char *name, const char *labels);
/* addrs: "10.1.0.1,fd01::1", internal ones. */
void put_node(const char *name, const char *addrs);
void put_node_with(const char *name, const char *type, const char *addrs);
void delete_object(uint32_t kind, const char *ns, const char *name);
/* The first full list of pods, namespaces and nodes has ended. */
void all_listed(void);

struct pb_kube_addr address(const char *text);
struct pb_cidr prefix(const char *text);
/* Is the number published now? */
bool is_published(uint32_t identity);
/* The log since the last call. */
const char *take_log(void);

/* ---- maps ---- */

/* Is there an address with this identity? */
bool map_has_identity(uint32_t number);

/* What the maps say of an address, the longest prefix; PB_IDENTITY_WORLD for none. */
uint32_t lookup(const char *addr);
struct pb_ipcache_value lookup_value(const char *addr);
unsigned map_entries(void); /* of both families */
unsigned map_identities(void);
unsigned map_writes(void); /* of the ipcache, since the last call */
void map_limit(uint32_t identities, uint32_t ipcache);
void harness_kill(void); /* the process ends as by kill -9 */

#endif
