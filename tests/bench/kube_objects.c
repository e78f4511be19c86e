/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects as `kubectl get -o json` shows them for a cluster of Deployments, managedFields and all.
 * Each endpoint has a number of its own, from which everything about it follows.
 */
#include "kube_objects.h"

#define NODES 1000

void cluster_init(struct cluster *c)
{
	unsigned of_one = (c->endpoints + c->slice - 1) / c->slice;
	unsigned of_big = (c->big + c->slice - 1) / c->slice;

	c->n_slices = c->services * of_one + of_big;
	c->version = 1000000 + c->n_slices;
	c->changes = calloc(c->n_slices ? c->n_slices : 1, sizeof(*c->changes));
	if (!c->changes)
		abort();
}

void cluster_free(struct cluster *c)
{
	free(c->changes);
}

unsigned cluster_services(const struct cluster *c)
{
	return c->services + (c->big > 0);
}

static void print_vip(const struct cluster *c, unsigned service, char *buf, size_t size)
{
	if (service == c->services)
		snprintf(buf, size, "10.95.0.1");
	else
		snprintf(buf, size, "10.96.%u.%u", service / 250 % 256, service % 250 + 1);
}

/* The slice's Service, the number of its first endpoint, and how many it has. */
struct place {
	unsigned service;
	unsigned part;
	unsigned first;
	unsigned n;
};

static struct place place_of(const struct cluster *c, unsigned i)
{
	unsigned of_one = (c->endpoints + c->slice - 1) / c->slice;
	struct place at = {.service = c->services, .part = i - c->services * of_one};
	unsigned total = c->big, base = c->services * c->endpoints, left;

	if (i < c->services * of_one) {
		at.service = i / of_one;
		at.part = i % of_one;
		total = c->endpoints;
		base = at.service * c->endpoints;
	}
	at.first = base + at.part * c->slice;
	left = total - at.part * c->slice;
	at.n = left < c->slice ? left : c->slice;
	return at;
}

/* Its address after so many changes of its slice; the changes go round the slice. */
static void print_address(const struct place *at, unsigned k, unsigned changes, char *buf,
			  size_t size)
{
	unsigned number = at->first + k;
	unsigned times = changes / at->n + (k < changes % at->n);

	snprintf(buf, size, "10.%u.%u.%u", (number / 62500 + (times % 2 ? 128 : 16)) % 256,
		 number / 250 % 250, number % 250 + 1);
}

static void print_meta(struct pb_buf *out, const char *name, const char *service, unsigned uid,
		       unsigned version)
{
	pb_buf_printf(
		out,
		"\"metadata\":{\"name\":\"%s\",\"namespace\":\"bench\",\"uid\":"
		"\"5f0c1f7e-63a4-4b0e-9d55-%012u\",\"resourceVersion\":\"%u\","
		"\"generation\":%u,\"creationTimestamp\":\"2026-01-31T09:26:53Z\",\"labels\":{"
		"\"app.kubernetes.io/name\":\"%s\",\"app.kubernetes.io/part-of\":\"bench\"",
		name, uid, version, version % 1000, service);
}

void cluster_print_service(const struct cluster *c, unsigned i, struct pb_buf *out)
{
	char name[32], vip[16];

	snprintf(name, sizeof(name), i == c->services ? "big" : "s%u", i);
	print_vip(c, i, vip, sizeof(vip));
	pb_buf_printf(out, "{");
	print_meta(out, name, name, i, 1000 + i);
	pb_buf_printf(
		out, "},\"managedFields\":[{\"manager\":\"kubectl-client-side-apply\","
		     "\"operation\":\"Update\",\"apiVersion\":\"v1\",\"time\":"
		     "\"2026-01-31T09:26:53Z\",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{"
		     "\"f:metadata\":{\"f:labels\":{\".\":{},\"f:app.kubernetes.io/name\":{}}},"
		     "\"f:spec\":{\"f:internalTrafficPolicy\":{},\"f:ports\":{\".\":{},"
		     "\"k:{\\\"port\\\":80,\\\"protocol\\\":\\\"TCP\\\"}\":{\".\":{},\"f:name\":{},"
		     "\"f:port\":{},\"f:protocol\":{},\"f:targetPort\":{}}},\"f:selector\":{},"
		     "\"f:sessionAffinity\":{},\"f:type\":{}}}}]},");
	pb_buf_printf(out,
		      "\"spec\":{\"ports\":[{\"name\":\"http\",\"protocol\":\"TCP\",\"port\":%d,"
		      "\"targetPort\":8080}],\"selector\":{\"app.kubernetes.io/name\":\"%s\"},"
		      "\"clusterIP\":\"%s\",\"clusterIPs\":[\"%s\"],\"type\":\"ClusterIP\","
		      "\"sessionAffinity\":\"None\",\"ipFamilies\":[\"IPv4\"],\"ipFamilyPolicy\":"
		      "\"SingleStack\",\"internalTrafficPolicy\":\"Cluster\"},\"status\":{"
		      "\"loadBalancer\":{}}}",
		      CLUSTER_PORT, name, vip, vip);
}

static void print_endpoint(const struct place *at, unsigned k, unsigned changes,
			   const char *service, struct pb_buf *out)
{
	unsigned number = at->first + k, node = number * 7919U % NODES;
	char address[16], text[512];
	int len;

	print_address(at, k, changes, address, sizeof(address));
	len = snprintf(
		text, sizeof(text),
		"%s{\"addresses\":[\"%s\"],\"conditions\":{\"ready\":true,\"serving\":true,"
		"\"terminating\":false},\"targetRef\":{\"kind\":\"Pod\",\"namespace\":"
		"\"bench\",\"name\":\"%s-7c9f6d5b8d-%05x\",\"uid\":"
		"\"b1f0a6a2-8a44-4f5e-a0a3-%012u\"},\"nodeName\":"
		"\"ip-10-0-%u-%u.eu-central-1.compute.internal\",\"zone\":\"eu-central-1%c\"}",
		k ? "," : "", address, service, number & 0xfffff, number, node / 250, node % 250,
		'a' + (int)(node % 3));
	pb_buf_append(out, text, (size_t)len);
}

void cluster_print_slice(const struct cluster *c, unsigned i, bool typed, struct pb_buf *out)
{
	struct place at = place_of(c, i);
	unsigned changes = c->changes[i];
	char service[16], name[32];

	snprintf(service, sizeof(service), at.service == c->services ? "big" : "s%u", at.service);
	snprintf(name, sizeof(name), "%s-%05x", service, at.part);
	pb_buf_printf(out, "{");
	if (typed)
		pb_buf_printf(out, "\"kind\":\"EndpointSlice\",\"apiVersion\":"
				   "\"discovery.k8s.io/v1\",");
	print_meta(out, name, service, i, changes ? c->version : 1000000 + i);
	pb_buf_printf(out,
		      ",\"endpointslice.kubernetes.io/managed-by\":"
		      "\"endpointslice-controller.k8s.io\",\"kubernetes.io/service-name\":\"%s\"},"
		      "\"annotations\":{\"endpoints.kubernetes.io/last-change-trigger-time\":"
		      "\"2026-01-31T09:26:53Z\"},\"ownerReferences\":[{\"apiVersion\":\"v1\","
		      "\"kind\":\"Service\",\"name\":\"%s\",\"uid\":"
		      "\"5f0c1f7e-63a4-4b0e-9d55-%012u\",\"controller\":true,"
		      "\"blockOwnerDeletion\":true}],",
		      service, service, at.service);
	pb_buf_printf(out,
		      "\"managedFields\":[{\"manager\":\"kube-controller-manager\","
		      "\"operation\":\"Update\",\"apiVersion\":\"discovery.k8s.io/v1\",\"time\":"
		      "\"2026-01-31T09:26:53Z\",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{"
		      "\"f:addressType\":{},\"f:endpoints\":{},\"f:metadata\":{"
		      "\"f:annotations\":{\".\":{},"
		      "\"f:endpoints.kubernetes.io/last-change-trigger-time\":{}},"
		      "\"f:generateName\":{},\"f:labels\":{\".\":{},"
		      "\"f:endpointslice.kubernetes.io/managed-by\":{},"
		      "\"f:kubernetes.io/service-name\":{}},\"f:ownerReferences\":{\".\":{}}},"
		      "\"f:ports\":{}}}]},\"addressType\":\"IPv4\",\"endpoints\":[");
	for (unsigned k = 0; k < at.n; k++)
		print_endpoint(&at, k, changes, service, out);
	pb_buf_printf(out, "],\"ports\":[{\"name\":\"http\",\"port\":8080,\"protocol\":\"TCP\"}]}");
}

void cluster_next(const struct cluster *c, unsigned i, struct cluster_change *ret_change)
{
	struct place at = place_of(c, i);
	unsigned k = c->changes[i] % at.n;

	print_vip(c, at.service, ret_change->service, sizeof(ret_change->service));
	print_address(&at, k, c->changes[i], ret_change->old, sizeof(ret_change->old));
	print_address(&at, k, c->changes[i] + 1, ret_change->new, sizeof(ret_change->new));
}

void cluster_change(struct cluster *c, unsigned i)
{
	c->changes[i]++;
	c->version++;
}
