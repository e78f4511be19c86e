/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pods, Nodes and Namespaces: identity, addresses and ports only. What a pod runs is not read.
 */
#include <kube/decode.h>

struct pod_spans {
	struct pb_span node, account, host_network, containers, phase, ip, ips;
};

static void find_spans(const struct pb_decode *d, struct pod_spans *s)
{
	const struct pb_scan_field spec[] = {{"nodeName", &s->node},
					     {"serviceAccountName", &s->account},
					     {"hostNetwork", &s->host_network},
					     {"containers", &s->containers}};
	const struct pb_scan_field status[] = {{"phase", &s->phase},
					       {"podIP", &s->ip},
					       {"podIPs", &s->ips}};

	pb_scan_fields(d->spec, spec, PB_ARRAY_LEN(spec));
	pb_scan_fields(d->status, status, PB_ARRAY_LEN(status));
}

static uint32_t phase_of(struct pb_span value)
{
	if (!pb_span_type(value) || pb_span_is(value, "Pending"))
		return PB_POD_PENDING;
	if (pb_span_is(value, "Running"))
		return PB_POD_RUNNING;
	if (pb_span_is(value, "Succeeded"))
		return PB_POD_SUCCEEDED;
	return pb_span_is(value, "Failed") ? PB_POD_FAILED : PB_POD_UNKNOWN;
}

static void fill_ips(struct pb_decode *d, const struct pod_spans *s, struct pb_kube_pod *pod)
{
	struct pb_scan scan = pb_decode_list(d, s->ips, "status.podIPs");
	PB_FREE struct pb_kube_addr *ips = pb_decode_room(d, pb_decode_count(s->ips), sizeof(*ips));
	struct pb_span value, ip;
	const struct pb_scan_field fields[] = {{"ip", &ip}};
	uint32_t n = 0;

	while (ips && pb_scan_element(&scan, &value)) {
		pb_scan_fields(value, fields, PB_ARRAY_LEN(fields));
		n += pb_decode_addr(d, ip, "status.podIPs.ip", &ips[n]);
	}
	if (ips && n == 0 && pb_span_type(s->ip) && !pb_span_is(s->ip, ""))
		n += pb_decode_addr(d, s->ip, "status.podIP", &ips[n]);
	pod->ips = pb_kube_arena_copy(&d->arena, ips, n, sizeof(*ips), NULL);
	pod->n_ips = pod->ips ? n : 0;
	pb_kube_arena_slot(&d->arena, &pod->ips);
}

static bool read_port(struct pb_decode *d, struct pb_span value, struct pb_pod_port *port)
{
	struct pb_span name, protocol, number, host_port, host_ip;
	const struct pb_scan_field fields[] = {{"name", &name},
					       {"protocol", &protocol},
					       {"containerPort", &number},
					       {"hostPort", &host_port},
					       {"hostIP", &host_ip}};
	int64_t n = 0, host = 0;

	*port = (struct pb_pod_port){0};
	pb_scan_fields(value, fields, PB_ARRAY_LEN(fields));
	if (!pb_decode_number(d, number, "spec.containers.ports.containerPort", 1, 65535, &n))
		return false;
	port->protocol = pb_decode_protocol(protocol);
	if (!port->protocol) {
		pb_decode_warn(d, "spec.containers.ports: a protocol other than TCP, UDP and SCTP");
		return false;
	}
	if (pb_span_type(host_ip) && !pb_span_is(host_ip, "") &&
	    !pb_decode_addr(d, host_ip, "spec.containers.ports.hostIP", &port->host_ip))
		return false;
	pb_decode_number(d, host_port, "spec.containers.ports.hostPort", 0, 65535, &host);
	port->container_port = (uint16_t)n;
	port->host_port = (uint16_t)host;
	pb_decode_text(d, name, "spec.containers.ports.name", &port->name);
	return true;
}

/* The ports of one container, or only their number when `ports` is NULL. */
static uint32_t container_ports(struct pb_decode *d, struct pb_span container,
				struct pb_pod_port *ports)
{
	struct pb_span list, value;
	const struct pb_scan_field fields[] = {{"ports", &list}};
	struct pb_scan scan;
	uint32_t n = 0;

	pb_scan_fields(container, fields, PB_ARRAY_LEN(fields));
	if (!ports)
		return (uint32_t)pb_decode_count(list);
	scan = pb_decode_list(d, list, "spec.containers.ports");
	while (pb_scan_element(&scan, &value))
		n += read_port(d, value, &ports[n]);
	return n;
}

static void fill_ports(struct pb_decode *d, struct pb_span containers, struct pb_kube_pod *pod)
{
	static const int slots[] = {offsetof(struct pb_pod_port, name), -1};
	struct pb_scan scan = pb_decode_list(d, containers, "spec.containers");
	PB_FREE struct pb_pod_port *ports = NULL;
	struct pb_span container;
	uint32_t room = 1, n = 0;

	while (pb_scan_element(&scan, &container))
		room += container_ports(d, container, NULL);
	ports = pb_decode_room(d, room, sizeof(*ports));
	scan = pb_scan_list(containers);
	while (ports && pb_scan_element(&scan, &container))
		n += container_ports(d, container, &ports[n]);
	pod->ports = pb_kube_arena_copy(&d->arena, ports, n, sizeof(*ports), slots);
	pod->n_ports = pod->ports ? n : 0;
	pb_kube_arena_slot(&d->arena, &pod->ports);
}

void pb_kube_fill_pod(struct pb_decode *d, struct pb_kube_meta *object)
{
	struct pb_kube_pod *pod = (struct pb_kube_pod *)object;
	struct pod_spans s;

	find_spans(d, &s);
	pb_decode_text(d, s.node, "spec.nodeName", &pod->node);
	pb_decode_text(d, s.account, "spec.serviceAccountName", &pod->service_account);
	pod->phase = phase_of(s.phase);
	if (pb_decode_bool(d, s.host_network, "spec.hostNetwork", false))
		pod->flags |= PB_POD_HOST_NETWORK;
	fill_ips(d, &s, pod);
	fill_ports(d, s.containers, pod);
}

static bool read_node_addr(struct pb_decode *d, struct pb_span value, struct pb_node_addr *addr)
{
	struct pb_span type, address;
	const struct pb_scan_field fields[] = {{"type", &type}, {"address", &address}};

	pb_scan_fields(value, fields, PB_ARRAY_LEN(fields));
	if (pb_span_is(type, "InternalIP"))
		addr->type = PB_NODE_INTERNAL_IP;
	else if (pb_span_is(type, "ExternalIP"))
		addr->type = PB_NODE_EXTERNAL_IP;
	else
		return false;
	return pb_decode_addr(d, address, "status.addresses.address", &addr->ip);
}

static void fill_node_addrs(struct pb_decode *d, struct pb_span list, struct pb_kube_node *node)
{
	struct pb_scan scan = pb_decode_list(d, list, "status.addresses");
	PB_FREE struct pb_node_addr *addrs =
		pb_decode_room(d, pb_decode_count(list), sizeof(*addrs));
	struct pb_span value;
	uint32_t n = 0;

	while (addrs && pb_scan_element(&scan, &value))
		n += read_node_addr(d, value, &addrs[n]);
	node->addrs = pb_kube_arena_copy(&d->arena, addrs, n, sizeof(*addrs), NULL);
	node->n_addrs = node->addrs ? n : 0;
	pb_kube_arena_slot(&d->arena, &node->addrs);
}

static void fill_pod_cidrs(struct pb_decode *d, struct pb_span one, struct pb_span list,
			   struct pb_kube_node *node)
{
	struct pb_scan scan = pb_decode_list(d, list, "spec.podCIDRs");
	PB_FREE struct pb_cidr *cidrs = pb_decode_room(d, pb_decode_count(list), sizeof(*cidrs));
	struct pb_span value;
	uint32_t n = 0;

	while (cidrs && pb_scan_element(&scan, &value))
		n += pb_decode_cidr(d, value, "spec.podCIDRs", &cidrs[n]);
	if (cidrs && n == 0 && pb_span_type(one) && !pb_span_is(one, ""))
		n += pb_decode_cidr(d, one, "spec.podCIDR", &cidrs[n]);
	node->pod_cidrs = pb_kube_arena_copy(&d->arena, cidrs, n, sizeof(*cidrs), NULL);
	node->n_pod_cidrs = node->pod_cidrs ? n : 0;
	pb_kube_arena_slot(&d->arena, &node->pod_cidrs);
}

void pb_kube_fill_node(struct pb_decode *d, struct pb_kube_meta *object)
{
	struct pb_kube_node *node = (struct pb_kube_node *)object;
	struct pb_span addresses, cidr, cidrs;
	const struct pb_scan_field status[] = {{"addresses", &addresses}};
	const struct pb_scan_field spec[] = {{"podCIDR", &cidr}, {"podCIDRs", &cidrs}};

	pb_scan_fields(d->status, status, PB_ARRAY_LEN(status));
	pb_scan_fields(d->spec, spec, PB_ARRAY_LEN(spec));
	node->zone = pb_decode_label(object, "topology.kubernetes.io/zone");
	pb_kube_arena_slot(&d->arena, &node->zone);
	fill_node_addrs(d, addresses, node);
	fill_pod_cidrs(d, cidr, cidrs, node);
}

void pb_kube_fill_namespace(struct pb_decode *d, struct pb_kube_meta *object)
{
	(void)d;
	(void)object;
}
