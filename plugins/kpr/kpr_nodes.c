/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses in a hash by their text; what is chosen is computed anew from all of them, in an order
 * that doesn't depend on who came first.
 */
#include "kpr_nodes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NEVER (PB_NODE_ADDR_LOOPBACK | PB_NODE_ADDR_LINK | PB_NODE_ADDR_POD)
#define BY_NAME (PB_NODE_ADDR_INTERNAL | PB_NODE_ADDR_EXTERNAL)

void kpr_nodes_init(struct kpr_nodes *n, const struct kpr_node_rule *rule)
{
	*n = (struct kpr_nodes){.rule = *rule};
}

void kpr_nodes_free(struct kpr_nodes *n)
{
	struct kpr_node_entry *entry, *next;

	HASH_ITER (hh, n->entries, entry, next) {
		HASH_DEL(n->entries, entry);
		free(entry);
	}
}

int kpr_nodes_put(struct kpr_nodes *n, const char *key, const struct pb_node_address *value)
{
	size_t len = strlen(key);
	struct kpr_node_entry *entry;

	HASH_FIND(hh, n->entries, key, len, entry);
	if (!value) {
		if (entry)
			HASH_DEL(n->entries, entry);
		free(entry);
		return 0;
	}
	if (!entry) {
		entry = calloc(1, sizeof(*entry) + len + 1);
		if (!entry)
			return -ENOMEM;
		memcpy(entry->key, key, len);
		HASH_ADD_KEYPTR(hh, n->entries, entry->key, len, entry);
	}
	entry->value = value;
	return 0;
}

/* ---- choosing ---- */

static bool inside(const struct pb_node_address *a, const struct pb_cidr *cidr)
{
	uint32_t bytes = cidr->bits / 8, rest = cidr->bits % 8;

	return a->family == cidr->family && memcmp(&a->addr, &cidr->addr, bytes) == 0 &&
	       (rest == 0 ||
		((a->addr.bytes[bytes] ^ cidr->addr.bytes[bytes]) & 0xff00U >> rest & 0xff) == 0);
}

bool kpr_nodes_match(const struct kpr_nodes *n, const struct pb_cidr *cidr)
{
	for (const struct kpr_node_entry *e = n->entries; e; e = e->hh.next)
		if (!(e->value->flags & NEVER) && inside(e->value, cidr))
			return true;
	return false;
}

/* The better one of two has the lower rank: by its name in Kubernetes, then by its interface. */
static int rank(const struct pb_node_address *a)
{
	if (a->flags & PB_NODE_ADDR_INTERNAL)
		return 0;
	if (a->flags & PB_NODE_ADDR_DEVICE)
		return a->flags & PB_NODE_ADDR_SECONDARY ? 2 : 1;
	return a->flags & PB_NODE_ADDR_EXTERNAL ? 3 : 4;
}

static const struct pb_node_address *primary(const struct kpr_nodes *n, uint32_t family)
{
	const struct pb_node_address *best = NULL;

	for (const struct kpr_node_entry *e = n->entries; e; e = e->hh.next) {
		const struct pb_node_address *a = e->value;
		int order;

		if (a->family != family || a->flags & NEVER || rank(a) == 4)
			continue;
		order = best ? rank(a) - rank(best) : -1;
		if (order == 0)
			order = memcmp(&a->addr, &best->addr, sizeof(a->addr));
		if (order < 0)
			best = a;
	}
	return best;
}

bool kpr_nodes_primary(const struct kpr_nodes *n, uint32_t family, union pb_addr *ret_addr)
{
	const struct pb_node_address *best = primary(n, family);

	if (best)
		*ret_addr = best->addr;
	return best != NULL;
}

static bool has_node_ports(const struct kpr_nodes *n, const struct pb_node_address *a)
{
	if (n->rule.primary)
		return a == primary(n, a->family);
	for (uint32_t i = 0; i < n->rule.n_cidrs; i++)
		if (inside(a, &n->rule.cidrs[i]))
			return true;
	if (n->rule.n_cidrs > 0)
		return false;
	return a->flags & BY_NAME ||
	       (a->flags & PB_NODE_ADDR_DEVICE && !(a->flags & PB_NODE_ADDR_SECONDARY));
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct kpr_address));
}

int kpr_nodes_tell(const struct kpr_nodes *n, struct kpr_model *m)
{
	struct kpr_address *list = calloc(HASH_COUNT(n->entries) + 1U, sizeof(*list));
	uint32_t count = 0;
	int rc;

	if (!list)
		return -ENOMEM;
	for (const struct kpr_node_entry *e = n->entries; e; e = e->hh.next) {
		const struct pb_node_address *a = e->value;

		if (a->flags & NEVER || (a->family != 4 && a->family != 6))
			continue;
		list[count].ip.addr = a->addr;
		list[count].ip.family = a->family;
		list[count++].node_port = has_node_ports(n, a);
	}
	qsort(list, count, sizeof(*list), compare);
	rc = kpr_model_addresses(m, list, count);
	free(list);
	return rc;
}
