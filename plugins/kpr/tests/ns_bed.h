/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node for tests of kpr's packet programs: devices, routes, the programs in their chains, and
 * maps to be filled by hand. Packets go in by BPF_PROG_TEST_RUN and come out by name.
 *
 * The node has up0 (192.168.1.1, fd00:1::1) towards the world and pod0 towards a pod (10.0.1.2,
 * fd10:1::2). Backends elsewhere are 10.0.2.0/24 and fd10:2::/64, behind 192.168.1.2 and fd00:1::2;
 * everybody else is behind 192.168.1.254 and fd00:1::fe.
 */
#ifndef KPR_TESTS_NS_BED_H
#define KPR_TESTS_NS_BED_H

#include <patchbay/conntrack.h>

#include "../../../tests/bpf/sandbox.h"
#include "../kpr_abi.h"

#define CLIENT4 "203.0.113.5"
#define CLIENT6 "2001:db8::5"
#define NODE4 "192.168.1.1"
#define NODE6 "fd00:1::1"
#define POD4 "10.0.1.2"
#define POD6 "fd10:1::2"
#define FAR4 "10.0.2.7"
#define FAR6 "fd10:2::7"
#define VIP4 "192.0.2.10"
#define VIP6 "2001:db8:1::10"
#define LOOPBACK4 "169.254.42.1"

struct bed {
	struct pb_dp_object *object;
	uint32_t up, pod; /* ifindex */
	uint32_t next_id, next_backend, next_maglev;
};
extern struct bed bed;

void bed_enter(void);
void bed_leave(void);
void bed_shell(const char *command);

/* ---- what is in the maps ---- */

struct bed_backend {
	const char *addr;
	uint16_t port;
	bool local;
};

struct bed_service {
	const char *addr;
	uint16_t port;
	uint8_t protocol;
	uint8_t scope;
	uint32_t flags; /* PB_SVC_*, the kind in its place */
	uint32_t affinity_s, ranges;
	struct bed_backend backends[4]; /* up to one without address */
};

#define KIND(kind_) ((uint32_t)(kind_) << PB_SVC_KIND_SHIFT)
#define NODE_PORT KIND(PB_SVC_NODE_PORT)
#define LOAD_BALANCER KIND(PB_SVC_LOAD_BALANCER)
#define CLUSTER_IP KIND(PB_SVC_CLUSTER_IP)

/* Of the frontend with that id: another number, so that nobody takes one for the other. */
#define BED_AFFINITY_ID(id_) ((id_) + 5000)

int bed_map(const char *name); /* fd; of kpr's or of the core's */
union pb_addr bed_addr(const char *text);
#define BED_MAGLEV_SIZE 251
/* Returns the pool's id. With PB_SVC_MAGLEV place i of its table is the i-th backend's, in turns.
 */
uint32_t bed_service(const struct bed_service *service);
/* The backend's record is nobody's any more, and the frontend has no other. */
void bed_backend_leaves(const struct bed_service *service, uint32_t pool);
void bed_settings(uint32_t flags, uint16_t snat_min, uint16_t snat_max);
void bed_identity(const char *addr, uint32_t identity);
void bed_range(uint32_t ranges, const char *addr, uint32_t bits);

/* ---- what goes through ---- */

struct bed_out {
	int verdict;
	uint32_t mark;
	struct pb_packet record;
	struct packet packet;
	struct packet_view view;
};

/* Runs the hook's chain on its device. A packet that isn't dropped must be right in every sum. */
struct bed_out bed_run(uint32_t hook, const struct packet_spec *spec);
struct bed_out bed_run_packet(uint32_t hook, const struct packet *packet);
#define BED_TCP(src_, sport_, dst_, dport_, flags_)                                                \
	(&(struct packet_spec){.src = (src_),                                                      \
			       .dst = (dst_),                                                      \
			       .protocol = IPPROTO_TCP,                                            \
			       .sport = (sport_),                                                  \
			       .dport = (dport_),                                                  \
			       .tcp_flags = (flags_),                                              \
			       .payload_len = 20})
#define BED_UDP(src_, sport_, dst_, dport_)                                                        \
	(&(struct packet_spec){.src = (src_),                                                      \
			       .dst = (dst_),                                                      \
			       .protocol = IPPROTO_UDP,                                            \
			       .sport = (sport_),                                                  \
			       .dport = (dport_),                                                  \
			       .payload_len = 21})

/*
 * "203.0.113.5 40000 > 10.0.2.7 8080 to the node": what it is and where it goes. Answers go back
 * "to the node", where test packets come from.
 */
const char *bed_show(const struct bed_out *out);
#define EXPECT_OUT(out_, should_)                                                                  \
	do {                                                                                       \
		struct bed_out o_ = (out_);                                                        \
		cr_expect_str_eq(bed_show(&o_), should_, "is %s, should be %s", bed_show(&o_),     \
				 should_);                                                         \
	} while (0)

/* ---- what is left behind ---- */

bool bed_ct(const char *saddr, uint16_t sport, const char *daddr, uint16_t dport, uint8_t protocol,
	    struct pb_ct *ret_ct);
void bed_ct_set(const char *saddr, uint16_t sport, const char *daddr, uint16_t dport,
		uint8_t protocol, const struct pb_ct *ct);
uint32_t bed_ct_count(void);
struct pb_ct_stats bed_ct_stats(void);
uint32_t bed_now(void);

#endif
