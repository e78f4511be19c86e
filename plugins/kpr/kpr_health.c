/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which Services have a health check port.
 */
#include "kpr_health.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS 60000

/* ---- ports ---- */

static void svc_close(struct kpr_health *health, struct kpr_health_svc *svc)
{
	for (uint32_t i = 0; i < svc->n_listeners; i++) {
		kpr_listener_close(svc->listeners[i]);
		svc->listeners[i] = NULL;
	}
	if (svc->has_port)
		HASH_DELETE(hh_port, health->ports, svc);
	svc->has_port = false;
}

static const struct pb_kube_addr *address_of(const struct kpr_health *health,
					     const struct kpr_health_svc *svc, uint32_t i)
{
	static const struct pb_kube_addr any;

	if (svc->is_healthz)
		return &health->config.healthz;
	return health->config.n_addresses ? &health->config.addresses[i] : &any;
}

/* Opens what isn't open yet. The first error is returned, the other addresses are tried too. */
static int svc_open(struct kpr_health *health, struct kpr_health_svc *svc)
{
	struct kpr_health_svc *owner = NULL;
	int rc = kpr_health_http_start(health), one;

	if (rc < 0)
		return rc;
	HASH_FIND(hh_port, health->ports, &svc->port, sizeof(svc->port), owner);
	if (owner && owner != svc)
		return -EADDRINUSE;
	if (!owner)
		HASH_ADD(hh_port, health->ports, port, sizeof(svc->port), svc);
	svc->has_port = true;
	for (uint32_t i = 0; i < svc->n_listeners; i++) {
		if (svc->listeners[i])
			continue;
		one = kpr_listener_open(&health->listeners, address_of(health, svc, i), svc->port,
					&svc->listeners[i]);
		rc = rc < 0 ? rc : one;
	}
	return rc;
}

static void on_retry(struct pb_ctx *ctx, void *arg);

static void retry_later(struct kpr_health *health)
{
	struct pb_ctx *ctx = health->ctx;

	if (!health->retry_runs)
		health->retry_runs = ctx->host->timer_start(ctx, health->retry_ms, 0, on_retry,
							    health, &health->retry_timer) == 0;
}

static int svc_try(struct kpr_health *health, struct kpr_health_svc *svc)
{
	struct pb_ctx *ctx = health->ctx;
	const char *what = svc->is_healthz ? "healthz_bind" : "healthCheckNodePort";
	int rc = svc_open(health, svc);

	if (rc < 0 && !svc->told)
		ctx->host->log(ctx, PB_LOG_ERROR,
			       "%s%s%s %u: %s; %s; free the port, it is tried again",
			       svc->is_healthz ? "" : svc->key, svc->is_healthz ? "" : ": ", what,
			       svc->port, strerror(-rc),
			       svc->is_healthz ? "/healthz is not served"
					       : "the Service works, but load balancers can't "
						 "check this node");
	else if (rc == 0 && svc->told)
		ctx->host->log(ctx, PB_LOG_INFO, "%s: port %u is served now", svc->key, svc->port);
	svc->told = rc < 0;
	if (rc < 0)
		retry_later(health);
	return rc;
}

static void on_retry(struct pb_ctx *ctx, void *arg)
{
	struct kpr_health *health = arg;
	struct kpr_health_svc *svc, *next;
	bool all = true;

	(void)ctx;
	health->retry_runs = false;
	health->retry_ms *= 2;
	if (health->retry_ms > RETRY_MAX_MS)
		health->retry_ms = RETRY_MAX_MS;
	HASH_ITER (hh, health->svcs, svc, next)
		if (svc->told && svc_try(health, svc) < 0)
			all = false;
	if (all)
		health->retry_ms = RETRY_MIN_MS;
}

/* Somebody else may have waited for a port of ours. */
static void port_freed(struct kpr_health *health, uint16_t port)
{
	struct kpr_health_svc *svc, *next;

	HASH_ITER (hh, health->svcs, svc, next)
		if (svc->told && svc->port == port)
			svc_try(health, svc);
}

/* ---- Services ---- */

static struct kpr_health_svc *svc_find(const struct kpr_health *health, const char *ns,
				       const char *name)
{
	struct kpr_health_svc *svc = NULL;
	char key[512];

	snprintf(key, sizeof(key), "%s/%s", ns, name);
	HASH_FIND_STR(health->svcs, key, svc);
	return svc;
}

static struct kpr_health_svc *svc_new(struct kpr_health *health, const char *key, bool is_healthz)
{
	uint32_t n = is_healthz || !health->config.n_addresses ? 1 : health->config.n_addresses;
	struct kpr_health_svc *svc = calloc(1, sizeof(*svc) + n * sizeof(svc->listeners[0]));

	if (!svc)
		return NULL;
	svc->key = strdup(key);
	if (!svc->key) {
		free(svc);
		return NULL;
	}
	svc->n_listeners = n;
	svc->is_healthz = is_healthz;
	HASH_ADD_KEYPTR(hh, health->svcs, svc->key, strlen(svc->key), svc);
	return svc;
}

static void svc_free(struct kpr_health *health, struct kpr_health_svc *svc)
{
	HASH_DEL(health->svcs, svc);
	free(svc->key);
	free(svc);
}

static bool serves(const struct kpr_health *health, const struct pb_kube_service *obj)
{
	return health->config.enabled && obj->type == PB_SERVICE_LOAD_BALANCER &&
	       (obj->flags & PB_SERVICE_EXTERNAL_LOCAL) && obj->health_check_node_port;
}

int kpr_health_put(struct kpr_health *health, const struct pb_kube_service *obj)
{
	struct kpr_health_svc *svc = svc_find(health, obj->meta.ns, obj->meta.name);
	uint16_t old = svc ? svc->port : 0;
	char key[512];

	if (!serves(health, obj)) {
		kpr_health_remove(health, obj);
		return 0;
	}
	if (!svc) {
		snprintf(key, sizeof(key), "%s/%s", obj->meta.ns, obj->meta.name);
		svc = svc_new(health, key, false);
		if (!svc)
			return -ENOMEM;
	}
	if (old == obj->health_check_node_port)
		return 0;
	svc_close(health, svc);
	svc->told = false;
	svc->port = obj->health_check_node_port;
	if (!health->started)
		return 0;
	if (old)
		port_freed(health, old);
	svc_try(health, svc);
	return 0;
}

void kpr_health_remove(struct kpr_health *health, const struct pb_kube_service *obj)
{
	struct kpr_health_svc *svc = svc_find(health, obj->meta.ns, obj->meta.name);
	uint16_t port;

	if (!svc)
		return;
	port = svc->port;
	svc_close(health, svc);
	svc_free(health, svc);
	if (health->started)
		port_freed(health, port);
}

void kpr_health_count(struct kpr_health *health, const char *ns, const char *name, uint32_t n)
{
	struct kpr_health_svc *svc = svc_find(health, ns, name);

	if (svc)
		svc->n_local = n;
}

bool kpr_health_wants(const struct kpr_health *health, const char *ns, const char *name)
{
	return svc_find(health, ns, name) != NULL;
}

void kpr_health_written(struct kpr_health *health, bool all)
{
	if (!all && health->behind_since_ns)
		return;
	health->behind_since_ns = all ? 0 : health->ctx->host->now_ns();
	health->updated = time(NULL);
}

/* ---- life ---- */

void kpr_health_init(struct kpr_health *health, struct pb_ctx *ctx,
		     const struct kpr_health_config *config)
{
	*health = (struct kpr_health){.ctx = ctx,
				      .config = *config,
				      .mhd_fd = -1,
				      .retry_ms = RETRY_MIN_MS};
	kpr_listeners_init(&health->listeners, ctx, kpr_health_http_accept,
			   kpr_health_http_accepted, health);
}

static void healthz_add(struct kpr_health *health)
{
	struct kpr_health_svc *svc;

	if (!health->config.healthz_port)
		return;
	/* No Service has such a key. */
	svc = svc_new(health, "healthz", true);
	if (svc)
		svc->port = health->config.healthz_port;
}

void kpr_health_start(struct kpr_health *health)
{
	struct kpr_health_svc *svc, *next;

	health->started = true;
	health->updated = time(NULL);
	healthz_add(health);
	kpr_listeners_adopt(&health->listeners);
	HASH_ITER (hh, health->svcs, svc, next)
		svc_try(health, svc);
	kpr_listeners_drop_others(&health->listeners);
}

void kpr_health_quiesce(struct kpr_health *health)
{
	kpr_health_http_run(health);
}

void kpr_health_free(struct kpr_health *health)
{
	struct kpr_health_svc *svc, *next;

	if (!health->ctx)
		return;
	if (health->retry_runs)
		health->ctx->host->timer_stop(health->ctx, health->retry_timer);
	kpr_health_http_stop(health);
	kpr_listeners_free(&health->listeners);
	HASH_CLEAR(hh_port, health->ports);
	HASH_ITER (hh, health->svcs, svc, next)
		svc_free(health, svc);
	memset(health, 0, sizeof(*health));
}
