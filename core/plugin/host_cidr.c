/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host->cidr_hold() and cidr_release(): identities of ranges of addresses.
 *
 * Owns the checks of what a plugin asks. Numbers and ipcache are those of another room, reached by
 * the functions that the agent gave the manager; a hold belongs to the generation.
 */
#include <plugin/private.h>

#include <patchbay/kube.h>

static bool bits_behind(const union pb_addr *addr, unsigned bits, unsigned all)
{
	for (unsigned bit = bits; bit < all; bit++) {
		if (addr->bytes[bit / 8] & (0x80U >> bit % 8))
			return true;
	}
	return false;
}

static int cidr_check(struct pb_generation *gen, const char *function, const struct pb_cidr *cidr)
{
	unsigned all = !cidr ? 0 : cidr->family == 4 ? 32 : cidr->family == 6 ? 128 : 0;

	if (all == 0)
		return pb_err_set(&gen->fail, -EINVAL, "%s: the family must be 4 or 6", function);
	if (cidr->bits > all)
		return pb_err_set(&gen->fail, -EINVAL, "%s: a prefix of %u bits in family %u",
				  function, cidr->bits, cidr->family);
	if (bits_behind(&cidr->addr, cidr->bits, all))
		return pb_err_set(&gen->fail, -EINVAL,
				  "%s: the address has bits outside of its prefix of %u", function,
				  cidr->bits);
	return 0;
}

static int cidr_may(struct pb_generation *gen, const char *function, const struct pb_cidr *cidr)
{
	if (gen->state < PB_GEN_PREPARING || gen->state > PB_GEN_LIVE)
		return pb_host_wrong_step(gen, function, "from prepare() to quiesce()");
	if (!gen->manager->env.cidrs.hold)
		return pb_err_set(&gen->fail, -EOPNOTSUPP, "%s: this agent has no ipcache",
				  function);
	return cidr_check(gen, function, cidr);
}

int pb_host_cidr_hold(struct pb_ctx *ctx, const struct pb_cidr *cidr, uint32_t *ret_identity)
{
	struct pb_generation *gen = pb_gen(ctx);
	const struct pb_manager_cidr_ops *ops = &gen->manager->env.cidrs;
	int rc = cidr_may(gen, "cidr_hold()", cidr);

	if (rc < 0)
		return rc;
	rc = ops->hold(ops->arg, gen, cidr, ret_identity);
	if (rc < 0)
		return pb_err_set(&gen->fail, rc, "cidr_hold(): %s", strerror(-rc));
	gen->cidrs_held = true;
	return 0;
}

int pb_host_cidr_release(struct pb_ctx *ctx, const struct pb_cidr *cidr)
{
	struct pb_generation *gen = pb_gen(ctx);
	const struct pb_manager_cidr_ops *ops = &gen->manager->env.cidrs;
	int rc = cidr_may(gen, "cidr_release()", cidr);

	if (rc < 0)
		return rc;
	rc = ops->release(ops->arg, gen, cidr);
	if (rc < 0)
		return pb_err_set(&gen->fail, rc, "cidr_release(): %s", strerror(-rc));
	return 0;
}

void pb_host_cidr_free(struct pb_generation *gen)
{
	const struct pb_manager_cidr_ops *ops = &gen->manager->env.cidrs;

	if (gen->cidrs_held)
		ops->release_all(ops->arg, gen);
}
