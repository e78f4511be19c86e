/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One node of a cluster as the programs see it: their maps, and the chains of two hooks.
 *
 * Owns the loading: the core's real entry and exit programs around those of the plugin, maps shared
 * by name, a borrowed map being the one that a test fills. Devices are those of node_devices(): all
 * nodes of a test stand in the network namespace of its process, which nobody else is in.
 */
#ifndef DSR_TESTS_NODE_H
#define DSR_TESTS_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bpf/libbpf.h>
#include <patchbay/maps/services.h>
#include <tests/bpf/packet.h>

#include "../dsr_abi.h"

#define NODE_MAPS 64
#define NODE_OBJECTS 16

struct node_config {
	uint32_t mode; /* enum dsr_mode */
	uint32_t dispatch;
	bool keep_option;
	bool any_address;
	bool with_kpr; /* kpr's programs for packets around those of dsr */
	bool no_dsr;
};

struct node {
	struct node_config config;
	struct {
		char name[40];
		int fd;
	} maps[NODE_MAPS];
	size_t n_maps;
	struct bpf_object *objects[NODE_OBJECTS];
	size_t n_objects;
	int entry[PB_HOOK_TC_COUNT];
};

/* A namespace of this process's own with a device `up0`, its routes and neighbours. */
int node_devices(void);
uint32_t node_uplink(void);

int node_open(struct node *n, const struct node_config *config);
/* Other chains over the same maps, as when a plugin is loaded or unloaded. */
int node_rechain(struct node *n, const struct node_config *config);
void node_close(struct node *n);
int node_map(const struct node *n, const char *name);

/* A frontend with `n_backends` backends at slot `base`, which is the pool's number, too. */
struct node_service {
	const char *addr; /* NULL: any address of a node */
	uint16_t port;
	uint8_t protocol;
	uint8_t family;
	uint32_t flags; /* PB_SVC_*, kind included */
	uint32_t base;
	const char *backends[4];
	uint16_t backend_port;
	uint32_t fill; /* so many other backends in front of them */
};

void node_service(const struct node *n, const struct node_service *s);
void node_service_gone(const struct node *n, const struct node_service *s);
/* What slot kpr found: the first backend of `s`. */
void node_flow(const struct node *n, const struct node_service *s, uint32_t state, uint8_t flags);
/* No Service's packet. */
void node_flow_none(const struct node *n);
/* `addr` is of identity `identity`; the ipcache entry's node is `node4`, or NULL. */
void node_identity(const struct node *n, const char *addr, uint32_t identity, const char *node4);

/* Runs the chain of a hook. The verdict as packet_run() gives it; below -1: the run failed. */
int node_run(const struct node *n, uint32_t hook, const struct packet *in, struct packet *ret_out);
struct dsr_stats node_stats(const struct node *n);
uint64_t node_drops(const struct node *n, uint32_t hook, uint32_t reason);
/* Halves in pb_ct. */
unsigned node_entries(const struct node *n);

union pb_addr node_addr(const char *text, uint8_t *ret_family);

#endif
