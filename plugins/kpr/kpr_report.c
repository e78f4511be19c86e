/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `service list`: a row per frontend, and who has it if it isn't the Service that wants it.
 * `service show`: a row per frontend and backend of one Service.
 *
 * Writes JSON as it goes, and the list without backends and in pages: all of it would hold the
 * agent's loop, and a tree of it would cost more memory than the agent has. A page ends behind a
 * Service; "next" is what the question for the rest says behind --after=.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "kpr.h"
#include "kpr_fronts.h"

#define PAGE_ROWS 500

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

/* SCTP: backends that can't be used because their port is another one. */
static uint32_t count_unfit(const struct kpr_svc *svc, const struct kpr_port *port)
{
	const struct kpr_part *part;
	struct pb_svc_backend b;
	struct kpr_run run;
	enum kpr_use use;
	uint32_t n = 0;

	if (kpr_port_number(port) == 0)
		return 0;
	DL_FOREACH (svc->parts, part) {
		kpr_run_begin(&run, part->value, port);
		while (kpr_run_next(&run, &b, &use))
			n += ntohs(b.port) != kpr_port_number(port);
	}
	return n;
}

/* Why no backend stands behind the frontend: mostly a name that was mistyped. */
static const char *why_none(const struct kpr_svc *svc, const struct kpr_port *port)
{
	bool same_family = false;
	const struct kpr_part *part;
	struct pb_svc_backend b;
	struct kpr_run run;
	enum kpr_use use;

	if (count_unfit(svc, port) > 0)
		return "no backends: with SCTP a backend's port must be the frontend's";
	DL_FOREACH (svc->parts, part) {
		kpr_run_begin(&run, part->value, port);
		if (kpr_run_next(&run, &b, &use))
			return kpr_port_local(port) ? "no backends on this node" : "no backends";
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

/* What there is to say of a frontend that is in the map as it should be. */
static void describe_good(const struct kpr_svc *svc, const struct kpr_front *front, char *text,
			  size_t len)
{
	const struct kpr_port *port = front->claims->port;
	uint32_t unfit = front->value.count > 0 ? count_unfit(svc, port) : 0;

	if (front->value.count == 0)
		snprintf(text, len, "%s", why_none(svc, port));
	else if (unfit > 0)
		snprintf(text, len, "partly: with SCTP %u backend%s another port than the frontend",
			 unfit, unfit == 1 ? " has" : "s have");
	else if (front->claims->flags & ~front->value.flags & PB_SVC_MAGLEV)
		snprintf(text, len, "ok, chosen at random: no room for a Maglev table");
	else
		snprintf(text, len, "ok");
}

/* Says in `text` why the row is as it is; "ok" when everything is in the map. */
static void describe(const struct kpr_svc *svc, const struct kpr_front *front, const char *why,
		     char *text, size_t len)
{
	static const char *const states[] = {
		[KPR_SVC_OK] = "ok",
		[KPR_SVC_WAITING] = "waiting for backends",
		[KPR_SVC_FROZEN] = "backends unknown, as before",
		[KPR_SVC_FULL] = "map full, as before",
		[KPR_SVC_FAILED] = "write failed, as before",
	};

	if (why || !front)
		snprintf(text, len, "%s", why ? why : "waiting");
	else if (front->claims && front->claims->svc != svc)
		snprintf(text, len, "conflict: taken by %s", front->claims->svc->key);
	else if (svc->state == KPR_SVC_OK && front->programmed && front->claims)
		describe_good(svc, front, text, len);
	else
		snprintf(text, len, "%s", states[svc->state]);
}

static const char *protocol_name(uint8_t protocol)
{
	return protocol == IPPROTO_TCP ? "TCP" : protocol == IPPROTO_UDP ? "UDP" : "SCTP";
}

static const char *scope_name(const struct kpr_wish *wish)
{
	if (wish->key.scope == PB_SVC_SCOPE_EXT)
		return "external";
	return wish->flags & PB_SVC_SPLIT ? "internal" : "all";
}

/* ---- service list ---- */

struct list {
	struct out out;
	const struct kpr *kpr;
	const struct kpr_svc *svc;
	const char *ns;
	const char *type;
	uint64_t after;
	uint32_t limit;
};

static bool outside_of_range(const struct kpr *kpr, const struct kpr_wish *wish)
{
	return PB_SVC_KIND(wish->flags) == PB_SVC_NODE_PORT &&
	       (wish->number < kpr->config.node_port_min ||
		wish->number > kpr->config.node_port_max);
}

static int put_row(void *arg, const struct kpr_wish *wish)
{
	struct list *l = arg;
	struct out *o = &l->out;
	const struct kpr_front *front = kpr_model_front(&l->kpr->model, &wish->key);
	bool ours = front && front->claims && front->claims->svc == l->svc;
	const char *kind = kpr_kind_name(PB_SVC_KIND(wish->flags));
	char why[512];

	if (l->type && strcmp(l->type, kind) != 0)
		return 0;
	describe(l->svc, front, wish->why, why, sizeof(why));
	if (outside_of_range(l->kpr, wish))
		snprintf(why + strlen(why), sizeof(why) - strlen(why),
			 "; outside of the NodePort range");
	put_raw(o, o->rows++ ? ",{\"namespace\":" : "{\"namespace\":");
	put_string(o, l->svc->obj->meta.ns);
	put_raw(o, ",\"name\":");
	put_string(o, l->svc->obj->meta.name);
	put_raw(o, ",\"type\":");
	put_string(o, kind);
	put_raw(o, ",\"port\":");
	put_string(o, wish->port->name);
	put_raw(o, ",\"frontend\":");
	put_address(o, &wish->key.addr, wish->key.family, wish->number);
	/* As conntrack entries name it. */
	put_raw(o, ",\"id\":");
	put_number(o, ours && front->programmed ? front->value.id : 0);
	put_raw(o, ",\"protocol\":");
	put_string(o, protocol_name(wish->key.protocol));
	put_raw(o, ",\"scope\":");
	put_string(o, scope_name(wish));
	put_raw(o, ",\"backends\":");
	put_number(o, ours && front->programmed ? front->value.count : 0);
	put_raw(o, ",\"state\":");
	put_string(o, why);
	put_raw(o, "}");
	return 0;
}

static int parse_number(struct pb_ctx *ctx, const char *name, const char *text, uint64_t *ret)
{
	char *end = NULL;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-')
		return ctx->host->fail(ctx, -EINVAL, "%s: \"%s\" is no number", name, text);
	return 0;
}

static int parse_option(struct pb_ctx *ctx, struct list *l, const char *name, const char *value)
{
	static const char after[] = "--after=";
	uint32_t kind = PB_SVC_CLUSTER_IP;
	uint64_t limit = 0;
	int rc;

	/* As the tool asks for the next page. */
	if (strncmp(name, after, sizeof(after) - 1) == 0)
		return parse_number(ctx, "--after", name + sizeof(after) - 1, &l->after);
	if (!value)
		return ctx->host->fail(ctx, -EINVAL, "%s: a value is missing", name);
	if (strcmp(name, "--limit") == 0) {
		rc = parse_number(ctx, name, value, &limit);
		l->limit = limit > 0 && limit < PAGE_ROWS ? (uint32_t)limit : PAGE_ROWS;
		return rc;
	}
	if (strcmp(name, "--type") != 0)
		return ctx->host->fail(ctx, -EINVAL,
				       "%s: no such option; there are --type, --after= and --limit",
				       name);
	while (kind <= PB_SVC_HOST_PORT && strcmp(value, kpr_kind_name(kind)) != 0)
		kind++;
	if (kind > PB_SVC_HOST_PORT)
		return ctx->host->fail(ctx, -EINVAL,
				       "--type: \"%s\" is none of ClusterIP, NodePort, ExternalIP, "
				       "LoadBalancer and HostPort",
				       value);
	l->type = value;
	return 0;
}

static int parse_args(struct pb_ctx *ctx, struct list *l, const char *const *args, uint32_t n)
{
	int rc = 0;

	for (uint32_t i = 0; i < n && rc == 0; i++) {
		if (args[i][0] == '-') {
			rc = parse_option(ctx, l, args[i], i + 1 < n ? args[i + 1] : NULL);
			i += strchr(args[i], '=') == NULL;
		} else if (l->ns) {
			rc = ctx->host->fail(ctx, -EINVAL, "one namespace at most");
		} else {
			l->ns = args[i];
		}
	}
	return rc;
}

static void put_next(struct out *o, uint64_t serial)
{
	char text[40];

	snprintf(text, sizeof(text), ",\"next\":\"%llu\"", (unsigned long long)serial);
	put_raw(o, text);
}

int kpr_report_services(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
			struct pb_buf *out)
{
	const struct kpr *kpr = ctx->self;
	struct list l = {.out = {.host = ctx->host, .buf = out}, .kpr = kpr, .limit = PAGE_ROWS};
	int rc = parse_args(ctx, &l, args, n_args);
	uint64_t last = 0;

	(void)arg;
	if (rc < 0)
		return rc;
	put_raw(&l.out,
		"{\"columns\":[{\"title\":\"NAMESPACE\",\"field\":\"namespace\"},"
		"{\"title\":\"NAME\",\"field\":\"name\"},{\"title\":\"TYPE\",\"field\":\"type\"},"
		"{\"title\":\"FRONTEND\",\"field\":\"frontend\"},"
		"{\"title\":\"PROTO\",\"field\":\"protocol\"},"
		"{\"title\":\"SCOPE\",\"field\":\"scope\"},"
		"{\"title\":\"BACKENDS\",\"field\":\"backends\"},"
		"{\"title\":\"STATE\",\"field\":\"state\"}],\"items\":[");
	/* In the order in which they came, which is that of their serials. */
	for (l.svc = kpr->model.svcs; l.svc && l.out.rows < l.limit; l.svc = l.svc->hh.next) {
		if (l.svc->serial <= l.after || !l.svc->obj ||
		    (l.ns && strcmp(l.ns, l.svc->obj->meta.ns) != 0) ||
		    !kpr_fronts_any(l.svc->obj, kpr->config.proxy_name))
			continue;
		kpr_fronts_each(&kpr->model, l.svc->obj, put_row, &l);
		last = l.svc->serial;
	}
	put_raw(&l.out, "]");
	if (l.svc)
		put_next(&l.out, last);
	put_raw(&l.out, "}");
	flush(&l.out);
	return l.out.error;
}

/* ---- service show ---- */

static void put_backend(struct out *o, const struct pb_backends *value, const struct pb_backend *b,
			const struct kpr_wish *wish)
{
	static const char *const states[] = {"unknown", "active", "terminating", "draining"};

	put_raw(o, o->rows++ ? ",{\"frontend\":" : "{\"frontend\":");
	put_address(o, &wish->key.addr, wish->key.family, wish->number);
	put_raw(o, ",\"protocol\":");
	put_string(o, protocol_name(wish->key.protocol));
	put_raw(o, ",\"port\":");
	put_string(o, wish->port->name);
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

/* At node addresses the entry for all of them is shown, and of two scopes the inner one. */
static int put_backends(void *arg, const struct kpr_wish *wish)
{
	static const union pb_addr any;
	struct list *l = arg;
	const struct kpr_part *part;
	uint32_t end;

	if (wish->key.scope == PB_SVC_SCOPE_EXT ||
	    (wish->at_node && memcmp(&wish->key.addr, &any, sizeof(any)) != 0))
		return 0;
	DL_FOREACH (l->svc->parts, part)
		for (uint32_t i = kpr_part_find(part->value, wish->key.family, wish->key.protocol,
						wish->port->name, &end);
		     i < end; i++)
			put_backend(&l->out, part->value, &part->value->backend[i], wish);
	return 0;
}

int kpr_report_service(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
		       struct pb_buf *out)
{
	const struct kpr *kpr = ctx->self;
	struct list l = {.out = {.host = ctx->host, .buf = out}, .kpr = kpr};

	(void)arg;
	if (n_args != 1)
		return ctx->host->fail(ctx, -EINVAL, "one Service is needed: NAMESPACE/NAME");
	l.svc = kpr_model_find(&kpr->model, args[0]);
	if (!l.svc || !l.svc->obj)
		return ctx->host->fail(ctx, -ENOENT,
				       "no Service \"%s\" (NAMESPACE/NAME): see `patchbay service "
				       "list`",
				       args[0]);
	put_raw(&l.out, "{\"columns\":[{\"title\":\"FRONTEND\",\"field\":\"frontend\"},"
			"{\"title\":\"PROTO\",\"field\":\"protocol\"},"
			"{\"title\":\"BACKEND\",\"field\":\"backend\"},"
			"{\"title\":\"STATE\",\"field\":\"state\"},"
			"{\"title\":\"NODE\",\"field\":\"node\"},"
			"{\"title\":\"ZONE\",\"field\":\"zone\"}],\"items\":[");
	if (kpr_fronts_any(l.svc->obj, kpr->config.proxy_name))
		kpr_fronts_each(&kpr->model, l.svc->obj, put_backends, &l);
	put_raw(&l.out, "]}");
	flush(&l.out);
	return l.out.error;
}
