/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of a kind one after the other, and every port at each of them. Kinds in the order in
 * which they win when a Service names one address twice: the one with source ranges comes first.
 */
#include "kpr_fronts.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define AFFINITY_MAX_S 86400
#define AFFINITY_DEFAULT_S 10800
#define ANNOTATION_TYPE "service.cilium.io/type"
#define ANNOTATION_MODE "service.cilium.io/forwarding-mode"
#define ANNOTATION_ALGORITHM "service.cilium.io/lb-algorithm"
#define ALL_KINDS (~0U)

/* ---- what an object says ---- */

static const char *value_of(const struct pb_kube_pair *pairs, uint32_t n, const char *key)
{
	for (uint32_t i = 0; i < n; i++)
		if (strcmp(pairs[i].key, key) == 0)
			return pairs[i].value;
	return NULL;
}

bool kpr_fronts_any(const struct pb_kube_service *obj, const char *proxy_name)
{
	const struct pb_kube_meta *meta = &obj->meta;
	const char *proxy =
		value_of(meta->labels, meta->n_labels, "service.kubernetes.io/service-proxy-name");

	return obj->type != PB_SERVICE_EXTERNAL_NAME && !(obj->flags & PB_SERVICE_HEADLESS) &&
	       !value_of(meta->labels, meta->n_labels, "service.kubernetes.io/headless") &&
	       (!proxy || strcmp(proxy, proxy_name) == 0);
}

uint32_t kpr_fronts_affinity(const struct pb_kube_service *obj)
{
	if (!(obj->flags & PB_SERVICE_AFFINITY_CLIENT_IP))
		return 0;
	return obj->affinity_seconds >= 1 && obj->affinity_seconds <= AFFINITY_MAX_S
		       ? obj->affinity_seconds
		       : AFFINITY_DEFAULT_S;
}

const char *kpr_kind_name(uint32_t kind)
{
	static const char *const names[] = {"",		  "ClusterIP",	  "NodePort",
					    "ExternalIP", "LoadBalancer", "HostPort"};

	return names[kind < sizeof(names) / sizeof(names[0]) ? kind : 0];
}

static const char *annotation(const struct pb_kube_service *obj, const char *key)
{
	return value_of(obj->meta.annotations, obj->meta.n_annotations, key);
}

/* The kinds that a comma separated list names, a bit each; 0: it names something else. */
static uint32_t kinds_of(const char *list)
{
	uint32_t kinds = 0;
	size_t len;

	for (const char *at = list; *at; at += len, at += *at == ',') {
		uint32_t kind = PB_SVC_CLUSTER_IP;

		at += strspn(at, " ");
		len = strcspn(at, ",");
		while (kind < PB_SVC_HOST_PORT && (strncmp(at, kpr_kind_name(kind), len) != 0 ||
						   strlen(kpr_kind_name(kind)) != len))
			kind++;
		if (kind == PB_SVC_HOST_PORT)
			return 0;
		kinds |= 1U << kind;
	}
	return kinds;
}

static uint32_t kinds_wanted(const struct pb_kube_service *obj)
{
	const char *list = annotation(obj, ANNOTATION_TYPE);
	uint32_t kinds = list ? kinds_of(list) : ALL_KINDS;

	return kinds ? kinds : ALL_KINDS;
}

static uint32_t mode_flags(const struct pb_kube_service *obj)
{
	const char *mode = annotation(obj, ANNOTATION_MODE);

	if (mode && strcmp(mode, "dsr") == 0)
		return PB_SVC_USE_DSR;
	return mode && strcmp(mode, "snat") == 0 ? PB_SVC_USE_SNAT : 0;
}

/* 1: maglev, 0: random, -1: the annotation is there and says neither. */
static int algorithm_of(const struct pb_kube_service *obj, bool by_default)
{
	const char *text = annotation(obj, ANNOTATION_ALGORITHM);

	if (!text)
		return by_default;
	if (strcmp(text, "maglev") == 0)
		return 1;
	return strcmp(text, "random") == 0 ? 0 : -1;
}

static bool wants_maglev(const struct kpr_model *m, const struct pb_kube_service *obj)
{
	int algorithm = algorithm_of(obj, m->opts.maglev);

	return algorithm < 0 ? m->opts.maglev : algorithm == 1;
}

/* ---- warnings ---- */

struct warnings {
	char *text;
	size_t len;
	size_t size;
};

static void add_warning(struct warnings *w, const char *line)
{
	int n = snprintf(w->text + w->len, w->size - w->len, "%s%s", w->len ? "\n" : "", line);

	if (n > 0 && (size_t)n < w->size - w->len)
		w->len += (size_t)n;
	else
		w->text[w->len] = '\0';
}

static void warn_ports(const struct kpr_model *m, const struct pb_kube_service *obj,
		       struct warnings *w)
{
	char line[256];

	for (uint32_t i = 0; i < obj->n_ports; i++) {
		uint16_t port = obj->ports[i].node_port;
		bool inside = port >= m->opts.node_port_min && port <= m->opts.node_port_max;

		if (port == 0 || (inside == (obj->type == KPR_TYPE_HOST_PORT)) == false)
			continue;
		if (obj->type == KPR_TYPE_HOST_PORT)
			snprintf(line, sizeof(line),
				 "hostPort %u is in the NodePort range and is ignored: choose one "
				 "outside of %u-%u",
				 port, m->opts.node_port_min, m->opts.node_port_max);
		else
			snprintf(line, sizeof(line),
				 "nodePort %u is outside of the NodePort range %u-%u: clients of "
				 "this node don't reach it at other nodes' addresses; set "
				 "node_port.range as the API server's --service-node-port-range",
				 port, m->opts.node_port_min, m->opts.node_port_max);
		add_warning(w, line);
	}
}

/* ---- the walk ---- */

struct walk {
	const struct kpr_model *m;
	const struct pb_kube_service *obj;
	kpr_wish_fn fn;
	void *arg;
	uint32_t kind;
	uint32_t flags;
	bool at_node;
	bool maglev; /* of this kind, where packets come from outside */
	uint32_t told;
	bool cut; /* there were more than KPR_FRONTS_MAX */
	int rc;
};

/* Whether the next one may be told of. */
static bool go_on(struct walk *w)
{
	w->cut = w->cut || w->told >= KPR_FRONTS_MAX;
	return w->rc >= 0 && !w->cut;
}

/*
 * An address that means something else to everybody. A frontend there would take calls that a
 * process makes to itself, or stand where NodePorts of other Services do.
 */
static bool is_reserved(const struct pb_kube_addr *ip)
{
	uint32_t v4 = ntohl(ip->addr.v4);
	struct in6_addr v6;

	if (ip->family == 4)
		return v4 >> 24 == 0 || v4 >> 24 == 127 || v4 >> 28 >= 14;
	memcpy(&v6, &ip->addr, sizeof(v6));
	return IN6_IS_ADDR_UNSPECIFIED(&v6) || IN6_IS_ADDR_LOOPBACK(&v6) ||
	       IN6_IS_ADDR_MULTICAST(&v6);
}

static const char *why_not(const struct walk *w, const struct pb_kube_addr *ip,
			   const struct pb_service_port *port, uint16_t number)
{
	if (!w->at_node && is_reserved(ip))
		return "not translated: reserved address";
	if (number == 0 || (port->protocol != IPPROTO_TCP && port->protocol != IPPROTO_UDP &&
			    port->protocol != IPPROTO_SCTP))
		return "not translated: protocol or port";
	if (w->kind == PB_SVC_HOST_PORT && number >= w->m->opts.node_port_min &&
	    number <= w->m->opts.node_port_max)
		return "ignored: in the NodePort range";
	return NULL;
}

static void tell(struct walk *w, struct kpr_wish *wish, uint32_t scope, bool local, uint32_t flags)
{
	if (w->rc < 0)
		return;
	wish->key.scope = (uint8_t)scope;
	wish->local = local;
	wish->flags = flags | (local ? PB_SVC_LOCAL : 0);
	w->told++;
	wish->outside = scope == PB_SVC_SCOPE_EXT || !(flags & PB_SVC_SPLIT);
	if (w->maglev && wish->outside)
		wish->flags |= PB_SVC_MAGLEV;
	w->rc = w->fn(w->arg, wish);
}

/*
 * A port at an address. Clients of this node may use backends of other nodes also when the external
 * traffic policy is Local, so then there are two entries.
 */
static void walk_port(struct walk *w, const struct pb_kube_addr *ip,
		      const struct pb_service_port *port, uint16_t number)
{
	struct kpr_wish wish = {.ip = *ip,
				.port = port,
				.number = number,
				.at_node = w->at_node,
				.why = why_not(w, ip, port, number)};
	uint32_t flags = w->flags | w->kind << PB_SVC_KIND_SHIFT;

	if (ip->family != 4 && ip->family != 6)
		return;
	wish.key.addr = ip->addr;
	wish.key.port = htons(number);
	wish.key.protocol = port->protocol;
	wish.key.family = (uint8_t)ip->family;
	if (w->kind == PB_SVC_CLUSTER_IP) {
		tell(w, &wish, PB_SVC_SCOPE_INT, w->obj->flags & PB_SERVICE_INTERNAL_LOCAL, flags);
	} else if (w->kind == PB_SVC_HOST_PORT || !(w->obj->flags & PB_SERVICE_EXTERNAL_LOCAL)) {
		tell(w, &wish, PB_SVC_SCOPE_INT, false, flags);
	} else {
		tell(w, &wish, PB_SVC_SCOPE_INT, false, flags | PB_SVC_SPLIT);
		tell(w, &wish, PB_SVC_SCOPE_EXT, true, flags);
	}
}

static void walk_kind(struct walk *w, uint32_t kind, uint32_t flags)
{
	w->kind = kind;
	w->at_node = kind == PB_SVC_NODE_PORT || kind == PB_SVC_HOST_PORT;
	w->flags = flags | (kind == PB_SVC_CLUSTER_IP ? 0 : mode_flags(w->obj));
	/* A HostPort has one backend. */
	w->maglev = kind != PB_SVC_HOST_PORT &&
		    (kind != PB_SVC_CLUSTER_IP || w->m->opts.cluster_ip_external) &&
		    wants_maglev(w->m, w->obj);
}

static bool is_any(const struct pb_kube_addr *ip)
{
	static const union pb_addr zero;

	return ip->family == 0 || memcmp(&ip->addr, &zero, sizeof(zero)) == 0;
}

static void walk_ports(struct walk *w, const struct pb_kube_addr *ip)
{
	for (uint32_t i = 0; i < w->obj->n_ports && go_on(w); i++)
		walk_port(w, ip, &w->obj->ports[i], w->obj->ports[i].port);
}

/* At any address of the node, and at each that packets from outside come to. */
static void walk_node(struct walk *w, uint32_t family, const struct pb_service_port *port)
{
	const struct pb_kube_addr any = {.family = family};

	walk_port(w, &any, port, port->node_port);
	for (uint32_t i = 0; i < w->m->n_addresses; i++) {
		const struct kpr_address *at = &w->m->addresses[i];

		if (at->ip.family == family && (at->node_port || w->kind == PB_SVC_HOST_PORT))
			walk_port(w, &at->ip, port, port->node_port);
	}
}

static bool has_family(const struct pb_kube_service *obj, uint32_t family)
{
	for (uint32_t i = 0; i < obj->n_cluster_ips; i++)
		if (obj->cluster_ips[i].family == family)
			return true;
	return false;
}

static void walk_node_ports(struct walk *w)
{
	for (uint32_t i = 0; i < w->obj->n_ports && go_on(w); i++) {
		if (w->obj->ports[i].node_port == 0)
			continue;
		if (has_family(w->obj, 4))
			walk_node(w, 4, &w->obj->ports[i]);
		if (has_family(w->obj, 6))
			walk_node(w, 6, &w->obj->ports[i]);
	}
}

/*
 * The host IP of port i of a pod stands behind the pod's own addresses in cluster_ips. Only an
 * address of this node is taken: any other would draw somebody else's packets.
 */
static void walk_host_ports(struct walk *w)
{
	uint32_t families = w->obj->n_cluster_ips - w->obj->n_ports;

	for (uint32_t i = 0; i < w->obj->n_ports && go_on(w); i++) {
		const struct pb_kube_addr *at = &w->obj->cluster_ips[families + i];

		if (is_any(at)) {
			for (uint32_t f = 0; f < families; f++)
				walk_node(w, w->obj->cluster_ips[f].family, &w->obj->ports[i]);
			continue;
		}
		for (uint32_t a = 0; a < w->m->n_addresses; a++)
			if (w->m->addresses[a].ip.family == at->family &&
			    memcmp(&w->m->addresses[a].ip.addr, &at->addr, sizeof(at->addr)) == 0)
				walk_port(w, at, &w->obj->ports[i], w->obj->ports[i].node_port);
	}
}

static void walk_all(struct walk *w)
{
	const struct pb_kube_service *obj = w->obj;
	const struct kpr_model *m = w->m;
	uint32_t kinds = kinds_wanted(obj);
	bool limited = obj->flags & PB_SERVICE_SOURCE_RANGES_GIVEN;

	if (obj->type == KPR_TYPE_HOST_PORT) {
		walk_kind(w, PB_SVC_HOST_PORT, 0);
		walk_host_ports(w);
		return;
	}
	walk_kind(w, PB_SVC_CLUSTER_IP, 0);
	for (uint32_t i = 0; i < obj->n_cluster_ips && kinds & 1U << PB_SVC_CLUSTER_IP; i++)
		walk_ports(w, &obj->cluster_ips[i]);
	walk_kind(w, PB_SVC_LOAD_BALANCER, limited ? PB_SVC_RANGES : 0);
	for (uint32_t i = 0;
	     i < obj->n_ingress && m->opts.load_balancer && obj->type == PB_SERVICE_LOAD_BALANCER &&
	     kinds & 1U << PB_SVC_LOAD_BALANCER;
	     i++)
		if (!obj->ingress[i].proxied)
			walk_ports(w, &obj->ingress[i].ip);
	walk_kind(w, PB_SVC_EXTERNAL_IP, 0);
	for (uint32_t i = 0;
	     i < obj->n_external_ips && m->opts.external_ips && kinds & 1U << PB_SVC_EXTERNAL_IP;
	     i++)
		walk_ports(w, &obj->external_ips[i]);
	walk_kind(w, PB_SVC_NODE_PORT, 0);
	if (m->opts.node_ports && kinds & 1U << PB_SVC_NODE_PORT &&
	    (obj->type == PB_SERVICE_NODE_PORT || obj->type == PB_SERVICE_LOAD_BALANCER))
		walk_node_ports(w);
}

int kpr_fronts_each(const struct kpr_model *m, const struct pb_kube_service *obj, kpr_wish_fn fn,
		    void *arg)
{
	struct walk w = {.m = m, .obj = obj, .fn = fn, .arg = arg};

	walk_all(&w);
	return w.rc;
}

/* ---- all that is wrong ---- */

struct look {
	const struct pb_kube_addr *reserved; /* the first */
	struct pb_kube_addr ip;
};

static int look_at(void *arg, const struct kpr_wish *wish)
{
	struct look *look = arg;

	if (wish->at_node || look->reserved || !is_reserved(&wish->ip))
		return 0;
	look->ip = wish->ip;
	look->reserved = &look->ip;
	return 0;
}

static void warn_frontends(const struct kpr_model *m, const struct pb_kube_service *obj,
			   struct warnings *w)
{
	struct look look = {0};
	struct walk walk = {.m = m, .obj = obj, .fn = look_at, .arg = &look};
	char ip[INET6_ADDRSTRLEN] = "";
	char line[256];

	walk_all(&walk);
	if (look.reserved) {
		inet_ntop(look.ip.family == 4 ? AF_INET : AF_INET6, &look.ip.addr, ip, sizeof(ip));
		snprintf(line, sizeof(line),
			 "address %s is reserved and is ignored: take it out of clusterIPs, "
			 "externalIPs or status.loadBalancer",
			 ip);
		add_warning(w, line);
	}
	if (walk.cut) {
		snprintf(line, sizeof(line),
			 "it has more than %u frontends (ports times addresses); those that follow "
			 "are ignored: use fewer ports or addresses",
			 KPR_FRONTS_MAX);
		add_warning(w, line);
	}
}

void kpr_fronts_warnings(const struct kpr_model *m, const struct pb_kube_service *obj, char *text,
			 size_t len)
{
	struct warnings w = {.text = text, .size = len};
	const char *type = annotation(obj, ANNOTATION_TYPE);
	const char *mode = annotation(obj, ANNOTATION_MODE);

	text[0] = '\0';
	warn_ports(m, obj, &w);
	warn_frontends(m, obj, &w);
	if (type && kinds_of(type) == 0)
		add_warning(&w, "annotation " ANNOTATION_TYPE " is ignored: it must be a list of "
				"ClusterIP, NodePort, ExternalIP and LoadBalancer");
	if (mode && mode_flags(obj) == 0)
		add_warning(&w,
			    "annotation " ANNOTATION_MODE " is ignored: it must be dsr or snat");
	if (algorithm_of(obj, false) < 0)
		add_warning(&w, "annotation " ANNOTATION_ALGORITHM
				" is ignored: it must be random or maglev");
	if ((obj->flags & PB_SERVICE_AFFINITY_CLIENT_IP) &&
	    kpr_fronts_affinity(obj) != obj->affinity_seconds)
		add_warning(&w, "sessionAffinityConfig.clientIP.timeoutSeconds must be 1 to 86400: "
				"10800 is used");
	if ((obj->flags & PB_SERVICE_SOURCE_RANGES_GIVEN) && obj->n_source_ranges == 0)
		add_warning(&w, "loadBalancerSourceRanges has no valid entry: nobody is let in at "
				"its load balancer addresses");
}
