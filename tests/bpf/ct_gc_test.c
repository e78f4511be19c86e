/* SPDX-License-Identifier: Apache-2.0 */
/* The clean-up of expired flows and what the commands do, on a real map that is filled by batch. */
#include "sandbox.h"

#include <arpa/inet.h>
#include <pthread.h>

#include <datapath/ct_private.h>

static int fd = -1; /* pb_ct */

static void set_up(void)
{
	sandbox_enter();
	sandbox.config.datapath.ct_tcp_established = 21600;
	sandbox.config.datapath.ct_tcp_opening = 60;
	sandbox.config.datapath.ct_tcp_closing = 10;
	sandbox.config.datapath.ct_other = 61;
	sandbox_open();
	fd = pb_dp_core_fd(sandbox.dp, "pb_ct");
	cr_assert_geq(fd, 0);
}

TestSuite(ct, .init = set_up, .fini = sandbox_leave, .timeout = 60);

#define NOW 1000
#define LATER 2000 /* alive at NOW */
#define BEFORE 999 /* expired */

struct flow {
	struct pb_ct_key keys[2]; /* of the client's packets, of the answers */
	struct pb_ct values[2];
};

/* Client 10.x.y.z:1000 to 10.96.0.1:80, sent on from the node 192.168.0.1:PORT to 10.1.0.9:8080. */
static struct flow flow(uint32_t number)
{
	const __be32 client = htonl(0x0a000000 | number / 1000), node = htonl(0xc0a80001);
	const __be32 frontend = htonl(0x0a600001);
	const __be32 backend = htonl(0x0a010000 | (number / 60000 + 1));
	const __be16 cport = htons((uint16_t)(1000 + number % 1000));
	const __be16 nport = htons((uint16_t)(1024 + number % 60000));
	struct flow f = {
		.keys[0] = {.saddr.v4 = client,
			    .daddr.v4 = frontend,
			    .sport = cport,
			    .dport = htons(80),
			    .protocol = IPPROTO_TCP,
			    .family = 4},
		.keys[1] = {.saddr.v4 = backend,
			    .daddr.v4 = node,
			    .sport = htons(8080),
			    .dport = nport,
			    .protocol = IPPROTO_TCP,
			    .family = 4},
		.values[0] = {.saddr.v4 = node,
			      .daddr.v4 = backend,
			      .sport = nport,
			      .dport = htons(8080),
			      .flags = PB_CT_SNAT,
			      .frontend = 7,
			      .backend = number},
		.values[1] = {.saddr.v4 = frontend,
			      .daddr.v4 = client,
			      .sport = htons(80),
			      .dport = cport,
			      .flags = PB_CT_SNAT | PB_CT_REPLY,
			      .frontend = 7,
			      .backend = number},
	};

	return f;
}

static void put(const struct pb_ct_key *key, struct pb_ct value, uint32_t expires)
{
	value.expires = expires;
	cr_assert_eq(bpf_map_update_elem(fd, key, &value, BPF_NOEXIST), 0);
}

static void put_flow(uint32_t number, uint32_t expires, uint32_t expires_reply)
{
	struct flow f = flow(number);

	put(&f.keys[0], f.values[0], expires);
	put(&f.keys[1], f.values[1], expires_reply);
}

/* Bit 0: the client's half is there, bit 1: that of the answers. */
static int there(uint32_t number)
{
	struct flow f = flow(number);
	struct pb_ct ct;

	return (bpf_map_lookup_elem(fd, &f.keys[0], &ct) == 0) |
	       (bpf_map_lookup_elem(fd, &f.keys[1], &ct) == 0) << 1;
}

/* Flows `from` to `to` - 1 with a few system calls. */
static void fill(uint32_t from, uint32_t to, uint32_t expires)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	uint32_t n = (to - from) * 2, done = n;
	PB_FREE struct pb_ct_key *keys = calloc(n, sizeof(*keys));
	PB_FREE struct pb_ct *values = calloc(n, sizeof(*values));

	cr_assert(keys && values);
	for (uint32_t i = 0; i < n; i++) {
		struct flow f = flow(from + i / 2);

		keys[i] = f.keys[i % 2];
		values[i] = f.values[i % 2];
		values[i].expires = expires;
	}
	cr_assert_eq(bpf_map_update_batch(fd, keys, values, &done, &opts), 0);
	cr_assert_eq(done, n);
}

static struct pb_ct_gc gc(bool by_key)
{
	struct pb_ct_walk walk = {.fd = fd, .max_entries = PB_CT_MAX, .by_key = by_key};
	struct pb_ct_gc result;

	cr_assert_eq(pb_ct_gc_run(&walk, NOW, &result), 0);
	return result;
}

static int count_chunk(void *arg, const struct pb_ct_key *keys, const struct pb_ct *values,
		       uint32_t n)
{
	(void)keys;
	(void)values;
	*(uint32_t *)arg += n;
	return 0;
}

static uint32_t count(void)
{
	struct pb_ct_walk walk = {.fd = fd, .max_entries = PB_CT_MAX};
	uint32_t n = 0;

	cr_assert_eq(pb_ct_walk(&walk, count_chunk, &n), 0);
	return n;
}

/* ---- what goes and what stays ---- */

Test(ct, a_flow_goes_when_both_halves_have_expired_and_never_by_half)
{
	for (int by_key = 0; by_key < 2; by_key++) {
		struct pb_ct_gc result;

		put_flow(1, BEFORE, BEFORE);
		put_flow(2, BEFORE, LATER);
		put_flow(3, LATER, BEFORE);
		put_flow(4, LATER, LATER);
		put_flow(5, NOW, NOW);
		result = gc(by_key);
		cr_expect_eq(there(1), 0);
		cr_expect_eq(there(2), 3, "its answers go on");
		cr_expect_eq(there(3), 3);
		cr_expect_eq(there(4), 3);
		cr_expect_eq(there(5), 3, "an entry lives in its last second");
		cr_expect_eq(result.deleted, 2);
		cr_expect_eq(result.orphans, 0);
		cr_expect_eq(result.kept, 8);
		cr_expect_not(result.incomplete);
		for (uint32_t i = 2; i < 6; i++) {
			struct flow f = flow(i);

			bpf_map_delete_elem(fd, &f.keys[0]);
			bpf_map_delete_elem(fd, &f.keys[1]);
		}
	}
}

Test(ct, a_half_without_its_pair_goes_when_it_has_expired_and_is_counted)
{
	struct flow a = flow(1), b = flow(2), c = flow(3), single = flow(4);
	struct pb_ct_gc result;

	put(&a.keys[0], a.values[0], BEFORE);
	put(&b.keys[1], b.values[1], BEFORE);
	put(&c.keys[0], c.values[0], LATER);
	single.values[0].flags = PB_CT_SINGLE;
	put(&single.keys[0], single.values[0], BEFORE);
	result = gc(false);
	cr_expect_eq(there(1) + there(2) + there(4), 0);
	cr_expect_eq(there(3), 1);
	cr_expect_eq(result.deleted, 3);
	cr_expect_eq(result.orphans, 2, "one that never had a pair is none");
}

Test(ct, a_pair_is_looked_for_in_its_own_zone_family_and_protocol)
{
	struct flow f = flow(1), other = flow(1);
	struct pb_ct_gc result;

	/* a living entry that would be the pair, were it not of another zone */
	put(&f.keys[0], f.values[0], BEFORE);
	other.keys[1].zone = PB_CT_ZONE_EGRESS;
	put(&other.keys[1], other.values[1], LATER);
	result = gc(false);
	cr_expect_eq(result.deleted, 1);
	cr_expect_eq(count(), 1);
}

Test(ct, icmp_and_ipv6_flows_pair_alike)
{
	struct pb_ct_key key = {.family = 6, .protocol = IPPROTO_ICMPV6, .sport = 5, .dport = 5};
	struct pb_ct ct = {.sport = 9, .dport = 9, .expires = BEFORE};
	struct pb_ct_key pair;
	struct pb_ct back;

	inet_pton(AF_INET6, "fd00::1", &key.saddr);
	inet_pton(AF_INET6, "fd00::f", &key.daddr);
	inet_pton(AF_INET6, "fd01::1", &ct.saddr);
	inet_pton(AF_INET6, "fd00::9", &ct.daddr);
	pair = pb_ct_pair(&key, &ct);
	back = (struct pb_ct){.saddr = key.daddr,
			      .daddr = key.saddr,
			      .sport = key.dport,
			      .dport = key.sport,
			      .flags = PB_CT_REPLY};
	key = pb_ct_pair(&pair, &back);
	put(&key, ct, BEFORE);
	put(&pair, back, LATER);
	cr_expect_eq(gc(false).deleted, 0);
	cr_expect_eq(count(), 2);
}

/* ---- many ---- */

/* Of this thread: what else the machine does doesn't count. */
static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

Test(ct, a_hundred_thousand_entries_are_cleaned_up_in_bounded_time)
{
	struct pb_ct_gc result;
	uint64_t start, took;

	fill(0, 20000, BEFORE);
	fill(20000, 50000, LATER);
	start = cpu_ns();
	result = gc(false);
	took = cpu_ns() - start;
	cr_expect_eq(result.kept, 60000);
	cr_expect_eq(result.deleted, 40000);
	cr_expect_eq(result.orphans, 0);
	cr_expect_eq(count(), 60000);
	cr_log_info("100,000 entries, 40,000 expired: %llu us", (unsigned long long)(took / 1000));
	cr_expect_lt(took, 2000000000ULL, "took %llu ms", (unsigned long long)(took / 1000000));
	fill(0, 20000, LATER);
	start = cpu_ns();
	result = gc(false);
	took = cpu_ns() - start;
	cr_expect_eq(result.kept, 100000);
	cr_log_info("100,000 entries, none expired: %llu us", (unsigned long long)(took / 1000));
	cr_expect_lt(took, 500000000ULL, "took %llu ms", (unsigned long long)(took / 1000000));
}

static atomic_bool churn_ends;

/* Puts and deletes flows all the time, so that a walk by keys meets keys that are gone. */
static void *churn(void *arg)
{
	(void)arg;
	for (uint32_t i = 0; !atomic_load(&churn_ends); i++) {
		struct flow f = flow(100000 + i % 3000);

		f.values[0].expires = LATER;
		bpf_map_update_elem(fd, &f.keys[0], &f.values[0], BPF_ANY);
		f = flow(100000 + (i + 1500) % 3000);
		bpf_map_delete_elem(fd, &f.keys[0]);
	}
	return NULL;
}

Test(ct, a_walk_ends_while_flows_come_and_go_and_takes_no_absence_for_granted)
{
	struct pb_ct_gc by_batch, by_key;
	pthread_t thread;

	fill(0, 5000, LATER);
	cr_assert_eq(pthread_create(&thread, NULL, churn, NULL), 0);
	for (int i = 0; i < 5; i++) {
		by_batch = gc(false);
		cr_expect_not(by_batch.incomplete);
		cr_expect_geq(by_batch.seen, 10000, "what is there all the time is seen");
		cr_expect_eq(by_batch.deleted, 0);
		by_key = gc(true);
		cr_expect_eq(by_key.deleted, 0, "all of them live, seen or not");
	}
	atomic_store(&churn_ends, true);
	pthread_join(thread, NULL);
	cr_expect_geq(count(), 10000);
}

static bool has_expired(const struct pb_ct_key *key)
{
	struct pb_ct ct;

	return bpf_map_lookup_elem(fd, key, &ct) < 0 || ct.expires < NOW;
}

static bool insert(const struct pb_ct_key *key, const struct pb_ct *ct)
{
	return bpf_map_update_elem(fd, key, ct, BPF_NOEXIST) == 0;
}

static void take_back(const struct flow *f)
{
	bpf_map_delete_elem(fd, &f->keys[0]);
	bpf_map_delete_elem(fd, &f->keys[1]);
}

/* The answers' half first; one of a flow that has expired makes room. */
static void begin(const struct flow *f)
{
	if (!insert(&f->keys[1], &f->values[1])) {
		if (!has_expired(&f->keys[1]) || !has_expired(&f->keys[0]))
			return;
		take_back(f);
		if (!insert(&f->keys[1], &f->values[1]))
			return;
	}
	if (!insert(&f->keys[0], &f->values[0]))
		bpf_map_delete_elem(fd, &f->keys[1]);
}

/* As programs do it. An entry is used in place, which a deletion meanwhile makes vain. */
static void *use_flows(void *arg)
{
	uint32_t seed = *(const uint32_t *)arg;

	while (!atomic_load(&churn_ends)) {
		struct flow f;
		struct pb_ct ct;

		seed = seed * 1103515245 + 12345;
		f = flow(seed >> 8 & 7);
		f.values[0].expires = f.values[1].expires = seed >> 16 & 1 ? BEFORE : LATER;
		if (bpf_map_lookup_elem(fd, &f.keys[0], &ct) < 0) {
			begin(&f);
		} else if (seed >> 17 & 1) {
			bpf_map_update_elem(fd, &f.keys[0], &f.values[0], BPF_EXIST);
			bpf_map_update_elem(fd, &f.keys[1], &f.values[1], BPF_EXIST);
		} else if (has_expired(&f.keys[0]) && has_expired(&f.keys[1])) {
			take_back(&f);
			begin(&f);
		}
	}
	return NULL;
}

Test(ct, a_flow_is_never_left_by_half_while_it_is_used_and_cleaned_up)
{
	struct pb_ct_gc result;
	uint64_t deleted = 0;
	uint32_t seed = 4711;
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, use_flows, &seed), 0);
	for (int i = 0; i < 1000; i++) {
		result = gc(false);
		deleted += result.deleted;
	}
	atomic_store(&churn_ends, true);
	pthread_join(thread, NULL);
	cr_expect_gt(deleted, 100, "only %llu", (unsigned long long)deleted);
	for (uint32_t i = 0; i < 64; i++)
		cr_expect(there(i) == 0 || there(i) == 3, "flow %u: half %d", i, there(i));
}

Test(ct, what_lost_its_pair_while_it_was_begun_goes_too)
{
	struct flow alone = flow(1), whole = flow(2), gone = flow(3), single = flow(4);
	const struct pb_ct_key keys[] = {alone.keys[0], whole.keys[0], gone.keys[0],
					 single.keys[0]};

	put(&alone.keys[0], alone.values[0], LATER);
	put_flow(2, LATER, LATER);
	single.values[0].flags |= PB_CT_SINGLE;
	put(&single.keys[0], single.values[0], LATER);
	cr_assert_eq(pb_ct_repair(fd, keys, PB_ARRAY_LEN(keys)), 0);
	cr_expect_eq(there(1), 0);
	cr_expect_eq(there(2), 3);
	cr_expect_eq(there(3), 0);
	cr_expect_eq(there(4), 1);
}

Test(ct, a_port_that_another_client_took_meanwhile_stays_his)
{
	struct flow was = flow(1), is = flow(1), quiet = flow(2);
	struct pb_ct_doomed doomed = {.fd = fd};
	struct pb_ct ct = {0};

	put_flow(2, 0, 0);
	put_flow(1, 0, 0);
	cr_assert_eq(pb_ct_doom(&doomed, &was.keys[0], &was.values[0], &was.keys[1]), 0);
	cr_assert_eq(pb_ct_doom(&doomed, &quiet.keys[1], &quiet.values[1], &quiet.keys[0]), 0);
	/* A program reclaims the port, for a client with another address. */
	cr_assert_eq(bpf_map_delete_elem(fd, &was.keys[0]), 0);
	cr_assert_eq(bpf_map_delete_elem(fd, &was.keys[1]), 0);
	is.keys[0].saddr.v4 ^= htonl(1U << 30);
	is.values[1].daddr.v4 ^= htonl(1U << 30);
	put(&is.keys[1], is.values[1], LATER);
	put(&is.keys[0], is.values[0], LATER);
	cr_assert_eq(pb_ct_doomed_end(&doomed), 0);
	cr_expect_eq(doomed.deleted, 2);
	cr_expect_eq(there(2), 0);
	cr_expect_eq(bpf_map_lookup_elem(fd, &is.keys[0], &ct), 0);
	cr_expect_eq(bpf_map_lookup_elem(fd, &is.keys[1], &ct), 0);
	cr_expect_eq(ct.expires, LATER);
}

/* Deletes the key that the walk stands on: the kernel sends it back to the start. */
static int pull_the_rug(void *arg, const struct pb_ct_key *keys, const struct pb_ct *values,
			uint32_t n)
{
	(void)values;
	cr_assert_eq(bpf_map_delete_elem(fd, &keys[n - 1]), 0);
	cr_assert_eq(bpf_map_update_elem(fd, &keys[n - 1], &(struct pb_ct){.expires = LATER},
					 BPF_ANY),
		     0);
	++*(uint32_t *)arg;
	return 0;
}

static int pull_away(void *arg, const struct pb_ct_key *keys, const struct pb_ct *values,
		     uint32_t n)
{
	struct flow f = flow(500000 + *(uint32_t *)arg);

	(void)values;
	++*(uint32_t *)arg;
	/* One goes, another one comes: the map stays as full. */
	cr_assert_eq(bpf_map_delete_elem(fd, &keys[n - 1]), 0);
	cr_assert_eq(bpf_map_update_elem(fd, &f.keys[0], &f.values[0], BPF_ANY), 0);
	return 0;
}

Test(ct, a_walk_by_keys_that_is_sent_back_again_and_again_is_given_up_and_says_so)
{
	/* max_entries as of a small map: the walk may read four times as many */
	struct pb_ct_walk walk = {.fd = fd, .max_entries = 10000, .by_key = true};
	uint32_t chunks = 0;

	fill(0, 10000, LATER);
	cr_assert_eq(pb_ct_walk(&walk, pull_away, &chunks), 0);
	cr_expect(walk.incomplete);
	cr_expect_geq(walk.looks, 40000);
	cr_expect_lt(walk.looks, 40000 + PB_CT_CHUNK + 1);
	/* a batch goes by buckets: nothing sends it back */
	walk = (struct pb_ct_walk){.fd = fd, .max_entries = 10000};
	chunks = 0;
	cr_assert_eq(pb_ct_walk(&walk, pull_the_rug, &chunks), 0);
	cr_expect_not(walk.incomplete);
	cr_expect_geq(walk.looks, 20000 - 1);
}

Test(ct, a_walk_is_called_off)
{
	const atomic_bool cancel = true;
	struct pb_ct_walk walk = {.fd = fd, .max_entries = PB_CT_MAX, .cancel = &cancel};
	struct pb_ct_gc result;

	put_flow(1, BEFORE, BEFORE);
	cr_expect_eq(pb_ct_gc_run(&walk, NOW, &result), -ECANCELED);
	cr_expect_eq(there(1), 3);
}

/* ---- commands ---- */

static unsigned rows_of_all_pages(const char *filter, bool nat, unsigned *ret_pages)
{
	PB_FREE char *after = strdup("");
	struct pb_err err = {0};
	unsigned rows = 0;

	for (*ret_pages = 0; after; ++*ret_pages) {
		PB_JSON_FREE cJSON *page = pb_ct_page(fd, filter, after, nat, NOW, &err);
		const char *next;
		int n;

		cr_assert_not_null(page, "%s", err.text);
		n = cJSON_GetArraySize(cJSON_GetObjectItem(page, "items"));
		cr_assert_lt(n, 400, "a page is bounded");
		rows += (unsigned)n;
		next = pb_json_str(page, "next", "");
		free(after);
		after = *next ? strdup(next) : NULL;
	}
	return rows;
}

Test(ct, lists_come_in_pages_and_show_every_flow_once)
{
	unsigned pages = 0;

	fill(0, 3000, LATER);
	cr_expect_eq(rows_of_all_pages("", false, &pages), 6000);
	cr_expect_gt(pages, 15);
	cr_expect_eq(rows_of_all_pages("", true, &pages), 3000, "a row a flow");
	cr_expect_eq(rows_of_all_pages("backend=17", false, &pages), 2);
	cr_expect_eq(rows_of_all_pages("backend=17 flag=reply", false, &pages), 1);
	cr_expect_eq(rows_of_all_pages("backend=17 port=8080", true, &pages), 1);
	cr_expect_eq(rows_of_all_pages("address=10.0.0.2", true, &pages), 1000);
	cr_expect_eq(rows_of_all_pages("protocol=udp", false, &pages), 0);
}

Test(ct, what_is_asked_wrong_is_said)
{
	struct pb_err err = {0};

	cr_expect_null(pb_ct_page(fd, "", "x1", false, NOW, &err));
	cr_expect_str_eq(err.text, "\"x1\" is no place in the list; leave it out");
	cr_expect_null(pb_ct_page(fd, "host=a", "", false, NOW, &err));
	cr_expect_eq(err.code, -EINVAL);
}

Test(ct, a_flush_deletes_both_halves_of_what_it_is_told)
{
	struct pb_ct_walk walk = {.fd = fd, .max_entries = PB_CT_MAX};
	struct pb_ct_filter filter;
	struct flow single = flow(5000);

	fill(0, 2000, LATER);
	single.values[0].flags = PB_CT_SINGLE;
	put(&single.keys[0], single.values[0], LATER);
	/* a filter that only one of the halves passes */
	cr_assert_eq(pb_ct_filter_parse("backend=17 flag=reply", &filter, NULL), 0);
	cr_expect_eq(pb_ct_flush_run(&walk, &filter), 2);
	cr_expect_eq(there(17), 0);
	cr_expect_eq(there(18), 3);
	cr_assert_eq(pb_ct_filter_parse("address=10.0.0.1", &filter, NULL), 0);
	cr_expect_eq(pb_ct_flush_run(&walk, &filter), 2000);
	cr_assert_eq(pb_ct_filter_parse("", &filter, NULL), 0);
	cr_expect_eq(pb_ct_flush_run(&walk, &filter), 2000 - 2 + 1);
	cr_expect_eq(count(), 0);
}

/* ---- the agent's part ---- */

static struct pb_ct_table *table;
static char answer[1200];

static void on_reply(void *arg, cJSON *result, const struct pb_err *err)
{
	PB_FREE char *text = result ? cJSON_PrintUnformatted(result) : NULL;

	(void)arg;
	snprintf(answer, sizeof(answer), "%s", text ? text : err->text);
	cJSON_Delete(result);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void close_table(void)
{
	bool closed = false;

	pb_ct_close(table, on_closed, &closed);
	while (!closed)
		uv_run(&sandbox.loop, UV_RUN_ONCE);
}

static struct pb_ct_counts run_until_runs(uint64_t runs)
{
	const uint64_t deadline = pb_now_ns() + 20000000000ULL;
	struct pb_ct_counts counts;

	do {
		cr_assert_lt(pb_now_ns(), deadline);
		uv_run(&sandbox.loop, UV_RUN_ONCE);
		pb_ct_count(table, &counts);
	} while (counts.runs < runs);
	return counts;
}

Test(ct, timeouts_are_written_and_expired_flows_go_at_the_start)
{
	const uint32_t zero = 0;
	struct pb_ct_settings settings = {0};
	struct pb_ct_counts counts;
	int settings_fd = pb_dp_core_fd(sandbox.dp, "pb_ct_settings");

	put_flow(1, 0, 0);
	put_flow(2, UINT32_MAX, UINT32_MAX);
	cr_assert_eq(pb_ct_new(&sandbox.loop, &sandbox.config, sandbox.dp, &table, &sandbox.err), 0,
		     "%s", sandbox.err.text);
	cr_assert_eq(bpf_map_lookup_elem(settings_fd, &zero, &settings), 0);
	cr_expect_eq(settings.tcp_established, 21600);
	cr_expect_eq(settings.tcp_opening, 60);
	cr_expect_eq(settings.tcp_closing, 10);
	cr_expect_eq(settings.other, 61);
	counts = run_until_runs(1);
	cr_expect_eq(counts.deleted, 2);
	cr_expect_eq(counts.entries, 2);
	cr_expect_eq(counts.max_entries, PB_CT_MAX);
	cr_expect_eq(there(1), 0);
	/* another configuration is in force at once */
	sandbox.config.datapath.ct_other = 5;
	sandbox.config.datapath.ct_gc_interval = 33;
	cr_assert_eq(pb_ct_reconfigure(table, &sandbox.config, &sandbox.err), 0);
	cr_assert_eq(bpf_map_lookup_elem(settings_fd, &zero, &settings), 0);
	cr_expect_eq(settings.other, 5);
	cr_expect_eq(run_until_runs(2).interval_s, 33);
	close_table();
}

Test(ct, a_full_map_is_cleaned_up_at_once)
{
	const uint32_t zero = 0;
	struct pb_ct_stats stats[256] = {0};

	cr_assert_eq(pb_ct_new(&sandbox.loop, &sandbox.config, sandbox.dp, &table, &sandbox.err), 0,
		     "%s", sandbox.err.text);
	run_until_runs(1);
	stats[0].full = 3;
	stats[0].created = 5;
	cr_assert_eq(bpf_map_update_elem(pb_dp_core_fd(sandbox.dp, "pb_ct_stats"), &zero, stats,
					 BPF_ANY),
		     0);
	/* else the next one would come after minutes */
	cr_expect_eq(run_until_runs(2).flows.full, 3);
	close_table();
}

struct answers {
	unsigned all, called_off;
};

static void on_answer(void *arg, cJSON *result, const struct pb_err *err)
{
	struct answers *n = arg;

	n->all++;
	n->called_off += !result && err->code == -ECANCELED;
	cJSON_Delete(result);
}

Test(ct, flushes_wait_for_one_another_and_none_for_the_end)
{
	struct answers n = {0};

	cr_assert_eq(pb_ct_new(&sandbox.loop, &sandbox.config, sandbox.dp, &table, &sandbox.err), 0,
		     "%s", sandbox.err.text);
	for (int i = 0; i < 10; i++)
		pb_ct_flush(table, "", on_answer, &n);
	while (n.all < 10)
		uv_run(&sandbox.loop, UV_RUN_ONCE);
	cr_expect_eq(n.called_off, 0);
	for (int i = 0; i < 10; i++)
		pb_ct_flush(table, "", on_answer, &n);
	close_table();
	cr_expect_eq(n.all, 20);
	/* at most one was under way */
	cr_expect_geq(n.called_off, 9);
}

Test(ct, commands_are_answered_from_the_pool_and_before_the_end)
{
	cr_assert_eq(pb_ct_new(&sandbox.loop, &sandbox.config, sandbox.dp, &table, &sandbox.err), 0,
		     "%s", sandbox.err.text);
	put_flow(1, UINT32_MAX, UINT32_MAX);
	pb_ct_flush(table, "protocol=tcp ", on_reply, NULL);
	while (!answer[0])
		uv_run(&sandbox.loop, UV_RUN_ONCE);
	cr_expect_str_eq(answer, "{\"deleted\":2}");
	answer[0] = '\0';
	pb_ct_list(table, "port=x", "", false, on_reply, NULL);
	close_table();
	cr_expect_str_eq(answer, "port: \"x\" isn't a number up to 65535");
}
