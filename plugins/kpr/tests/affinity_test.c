/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Session affinity of sockets: a network namespace is one client. Time passes by making the
 * record older, not by waiting.
 */
#include <time.h>

#include "sock_bed.h"

#define SERVICE "10.96.0.1:80"
#define OTHER "10.96.0.1:81"
#define TIMES 30

static void affine(uint32_t seconds)
{
	set_up(0);
	PROGRAM(SERVICE, IPPROTO_TCP, servers[4], servers[5]);
	set_affinity(SERVICE, IPPROTO_TCP, seconds);
}

/* Where the first of them goes; whether the others go elsewhere is *ret_both. */
static int reach_often(const char *to, bool *ret_both)
{
	int first = reach_tcp(to, NULL);

	*ret_both = false;
	for (int i = 0; i < TIMES; i++)
		*ret_both = reach_tcp(to, NULL) != first || *ret_both;
	return first;
}

/* 30 coins on the first one's side: once in 10^9 runs. */
static bool sticks(const char *to)
{
	bool both;

	return reach_often(to, &both) >= 0 && !both;
}

static unsigned count_records(struct kpr_affinity_key *ret_key)
{
	struct kpr_affinity_key key;
	void *at = NULL;
	unsigned n = 0;

	for (; bpf_map_get_next_key(map_fds[MAP_AFFINITY], at, &key) == 0; at = &key) {
		*ret_key = key;
		n++;
	}
	return n;
}

/* As if the only client had been idle this long. */
static void idle(uint32_t seconds)
{
	struct kpr_affinity_key key;
	struct kpr_affinity a;

	CHECK(count_records(&key) == 1);
	CHECK(bpf_map_lookup_elem(map_fds[MAP_AFFINITY], &key, &a) == 0);
	a.used -= seconds;
	CHECK(bpf_map_update_elem(map_fds[MAP_AFFINITY], &key, &a, 0) == 0);
}

static void refreshed(void)
{
	int first;

	affine(10);
	first = reach_tcp(SERVICE, NULL);
	for (int i = 0; i < TIMES; i++) {
		idle(5);
		CHECK(reach_tcp(SERVICE, NULL) == first);
	}
}

static void expires(void)
{
	bool seen[2] = {false, false};

	affine(10);
	for (int i = 0; i < TIMES; i++) {
		int who = reach_tcp(SERVICE, NULL);

		CHECK(who == 4 || who == 5);
		seen[who == 5] = true;
		/* Whatever was chosen sticks at once. */
		CHECK(reach_tcp(SERVICE, NULL) == who);
		idle(12);
	}
	CHECK(seen[0] && seen[1]);
}

/* The record is the pool's no more, as kpr_pools.c leaves it. */
static void backend_goes(void)
{
	struct kpr_affinity_key key;
	struct kpr_affinity a;
	struct pb_svc_backend b;
	struct pb_svc_slot slot;
	uint32_t base = next_slot;
	int first, other;

	affine(10);
	first = reach_tcp(SERVICE, NULL);
	other = first == 4 ? 5 : 4;
	CHECK(count_records(&key) == 1);
	CHECK(bpf_map_lookup_elem(map_fds[MAP_AFFINITY], &key, &a) == 0);
	CHECK(bpf_map_lookup_elem(map_fds[MAP_BACKENDS], &a.backend, &b) == 0);
	b.pool = 0;
	CHECK(bpf_map_update_elem(map_fds[MAP_BACKENDS], &a.backend, &b, 0) == 0);
	slot = (struct pb_svc_slot){.backend = a.backend == base ? base + 1 : base, .pool = a.pool};
	for (uint32_t at = base; at < base + 2; at++)
		CHECK(bpf_map_update_elem(map_fds[MAP_SLOTS], &at, &slot, 0) == 0);
	for (int i = 0; i < TIMES; i++)
		CHECK(reach_tcp(SERVICE, NULL) == other);
}

/* A connection that stays, whoever is asked. */
static int stay(void)
{
	int fd = dial(SERVICE, SOCK_STREAM, 0);
	int who = who_was_asked(tcp_servers);

	CHECK(fd >= 0 && who >= 0);
	close(accept(tcp_servers[who], NULL, NULL));
	return fd;
}

static void switched_off(void)
{
	bool both;
	int fd;

	affine(10);
	fd = stay();
	CHECK(sticks(SERVICE));
	set_affinity(SERVICE, IPPROTO_TCP, 0);
	reach_often(SERVICE, &both);
	CHECK(both);
	CHECK_TEXT(peer(fd), SERVICE);
	close(fd);
}

static void switched_on(void)
{
	struct kpr_affinity_key key;
	bool both;

	affine(0);
	reach_often(SERVICE, &both);
	CHECK(both);
	CHECK(count_records(&key) == 0);
	set_affinity(SERVICE, IPPROTO_TCP, 10);
	CHECK(sticks(SERVICE));
}

static void two_ports(void)
{
	struct kpr_affinity_key key;
	bool different = false;

	for (int i = 0; i < TIMES && !different; i++) {
		affine(10);
		PROGRAM(OTHER, IPPROTO_TCP, servers[4], servers[5]);
		set_affinity(OTHER, IPPROTO_TCP, 10);
		different = reach_tcp(SERVICE, NULL) != reach_tcp(OTHER, NULL);
	}
	CHECK(different);
	CHECK(sticks(SERVICE) && sticks(OTHER));
	CHECK(count_records(&key) >= 2);
}

static int reached_from_pod;

static void reach_from_pod(void)
{
	bool both;

	reached_from_pod = reach_often(SERVICE, &both);
	CHECK(!both);
}

static void clients(void)
{
	bool different = false;

	for (int i = 0; i < TIMES && !different; i++) {
		int here;

		affine(10);
		here = reach_tcp(SERVICE, NULL);
		in_pod(reach_from_pod);
		different = here != reached_from_pod;
		CHECK(reach_tcp(SERVICE, NULL) == here);
	}
	CHECK(different);
}

/* Without affinity the sockets of one client are spread; see bpf_test. */
static void datagrams(void)
{
	int first = -1;

	set_up(0);
	PROGRAM(SERVICE, IPPROTO_UDP, servers[4], servers[5]);
	set_affinity(SERVICE, IPPROTO_UDP, 10);
	for (int i = 0; i < TIMES; i++) {
		int fd = udp_socket(AF_INET);
		int who = -1;

		CHECK_TEXT(ask_udp(fd, SERVICE, &who), SERVICE);
		if (first < 0)
			first = who;
		CHECK(who == first);
		close(fd);
	}
}

static const struct sock_case cases[] = {
	{"K34_affinity_of_10_s_holds_when_asked_every_5_s", refreshed},
	{"K35_affinity_of_10_s_may_change_after_11_s", expires},
	{"K36_a_backend_that_goes_is_replaced_and_the_new_one_sticks", backend_goes},
	{"K36b_affinity_that_is_switched_off_ends_with_the_next_connection", switched_off},
	{"K36c_affinity_that_is_switched_on_begins_with_the_next_connection", switched_on},
	{"K36d_two_ports_of_a_service_may_be_different_pods", two_ports},
	{"affinity_is_by_network_namespace", clients},
	{"affinity_holds_over_the_datagram_sockets_of_a_client", datagrams},
};

int main(void)
{
	return sock_bed_run(cases, sizeof(cases) / sizeof(cases[0]));
}
