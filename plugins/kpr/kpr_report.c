/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `service list`: a row per frontend, and who has it if it isn't the Service that wants it.
 * `service show`: a row per frontend and backend of one Service.
 *
 * Writes JSON as it goes, and the list without backends: with 100,000 of them it would hold the
 * agent's loop, and a tree of them would cost more memory than the agent has.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <utlist.h>

#include "kpr.h"

struct out {
	const struct pb_host *host;
	struct pb_buf *buf;
	char chunk[8192];
	size_t len;
	int error;
	uint32_t rows;
};

static void flush(struct out *o)
{
	if (o->error == 0 && o->len > 0)
		o->error = o->host->buf_append(o->buf, o->chunk, o->len);
	o->len = 0;
}

static void put(struct out *o, const char *s, size_t len)
{
	if (o->len + len > sizeof(o->chunk))
		flush(o);
	memcpy(o->chunk + o->len, s, len);
	o->len += len;
}

static void put_raw(struct out *o, const char *s)
{
	put(o, s, strlen(s));
}

static bool plain(unsigned char c)
{
	return c >= 0x20 && c != '"' && c != '\\';
}

/* Names come from the cluster: whatever they hold must stay a JSON string. */
static void put_string(struct out *o, const char *s)
{
	char escape[8];
	size_t n;

	put(o, "\"", 1);
	for (; *s; s += n) {
		for (n = 0; n < 4096 && plain((unsigned char)s[n]); n++)
			;
		put(o, s, n);
		if (n > 0)
			continue;
		snprintf(escape, sizeof(escape), "\\u%04x", (unsigned char)*s);
		put_raw(o, escape);
		n = 1;
	}
	put(o, "\"", 1);
}

static void put_number(struct out *o, uint32_t n)
{
	char digits[10];
	size_t i = sizeof(digits);

	do {
		digits[--i] = (char)('0' + n % 10);
		n /= 10;
	} while (n > 0);
	put(o, digits + i, sizeof(digits) - i);
}

static void put_address(struct out *o, const union pb_addr *addr, uint32_t family, uint32_t port)
{
	char text[INET6_ADDRSTRLEN];

	if (family == 4) {
		for (int i = 0; i < 4; i++) {
			put_raw(o, i ? "." : "\"");
			put_number(o, addr->bytes[i]);
		}
		put_raw(o, ":");
	} else {
		inet_ntop(AF_INET6, addr, text, sizeof(text));
		put_raw(o, "\"[");
		put_raw(o, text);
		put_raw(o, "]:");
	}
	put_number(o, port);
	put_raw(o, "\"");
}

/* Why no backend stands behind the frontend: mostly a name that was mistyped. */
static const char *why_none(const struct kpr_svc *svc, const struct kpr_port *port)
{
	bool same_family = false;
	const struct kpr_part *part;
	struct pb_svc_backend b;
	struct kpr_run run;
	enum kpr_use use;

	DL_FOREACH (svc->parts, part) {
		kpr_run_begin(&run, part->value, port);
		if (kpr_run_next(&run, &b, &use))
			return port->local ? "no backends on this node" : "no backends";
		/* Sorted by family. */
		same_family =
			same_family || (part->value->n > 0 &&
					(part->value->backend[0].family == kpr_port_family(port) ||
					 part->value->backend[part->value->n - 1].family ==
						 kpr_port_family(port)));
	}
	return same_family ? "no backends: no endpoint has a port of this name and protocol"
			   : "no backends";
}

/* Says in `text` why the row is as it is; "ok" when everything is in the map. */
static void describe(const struct kpr_svc *svc, const struct kpr_front *front, char *text,
		     size_t len)
{
	static const char *const states[] = {
		[KPR_SVC_OK] = "ok",
		[KPR_SVC_WAITING] = "waiting for backends",
		[KPR_SVC_FROZEN] = "backends unknown, as before",
		[KPR_SVC_FULL] = "map full, as before",
		[KPR_SVC_FAILED] = "write failed, as before",
	};

	if (!front)
		snprintf(text, len, "not translated: protocol or port");
	else if (front->claims && front->claims->svc != svc)
		snprintf(text, len, "conflict: taken by %s", front->claims->svc->key);
	else if (svc->state == KPR_SVC_OK && front->programmed && front->value.count == 0)
		snprintf(text, len, "%s", why_none(svc, front->claims->port));
	else
		snprintf(text, len, "%s", states[svc->state]);
}

static const char *type_name(uint32_t type)
{
	static const char *const names[] = {"", "ClusterIP", "NodePort", "LoadBalancer",
					    "ExternalName"};

	return names[type < 5 ? type : 0];
}

static const char *protocol_name(uint8_t protocol)
{
	return protocol == IPPROTO_TCP ? "TCP" : protocol == IPPROTO_UDP ? "UDP" : "SCTP";
}

static void put_row(struct out *o, const struct kpr_model *m, const struct kpr_svc *svc,
		    const struct pb_kube_addr *ip, const struct pb_service_port *port)
{
	struct kpr_front *front = NULL;
	bool ours;
	struct pb_svc_key key;
	char why[512];

	if (kpr_frontend_key(ip, port, &key))
		front = kpr_model_front(m, &key);
	ours = front && front->claims && front->claims->svc == svc;
	describe(svc, front, why, sizeof(why));
	put_raw(o, o->rows++ ? ",{\"namespace\":" : "{\"namespace\":");
	put_string(o, svc->obj->meta.ns);
	put_raw(o, ",\"name\":");
	put_string(o, svc->obj->meta.name);
	put_raw(o, ",\"type\":");
	put_string(o, type_name(svc->obj->type));
	put_raw(o, ",\"port\":");
	put_string(o, port->name);
	put_raw(o, ",\"frontend\":");
	put_address(o, &ip->addr, ip->family, port->port);
	put_raw(o, ",\"protocol\":");
	put_string(o, protocol_name(port->protocol));
	put_raw(o, ",\"backends\":");
	put_number(o, ours && front->programmed ? front->value.count : 0);
	put_raw(o, ",\"state\":");
	put_string(o, why);
	put_raw(o, "}");
}

int kpr_report_services(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
			struct pb_buf *out)
{
	const struct kpr *kpr = ctx->self;
	struct out o = {.host = ctx->host, .buf = out};
	const char *ns = n_args > 0 ? args[0] : NULL;

	(void)arg;
	if (n_args > 1)
		return ctx->host->fail(ctx, -EINVAL, "one namespace at most");
	put_raw(&o,
		"{\"columns\":[{\"title\":\"NAMESPACE\",\"field\":\"namespace\"},"
		"{\"title\":\"NAME\",\"field\":\"name\"},{\"title\":\"TYPE\",\"field\":\"type\"},"
		"{\"title\":\"FRONTEND\",\"field\":\"frontend\"},"
		"{\"title\":\"PROTO\",\"field\":\"protocol\"},"
		"{\"title\":\"BACKENDS\",\"field\":\"backends\"},"
		"{\"title\":\"STATE\",\"field\":\"state\"}],\"items\":[");
	for (const struct kpr_svc *svc = kpr->model.svcs; svc; svc = svc->hh.next) {
		if (!svc->obj || (ns && strcmp(ns, svc->obj->meta.ns) != 0) ||
		    !kpr_service_has_frontends(svc->obj, kpr->config.proxy_name))
			continue;
		for (uint32_t i = 0; i < svc->obj->n_cluster_ips; i++)
			for (uint32_t p = 0; p < svc->obj->n_ports; p++)
				put_row(&o, &kpr->model, svc, &svc->obj->cluster_ips[i],
					&svc->obj->ports[p]);
	}
	put_raw(&o, "]}");
	flush(&o);
	return o.error;
}

static void put_backend(struct out *o, const struct pb_backends *value, const struct pb_backend *b,
			const struct pb_kube_addr *ip, const struct pb_service_port *port)
{
	static const char *const states[] = {"unknown", "active", "terminating", "draining"};

	put_raw(o, o->rows++ ? ",{\"frontend\":" : "{\"frontend\":");
	put_address(o, &ip->addr, ip->family, port->port);
	put_raw(o, ",\"protocol\":");
	put_string(o, protocol_name(port->protocol));
	put_raw(o, ",\"port\":");
	put_string(o, port->name);
	put_raw(o, ",\"backend\":");
	put_address(o, &b->addr, b->family, b->port);
	put_raw(o, ",\"state\":");
	put_string(o, states[b->state < 4 ? b->state : 0]);
	put_raw(o, ",\"node\":");
	put_string(o, pb_backends_string(value, b->node));
	put_raw(o, ",\"zone\":");
	put_string(o, pb_backends_string(value, b->zone));
	put_raw(o, "}");
}

static void put_backends(struct out *o, const struct kpr_svc *svc, const struct pb_kube_addr *ip,
			 const struct pb_service_port *port)
{
	const struct kpr_part *part;
	uint32_t end;

	DL_FOREACH (svc->parts, part)
		for (uint32_t i = kpr_part_find(part->value, ip->family, port->protocol, port->name,
						&end);
		     i < end; i++)
			put_backend(o, part->value, &part->value->backend[i], ip, port);
}

int kpr_report_service(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
		       struct pb_buf *out)
{
	const struct kpr *kpr = ctx->self;
	struct out o = {.host = ctx->host, .buf = out};
	const struct kpr_svc *svc = NULL;

	(void)arg;
	if (n_args != 1)
		return ctx->host->fail(ctx, -EINVAL, "one Service is needed: NAMESPACE/NAME");
	HASH_FIND_STR(kpr->model.svcs, args[0], svc);
	if (!svc || !svc->obj)
		return ctx->host->fail(ctx, -ENOENT,
				       "no Service \"%s\" (NAMESPACE/NAME): see `patchbay service "
				       "list`",
				       args[0]);
	put_raw(&o, "{\"columns\":[{\"title\":\"FRONTEND\",\"field\":\"frontend\"},"
		    "{\"title\":\"PROTO\",\"field\":\"protocol\"},"
		    "{\"title\":\"BACKEND\",\"field\":\"backend\"},"
		    "{\"title\":\"STATE\",\"field\":\"state\"},"
		    "{\"title\":\"NODE\",\"field\":\"node\"},"
		    "{\"title\":\"ZONE\",\"field\":\"zone\"}],\"items\":[");
	for (uint32_t i = 0; i < svc->obj->n_cluster_ips; i++)
		for (uint32_t p = 0; p < svc->obj->n_ports; p++)
			put_backends(&o, svc, &svc->obj->cluster_ips[i], &svc->obj->ports[p]);
	put_raw(&o, "]}");
	flush(&o);
	return o.error;
}
