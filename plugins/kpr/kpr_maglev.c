/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backends take turns, in the order of their addresses: each takes the next element of its own
 * permutation that nobody has. So shares differ by one element at most. The permutations come
 * from SipHash-2-4 of address and port, keyed with the seed (docs/design/maglev.md says why).
 */
#include "kpr_maglev.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NOBODY UINT32_MAX

bool kpr_maglev_size_ok(uint32_t m)
{
	static const uint32_t primes[] = {251,	509,   1021,  2039,  4093,
					  8191, 16381, 32749, 65521, KPR_MAGLEV_SIZE_MAX};

	for (size_t i = 0; i < sizeof(primes) / sizeof(primes[0]); i++)
		if (primes[i] == m)
			return true;
	return false;
}

const char *kpr_maglev_sizes(void)
{
	return "251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521 or 131071";
}

/* ---- the seed ---- */

static int base64_digit(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

int kpr_maglev_seed(const char *text, uint8_t ret_seed[KPR_MAGLEV_SEED_LEN])
{
	/* 12 bytes are 16 digits and never padded. */
	if (strlen(text) != KPR_MAGLEV_SEED_LEN / 3 * 4)
		return -EINVAL;
	for (int i = 0; i < KPR_MAGLEV_SEED_LEN / 3; i++) {
		uint32_t word = 0;

		for (int k = 0; k < 4; k++) {
			int digit = base64_digit(text[4 * i + k]);

			if (digit < 0)
				return -EINVAL;
			word = word << 6 | (uint32_t)digit;
		}
		ret_seed[3 * i] = (uint8_t)(word >> 16);
		ret_seed[3 * i + 1] = (uint8_t)(word >> 8);
		ret_seed[3 * i + 2] = (uint8_t)word;
	}
	return 0;
}

/* ---- the hash ---- */

static uint64_t le64(const uint8_t *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	return le64toh(word);
}

static uint64_t rotl(uint64_t x, int bits)
{
	return x << bits | x >> (64 - bits);
}

static void sip_rounds(uint64_t v[4], int n)
{
	while (n-- > 0) {
		v[0] += v[1];
		v[1] = rotl(v[1], 13) ^ v[0];
		v[0] = rotl(v[0], 32);
		v[2] += v[3];
		v[3] = rotl(v[3], 16) ^ v[2];
		v[0] += v[3];
		v[3] = rotl(v[3], 21) ^ v[0];
		v[2] += v[1];
		v[1] = rotl(v[1], 17) ^ v[2];
		v[2] = rotl(v[2], 32);
	}
}

/* SipHash-2-4 of 19 bytes: address, port and family, both numbers as they are on the wire. */
static uint64_t hash_of(const struct pb_svc_backend *b, const uint8_t *seed, uint8_t domain)
{
	uint8_t key[16] = {0};
	uint8_t message[24] = {0};
	uint64_t v[4];

	memcpy(key, seed, KPR_MAGLEV_SEED_LEN);
	key[KPR_MAGLEV_SEED_LEN] = domain;
	memcpy(message, &b->addr, 16);
	memcpy(message + 16, &b->port, 2);
	message[18] = b->family;
	message[23] = 19; /* the length, as SipHash ends a message */
	v[0] = le64(key) ^ 0x736f6d6570736575ULL;
	v[1] = le64(key + 8) ^ 0x646f72616e646f6dULL;
	v[2] = le64(key) ^ 0x6c7967656e657261ULL;
	v[3] = le64(key + 8) ^ 0x7465646279746573ULL;
	for (int i = 0; i < 24; i += 8) {
		v[3] ^= le64(message + i);
		sip_rounds(v, 2);
		v[0] ^= le64(message + i);
	}
	v[2] ^= 0xff;
	sip_rounds(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* ---- the table ---- */

int kpr_maglev_begin(struct kpr_maglev *t, uint32_t m, uint32_t n,
		     const uint8_t seed[KPR_MAGLEV_SEED_LEN])
{
	if (t->m != m) {
		free(t->table);
		t->m = 0;
		t->table = malloc(m * sizeof(*t->table));
		if (!t->table)
			return -ENOMEM;
		t->m = m;
	}
	if (n > t->cap) {
		free(t->backends);
		t->cap = 0;
		t->backends = malloc(n * sizeof(*t->backends));
		if (!t->backends)
			return -ENOMEM;
		t->cap = n;
	}
	for (uint32_t i = 0; i < m; i++)
		t->table[i] = NOBODY;
	memcpy(t->seed, seed, KPR_MAGLEV_SEED_LEN);
	t->n = 0;
	t->filled = 0;
	t->turn = 0;
	return 0;
}

void kpr_maglev_add(struct kpr_maglev *t, const struct pb_svc_backend *who, uint32_t number)
{
	uint64_t offset = hash_of(who, t->seed, 0);
	uint64_t skip = hash_of(who, t->seed, 1);

	t->backends[t->n++] = (struct kpr_maglev_backend){
		.who = *who,
		.number = number,
		.at = (uint32_t)(offset % t->m),
		.skip = (uint32_t)(skip % (t->m - 1)) + 1,
		.identity = offset ^ rotl(skip, 32),
	};
}

static int compare(const void *a, const void *b)
{
	const struct kpr_maglev_backend *x = a, *y = b;
	int rc = memcmp(&x->who.addr, &y->who.addr, sizeof(x->who.addr));

	return rc ? rc : memcmp(&x->who.port, &y->who.port, sizeof(x->who.port));
}

/* m is a prime: a permutation meets every element, and one is free. */
static uint32_t take_next(struct kpr_maglev *t, struct kpr_maglev_backend *b)
{
	uint32_t steps = 1;

	while (t->table[b->at] != NOBODY) {
		b->at += b->skip;
		b->at -= b->at >= t->m ? t->m : 0;
		steps++;
	}
	t->table[b->at] = t->turn;
	b->share++;
	return steps;
}

bool kpr_maglev_fill(struct kpr_maglev *t, uint32_t steps)
{
	uint32_t done = 0;

	if (t->n == 0)
		return true;
	if (t->filled == 0)
		qsort(t->backends, t->n, sizeof(*t->backends), compare);
	while (t->filled < t->m && done < steps) {
		done += take_next(t, &t->backends[t->turn]);
		t->filled++;
		t->turn = t->turn + 1 < t->n ? t->turn + 1 : 0;
	}
	return t->filled == t->m;
}

void kpr_maglev_free(struct kpr_maglev *t)
{
	free(t->table);
	free(t->backends);
	memset(t, 0, sizeof(*t));
}

uint64_t kpr_maglev_checksum(const struct kpr_maglev *t)
{
	uint64_t sum = t->m;

	for (uint32_t i = 0; t->n > 0 && i < t->m; i++) {
		sum = (sum ^ t->backends[t->table[i]].identity) * 0x9e3779b97f4a7c15ULL;
		sum ^= sum >> 29;
	}
	return sum;
}

int kpr_maglev_build(uint32_t *table, uint32_t m, const struct pb_svc_backend *backends, uint32_t n,
		     const uint8_t seed[KPR_MAGLEV_SEED_LEN])
{
	struct kpr_maglev t = {0};
	int rc;

	if (!kpr_maglev_size_ok(m))
		return -EINVAL;
	rc = kpr_maglev_begin(&t, m, n, seed);
	for (uint32_t i = 0; rc == 0 && i < n; i++)
		kpr_maglev_add(&t, &backends[i], i);
	while (rc == 0 && !kpr_maglev_fill(&t, UINT32_MAX))
		;
	for (uint32_t i = 0; rc == 0 && i < m; i++)
		table[i] = n > 0 ? t.backends[t.table[i]].number : NOBODY;
	kpr_maglev_free(&t);
	return rc;
}
