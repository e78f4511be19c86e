/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pod becomes a Service object, a head and a part of backends, all in one piece of memory. A
 * port's name is its container port, so that host ports of one container port share a pool.
 */
#include "kpr_hostports.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kpr_fronts.h"

#define KEY_MAX 600
#define NAME_LEN 8

struct kpr_service_extra {
	struct pb_kube_service service;
	struct pb_backends_head head;
	struct pb_kube_addr *ips; /* the pod's, then the host IP of each port */
	struct pb_service_port *ports;
	char (*names)[NAME_LEN];
	struct pb_backends *part;
};

static bool wanted(const struct kpr_model *m, const struct pb_kube_pod *pod)
{
	bool has = false;

	for (uint32_t i = 0; i < pod->n_ports; i++)
		has = has || (pod->ports[i].host_port && pod->ports[i].container_port);
	return has && m->opts.host_ports && pod->n_ips > 0 &&
	       strcmp(pod->node, m->opts.node) == 0 && !(pod->flags & PB_POD_HOST_NETWORK) &&
	       pod->phase != PB_POD_SUCCEEDED && pod->phase != PB_POD_FAILED;
}

static size_t aligned(size_t len)
{
	return (len + 15) & ~(size_t)15;
}

/* One piece of memory, so that it is freed as one. */
static struct kpr_service_extra *extra_new(uint32_t n_ips, uint32_t n_ports)
{
	size_t n_backends = (size_t)n_ips * n_ports;
	size_t strings = 1 + (size_t)n_ports * NAME_LEN;
	size_t at_ips = aligned(sizeof(struct kpr_service_extra));
	size_t at_ports = at_ips + aligned((n_ips + n_ports) * sizeof(struct pb_kube_addr));
	size_t at_names = at_ports + aligned(n_ports * sizeof(struct pb_service_port));
	size_t at_part = at_names + aligned((size_t)n_ports * NAME_LEN);
	size_t len = at_part + sizeof(struct pb_backends) + strings +
		     n_backends * sizeof(struct pb_backend);
	char *mem = calloc(1, len);
	struct kpr_service_extra *x = (void *)mem;

	if (!mem)
		return NULL;
	x->ips = (void *)(mem + at_ips);
	x->ports = (void *)(mem + at_ports);
	x->names = (void *)(mem + at_names);
	x->part = (void *)(mem + at_part);
	return x;
}

static int compare_backends(const void *a, const void *b)
{
	const struct pb_backend *x = a, *y = b;
	int rc = (int)x->family - y->family;

	if (rc == 0)
		rc = (int)x->protocol - y->protocol;
	/* Names have one length, and their offsets grow with their ports. */
	if (rc == 0)
		rc = (int)x->port - y->port;
	return rc ? rc : memcmp(&x->addr, &y->addr, sizeof(x->addr));
}

static void fill_part(struct kpr_service_extra *x, const struct pb_kube_pod *pod)
{
	struct pb_backends *part = x->part;
	uint32_t n_ports = x->service.n_ports;
	char *strings;

	part->size = sizeof(*part);
	part->n = pod->n_ips * n_ports;
	part->strings_len = 1 + n_ports * NAME_LEN;
	strings = (char *)&part->backend[part->n];
	for (uint32_t p = 0; p < n_ports; p++) {
		memcpy(strings + 1 + p * NAME_LEN, x->names[p], NAME_LEN);
		for (uint32_t i = 0; i < pod->n_ips; i++)
			part->backend[p * pod->n_ips + i] =
				(struct pb_backend){.addr = pod->ips[i].addr,
						    .port = x->ports[p].port,
						    .family = (uint8_t)pod->ips[i].family,
						    .protocol = x->ports[p].protocol,
						    .state = PB_BACKEND_ACTIVE,
						    .flags = PB_BACKEND_LOCAL | PB_BACKEND_READY,
						    .port_name = 1 + p * NAME_LEN};
	}
	qsort(part->backend, part->n, sizeof(part->backend[0]), compare_backends);
}

static struct kpr_service_extra *extra_of(const struct pb_kube_pod *pod)
{
	struct kpr_service_extra *x = extra_new(pod->n_ips, pod->n_ports);
	uint32_t n = 0;

	if (!x)
		return NULL;
	for (uint32_t i = 0; i < pod->n_ports; i++) {
		const struct pb_pod_port *port = &pod->ports[i];

		if (port->host_port == 0 || port->container_port == 0)
			continue;
		snprintf(x->names[n], NAME_LEN, "%05u", port->container_port);
		x->ips[pod->n_ips + n] = port->host_ip;
		x->ports[n] = (struct pb_service_port){.name = x->names[n],
						       .port = port->container_port,
						       .node_port = port->host_port,
						       .protocol = port->protocol,
						       .app_protocol = ""};
		n++;
	}
	memcpy(x->ips, pod->ips, pod->n_ips * sizeof(*pod->ips));
	x->service.meta = pod->meta;
	x->service.meta.n_labels = 0;
	x->service.meta.n_annotations = 0;
	x->service.type = KPR_TYPE_HOST_PORT;
	x->service.ports = x->ports;
	x->service.n_ports = n;
	x->service.cluster_ips = x->ips;
	x->service.n_cluster_ips = pod->n_ips + n;
	x->head = (struct pb_backends_head){.size = sizeof(x->head),
					    .n_parts = 1,
					    .n_backends = pod->n_ips * n};
	fill_part(x, pod);
	return x;
}

static int make_keys(const struct pb_kube_pod *pod, char key[KEY_MAX], char part[KEY_MAX])
{
	int n = snprintf(key, KEY_MAX, "hostport:%s/%s", pod->meta.ns, pod->meta.name);

	if (n < 0 || n >= KEY_MAX)
		return -EINVAL;
	n = snprintf(part, KEY_MAX, "%s/pod", key);
	return n < 0 || n >= KEY_MAX ? -EINVAL : 0;
}

static void take_away(struct kpr_model *m, struct kpr_svc *svc, const char *part)
{
	struct kpr_service_extra *old = svc->extra;

	kpr_part_gone(m, part);
	svc->head = NULL;
	svc->extra = NULL;
	kpr_model_gone(m, svc);
	free(old);
}

int kpr_hostports_pod(struct kpr_model *m, const struct pb_kube_pod *pod)
{
	char key[KEY_MAX], part[KEY_MAX];
	struct kpr_service_extra *x, *old;
	struct kpr_svc *svc;
	int rc = make_keys(pod, key, part);

	if (rc < 0)
		return rc;
	svc = kpr_model_find(m, key);
	if (!wanted(m, pod)) {
		if (svc)
			take_away(m, svc, part);
		return 0;
	}
	x = extra_of(pod);
	svc = x ? kpr_model_add(m, key) : NULL;
	rc = svc ? kpr_part_put(m, svc, part, x->part) : -ENOMEM;
	if (rc < 0) {
		if (svc)
			kpr_model_forget(m, svc);
		free(x);
		return rc;
	}
	old = svc->extra;
	svc->extra = x;
	svc->head = &x->head;
	rc = kpr_model_put(m, svc, &x->service);
	/* Not taken in: nothing of the pod's memory may be looked at from here on. */
	if (rc < 0)
		take_away(m, svc, part);
	free(old);
	return rc;
}

void kpr_hostports_gone(struct kpr_model *m, const struct pb_kube_pod *pod)
{
	char key[KEY_MAX], part[KEY_MAX];
	struct kpr_svc *svc;

	if (make_keys(pod, key, part) < 0)
		return;
	svc = kpr_model_find(m, key);
	if (svc)
		take_away(m, svc, part);
}
