/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the plugin is told: Services, backends, the pods and addresses of this node.
 *
 * Owns the way of each event into the model, and what is said about objects that are wrong. Writes
 * no map: kpr_changed() sees to that.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "kpr.h"
#include "kpr_fronts.h"
#include "kpr_hostports.h"

/* ---- health checks ---- */

/* What is known of the Service's backends, whole or not: the answer is for load balancers. */
static int count_local(struct kpr *kpr, const struct kpr_svc *svc)
{
	const struct pb_kube_meta *meta = &svc->obj->meta;
	const struct pb_backends **parts;
	const struct kpr_part *part;
	uint32_t n = 0, local = 0;
	int rc;

	if (!kpr_health_wants(&kpr->health, meta->ns, meta->name))
		return 0;
	parts = calloc(svc->n_parts + 1, sizeof(*parts));
	if (!parts)
		return -ENOMEM;
	DL_FOREACH (svc->parts, part)
		parts[n++] = part->value;
	rc = kpr_health_local(parts, n, &local);
	if (rc == 0)
		kpr_health_count(&kpr->health, meta->ns, meta->name, local);
	free(parts);
	return rc;
}

static int count_of(struct kpr *kpr, const char *key)
{
	const struct kpr_svc *svc = kpr_model_find(&kpr->model, key);

	return svc && svc->obj ? count_local(kpr, svc) : 0;
}

static int health_put(struct kpr *kpr, const struct pb_kube_service *obj)
{
	char key[512];
	int rc;

	if (!kpr_fronts_any(obj, kpr->model.opts.proxy_name)) {
		kpr_health_remove(&kpr->health, obj);
		return 0;
	}
	rc = kpr_health_put(&kpr->health, obj);
	snprintf(key, sizeof(key), "%s/%s", obj->meta.ns, obj->meta.name);
	return rc == 0 ? count_of(kpr, key) : rc;
}

/* ---- Services and backends ---- */

static void on_service(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event)
{
	struct kpr *kpr = ctx->self;
	const struct pb_kube_service *obj = event->object;
	int rc = 0;

	(void)arg;
	if (event->kind == PB_KUBE_PUT) {
		rc = kpr_model_service(&kpr->model, obj);
		if (rc == 0)
			rc = health_put(kpr, obj);
	} else if (event->kind == PB_KUBE_DELETE) {
		kpr_health_remove(&kpr->health, obj);
		kpr_model_service_gone(&kpr->model, obj);
	} else {
		kpr_model_services_synced(&kpr->model);
	}
	kpr_changed(ctx, obj ? obj->meta.name : "", rc);
}

static void on_backends(struct pb_ctx *ctx, void *arg, const struct pb_record *record)
{
	struct kpr *kpr = ctx->self;
	int rc = 0;

	(void)arg;
	if (record->kind == PB_RECORD_SYNCED)
		kpr_model_backends_synced(&kpr->model);
	else
		rc = kpr_model_record(&kpr->model, record);
	/* A head follows the parts that changed; a part's key is no Service's. */
	if (rc == 0 && record->key)
		rc = count_of(kpr, record->key);
	kpr_changed(ctx, record->key ? record->key : "", rc);
}

/* ---- this node ---- */

static void on_pod(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event)
{
	struct kpr *kpr = ctx->self;
	const struct pb_kube_pod *pod = event->object;
	int rc = 0;

	(void)arg;
	if (event->kind == PB_KUBE_PUT)
		rc = kpr_hostports_pod(&kpr->model, pod);
	else if (event->kind == PB_KUBE_DELETE)
		kpr_hostports_gone(&kpr->model, pod);
	else
		kpr_model_pods_synced(&kpr->model);
	kpr_changed(ctx, pod ? pod->meta.name : "", rc);
}

static void on_node(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event)
{
	struct kpr *kpr = ctx->self;
	const struct pb_kube_node *node = event->object;

	(void)arg;
	if (!node || strcmp(node->meta.name, ctx->host->node_name(ctx)) != 0)
		return;
	kpr_model_zone(&kpr->model, event->kind == PB_KUBE_PUT ? node->zone : "");
	kpr_changed(ctx, node->meta.name, 0);
}

static void check_rule(struct pb_ctx *ctx)
{
	const struct kpr *kpr = ctx->self;
	const struct kpr_node_rule *rule = &kpr->config.node_rule;

	for (uint32_t i = 0; i < rule->n_cidrs; i++)
		if (!kpr_nodes_match(&kpr->nodes, &rule->cidrs[i]))
			ctx->host->log(ctx, PB_LOG_WARN,
				       "node_port.addresses: entry %u: this node has no address in "
				       "that range yet",
				       i + 1);
}

static void on_address(struct pb_ctx *ctx, void *arg, const struct pb_record *record)
{
	struct kpr *kpr = ctx->self;
	bool synced = record->kind == PB_RECORD_SYNCED;
	int rc = 0;

	(void)arg;
	if (!synced)
		rc = kpr_nodes_put(&kpr->nodes, record->key,
				   record->kind == PB_RECORD_PUT ? record->value : NULL);
	/* All at once at the beginning: each makes every NodePort Service due. */
	if (rc == 0 && (synced || kpr->model.addresses_synced))
		rc = kpr_nodes_tell(&kpr->nodes, &kpr->model);
	if (synced) {
		check_rule(ctx);
		kpr_model_addresses_synced(&kpr->model);
	}
	kpr_changed(ctx, record->key ? record->key : "node addresses", rc);
}

/* ---- what is wrong with objects ---- */

void kpr_warn(void *arg, const char *object, const char *text)
{
	static const char host_port[] = "hostport:";
	struct pb_ctx *ctx = arg;
	bool pod = strncmp(object, host_port, sizeof(host_port) - 1) == 0;

	ctx->host->log(ctx, PB_LOG_WARN, "%s %s: %s", pod ? "Pod" : "Service",
		       pod ? object + sizeof(host_port) - 1 : object, text);
}

int kpr_inputs_declare(struct pb_ctx *ctx)
{
	const struct pb_host *h = ctx->host;
	struct kpr *kpr = ctx->self;
	int rc = h->kube_watch(ctx, PB_KUBE_SERVICE, on_service, NULL);

	if (rc == 0)
		rc = h->kube_watch(ctx, PB_KUBE_NODE, on_node, NULL);
	if (rc == 0 && kpr->config.host_ports)
		rc = h->kube_watch(ctx, PB_KUBE_POD, on_pod, NULL);
	else
		kpr->model.pods_synced = true;
	if (rc == 0)
		rc = h->subscribe(ctx, PB_TOPIC_NODE_ADDRESSES, PB_TOPIC_NODE_ADDRESSES_VERSION,
				  on_address, NULL);
	if (rc == 0)
		rc = h->subscribe(ctx, PB_TOPIC_BACKENDS, PB_TOPIC_BACKENDS_VERSION, on_backends,
				  NULL);
	return rc;
}
