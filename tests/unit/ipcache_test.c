/* SPDX-License-Identifier: Apache-2.0 */
/* Claims to addresses, and what the maps hold of them. The maps are this file's. */
#include <criterion/criterion.h>

#include <arpa/inet.h>

#include <node/ipcache.h>

#define MAP_MAX 64

static struct {
	struct pb_cidr prefix;
	struct pb_ipcache_value value;
	bool used;
} map[MAP_MAX];
static unsigned writes, dels;
static int refuse;
static struct pb_ipcache *cache;

static struct pb_cidr prefix_of(const char *text)
{
	struct pb_cidr prefix = {.family = strchr(text, ':') ? 6 : 4};
	char addr[64];
	unsigned bits = prefix.family == 6 ? 128 : 32;

	cr_assert_geq(sscanf(text, "%63[^/]/%u", addr, &bits), 1);
	cr_assert_eq(inet_pton(prefix.family == 6 ? AF_INET6 : AF_INET, addr, prefix.addr.bytes),
		     1);
	prefix.bits = (uint8_t)bits;
	return prefix;
}

static size_t find(const struct pb_cidr *prefix)
{
	for (size_t i = 0; i < MAP_MAX; i++)
		if (map[i].used && memcmp(&map[i].prefix, prefix, sizeof(*prefix)) == 0)
			return i;
	return MAP_MAX;
}

static int map_put(void *arg, const struct pb_cidr *prefix, const struct pb_ipcache_value *value)
{
	size_t i = find(prefix);

	(void)arg;
	if (refuse)
		return refuse;
	for (size_t k = 0; i == MAP_MAX && k < MAP_MAX; k++)
		i = map[k].used ? MAP_MAX : k;
	cr_assert_lt(i, MAP_MAX);
	map[i].prefix = *prefix;
	map[i].value = *value;
	map[i].used = true;
	writes++;
	return 0;
}

static int map_del(void *arg, const struct pb_cidr *prefix)
{
	size_t i = find(prefix);

	(void)arg;
	dels++;
	if (i == MAP_MAX)
		return -ENOENT;
	map[i].used = false;
	return 0;
}

/* What the map says of exactly this prefix; 0: nothing. */
static uint32_t in_map(const char *text)
{
	struct pb_cidr prefix = prefix_of(text);
	size_t i = find(&prefix);

	return i == MAP_MAX ? 0 : map[i].value.identity;
}

static void setup_max(uint32_t max)
{
	const struct pb_ipcache_env env = {.put = map_put, .del = map_del, .max = {max, max}};

	cr_assert_eq(pb_ipcache_new(&env, &cache), 0);
}

static void setup(void)
{
	setup_max(1000);
}

static void teardown(void)
{
	pb_ipcache_free(cache);
}

static void claim_ranked(struct pb_ip_claim *claim, const char *text, uint8_t source,
			 uint32_t identity, uint8_t rank)
{
	struct pb_cidr prefix = prefix_of(text);
	const struct pb_ip_says says = {.identity = identity,
					.source = source,
					.rank = rank,
					.who = ""};

	cr_assert_eq(pb_ipcache_claim(cache, claim, &prefix, &says), 0);
}

static void claim(struct pb_ip_claim *c, const char *text, uint8_t source, uint32_t identity)
{
	claim_ranked(c, text, source, identity, 0);
}

static void adopt(const char *text, uint8_t source, uint32_t identity)
{
	struct pb_cidr prefix = prefix_of(text);
	const struct pb_ipcache_value value = {.identity = identity, .source = source};

	cr_assert_eq(map_put(NULL, &prefix, &value), 0);
	cr_assert_eq(pb_ipcache_adopt(cache, &prefix, &value), 0);
	writes = 0;
}

static void sweep(bool ranges)
{
	while (pb_ipcache_sweep(cache, ranges, 1))
		;
}

TestSuite(ipcache, .init = setup, .fini = teardown);

/* Every pair of sources, in both orders of coming and going. */
Test(ipcache, I17_I18_precedence)
{
	for (uint8_t low = PB_IP_CIDR; low < PB_IP_HOST; low++)
		for (uint8_t high = low + 1; high <= PB_IP_HOST; high++)
			for (int high_first = 0; high_first < 2; high_first++) {
				struct pb_ip_claim a = {0}, b = {0};

				if (high_first)
					claim(&b, "10.0.0.1", high, 300U + high);
				claim(&a, "10.0.0.1", low, 300U + low);
				if (!high_first)
					claim(&b, "10.0.0.1", high, 300U + high);
				cr_expect_eq(in_map("10.0.0.1"), 300U + high, "%u over %u", high,
					     low);
				pb_ipcache_unclaim(cache, &b);
				cr_expect_eq(in_map("10.0.0.1"), 300U + low, "%u under %u", low,
					     high);
				pb_ipcache_unclaim(cache, &a);
				cr_expect_eq(in_map("10.0.0.1"), 0);
			}
}

Test(ipcache, I17_another_kubelet_takes_no_address_of_an_endpoint)
{
	struct pb_ip_claim endpoint = {0}, node = {0};

	claim(&endpoint, "10.0.0.1", PB_IP_LOCAL_POD, 300);
	claim(&node, "10.0.0.1", PB_IP_REMOTE_NODE, PB_IDENTITY_REMOTE_NODE);
	cr_expect_eq(in_map("10.0.0.1"), 300);
	pb_ipcache_unclaim(cache, &endpoint);
	cr_expect_eq(in_map("10.0.0.1"), PB_IDENTITY_REMOTE_NODE);
	pb_ipcache_unclaim(cache, &node);
}

Test(ipcache, I18_a_weaker_claim_that_changes_underneath)
{
	struct pb_ip_claim pod = {0}, host = {0};

	claim(&host, "fd00::1", PB_IP_HOST, 1);
	claim(&pod, "fd00::1", PB_IP_POD, 300);
	claim(&pod, "fd00::1", PB_IP_POD, 301);
	cr_expect_eq(writes, 1, "what isn't seen isn't written");
	pb_ipcache_unclaim(cache, &host);
	cr_expect_eq(in_map("fd00::1"), 301);
	pb_ipcache_unclaim(cache, &pod);
}

Test(ipcache, I19_two_pods_with_one_address)
{
	struct pb_ip_claim pending = {0}, running = {0}, later = {0};

	claim_ranked(&running, "10.0.0.1", PB_IP_POD, 300, 1);
	claim_ranked(&pending, "10.0.0.1", PB_IP_POD, 301, 0);
	cr_expect_eq(in_map("10.0.0.1"), 300, "the one that runs");
	claim_ranked(&later, "10.0.0.1", PB_IP_POD, 302, 1);
	cr_expect_eq(in_map("10.0.0.1"), 302, "of those that run the later one");
	claim_ranked(&running, "10.0.0.1", PB_IP_POD, 303, 1);
	cr_expect_eq(in_map("10.0.0.1"), 302, "a change of the earlier one makes it no later");
	claim_ranked(&later, "10.0.0.1", PB_IP_POD, 302, 0);
	cr_expect_eq(in_map("10.0.0.1"), 303);
	pb_ipcache_unclaim(cache, &running);
	cr_expect_eq(in_map("10.0.0.1"), 302);
	pb_ipcache_unclaim(cache, &pending);
	pb_ipcache_unclaim(cache, &later);
	cr_expect_eq(in_map("10.0.0.1"), 0);
}

Test(ipcache, prefixes_of_different_length_are_different_entries)
{
	struct pb_ip_claim wide = {0}, narrow = {0};

	claim(&wide, "10.0.0.0/8", PB_IP_CIDR, 400);
	claim(&narrow, "10.0.0.0/16", PB_IP_CIDR, 401);
	cr_expect_eq(in_map("10.0.0.0/8"), 400);
	cr_expect_eq(in_map("10.0.0.0/16"), 401);
	pb_ipcache_unclaim(cache, &wide);
	cr_expect_eq(in_map("10.0.0.0/16"), 401);
	pb_ipcache_unclaim(cache, &narrow);
}

Test(ipcache, a_claim_moves_to_another_prefix)
{
	struct pb_ip_claim c = {0};

	claim(&c, "10.0.0.1", PB_IP_POD, 300);
	claim(&c, "10.0.0.2", PB_IP_POD, 300);
	cr_expect_eq(in_map("10.0.0.1"), 0);
	cr_expect_eq(in_map("10.0.0.2"), 300);
	pb_ipcache_unclaim(cache, &c);
	pb_ipcache_unclaim(cache, &c);
	cr_expect_eq(dels, 2, "a claim taken back twice is taken back once");
}

/* ---- a restart ---- */

Test(ipcache, I28_adopted_entries)
{
	struct pb_ip_claim same = {0}, other = {0};

	adopt("10.0.0.1", PB_IP_POD, 300);
	adopt("10.0.0.2", PB_IP_POD, 301);
	adopt("10.0.0.3", PB_IP_POD, 302);
	claim(&same, "10.0.0.1", PB_IP_POD, 300);
	cr_expect_eq(writes, 0, "equal: not written again");
	claim(&other, "10.0.0.2", PB_IP_POD, 305);
	cr_expect_eq(in_map("10.0.0.2"), 305);
	cr_expect_eq(in_map("10.0.0.3"), 302, "unclaimed: stays until the sweep");
	sweep(false);
	cr_expect_eq(in_map("10.0.0.1"), 300);
	cr_expect_eq(in_map("10.0.0.2"), 305);
	cr_expect_eq(in_map("10.0.0.3"), 0);
	pb_ipcache_unclaim(cache, &same);
	pb_ipcache_unclaim(cache, &other);
}

Test(ipcache, I25_who_is_not_known_yet_leaves_an_adopted_entry)
{
	struct pb_ip_claim pod = {0}, fresh = {0};

	adopt("10.0.0.1", PB_IP_POD, 300);
	claim(&pod, "10.0.0.1", PB_IP_POD, PB_IDENTITY_INIT);
	claim(&fresh, "10.0.0.2", PB_IP_POD, PB_IDENTITY_INIT);
	cr_expect_eq(in_map("10.0.0.1"), 300);
	cr_expect_eq(in_map("10.0.0.2"), PB_IDENTITY_INIT);
	sweep(false);
	cr_expect_eq(in_map("10.0.0.1"), PB_IDENTITY_INIT, "with the full view it is over");
	pb_ipcache_unclaim(cache, &pod);
	pb_ipcache_unclaim(cache, &fresh);
}

Test(ipcache, I29_ranges_are_swept_on_their_own)
{
	adopt("10.0.0.0/8", PB_IP_CIDR, 400);
	adopt("10.0.0.1", PB_IP_POD, 300);
	sweep(false);
	cr_expect_eq(in_map("10.0.0.0/8"), 400);
	cr_expect_eq(in_map("10.0.0.1"), 0);
	sweep(true);
	cr_expect_eq(in_map("10.0.0.0/8"), 0);
}

Test(ipcache, I32_frozen)
{
	struct pb_ip_claim c = {0};

	claim(&c, "10.0.0.1", PB_IP_POD, 300);
	pb_ipcache_freeze(cache);
	pb_ipcache_unclaim(cache, &c);
	cr_expect_eq(in_map("10.0.0.1"), 300);
}

/* ---- no room ---- */

Test(ipcache, I30_a_full_map_keeps_what_it_has)
{
	struct pb_ip_claim claims[4] = {0}, six = {0};
	struct pb_ipcache_counts counts;

	teardown();
	setup_max(3);
	claim(&claims[0], "10.0.0.1", PB_IP_POD, 300);
	claim(&claims[1], "10.0.0.2", PB_IP_POD, 301);
	claim(&claims[2], "10.0.0.3", PB_IP_POD, 302);
	claim(&claims[3], "10.0.0.4", PB_IP_POD, 303);
	claim(&six, "fd00::1", PB_IP_POD, 304);
	counts = pb_ipcache_count(cache);
	cr_expect_eq(counts.entries[0], 2, "one place stays free for replacing");
	cr_expect_eq(counts.waiting, 2);
	cr_expect_eq(counts.error, -ENOSPC);
	cr_expect_eq(in_map("fd00::1"), 304, "the other family has room");
	claim(&claims[0], "10.0.0.1", PB_IP_POD, 310);
	cr_expect_eq(in_map("10.0.0.1"), 310, "what is in it can change");
	cr_expect_not(pb_ipcache_retry(cache, 10));
	cr_expect_not(pb_ipcache_written(&claims[2]));
	/* One goes, one comes in. */
	pb_ipcache_unclaim(cache, &claims[0]);
	cr_expect(pb_ipcache_retry(cache, 1) || pb_ipcache_retry(cache, 1));
	cr_expect_eq(pb_ipcache_count(cache).waiting, 1);
	/* One that waits goes. */
	pb_ipcache_unclaim(cache, &claims[2]);
	pb_ipcache_unclaim(cache, &claims[3]);
	pb_ipcache_retry(cache, 10);
	cr_expect_eq(pb_ipcache_count(cache).waiting, 0);
	cr_expect_eq(pb_ipcache_count(cache).error, 0);
	pb_ipcache_unclaim(cache, &claims[1]);
	pb_ipcache_unclaim(cache, &six);
	cr_expect_eq(pb_ipcache_count(cache).entries[0], 0);
}

Test(ipcache, I30_the_kernel_has_no_memory)
{
	struct pb_ip_claim c = {0};

	claim(&c, "10.0.0.1", PB_IP_POD, 300);
	refuse = -ENOMEM;
	claim(&c, "10.0.0.1", PB_IP_POD, 301);
	cr_expect_eq(in_map("10.0.0.1"), 300, "the last good state stays");
	cr_expect_eq(pb_ipcache_count(cache).waiting, 1);
	refuse = 0;
	pb_ipcache_retry(cache, 10);
	cr_expect_eq(in_map("10.0.0.1"), 301);
	pb_ipcache_unclaim(cache, &c);
}

/* ---- lists and prefixes ---- */

Test(ipcache, lists_go_on_behind_an_entry_that_went)
{
	struct pb_ip_claim claims[3] = {0};
	struct pb_ip_row row, next;

	claim(&claims[0], "10.0.0.1", PB_IP_POD, 300);
	claim(&claims[1], "10.0.0.2", PB_IP_POD, 301);
	claim(&claims[2], "10.0.0.3", PB_IP_POD, 302);
	cr_assert(pb_ipcache_next(cache, NULL, 0, &row));
	cr_expect_eq(row.value.identity, 300);
	cr_assert(pb_ipcache_next(cache, &row.prefix, row.seq, &row));
	cr_expect_eq(row.value.identity, 301);
	pb_ipcache_unclaim(cache, &claims[1]);
	cr_assert(pb_ipcache_next(cache, &row.prefix, row.seq, &next));
	cr_expect_eq(next.value.identity, 302);
	cr_expect_not(pb_ipcache_next(cache, &next.prefix, next.seq, &row));
	pb_ipcache_unclaim(cache, &claims[0]);
	pb_ipcache_unclaim(cache, &claims[2]);
}

Test(ipcache, which_prefixes_are_valid)
{
	static const struct {
		const char *text;
		uint8_t bits;
		bool valid;
	} cases[] = {
		{"0.0.0.0", 0, true},	 {"10.0.0.0", 8, true},	  {"10.0.0.1", 8, false},
		{"10.0.0.1", 32, true},	 {"10.0.0.1", 33, false}, {"::", 0, true},
		{"fd00::", 8, true},	 {"fd00::1", 127, false}, {"fd00::1", 128, true},
		{"fd00::1", 129, false},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_cidr prefix = prefix_of(cases[i].text);

		prefix.bits = cases[i].bits;
		cr_expect_eq(pb_cidr_valid(&prefix), cases[i].valid, "%s/%u", cases[i].text,
			     cases[i].bits);
	}
	cr_expect_not(pb_cidr_valid(&(struct pb_cidr){.family = 0}));
	cr_expect_not(pb_cidr_valid(&(struct pb_cidr){.addr.bytes = {10, 0, 0, 0, 1},
						      .family = 4,
						      .bits = 8}),
		      "bits behind an IPv4 address");
}
