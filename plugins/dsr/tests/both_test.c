/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two nodes with kpr and dsr: what the one sends the other gets, what the pod answers reaches the
 * client. And what becomes of it all when dsr is unloaded and loaded again in between.
 */
#include "cases.h"

#define DEV PB_HOOK_DEV_INGRESS
#define POD_OUT PB_HOOK_POD_EGRESS

/* `node` is the one that is called; this is the backend's. */
static struct node there;
static const struct node_config both = {.mode = DSR_MODE_DSR, .with_kpr = true};
static const struct node_config alone = {.no_dsr = true};
static struct packet out;

static void open_there(const struct node_service *s)
{
	if (node_open(&there, &both) < 0) {
		printf("Bail out! the programs don't load\n");
		exit(1);
	}
	node_service(&node, s);
	node_service(&there, s);
	/* Who is who: the first node, and which node has the pod. */
	node_identity(&there, "172.18.0.2", PB_IDENTITY_REMOTE_NODE, NULL);
	node_identity(&there, "fd00:18::2", PB_IDENTITY_REMOTE_NODE, NULL);
	node_identity(&node, POD, 300, "172.18.0.3");
	node_identity(&node, POD6, 300, "172.18.0.3");
}

/* The client's packet passes the first node, then the second; the pod gets `should`. */
static void through(const struct packet_spec *in, const struct packet_spec *should)
{
	static struct packet between;

	CHECK_NUMBER(run_spec(DEV, in, &between), SENT);
	CHECK(packet_check(&between) == NULL);
	CHECK_NUMBER(node_run(&there, DEV, &between, &out), PASS);
	CHECK_PACKET(&out, should);
}

static struct packet_spec pods_answer(const struct packet_spec *delivered, uint8_t tcp_flags)
{
	struct packet_spec spec = *delivered;

	spec.src = delivered->dst;
	spec.dst = delivered->src;
	spec.sport = delivered->dport;
	spec.dport = delivered->sport;
	spec.tcp_flags = tcp_flags;
	spec.ttl = 64;
	return spec;
}

/* The pod answers to what it got, and the client gets it from whom it has called. */
static void answered(const struct packet_spec *in, const struct packet_spec *delivered,
		     uint8_t tcp_flags)
{
	struct packet_spec answer = pods_answer(delivered, tcp_flags), should = answer;
	static struct packet p;

	should.src = in->dst;
	should.sport = in->dport;
	should.dport = in->sport;
	should.ttl = 63;
	packet_build(&p, &answer);
	CHECK_NUMBER(node_run(&there, POD_OUT, &p, &out), SENT);
	CHECK_PACKET(&out, &should);
}

static struct packet_spec at_the_pod(const struct packet_spec *in)
{
	struct packet_spec spec = to_backend(*in);

	spec.ttl = 63;
	return spec;
}

static void connection(struct packet_spec in)
{
	struct packet_spec pod = at_the_pod(&in);

	through(&in, &pod);
	answered(&in, &pod, PACKET_SYN | PACKET_ACK);
	in.tcp_flags = pod.tcp_flags = PACKET_ACK;
	in.payload_len = pod.payload_len = 1000;
	through(&in, &pod);
	answered(&in, &pod, PACKET_ACK);
}

static void D4_D6_a_connection_over_two_nodes(void)
{
	open_there(&web);
	connection(tcp(PACKET_SYN));
	CHECK_NUMBER(node_entries(&node), 1);
	CHECK_NUMBER(node_entries(&there), 2);
	CHECK_NUMBER(node_stats(&node).sent, 1);
	node_close(&there);
}

static void D4_D6_the_same_with_IPv6(void)
{
	open_there(&web6);
	connection(tcp6(PACKET_SYN));
	node_close(&there);
}

static void D8_datagrams_over_two_nodes(void)
{
	struct packet_spec in = udp(100), pod = at_the_pod(&in);

	open_there(&dns);
	for (int i = 0; i < 3; i++) {
		through(&in, &pod);
		answered(&in, &pod, 0);
	}
	CHECK_NUMBER(node_stats(&node).sent, 3);
	CHECK_NUMBER(node_stats(&there).arrived, 3);
	node_close(&there);
}

static void D2_the_mode_of_a_Service_is_kept_per_flow_after_unloading(void)
{
	struct packet_spec in = tcp(PACKET_SYN), pod = at_the_pod(&in);
	struct packet_spec other = in, snat;
	struct packet_view view;

	open_there(&web);
	through(&in, &pod);
	answered(&in, &pod, PACKET_SYN | PACKET_ACK);
	CHECK(node_rechain(&node, &alone) == 0 && node_rechain(&there, &alone) == 0);
	/* The flow goes on by kpr alone: both ways, no option, no SNAT. */
	in.tcp_flags = pod.tcp_flags = PACKET_ACK;
	through(&in, &pod);
	answered(&in, &pod, PACKET_ACK);
	/* A new one is SNATed. */
	other.sport = 5001;
	CHECK_NUMBER(run_spec(DEV, &other, &out), SENT);
	CHECK(packet_check(&out) == NULL && packet_read(&out, &view) == NULL);
	CHECK(strcmp(view.ip.src, "172.18.0.2") == 0 && view.ip.header_len == 20);
	snat = at_the_pod(&other);
	snat.src = "172.18.0.2";
	snat.sport = view.ip.sport;
	CHECK_PACKET(&out, &snat);
	/* And stays so when dsr is back. */
	CHECK(node_rechain(&node, &both) == 0 && node_rechain(&there, &both) == 0);
	other.tcp_flags = snat.tcp_flags = PACKET_ACK;
	CHECK_NUMBER(run_spec(DEV, &other, &out), SENT);
	CHECK_PACKET(&out, &snat);
	through(&in, &pod);
	answered(&in, &pod, PACKET_ACK);
	node_close(&there);
}

static void D22_another_node_takes_the_flow_over(void)
{
	static const struct node_config config = {.mode = DSR_MODE_DSR, .with_kpr = true};
	struct packet_spec in = udp(100), pod = at_the_pod(&in);

	open_there(&dns);
	through(&in, &pod);
	/* The first node and all it knew are gone. */
	node_close(&node);
	open_node(&config);
	node_service(&node, &dns);
	through(&in, &pod);
	answered(&in, &pod, 0);
	CHECK_NUMBER(node_entries(&there), 2);
	node_close(&there);
}

static void inside(const struct node_service *s, const struct packet_spec *in)
{
	open_there(s);
	connection(*in);
	CHECK_NUMBER(node_entries(&node), 1);
	CHECK_NUMBER(node_entries(&there), 2);
	CHECK_NUMBER(node_stats(&node).sent, 1);
	CHECK_NUMBER(node_stats(&there).arrived, 1);
	node_close(&there);
}

static void D4_D6_a_connection_that_begins_inside_a_tunnel(void)
{
	struct packet_spec in = tcp(PACKET_SYN);

	inside(&web, &in);
}

static void D4_D6_the_same_with_IPv6_inside_a_tunnel(void)
{
	struct packet_spec in = tcp6(PACKET_SYN);

	inside(&web6, &in);
}

static void D36_what_isnt_believed_doesnt_come_out_of_a_tunnel(void)
{
	struct packet_spec in = tcp(PACKET_SYN);
	static struct packet p;

	open_there(&web);
	CHECK_NUMBER(run_spec(DEV, &in, &p), SENT);
	/* The Service is gone. */
	node_service_gone(&there, &web);
	CHECK_NUMBER(node_run(&there, DEV, &p, &out), DROP);
	CHECK_NUMBER(node_drops(&there, DEV, PB_REASON_INVALID_PACKET), 1);
	CHECK_NUMBER(node_stats(&there).untrusted, 1);
	/* Whoever sends it is no node: it isn't even unpacked. */
	node_service(&there, &web);
	node_identity(&there, "172.18.0.2", PB_IDENTITY_WORLD, NULL);
	CHECK_NUMBER(node_run(&there, DEV, &p, &out), PASS);
	CHECK(packet_diff(&out, &p) == NULL);
	CHECK_NUMBER(node_entries(&there), 0);
	node_close(&there);
}

int main(void)
{
	static const struct node_config ipip = {.mode = DSR_MODE_DSR,
						.with_kpr = true,
						.dispatch = DSR_IPIP};
	static const struct node_config geneve = {.mode = DSR_MODE_DSR,
						  .with_kpr = true,
						  .dispatch = DSR_GENEVE};

	if (!may_run())
		return 0;
	CASE_WITH(&both, D4_D6_a_connection_over_two_nodes);
	CASE_WITH(&both, D4_D6_the_same_with_IPv6);
	CASE_WITH(&both, D8_datagrams_over_two_nodes);
	CASE_WITH(&both, D2_the_mode_of_a_Service_is_kept_per_flow_after_unloading);
	CASE_WITH(&both, D22_another_node_takes_the_flow_over);
	CASE_WITH(&ipip, D4_D6_a_connection_that_begins_inside_a_tunnel);
	CASE_WITH(&ipip, D4_D6_the_same_with_IPv6_inside_a_tunnel);
	CASE_WITH(&ipip, D8_datagrams_over_two_nodes);
	CASE_WITH(&ipip, D36_what_isnt_believed_doesnt_come_out_of_a_tunnel);
	CASE_WITH(&geneve, D4_D6_a_connection_that_begins_inside_a_tunnel);
	CASE_WITH(&geneve, D4_D6_the_same_with_IPv6_inside_a_tunnel);
	CASE_WITH(&geneve, D8_datagrams_over_two_nodes);
	CASE_WITH(&geneve, D36_what_isnt_believed_doesnt_come_out_of_a_tunnel);
	return finish();
}
