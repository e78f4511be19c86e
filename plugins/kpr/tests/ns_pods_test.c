/* SPDX-License-Identifier: Apache-2.0 */
/* Packets of this node: pods whose sockets aren't translated, sockets of the host, other slots. */
#include "ns_bed.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

TestSuite(kpr_ns_pods, .init = bed_enter, .fini = bed_leave);

#define SYN PACKET_SYN
#define ACK PACKET_ACK
#define IN PB_HOOK_DEV_INGRESS
#define OUT PB_HOOK_DEV_EGRESS
#define FROM_POD PB_HOOK_POD_EGRESS
#define TO_POD PB_HOOK_POD_INGRESS

static struct bed_service cluster_ip(const char *addr, uint16_t port, uint8_t protocol,
				     struct bed_backend backend)
{
	return (struct bed_service){addr, port, protocol, .flags = CLUSTER_IP,
				    .backends = {backend}};
}

/* ---- pods ---- */

Test(kpr_ns_pods, a_pod_reaches_a_backend_elsewhere_and_its_answers_come_from_the_cluster_ip)
{
	struct bed_service svc =
		cluster_ip(VIP4, 80, IPPROTO_TCP, (struct bed_backend){FAR4, 8080, false});
	struct bed_out out;

	bed_service(&svc);
	for (int packet = 0; packet < 2; packet++) {
		uint8_t flags = packet ? ACK : SYN;

		/* It isn't sent past the pod's policy: the chain goes on. */
		out = bed_run(FROM_POD, BED_TCP(POD4, 40000, VIP4, 80, flags));
		cr_expect_str_eq(bed_show(&out), "10.0.1.2 40000 > 10.0.2.7 8080 pass translated");
		cr_expect_eq(out.view.ip.ttl, 64);
		cr_expect_eq(out.record.daddr.v4, bed_addr(FAR4).v4);
		EXPECT_OUT(bed_run(IN, BED_TCP(FAR4, 8080, POD4, 40000, flags | ACK)),
			   "192.0.2.10 80 > 10.0.1.2 40000 to the pod");
	}
	cr_expect_eq(bed_ct_count(), 2);
}

Test(kpr_ns_pods, K23_a_pod_that_asks_a_cluster_ip_for_another_port_isnt_translated)
{
	struct bed_service svc =
		cluster_ip(VIP4, 80, IPPROTO_TCP, (struct bed_backend){FAR4, 8080, false});

	bed_service(&svc);
	EXPECT_OUT(bed_run(FROM_POD, BED_TCP(POD4, 40000, VIP4, 30080, SYN)),
		   "10.0.1.2 40000 > 192.0.2.10 30080 pass");
}

Test(kpr_ns_pods, K24_a_pod_that_asks_for_an_external_address_of_somebody_else_isnt_translated)
{
	struct bed_service theirs = {VIP4, 22, IPPROTO_TCP, .flags = KIND(PB_SVC_EXTERNAL_IP),
				     .backends = {{FAR4, 22, false}}};
	struct bed_service ours = theirs;

	ours.addr = NODE4;
	bed_service(&theirs);
	bed_service(&ours);
	bed_identity(VIP4, PB_IDENTITY_REMOTE_NODE);
	EXPECT_OUT(bed_run(FROM_POD, BED_TCP(POD4, 40000, VIP4, 22, SYN)),
		   "10.0.1.2 40000 > 192.0.2.10 22 pass");
	EXPECT_OUT(bed_run(FROM_POD, BED_TCP(POD4, 40000, NODE4, 22, SYN)),
		   "10.0.1.2 40000 > 10.0.2.7 22 pass translated");
}

Test(kpr_ns_pods, an_answer_of_a_backend_in_the_nodes_network_is_translated_at_the_pods_interface)
{
	struct bed_service svc =
		cluster_ip(VIP4, 53, IPPROTO_UDP, (struct bed_backend){NODE4, 5353, true});

	bed_service(&svc);
	EXPECT_OUT(bed_run(FROM_POD, BED_UDP(POD4, 40000, VIP4, 53)),
		   "10.0.1.2 40000 > 192.168.1.1 5353 pass translated");
	EXPECT_OUT(bed_run(TO_POD, BED_UDP(NODE4, 5353, POD4, 40000)),
		   "192.0.2.10 53 > 10.0.1.2 40000 pass translated");
	EXPECT_OUT(bed_run(TO_POD, BED_UDP(NODE4, 5353, POD4, 40001)),
		   "192.168.1.1 5353 > 10.0.1.2 40001 pass");
}

Test(kpr_ns_pods, a_pod_that_reaches_itself_through_a_service_meets_a_stranger)
{
	struct bed_service svc =
		cluster_ip(VIP4, 80, IPPROTO_TCP, (struct bed_backend){POD4, 8080, true});

	bed_service(&svc);
	for (int packet = 0; packet < 2; packet++) {
		uint8_t flags = packet ? ACK : SYN;

		EXPECT_OUT(bed_run(FROM_POD, BED_TCP(POD4, 40000, VIP4, 80, flags)),
			   "169.254.42.1 40000 > 10.0.1.2 8080 to the pod");
		EXPECT_OUT(bed_run(FROM_POD, BED_TCP(POD4, 8080, LOOPBACK4, 40000, flags | ACK)),
			   "192.0.2.10 80 > 10.0.1.2 40000 to the pod");
	}
	cr_expect_eq(bed_ct_count(), 2);
}

Test(kpr_ns_pods, a_pod_that_reaches_itself_by_ipv6_meets_the_node)
{
	struct bed_service svc =
		cluster_ip(VIP6, 80, IPPROTO_TCP, (struct bed_backend){POD6, 8080, true});

	bed_service(&svc);
	for (int packet = 0; packet < 2; packet++) {
		uint8_t flags = packet ? ACK : SYN;

		EXPECT_OUT(bed_run(FROM_POD, BED_TCP(POD6, 40000, VIP6, 80, flags)),
			   "fd00:1::1 40000 > fd10:1::2 8080 to the pod");
		EXPECT_OUT(bed_run(FROM_POD, BED_TCP(POD6, 8080, NODE6, 40000, flags | ACK)),
			   "2001:db8:1::10 80 > fd10:1::2 40000 to the pod");
	}
}

Test(kpr_ns_pods, a_segment_in_the_middle_of_an_unknown_connection_of_a_pod_goes_on)
{
	struct bed_service svc =
		cluster_ip(VIP4, 80, IPPROTO_TCP, (struct bed_backend){FAR4, 8080, false});

	bed_service(&svc);
	EXPECT_OUT(bed_run(FROM_POD, BED_TCP(POD4, 40000, VIP4, 80, ACK)),
		   "10.0.1.2 40000 > 192.0.2.10 80 pass");
	cr_expect_eq(bed_ct_count(), 0);
}

Test(kpr_ns_pods,
     such_a_segment_to_an_address_of_nobody_is_dropped_where_pods_need_packets_translated)
{
	struct bed_service svc =
		cluster_ip(VIP4, 80, IPPROTO_TCP, (struct bed_backend){FAR4, 8080, false});

	bed_service(&svc);
	bed_settings(PB_SVC_SET_NODE_PORT | PB_SVC_SET_HOST_SOCKETS_ONLY, 32768, 65535);
	EXPECT_OUT(bed_run(FROM_POD, BED_TCP(POD4, 40000, VIP4, 80, ACK)), "dropped 163");
	EXPECT_OUT(bed_run(FROM_POD, BED_TCP(POD4, 40000, FAR4, 8080, ACK)),
		   "10.0.1.2 40000 > 10.0.2.7 8080 pass");
	cr_expect_eq(bed_ct_count(), 0);
}

Test(kpr_ns_pods, a_packet_with_the_mark_of_a_translated_one_is_left_alone)
{
	struct bed_service svc = {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT,
				  .backends = {{FAR4, 8080, false}}};
	static const uint32_t hooks[] = {IN, FROM_POD, TO_POD, OUT};
	struct packet p;

	bed_service(&svc);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	packet_build(&p, BED_TCP(CLIENT4, 40000, NODE4, 30080, ACK));
	for (size_t i = 0; i < PB_ARRAY_LEN(hooks); i++) {
		struct packet_ctx ctx = {.ifindex = bed.up, .mark = 0x1000 | PB_MARK_TRANSLATED};
		struct packet out;

		cr_expect_eq(sandbox_packet(hooks[i], &p, &ctx, &out), -1);
		cr_expect_eq(ctx.mark, 0x1000U | PB_MARK_TRANSLATED);
		cr_expect_null(packet_diff(&out, &p));
	}
}

/* ---- sockets of this node ---- */

static const struct bed_service far_tcp = {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT,
					   .backends = {{FAR4, 8080, false}}};
static const struct bed_service far_udp = {NODE4, 30053, IPPROTO_UDP, .flags = NODE_PORT,
					   .backends = {{FAR4, 53, false}}};

Test(kpr_ns_pods, K64_a_connection_of_the_node_whose_tuple_a_flow_has_leaves_by_another_port)
{
	struct bed_out out;
	struct pb_ct ct;
	uint16_t port;

	bed_service(&far_tcp);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	out = bed_run(OUT, BED_TCP(NODE4, 40000, FAR4, 8080, SYN));
	port = out.view.ip.sport;
	cr_expect_neq(port, 40000);
	cr_expect_geq(port, 32768);
	cr_expect_eq(out.mark, PB_MARK_TRANSLATED);
	cr_assert(bed_ct(NODE4, 40000, FAR4, 8080, IPPROTO_TCP, &ct));
	cr_expect_eq(ct.flags, PB_CT_HOST);
	EXPECT_OUT(bed_run(IN, BED_TCP(FAR4, 8080, NODE4, port, SYN | ACK)),
		   "10.0.2.7 8080 > 192.168.1.1 40000 pass translated");
	EXPECT_OUT(bed_run(IN, BED_TCP(FAR4, 8080, NODE4, 40000, SYN | ACK)),
		   "192.168.1.1 30080 > 203.0.113.5 40000 to the world");
	out = bed_run(OUT, BED_TCP(NODE4, 40000, FAR4, 8080, ACK));
	cr_expect_eq(out.view.ip.sport, port);
	cr_expect_eq(bed_ct_count(), 4);
}

Test(kpr_ns_pods, K64_what_collides_with_nothing_leaves_as_it_is)
{
	bed_service(&far_tcp);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	EXPECT_OUT(bed_run(OUT, BED_TCP(NODE4, 40001, FAR4, 8080, SYN)),
		   "192.168.1.1 40001 > 10.0.2.7 8080 pass");
	EXPECT_OUT(bed_run(OUT, BED_TCP(NODE4, 40000, FAR4, 8081, SYN)),
		   "192.168.1.1 40000 > 10.0.2.7 8081 pass");
	EXPECT_OUT(bed_run(OUT, BED_UDP(NODE4, 40000, FAR4, 8080)),
		   "192.168.1.1 40000 > 10.0.2.7 8080 pass");
	EXPECT_OUT(bed_run(OUT, BED_TCP(POD4, 40000, FAR4, 8080, SYN)),
		   "10.0.1.2 40000 > 10.0.2.7 8080 pass");
	cr_expect_eq(bed_ct_count(), 2);
}

/* A socket of the node at `port`, connected to the backend or, UDP alone, to nobody. */
static int host_socket(int type, uint16_t port, bool connected, uint16_t peer_port)
{
	struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(peer_port)};
	int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);

	inet_pton(AF_INET, NODE4, &self.sin_addr);
	inet_pton(AF_INET, FAR4, &peer.sin_addr);
	cr_assert_eq(bind(fd, (struct sockaddr *)&self, sizeof(self)), 0, "%s", strerror(errno));
	if (connected)
		cr_assert(connect(fd, (struct sockaddr *)&peer, sizeof(peer)) == 0 ||
			  errno == EINPROGRESS);
	else if (type == SOCK_STREAM)
		cr_assert_eq(listen(fd, 1), 0);
	return fd;
}

Test(kpr_ns_pods, K64_a_flow_doesnt_take_the_port_of_a_connection_that_the_node_has)
{
	static const struct {
		const char *given;
		const struct bed_service *service;
		int type;
		uint16_t peer_port;
		bool connected, kept;
	} cases[] = {
		{"TCP, connected", &far_tcp, SOCK_STREAM, 8080, true, false},
		{"TCP, connected to another port", &far_tcp, SOCK_STREAM, 8081, true, true},
		{"TCP, a listener", &far_tcp, SOCK_STREAM, 0, false, true},
		{"UDP, connected", &far_udp, SOCK_DGRAM, 53, true, false},
		{"UDP, connected to another port", &far_udp, SOCK_DGRAM, 54, true, true},
		{"UDP, connected to nobody", &far_udp, SOCK_DGRAM, 0, false, false},
	};

	bed_service(&far_tcp);
	bed_service(&far_udp);
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		uint16_t port = (uint16_t)(41000 + i);
		int fd = host_socket(cases[i].type, port, cases[i].connected, cases[i].peer_port);
		struct packet_spec spec = {.src = CLIENT4,
					   .dst = NODE4,
					   .protocol = cases[i].service->protocol,
					   .sport = port,
					   .dport = cases[i].service->port,
					   .tcp_flags = SYN};
		struct bed_out out = bed_run(IN, &spec);

		cr_expect_eq(out.verdict, 7, "%s", cases[i].given);
		cr_expect_eq(out.view.ip.sport == port, cases[i].kept, "%s: %s", cases[i].given,
			     bed_show(&out));
		close(fd);
	}
}

Test(kpr_ns_pods, a_forwarded_packet_isnt_looked_at_on_its_way_out_but_the_nodes_own_is)
{
	struct bed_service svc = {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT,
				  .backends = {{NODE4, 8080, true}}};

	bed_service(&svc);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	EXPECT_OUT(bed_run(OUT, BED_TCP(NODE4, 8080, CLIENT4, 40000, SYN | ACK)),
		   "192.168.1.1 30080 > 203.0.113.5 40000 pass translated");
	EXPECT_OUT(bed_run(OUT, BED_TCP(NODE4, 8080, CLIENT4, 40001, SYN | ACK)),
		   "192.168.1.1 8080 > 203.0.113.5 40001 pass");
}

/* ---- the seam ---- */

static struct pb_svc_flow flow_of(uint32_t hook)
{
	int n = libbpf_num_possible_cpus();
	struct pb_svc_flow values[n];

	cr_assert_eq(bpf_map_lookup_elem(bed_map("kpr_flow"), &hook, values), 0);
	return values[sched_getcpu()];
}

Test(kpr_ns_pods, a_new_flow_is_in_the_record_for_the_slots_between)
{
	struct pb_svc_flow flow;
	uint32_t id = bed.next_id, backend = bed.next_backend;

	bed_service(&far_tcp);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	flow = flow_of(IN);
	cr_expect_eq(flow.state, PB_SVC_FLOW_NEW);
	cr_expect_eq(flow.id, id);
	cr_expect_eq(flow.backend, backend);
	cr_expect_eq(flow.flags, NODE_PORT);
	cr_expect_eq(flow.frontend.addr.v4, bed_addr(NODE4).v4);
	cr_expect_eq(ntohs(flow.frontend.port), 30080);
	cr_expect_eq(flow.to.addr.v4, bed_addr(FAR4).v4);
	cr_expect_eq(ntohs(flow.to.port), 8080);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, ACK));
	cr_expect_eq(flow_of(IN).state, PB_SVC_FLOW_NONE, "known flows are done with");
}

Test(kpr_ns_pods, D1_a_flow_without_answers_here_is_handed_on_and_forwarded_if_nobody_takes_it)
{
	struct pb_ct ct = {.saddr = bed_addr(CLIENT4),
			   .daddr = bed_addr(FAR4),
			   .sport = htons(40000),
			   .dport = htons(8080),
			   .flags = PB_CT_DSR | PB_CT_SINGLE,
			   .frontend = 17,
			   .backend = 5,
			   .expires = bed_now() + 60};
	struct pb_svc_flow flow;

	bed_ct_set(CLIENT4, 40000, NODE4, 30080, IPPROTO_TCP, &ct);
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, ACK)),
		   "203.0.113.5 40000 > 10.0.2.7 8080 to the node");
	flow = flow_of(IN);
	cr_expect_eq(flow.state, PB_SVC_FLOW_KNOWN);
	cr_expect_eq(flow.id, 17);
	cr_expect_eq(flow.backend, 5);
	cr_expect_eq(flow.to.addr.v4, bed_addr(FAR4).v4);
	cr_assert(bed_ct(CLIENT4, 40000, NODE4, 30080, IPPROTO_TCP, &ct));
	cr_expect_eq(ct.state, PB_CT_ESTABLISHED);
	cr_expect_geq(ct.expires, bed_now() + 21600 - 1);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, PACKET_FIN | ACK));
	cr_assert(bed_ct(CLIENT4, 40000, NODE4, 30080, IPPROTO_TCP, &ct));
	cr_expect_leq(ct.expires, bed_now() + 60);
}

/* ---- what must not confuse anybody ---- */

Test(kpr_ns_pods, frames_cut_short_anywhere_pass_or_are_translated_right)
{
	static const uint32_t hooks[] = {IN, FROM_POD, TO_POD, OUT};
	struct packet_spec *specs[] = {
		BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN),
		BED_UDP(CLIENT4, 40000, NODE4, 30053),
		BED_TCP(CLIENT6, 40000, NODE6, 30080, SYN),
	};
	struct bed_service far6 = {NODE6, 30080, IPPROTO_TCP, .flags = NODE_PORT,
				   .backends = {{FAR6, 8080, false}}};

	bed_service(&far_tcp);
	bed_service(&far_udp);
	bed_service(&far6);
	for (size_t i = 0; i < PB_ARRAY_LEN(specs); i++) {
		struct packet whole;

		packet_build(&whole, specs[i]);
		for (size_t len = 14; len < whole.len; len++)
			for (size_t h = 0; h < PB_ARRAY_LEN(hooks); h++) {
				struct packet cut = whole;
				struct packet_ctx ctx = {.ifindex = bed.up};

				packet_truncate(&cut, len);
				/* The kernel itself refuses frames without an IP header. */
				if (packet_run(sandbox.dp->entry_fd[hooks[h]], &cut, &ctx, &cut) ==
				    0)
					cr_expect(ctx.verdict == -1 || ctx.verdict == 7);
				cr_expect_eq(sandbox_counters(hooks[h]).missed, 0);
			}
	}
}
