/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of the backend's node have in common: arriving packets, and what becomes of them. */
#ifndef DSR_TESTS_ARRIVE_H
#define DSR_TESTS_ARRIVE_H

#include "cases.h"

#define DEV PB_HOOK_DEV_INGRESS
#define POD_OUT PB_HOOK_POD_EGRESS

static struct packet out;

/* As it arrives from the frontend's node, `options` in front. */
static inline struct packet_spec arriving(struct packet_spec spec, const char *options)
{
	spec = to_backend(spec);
	spec.options = options;
	return spec;
}

/* The backend sees `should`. */
static inline void delivered(const struct packet_spec *in, const struct packet_spec *should)
{
	CHECK_NUMBER(run_spec(DEV, in, &out), PASS);
	CHECK_PACKET(&out, should);
}

/* What the backend answers to the packet of `in`, as the pod sends it. */
static inline struct packet_spec answer_to(const struct packet_spec *in, uint8_t tcp_flags)
{
	struct packet_spec spec = *in;

	spec.src = in->dst;
	spec.dst = in->src;
	spec.sport = in->dport;
	spec.dport = in->sport;
	spec.options = NULL;
	spec.tcp_flags = tcp_flags;
	return spec;
}

/* kpr translates the answer's source into `addr`:`port`, its destination into `client_port`. */
static inline void answered_as(const struct packet_spec *in, const char *addr, uint16_t port,
			       uint16_t client_port)
{
	struct packet_spec answer = answer_to(in, 0);
	struct pb_ct ct = {0};
	uint8_t family;
	union pb_addr source = node_addr(addr, &family);
	union pb_addr client = node_addr(in->src, &family);

	CHECK(ct_get(&answer, &ct));
	CHECK_NUMBER(ct.flags, PB_CT_REPLY | PB_CT_LOCAL | PB_CT_DSR_BACKEND);
	CHECK(memcmp(&ct.saddr, &source, sizeof(source)) == 0);
	CHECK(memcmp(&ct.daddr, &client, sizeof(client)) == 0);
	CHECK_NUMBER(ntohs(ct.sport), port);
	CHECK_NUMBER(ntohs(ct.dport), client_port);
}

/* It goes to the pod as it came and nothing is remembered. */
static inline void ignored(const struct packet_spec *in, unsigned untrusted)
{
	unsigned before = node_entries(&node);

	delivered(in, in);
	CHECK_NUMBER(node_entries(&node), before);
	CHECK_NUMBER(node_stats(&node).untrusted, untrusted);
}

static inline void forget_all(void)
{
	struct pb_ct_key key;

	while (bpf_map_get_next_key(node_map(&node, "pb_ct"), NULL, &key) == 0)
		bpf_map_delete_elem(node_map(&node, "pb_ct"), &key);
}

#endif
