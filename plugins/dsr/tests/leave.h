/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of the node with the frontend have in common: packets that leave or are left alone. */
#ifndef DSR_TESTS_LEAVE_H
#define DSR_TESTS_LEAVE_H

#include "cases.h"

#define DEV PB_HOOK_DEV_INGRESS

static struct packet out;

/* The packet goes on to kpr-nat as it came, and nothing is remembered. */
static inline void left_alone(const struct packet_spec *spec)
{
	unsigned before = node_entries(&node);

	CHECK_NUMBER(run_spec(DEV, spec, &out), PASS);
	CHECK_PACKET(&out, spec);
	CHECK_NUMBER(node_entries(&node), before);
}

/* It leaves for the backend with `options` in front of whatever it had. */
static inline void sent(const struct packet_spec *in, const char *options)
{
	struct packet_spec should = to_backend(*in);
	static const uint8_t neighbour[6] = {2, 0, 0, 0, 0, 1};

	should.ttl = 63;
	should.options = options;
	should.vlan[0] = 0;
	CHECK_NUMBER(run_spec(DEV, in, &out), SENT);
	CHECK_PACKET(&out, &should);
	CHECK(memcmp(out.data, neighbour, 6) == 0);
}

static inline void new_flow(const struct node_service *s)
{
	node_service(&node, s);
	node_flow(&node, s, PB_SVC_FLOW_NEW, 0);
}

#endif
