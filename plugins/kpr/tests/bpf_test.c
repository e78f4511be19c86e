/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translation: what a call that names a frontend reaches, and whom it believes it talks to.
 */
#include "sock_bed.h"

static void tcp4(void)
{
	char name[128] = "";

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[1]);
	CHECK(reach_tcp("10.96.0.1:80", name) == 1);
	CHECK_TEXT(name, "10.96.0.1:80");
}

static void tcp6(void)
{
	char name[128] = "";

	PROGRAM("[fd00::1]:80", IPPROTO_TCP, servers[3]);
	CHECK(reach_tcp("[fd00::1]:80", name) == 3);
	CHECK_TEXT(name, "[fd00::1]:80");
}

static void mapped_tcp(void)
{
	char name[128] = "";

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[0]);
	CHECK(reach_tcp("[::ffff:10.96.0.1]:80", name) == 0);
	CHECK_TEXT(name, "[::ffff:10.96.0.1]:80");
}

static void both_protocols(void)
{
	int fd = udp_socket(AF_INET);
	int who = -1;

	PROGRAM("10.96.0.10:53", IPPROTO_TCP, servers[0]);
	PROGRAM("10.96.0.10:53", IPPROTO_UDP, servers[1]);
	CHECK(reach_tcp("10.96.0.10:53", NULL) == 0);
	CHECK_TEXT(ask_udp(fd, "10.96.0.10:53", &who), "10.96.0.10:53");
	CHECK(who == 1);
	close(fd);
}

static void udp_unconnected(void)
{
	int fd4 = udp_socket(AF_INET);
	int fd6 = udp_socket(AF_INET6);

	PROGRAM("10.96.0.1:53", IPPROTO_UDP, servers[0]);
	PROGRAM("[fd00::1]:53", IPPROTO_UDP, servers[2]);
	CHECK_TEXT(ask_udp(fd4, "10.96.0.1:53", NULL), "10.96.0.1:53");
	CHECK_TEXT(ask_udp(fd6, "[fd00::1]:53", NULL), "[fd00::1]:53");
	CHECK_TEXT(ask_udp(fd6, "[::ffff:10.96.0.1]:53", NULL), "[::ffff:10.96.0.1]:53");
	close(fd4);
	close(fd6);
}

static void udp_connected(void)
{
	static const char *const frontends[] = {"10.96.0.1:53", "[fd00::1]:53",
						"[::ffff:10.96.0.1]:53"};

	PROGRAM("10.96.0.1:53", IPPROTO_UDP, servers[0]);
	PROGRAM("[fd00::1]:53", IPPROTO_UDP, servers[2]);
	for (size_t i = 0; i < 3; i++) {
		struct sockaddr_storage from = {0};
		socklen_t len = sizeof(from);
		char byte = 'x';
		int fd = dial(frontends[i], SOCK_DGRAM, 0);
		int who;

		CHECK(fd >= 0);
		CHECK_TEXT(peer(fd), frontends[i]);
		CHECK(send(fd, &byte, 1, 0) == 1);
		who = who_was_asked(udp_servers);
		CHECK(who >= 0 &&
		      recvfrom(udp_servers[who], &byte, 1, 0, (struct sockaddr *)&from, &len) == 1);
		CHECK(sendto(udp_servers[who], &byte, 1, 0, (struct sockaddr *)&from, len) == 1);
		len = sizeof(from);
		CHECK(recvfrom(fd, &byte, 1, 0, (struct sockaddr *)&from, &len) == 1);
		CHECK_TEXT(show(&from), frontends[i]);
		close(fd);
	}
}

/* Unconnected only: the kernel has no connect hook for UDP-Lite. */
static void udplite(void)
{
	struct addr frontend = parse("10.96.0.1:53");
	struct addr server = parse(servers[0]);
	struct sockaddr_storage from = {0};
	socklen_t len = sizeof(from);
	int at = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
	int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
	char byte = 'x';

	PROGRAM("10.96.0.1:53", IPPROTO_UDP, servers[0]);
	if (at < 0) {
		printf("# the kernel has no UDP-Lite\n");
		return;
	}
	CHECK(bind(at, (struct sockaddr *)&server.ss, server.len) == 0);
	CHECK(sendto(fd, &byte, 1, 0, (struct sockaddr *)&frontend.ss, frontend.len) == 1);
	CHECK(recvfrom(at, &byte, 1, MSG_DONTWAIT, (struct sockaddr *)&from, &len) == 1);
	CHECK(sendto(at, &byte, 1, 0, (struct sockaddr *)&from, len) == 1);
	len = sizeof(from);
	CHECK(recvfrom(fd, &byte, 1, MSG_DONTWAIT, (struct sockaddr *)&from, &len) == 1);
	CHECK_TEXT(show(&from), "10.96.0.1:53");
	close(fd);
	close(at);
}

static void no_backend(void)
{
	int fd = udp_socket(AF_INET);
	uint64_t before = refused(PB_HOOK_CONNECT4);

	program("10.96.0.1:80", IPPROTO_TCP, (const char *const[]){NULL});
	program("10.96.0.1:53", IPPROTO_UDP, (const char *const[]){NULL});
	program("[fd00::1]:80", IPPROTO_TCP, (const char *const[]){NULL});
	CHECK(dial("10.96.0.1:80", SOCK_STREAM, 0) < 0 && errno == ECONNREFUSED);
	CHECK(dial("[fd00::1]:80", SOCK_STREAM, 0) < 0 && errno == ECONNREFUSED);
	CHECK(dial("[::ffff:10.96.0.1]:80", SOCK_STREAM, 0) < 0 && errno == ECONNREFUSED);
	CHECK(dial("10.96.0.1:53", SOCK_DGRAM, 0) < 0 && errno == ECONNREFUSED);
	CHECK_TEXT(ask_udp(fd, "10.96.0.1:53", NULL), strerror(ECONNREFUSED));
	CHECK(refused(PB_HOOK_CONNECT4) == before + 2);
	/* K13: nothing remembers the refusal. */
	PROGRAM("10.96.0.1:53", IPPROTO_UDP, servers[1]);
	CHECK_TEXT(ask_udp(fd, "10.96.0.1:53", NULL), "10.96.0.1:53");
	close(fd);
}

static void fail_open(void)
{
	program("127.0.0.1:8001", IPPROTO_TCP, (const char *const[]){NULL});
	CHECK(dial("127.0.0.1:8001", SOCK_STREAM, 0) < 0 && errno == ECONNREFUSED);
	set_flags("127.0.0.1:8001", IPPROTO_TCP, PB_SVC_FAIL_OPEN);
	CHECK(reach_tcp("127.0.0.1:8001", NULL) == 0);
}

static void untouched(void)
{
	char name[128] = "";

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[1]);
	CHECK(reach_tcp(servers[0], name) == 0);
	CHECK_TEXT(name, servers[0]);
	CHECK(count_reverse() == 0);
	/* K56: port 0 means what it means to the kernel, even if a frontend were there. */
	PROGRAM("127.0.0.1:0", IPPROTO_TCP, servers[1]);
	CHECK(dial("127.0.0.1:0", SOCK_STREAM, 0) < 0);
	CHECK(count_reverse() == 0);
}

/* In this network namespace, which is the test's own. */
static bool allow_ping_sockets(void)
{
	FILE *f = fopen("/proc/sys/net/ipv4/ping_group_range", "w");

	if (!f)
		return false;
	fputs("0 2147483647", f);
	return fclose(f) == 0;
}

/* The address of a ping is a Service's, its "port" and its protocol are not. */
static void ping_is_no_service(void)
{
	int fd;

	PROGRAM("127.0.0.5:80", IPPROTO_TCP, servers[1]);
	PROGRAM("127.0.0.5:80", IPPROTO_UDP, servers[1]);
	CHECK(allow_ping_sockets());
	fd = dial("127.0.0.5:80", SOCK_DGRAM, IPPROTO_ICMP);
	CHECK(fd >= 0);
	CHECK_TEXT(peer(fd), "127.0.0.5:80");
	CHECK(count_reverse() == 0);
	close(fd);
}

static void spread(void)
{
	unsigned hits[2] = {0, 0};

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[0], servers[1]);
	for (int i = 0; i < 200; i++) {
		int who = reach_tcp("10.96.0.1:80", NULL);

		if (who == 0 || who == 1)
			hits[who]++;
	}
	/* 200 fair coins fall outside 50..150 once in 10^12 runs. */
	CHECK(hits[0] + hits[1] == 200 && hits[0] >= 50 && hits[1] >= 50);
}

static void udp_sticks(void)
{
	bool seen[2] = {false, false};

	PROGRAM("10.96.0.1:53", IPPROTO_UDP, servers[0], servers[1]);
	for (int s = 0; s < 40; s++) {
		int fd = udp_socket(AF_INET);
		int first = -1;

		ask_udp(fd, "10.96.0.1:53", &first);
		for (int i = 0; i < 5; i++) {
			int who = -1;

			CHECK_TEXT(ask_udp(fd, "10.96.0.1:53", &who), "10.96.0.1:53");
			CHECK(who == first);
		}
		if (first == 0 || first == 1)
			seen[first] = true;
		close(fd);
	}
	CHECK(seen[0] && seen[1]);
}

static void stale_reverse(void)
{
	int fd;

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[0]);
	fd = dial("10.96.0.1:80", SOCK_STREAM, 0);
	CHECK_TEXT(peer(fd), "10.96.0.1:80");
	CHECK(count_reverse() == 1);
	/* The frontend goes to another Service: a new id. */
	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[1]);
	CHECK_TEXT(peer(fd), servers[0]);
	CHECK(count_reverse() == 0);
	close(fd);
	close(accept(tcp_servers[0], NULL, NULL));

	fd = dial("10.96.0.1:80", SOCK_STREAM, 0);
	unprogram("10.96.0.1:80", IPPROTO_TCP);
	CHECK_TEXT(peer(fd), servers[1]);
	CHECK(count_reverse() == 0);
	close(fd);
	close(accept(tcp_servers[1], NULL, NULL));
}

static void connection_outlives_backend(void)
{
	char byte = 'x';
	int fd, server;

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[0]);
	fd = dial("10.96.0.1:80", SOCK_STREAM, 0);
	server = accept(tcp_servers[0], NULL, NULL);
	CHECK(fd >= 0 && server >= 0);
	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[1]);
	CHECK(send(fd, &byte, 1, 0) == 1 && recv(server, &byte, 1, 0) == 1);
	unprogram("10.96.0.1:80", IPPROTO_TCP);
	CHECK(send(server, &byte, 1, 0) == 1 && recv(fd, &byte, 1, 0) == 1);
	close(fd);
	close(server);
}

static void shared_backend(void)
{
	int fd = udp_socket(AF_INET);

	PROGRAM("10.96.0.1:53", IPPROTO_UDP, servers[0]);
	PROGRAM("10.96.0.2:53", IPPROTO_UDP, servers[0]);
	CHECK_TEXT(ask_udp(fd, "10.96.0.1:53", NULL), "10.96.0.1:53");
	CHECK_TEXT(ask_udp(fd, "10.96.0.2:53", NULL), "10.96.0.2:53");
	CHECK_TEXT(ask_udp(fd, "10.96.0.1:53", NULL), "10.96.0.1:53");
	CHECK(count_reverse() == 1);
	close(fd);
}

static void fast_open(void)
{
	struct addr to = parse("10.96.0.1:80");
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	int server = -1;
	char byte = 'x';

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[1]);
	if (sendto(fd, &byte, 1, MSG_FASTOPEN, (struct sockaddr *)&to.ss, to.len) < 0 &&
	    errno == EOPNOTSUPP) {
		printf("# net.ipv4.tcp_fastopen forbids it\n");
		close(fd);
		return;
	}
	CHECK(who_was_asked(tcp_servers) == 1);
	server = accept(tcp_servers[1], NULL, NULL);
	CHECK(recv(server, &byte, 1, 0) == 1);
	CHECK_TEXT(peer(fd), "10.96.0.1:80");
	close(fd);
	close(server);
}

/* Entry, slot and record have to agree on the pool, and the entry has to be the key's. */
static void foreign_slot(void)
{
	static const struct {
		const char *key; /* whose tie the entry has */
		uint32_t entry, slot, record;
	} wrong[] = {
		{"10.96.0.1:80", 1000, 999, 999},
		{"10.96.0.1:80", 1000, 1000, 999},
		{"10.96.0.99:80", 1000, 1000, 1000},
	};
	struct pb_svc_key key = key_of("10.96.0.1:80", IPPROTO_TCP);

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct pb_svc_key other = key_of(wrong[i].key, IPPROTO_TCP);
		struct pb_svc svc = {.id = 1000,
				     .base = next_slot,
				     .count = 1,
				     .tie = pb_svc_tie(&other, wrong[i].entry)};
		struct pb_svc_slot slot = {.backend = next_slot, .pool = wrong[i].slot};

		set_backends(wrong[i].record, next_slot, servers, 1);
		bpf_map_update_elem(map_fds[MAP_SLOTS], &next_slot, &slot, 0);
		bpf_map_update_elem(map_fds[MAP_SERVICES], &key, &svc, 0);
		next_slot++;
		CHECK(dial("10.96.0.1:80", SOCK_STREAM, 0) < 0 && errno == ECONNREFUSED);
	}
}

/* What a socket is connected to when it ends is forgotten; of datagrams sent without, see LRU. */
static void released(void)
{
	static const char *const frontends[] = {"10.96.0.1:53", "[fd00::1]:53",
						"[::ffff:10.96.0.1]:53"};
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM};
	int fds[6];

	for (size_t i = 0; i < 2; i++) {
		PROGRAM("10.96.0.1:53", i ? IPPROTO_UDP : IPPROTO_TCP, servers[0]);
		PROGRAM("[fd00::1]:53", i ? IPPROTO_UDP : IPPROTO_TCP, servers[2]);
	}
	for (size_t i = 0; i < 6; i++) {
		fds[i] = dial(frontends[i / 2], types[i % 2], 0);
		CHECK(fds[i] >= 0);
		if (types[i % 2] == SOCK_STREAM)
			close(accept(tcp_servers[i / 2 == 1 ? 2 : 0], NULL, NULL));
		CHECK(count_reverse() == i + 1);
	}
	for (size_t i = 0; i < 6; i++) {
		close(fds[i]);
		CHECK(count_reverse() == 5 - i);
	}
}

/* As kpr's configuration has it for default/kubernetes and for whatever fail_open lists. */
static void api_server(void)
{
	static const char *const where[] = {"127.0.0.1:8001", HOST_ADDR ":8001"};

	set_up(0);
	set_identity(HOST_ADDR, PB_IDENTITY_HOST);
	for (size_t i = 0; i < 2; i++) {
		program(where[i], IPPROTO_TCP, (const char *const[]){NULL});
		set_flags(where[i], IPPROTO_TCP,
			  KIND(i ? PB_SVC_LOAD_BALANCER : PB_SVC_CLUSTER_IP) | PB_SVC_FAIL_OPEN);
		CHECK(reach_tcp(where[i], NULL) == (i ? 4 : 0));
	}
}

static const struct sock_case cases[] = {
	{"tcp4_reaches_the_backend_and_getpeername_names_the_frontend", tcp4},
	{"tcp6_reaches_the_backend_and_getpeername_names_the_frontend", tcp6},
	{"K16_a_mapped_address_is_translated_and_getpeername_stays_mapped", mapped_tcp},
	{"K1_tcp_and_udp_on_one_port_are_two_frontends", both_protocols},
	{"udp_answers_come_from_the_frontend_unconnected", udp_unconnected},
	{"udp_answers_come_from_the_frontend_connected", udp_connected},
	{"udplite_counts_as_udp", udplite},
	{"K12_K13_no_backend_is_refused_and_counted_and_the_next_one_used_at_once", no_backend},
	{"K62_a_service_that_fails_open_passes_untranslated", fail_open},
	{"K62_an_api_server_at_a_cluster_ip_or_ingress_address_is_reached_without_backends",
	 api_server},
	{"a_socket_that_ends_leaves_no_reverse_entry_of_its_peer", released},
	{"K56_what_names_no_frontend_is_untouched", untouched},
	{"K44_a_ping_to_a_cluster_ip_is_untouched", ping_is_no_service},
	{"tcp_connections_are_spread_over_the_backends", spread},
	{"udp_datagrams_of_a_socket_stick_to_one_backend", udp_sticks},
	{"K39_a_stale_reverse_entry_is_dropped", stale_reverse},
	{"K10_a_connection_outlives_its_backend_and_its_service", connection_outlives_backend},
	{"K38_answers_of_a_shared_backend_are_named_after_the_service_sent_to_last",
	 shared_backend},
	{"K57_tcp_fast_open_is_translated", fast_open},
	{"a_slot_of_another_frontend_is_never_used", foreign_slot},
};

int main(void)
{
	return sock_bed_run(cases, sizeof(cases) / sizeof(cases[0]));
}
