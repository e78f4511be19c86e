/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a change costs, and that the maps are right after any sequence of changes: parts and heads
 * in at random, the content of the maps compared with a computation of its own. The plugin runs
 * on the fake host, its maps are in memory.
 */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <patchbay/testing.h>
#include <patchbay/topics/backends.h>
#include <patchbay/topics/node_addresses.h>

#include "../kpr_abi.h"
#include "../kpr_pools.h"

#define N_SERVICES 5
#define N_PARTS 3
#define N_IDS 40
#define N_PORTS 2
#define ROUNDS 4000

/* One backend of a Service, as a test thinks of it. */
struct truth {
	uint8_t part; /* N_PARTS: none */
	uint8_t state;
	uint8_t local;
	uint8_t hint; /* 0: none, 1: this node's zone, 2: another one */
};

struct service {
	struct pb_kube_service s;
	struct pb_kube_addr ip;
	struct pb_service_port ports[N_PORTS];
	char name[16];
};

static struct pb_fake *fake;
static struct service services[N_SERVICES][2]; /* two, so that one can replace the other */
static struct truth truth[N_SERVICES][N_IDS];  /* as of the last head */
static struct truth next[N_SERVICES][N_IDS];
static bool part_known[N_SERVICES][N_PARTS];
static unsigned in_use[N_SERVICES]; /* which of the two */
static bool exists[N_SERVICES];
static struct pb_kube_node nodes[2];
static unsigned node_in_use;
static bool has_zone;
static unsigned seed;

static void setup(void)
{
	fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1,
			   "{\"services_max\":64,\"backends_max\":65536}", "node-a");
	cr_assert_not_null(fake);
	pb_fake_map_define(fake, "kpr_services", BPF_MAP_TYPE_HASH, sizeof(struct pb_svc_key),
			   sizeof(struct pb_svc), 64);
	pb_fake_map_define(fake, "kpr_slots", BPF_MAP_TYPE_ARRAY, 4, sizeof(struct pb_svc_slot),
			   64);
	pb_fake_map_mappable(fake, "kpr_slots");
	pb_fake_map_define(fake, "kpr_backends", BPF_MAP_TYPE_ARRAY, 4,
			   sizeof(struct pb_svc_backend), 64);
	pb_fake_map_mappable(fake, "kpr_backends");
	pb_fake_map_define(fake, "kpr_maglev", BPF_MAP_TYPE_ARRAY, 4, sizeof(struct pb_svc_slot),
			   16);
	pb_fake_map_mappable(fake, "kpr_maglev");
	pb_fake_map_define(fake, "kpr_reverse", BPF_MAP_TYPE_LRU_HASH,
			   sizeof(struct kpr_reverse_key), sizeof(struct kpr_reverse), 64);
	pb_fake_map_define(fake, "kpr_settings", BPF_MAP_TYPE_ARRAY, 4,
			   sizeof(struct pb_svc_settings), 1);
	pb_fake_map_mappable(fake, "kpr_settings");
	pb_fake_map_define(fake, "kpr_ranges4", BPF_MAP_TYPE_HASH, sizeof(struct pb_svc_range4), 1,
			   64);
	pb_fake_map_define(fake, "kpr_ranges6", BPF_MAP_TYPE_HASH, sizeof(struct pb_svc_range6), 1,
			   64);
	memset(truth, 0, sizeof(truth));
	memset(next, 0, sizeof(next));
	memset(part_known, 0, sizeof(part_known));
	memset(exists, 0, sizeof(exists));
	has_zone = false;
	for (int s = 0; s < N_SERVICES; s++)
		for (int i = 0; i < N_IDS; i++)
			truth[s][i].part = next[s][i].part = N_PARTS;
	seed = 7;
}

static void teardown(void)
{
	pb_fake_free(fake);
}

static unsigned any(unsigned n)
{
	return (unsigned)rand_r(&seed) % n;
}

static void advance(void)
{
	pb_fake_advance_ms(fake, 1);
}

/* ---- Services and parts in ---- */

static uint16_t node_port(unsigned s, unsigned port)
{
	return (uint16_t)(30000 + N_PORTS * s + port);
}

static struct service *make_service(unsigned s, uint32_t flags)
{
	struct service *svc = &services[s][in_use[s] ^= 1];

	memset(svc, 0, sizeof(*svc));
	snprintf(svc->name, sizeof(svc->name), "svc%u", s);
	svc->s.meta = (struct pb_kube_meta){.size = sizeof(svc->s),
					    .kind = PB_KUBE_SERVICE,
					    .ns = "ns",
					    .name = svc->name,
					    .uid = "",
					    .version = "1"};
	svc->s.type = PB_SERVICE_NODE_PORT;
	svc->s.flags = flags;
	svc->ip.family = 4;
	svc->ip.addr.v4 = htonl(0x0a600001 + s);
	svc->s.cluster_ips = &svc->ip;
	svc->s.n_cluster_ips = 1;
	svc->s.ports = svc->ports;
	svc->s.n_ports = N_PORTS;
	for (unsigned p = 0; p < N_PORTS; p++)
		svc->ports[p] = (struct pb_service_port){.name = p ? "b" : "a",
							 .port = (uint16_t)(80 + p),
							 .node_port = node_port(s, p),
							 .protocol = IPPROTO_TCP,
							 .app_protocol = ""};
	return svc;
}

static void put_service(unsigned s, uint32_t flags)
{
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &make_service(s, flags)->s.meta), 0);
	exists[s] = true;
}

/* Sorted by port name and address, as the topic promises. */
static void put_part(unsigned s, unsigned part, const struct truth *list, uint32_t n_ids)
{
	static const uint32_t hints[] = {0, 5, 7}; /* offsets of strings */
	size_t len = sizeof(struct pb_backends) + n_ids * sizeof(struct pb_backend) + 9;
	struct pb_backends *value = calloc(1, len);
	char key[64];
	uint32_t n = 0;

	snprintf(key, sizeof(key), "ns/svc%u/part%u", s, part);
	for (uint32_t port = 0; port < N_PORTS; port++)
		for (uint32_t i = port; i < n_ids; i += N_PORTS) {
			if (list[i].part != part)
				continue;
			value->backend[n++] =
				(struct pb_backend){.addr.v4 = htonl(0x0a000000 + i),
						    .port = 8080,
						    .family = 4,
						    .protocol = IPPROTO_TCP,
						    .state = list[i].state,
						    .flags = list[i].local ? PB_BACKEND_LOCAL : 0,
						    .port_name = 1 + 2 * port,
						    .hints = hints[list[i].hint]};
		}
	value->size = sizeof(*value);
	value->n = n;
	value->strings_len = 9;
	memcpy((char *)&value->backend[n], "\0a\0b\0x\0y", 9);
	if (n == 0 && part_known[s][part])
		cr_assert_eq(pb_fake_withdraw(fake, PB_TOPIC_BACKENDS, key), 0);
	else if (n > 0)
		cr_assert_eq(pb_fake_publish(fake, PB_TOPIC_BACKENDS, PB_TOPIC_BACKENDS_VERSION,
					     key, value,
					     sizeof(*value) + n * sizeof(struct pb_backend) + 9),
			     0);
	part_known[s][part] = n > 0;
	free(value);
}

static void put_head(unsigned s)
{
	static uint64_t revision;
	struct pb_backends_head head = {.size = sizeof(head), .revision = ++revision};
	char key[64];

	for (unsigned p = 0; p < N_PARTS; p++)
		head.n_parts += part_known[s][p];
	snprintf(key, sizeof(key), "ns/svc%u", s);
	cr_assert_eq(pb_fake_publish(fake, PB_TOPIC_BACKENDS, PB_TOPIC_BACKENDS_VERSION, key, &head,
				     sizeof(head)),
		     0);
	memcpy(truth[s], next[s], sizeof(truth[s]));
}

/* ---- what should be, and what is ---- */

static uint32_t flags_of(unsigned s)
{
	return services[s][in_use[s]].s.flags;
}

/* Hints hold when all active backends have some and one speaks of this node's zone. */
static uint64_t in_zone(unsigned s, unsigned port, uint64_t active)
{
	uint64_t zone = 0;

	for (unsigned i = port; i < N_IDS; i += N_PORTS) {
		if (!(active >> i & 1))
			continue;
		if (truth[s][i].hint == 0)
			return active;
		zone |= (uint64_t)(truth[s][i].hint == 1) << i;
	}
	return zone ? zone : active;
}

static uint64_t should_be(unsigned s, unsigned port, bool local)
{
	uint64_t active = 0, terminating = 0;

	for (unsigned i = port; i < N_IDS; i += N_PORTS) {
		const struct truth *t = &truth[s][i];

		if (t->part == N_PARTS || (local && !t->local))
			continue;
		active |= (uint64_t)(t->state == PB_BACKEND_ACTIVE) << i;
		terminating |= (uint64_t)(t->state == PB_BACKEND_TERMINATING) << i;
	}
	if (active)
		return has_zone && !local ? in_zone(s, port, active) : active;
	return terminating;
}

/* The backends behind a frontend, which must be there exactly if the Service is. */
static uint64_t is(unsigned s, unsigned port, const struct pb_svc_key *key, struct pb_svc *svc)
{
	struct pb_svc_backend b;
	struct pb_svc_slot slot;
	uint64_t found = 0;

	for (uint32_t i = 0; i < svc->count; i++) {
		uint32_t at = svc->base + i, n;

		cr_assert_eq(pb_fake_map_get(fake, "kpr_slots", &at, &slot), 0);
		cr_assert_eq(slot.pool, pb_svc_tie(key, svc->tie));
		cr_assert_eq(pb_fake_map_get(fake, "kpr_backends", &slot.backend, &b), 0);
		cr_assert_eq(b.pool, slot.pool);
		n = ntohl(b.addr.v4) - 0x0a000000;
		cr_assert(n < N_IDS && n % N_PORTS == port);
		cr_assert_not(found >> n & 1, "twice in the pool");
		cr_assert_eq(b.flags, truth[s][n].local ? PB_SVC_BACKEND_LOCAL : 0);
		found |= 1ULL << n;
	}
	return found;
}

static void check_entry(unsigned round, const char *after, unsigned s, unsigned port,
			const struct pb_svc_key *key, bool wanted, bool local)
{
	uint64_t should = should_be(s, port, local), found;
	bool elsewhere = local && should == 0 && should_be(s, port, false) != 0;
	struct pb_svc svc;
	bool there = pb_fake_map_get(fake, "kpr_services", key, &svc) == 0;

	cr_assert_eq(there, wanted, "round %u, %s: svc%u port %u", round, after, s,
		     ntohs(key->port));
	if (!there)
		return;
	found = is(s, port, key, &svc);
	cr_assert_eq(found, should, "round %u, %s: svc%u port %u is %lx, should be %lx", round,
		     after, s, ntohs(key->port), (unsigned long)found, (unsigned long)should);
	cr_assert_eq(!!(svc.flags & PB_SVC_LOCAL), local);
	cr_assert_eq(!!(svc.flags & PB_SVC_ELSEWHERE), elsewhere, "round %u, %s: svc%u", round,
		     after, s);
}

static void check(unsigned round, const char *after)
{
	for (unsigned s = 0; s < N_SERVICES; s++)
		for (unsigned port = 0; port < N_PORTS; port++) {
			struct pb_svc_key key = {.addr.v4 = htonl(0x0a600001 + s),
						 .port = htons((uint16_t)(80 + port)),
						 .protocol = IPPROTO_TCP,
						 .family = 4};

			check_entry(round, after, s, port, &key, exists[s],
				    flags_of(s) & PB_SERVICE_INTERNAL_LOCAL);
			key.addr.v4 = 0;
			key.port = htons(node_port(s, port));
			check_entry(round, after, s, port, &key, exists[s], false);
			key.scope = PB_SVC_SCOPE_EXT;
			check_entry(round, after, s, port, &key,
				    exists[s] && flags_of(s) & PB_SERVICE_EXTERNAL_LOCAL, true);
		}
}

static void put_zone(bool zone)
{
	struct pb_kube_node *node = &nodes[node_in_use ^= 1];

	*node = (struct pb_kube_node){.meta = {.size = sizeof(*node),
					       .kind = PB_KUBE_NODE,
					       .ns = "",
					       .name = "node-a",
					       .uid = "",
					       .version = "1"},
				      .zone = zone ? "x" : ""};
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &node->meta), 0);
	has_zone = zone;
}

/* Changes some backends of a Service; parts that gain before parts that lose, then the head. */
static void change(unsigned s, unsigned round)
{
	unsigned n = 1 + any(any(4) ? 3 : N_IDS);
	struct truth both[N_IDS];
	bool touched[N_PARTS] = {false};

	memcpy(both, next[s], sizeof(both));
	for (unsigned i = 0; i < n; i++) {
		struct truth *t = &next[s][any(N_IDS)];

		if (t->part < N_PARTS)
			touched[t->part] = true;
		t->part = (uint8_t)any(N_PARTS + 1);
		if (t->part < N_PARTS)
			touched[t->part] = true;
		t->state = any(3) ? PB_BACKEND_ACTIVE : (uint8_t)(1 + any(3));
		t->local = any(3) == 0;
		t->hint = any(40) ? (uint8_t)(1 + any(2)) : 0;
	}
	/* A part that gains shows what it loses in the same record; order matters across parts. */
	for (unsigned p = 0; p < N_PARTS; p++) {
		if (!touched[p])
			continue;
		put_part(s, p, next[s], N_IDS);
		if (any(3) == 0) {
			advance();
			check(round, "half a change");
		}
	}
	put_head(s);
}

TestSuite(change, .init = setup, .fini = teardown);

Test(change, the_maps_are_right_after_any_sequence_of_changes)
{
	cr_assert_eq(pb_fake_load(fake), 0);
	put_zone(true);
	pb_fake_kube_synced(fake, PB_KUBE_SERVICE);
	pb_fake_kube_synced(fake, PB_KUBE_POD);
	pb_fake_synced(fake, PB_TOPIC_NODE_ADDRESSES);
	pb_fake_synced(fake, PB_TOPIC_BACKENDS);
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned s = any(N_SERVICES), what = any(20);

		if (what == 0 && exists[s]) {
			cr_assert_eq(pb_fake_kube(fake, PB_KUBE_DELETE,
						  &services[s][in_use[s]].s.meta),
				     0);
			exists[s] = false;
		} else if (what <= 2) {
			put_service(s, (any(3) ? 0 : PB_SERVICE_INTERNAL_LOCAL) |
					       (any(2) ? 0 : PB_SERVICE_EXTERNAL_LOCAL));
		} else if (what == 3) {
			cr_assert_eq(pb_fake_reload(fake), 0);
		} else if (what == 4) {
			pb_fake_advance_ms(fake, KPR_GRACE_MS);
		} else if (what == 5 && any(3) == 0) {
			put_zone(!has_zone);
		} else {
			change(s, round);
		}
		advance();
		check(round, "after it");
	}
	/* What was given up is free again. */
	for (unsigned s = 0; s < N_SERVICES; s++)
		if (exists[s])
			pb_fake_kube(fake, PB_KUBE_DELETE, &services[s][in_use[s]].s.meta);
	advance();
	pb_fake_advance_ms(fake, KPR_GRACE_MS + 1);
	put_service(0, 0);
	advance();
	/* One pool of each port is wanted, and what it has. */
	cr_assert_leq(pb_fake_metric(fake, "backends"), N_IDS);
	cr_assert_eq(pb_fake_metric(fake, "map_errors"), 0);
}

/* ---- what a change costs ---- */

#define LARGE 20000
#define PER_PART 100

static void large_part(unsigned part, unsigned gone)
{
	char key[64];
	struct pb_backends *v = calloc(1, sizeof(*v) + PER_PART * sizeof(v->backend[0]) + 3);

	v->size = sizeof(*v);
	for (unsigned i = 0; i < PER_PART; i++)
		if (part * PER_PART + i != gone)
			v->backend[v->n++] =
				(struct pb_backend){.addr.v4 =
							    htonl(0x0a000000 + part * PER_PART + i),
						    .port = 8080,
						    .family = 4,
						    .protocol = IPPROTO_TCP,
						    .state = PB_BACKEND_ACTIVE,
						    .port_name = 1};
	v->strings_len = 3;
	memcpy((char *)&v->backend[v->n], "\0a", 3);
	snprintf(key, sizeof(key), "ns/svc0/part%u", part);
	cr_assert_eq(pb_fake_publish(fake, PB_TOPIC_BACKENDS, PB_TOPIC_BACKENDS_VERSION, key, v,
				     sizeof(*v) + v->n * sizeof(v->backend[0]) + 3),
		     0);
	free(v);
}

static void large_head(void)
{
	static uint64_t revision;
	struct pb_backends_head head = {.size = sizeof(head),
					.revision = ++revision,
					.n_parts = LARGE / PER_PART};

	cr_assert_eq(pb_fake_publish(fake, PB_TOPIC_BACKENDS, PB_TOPIC_BACKENDS_VERSION, "ns/svc0",
				     &head, sizeof(head)),
		     0);
	advance();
}

static void load_large(void)
{
	cr_assert_eq(pb_fake_load(fake), 0);
	put_service(0, 0);
	for (unsigned part = 0; part < LARGE / PER_PART; part++)
		large_part(part, LARGE);
	large_head();
	pb_fake_kube_synced(fake, PB_KUBE_SERVICE);
	pb_fake_synced(fake, PB_TOPIC_BACKENDS);
	advance();
}

static uint64_t entries(void)
{
	return pb_fake_map_writes(fake, "kpr_services");
}

Test(change, one_slice_of_a_service_of_20000_backends_costs_one_slice)
{
	uint64_t writes, backends, frontends;

	load_large();
	cr_assert_eq(pb_fake_metric(fake, "backends"), LARGE);
	writes = pb_fake_metric(fake, "map_writes");
	backends = pb_fake_metric(fake, "backends_changed");
	frontends = entries();
	/*
	 * One pod goes: its slot takes the last backend, the slot behind the end is filled, its
	 * record is nobody's.
	 */
	large_part(77, 7742);
	large_head();
	cr_assert_eq(pb_fake_metric(fake, "backends_changed") - backends, 1);
	cr_assert_leq(pb_fake_metric(fake, "map_writes") - writes, 5);
	cr_assert_eq(entries() - frontends, 2, "the count of ClusterIP and NodePort");
	/* It comes back. */
	large_part(77, LARGE);
	large_head();
	cr_assert_eq(pb_fake_metric(fake, "backends_changed") - backends, 2);
	cr_assert_leq(pb_fake_metric(fake, "map_writes") - writes, 9);
	/* The same again: nothing. */
	writes = pb_fake_metric(fake, "map_writes");
	large_part(77, LARGE);
	large_head();
	cr_assert_eq(pb_fake_metric(fake, "map_writes"), writes);
}

Test(change, a_restart_takes_20000_backends_over_and_writes_none)
{
	uint64_t frontends;

	load_large();
	large_part(3, 301);
	large_head();
	large_part(150, 15001);
	large_head();
	frontends = entries();
	cr_assert_eq(pb_fake_reload(fake), 0);
	pb_fake_advance_ms(fake, 1000);
	cr_assert_eq(pb_fake_metric(fake, "map_writes"), 0);
	cr_assert_eq(pb_fake_metric(fake, "backends"), LARGE - 2);
	cr_assert_eq(entries(), frontends);
	/* And knows where each of them is. */
	large_part(60, 6001);
	large_head();
	cr_assert_leq(pb_fake_metric(fake, "map_writes"), 5);
}
