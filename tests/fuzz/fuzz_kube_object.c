/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a Kubernetes object. Whatever is decoded must be readable to its last string and
 * give back what it took.
 */
#include <kube/decode.h>
#include <kube/kube.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t sum;

static void read_text(const char *text)
{
	sum += strlen(text);
}

static void read_pairs(const struct pb_kube_pair *pairs, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		read_text(pairs[i].key);
		read_text(pairs[i].value);
		if (i && strcmp(pairs[i - 1].key, pairs[i].key) >= 0)
			abort();
	}
}

static void read_ports(const struct pb_slice_port *ports, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		read_text(ports[i].name);
		read_text(ports[i].app_protocol);
	}
}

static void read_entries(const struct pb_endpoint_entry *entries, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		read_text(entries[i].node);
		read_text(entries[i].zone);
		read_text(entries[i].hints);
	}
}

static void read_service(const struct pb_kube_service *s)
{
	for (uint32_t i = 0; i < s->n_ports; i++) {
		read_text(s->ports[i].name);
		read_text(s->ports[i].app_protocol);
		if (!s->ports[i].port || !s->ports[i].protocol)
			abort();
	}
	for (uint32_t i = 0; i < s->n_cluster_ips; i++)
		sum += s->cluster_ips[i].family;
	for (uint32_t i = 0; i < s->n_external_ips; i++)
		sum += s->external_ips[i].family;
	for (uint32_t i = 0; i < s->n_ingress; i++)
		sum += s->ingress[i].proxied;
	for (uint32_t i = 0; i < s->n_source_ranges; i++)
		sum += s->source_ranges[i].bits;
}

static void read_endpoints(const struct pb_kube_endpoints *e)
{
	for (uint32_t i = 0; i < e->n_subsets; i++) {
		read_ports(e->subsets[i].ports, e->subsets[i].n_ports);
		read_entries(e->subsets[i].endpoints, e->subsets[i].n_endpoints);
		for (uint32_t j = 0; j < e->subsets[i].n_endpoints; j++)
			sum += e->subsets[i].families[j];
	}
}

static void read_pod(const struct pb_kube_pod *pod)
{
	read_text(pod->node);
	read_text(pod->service_account);
	for (uint32_t i = 0; i < pod->n_ips; i++)
		sum += pod->ips[i].family;
	for (uint32_t i = 0; i < pod->n_ports; i++)
		read_text(pod->ports[i].name);
}

static void read_node(const struct pb_kube_node *node)
{
	read_text(node->zone);
	for (uint32_t i = 0; i < node->n_addrs; i++)
		sum += node->addrs[i].ip.family;
	for (uint32_t i = 0; i < node->n_pod_cidrs; i++)
		sum += node->pod_cidrs[i].bits;
}

static void read_object(const struct pb_kube_meta *meta)
{
	const struct pb_kube_endpointslice *slice = (const void *)meta;

	read_text(meta->ns);
	read_text(meta->name);
	read_text(meta->uid);
	read_text(meta->version);
	read_pairs(meta->labels, meta->n_labels);
	read_pairs(meta->annotations, meta->n_annotations);
	switch (meta->kind) {
	case PB_KUBE_SERVICE:
		read_service((const void *)meta);
		break;
	case PB_KUBE_ENDPOINTSLICE:
		read_text(slice->service);
		read_ports(slice->ports, slice->n_ports);
		read_entries(slice->endpoints, slice->n_endpoints);
		for (uint32_t i = 0; i < slice->n_further; i++)
			read_text(slice->endpoints[slice->further[i].endpoint].node);
		break;
	case PB_KUBE_ENDPOINTS:
		read_endpoints((const void *)meta);
		break;
	case PB_KUBE_POD:
		read_pod((const void *)meta);
		break;
	case PB_KUBE_NODE:
		read_node((const void *)meta);
		break;
	default:
		break;
	}
}

static void decode_as(const struct pb_scan_doc *doc, uint32_t kind)
{
	struct pb_kube_object *object, *again;
	struct pb_kube_head head;
	struct pb_err err;
	unsigned warns;

	pb_kube_head(doc, kind, NULL, &head);
	if (!head.kind || pb_kube_decode_span(doc->root, &head, &object, &warns, &err) < 0)
		return;
	read_object(pb_kube_object_meta(object));
	if (pb_kube_decode_span(doc->root, &head, &again, NULL, &err) < 0 ||
	    again->digest != object->digest || again->len != object->len)
		abort();
	pb_kube_object_unref(object);
	pb_kube_object_unref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_kube_meta *object;
	struct pb_scan_doc doc;
	struct pb_err err;

	if (pb_kube_decode((const char *)data, size, &object, NULL, &err) == 0)
		pb_kube_object_free(object);
	if (pb_scan_check_doc((const char *)data, size, &doc, &err) == 0)
		for (uint32_t kind = 0; kind <= PB_KUBE_NAMESPACE; kind++)
			decode_as(&doc, kind);
	if (pb_kube_intern_count() != 0)
		abort();
	return 0;
}
