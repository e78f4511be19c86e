/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lb maglev`: a row per frontend that has a table, a page at a time; with a Service a row per
 * frontend and backend. Equal checksums on two nodes say that both choose the same.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "kpr.h"

/* Rows of a page: some milliseconds. */
#define PAGE_ROWS 1000
#define AFTER "--after="

struct out {
	struct pb_ctx *ctx;
	struct pb_buf *buf;
	uint32_t rows;
	int rc;
};

static void put(struct out *o, const char *text)
{
	if (o->rc == 0)
		o->rc = o->ctx->host->buf_append(o->buf, text, strlen(text));
}

/* Frees the row. */
static void put_row(struct out *o, cJSON *row)
{
	char *text = cJSON_PrintUnformatted(row);

	if (o->rows++ > 0)
		put(o, ",");
	if (text)
		put(o, text);
	else
		o->rc = -ENOMEM;
	free(text);
	cJSON_Delete(row);
}

static const char *address(const union pb_addr *addr, uint8_t family, __be16 port, char *text,
			   size_t len)
{
	char ip[INET6_ADDRSTRLEN] = "";

	inet_ntop(family == 6 ? AF_INET6 : AF_INET, addr, ip, sizeof(ip));
	snprintf(text, len, family == 6 ? "[%s]:%u" : "%s:%u", ip, ntohs(port));
	return text;
}

static const char *protocol_name(uint8_t protocol)
{
	return protocol == IPPROTO_TCP ? "TCP" : protocol == IPPROTO_UDP ? "UDP" : "SCTP";
}

/* The table that programs look into for this frontend; NULL: none. */
static const struct kpr_table *table_of(const struct kpr_claim *claim)
{
	const struct kpr_front *front = claim->front;

	if (front->claims != claim || !front->programmed || !front->pool ||
	    !(front->value.flags & PB_SVC_MAGLEV))
		return NULL;
	return front->pool->table;
}

static cJSON *row_of(const struct kpr_claim *claim)
{
	const struct pb_svc_key *key = &claim->front->key;
	cJSON *row = cJSON_CreateObject();
	char text[64];

	cJSON_AddStringToObject(row, "service", claim->svc->key);
	cJSON_AddStringToObject(row, "frontend",
				address(&key->addr, key->family, key->port, text, sizeof(text)));
	cJSON_AddStringToObject(row, "protocol", protocol_name(key->protocol));
	return row;
}

/* ---- all tables ---- */

static void put_tables(struct out *o, const struct kpr_svc *svc)
{
	for (uint32_t i = 0; i < svc->n_claims; i++) {
		const struct kpr_table *table = table_of(&svc->claims[i]);
		char checksum[20] = "";
		cJSON *row;

		if (!table)
			continue;
		row = row_of(&svc->claims[i]);
		cJSON_AddNumberToObject(row, "backends", table->backends);
		cJSON_AddNumberToObject(row, "min", table->built_ns ? table->min : 0);
		cJSON_AddNumberToObject(row, "max", table->max);
		if (table->built_ns)
			snprintf(checksum, sizeof(checksum), "%016llx",
				 (unsigned long long)table->checksum);
		cJSON_AddStringToObject(row, "checksum", checksum);
		cJSON_AddStringToObject(row, "state",
					table->queued || !table->built_ns ? "changing"
					: table->uneven			  ? "uneven"
									  : "ok");
		put_row(o, row);
	}
}

static int put_all(struct out *o, const char *after)
{
	const struct kpr *kpr = o->ctx->self;
	const struct kpr_svc *svc = kpr->model.svcs;

	if (after) {
		svc = kpr_model_find(&kpr->model, after);
		if (!svc)
			return o->ctx->host->fail(o->ctx, -EAGAIN,
						  "Services changed meanwhile; ask again");
	}
	put(o, "{\"columns\":[{\"title\":\"SERVICE\",\"field\":\"service\"},"
	       "{\"title\":\"FRONTEND\",\"field\":\"frontend\"},"
	       "{\"title\":\"PROTO\",\"field\":\"protocol\"},"
	       "{\"title\":\"BACKENDS\",\"field\":\"backends\"},"
	       "{\"title\":\"MIN\",\"field\":\"min\"},{\"title\":\"MAX\",\"field\":\"max\"},"
	       "{\"title\":\"CHECKSUM\",\"field\":\"checksum\"},"
	       "{\"title\":\"STATE\",\"field\":\"state\"}],\"items\":[");
	for (; svc && o->rows < PAGE_ROWS; svc = svc->hh.next)
		put_tables(o, svc);
	put(o, "]");
	if (svc) {
		cJSON *next = cJSON_CreateString(svc->key);
		char *text = cJSON_PrintUnformatted(next);

		put(o, ",\"next\":");
		put(o, text ? text : "\"\"");
		free(text);
		cJSON_Delete(next);
	}
	put(o, "}");
	return o->rc;
}

/* ---- one Service ---- */

static uint32_t share_of(const struct kpr_share *shares, uint32_t n, uint32_t number)
{
	uint32_t from = 0, to = n;

	while (from < to) {
		uint32_t mid = from + (to - from) / 2;

		if (shares[mid].number == number)
			return shares[mid].share;
		if (shares[mid].number < number)
			from = mid + 1;
		else
			to = mid;
	}
	return 0;
}

static void put_share(struct out *o, const struct kpr_claim *claim, const struct pb_svc_backend *b,
		      uint32_t share)
{
	const struct kpr *kpr = o->ctx->self;
	cJSON *row = row_of(claim);
	char text[64];

	cJSON_AddStringToObject(row, "backend",
				address(&b->addr, b->family, b->port, text, sizeof(text)));
	cJSON_AddNumberToObject(row, "elements", share);
	snprintf(text, sizeof(text), "%.2f%%", 100.0 * share / kpr->maps.tables.opts.size);
	cJSON_AddStringToObject(row, "share", text);
	put_row(o, row);
}

static void put_shares(struct out *o, const struct kpr_claim *claim)
{
	const struct kpr *kpr = o->ctx->self;
	const struct kpr_store *store = &kpr->maps.store;
	const struct kpr_table *table = table_of(claim);
	const struct kpr_pool *pool = claim->front->pool;
	struct kpr_share *shares = table ? calloc(pool->count + 1UL, sizeof(*shares)) : NULL;

	if (!table)
		return;
	if (!shares) {
		o->rc = -ENOMEM;
		return;
	}
	for (uint32_t i = 0; i < pool->count; i++)
		shares[i].number = kpr_pool_number(store, pool, i);
	kpr_table_shares(&kpr->maps.tables, table, shares, pool->count);
	for (uint32_t i = 0; i < pool->count; i++)
		put_share(o, claim, kpr_pool_at(store, pool, i),
			  share_of(shares, pool->count, kpr_pool_number(store, pool, i)));
	free(shares);
}

static int put_one(struct out *o, const char *name)
{
	const struct kpr *kpr = o->ctx->self;
	const struct kpr_svc *svc = kpr_model_find(&kpr->model, name);

	if (!svc || !svc->obj)
		return o->ctx->host->fail(
			o->ctx, -ENOENT,
			"no Service \"%s\" (NAMESPACE/NAME): see `patchbay service "
			"list`",
			name);
	put(o, "{\"columns\":[{\"title\":\"FRONTEND\",\"field\":\"frontend\"},"
	       "{\"title\":\"PROTO\",\"field\":\"protocol\"},"
	       "{\"title\":\"BACKEND\",\"field\":\"backend\"},"
	       "{\"title\":\"ELEMENTS\",\"field\":\"elements\"},"
	       "{\"title\":\"SHARE\",\"field\":\"share\"}],\"items\":[");
	for (uint32_t i = 0; i < svc->n_claims; i++)
		put_shares(o, &svc->claims[i]);
	put(o, "]}");
	return o->rc;
}

int kpr_report_maglev(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
		      struct pb_buf *out)
{
	struct out o = {.ctx = ctx, .buf = out};

	(void)arg;
	if (n_args > 1)
		return ctx->host->fail(ctx, -EINVAL, "one Service at most: NAMESPACE/NAME");
	if (n_args == 0)
		return put_all(&o, NULL);
	if (strncmp(args[0], AFTER, strlen(AFTER)) == 0)
		return put_all(&o, args[0] + strlen(AFTER));
	return put_one(&o, args[0]);
}
