/* SPDX-License-Identifier: Apache-2.0 */
/*
 * EndpointSlices and Endpoints. Missing conditions get their meaning here, once, so that no
 * reader has to know the rules; merging slices is not done here.
 */
#include <kube/decode.h>

#define SERVICE_NAME "kubernetes.io/service-name"
#define OVER_CAPACITY "endpoints.kubernetes.io/over-capacity"

/* {"forZones": [{"name": "a"}, ...]} as "a,b". */
static const char *intern_hints(struct pb_decode *d, struct pb_span hints)
{
	struct pb_span zones, zone, name;
	const struct pb_scan_field fields[] = {{"forZones", &zones}};
	const struct pb_scan_field names[] = {{"name", &name}};
	PB_BUF_FREE struct pb_buf list = {0};
	const char *interned;
	struct pb_scan scan;
	int rc = 0;

	if (!pb_span_type(hints))
		return "";
	pb_scan_fields(hints, fields, PB_ARRAY_LEN(fields));
	scan = pb_decode_list(d, zones, "endpoints.hints.forZones");
	while (rc == 0 && pb_scan_element(&scan, &zone)) {
		PB_FREE char *text = NULL;
		size_t len;

		pb_scan_fields(zone, names, PB_ARRAY_LEN(names));
		if (pb_span_type(name) != '"' || pb_span_is(name, ""))
			continue;
		text = malloc(pb_span_room(name));
		len = text ? pb_span_text(name, text) : 0;
		rc = list.len ? pb_buf_append(&list, ",", 1) : 0;
		if (rc == 0)
			rc = text ? pb_buf_append(&list, text, len) : -ENOMEM;
	}
	interned = rc == 0 ? pb_kube_intern(list.data, list.len) : NULL;
	if (!interned)
		d->arena.rc = -ENOMEM;
	return interned ? interned : "";
}

static uint32_t conditions_of(struct pb_decode *d, struct pb_span value)
{
	struct pb_span ready, serving, terminating;
	const struct pb_scan_field fields[] = {{"ready", &ready},
					       {"serving", &serving},
					       {"terminating", &terminating}};
	uint32_t bits = 0;
	bool is_ready;

	pb_scan_fields(value, fields, PB_ARRAY_LEN(fields));
	is_ready = pb_decode_bool(d, ready, "endpoints.conditions.ready", true);
	if (is_ready)
		bits |= PB_ENDPOINT_READY;
	if (pb_decode_bool(d, serving, "endpoints.conditions.serving", is_ready))
		bits |= PB_ENDPOINT_SERVING;
	if (pb_decode_bool(d, terminating, "endpoints.conditions.terminating", false))
		bits |= PB_ENDPOINT_TERMINATING;
	return bits;
}

static bool read_port(struct pb_decode *d, struct pb_span value, struct pb_slice_port *port)
{
	struct pb_span name, number, protocol, app;
	const struct pb_scan_field fields[] = {{"name", &name},
					       {"port", &number},
					       {"protocol", &protocol},
					       {"appProtocol", &app}};
	int64_t n = 0;

	pb_scan_fields(value, fields, PB_ARRAY_LEN(fields));
	if (!pb_decode_number(d, number, "ports.port", 1, 65535, &n) && pb_span_type(number))
		return false;
	port->port = (uint16_t)n;
	port->protocol = pb_decode_protocol(protocol);
	if (!port->protocol)
		pb_decode_warn(d, "ports.protocol: other than TCP, UDP and SCTP");
	pb_decode_text(d, name, "ports.name", &port->name);
	pb_decode_text(d, app, "ports.appProtocol", &port->app_protocol);
	return true;
}

static const struct pb_slice_port *copy_ports(struct pb_decode *d, struct pb_span list,
					      uint32_t *ret_n)
{
	static const int slots[] = {offsetof(struct pb_slice_port, name),
				    offsetof(struct pb_slice_port, app_protocol), -1};
	struct pb_scan scan = pb_decode_list(d, list, "ports");
	PB_FREE struct pb_slice_port *ports =
		pb_decode_room(d, pb_decode_count(list), sizeof(*ports));
	const struct pb_slice_port *copy;
	struct pb_span value;
	uint32_t n = 0;

	while (ports && pb_scan_element(&scan, &value))
		n += read_port(d, value, &ports[n]);
	copy = pb_kube_arena_copy(&d->arena, ports, n, sizeof(*ports), slots);
	*ret_n = copy ? n : 0;
	return copy;
}

/* An entry that has its strings joins the others; without room for it they are given back. */
static bool add_entry(struct pb_decode *d, const struct pb_endpoint_entry *entry,
		      const struct pb_endpoint_entry **first, uint32_t *n)
{
	const struct pb_endpoint_entry *copy =
		pb_kube_arena_copy(&d->arena, entry, 1, sizeof(*entry), NULL);

	if (!copy) {
		pb_decode_intern_settle(d);
		pb_kube_intern_unref(entry->node);
		pb_kube_intern_unref(entry->zone);
		pb_kube_intern_unref(entry->hints);
		return false;
	}
	if (!*n)
		*first = copy;
	(*n)++;
	return true;
}

/* ---- EndpointSlice ---- */

struct endpoint_spans {
	struct pb_span addresses, conditions, node, zone, hints, topology;
};

static bool read_slice_address(struct pb_decode *d, struct pb_span value, uint32_t family,
			       union pb_addr *ret_addr)
{
	struct pb_kube_addr addr;

	if (!pb_decode_addr(d, value, "endpoints.addresses", &addr))
		return false;
	if (addr.family != family) {
		pb_decode_warn(d, "endpoints.addresses: an IPv%u address in a slice of IPv%u",
			       addr.family, family);
		return false;
	}
	*ret_addr = addr.addr;
	return true;
}

static bool first_address(struct pb_decode *d, struct pb_scan *addresses, uint32_t family,
			  union pb_addr *ret_addr)
{
	struct pb_span value;

	if (pb_scan_element(addresses, &value))
		return read_slice_address(d, value, family, ret_addr);
	pb_decode_warn(d, "endpoints: one without an address");
	return false;
}

static void further_addresses(struct pb_decode *d, struct pb_scan *addresses, uint32_t family,
			      uint32_t endpoint, struct pb_buf *further)
{
	struct pb_further_addr one = {.endpoint = endpoint};
	struct pb_span value;

	while (pb_scan_element(addresses, &value))
		if (read_slice_address(d, value, family, &one.addr) &&
		    pb_buf_append(further, &one, sizeof(one)) < 0)
			d->arena.rc = -ENOMEM;
}

static bool read_endpoint(struct pb_decode *d, struct endpoint_spans *s, struct pb_scan *addresses,
			  uint32_t family, struct pb_endpoint_entry *entry)
{
	struct pb_span host, zone;
	const struct pb_scan_field topology[] = {{"kubernetes.io/hostname", &host},
						 {"topology.kubernetes.io/zone", &zone}};

	*entry = (struct pb_endpoint_entry){0};
	if (!first_address(d, addresses, family, &entry->addr))
		return false;
	if (d->v1beta1) {
		pb_scan_fields(s->topology, topology, PB_ARRAY_LEN(topology));
		if (!pb_span_type(s->node))
			s->node = host;
		s->zone = zone;
	}
	entry->conditions = conditions_of(d, s->conditions);
	entry->node = pb_decode_intern(d, s->node, "endpoints.nodeName");
	entry->zone = pb_decode_intern(d, s->zone, "endpoints.zone");
	entry->hints = intern_hints(d, s->hints);
	return true;
}

/* The entries are put where they stay: nothing else takes of the arena meanwhile. */
static void fill_slice_endpoints(struct pb_decode *d, struct pb_span list,
				 struct pb_kube_endpointslice *slice)
{
	struct pb_scan addresses, scan = pb_decode_list(d, list, "endpoints");
	PB_BUF_FREE struct pb_buf further = {0};
	struct pb_endpoint_entry entry;
	struct endpoint_spans s;
	const struct pb_scan_field fields[] = {{"addresses", &s.addresses},
					       {"conditions", &s.conditions},
					       {"nodeName", &s.node},
					       {"zone", &s.zone},
					       {"hints", &s.hints},
					       {"topology", &s.topology}};
	bool room = slice->family != 0;

	while (room && pb_scan_element_fields(&scan, fields, PB_ARRAY_LEN(fields))) {
		addresses = pb_decode_list(d, s.addresses, "endpoints.addresses");
		if (!read_endpoint(d, &s, &addresses, slice->family, &entry))
			continue;
		room = add_entry(d, &entry, &slice->endpoints, &slice->n_endpoints);
		further_addresses(d, &addresses, slice->family, slice->n_endpoints - 1, &further);
	}
	pb_kube_arena_slot(&d->arena, &slice->endpoints);
	slice->further =
		pb_kube_arena_copy(&d->arena, further.data, further.len / sizeof(*slice->further),
				   sizeof(*slice->further), NULL);
	if (slice->further)
		slice->n_further = (uint32_t)(further.len / sizeof(*slice->further));
	pb_kube_arena_slot(&d->arena, &slice->further);
}

void pb_kube_fill_endpointslice(struct pb_decode *d, struct pb_kube_meta *object)
{
	struct pb_kube_endpointslice *slice = (struct pb_kube_endpointslice *)object;
	struct pb_span type = d->members->address_type;

	slice->service = pb_decode_label(object, SERVICE_NAME);
	pb_kube_arena_slot(&d->arena, &slice->service);
	slice->family = pb_span_is(type, "IPv4") ? 4 : pb_span_is(type, "IPv6") ? 6 : 0;
	if (!pb_span_type(type))
		pb_decode_fail(d, "addressType is missing: IPv4, IPv6 or FQDN");
	slice->ports = copy_ports(d, d->members->ports, &slice->n_ports);
	pb_kube_arena_slot(&d->arena, &slice->ports);
	fill_slice_endpoints(d, d->members->endpoints, slice);
}

/* ---- Endpoints ---- */

static bool read_address(struct pb_decode *d, struct pb_span value, struct pb_endpoint_entry *entry,
			 uint8_t *family)
{
	struct pb_span ip, node;
	const struct pb_scan_field fields[] = {{"ip", &ip}, {"nodeName", &node}};
	struct pb_kube_addr addr;

	pb_scan_fields(value, fields, PB_ARRAY_LEN(fields));
	*entry = (struct pb_endpoint_entry){0};
	if (!pb_decode_addr(d, ip, "subsets.addresses.ip", &addr))
		return false;
	entry->addr = addr.addr;
	entry->node = pb_decode_intern(d, node, "subsets.addresses.nodeName");
	entry->zone = "";
	entry->hints = "";
	entry->conditions = PB_ENDPOINT_READY | PB_ENDPOINT_SERVING;
	*family = (uint8_t)addr.family;
	return true;
}

static void read_addresses(struct pb_decode *d, struct pb_span list,
			   struct pb_endpoints_subset *subset)
{
	struct pb_scan scan = pb_decode_list(d, list, "subsets.addresses");
	PB_FREE uint8_t *families = pb_decode_room(d, pb_decode_count(list), 1);
	struct pb_endpoint_entry entry;
	struct pb_span value;
	bool room = families;

	while (room && pb_scan_element(&scan, &value))
		if (read_address(d, value, &entry, &families[subset->n_endpoints]))
			room = add_entry(d, &entry, &subset->endpoints, &subset->n_endpoints);
	subset->families = pb_kube_arena_copy(&d->arena, families, subset->n_endpoints, 1, NULL);
}

/* A subset without an address or without a port leads nowhere and is left out. */
static bool read_subset(struct pb_decode *d, struct pb_span value,
			struct pb_endpoints_subset *subset)
{
	struct pb_span addresses, ports;
	const struct pb_scan_field fields[] = {{"addresses", &addresses}, {"ports", &ports}};

	*subset = (struct pb_endpoints_subset){0};
	pb_scan_fields(value, fields, PB_ARRAY_LEN(fields));
	subset->ports = copy_ports(d, ports, &subset->n_ports);
	if (subset->n_ports)
		read_addresses(d, addresses, subset);
	return subset->n_endpoints > 0;
}

void pb_kube_fill_endpoints(struct pb_decode *d, struct pb_kube_meta *object)
{
	static const int slots[] = {offsetof(struct pb_endpoints_subset, ports),
				    offsetof(struct pb_endpoints_subset, endpoints),
				    offsetof(struct pb_endpoints_subset, families), -1};
	struct pb_kube_endpoints *endpoints = (struct pb_kube_endpoints *)object;
	PB_FREE struct pb_endpoints_subset *subsets = NULL;
	struct pb_span list = d->members->subsets, value;
	struct pb_scan scan;
	uint32_t n = 0;

	scan = pb_decode_list(d, list, "subsets");
	subsets = pb_decode_room(d, pb_decode_count(list), sizeof(*subsets));
	while (subsets && pb_scan_element(&scan, &value))
		n += read_subset(d, value, &subsets[n]);
	endpoints->subsets = pb_kube_arena_copy(&d->arena, subsets, n, sizeof(*subsets), slots);
	endpoints->n_subsets = endpoints->subsets ? n : 0;
	pb_kube_arena_slot(&d->arena, &endpoints->subsets);
	pb_decode_intern_settle(d);
	for (uint32_t i = 0; !endpoints->subsets && i < n; i++)
		for (uint32_t j = 0; j < subsets[i].n_endpoints; j++)
			pb_kube_intern_unref(subsets[i].endpoints[j].node);
	endpoints->truncated =
		strcmp(pb_decode_annotation(object, OVER_CAPACITY), "truncated") == 0 ||
		strcmp(pb_decode_label(object, OVER_CAPACITY), "truncated") == 0;
}
