/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random packets for chains that translate, and what must be true of every one that comes out.
 *
 * Owns a source of packets that follow from those before: fresh ones, answers to what came out,
 * errors about it, fragments, the same again; then some are damaged. All of it follows from the
 * seed, which is printed, and from what the chain makes of it. Bounded by number and by time:
 *
 *	PB_FUZZ_SEED=n		the run with this seed again
 *	PB_FUZZ_PACKETS=n	200,000
 *	PB_FUZZ_SECONDS=n	10
 */
#ifndef PB_TESTS_PACKET_FUZZ_H
#define PB_TESTS_PACKET_FUZZ_H

#include "packet.h"

#define FUZZ_KEPT 64
#define FUZZ_PARTS 8

/* Somebody who is asked most of the time. */
struct fuzz_target {
	const char *addr;
	uint16_t port;
	uint8_t protocol;
};

/* What is known to the chain: lists that end with NULL or 0. */
struct fuzz_pool {
	const struct fuzz_target *targets;
	const char *const *v4;
	const char *const *v6;
	const uint16_t *ports;
};

struct fuzz {
	const struct fuzz_pool *pool;
	uint64_t seed, state;
	uint64_t done, max, deadline_ns;
	uint64_t translated, answered, dropped, passed;
	size_t n_in, n_out, n_parts;
	struct packet in[FUZZ_KEPT], out[FUZZ_KEPT]; /* of the last ones, most translated */
	struct packet parts[FUZZ_PARTS];	     /* fragments that haven't been sent */
};

void fuzz_start(struct fuzz *f, const struct fuzz_pool *pool);
/* False when enough has been done. */
bool fuzz_goes_on(struct fuzz *f);
uint64_t fuzz_random(struct fuzz *f, uint64_t below);
void fuzz_packet(struct fuzz *f, struct packet *ret);
/*
 * Judges what a chain made of `in` and remembers it. NULL, or what is wrong: a static text.
 * `mark`: bit of skb->mark that a packet has that was changed.
 */
const char *fuzz_judge(struct fuzz *f, const struct packet *in, const struct packet *out,
		       const struct packet_ctx *ctx, uint32_t mark);
/* Both packets as hexadecimal digits, to stdout, for whoever looks into it. */
void fuzz_show(const struct fuzz *f, const struct packet *in, const struct packet *out);

#endif
