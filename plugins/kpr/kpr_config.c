/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin's section of the configuration file.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "kpr.h"

/* Fewer would be used up by a handful of clients. */
#define SNAT_PORTS_MIN 1024
/* 512 MiB with the default size of a table. */
#define TABLES_MAX 4096

static int parse_max(struct pb_ctx *ctx, const cJSON *item, uint32_t max, uint32_t *ret_value)
{
	double value = cJSON_GetNumberValue(item);

	if (!cJSON_IsNumber(item) || value < 1 || value > max || value != (uint32_t)value)
		return ctx->host->fail(ctx, -EINVAL, "%s: must be a whole number from 1 to %u",
				       item->string, max);
	*ret_value = (uint32_t)value;
	return 0;
}

static int parse_names(struct pb_ctx *ctx, const cJSON *list, char ***ret_names)
{
	int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
	char **names = calloc((size_t)n + 1, sizeof(*names));

	for (char **old = *ret_names; old && *old; old++)
		free(*old);
	free(*ret_names);
	*ret_names = names;
	if (!names)
		return -ENOMEM;
	if (!cJSON_IsArray(list))
		return ctx->host->fail(ctx, -EINVAL, "%s: must be a list of NAMESPACE/NAME",
				       list->string);
	for (int i = 0; i < n; i++) {
		const char *name = cJSON_GetStringValue(cJSON_GetArrayItem(list, i));
		const char *slash = name ? strchr(name, '/') : NULL;

		if (!slash || slash == name || !slash[1] || strchr(slash + 1, '/'))
			return ctx->host->fail(ctx, -EINVAL,
					       "%s: entry %d: must be NAMESPACE/NAME of a Service",
					       list->string, i + 1);
		names[i] = strdup(name);
		if (!names[i])
			return -ENOMEM;
	}
	return 0;
}

static int parse_proxy_name(struct pb_ctx *ctx, const cJSON *item, char **ret_name)
{
	if (!cJSON_IsString(item))
		return ctx->host->fail(ctx, -EINVAL, "%s: must be a string", item->string);
	free(*ret_name);
	*ret_name = strdup(item->valuestring);
	return *ret_name ? 0 : -ENOMEM;
}

static int parse_bool(struct pb_ctx *ctx, const cJSON *item, const char *where, bool *ret_value)
{
	if (!cJSON_IsBool(item))
		return ctx->host->fail(ctx, -EINVAL, "%s%s: must be true or false", where,
				       item->string);
	*ret_value = cJSON_IsTrue(item);
	return 0;
}

/* ---- node_port ---- */

static int parse_range(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	const cJSON *from = cJSON_GetArrayItem(item, 0), *to = cJSON_GetArrayItem(item, 1);
	double min = cJSON_GetNumberValue(from), max = cJSON_GetNumberValue(to);

	if (!cJSON_IsArray(item) || cJSON_GetArraySize(item) != 2 || !cJSON_IsNumber(from) ||
	    !cJSON_IsNumber(to) || min < 1 || min >= max || max > 65535 - SNAT_PORTS_MIN ||
	    min != (uint16_t)min || max != (uint16_t)max)
		return ctx->host->fail(
			ctx, -EINVAL,
			"node_port.range: must be two ports, the lower one first, for "
			"example [30000, 32767]; the upper one is %u at most, because "
			"the ports above it are for translated packets",
			65535 - SNAT_PORTS_MIN);
	config->node_port_min = (uint16_t)min;
	config->node_port_max = (uint16_t)max;
	return 0;
}

static bool parse_cidr(const char *text, struct pb_cidr *ret_cidr)
{
	char addr[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	struct pb_cidr cidr = {.family = strchr(text, ':') ? 6 : 4};
	char *end = NULL;
	long bits = slash ? strtol(slash + 1, &end, 10) : -1;

	if (!slash || (size_t)(slash - text) >= sizeof(addr) || end == slash + 1 || *end ||
	    slash[1] < '0' || slash[1] > '9' || bits > (cidr.family == 6 ? 128 : 32))
		return false;
	memcpy(addr, text, (size_t)(slash - text));
	addr[slash - text] = '\0';
	cidr.bits = (uint8_t)bits;
	*ret_cidr = cidr;
	return inet_pton(cidr.family == 6 ? AF_INET6 : AF_INET, addr, &ret_cidr->addr) == 1;
}

static int parse_addresses(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	int n = cJSON_IsArray(item) ? cJSON_GetArraySize(item) : 0;
	struct kpr_node_rule *rule = &config->node_rule;

	if (cJSON_IsString(item) && strcmp(item->valuestring, "primary") == 0) {
		rule->primary = true;
		return 0;
	}
	if (!cJSON_IsArray(item))
		return ctx->host->fail(ctx, -EINVAL,
				       "node_port.addresses: must be a list of "
				       "ranges such as 192.0.2.0/24, or primary");
	free(rule->cidrs);
	rule->n_cidrs = 0;
	rule->cidrs = calloc((size_t)n + 1, sizeof(*rule->cidrs));
	if (!rule->cidrs)
		return -ENOMEM;
	for (int i = 0; i < n; i++) {
		const char *text = cJSON_GetStringValue(cJSON_GetArrayItem(item, i));

		if (!text || !parse_cidr(text, &rule->cidrs[i]))
			return ctx->host->fail(
				ctx, -EINVAL,
				"node_port.addresses: entry %d: must be a range such "
				"as 192.0.2.0/24 or 2001:db8::/64",
				i + 1);
		rule->n_cidrs++;
	}
	return 0;
}

static int parse_node_port(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	int rc = 0;

	if (!cJSON_IsObject(item))
		return ctx->host->fail(ctx, -EINVAL, "node_port: must be a mapping");
	for (const cJSON *i = item->child; i && rc == 0; i = i->next) {
		if (strcmp(i->string, "enabled") == 0)
			rc = parse_bool(ctx, i, "node_port.", &config->node_ports);
		else if (strcmp(i->string, "bind_protection") == 0)
			rc = parse_bool(ctx, i, "node_port.", &config->bind_protection);
		else if (strcmp(i->string, "reserve") == 0)
			rc = parse_bool(ctx, i, "node_port.", &config->reserve_ports);
		else if (strcmp(i->string, "range") == 0)
			rc = parse_range(ctx, i, config);
		else if (strcmp(i->string, "addresses") == 0)
			rc = parse_addresses(ctx, i, config);
		else
			rc = ctx->host->fail(ctx, -EINVAL,
					     "node_port.%s: no such key; known are enabled, range, "
					     "addresses, reserve and bind_protection",
					     i->string);
	}
	return rc;
}

/* ---- maglev ---- */

static int parse_table_size(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	double value = cJSON_GetNumberValue(item);

	if (!cJSON_IsNumber(item) || value < 1 || value > KPR_MAGLEV_SIZE_MAX ||
	    value != (uint32_t)value || !kpr_maglev_size_ok((uint32_t)value))
		return ctx->host->fail(ctx, -EINVAL, "maglev.table_size: must be one of %s",
				       kpr_maglev_sizes());
	config->maglev_size = (uint32_t)value;
	return 0;
}

static int parse_seed(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	const char *text = cJSON_GetStringValue(item);

	if (!text || kpr_maglev_seed(text, config->maglev_seed) < 0)
		return ctx->host->fail(ctx, -EINVAL,
				       "maglev.seed: must be 12 random bytes in base64, the same "
				       "on all nodes (head -c12 /dev/urandom | base64 -w0)");
	return 0;
}

static int parse_tables_max(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	double value = cJSON_GetNumberValue(item);

	if (!cJSON_IsNumber(item) || value < 1 || value > TABLES_MAX || value != (uint32_t)value)
		return ctx->host->fail(ctx, -EINVAL,
				       "maglev.tables_max: must be a whole number from 1 to %u",
				       TABLES_MAX);
	config->maglev_tables = (uint32_t)value;
	return 0;
}

static int parse_maglev(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	int rc = 0;

	if (!cJSON_IsObject(item))
		return ctx->host->fail(ctx, -EINVAL, "maglev: must be a mapping");
	for (const cJSON *i = item->child; i && rc == 0; i = i->next) {
		if (strcmp(i->string, "table_size") == 0)
			rc = parse_table_size(ctx, i, config);
		else if (strcmp(i->string, "seed") == 0)
			rc = parse_seed(ctx, i, config);
		else if (strcmp(i->string, "tables_max") == 0)
			rc = parse_tables_max(ctx, i, config);
		else
			rc = ctx->host->fail(ctx, -EINVAL,
					     "maglev.%s: no such key; known are table_size, seed "
					     "and tables_max",
					     i->string);
	}
	return rc;
}

/* ---- all keys ---- */

static int parse_mode(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	const char *text = cJSON_GetStringValue(item);

	if (!text || kpr_mode_parse(text, &config->mode) < 0)
		return ctx->host->fail(ctx, -EINVAL, "mode: must be strict, probe or disabled");
	return 0;
}

static int parse_choice(struct pb_ctx *ctx, const cJSON *item, const char *no, const char *yes,
			bool *ret_value)
{
	const char *text = cJSON_GetStringValue(item);

	if (!text || (strcmp(text, no) != 0 && strcmp(text, yes) != 0))
		return ctx->host->fail(ctx, -EINVAL, "%s: must be %s or %s", item->string, no, yes);
	*ret_value = strcmp(text, yes) == 0;
	return 0;
}

static int parse_services_max(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	return parse_max(ctx, item, 1U << 20, &config->services_max);
}

static int parse_backends_max(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	return parse_max(ctx, item, 1U << 24, &config->backends_max);
}

static int parse_fail_open(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	return parse_names(ctx, item, &config->fail_open);
}

static int parse_name(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	return parse_proxy_name(ctx, item, &config->proxy_name);
}

static int parse_external_ips(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	return parse_bool(ctx, item, "", &config->external_ips);
}

static int parse_host_ports(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	return parse_bool(ctx, item, "", &config->host_ports);
}

static int parse_load_balancer(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	return parse_bool(ctx, item, "", &config->load_balancer);
}

static int parse_external(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	return parse_bool(ctx, item, "", &config->cluster_ip_external);
}

static int parse_socket_lb(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	return parse_choice(ctx, item, "all", "host", &config->host_sockets_only);
}

static int parse_algorithm(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	return parse_choice(ctx, item, "random", "maglev", &config->maglev);
}

/* No packet may have it as source: this network, loopback, multicast, broadcast. */
static bool is_reserved4(uint32_t addr)
{
	return addr >> 24 == 0 || addr >> 24 == 127 || addr >> 28 >= 14;
}

static int parse_loopback(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	const char *text = cJSON_GetStringValue(item);

	if (!text || inet_pton(AF_INET, text, &config->loopback4) != 1 ||
	    is_reserved4(ntohl(config->loopback4)))
		return ctx->host->fail(ctx, -EINVAL,
				       "loopback_address: must be an IPv4 address that nobody has, "
				       "for example 169.254.42.1");
	return 0;
}

static int parse_health(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	return kpr_health_config_ports(ctx, item, &config->health);
}

static int parse_healthz(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	return kpr_health_config_healthz(ctx, item, &config->health);
}

static const struct {
	const char *name;
	int (*parse)(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config);
} keys[] = {
	{"services_max", parse_services_max},
	{"backends_max", parse_backends_max},
	{"fail_open", parse_fail_open},
	{"service_proxy_name", parse_name},
	{"node_port", parse_node_port},
	{"external_ips", parse_external_ips},
	{"host_ports", parse_host_ports},
	{"load_balancer", parse_load_balancer},
	{"cluster_ip_external", parse_external},
	{"socket_lb", parse_socket_lb},
	{"algorithm", parse_algorithm},
	{"loopback_address", parse_loopback},
	{"maglev", parse_maglev},
	{"mode", parse_mode},
	{"health_check_node_port", parse_health},
	{"healthz_bind", parse_healthz},
};

static int unknown_key(struct pb_ctx *ctx, const char *name)
{
	size_t n = sizeof(keys) / sizeof(keys[0]);
	char known[512] = "";

	for (size_t i = 0; i < n; i++)
		snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s",
			 i == 0	      ? ""
			 : i == n - 1 ? " and "
				      : ", ",
			 keys[i].name);
	return ctx->host->fail(ctx, -EINVAL, "%s: no such key; known are %s", name, known);
}

static int parse_item(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (strcmp(item->string, keys[i].name) == 0)
			return keys[i].parse(ctx, item, config);
	return unknown_key(ctx, item->string);
}

static int set_defaults(struct kpr_config *config)
{
	*config = (struct kpr_config){.services_max = 65536,
				      .backends_max = 262144,
				      .node_port_min = 30000,
				      .node_port_max = 32767,
				      .node_ports = true,
				      .bind_protection = true,
				      .external_ips = true,
				      .host_ports = true,
				      .load_balancer = true,
				      .reserve_ports = true,
				      .maglev_size = KPR_MAGLEV_SIZE_DEFAULT,
				      .maglev_tables = 64,
				      .health.enabled = true};
	kpr_maglev_seed(KPR_MAGLEV_SEED_DEFAULT, config->maglev_seed);
	inet_pton(AF_INET, "169.254.42.1", &config->loopback4);
	config->proxy_name = strdup("");
	config->fail_open = calloc(2, sizeof(*config->fail_open));
	if (config->fail_open)
		config->fail_open[0] = strdup("default/kubernetes");
	return config->proxy_name && config->fail_open && config->fail_open[0] ? 0 : -ENOMEM;
}

int kpr_config_parse(struct pb_ctx *ctx, struct kpr_config *ret_config)
{
	cJSON *json = cJSON_Parse(ctx->host->config(ctx));
	int rc = set_defaults(ret_config);

	if (rc == 0 && !cJSON_IsObject(json))
		rc = ctx->host->fail(ctx, -EINVAL, "the configuration must be a mapping");
	for (const cJSON *item = rc == 0 ? json->child : NULL; item && rc == 0; item = item->next)
		rc = parse_item(ctx, item, ret_config);
	cJSON_Delete(json);
	return rc;
}

void kpr_config_free(struct kpr_config *config)
{
	for (char **name = config->fail_open; name && *name; name++)
		free(*name);
	free(config->fail_open);
	free(config->proxy_name);
	free(config->node_rule.cidrs);
	memset(config, 0, sizeof(*config));
}
