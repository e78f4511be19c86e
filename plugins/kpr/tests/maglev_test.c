/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maglev tables: even, the same whatever the order, hardly touched by what comes and goes, and the
 * same as those of an implementation of its own in another language (the vectors).
 */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../kpr_maglev.h"

#define N_MAX 1000

static const uint32_t sizes[] = {251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071};
static struct pb_svc_backend backends[N_MAX];
static uint32_t table[KPR_MAGLEV_SIZE_MAX];
static uint32_t other[KPR_MAGLEV_SIZE_MAX];
static uint32_t shares[N_MAX];
static uint8_t seed[KPR_MAGLEV_SEED_LEN];

static void setup(void)
{
	memset(backends, 0, sizeof(backends));
	for (uint32_t i = 0; i < N_MAX; i++) {
		backends[i].addr.v4 = htonl(0x0af40101 + i);
		backends[i].port = htons(8080);
		backends[i].family = 4;
	}
	cr_assert_eq(kpr_maglev_seed(KPR_MAGLEV_SEED_DEFAULT, seed), 0);
}

TestSuite(maglev, .init = setup);

static void count_shares(uint32_t m, uint32_t n)
{
	memset(shares, 0, sizeof(shares));
	for (uint32_t i = 0; i < m; i++) {
		cr_assert_lt(table[i], n, "m %u, n %u: element %u is no backend's", m, n, i);
		shares[table[i]]++;
	}
}

Test(maglev, shares_differ_by_one_element_at_most)
{
	static const uint32_t counts[] = {1, 2, 3, 7, 100, 250, 251};

	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
		for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
			uint32_t m = sizes[s], n = counts[c];

			cr_assert_eq(kpr_maglev_build(table, m, backends, n, seed), 0);
			count_shares(m, n);
			for (uint32_t i = 0; i < n; i++)
				cr_assert(shares[i] == m / n || shares[i] == m / n + 1,
					  "m %u, n %u: backend %u has %u", m, n, i, shares[i]);
		}
}

Test(maglev, K52_more_backends_than_elements_still_name_backends_only)
{
	uint32_t with_one = 0;

	cr_assert_eq(kpr_maglev_build(table, 251, backends, N_MAX, seed), 0);
	count_shares(251, N_MAX);
	for (uint32_t i = 0; i < N_MAX; i++) {
		cr_assert_leq(shares[i], 1);
		with_one += shares[i];
	}
	cr_assert_eq(with_one, 251);
}

Test(maglev, K53_a_backend_that_goes_moves_few_other_flows)
{
	uint32_t worst = 0;

	cr_assert_eq(kpr_maglev_build(table, 16381, backends, 100, seed), 0);
	for (uint32_t gone = 0; gone < 100; gone++) {
		struct pb_svc_backend left[99];
		uint32_t moved = 0;

		for (uint32_t i = 0, k = 0; i < 100; i++)
			if (i != gone)
				left[k++] = backends[i];
		cr_assert_eq(kpr_maglev_build(other, 16381, left, 99, seed), 0);
		for (uint32_t i = 0; i < 16381; i++) {
			uint32_t now = other[i] + (other[i] >= gone);

			moved += table[i] != gone && now != table[i];
		}
		worst = moved > worst ? moved : worst;
	}
	cr_log_info("worst of 100: %u of 16381 elements move", worst);
	cr_assert_gt(worst, 0);
	cr_assert_leq(worst * 100, 2 * 16381, "%u elements moved", worst);
}

Test(maglev, is_the_same_whatever_the_order_and_the_numbers)
{
	struct pb_svc_backend shuffled[100];
	uint32_t from[100];
	unsigned random = 3;

	cr_assert_eq(kpr_maglev_build(table, 16381, backends, 100, seed), 0);
	for (int round = 0; round < 20; round++) {
		for (uint32_t i = 0; i < 100; i++)
			from[i] = i;
		for (uint32_t i = 99; i > 0; i--) {
			uint32_t k = (uint32_t)rand_r(&random) % (i + 1), swap = from[i];

			from[i] = from[k];
			from[k] = swap;
		}
		for (uint32_t i = 0; i < 100; i++)
			shuffled[i] = backends[from[i]];
		cr_assert_eq(kpr_maglev_build(other, 16381, shuffled, 100, seed), 0);
		for (uint32_t i = 0; i < 16381; i++)
			cr_assert_eq(from[other[i]], table[i], "round %d, element %u", round, i);
	}
}

Test(maglev, another_seed_is_another_table)
{
	uint8_t another[KPR_MAGLEV_SEED_LEN];
	uint32_t same = 0;

	cr_assert_eq(kpr_maglev_seed("JLfvgnHc2kaSUFaI", another), 0);
	cr_assert_eq(kpr_maglev_build(table, 16381, backends, 10, seed), 0);
	cr_assert_eq(kpr_maglev_build(other, 16381, backends, 10, another), 0);
	for (uint32_t i = 0; i < 16381; i++)
		same += table[i] == other[i];
	/* By chance a tenth. */
	cr_assert(same > 1300 && same < 2000, "%u of 16381 are the same", same);
}

static uint64_t checksum_of(uint32_t m, uint32_t n, uint32_t steps)
{
	struct kpr_maglev t = {0};
	uint64_t sum;

	cr_assert_eq(kpr_maglev_begin(&t, m, n, seed), 0);
	for (uint32_t i = 0; i < n; i++)
		kpr_maglev_add(&t, &backends[i], 1000 + i);
	while (!kpr_maglev_fill(&t, steps))
		;
	for (uint32_t i = 0; i < m; i++)
		other[i] = t.backends[t.table[i]].number - 1000;
	sum = kpr_maglev_checksum(&t);
	kpr_maglev_free(&t);
	return sum;
}

/* From a program in Python that shares nothing with this one but the paper and SipHash's. */
Test(maglev, vectors_stay_so_that_two_versions_agree)
{
	static const uint8_t v4[] = {6, 6, 2, 5, 5, 5, 3, 7, 1, 5, 5, 3,
				     6, 2, 1, 7, 3, 1, 5, 2, 3, 5, 2, 7};
	static const uint8_t v6[] = {3, 3, 1, 1, 3, 3, 1, 1, 1, 1, 3, 3,
				     1, 3, 3, 3, 1, 1, 3, 1, 1, 1, 1, 3};

	cr_assert_eq(checksum_of(251, 7, UINT32_MAX), 0x93c69690395f8563ULL);
	for (size_t i = 0; i < sizeof(v4); i++)
		cr_assert_eq(other[i] + 1, v4[i], "element %zu", i);
	for (uint8_t i = 0; i < 3; i++) {
		memset(&backends[i].addr, 0, sizeof(backends[i].addr));
		backends[i].addr.bytes[0] = 0xfd;
		backends[i].addr.bytes[15] = i + 1;
		backends[i].port = htons(443);
		backends[i].family = 6;
	}
	cr_assert_eq(checksum_of(1021, 3, UINT32_MAX), 0x6eb87ff3f6e2a2ffULL);
	for (size_t i = 0; i < sizeof(v6); i++)
		cr_assert_eq(other[i] + 1, v6[i], "element %zu", i);
}

Test(maglev, is_the_same_built_in_small_steps)
{
	uint64_t whole = checksum_of(16381, 100, UINT32_MAX);

	cr_assert_eq(checksum_of(16381, 100, 1), whole);
	cr_assert_eq(checksum_of(16381, 100, 1000), whole);
	cr_assert_neq(checksum_of(16381, 99, UINT32_MAX), whole);
}

Test(maglev, no_backend_fills_nothing)
{
	cr_assert_eq(kpr_maglev_build(table, 251, backends, 0, seed), 0);
	for (uint32_t i = 0; i < 251; i++)
		cr_assert_eq(table[i], UINT32_MAX);
}

Test(maglev, only_the_ten_primes_are_sizes)
{
	uint32_t n = 0;

	for (uint32_t m = 0; m < 140000; m++)
		n += kpr_maglev_size_ok(m);
	cr_assert_eq(n, 10);
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
		cr_assert(kpr_maglev_size_ok(sizes[s]));
	cr_assert_eq(kpr_maglev_build(table, 250, backends, 1, seed), -EINVAL);
}

Test(maglev, seeds_that_are_not_twelve_bytes_are_refused)
{
	static const char *const bad[] = {"",
					  "JLfvgnHc2kaSUFa",
					  "JLfvgnHc2kaSUFaIA",
					  "JLfvgnHc2kaSUFa=",
					  "JLfvgnHc2kaSU aI",
					  "JLfvgnHc2kaSUF-I"};
	uint8_t got[KPR_MAGLEV_SEED_LEN];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_eq(kpr_maglev_seed(bad[i], got), -EINVAL, "\"%s\"", bad[i]);
	cr_assert_eq(kpr_maglev_seed(KPR_MAGLEV_SEED_DEFAULT, got), 0);
	cr_assert_eq(memcmp(got, "patchbay-lb1", sizeof(got)), 0);
}

/* CPU time of the best of ten: what else the machine does must not count. */
Test(maglev, a_table_of_the_default_size_costs_less_than_2_ms)
{
	uint64_t best = UINT64_MAX;

	for (int round = 0; round < 10; round++) {
		struct timespec from, to;
		uint64_t ns;

		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
		cr_assert_eq(kpr_maglev_build(table, 16381, backends, 100, seed), 0);
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
		ns = (uint64_t)(to.tv_sec - from.tv_sec) * 1000000000 + (uint64_t)to.tv_nsec -
		     (uint64_t)from.tv_nsec;
		best = ns < best ? ns : best;
	}
	cr_log_info("16381 elements, 100 backends: %lu us", (unsigned long)(best / 1000));
	cr_assert_lt(best, 2000000, "%lu ns", (unsigned long)best);
}
