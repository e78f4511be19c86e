/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin's section of the configuration. An unknown key or value is refused with its name,
 * never ignored.
 */
#include <errno.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "es.h"

static int parse_mode(struct pb_ctx *ctx, const cJSON *value, enum es_mode *ret_mode)
{
	const char *s = cJSON_GetStringValue(value);

	if (cJSON_IsTrue(value) || (s && strcmp(s, "true") == 0))
		*ret_mode = ES_SLICES;
	else if (cJSON_IsFalse(value) || (s && strcmp(s, "false") == 0))
		*ret_mode = ES_ENDPOINTS;
	else if (s && strcmp(s, "auto") == 0)
		*ret_mode = ES_AUTO;
	else
		return ctx->host->fail(ctx, -EINVAL, "enabled: must be auto, true or false");
	return 0;
}

static int parse_addresses(struct pb_ctx *ctx, const cJSON *value, bool *ret_all)
{
	const char *s = cJSON_GetStringValue(value);

	if (!s || (strcmp(s, "first") != 0 && strcmp(s, "all") != 0))
		return ctx->host->fail(ctx, -EINVAL, "addresses: must be first or all");
	*ret_all = strcmp(s, "all") == 0;
	return 0;
}

int es_config_parse(struct pb_ctx *ctx, struct es_config *ret_config)
{
	cJSON *config = cJSON_Parse(ctx->host->config(ctx));
	const cJSON *item;
	int rc = 0;

	*ret_config = (struct es_config){.mode = ES_AUTO};
	if (!cJSON_IsObject(config))
		rc = ctx->host->fail(ctx, -EINVAL, "the configuration must be a mapping");
	for (item = rc == 0 ? config->child : NULL; item && rc == 0; item = item->next) {
		if (strcmp(item->string, "enabled") == 0)
			rc = parse_mode(ctx, item, &ret_config->mode);
		else if (strcmp(item->string, "addresses") == 0)
			rc = parse_addresses(ctx, item, &ret_config->all_addresses);
		else
			rc = ctx->host->fail(ctx, -EINVAL,
					     "%s: no such key; there are enabled and addresses",
					     item->string);
	}
	cJSON_Delete(config);
	return rc;
}
