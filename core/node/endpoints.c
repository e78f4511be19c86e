/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of endpoints: by pod, by id, by interface.
 *
 * Owns ids, names and addresses of endpoints. Touches neither the datapath nor the kernel.
 */
#include <node/internal.h>

#include <arpa/inet.h>

/*
 * The id comes from the pod's uid (or the first address), so that a restarted agent finds the same
 * one again unless two collide: 16 bits, as Hubble's clients expect.
 */
static uint32_t new_id(struct pb_node *node, const char *seed)
{
	uint32_t id = (uint32_t)(pb_hash64(seed, strlen(seed), 0) % 65535);

	for (;;) {
		struct node_ep *taken;

		id = id % 65535 + 1;
		HASH_FIND(hh_id, node->by_id, &id, sizeof(id), taken);
		if (!taken)
			return id;
	}
}

struct node_ep *node_ep_new(struct pb_node *node, const char *seed)
{
	struct node_ep *ep = calloc(1, sizeof(*ep));

	if (!ep)
		return NULL;
	ep->uid = strdup("");
	if (!ep->uid) {
		free(ep);
		return NULL;
	}
	ep->serial = ++node->serials;
	ep->dirty = true;
	ep->rec.id = new_id(node, seed);
	ep->rec.identity = PB_IDENTITY_INIT;
	HASH_ADD_KEYPTR(hh_id, node->by_id, &ep->rec.id, sizeof(ep->rec.id), ep);
	return ep;
}

void node_ep_free(struct pb_node *node, struct node_ep *ep)
{
	node_untell(node, ep);
	node_ep_set_iface(node, ep, &(struct pb_iface){0});
	node_ep_unset_pod(node, ep);
	HASH_DELETE(hh_id, node->by_id, ep);
	free(ep->claim);
	free(ep->older_uid);
	free(ep->uid);
	free(ep->ips);
	free(ep);
}

struct node_ep *node_ep_by_key(struct pb_node *node, const char *key)
{
	struct node_ep *ep;

	HASH_FIND_STR(node->by_key, key, ep);
	return ep;
}

struct node_ep *node_ep_by_ifindex(struct pb_node *node, uint32_t ifindex)
{
	struct node_ep *ep;

	HASH_FIND(hh_if, node->by_if, &ifindex, sizeof(ifindex), ep);
	return ep;
}

struct node_ep *node_ep_by_serial(struct pb_node *node, uint64_t serial)
{
	struct node_ep *ep, *next;

	HASH_ITER (hh_id, node->by_id, ep, next) {
		if (ep->serial == serial)
			return ep;
	}
	return NULL;
}

struct node_ep *node_ep_by_addr(struct pb_node *node, const struct pb_kube_addr *addr)
{
	struct node_ep *ep, *next;

	HASH_ITER (hh_id, node->by_id, ep, next) {
		if (node_ep_has_ip(ep, addr))
			return ep;
	}
	return NULL;
}

struct node_ep *node_ep_early(struct pb_node *node, const struct pb_kube_addr *ips, uint32_t n)
{
	struct node_ep *ep, *next;

	HASH_ITER (hh_id, node->by_id, ep, next) {
		for (uint32_t i = 0; i < n && !ep->key && !ep->had_pod; i++)
			if (node_ep_has_ip(ep, &ips[i]))
				return ep;
	}
	return NULL;
}

int node_ep_set_id(struct pb_node *node, struct node_ep *ep, uint32_t id)
{
	struct node_ep *taken;

	if (id == ep->rec.id)
		return 0;
	HASH_FIND(hh_id, node->by_id, &id, sizeof(id), taken);
	if (taken || id == 0)
		return -EEXIST;
	HASH_DELETE(hh_id, node->by_id, ep);
	ep->rec.id = id;
	HASH_ADD_KEYPTR(hh_id, node->by_id, &ep->rec.id, sizeof(ep->rec.id), ep);
	return 0;
}

int node_ep_set_uid(struct node_ep *ep, const char *uid)
{
	char *copy = strdup(uid);

	if (!copy)
		return -ENOMEM;
	free(ep->uid);
	ep->uid = copy;
	return 0;
}

int node_ep_set_pod(struct pb_node *node, struct node_ep *ep, const char *ns, const char *name,
		    const char *uid)
{
	PB_FREE char *key = pb_sprintf("%s/%s", ns, name);
	PB_FREE char *ns_copy = strdup(ns);

	if (!key || !ns_copy || node_ep_set_uid(ep, uid) < 0)
		return -ENOMEM;
	ep->key = PB_TAKE_PTR(key);
	ep->ns = PB_TAKE_PTR(ns_copy);
	ep->name = ep->key + strlen(ns) + 1;
	ep->had_pod = true;
	HASH_ADD_KEYPTR(hh, node->by_key, ep->key, strlen(ep->key), ep);
	return 0;
}

void node_ep_unset_pod(struct pb_node *node, struct node_ep *ep)
{
	if (!ep->key)
		return;
	HASH_DEL(node->by_key, ep);
	free(ep->key);
	free(ep->ns);
	ep->key = ep->ns = NULL;
	ep->name = NULL;
	ep->uid[0] = '\0';
	ep->in_kube = false;
	ep->rec.identity = PB_IDENTITY_INIT;
}

/* ---- addresses ---- */

static bool same_addr(const struct pb_kube_addr *a, const struct pb_kube_addr *b)
{
	return a->family == b->family && memcmp(&a->addr, &b->addr, sizeof(a->addr)) == 0;
}

bool node_ep_has_ip(const struct node_ep *ep, const struct pb_kube_addr *addr)
{
	for (uint32_t i = 0; i < ep->n_ips; i++)
		if (same_addr(&ep->ips[i], addr))
			return true;
	return false;
}

bool node_ep_same_ips(const struct node_ep *ep, const struct pb_kube_addr *ips, uint32_t n)
{
	if (ep->n_ips != n)
		return false;
	for (uint32_t i = 0; i < n; i++)
		if (!same_addr(&ep->ips[i], &ips[i]))
			return false;
	return true;
}

int node_ep_set_ips(struct node_ep *ep, const struct pb_kube_addr *ips, uint32_t n)
{
	struct pb_kube_addr *copy = calloc(n + 1, sizeof(*copy));

	if (!copy)
		return -ENOMEM;
	if (n)
		memcpy(copy, ips, n * sizeof(*ips));
	free(ep->ips);
	ep->ips = copy;
	ep->n_ips = n;
	ep->routed = 0;
	memset(&ep->rec.addr4, 0, sizeof(ep->rec.addr4));
	memset(&ep->rec.addr6, 0, sizeof(ep->rec.addr6));
	/* The first of each family stays. */
	for (uint32_t i = n; i-- > 0;) {
		if (copy[i].family == 6)
			ep->rec.addr6 = copy[i].addr;
		else
			ep->rec.addr4.v4 = copy[i].addr.v4;
	}
	return 0;
}

void node_ep_set_iface(struct pb_node *node, struct node_ep *ep, const struct pb_iface *iface)
{
	if (ep->iface.ifindex)
		HASH_DELETE(hh_if, node->by_if, ep);
	if (ep->iface.ifindex != iface->ifindex) {
		node_host_addrs_look(node, ep->iface.ifindex, NULL);
		node_host_addrs_look(node, iface->ifindex, NULL);
	}
	ep->iface = *iface;
	ep->hooked = false;
	if (iface->ifindex)
		HASH_ADD_KEYPTR(hh_if, node->by_if, &ep->iface.ifindex, sizeof(uint32_t), ep);
}

/* ---- identity ---- */

bool node_ep_identify(struct pb_node *node, struct node_ep *ep)
{
	uint32_t identity;

	if (!ep->key)
		return false;
	identity = pb_peers_pod(node->peers, ep->ns, ep->name);
	/* After a restart a pod's labels take a moment, and the map still has the right number. */
	if (identity == PB_IDENTITY_UNKNOWN || identity == ep->rec.identity)
		return false;
	ep->rec.identity = identity;
	return true;
}

bool node_ep_identified(const struct node_ep *ep)
{
	return ep->rec.identity != PB_IDENTITY_INIT;
}

const char *node_ep_str(const struct node_ep *ep)
{
	return ep->key ? ep->key : "(not known yet)";
}
