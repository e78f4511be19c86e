/* SPDX-License-Identifier: Apache-2.0 */
/* The node of ns_bed.h. */
#include "ns_bed.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <plugins/kpr/kpr_ns.skel.h>

struct bed bed;

void bed_shell(const char *command)
{
	cr_assert_eq(system(command), 0, "%s", command);
}

static void make_devices(void)
{
	bed_shell("exec 2>/dev/null; sysctl -qw net.ipv4.ip_forward=1 "
		  "net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0 && "
		  "ip link set lo up && ip link add up0 address 02:00:00:00:00:01 type veth peer "
		  "name up1 && "
		  "ip link add pod0 type veth peer name pod1 && "
		  "for i in up0 up1 pod0 pod1; do ip link set $i up || exit; done && "
		  "ip addr add " NODE4 "/24 dev up0 && ip addr add " NODE6 "/64 dev up0 nodad");
	bed_shell("ip neigh replace 192.168.1.2 lladdr 02:00:00:00:00:03 dev up0 && "
		  "ip neigh replace fd00:1::2 lladdr 02:00:00:00:00:03 dev up0 && "
		  "ip neigh replace 192.168.1.254 lladdr 02:00:00:00:00:fe dev up0 && "
		  "ip neigh replace fd00:1::fe lladdr 02:00:00:00:00:fe dev up0 && "
		  "ip neigh replace " POD4 " lladdr 02:00:00:00:00:99 dev pod0 && "
		  "ip neigh replace " POD6 " lladdr 02:00:00:00:00:99 dev pod0");
	bed_shell("ip route add default via 192.168.1.254 && "
		  "ip -6 route add default via fd00:1::fe && "
		  "ip route add 10.0.2.0/24 via 192.168.1.2 && "
		  "ip -6 route add fd10:2::/64 via fd00:1::2 && "
		  "ip route add " POD4 "/32 dev pod0 && ip -6 route add " POD6 "/128 dev pod0");
	bed.up = if_nametoindex("up0");
	bed.pod = if_nametoindex("pod0");
}

static void make_chains(void)
{
	static const struct {
		uint32_t hook;
		const char *slots[2], *programs[2];
	} chains[] = {
		{PB_HOOK_DEV_INGRESS,
		 {"kpr", "kpr-nat"},
		 {"kpr_dev_ingress", "kpr_nat_dev_ingress"}},
		{PB_HOOK_POD_EGRESS, {"kpr", "kpr-nat"}, {"kpr_pod_egress", "kpr_nat_pod_egress"}},
		{PB_HOOK_POD_INGRESS, {"kpr"}, {"kpr_pod_ingress"}},
		{PB_HOOK_DEV_EGRESS, {"kpr"}, {"kpr_dev_egress"}},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(chains); i++) {
		struct pb_dp_slot slots[2];
		size_t n = 0;

		for (; n < 2 && chains[i].slots[n]; n++)
			slots[n] = sandbox_slot(chains[i].hook, PB_BAND_SERVICE, bed.object,
						chains[i].slots[n], chains[i].programs[n]);
		sandbox_chain(slots, n, chains[i].hook);
	}
}

static void load(void)
{
	struct pb_map_opts maglev = {.size = sizeof(maglev),
				     .name = "kpr_maglev",
				     .max_entries = 4 * BED_MAGLEV_SIZE};
	struct pb_bpf_object opts = {.size = sizeof(opts),
				     .name = "kpr-ns",
				     .maps = &maglev,
				     .n_maps = 1};

	opts.elf = kpr_ns_bpf__elf_bytes(&opts.elf_len);
	cr_assert_eq(pb_dp_object_new(sandbox.dp, "kpr", &opts, &bed.object, &sandbox.err), 0, "%s",
		     sandbox.err.text);
	cr_assert_eq(pb_dp_object_prepare(bed.object, &sandbox.err), 0, "%s", sandbox.err.text);
}

void bed_enter(void)
{
	const struct pb_ct_settings times = {.tcp_opening = 60,
					     .tcp_established = 21600,
					     .tcp_closing = 10,
					     .other = 60};
	uint32_t zero = 0;

	sandbox_enter();
	make_devices();
	sandbox_open();
	bed = (struct bed){.up = bed.up, .pod = bed.pod, .next_id = 1, .next_backend = 1};
	load();
	make_chains();
	cr_assert_eq(bpf_map_update_elem(bed_map("pb_ct_settings"), &zero, &times, 0), 0);
	bed_settings(PB_SVC_SET_NODE_PORT, 32768, 65535);
	bed_identity(NODE4, PB_IDENTITY_HOST);
	bed_identity(NODE6, PB_IDENTITY_HOST);
}

void bed_leave(void)
{
	pb_dp_object_free(bed.object);
	sandbox_leave();
}

/* ---- maps ---- */

int bed_map(const char *name)
{
	if (strncmp(name, "pb_", 3) == 0)
		return pb_dp_core_fd(sandbox.dp, name);
	return pb_object_map(bed.object, name)->fd;
}

static uint8_t family_of(const char *text)
{
	return strchr(text, ':') ? 6 : 4;
}

union pb_addr bed_addr(const char *text)
{
	union pb_addr addr = {0};

	cr_assert_eq(inet_pton(family_of(text) == 6 ? AF_INET6 : AF_INET, text, &addr), 1, "%s",
		     text);
	return addr;
}

static void put(const char *map, const void *key, const void *value)
{
	cr_assert_eq(bpf_map_update_elem(bed_map(map), key, value, 0), 0, "%s: %s", map,
		     strerror(errno));
}

static struct pb_svc_key key_of(const struct bed_service *s)
{
	return (struct pb_svc_key){.addr = bed_addr(s->addr),
				   .port = htons(s->port),
				   .protocol = s->protocol,
				   .family = family_of(s->addr),
				   .scope = s->scope};
}

static uint32_t put_backends(const struct bed_service *s, uint32_t pool, uint32_t base)
{
	uint32_t n = 0;

	for (; n < PB_ARRAY_LEN(s->backends) && s->backends[n].addr; n++) {
		const struct bed_backend *b = &s->backends[n];
		struct pb_svc_backend record = {.addr = bed_addr(b->addr),
						.port = htons(b->port),
						.family = family_of(b->addr),
						.flags = b->local ? PB_SVC_BACKEND_LOCAL : 0,
						.pool = pool};
		struct pb_svc_slot slot = {.backend = base + n, .pool = pool};
		uint32_t at = base + n;

		put("kpr_backends", &at, &record);
		put("kpr_slots", &at, &slot);
	}
	return n;
}

static uint32_t put_maglev(uint32_t pool, uint32_t base, uint32_t count)
{
	uint32_t first = bed.next_maglev;

	for (uint32_t i = 0; i < BED_MAGLEV_SIZE; i++) {
		struct pb_svc_slot slot = {.backend = base + i % count, .pool = pool};
		uint32_t at = first + i;

		put("kpr_maglev", &at, &slot);
	}
	bed.next_maglev += BED_MAGLEV_SIZE;
	return first;
}

uint32_t bed_service(const struct bed_service *s)
{
	struct pb_svc_key key = key_of(s);
	uint32_t pool = bed.next_id + 1000, base = bed.next_backend;
	struct pb_svc svc = {.id = bed.next_id,
			     .tie = pb_svc_tie(&key, pool),
			     .base = base,
			     .flags = s->flags,
			     .room = 4,
			     .affinity_s = s->affinity_s,
			     .affinity_id = BED_AFFINITY_ID(bed.next_id),
			     .ranges = s->ranges};

	bed.next_id++;
	bed.next_backend += 4;
	svc.count = put_backends(s, pool, base);
	if (s->flags & PB_SVC_MAGLEV)
		svc.maglev = put_maglev(pool, base, svc.count);
	put("kpr_services", &key, &svc);
	return pool;
}

void bed_backend_leaves(const struct bed_service *s, uint32_t pool)
{
	struct pb_svc_key key = key_of(s);
	struct pb_svc_backend record;
	struct pb_svc svc;

	cr_assert_eq(bpf_map_lookup_elem(bed_map("kpr_services"), &key, &svc), 0);
	cr_assert_eq(bpf_map_lookup_elem(bed_map("kpr_backends"), &svc.base, &record), 0);
	cr_assert_eq(record.pool, pool);
	record.pool = 0;
	put("kpr_backends", &svc.base, &record);
	svc.base++;
	svc.count--;
	put("kpr_services", &key, &svc);
}

void bed_settings(uint32_t flags, uint16_t snat_min, uint16_t snat_max)
{
	struct pb_svc_settings settings = {.flags = flags,
					   .node4 = bed_addr(NODE4).v4,
					   .loopback4 = bed_addr(LOOPBACK4).v4,
					   .maglev_size = BED_MAGLEV_SIZE,
					   .node_port_min = 30000,
					   .node_port_max = 32767,
					   .snat_min = snat_min,
					   .snat_max = snat_max};
	union pb_addr node6 = bed_addr(NODE6);
	uint32_t zero = 0;

	memcpy(settings.node6, &node6, sizeof(node6));
	put("kpr_settings", &zero, &settings);
}

void bed_identity(const char *addr, uint32_t identity)
{
	const struct pb_ipcache_value value = {.identity = identity, .source = PB_IP_HOST};
	union pb_addr a = bed_addr(addr);

	if (family_of(addr) == 4) {
		struct pb_ipcache_key4 key = {.bits = 32, .addr = a.v4};

		put("pb_ipcache4", &key, &value);
	} else {
		struct pb_ipcache_key6 key = {.bits = 128};

		memcpy(key.addr, &a, sizeof(a));
		put("pb_ipcache6", &key, &value);
	}
}

void bed_range(uint32_t ranges, const char *addr, uint32_t bits)
{
	const uint8_t value = 1;
	union pb_addr a = bed_addr(addr);

	if (family_of(addr) == 4) {
		struct pb_svc_range4 key = {.bits = 32 + bits, .ranges = ranges, .addr = a.v4};

		put("kpr_ranges4", &key, &value);
	} else {
		struct pb_svc_range6 key = {.bits = 32 + bits, .ranges = ranges};

		memcpy(key.addr, &a, sizeof(a));
		put("kpr_ranges6", &key, &value);
	}
}

/* ---- packets ---- */

struct bed_out bed_run_packet(uint32_t hook, const struct packet *packet)
{
	static struct bed_out out;
	struct packet_ctx ctx = {
		.ifindex = hook == PB_HOOK_DEV_INGRESS || hook == PB_HOOK_DEV_EGRESS ? bed.up
										     : bed.pod};
	const char *wrong;

	memset(&out, 0, sizeof(out));
	out.verdict = sandbox_packet(hook, packet, &ctx, &out.packet);
	out.mark = ctx.mark;
	out.record = sandbox_record(hook);
	if (out.verdict != 2) {
		wrong = packet_check(packet) ? NULL : packet_check(&out.packet);
		cr_expect_null(wrong, "what comes out is wrong: %s", wrong);
		cr_assert_null(packet_read(&out.packet, &out.view));
	}
	cr_expect_eq(sandbox_counters(hook).missed, 0);
	return out;
}

struct bed_out bed_run(uint32_t hook, const struct packet_spec *spec)
{
	struct packet p;

	packet_build(&p, spec);
	return bed_run_packet(hook, &p);
}

static const char *where(const struct bed_out *out)
{
	/* Answers go back to who sent the frame. */
	static const uint8_t sender_mac[] = {2, 0, 0, 0, 0, 2}, far_mac[] = {2, 0, 0, 0, 0, 3},
			     gw_mac[] = {2, 0, 0, 0, 0, 0xfe}, pod_mac[] = {2, 0, 0, 0, 0, 0x99};

	if (out->verdict == -1)
		return out->mark & PB_MARK_TRANSLATED ? "pass translated" : "pass";
	if (out->record.redirect_kind == PB_REDIRECT_NEIGH)
		return "neighbour unknown";
	if (out->record.redirect_kind != PB_REDIRECT_EGRESS || !(out->mark & PB_MARK_TRANSLATED))
		return "wrong";
	if (out->record.redirect_ifindex == bed.pod && memcmp(out->view.dmac, pod_mac, 6) == 0)
		return "to the pod";
	if (out->record.redirect_ifindex == bed.up &&
	    (memcmp(out->view.dmac, far_mac, 6) == 0 || memcmp(out->view.dmac, sender_mac, 6) == 0))
		return "to the node";
	if (out->record.redirect_ifindex == bed.up && memcmp(out->view.dmac, gw_mac, 6) == 0)
		return "to the world";
	return "wrong";
}

const char *bed_show(const struct bed_out *out)
{
	static char text[400];
	const struct packet_ip *ip = &out->view.ip;

	if (out->verdict == 2)
		snprintf(text, sizeof(text), "dropped %u", out->record.reason);
	else if (out->view.has_quote)
		snprintf(text, sizeof(text), "%s > %s error %u/%u about %s %u > %s %u %s", ip->src,
			 ip->dst, ip->icmp_type, ip->icmp_code, out->view.quote.src,
			 out->view.quote.sport, out->view.quote.dst, out->view.quote.dport,
			 where(out));
	else if (ip->tcp_flags & PACKET_RST)
		snprintf(text, sizeof(text), "%s %u > %s %u reset %s", ip->src, ip->sport, ip->dst,
			 ip->dport, where(out));
	else
		snprintf(text, sizeof(text), "%s %u > %s %u %s", ip->src, ip->sport, ip->dst,
			 ip->dport, where(out));
	return text;
}

/* ---- conntrack ---- */

static struct pb_ct_key ct_key(const char *saddr, uint16_t sport, const char *daddr, uint16_t dport,
			       uint8_t protocol)
{
	return (struct pb_ct_key){.saddr = bed_addr(saddr),
				  .daddr = bed_addr(daddr),
				  .sport = htons(sport),
				  .dport = htons(dport),
				  .protocol = protocol,
				  .family = family_of(saddr),
				  .zone = PB_CT_ZONE_SERVICE};
}

bool bed_ct(const char *saddr, uint16_t sport, const char *daddr, uint16_t dport, uint8_t protocol,
	    struct pb_ct *ret_ct)
{
	struct pb_ct_key key = ct_key(saddr, sport, daddr, dport, protocol);
	struct pb_ct ct;

	return bpf_map_lookup_elem(bed_map("pb_ct"), &key, ret_ct ? ret_ct : &ct) == 0;
}

void bed_ct_set(const char *saddr, uint16_t sport, const char *daddr, uint16_t dport,
		uint8_t protocol, const struct pb_ct *ct)
{
	struct pb_ct_key key = ct_key(saddr, sport, daddr, dport, protocol);

	put("pb_ct", &key, ct);
}

uint32_t bed_ct_count(void)
{
	struct pb_ct_key key, next;
	uint32_t n = 0;
	int rc = bpf_map_get_next_key(bed_map("pb_ct"), NULL, &next);

	for (; rc == 0; n++) {
		key = next;
		rc = bpf_map_get_next_key(bed_map("pb_ct"), &key, &next);
	}
	return n;
}

struct pb_ct_stats bed_ct_stats(void)
{
	int n = libbpf_num_possible_cpus();
	struct pb_ct_stats values[n], sum = {0};
	uint32_t zero = 0;

	cr_assert_eq(bpf_map_lookup_elem(bed_map("pb_ct_stats"), &zero, values), 0);
	for (int cpu = 0; cpu < n; cpu++) {
		sum.created += values[cpu].created;
		sum.full += values[cpu].full;
		sum.no_port += values[cpu].no_port;
		sum.collisions += values[cpu].collisions;
	}
	return sum;
}

uint32_t bed_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint32_t)ts.tv_sec;
}
