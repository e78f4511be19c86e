/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identities of ranges in the fake host.
 *
 * Owns which generation holds what, how often. A range has one number while anybody holds it.
 */
#include "fake.h"

static bool bits_behind(const struct pb_cidr *cidr, unsigned all)
{
	for (unsigned bit = cidr->bits; bit < all; bit++)
		if (cidr->addr.bytes[bit / 8] & (0x80U >> bit % 8))
			return true;
	return false;
}

static int cidr_check(const struct pb_cidr *cidr)
{
	unsigned all = cidr->family == 4 ? 32 : cidr->family == 6 ? 128 : 0;

	return all == 0 || cidr->bits > all || bits_behind(cidr, all) ? -EINVAL : 0;
}

static bool cidr_same(const struct pb_cidr *a, const struct pb_cidr *b)
{
	return a->family == b->family && a->bits == b->bits &&
	       memcmp(&a->addr, &b->addr, a->family == 4 ? 4 : 16) == 0;
}

/* gen NULL: anybody's. */
static struct fake_hold *hold_find(const struct pb_fake *fake, const struct fake_gen *gen,
				   const struct pb_cidr *cidr)
{
	struct fake_hold *hold;

	LL_FOREACH (fake->holds, hold)
		if ((!gen || hold->gen == gen) && cidr_same(&hold->cidr, cidr))
			return hold;
	return NULL;
}

static int cidr_may(struct fake_gen *gen, const char *function, const struct pb_cidr *cidr)
{
	if (gen->phase != FAKE_QUIESCED && !gen->stopping)
		return cidr_check(cidr);
	return gen->ctx.host->fail(&gen->ctx, -EPERM,
				   "%s: only allowed from prepare() to quiesce()", function);
}

int fake_host_cidr_hold(struct pb_ctx *ctx, const struct pb_cidr *cidr, uint32_t *ret_identity)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	struct pb_fake *fake = gen->fake;
	int err = fake_fault(fake, "cidr_hold");
	struct fake_hold *hold, *other;

	if (err == 0)
		err = cidr_may(gen, "cidr_hold", cidr);
	if (err < 0)
		return err;
	hold = hold_find(fake, gen, cidr);
	if (!hold) {
		other = hold_find(fake, NULL, cidr);
		hold = calloc(1, sizeof(*hold));
		if (!hold)
			return -ENOMEM;
		*hold = (struct fake_hold){.gen = gen, .cidr = *cidr};
		hold->identity = other ? other->identity : PB_IDENTITY_CIDR + fake->identities++;
		LL_PREPEND(fake->holds, hold);
	}
	hold->count++;
	*ret_identity = hold->identity;
	return 0;
}

int fake_host_cidr_release(struct pb_ctx *ctx, const struct pb_cidr *cidr)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	struct fake_hold *hold;
	int err = cidr_may(gen, "cidr_release", cidr);

	if (err < 0)
		return err;
	hold = hold_find(gen->fake, gen, cidr);
	if (!hold)
		return -ENOENT;
	if (--hold->count == 0) {
		LL_DELETE(gen->fake->holds, hold);
		free(hold);
	}
	return 0;
}

void fake_cidrs_release(struct fake_gen *gen)
{
	struct fake_hold *hold, *next;

	LL_FOREACH_SAFE(gen->fake->holds, hold, next)
	{
		if (hold->gen != gen)
			continue;
		LL_DELETE(gen->fake->holds, hold);
		free(hold);
	}
}

uint32_t pb_fake_cidr(const struct pb_fake *fake, const struct pb_cidr *cidr)
{
	const struct fake_hold *hold = hold_find(fake, NULL, cidr);

	return hold ? hold->identity : 0;
}
