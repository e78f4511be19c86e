/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health checks: their part of the configuration, and how endpoints are counted. Pure.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "kpr_health.h"

static bool parse_address(const char *text, struct pb_kube_addr *ret_addr)
{
	memset(ret_addr, 0, sizeof(*ret_addr));
	if (text && inet_pton(AF_INET, text, &ret_addr->addr) == 1)
		ret_addr->family = 4;
	else if (text && inet_pton(AF_INET6, text, &ret_addr->addr) == 1)
		ret_addr->family = 6;
	return ret_addr->family != 0;
}

static int parse_addresses(struct pb_ctx *ctx, const cJSON *list, struct kpr_health_config *config)
{
	const char *where = "health_check_node_port.addresses";
	const cJSON *item;

	if (!cJSON_IsArray(list))
		return ctx->host->fail(ctx, -EINVAL, "%s: must be a list of IP addresses", where);
	config->n_addresses = 0;
	cJSON_ArrayForEach (item, list) {
		const char *text = cJSON_GetStringValue(item);

		if (config->n_addresses == KPR_HEALTH_ADDRESSES_MAX)
			return ctx->host->fail(ctx, -EINVAL, "%s: at most %d addresses", where,
					       KPR_HEALTH_ADDRESSES_MAX);
		if (!parse_address(text, &config->addresses[config->n_addresses]))
			return ctx->host->fail(ctx, -EINVAL,
					       "%s: entry %u: must be an IP address without prefix",
					       where, config->n_addresses + 1);
		config->n_addresses++;
	}
	return 0;
}

int kpr_health_config_ports(struct pb_ctx *ctx, const cJSON *item, struct kpr_health_config *config)
{
	const cJSON *key;
	int rc = 0;

	if (!cJSON_IsObject(item))
		return ctx->host->fail(ctx, -EINVAL,
				       "health_check_node_port: must be a mapping with enabled and "
				       "addresses");
	for (key = item->child; key && rc == 0; key = key->next) {
		if (strcmp(key->string, "addresses") == 0)
			rc = parse_addresses(ctx, key, config);
		else if (strcmp(key->string, "enabled") != 0)
			rc = ctx->host->fail(ctx, -EINVAL,
					     "health_check_node_port.%s: no such key; known are "
					     "enabled and addresses",
					     key->string);
		else if (!cJSON_IsBool(key))
			rc = ctx->host->fail(
				ctx, -EINVAL,
				"health_check_node_port.enabled: must be true or false");
		else
			config->enabled = cJSON_IsTrue(key);
	}
	return rc;
}

/* "ADDRESS:PORT", "[ADDRESS]:PORT" or ":PORT". */
static bool parse_bind(const char *text, struct pb_kube_addr *ret_addr, uint16_t *ret_port)
{
	const char *colon = text ? strrchr(text, ':') : NULL;
	char host[INET6_ADDRSTRLEN];
	size_t len = colon ? (size_t)(colon - text) : 0;
	unsigned long port;
	char *end = NULL;

	if (!colon || colon[1] < '0' || colon[1] > '9')
		return false;
	port = strtoul(colon + 1, &end, 10);
	if (*end || port == 0 || port > 65535)
		return false;
	*ret_port = (uint16_t)port;
	memset(ret_addr, 0, sizeof(*ret_addr));
	if (len == 0)
		return true;
	if (text[0] == '[' && colon[-1] == ']') {
		text++;
		len -= 2;
	} else if (memchr(text, ':', len)) {
		return false;
	}
	if (len >= sizeof(host))
		return false;
	memcpy(host, text, len);
	host[len] = 0;
	return parse_address(host, ret_addr);
}

int kpr_health_config_healthz(struct pb_ctx *ctx, const cJSON *item,
			      struct kpr_health_config *config)
{
	const char *text = cJSON_GetStringValue(item);

	config->healthz_port = 0;
	if (text && (!*text || strcmp(text, "off") == 0))
		return 0;
	if (!parse_bind(text, &config->healthz, &config->healthz_port))
		return ctx->host->fail(ctx, -EINVAL,
				       "healthz_bind: must be ADDRESS:PORT, for example "
				       "127.0.0.1:10256, or off");
	return 0;
}

/* ---- counting ---- */

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct pb_kube_addr));
}

static bool counts(const struct pb_backend *b)
{
	const uint8_t wanted = PB_BACKEND_LOCAL | PB_BACKEND_READY;

	return b->state == PB_BACKEND_ACTIVE && (b->flags & wanted) == wanted;
}

int kpr_health_local(const struct pb_backends *const *parts, uint32_t n, uint32_t *ret_n)
{
	uint32_t found = 0, at = 0, of[2] = {0, 0};
	struct pb_kube_addr *all;

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < parts[i]->n; k++)
			found += counts(&parts[i]->backend[k]);
	*ret_n = 0;
	if (found == 0)
		return 0;
	all = calloc(found, sizeof(*all));
	if (!all)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < parts[i]->n; k++) {
			const struct pb_backend *b = &parts[i]->backend[k];

			if (!counts(b))
				continue;
			all[at].family = b->family;
			memcpy(&all[at].addr, &b->addr,
			       b->family == 4 ? sizeof(b->addr.v4) : sizeof(b->addr));
			at++;
		}
	qsort(all, found, sizeof(*all), compare);
	for (uint32_t i = 0; i < found; i++)
		if (i == 0 || compare(&all[i], &all[i - 1]) != 0)
			of[all[i].family == 6]++;
	*ret_n = of[0] > of[1] ? of[0] : of[1];
	free(all);
	return 0;
}
