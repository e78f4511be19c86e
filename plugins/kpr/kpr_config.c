/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin's section of the configuration file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "kpr.h"

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

static int parse_item(struct pb_ctx *ctx, const cJSON *item, struct kpr_config *config)
{
	if (strcmp(item->string, "services_max") == 0)
		return parse_max(ctx, item, 1U << 20, &config->services_max);
	if (strcmp(item->string, "backends_max") == 0)
		return parse_max(ctx, item, 1U << 24, &config->backends_max);
	if (strcmp(item->string, "fail_open") == 0)
		return parse_names(ctx, item, &config->fail_open);
	if (strcmp(item->string, "service_proxy_name") == 0)
		return parse_proxy_name(ctx, item, &config->proxy_name);
	return ctx->host->fail(ctx, -EINVAL,
			       "%s: no such key; known are services_max, backends_max, fail_open "
			       "and service_proxy_name",
			       item->string);
}

static int set_defaults(struct kpr_config *config)
{
	memset(config, 0, sizeof(*config));
	config->services_max = 65536;
	config->backends_max = 262144;
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
	memset(config, 0, sizeof(*config));
}
