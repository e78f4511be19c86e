/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services: what kube-proxy's replacement needs of spec and status. targetPort is not read: the
 * number comes from the endpoints' port of the same name.
 */
#include <kube/decode.h>

#define AFFINITY_DEFAULT 10800
#define AFFINITY_MAX 86400

/* The members of a Service that are read. */
struct service_spans {
	struct pb_span type, cluster_ip, cluster_ips, external_ips, ports, selector, affinity;
	struct pb_span affinity_config, external_policy, internal_policy, health_port;
	struct pb_span source_ranges, not_ready, ingress;
};

static void find_spans(const struct pb_decode *d, struct service_spans *s)
{
	const struct pb_scan_field spec[] = {
		{"type", &s->type},
		{"clusterIP", &s->cluster_ip},
		{"clusterIPs", &s->cluster_ips},
		{"externalIPs", &s->external_ips},
		{"ports", &s->ports},
		{"selector", &s->selector},
		{"sessionAffinity", &s->affinity},
		{"sessionAffinityConfig", &s->affinity_config},
		{"externalTrafficPolicy", &s->external_policy},
		{"internalTrafficPolicy", &s->internal_policy},
		{"healthCheckNodePort", &s->health_port},
		{"loadBalancerSourceRanges", &s->source_ranges},
		{"publishNotReadyAddresses", &s->not_ready},
	};
	struct pb_span balancer;
	const struct pb_scan_field status[] = {{"loadBalancer", &balancer}};
	const struct pb_scan_field ingress[] = {{"ingress", &s->ingress}};

	pb_scan_fields(d->spec, spec, PB_ARRAY_LEN(spec));
	pb_scan_fields(d->status, status, PB_ARRAY_LEN(status));
	pb_scan_fields(balancer, ingress, PB_ARRAY_LEN(ingress));
}

static uint32_t service_type(struct pb_decode *d, struct pb_span value)
{
	if (!pb_span_type(value) || pb_span_is(value, "ClusterIP"))
		return PB_SERVICE_CLUSTER_IP;
	if (pb_span_is(value, "NodePort"))
		return PB_SERVICE_NODE_PORT;
	if (pb_span_is(value, "LoadBalancer"))
		return PB_SERVICE_LOAD_BALANCER;
	if (!pb_span_is(value, "ExternalName"))
		pb_decode_fail(d, "spec.type: not one of ClusterIP, NodePort, LoadBalancer, "
				  "ExternalName");
	return PB_SERVICE_EXTERNAL_NAME;
}

static bool read_port(struct pb_decode *d, struct pb_span value, struct pb_service_port *port)
{
	struct pb_span name, protocol, number, node_port, app;
	const struct pb_scan_field fields[] = {{"name", &name},
					       {"protocol", &protocol},
					       {"port", &number},
					       {"nodePort", &node_port},
					       {"appProtocol", &app}};
	int64_t n = 0, node = 0;

	pb_scan_fields(value, fields, PB_ARRAY_LEN(fields));
	port->protocol = pb_decode_protocol(protocol);
	if (!port->protocol) {
		pb_decode_warn(d, "spec.ports: a protocol other than TCP, UDP and SCTP");
		return false;
	}
	if (!pb_decode_number(d, number, "spec.ports.port", 1, 65535, &n)) {
		if (!pb_span_type(number))
			pb_decode_warn(d, "spec.ports: a port without a number");
		return false;
	}
	pb_decode_number(d, node_port, "spec.ports.nodePort", 0, 65535, &node);
	port->port = (uint16_t)n;
	port->node_port = (uint16_t)node;
	pb_decode_text(d, name, "spec.ports.name", &port->name);
	pb_decode_text(d, app, "spec.ports.appProtocol", &port->app_protocol);
	return true;
}

static void fill_ports(struct pb_decode *d, struct pb_span list, struct pb_kube_service *service)
{
	static const int slots[] = {offsetof(struct pb_service_port, name),
				    offsetof(struct pb_service_port, app_protocol), -1};
	struct pb_scan scan = pb_decode_list(d, list, "spec.ports");
	PB_FREE struct pb_service_port *ports =
		pb_decode_room(d, pb_decode_count(list), sizeof(*ports));
	struct pb_span value;
	uint32_t n = 0;

	while (ports && pb_scan_element(&scan, &value)) {
		if (read_port(d, value, &ports[n]))
			n++;
		else
			memset(&ports[n], 0, sizeof(ports[n]));
	}
	service->ports = pb_kube_arena_copy(&d->arena, ports, n, sizeof(*ports), slots);
	service->n_ports = service->ports ? n : 0;
	pb_kube_arena_slot(&d->arena, &service->ports);
}

static const struct pb_kube_addr *copy_addrs(struct pb_decode *d, struct pb_span list,
					     const char *field, uint32_t *ret_n)
{
	struct pb_scan scan = pb_decode_list(d, list, field);
	PB_FREE struct pb_kube_addr *addrs =
		pb_decode_room(d, pb_decode_count(list), sizeof(*addrs));
	const struct pb_kube_addr *copy;
	struct pb_span value;
	uint32_t n = 0;

	while (addrs && pb_scan_element(&scan, &value))
		n += pb_decode_addr(d, value, field, &addrs[n]);
	copy = pb_kube_arena_copy(&d->arena, addrs, n, sizeof(*addrs), NULL);
	*ret_n = copy ? n : 0;
	return copy;
}

static bool is_none(struct pb_span value)
{
	return !pb_span_type(value) || pb_span_is(value, "None") || pb_span_is(value, "");
}

static void fill_cluster_ips(struct pb_decode *d, const struct service_spans *s,
			     struct pb_kube_service *service)
{
	struct pb_scan scan = pb_scan_list(s->cluster_ips);
	struct pb_kube_addr only;
	struct pb_span first;

	if (pb_scan_element(&scan, &first)) {
		if (is_none(first))
			service->flags |= PB_SERVICE_HEADLESS;
		else
			service->cluster_ips = copy_addrs(d, s->cluster_ips, "spec.clusterIPs",
							  &service->n_cluster_ips);
	} else if (is_none(s->cluster_ip)) {
		service->flags |= PB_SERVICE_HEADLESS;
	} else if (pb_decode_addr(d, s->cluster_ip, "spec.clusterIP", &only)) {
		service->cluster_ips = pb_kube_arena_copy(&d->arena, &only, 1, sizeof(only), NULL);
		service->n_cluster_ips = service->cluster_ips ? 1 : 0;
	}
	pb_kube_arena_slot(&d->arena, &service->cluster_ips);
}

static bool read_ingress(struct pb_decode *d, struct pb_span value,
			 struct pb_service_ingress *ingress)
{
	struct pb_span ip, mode;
	const struct pb_scan_field fields[] = {{"ip", &ip}, {"ipMode", &mode}};

	pb_scan_fields(value, fields, PB_ARRAY_LEN(fields));
	ingress->proxied = pb_span_is(mode, "Proxy");
	/* An entry with a host name only is for clients outside; there is nothing to program. */
	return pb_span_type(ip) && !pb_span_is(ip, "") &&
	       pb_decode_addr(d, ip, "status.loadBalancer.ingress.ip", &ingress->ip);
}

static void fill_ingress(struct pb_decode *d, struct pb_span list, struct pb_kube_service *service)
{
	struct pb_scan scan = pb_decode_list(d, list, "status.loadBalancer.ingress");
	PB_FREE struct pb_service_ingress *ingress =
		pb_decode_room(d, pb_decode_count(list), sizeof(*ingress));
	struct pb_span value;
	uint32_t n = 0;

	while (ingress && pb_scan_element(&scan, &value))
		n += read_ingress(d, value, &ingress[n]);
	service->ingress = pb_kube_arena_copy(&d->arena, ingress, n, sizeof(*ingress), NULL);
	service->n_ingress = service->ingress ? n : 0;
	pb_kube_arena_slot(&d->arena, &service->ingress);
}

static void fill_source_ranges(struct pb_decode *d, struct pb_span list,
			       struct pb_kube_service *service)
{
	struct pb_scan scan = pb_decode_list(d, list, "spec.loadBalancerSourceRanges");
	PB_FREE struct pb_cidr *ranges = pb_decode_room(d, pb_decode_count(list), sizeof(*ranges));
	struct pb_span value;
	uint32_t n = 0;

	while (ranges && pb_scan_element(&scan, &value)) {
		/* Without a usable entry the list must shut out everybody, not let everybody in. */
		service->flags |= PB_SERVICE_SOURCE_RANGES_GIVEN;
		n += pb_decode_cidr(d, value, "spec.loadBalancerSourceRanges", &ranges[n]);
	}
	service->source_ranges = pb_kube_arena_copy(&d->arena, ranges, n, sizeof(*ranges), NULL);
	service->n_source_ranges = service->source_ranges ? n : 0;
	pb_kube_arena_slot(&d->arena, &service->source_ranges);
}

static void fill_affinity(struct pb_decode *d, const struct service_spans *s,
			  struct pb_kube_service *service)
{
	struct pb_span client_ip, timeout;
	const struct pb_scan_field config[] = {{"clientIP", &client_ip}};
	const struct pb_scan_field fields[] = {{"timeoutSeconds", &timeout}};
	int64_t seconds = AFFINITY_DEFAULT;

	if (!pb_span_is(s->affinity, "ClientIP"))
		return;
	pb_scan_fields(s->affinity_config, config, PB_ARRAY_LEN(config));
	pb_scan_fields(client_ip, fields, PB_ARRAY_LEN(fields));
	pb_decode_number(d, timeout, "spec.sessionAffinityConfig.clientIP.timeoutSeconds", 1,
			 AFFINITY_MAX, &seconds);
	service->flags |= PB_SERVICE_AFFINITY_CLIENT_IP;
	service->affinity_seconds = (uint32_t)seconds;
}

static bool has_members(struct pb_span object)
{
	struct pb_scan scan = pb_scan_object(object);
	struct pb_span key, value;

	return pb_scan_member(&scan, &key, &value);
}

void pb_kube_fill_service(struct pb_decode *d, struct pb_kube_meta *object)
{
	struct pb_kube_service *service = (struct pb_kube_service *)object;
	struct service_spans s;
	int64_t port = 0;

	find_spans(d, &s);
	service->type = service_type(d, s.type);
	fill_ports(d, s.ports, service);
	fill_cluster_ips(d, &s, service);
	service->external_ips =
		copy_addrs(d, s.external_ips, "spec.externalIPs", &service->n_external_ips);
	pb_kube_arena_slot(&d->arena, &service->external_ips);
	fill_ingress(d, s.ingress, service);
	fill_source_ranges(d, s.source_ranges, service);
	fill_affinity(d, &s, service);
	if (pb_span_is(s.external_policy, "Local"))
		service->flags |= PB_SERVICE_EXTERNAL_LOCAL;
	if (pb_span_is(s.internal_policy, "Local"))
		service->flags |= PB_SERVICE_INTERNAL_LOCAL;
	if (pb_decode_bool(d, s.not_ready, "spec.publishNotReadyAddresses", false))
		service->flags |= PB_SERVICE_PUBLISH_NOT_READY;
	if (!has_members(s.selector))
		service->flags |= PB_SERVICE_NO_SELECTOR;
	if (pb_decode_number(d, s.health_port, "spec.healthCheckNodePort", 0, 65535, &port))
		service->health_check_node_port = (uint16_t)port;
}
