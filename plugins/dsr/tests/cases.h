/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame of the packet tests: TAP, checks, and the cast of all cases. The client is outside,
 * node L (172.18.0.2) has the frontends, the backends' node B is behind 172.18.0.3.
 */
#ifndef DSR_TESTS_CASES_H
#define DSR_TESTS_CASES_H

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "node.h"

#define PASS (-1)
#define DROP 2
#define SENT 7

#define CLIENT "192.0.2.7"
#define VIP "198.51.100.1"
#define POD "10.244.3.5"
#define CLIENT6 "2001:db8::7"
#define VIP6 "2001:db8:1::1"
#define POD6 "fd00:244:3::5"
#define LB (PB_SVC_LOAD_BALANCER << PB_SVC_KIND_SHIFT)
#define NODE_PORT (PB_SVC_NODE_PORT << PB_SVC_KIND_SHIFT)
/* Type, length, port 443, VIP. */
#define OPTION "9a0801bbc6336401"

static struct node node;
static bool case_ok;
static unsigned n_cases, n_failed;

static const struct node_service web = {.addr = VIP,
					.port = 443,
					.protocol = IPPROTO_TCP,
					.flags = LB,
					.base = 16,
					.backends = {POD},
					.backend_port = 8443};
static const struct node_service dns = {.addr = VIP,
					.port = 443,
					.protocol = IPPROTO_UDP,
					.flags = LB,
					.base = 32,
					.backends = {POD},
					.backend_port = 8443};
static const struct node_service web6 = {.addr = VIP6,
					 .port = 443,
					 .protocol = IPPROTO_TCP,
					 .flags = LB,
					 .base = 48,
					 .backends = {POD6},
					 .backend_port = 8443};

#define CHECK(cond_)                                                                               \
	do {                                                                                       \
		if (!(cond_)) {                                                                    \
			printf("# %s:%d: %s\n", __FILE__, __LINE__, #cond_);                       \
			case_ok = false;                                                           \
		}                                                                                  \
	} while (0)

#define CHECK_NUMBER(is_, should_) check_number((long)(is_), (long)(should_), #is_, __LINE__)
#define CHECK_PACKET(is_, spec_) check_packet(is_, spec_, __LINE__)

static inline void check_number(long is, long should, const char *what, int line)
{
	if (is == should)
		return;
	printf("# line %d: %s is %ld, should be %ld\n", line, what, is, should);
	case_ok = false;
}

/* `is` has right sums and is the packet of `spec`, whatever its MAC addresses. */
static inline void check_packet(const struct packet *is, const struct packet_spec *spec, int line)
{
	static struct packet should;
	const char *why = packet_check(is);

	if (!why) {
		packet_build(&should, spec);
		memcpy(should.data, is->data, 12);
		why = packet_diff(is, &should);
	}
	if (!why)
		return;
	printf("# line %d: %s\n", line, why);
	case_ok = false;
}

static inline void open_node(const struct node_config *config)
{
	int rc = node_open(&node, config);

	if (rc < 0) {
		printf("Bail out! the programs don't load: %s\n", strerror(-rc));
		exit(1);
	}
}

/* A case on a fresh node. */
static inline void run_case(const char *name, const struct node_config *config, void (*fn)(void))
{
	case_ok = true;
	open_node(config);
	fn();
	node_close(&node);
	n_cases++;
	n_failed += !case_ok;
	printf("%sok %u - %s\n", case_ok ? "" : "not ", n_cases, name);
}

#define CASE(fn_) run_case(#fn_, &dsr_config, fn_)
#define CASE_WITH(config_, fn_) run_case(#fn_, config_, fn_)

static const struct node_config dsr_config = {.mode = DSR_MODE_DSR};

static inline int finish(void)
{
	printf("1..%u\n", n_cases);
	return n_failed > 0;
}

static inline bool may_run(void)
{
	if (geteuid() != 0) {
		printf("1..0 # SKIP needs root\n");
		return false;
	}
	if (node_devices() < 0) {
		printf("Bail out! no devices\n");
		exit(1);
	}
	return true;
}

/* TCP of the client to the frontend, or with the destination changed. */
static inline struct packet_spec tcp(uint8_t flags)
{
	return (struct packet_spec){.src = CLIENT,
				    .dst = VIP,
				    .protocol = IPPROTO_TCP,
				    .sport = 5000,
				    .dport = 443,
				    .tcp_flags = flags,
				    .seq = 1000};
}

static inline struct packet_spec tcp6(uint8_t flags)
{
	struct packet_spec spec = tcp(flags);

	spec.src = CLIENT6;
	spec.dst = VIP6;
	return spec;
}

static inline struct packet_spec udp(size_t payload)
{
	struct packet_spec spec = tcp(0);

	spec.protocol = IPPROTO_UDP;
	spec.seq = 0;
	spec.payload_len = payload;
	return spec;
}

/* The same packet on its way to the backend. */
static inline struct packet_spec to_backend(struct packet_spec spec)
{
	spec.dst = strchr(spec.dst, ':') ? POD6 : POD;
	spec.dport = 8443;
	return spec;
}

static inline int run_spec(uint32_t hook, const struct packet_spec *spec, struct packet *ret_out)
{
	static struct packet in;

	packet_build(&in, spec);
	return node_run(&node, hook, &in, ret_out);
}

static inline struct pb_ct_key ct_key(const struct packet_spec *spec)
{
	struct pb_ct_key key = {.sport = htons(spec->sport),
				.dport = htons(spec->dport),
				.protocol = spec->protocol};

	key.saddr = node_addr(spec->src, &key.family);
	key.daddr = node_addr(spec->dst, &key.family);
	return key;
}

static inline bool ct_get(const struct packet_spec *spec, struct pb_ct *ret_ct)
{
	struct pb_ct_key key = ct_key(spec);

	return bpf_map_lookup_elem(node_map(&node, "pb_ct"), &key, ret_ct) == 0;
}

#endif
