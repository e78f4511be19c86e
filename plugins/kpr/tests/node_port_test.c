/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses that are the node's own: NodePorts, HostPorts and external addresses as processes of
 * the host and of a pod see them, and what bind() is refused.
 */
#include <sched.h>
#include <sys/wait.h>

#include "sock_bed.h"

#define NODE_PORT "0.0.0.0:30080"
#define REMOTE_NODE "10.1.0.9"

static void node_port(uint8_t protocol, const char *backend)
{
	PROGRAM(NODE_PORT, protocol, backend);
	set_flags(NODE_PORT, protocol, KIND(PB_SVC_NODE_PORT));
}

static void nodes_known(void)
{
	set_up(0);
	set_identity(HOST_ADDR, PB_IDENTITY_HOST);
	set_identity(REMOTE_NODE, PB_IDENTITY_REMOTE_NODE);
}

/* `to` leads to that server, and the socket believes it talks to `to`. */
static void leads(const char *to, int server)
{
	char name[128] = "";

	CHECK(reach_tcp(to, name) == server);
	CHECK_TEXT(name, to);
}

static void refused_by_kernel(const char *to)
{
	unsigned entries = count_reverse();

	CHECK(dial(to, SOCK_STREAM, 0) < 0 && errno == ECONNREFUSED);
	CHECK(count_reverse() == entries);
}

/* A connect of a datagram socket sends nothing: what it names afterwards is where it would go. */
static void untranslated(const char *to)
{
	int fd = dial(to, SOCK_DGRAM, 0);

	CHECK(fd >= 0);
	CHECK_TEXT(peer(fd), to);
	CHECK(count_reverse() == 0);
	close(fd);
}

/* ---- who reaches a NodePort where ---- */

static void loopback_of_the_host(void)
{
	int fd = udp_socket(AF_INET);

	nodes_known();
	node_port(IPPROTO_TCP, servers[1]);
	node_port(IPPROTO_UDP, servers[0]);
	leads("127.0.0.1:30080", 1);
	leads("127.3.2.1:30080", 1);
	leads("0.0.0.0:30080", 1);
	CHECK_TEXT(ask_udp(fd, "127.0.0.1:30080", NULL), "127.0.0.1:30080");
	close(fd);
}

static void mapped_loopback_of_the_host(void)
{
	nodes_known();
	node_port(IPPROTO_TCP, servers[0]);
	leads("[::ffff:127.0.0.1]:30080", 0);
}

static void host_port_on_loopback(void)
{
	nodes_known();
	PROGRAM("0.0.0.0:8080", IPPROTO_TCP, servers[1]);
	set_flags("0.0.0.0:8080", IPPROTO_TCP, KIND(PB_SVC_HOST_PORT));
	leads("127.0.0.1:8080", 1);
	leads(HOST_ADDR ":8080", 1);
}

static void pod_tries_loopback(void)
{
	refused_by_kernel("127.0.0.1:30080");
	refused_by_kernel("[::ffff:127.0.0.1]:30080");
	refused_by_kernel("[::1]:30080");
	refused_by_kernel("0.0.0.0:30080");
	refused_by_kernel("[::]:30080");
	refused_by_kernel("127.0.0.1:8080");
	refused_by_kernel("0.0.0.0:8080");
}

static void loopback_of_a_pod(void)
{
	nodes_known();
	node_port(IPPROTO_TCP, servers[4]);
	PROGRAM("[::]:30080", IPPROTO_TCP, servers[2]);
	set_flags("[::]:30080", IPPROTO_TCP, KIND(PB_SVC_NODE_PORT));
	PROGRAM("0.0.0.0:8080", IPPROTO_TCP, servers[4]);
	set_flags("0.0.0.0:8080", IPPROTO_TCP, KIND(PB_SVC_HOST_PORT));
	in_pod(pod_tries_loopback);
}

static void from_everywhere(void)
{
	leads(HOST_ADDR ":30080", 4);
	leads(REMOTE_NODE ":30080", 4);
	leads("[::ffff:" HOST_ADDR "]:30080", 4);
	leads("[::ffff:" REMOTE_NODE "]:30080", 4);
}

static void any_node_address(void)
{
	nodes_known();
	node_port(IPPROTO_TCP, servers[4]);
	from_everywhere();
	in_pod(from_everywhere);
}

static void datagrams_to_two_nodes(void)
{
	int fd = udp_socket(AF_INET);

	nodes_known();
	node_port(IPPROTO_UDP, servers[0]);
	CHECK_TEXT(ask_udp(fd, HOST_ADDR ":30080", NULL), HOST_ADDR ":30080");
	CHECK_TEXT(ask_udp(fd, REMOTE_NODE ":30080", NULL), REMOTE_NODE ":30080");
	CHECK_TEXT(ask_udp(fd, HOST_ADDR ":30080", NULL), HOST_ADDR ":30080");
	close(fd);
}

static void six(void)
{
	nodes_known();
	set_identity("fd00::9", PB_IDENTITY_REMOTE_NODE);
	PROGRAM("[::]:30080", IPPROTO_TCP, servers[3]);
	set_flags("[::]:30080", IPPROTO_TCP, KIND(PB_SVC_NODE_PORT));
	leads("[fd00::9]:30080", 3);
}

/* ---- what is left alone ---- */

static void strangers(void)
{
	nodes_known();
	set_identity("10.1.0.77", 300);
	node_port(IPPROTO_UDP, servers[0]);
	untranslated("203.0.113.1:30080");
	untranslated("10.1.0.77:30080");
}

static void service_port_at_a_node(void)
{
	nodes_known();
	PROGRAM("10.96.0.1:83", IPPROTO_TCP, servers[0]);
	set_flags("10.96.0.1:83", IPPROTO_TCP, KIND(PB_SVC_CLUSTER_IP));
	node_port(IPPROTO_TCP, servers[0]);
	refused_by_kernel(HOST_ADDR ":83");
	refused_by_kernel("127.0.0.1:83");
}

static void node_port_at_a_cluster_ip(void)
{
	nodes_known();
	PROGRAM("10.96.0.1:83", IPPROTO_UDP, servers[0]);
	set_flags("10.96.0.1:83", IPPROTO_UDP, KIND(PB_SVC_CLUSTER_IP));
	node_port(IPPROTO_UDP, servers[0]);
	untranslated("10.96.0.1:30080");
}

static void not_allocated(void)
{
	nodes_known();
	node_port(IPPROTO_TCP, servers[0]);
	refused_by_kernel("127.0.0.1:30081");
	CHECK(try_bind("0.0.0.0:30081", SOCK_STREAM, 0) == 0);
	CHECK(try_bind("0.0.0.0:0", SOCK_STREAM, 0) == 0);
}

/* The kind has to fit the port: a wildcard entry means nothing on the wrong side of the range. */
static void range_decides(void)
{
	nodes_known();
	PROGRAM("0.0.0.0:9999", IPPROTO_UDP, servers[0]);
	set_flags("0.0.0.0:9999", IPPROTO_UDP, KIND(PB_SVC_NODE_PORT));
	PROGRAM("0.0.0.0:30081", IPPROTO_UDP, servers[0]);
	set_flags("0.0.0.0:30081", IPPROTO_UDP, KIND(PB_SVC_HOST_PORT));
	untranslated(HOST_ADDR ":9999");
	untranslated(HOST_ADDR ":30081");
}

static void host_port_of_another_node(void)
{
	nodes_known();
	PROGRAM("0.0.0.0:8080", IPPROTO_UDP, servers[0]);
	set_flags("0.0.0.0:8080", IPPROTO_UDP, KIND(PB_SVC_HOST_PORT));
	untranslated(REMOTE_NODE ":8080");
}

static void externals_elsewhere(void)
{
	untranslated(REMOTE_NODE ":22");
	untranslated("192.0.2.233:22");
	untranslated("[::ffff:192.0.2.233]:22");
}

static void external_ip(void)
{
	nodes_known();
	PROGRAM(REMOTE_NODE ":22", IPPROTO_UDP, servers[4]);
	set_flags(REMOTE_NODE ":22", IPPROTO_UDP, KIND(PB_SVC_EXTERNAL_IP));
	PROGRAM("192.0.2.233:22", IPPROTO_UDP, servers[4]);
	set_flags("192.0.2.233:22", IPPROTO_UDP, KIND(PB_SVC_EXTERNAL_IP));
	externals_elsewhere();
	in_pod(externals_elsewhere);
}

static void own_external(void)
{
	leads(HOST_ADDR ":30002", 4);
	leads("192.0.2.1:80", 5);
}

/* An external address may be a node's and its port in the range, as port 30002 of the matrix. */
static void external_ip_of_this_node(void)
{
	nodes_known();
	PROGRAM(HOST_ADDR ":30002", IPPROTO_TCP, servers[4]);
	set_flags(HOST_ADDR ":30002", IPPROTO_TCP, KIND(PB_SVC_EXTERNAL_IP));
	PROGRAM("192.0.2.1:80", IPPROTO_TCP, servers[5]);
	set_flags("192.0.2.1:80", IPPROTO_TCP, KIND(PB_SVC_LOAD_BALANCER));
	own_external();
	in_pod(own_external);
}

/* The external address is another node's, its port is a NodePort of somebody else. */
static void external_hides_no_node_port(void)
{
	nodes_known();
	PROGRAM(REMOTE_NODE ":30080", IPPROTO_TCP, servers[0]);
	set_flags(REMOTE_NODE ":30080", IPPROTO_TCP, KIND(PB_SVC_EXTERNAL_IP));
	node_port(IPPROTO_TCP, servers[1]);
	leads(REMOTE_NODE ":30080", 1);
}

static void pod_untranslated(void)
{
	untranslated("10.96.0.1:53");
	untranslated(HOST_ADDR ":30080");
}

static void host_sockets_only(void)
{
	int fd = udp_socket(AF_INET);

	nodes_known();
	set_up(PB_SVC_SET_HOST_SOCKETS_ONLY);
	PROGRAM("10.96.0.1:53", IPPROTO_UDP, servers[4]);
	node_port(IPPROTO_UDP, servers[4]);
	in_pod(pod_untranslated);
	CHECK_TEXT(ask_udp(fd, "10.96.0.1:53", NULL), "10.96.0.1:53");
	close(fd);
}

/* ---- bind ---- */

static const char *const everywhere[] = {"127.0.0.1:30080", "0.0.0.0:30080",
					 "[::ffff:127.0.0.1]:30080", "[::]:30080",
					 HOST_ADDR ":30080"};
#define N_EVERYWHERE (sizeof(everywhere) / sizeof(everywhere[0]))

static void bind_all(int type, int protocol, int err)
{
	for (size_t i = 0; i < N_EVERYWHERE; i++)
		CHECK(try_bind(everywhere[i], type, protocol) == err);
}

static void bind_rejected(void)
{
	nodes_known();
	node_port(IPPROTO_TCP, servers[0]);
	bind_all(SOCK_STREAM, 0, EADDRINUSE);
	bind_all(SOCK_DGRAM, 0, 0);
	node_port(IPPROTO_UDP, servers[0]);
	bind_all(SOCK_DGRAM, 0, EADDRINUSE);
	/* The kernel may have no SCTP; if it has, the port is free. */
	CHECK(try_bind("0.0.0.0:30080", SOCK_STREAM, IPPROTO_SCTP) != EADDRINUSE);
	unprogram(NODE_PORT, IPPROTO_TCP);
	bind_all(SOCK_STREAM, 0, 0);
}

static void bind_as_pod(void)
{
	CHECK(try_bind("0.0.0.0:30080", SOCK_STREAM, 0) == 0);
	CHECK(try_bind("127.0.0.1:30080", SOCK_DGRAM, 0) == 0);
	CHECK(try_bind("[::]:30080", SOCK_STREAM, 0) == 0);
}

static void bind_in_a_pod(void)
{
	nodes_known();
	node_port(IPPROTO_TCP, servers[0]);
	node_port(IPPROTO_UDP, servers[0]);
	in_pod(bind_as_pod);
}

/* What tells a hostNetwork pod from a process of the host is nothing that bind() could see. */
static void bind_in_a_host_network_pod(void)
{
	pid_t pid;
	int status = -1;

	nodes_known();
	node_port(IPPROTO_TCP, servers[0]);
	pid = fork();
	if (pid == 0)
		_exit(unshare(CLONE_NEWNS) < 0 || try_bind("0.0.0.0:30080", SOCK_STREAM, 0));
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static void bind_to_externals(void)
{
	nodes_known();
	PROGRAM(HOST_ADDR ":443", IPPROTO_TCP, servers[0]);
	set_flags(HOST_ADDR ":443", IPPROTO_TCP, KIND(PB_SVC_EXTERNAL_IP));
	PROGRAM(HOST_ADDR ":444", IPPROTO_UDP, servers[0]);
	set_flags(HOST_ADDR ":444", IPPROTO_UDP, KIND(PB_SVC_LOAD_BALANCER));
	CHECK(try_bind(HOST_ADDR ":443", SOCK_STREAM, 0) == EADDRINUSE);
	CHECK(try_bind("0.0.0.0:443", SOCK_STREAM, 0) == EADDRINUSE);
	CHECK(try_bind("[::]:443", SOCK_STREAM, 0) == EADDRINUSE);
	CHECK(try_bind("127.0.0.1:443", SOCK_STREAM, 0) == 0);
	CHECK(try_bind("0.0.0.0:444", SOCK_DGRAM, 0) == EADDRINUSE);
	CHECK(try_bind("0.0.0.0:444", SOCK_STREAM, 0) == 0);
}

/* A DNS cache of the node listens at the ClusterIP itself; portmap never held a HostPort. */
static void bind_allowed(void)
{
	nodes_known();
	PROGRAM(HOST_ADDR ":53", IPPROTO_UDP, servers[0]);
	set_flags(HOST_ADDR ":53", IPPROTO_UDP, KIND(PB_SVC_CLUSTER_IP));
	PROGRAM("0.0.0.0:8080", IPPROTO_TCP, servers[0]);
	set_flags("0.0.0.0:8080", IPPROTO_TCP, KIND(PB_SVC_HOST_PORT));
	CHECK(try_bind(HOST_ADDR ":53", SOCK_DGRAM, 0) == 0);
	CHECK(try_bind("0.0.0.0:8080", SOCK_STREAM, 0) == 0);
}

static void bind_unprotected(void)
{
	struct pb_svc_settings s;
	__u32 zero = 0;

	nodes_known();
	node_port(IPPROTO_TCP, servers[0]);
	CHECK(bpf_map_lookup_elem(map_fds[MAP_SETTINGS], &zero, &s) == 0);
	s.flags &= ~PB_SVC_SET_BIND_PROTECTION;
	CHECK(bpf_map_update_elem(map_fds[MAP_SETTINGS], &zero, &s, 0) == 0);
	bind_all(SOCK_STREAM, 0, 0);
}

static const struct sock_case cases[] = {
	{"K14_a_node_port_at_127_0_0_1_from_the_host", loopback_of_the_host},
	{"K14_a_host_port_at_127_0_0_1_from_the_host", host_port_on_loopback},
	{"K15_loopback_of_a_pod_has_no_node_ports", loopback_of_a_pod},
	{"K17_a_node_port_at_mapped_loopback_from_the_host", mapped_loopback_of_the_host},
	{"K25_category6_a_node_port_at_any_node_chooses_here_from_host_and_pod", any_node_address},
	{"a_node_port_at_an_IPv6_node", six},
	{"answers_of_a_node_port_come_from_the_node_asked_last", datagrams_to_two_nodes},
	{"an_address_that_is_no_node_has_no_node_ports", strangers},
	{"K21_a_port_that_no_service_has_is_free_and_refused", not_allocated},
	{"K22_a_service_port_at_a_node_is_refused", service_port_at_a_node},
	{"K23_a_node_port_at_a_cluster_ip_is_untouched", node_port_at_a_cluster_ip},
	{"a_node_port_outside_of_the_range_and_a_host_port_in_it_are_none", range_decides},
	{"a_host_port_is_none_at_another_node", host_port_of_another_node},
	{"K24_category11_an_external_ip_that_is_not_this_node_is_not_hijacked", external_ip},
	{"category11_an_external_ip_of_this_node_and_an_ingress_address_are_served",
	 external_ip_of_this_node},
	{"K24_an_external_ip_that_is_not_honoured_hides_no_node_port", external_hides_no_node_port},
	{"sockets_of_pods_are_left_alone_when_only_the_hosts_are_wanted", host_sockets_only},
	{"K2_K18_category3_bind_to_a_node_port_of_the_protocol_is_EADDRINUSE", bind_rejected},
	{"K19_a_pod_may_bind_the_number", bind_in_a_pod},
	{"K20_a_pod_with_host_network_may_not", bind_in_a_host_network_pod},
	{"bind_to_an_external_or_ingress_address_of_this_node_is_EADDRINUSE", bind_to_externals},
	{"bind_to_a_cluster_ip_and_to_a_host_port_is_allowed", bind_allowed},
	{"without_bind_protection_nothing_is_refused", bind_unprotected},
};

int main(void)
{
	return sock_bed_run(cases, sizeof(cases) / sizeof(cases[0]));
}
