/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of identities. A number is in one of three states: held (somebody has a reference and
 * its labels are known), adopted (of an earlier process, labels unknown, nobody has claimed it), or
 * kept (nobody has it, its time of grace runs). By number an array finds it, by digest a hash.
 *
 * The digest is a cryptographic one: labels are written by the authors of pods, and whoever could
 * make two sets collide would get another pod's rights.
 */
#include <node/identity.h>

#define HASH_NONFATAL_OOM 1
#include <mbedtls/md.h>
#include <uthash.h>
#include <utlist.h>

/* Numbers of ranges of addresses: as many as the pinned map has room for beside the pods'. */
#define CIDR_NUMBERS 65536U
#define POD_NUMBERS (PB_IDENTITY_LAST - PB_IDENTITY_FIRST + 1U)

enum state {
	HELD,
	ADOPTED,
	KEPT,
};

struct ident {
	struct pb_ident pub;
	uint8_t digest[PB_IDENT_DIGEST];
	enum state state;
	uint64_t free_at;
	struct ident *prev, *next; /* of `adopted` or `kept` */
	UT_hash_handle hh;
};

struct range {
	uint32_t first;
	uint32_t n;
	uint32_t cursor; /* where the search for a free number begins */
	uint32_t held;
	uint32_t taken;
	struct ident **at; /* by number - first */
	struct ident *adopted;
};

struct pb_idents {
	struct pb_ident_env env;
	struct range ranges[PB_IDENT_RANGES];
	struct ident *by_digest;
	struct ident *kept; /* first in, first out: all have the same time of grace */
};

/* ---- life ---- */

int pb_idents_new(const struct pb_ident_env *env, struct pb_idents **ret_idents)
{
	struct pb_idents *idents = calloc(1, sizeof(*idents));

	if (!idents)
		return -ENOMEM;
	idents->env = *env;
	idents->ranges[PB_IDENT_POD] = (struct range){.first = PB_IDENTITY_FIRST, .n = POD_NUMBERS};
	idents->ranges[PB_IDENT_CIDR] =
		(struct range){.first = PB_IDENTITY_CIDR, .n = CIDR_NUMBERS};
	for (size_t i = 0; i < PB_IDENT_RANGES; i++) {
		struct range *range = &idents->ranges[i];

		range->at = calloc(range->n, sizeof(*range->at));
		if (!range->at) {
			pb_idents_free(idents);
			return -ENOMEM;
		}
	}
	*ret_idents = idents;
	return 0;
}

static void ident_free(struct ident *ident)
{
	free((void *)ident->pub.labels);
	free(ident);
}

struct pb_idents *pb_idents_free(struct pb_idents *idents)
{
	struct ident *ident, *next;

	if (!idents)
		return NULL;
	HASH_ITER (hh, idents->by_digest, ident, next) {
		HASH_DEL(idents->by_digest, ident);
		ident_free(ident);
	}
	for (size_t i = 0; i < PB_IDENT_RANGES; i++)
		free(idents->ranges[i].at);
	free(idents);
	return NULL;
}

static struct range *range_of(struct pb_idents *idents, uint32_t number)
{
	for (size_t i = 0; i < PB_IDENT_RANGES; i++) {
		struct range *range = &idents->ranges[i];

		if (number >= range->first && number - range->first < range->n)
			return range;
	}
	return NULL;
}

/* ---- the table ---- */

static struct ident *find_digest(struct pb_idents *idents, const uint8_t *digest)
{
	struct ident *ident;

	HASH_FIND(hh, idents->by_digest, digest, PB_IDENT_DIGEST, ident);
	return ident;
}

static struct ident *table_add(struct pb_idents *idents, struct range *range, uint32_t number,
			       const uint8_t *digest)
{
	struct ident *ident = calloc(1, sizeof(*ident));

	if (!ident)
		return NULL;
	ident->pub.number = number;
	ident->pub.range = (enum pb_ident_range)(range - idents->ranges);
	memcpy(ident->digest, digest, sizeof(ident->digest));
	HASH_ADD(hh, idents->by_digest, digest, sizeof(ident->digest), ident);
	if (!ident->hh.tbl) {
		free(ident);
		return NULL;
	}
	range->at[number - range->first] = ident;
	range->taken++;
	return ident;
}

static void table_remove(struct pb_idents *idents, struct ident *ident)
{
	struct range *range = &idents->ranges[ident->pub.range];

	range->at[ident->pub.number - range->first] = NULL;
	range->taken--;
	HASH_DEL(idents->by_digest, ident);
	ident_free(ident);
}

/* Numbers go round, so that a freed one rests as long as possible. */
static int free_number(struct range *range, uint32_t *ret_number)
{
	if (range->taken == range->n)
		return -ENOSPC;
	while (range->at[range->cursor])
		range->cursor = (range->cursor + 1) % range->n;
	*ret_number = range->first + range->cursor;
	range->cursor = (range->cursor + 1) % range->n;
	return 0;
}

int pb_idents_adopt(struct pb_idents *idents, uint32_t number, const uint8_t *digest)
{
	struct range *range = range_of(idents, number);
	struct ident *ident;

	if (!range || range->at[number - range->first] || find_digest(idents, digest))
		return -EINVAL;
	ident = table_add(idents, range, number, digest);
	if (!ident)
		return -ENOMEM;
	ident->state = ADOPTED;
	DL_APPEND(range->adopted, ident);
	if (number - range->first >= range->cursor)
		range->cursor = (number - range->first + 1) % range->n;
	return 0;
}

/* ---- getting and letting go ---- */

/* Pods have "k8s:" labels and ranges a "cidr:" one, so that their digests can't meet. */
static int digest_of(const void *labels, size_t len, uint8_t *ret_digest)
{
	int rc = mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), labels, len, ret_digest);

	return rc == 0 ? 0 : -EIO;
}

/* An identity nobody has becomes one that somebody has. */
static int claim(struct pb_idents *idents, struct ident *ident, const void *labels, size_t len,
		 uint32_t n_labels)
{
	struct range *range = &idents->ranges[ident->pub.range];

	if (!ident->pub.labels) {
		char *copy = malloc(len ? len : 1);

		if (!copy)
			return -ENOMEM;
		memcpy(copy, labels, len);
		ident->pub.labels = copy;
		ident->pub.labels_len = len;
		ident->pub.n_labels = n_labels;
	}
	if (ident->state == ADOPTED)
		DL_DELETE(range->adopted, ident);
	else if (ident->state == KEPT)
		DL_DELETE(idents->kept, ident);
	ident->state = HELD;
	range->held++;
	idents->env.publish(idents->env.arg, &ident->pub);
	return 0;
}

static int create(struct pb_idents *idents, struct range *range, const uint8_t *digest,
		  struct ident **ret_ident)
{
	uint32_t number = 0;
	struct ident *ident;
	int rc = free_number(range, &number);

	if (rc < 0)
		return rc;
	if (idents->env.put(idents->env.arg, number, digest) < 0)
		return -ENOSPC;
	ident = table_add(idents, range, number, digest);
	if (!ident) {
		idents->env.del(idents->env.arg, number);
		return -ENOMEM;
	}
	/* Until it is claimed, which may fail. */
	ident->state = ADOPTED;
	DL_APPEND(range->adopted, ident);
	*ret_ident = ident;
	return 0;
}

static void drop(struct pb_idents *idents, struct ident *ident)
{
	idents->env.del(idents->env.arg, ident->pub.number);
	table_remove(idents, ident);
}

int pb_idents_get(struct pb_idents *idents, enum pb_ident_range range, const void *labels,
		  size_t len, uint32_t n_labels, struct pb_ident **ret_ident)
{
	uint8_t digest[PB_IDENT_DIGEST];
	struct ident *ident;
	int rc = digest_of(labels, len, digest);

	if (rc < 0)
		return rc;
	ident = find_digest(idents, digest);
	if (!ident)
		rc = create(idents, &idents->ranges[range], digest, &ident);
	if (rc == 0 && ident->state != HELD)
		rc = claim(idents, ident, labels, len, n_labels);
	if (rc < 0)
		return rc;
	ident->pub.refs++;
	*ret_ident = &ident->pub;
	return 0;
}

struct pb_ident *pb_idents_ref(struct pb_ident *ident)
{
	ident->refs++;
	return ident;
}

static void keep(struct pb_idents *idents, struct ident *ident)
{
	ident->state = KEPT;
	ident->free_at = idents->env.now_ns() + PB_IDENT_GRACE_NS;
	DL_APPEND(idents->kept, ident);
}

struct pb_ident *pb_idents_put(struct pb_idents *idents, struct pb_ident *pub)
{
	struct ident *ident = (struct ident *)pub;

	if (!pub || --pub->refs > 0)
		return NULL;
	idents->ranges[pub->range].held--;
	idents->env.withdraw(idents->env.arg, pub);
	keep(idents, ident);
	return NULL;
}

struct pb_ident *pb_idents_find(struct pb_idents *idents, uint32_t number)
{
	struct range *range = range_of(idents, number);
	struct ident *ident = range ? range->at[number - range->first] : NULL;

	return ident && ident->state == HELD ? &ident->pub : NULL;
}

/* ---- time ---- */

bool pb_idents_sweep(struct pb_idents *idents, enum pb_ident_range which, unsigned max)
{
	struct range *range = &idents->ranges[which];

	for (; range->adopted && max > 0; max--) {
		struct ident *ident = range->adopted;

		DL_DELETE(range->adopted, ident);
		keep(idents, ident);
	}
	return range->adopted != NULL;
}

uint64_t pb_idents_expire(struct pb_idents *idents, unsigned max, unsigned *ret_freed)
{
	uint64_t now = idents->env.now_ns();

	*ret_freed = 0;
	while (idents->kept && idents->kept->free_at <= now) {
		struct ident *ident = idents->kept;

		if (*ret_freed == max)
			return 0;
		DL_DELETE(idents->kept, ident);
		drop(idents, ident);
		(*ret_freed)++;
	}
	return idents->kept ? idents->kept->free_at - now : UINT64_MAX;
}

/* ---- reports ---- */

void pb_idents_publish_all(struct pb_idents *idents)
{
	struct ident *ident, *next;

	HASH_ITER (hh, idents->by_digest, ident, next) {
		if (ident->state == HELD)
			idents->env.publish(idents->env.arg, &ident->pub);
	}
}

struct pb_ident *pb_idents_next(struct pb_idents *idents, uint32_t after)
{
	for (size_t i = 0; i < PB_IDENT_RANGES; i++) {
		struct range *range = &idents->ranges[i];
		uint32_t from = after < range->first ? 0 : after - range->first + 1;

		for (; from < range->n; from++)
			if (range->at[from] && range->at[from]->state == HELD)
				return &range->at[from]->pub;
	}
	return NULL;
}

struct pb_ident_counts pb_idents_count(const struct pb_idents *idents, enum pb_ident_range which)
{
	const struct range *range = &idents->ranges[which];

	return (struct pb_ident_counts){.held = range->held,
					.kept = range->taken - range->held,
					.room = range->n};
}
