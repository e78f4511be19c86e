/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks for the interfaces of endpoints, and of addresses that have none yet.
 *
 * Owns the questions to the kernel. They may keep us waiting, so they are asked on the pool, one
 * batch at a time; an answer counts only if nothing that it was about has changed meanwhile.
 */
#include <node/internal.h>

#include <base/log.h>

struct question {
	uint64_t serial; /* of the endpoint, which may be gone by the time of the answer; 0: none */
	struct pb_kube_addr *ips;
	uint32_t n_ips;
	char named[IF_NAMESIZE]; /* by a CNI plugin; "" : follow the routes */
	int named_code;
	uint32_t ifindex;	 /* where it was found last, 0: nowhere */
	struct pb_nl_link link;	 /* that device, ifindex 0: gone */
	struct pb_iface *ifaces; /* by address; the first one is the named one */
	char why[160];
};

struct node_lookup {
	uv_work_t work;
	struct pb_node *node;
	size_t n;
	struct question questions[NODE_LOOKUPS];
	struct pb_cidr *cidrs; /* to look through all routes for; NULL: don't */
	uint32_t n_cidrs;
	struct pb_kube_addr *found;
	size_t n_found;
	bool host;
	int host_code;
	struct pb_node_address *host_addrs;
	size_t n_host;
};

/* ---- which endpoints ---- */

static void look_if(struct pb_node *node, bool (*about)(const struct node_ep *ep, const void *arg),
		    const void *arg)
{
	struct node_ep *ep, *next;
	bool any = false;

	HASH_ITER (hh_id, node->by_id, ep, next) {
		ep->dirty |= about(ep, arg);
		any |= ep->dirty;
	}
	if (any)
		node_schedule(node, NODE_SETTLE_MS);
}

static bool is_any(const struct node_ep *ep, const void *arg)
{
	(void)ep;
	(void)arg;
	return true;
}

static bool is_waiting(const struct node_ep *ep, const void *arg)
{
	(void)arg;
	return !ep->iface.ifindex;
}

static bool is_on_device(const struct node_ep *ep, const void *ifindex)
{
	return !ep->iface.ifindex || ep->iface.ifindex == *(const uint32_t *)ifindex;
}

static bool is_in_prefix(const struct node_ep *ep, const void *cidr)
{
	for (uint32_t i = 0; i < ep->n_ips; i++)
		if (node_cidr_has(cidr, &ep->ips[i]))
			return true;
	return false;
}

void node_look_all(struct pb_node *node)
{
	look_if(node, is_any, NULL);
}

void node_look_waiting(struct pb_node *node)
{
	look_if(node, is_waiting, NULL);
}

void node_look_device(struct pb_node *node, uint32_t ifindex)
{
	look_if(node, is_on_device, &ifindex);
}

void node_look_prefix(struct pb_node *node, const struct pb_kube_addr *addr, uint32_t bits)
{
	struct pb_cidr cidr = {.addr = addr->addr,
			       .family = (uint8_t)addr->family,
			       .bits = (uint8_t)bits};

	look_if(node, is_in_prefix, &cidr);
}

/* ---- asking ---- */

static void lookup_free(struct node_lookup *lookup)
{
	for (size_t i = 0; i < lookup->n; i++) {
		free(lookup->questions[i].ips);
		free(lookup->questions[i].ifaces);
	}
	free(lookup->cidrs);
	free(lookup->found);
	free(lookup->host_addrs);
	free(lookup);
}

static int ask(struct question *q, const struct pb_kube_addr *ips, uint32_t n)
{
	q->ips = calloc(n + 1, sizeof(*q->ips));
	q->ifaces = calloc(n + 1, sizeof(*q->ifaces));
	if (!q->ips || !q->ifaces)
		return -ENOMEM;
	if (n)
		memcpy(q->ips, ips, n * sizeof(*q->ips));
	q->n_ips = n;
	return 0;
}

static void ask_kernel(struct mnl_socket *nl, struct question *q)
{
	if (q->ifindex && pb_nl_link_get(nl, q->ifindex, &q->link) < 0)
		q->link = (struct pb_nl_link){0};
	if (q->named[0]) {
		q->named_code = pb_node_resolve_name(nl, q->named, &q->ifaces[0], q->why);
		return;
	}
	for (uint32_t i = 0; i < q->n_ips; i++)
		pb_node_resolve(nl, &q->ips[i], &q->ifaces[i], q->why);
}

static void lookup_on_pool(uv_work_t *work)
{
	struct node_lookup *lookup = work->data;
	struct mnl_socket *nl = lookup->node->nl;

	for (size_t i = 0; i < lookup->n; i++)
		ask_kernel(nl, &lookup->questions[i]);
	if (lookup->cidrs)
		node_scan(nl, lookup->cidrs, lookup->n_cidrs, &lookup->found, &lookup->n_found);
	if (lookup->host)
		lookup->host_code = node_host_addrs(nl, &lookup->host_addrs, &lookup->n_host);
}

/* ---- answers ---- */

static const struct pb_iface *first_iface(const struct pb_node *node, const struct question *q,
					  char *why, size_t len)
{
	uint32_t n = q->named[0] ? 1 : q->n_ips;

	snprintf(why, len, "%s", q->why);
	for (uint32_t i = 0; i < n; i++) {
		if (!q->ifaces[i].ifindex)
			continue;
		if (!node_is_device(node, q->ifaces[i].name))
			return &q->ifaces[i];
		snprintf(why, len, "not hookable: datapath.devices names %s", q->ifaces[i].name);
	}
	return NULL;
}

static void no_iface(struct pb_node *node, struct node_ep *ep, const struct question *q,
		     const char *why)
{
	if (ep->iface.ifindex)
		return;
	snprintf(ep->why, sizeof(ep->why), "%s", why);
	if (ep->claim && q->named[0])
		node_claim_refuse(node, ep, q->named_code ? q->named_code : -EBUSY, why);
}

/* What a CNI plugin named, or what has no pod, stays where it is until the device goes. */
static bool stays(const struct node_ep *ep)
{
	return ep->iface.ifindex && (ep->claim || !ep->key);
}

/*
 * A living interface isn't given up for one that is another pod's, nor because a bridge's
 * neighbours say so: whoever answers ARP for an address would take the hooks off the pod that has
 * it.
 */
static bool keeps(const struct node_ep *ep, const struct pb_iface *iface,
		  const struct node_ep *owner)
{
	return ep->iface.ifindex && (iface->bridged || (owner && owner->key));
}

/* The older of two endpoints speaks for an address that both have. */
static void dispute(struct pb_node *node, struct node_ep *ep, const struct node_ep *owner)
{
	bool disputed = false;

	for (uint32_t i = 0; owner && owner->key && i < ep->n_ips; i++)
		disputed |= owner->serial < ep->serial && node_ep_has_ip(owner, &ep->ips[i]);
	if (disputed == ep->disputed)
		return;
	ep->disputed = disputed;
	if (disputed)
		pb_warn("node", "pod %s claims an address of pod %s, which keeps it",
			node_ep_str(ep), owner->key);
	node_tell(node, ep);
}

/* A bridge's neighbours take nothing away, as above. */
static void note_routes(struct node_ep *ep, const struct question *q, const struct pb_iface *iface)
{
	if (iface->ifindex != ep->iface.ifindex)
		ep->routed = 0;
	for (uint32_t i = 0; !q->named[0] && i < q->n_ips && i < 64; i++) {
		if (q->ifaces[i].ifindex == iface->ifindex)
			ep->routed |= 1ULL << i;
		else if (q->ifaces[i].ifindex && !q->ifaces[i].bridged)
			ep->routed &= ~(1ULL << i);
	}
}

static void answer(struct pb_node *node, struct node_ep *ep, const struct question *q)
{
	char why[sizeof(ep->why)];
	const struct pb_iface *iface = first_iface(node, q, why, sizeof(why));
	const struct node_ep *owner;

	if (ep->iface.ifindex && node_is_device(node, q->link.name)) {
		node_unhook(node, ep);
		if (!ep->key) {
			node_ep_free(node, ep);
			return;
		}
	}
	if (ep->iface.ifindex)
		memcpy(ep->iface.name, q->link.name, sizeof(ep->iface.name));
	owner = iface ? node_ep_by_ifindex(node, iface->ifindex) : NULL;
	if (iface)
		dispute(node, ep, owner);
	if (stays(ep) || (iface && keeps(ep, iface, owner)))
		iface = &ep->iface;
	if (!iface) {
		no_iface(node, ep, q, why);
		return;
	}
	note_routes(ep, q, iface);
	if (iface->ifindex != ep->iface.ifindex) {
		node_unhook(node, ep);
		node_hook(node, ep, iface);
	} else if (!ep->hooked && ep->last_code < 0) {
		/* Again; what is under way comes to its end. */
		node_hook(node, ep, iface);
	} else {
		node_tell(node, ep);
	}
}

static const char *named(const struct node_ep *ep)
{
	return ep->claim && !ep->iface.ifindex ? ep->claim->interface : "";
}

static void endpoint_answered(struct pb_node *node, const struct question *q)
{
	struct node_ep *ep = node_ep_by_serial(node, q->serial);

	/* What moved or got other addresses meanwhile is dirty, so it is asked again. */
	if (!ep || ep->iface.ifindex != q->ifindex || !node_ep_same_ips(ep, q->ips, q->n_ips) ||
	    strcmp(named(ep), q->named) != 0)
		return;
	if (q->ifindex && !q->link.ifindex)
		node_device_gone(node, q->ifindex);
	else
		answer(node, ep, q);
}

static void host_answered(struct pb_node *node, struct node_lookup *lookup)
{
	int rc = lookup->host_code;

	if (rc == 0)
		rc = node_host_addrs_tell(node, PB_TAKE_PTR(lookup->host_addrs), lookup->n_host);
	if (rc == 0)
		return;
	pb_warn("node", "addresses of this node: %s; asked again when one changes", strerror(-rc));
}

static void lookup_answered(uv_work_t *work, int status)
{
	struct node_lookup *lookup = work->data;
	struct pb_node *node = lookup->node;

	(void)status;
	node->lookup = NULL;
	for (size_t i = 0; i < lookup->n && !node->closing; i++) {
		const struct question *q = &lookup->questions[i];

		if (q->serial)
			endpoint_answered(node, q);
		else if (q->ifaces[0].ifindex)
			node_candidate_found(node, &q->ips[0], &q->ifaces[0]);
	}
	for (size_t i = 0; i < lookup->n_found && !node->closing; i++)
		node_candidate_add(node, &lookup->found[i]);
	if (lookup->host && !node->closing)
		host_answered(node, lookup);
	lookup_free(lookup);
	if (node->closing)
		node_finish(node);
	else
		node_schedule(node, 0);
}

/* ---- what to ask ---- */

static int ask_endpoints(struct pb_node *node, struct node_lookup *lookup)
{
	struct node_ep *ep, *next;

	HASH_ITER (hh_id, node->by_id, ep, next) {
		struct question *q = &lookup->questions[lookup->n];

		if (!ep->dirty)
			continue;
		if (lookup->n == NODE_LOOKUPS)
			break;
		lookup->n++;
		if (ask(q, ep->ips, ep->n_ips) < 0)
			return -ENOMEM;
		q->serial = ep->serial;
		q->ifindex = ep->iface.ifindex;
		snprintf(q->named, sizeof(q->named), "%s", named(ep));
		ep->dirty = false;
	}
	return 0;
}

static int ask_candidates(struct pb_node *node, struct node_lookup *lookup)
{
	struct node_candidate *c, *next;

	HASH_ITER (hh, node->candidates, c, next) {
		if (lookup->n == NODE_LOOKUPS)
			break;
		if (ask(&lookup->questions[lookup->n++], &c->addr, 1) < 0)
			return -ENOMEM;
		HASH_DEL(node->candidates, c);
		free(c);
	}
	return 0;
}

static int ask_scan(struct pb_node *node, struct node_lookup *lookup)
{
	if (!node->n_cidrs)
		node->scan = false;
	if (!node->scan)
		return 0;
	lookup->cidrs = calloc(node->n_cidrs, sizeof(*lookup->cidrs));
	if (!lookup->cidrs)
		return -ENOMEM;
	memcpy(lookup->cidrs, node->cidrs, node->n_cidrs * sizeof(*lookup->cidrs));
	lookup->n_cidrs = node->n_cidrs;
	node->scan = false;
	return 0;
}

bool node_look_up(struct pb_node *node)
{
	struct node_lookup *lookup = calloc(1, sizeof(*lookup));

	/* Without memory for all, what there is room for; the rest stays dirty. */
	if (!lookup || ask_endpoints(node, lookup) < 0 || ask_candidates(node, lookup) < 0 ||
	    ask_scan(node, lookup) < 0 || (lookup->n == 0 && !lookup->cidrs && !node->host_addrs)) {
		if (lookup)
			lookup_free(lookup);
		return false;
	}
	lookup->host = node->host_addrs;
	node->host_addrs = false;
	lookup->node = node;
	lookup->work.data = lookup;
	node->lookup = lookup;
	uv_queue_work(node->loop, &lookup->work, lookup_on_pool, lookup_answered);
	return true;
}
