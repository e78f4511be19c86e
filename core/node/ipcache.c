/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of prefixes. An entry knows its claims and what the map holds; settle() makes the two
 * agree and is the only place that writes. What can't be written waits in a list.
 */
#include <node/ipcache.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

struct pb_ip_entry {
	struct pb_cidr prefix;
	struct pb_ipcache_value value; /* in the map, when written */
	struct pb_ip_claim *claims;
	uint64_t seq;
	bool written;
	bool adopted; /* `value` is of an earlier process */
	bool waits;   /* in the list of those that had no room */
	struct pb_ip_entry *wait_prev, *wait_next;
	UT_hash_handle hh;
};

struct pb_ipcache {
	struct pb_ipcache_env env;
	struct pb_ip_entry *entries; /* in the order of seq */
	struct pb_ip_entry *waiting;
	uint64_t seq;
	uint32_t n[2]; /* written, by family */
	uint32_t n_waiting;
	int error;
	bool frozen;
	bool swept[2]; /* pods and nodes, ranges */
	struct pb_ip_entry *sweep_at;
};

/* ---- prefixes ---- */

struct pb_cidr pb_ip_prefix(const struct pb_kube_addr *addr)
{
	struct pb_cidr prefix = {.family = addr->family == 6 ? 6 : 4};

	if (prefix.family == 6) {
		prefix.addr = addr->addr;
		prefix.bits = 128;
	} else {
		prefix.addr.v4 = addr->addr.v4;
		prefix.bits = 32;
	}
	return prefix;
}

bool pb_cidr_valid(const struct pb_cidr *cidr)
{
	const unsigned width = cidr->family == 4 ? 32 : 128;

	if ((cidr->family != 4 && cidr->family != 6) || cidr->bits > width)
		return false;
	for (unsigned bit = cidr->bits; bit < 128; bit++)
		if (cidr->addr.bytes[bit / 8] & (0x80 >> bit % 8))
			return false;
	return true;
}

static size_t family_index(const struct pb_ip_entry *entry)
{
	return entry->prefix.family == 6;
}

/* ---- life ---- */

int pb_ipcache_new(const struct pb_ipcache_env *env, struct pb_ipcache **ret_cache)
{
	struct pb_ipcache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return -ENOMEM;
	cache->env = *env;
	*ret_cache = cache;
	return 0;
}

struct pb_ipcache *pb_ipcache_free(struct pb_ipcache *cache)
{
	struct pb_ip_entry *entry, *next;

	if (!cache)
		return NULL;
	HASH_ITER (hh, cache->entries, entry, next) {
		HASH_DEL(cache->entries, entry);
		free(entry);
	}
	free(cache);
	return NULL;
}

void pb_ipcache_freeze(struct pb_ipcache *cache)
{
	cache->frozen = true;
}

static struct pb_ip_entry *entry_find(struct pb_ipcache *cache, const struct pb_cidr *prefix)
{
	struct pb_ip_entry *entry;

	HASH_FIND(hh, cache->entries, prefix, sizeof(*prefix), entry);
	return entry;
}

static struct pb_ip_entry *entry_get(struct pb_ipcache *cache, const struct pb_cidr *prefix)
{
	struct pb_ip_entry *entry = entry_find(cache, prefix);

	if (entry)
		return entry;
	entry = calloc(1, sizeof(*entry));
	if (!entry)
		return NULL;
	entry->prefix = *prefix;
	entry->seq = ++cache->seq;
	HASH_ADD(hh, cache->entries, prefix, sizeof(entry->prefix), entry);
	if (!entry->hh.tbl) {
		free(entry);
		return NULL;
	}
	return entry;
}

static void entry_drop(struct pb_ipcache *cache, struct pb_ip_entry *entry)
{
	if (cache->sweep_at == entry)
		cache->sweep_at = entry->hh.next;
	HASH_DEL(cache->entries, entry);
	free(entry);
}

/* ---- the maps ---- */

static void stop_waiting(struct pb_ipcache *cache, struct pb_ip_entry *entry)
{
	if (!entry->waits)
		return;
	DL_DELETE2(cache->waiting, entry, wait_prev, wait_next);
	entry->waits = false;
	if (--cache->n_waiting == 0)
		cache->error = 0;
}

static void wait_for_room(struct pb_ipcache *cache, struct pb_ip_entry *entry, int error)
{
	cache->error = error;
	if (entry->waits)
		return;
	DL_APPEND2(cache->waiting, entry, wait_prev, wait_next);
	entry->waits = true;
	cache->n_waiting++;
}

static int map_put(struct pb_ipcache *cache, struct pb_ip_entry *entry,
		   const struct pb_ipcache_value *value)
{
	const size_t family = family_index(entry);
	int rc;

	/* One place stays free: the kernel wants it to replace an entry of a trie. */
	if (!entry->written && cache->n[family] + 1 >= cache->env.max[family])
		return -ENOSPC;
	rc = cache->env.put(cache->env.arg, &entry->prefix, value);
	if (rc < 0)
		return rc;
	cache->n[family] += !entry->written;
	entry->value = *value;
	entry->written = true;
	entry->adopted = false;
	return 0;
}

static int map_delete(struct pb_ipcache *cache, struct pb_ip_entry *entry)
{
	int rc = cache->env.del(cache->env.arg, &entry->prefix);

	if (rc < 0 && rc != -ENOENT)
		return rc;
	cache->n[family_index(entry)]--;
	entry->written = false;
	entry->adopted = false;
	return 0;
}

static bool stronger(const struct pb_ip_claim *a, const struct pb_ip_claim *b)
{
	if (a->says.source != b->says.source)
		return a->says.source > b->says.source;
	if (a->says.rank != b->says.rank)
		return a->says.rank > b->says.rank;
	return a->seq > b->seq;
}

static const struct pb_ip_claim *strongest(const struct pb_ip_entry *entry)
{
	const struct pb_ip_claim *claim, *best = entry->claims;

	DL_FOREACH (entry->claims, claim)
		best = stronger(claim, best) ? claim : best;
	return best;
}

/* Until the first full view is in, what an earlier process knew is better than nothing. */
static bool stays_adopted(const struct pb_ipcache *cache, const struct pb_ip_entry *entry,
			  const struct pb_ip_claim *best)
{
	if (!entry->adopted || cache->swept[entry->value.source == PB_IP_CIDR])
		return false;
	return !best || best->says.identity == PB_IDENTITY_INIT;
}

/* Makes the map say what the claims say. Frees an entry that neither has any more. */
static void settle(struct pb_ipcache *cache, struct pb_ip_entry *entry)
{
	const struct pb_ip_claim *best = strongest(entry);
	int rc = 0;

	if (cache->frozen || stays_adopted(cache, entry, best))
		return;
	if (best) {
		const struct pb_ipcache_value value = {.identity = best->says.identity,
						       .source = best->says.source,
						       .node4 = best->says.node4};

		if (!entry->written || memcmp(&entry->value, &value, sizeof(value)) != 0)
			rc = map_put(cache, entry, &value);
		else
			entry->adopted = false;
	} else if (entry->written) {
		rc = map_delete(cache, entry);
	}
	if (rc < 0)
		wait_for_room(cache, entry, rc);
	else
		stop_waiting(cache, entry);
	if (!best && !entry->written)
		entry_drop(cache, entry);
}

/* ---- claims ---- */

int pb_ipcache_adopt(struct pb_ipcache *cache, const struct pb_cidr *prefix,
		     const struct pb_ipcache_value *value)
{
	struct pb_ip_entry *entry = entry_get(cache, prefix);

	if (!entry)
		return -ENOMEM;
	entry->value = *value;
	entry->adopted = true;
	cache->n[family_index(entry)] += !entry->written;
	entry->written = true;
	return 0;
}

int pb_ipcache_claim(struct pb_ipcache *cache, struct pb_ip_claim *claim,
		     const struct pb_cidr *prefix, const struct pb_ip_says *says)
{
	struct pb_ip_entry *entry = claim->entry;

	if (entry && memcmp(&entry->prefix, prefix, sizeof(*prefix)) != 0) {
		pb_ipcache_unclaim(cache, claim);
		entry = NULL;
	}
	if (!entry) {
		entry = entry_get(cache, prefix);
		if (!entry)
			return -ENOMEM;
		claim->entry = entry;
		claim->seq = ++cache->seq;
		DL_APPEND(entry->claims, claim);
	}
	claim->says = *says;
	settle(cache, entry);
	return 0;
}

void pb_ipcache_unclaim(struct pb_ipcache *cache, struct pb_ip_claim *claim)
{
	struct pb_ip_entry *entry = PB_TAKE_PTR(claim->entry);

	if (!entry)
		return;
	DL_DELETE(entry->claims, claim);
	settle(cache, entry);
}

bool pb_ipcache_written(const struct pb_ip_claim *claim)
{
	return claim->entry && claim->entry->written && !claim->entry->waits;
}

/* ---- time ---- */

bool pb_ipcache_sweep(struct pb_ipcache *cache, bool ranges, unsigned max)
{
	struct pb_ip_entry *entry;

	if (!cache->swept[ranges]) {
		cache->swept[ranges] = true;
		cache->sweep_at = cache->entries;
	}
	for (; cache->sweep_at && max > 0; max--) {
		entry = cache->sweep_at;
		cache->sweep_at = entry->hh.next;
		if (entry->adopted && (entry->value.source == PB_IP_CIDR) == ranges)
			settle(cache, entry);
	}
	return cache->sweep_at != NULL;
}

bool pb_ipcache_retry(struct pb_ipcache *cache, unsigned max)
{
	uint32_t before = cache->n_waiting;

	for (; cache->waiting && max > 0; max--) {
		struct pb_ip_entry *entry = cache->waiting;
		uint32_t waiting = cache->n_waiting;

		settle(cache, entry);
		if (cache->n_waiting < waiting)
			continue;
		/* Another one may be of the other family, or need no room. */
		DL_DELETE2(cache->waiting, entry, wait_prev, wait_next);
		DL_APPEND2(cache->waiting, entry, wait_prev, wait_next);
	}
	return cache->waiting && cache->n_waiting < before;
}

/* ---- reports ---- */

struct pb_ipcache_counts pb_ipcache_count(const struct pb_ipcache *cache)
{
	return (struct pb_ipcache_counts){
		.entries = {cache->n[0], cache->n[1]},
		.max = {cache->env.max[0], cache->env.max[1]},
		.waiting = cache->n_waiting,
		.error = cache->error,
	};
}

bool pb_ipcache_next(struct pb_ipcache *cache, const struct pb_cidr *prefix, uint64_t seq,
		     struct pb_ip_row *ret_row)
{
	struct pb_ip_entry *entry = prefix ? entry_find(cache, prefix) : NULL;
	const struct pb_ip_claim *claim;

	if (entry && entry->seq == seq)
		entry = entry->hh.next;
	else
		for (entry = cache->entries; entry && prefix && entry->seq <= seq;)
			entry = entry->hh.next;
	while (entry && !entry->written)
		entry = entry->hh.next;
	if (!entry)
		return false;
	*ret_row = (struct pb_ip_row){.prefix = entry->prefix,
				      .value = entry->value,
				      .seq = entry->seq,
				      .who = entry->claims ? strongest(entry)->says.who : "",
				      .adopted = entry->adopted};
	DL_FOREACH (entry->claims, claim)
		ret_row->n_claims++;
	return true;
}
