/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers for label sets. The map, the topic and the clock are this file's. */
#include <criterion/criterion.h>

#include <node/identity.h>

#define S 1000000000ULL

static struct {
	uint8_t digests[PB_IDENTITY_LAST + 1][PB_IDENT_DIGEST];
	bool has[PB_IDENTITY_LAST + 1];
	unsigned n;
	unsigned room; /* 0: any */
} map;
static char log_text[8192]; /* "+256" published, "-256" withdrawn, "w256" written, "d256" deleted */
static uint64_t clock_ns;
static struct pb_idents *idents;

static void note(char what, uint32_t number)
{
	size_t used = strlen(log_text);

	if (used < sizeof(log_text) - 16)
		snprintf(log_text + used, sizeof(log_text) - used, "%c%u ", what, number);
}

static void expect(const char *text)
{
	cr_expect_str_eq(log_text, text);
	log_text[0] = '\0';
}

static int map_put(void *arg, uint32_t number, const uint8_t *digest)
{
	(void)arg;
	if (map.room && map.n >= map.room)
		return -E2BIG;
	note('w', number);
	if (number > PB_IDENTITY_LAST)
		return 0;
	memcpy(map.digests[number], digest, PB_IDENT_DIGEST);
	map.n += !map.has[number];
	map.has[number] = true;
	return 0;
}

static void map_del(void *arg, uint32_t number)
{
	(void)arg;
	note('d', number);
	if (number > PB_IDENTITY_LAST)
		return;
	map.n -= map.has[number];
	map.has[number] = false;
}

static void publish(void *arg, const struct pb_ident *ident)
{
	(void)arg;
	note('+', ident->number);
}

static void withdraw(void *arg, const struct pb_ident *ident)
{
	(void)arg;
	note('-', ident->number);
}

static uint64_t now(void)
{
	return clock_ns;
}

static void setup(void)
{
	const struct pb_ident_env env = {.put = map_put,
					 .del = map_del,
					 .publish = publish,
					 .withdraw = withdraw,
					 .now_ns = now};

	cr_assert_eq(pb_idents_new(&env, &idents), 0);
}

static void teardown(void)
{
	pb_idents_free(idents);
}

/* The process ends and another begins: only the map is left. */
static void restart(void)
{
	pb_idents_free(idents);
	setup();
	for (uint32_t number = 0; number <= PB_IDENTITY_LAST; number++)
		if (map.has[number])
			cr_assert_eq(pb_idents_adopt(idents, number, map.digests[number]), 0);
	log_text[0] = '\0';
}

static struct pb_ident *get(const char *label)
{
	struct pb_ident *ident = NULL;
	char labels[64] = "";
	size_t len = (size_t)snprintf(labels, sizeof(labels), "k8s:%s", label) + 2;
	int rc = pb_idents_get(idents, PB_IDENT_POD, labels, len, 1, &ident);

	return rc == 0 ? ident : NULL;
}

static unsigned expire(void)
{
	unsigned freed = 0, all = 0;

	while (pb_idents_expire(idents, 100, &freed) == 0)
		all += freed;
	return all + freed;
}

TestSuite(identity, .init = setup, .fini = teardown);

Test(identity, I9_equal_sets_have_equal_numbers)
{
	struct pb_ident *a = get("web"), *b = get("db"), *c = get("web");

	cr_expect_eq(a, c);
	cr_expect_eq(a->refs, 2);
	cr_expect_neq(a->number, b->number);
	cr_expect_geq(a->number, PB_IDENTITY_FIRST);
	cr_expect_leq(b->number, PB_IDENTITY_LAST);
	expect("w256 +256 w257 +257 ");
}

Test(identity, ranges_have_numbers_of_their_own)
{
	struct pb_ident *range = NULL;

	cr_assert_eq(pb_idents_get(idents, PB_IDENT_CIDR, "cidr:10.0.0.0/8\0", 17, 1, &range), 0);
	cr_expect_eq(range->number, (uint32_t)PB_IDENTITY_CIDR);
	cr_expect_eq(pb_idents_find(idents, range->number), range);
}

Test(identity, I10_numbers_outlive_the_process)
{
	uint32_t web = get("web")->number, db = get("db")->number;

	restart();
	/* Asked for the other way round. */
	cr_expect_eq(get("db")->number, db);
	cr_expect_eq(get("web")->number, web);
	expect("+257 +256 ");
	cr_expect_eq(get("new")->number, 258, "not one that an adopted entry has");
}

Test(identity, I11_a_number_rests_before_it_means_something_else)
{
	struct pb_ident *web = get("web");
	uint32_t number = web->number;

	log_text[0] = '\0';
	pb_idents_ref(web);
	pb_idents_put(idents, web);
	expect("");
	pb_idents_put(idents, web);
	expect("-256 ");
	cr_expect_null(pb_idents_find(idents, number), "nobody has it any more");
	clock_ns += 30 * S - 1;
	cr_expect_eq(expire(), 0);
	expect("");
	clock_ns += 1;
	cr_expect_eq(expire(), 1);
	expect("d256 ");
}

Test(identity, I12_who_comes_back_in_time_has_the_same_number)
{
	uint32_t number = get("web")->number;

	pb_idents_put(idents, get("web"));
	pb_idents_put(idents, pb_idents_find(idents, number));
	clock_ns += 29 * S;
	expire();
	log_text[0] = '\0';
	cr_expect_eq(get("web")->number, number);
	expect("+256 ");
	clock_ns += 60 * S;
	cr_expect_eq(expire(), 0, "it is held again");
}

Test(identity, I13_adopted_numbers_that_nobody_claims_are_freed)
{
	uint32_t web = get("web")->number;

	get("db");
	get("old");
	restart();
	get("web");
	log_text[0] = '\0';
	cr_expect_eq(expire(), 0, "not before the first full lists");
	while (pb_idents_sweep(idents, PB_IDENT_POD, 1))
		;
	cr_expect_eq(expire(), 0, "not before the time of grace is over");
	clock_ns += 30 * S;
	cr_expect_eq(expire(), 2);
	expect("d257 d258 ");
	cr_expect(map.has[web]);
}

Test(identity, I13_one_that_is_claimed_during_the_grace_stays)
{
	uint32_t web = get("web")->number;

	restart();
	while (pb_idents_sweep(idents, PB_IDENT_POD, 100))
		;
	clock_ns += 10 * S;
	cr_expect_eq(get("web")->number, web);
	clock_ns += 60 * S;
	cr_expect_eq(expire(), 0);
}

Test(identity, I14_all_numbers_in_use)
{
	char label[16];
	struct pb_ident *first = get("0");
	uint32_t number = first->number;

	for (unsigned i = 1; i < 65280; i++) {
		snprintf(label, sizeof(label), "%u", i);
		cr_assert_not_null(get(label), "%u", i);
	}
	cr_expect_null(get("one too many"));
	cr_expect_eq(pb_idents_count(idents, PB_IDENT_POD).held, 65280);
	/* One goes; its number serves again when it has rested. */
	pb_idents_put(idents, first);
	cr_expect_null(get("one too many"));
	clock_ns += 30 * S;
	cr_expect_eq(expire(), 1);
	cr_expect_eq(get("one too many")->number, number);
}

Test(identity, I15_no_number_that_is_not_in_the_map)
{
	map.room = 1;
	cr_expect_not_null(get("web"));
	log_text[0] = '\0';
	cr_expect_null(get("db"));
	expect("");
	cr_expect_null(pb_idents_find(idents, 257));
	map.room = 2;
	cr_expect_eq(get("db")->number, 258);
	expect("w258 +258 ");
}

Test(identity, I16_published_first_and_withdrawn_last)
{
	struct pb_ident *web = get("web");

	expect("w256 +256 ");
	pb_idents_publish_all(idents);
	expect("+256 ");
	pb_idents_put(idents, web);
	expect("-256 ");
	pb_idents_publish_all(idents);
	expect("");
}

Test(identity, entries_that_make_no_sense_are_not_adopted)
{
	static const uint8_t digest[PB_IDENT_DIGEST] = {1}, other[PB_IDENT_DIGEST] = {2};

	cr_expect_eq(pb_idents_adopt(idents, 255, digest), -EINVAL, "a reserved number");
	cr_expect_eq(pb_idents_adopt(idents, 65536, digest), -EINVAL, "of no range");
	cr_expect_eq(pb_idents_adopt(idents, 300, digest), 0);
	cr_expect_eq(pb_idents_adopt(idents, 300, other), -EINVAL, "taken");
	cr_expect_eq(pb_idents_adopt(idents, 301, digest), -EINVAL, "the same labels");
}

Test(identity, lists_go_by_number)
{
	get("a");
	pb_idents_put(idents, get("b"));
	get("c");
	cr_expect_eq(pb_idents_next(idents, 0)->number, 256);
	cr_expect_eq(pb_idents_next(idents, 256)->number, 258, "257 is held by nobody");
	cr_expect_null(pb_idents_next(idents, 258));
}
