/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin's section of the configuration file, and which combinations of it can't work.
 */
#include <errno.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "dsr.h"

struct choice {
	const char *name;
	uint32_t value;
};

static const struct choice modes[] = {{"dsr", DSR_MODE_DSR},
				      {"hybrid", DSR_MODE_HYBRID},
				      {"snat", DSR_MODE_SNAT},
				      {NULL, 0}};
static const struct choice dispatches[] = {{"opt", DSR_OPT},
					   {"geneve", DSR_GENEVE},
					   {"ipip", DSR_IPIP},
					   {NULL, 0}};
static const struct choice addresses[] = {{"known", false}, {"any", true}, {NULL, 0}};
static const struct choice tunnels[] = {{"disabled", 0}, {"vxlan", 1}, {"geneve", 2}, {NULL, 0}};

static const char *name_of(const struct choice *choices, uint32_t value)
{
	for (; choices->name; choices++) {
		if (choices->value == value)
			return choices->name;
	}
	return "unknown";
}

const char *dsr_mode_name(uint32_t mode)
{
	return name_of(modes, mode);
}

const char *dsr_dispatch_name(uint32_t dispatch)
{
	return name_of(dispatches, dispatch);
}

static void list_of(const struct choice *choices, char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (; choices->name && used + strlen(choices->name) + 3 < size; choices++) {
		if (used > 0) {
			memcpy(text + used, ", ", 3);
			used += 2;
		}
		memcpy(text + used, choices->name, strlen(choices->name) + 1);
		used += strlen(choices->name);
	}
}

static int parse_choice(struct pb_ctx *ctx, const cJSON *item, const struct choice *choices,
			uint32_t *ret_value)
{
	const char *text = cJSON_GetStringValue(item);
	char list[64];

	for (const struct choice *c = choices; text && c->name; c++) {
		if (strcmp(c->name, text) == 0) {
			*ret_value = c->value;
			return 0;
		}
	}
	list_of(choices, list, sizeof(list));
	return ctx->host->fail(ctx, -EINVAL, "%s: must be one of %s", item->string, list);
}

static int parse_any_address(struct pb_ctx *ctx, const cJSON *item, bool *ret_any)
{
	uint32_t value = 0;
	int rc = parse_choice(ctx, item, addresses, &value);

	*ret_any = value != 0;
	return rc;
}

static int parse_tunnel(struct pb_ctx *ctx, const cJSON *item, const char **ret_tunnel)
{
	uint32_t value = 0;
	int rc = parse_choice(ctx, item, tunnels, &value);

	*ret_tunnel = name_of(tunnels, value);
	return rc;
}

static int parse_item(struct pb_ctx *ctx, const cJSON *item, struct dsr_config *config)
{
	if (strcmp(item->string, "mode") == 0)
		return parse_choice(ctx, item, modes, &config->mode);
	if (strcmp(item->string, "dispatch") == 0)
		return parse_choice(ctx, item, dispatches, &config->dispatch);
	if (strcmp(item->string, "node_addresses") == 0)
		return parse_any_address(ctx, item, &config->any_address);
	if (strcmp(item->string, "tunnel") == 0)
		return parse_tunnel(ctx, item, &config->tunnel);
	if (strcmp(item->string, "strip") == 0) {
		config->strip = cJSON_IsTrue(item);
		return cJSON_IsBool(item)
			       ? 0
			       : ctx->host->fail(ctx, -EINVAL, "strip: must be true or false");
	}
	return ctx->host->fail(ctx, -EINVAL,
			       "%s: no such key; known are mode, dispatch, strip, node_addresses "
			       "and tunnel",
			       item->string);
}

/* D28, D29: the backend's node must be reached by the pod's own address. */
static int check(struct pb_ctx *ctx, const struct dsr_config *config)
{
	if (config->mode == DSR_MODE_SNAT || strcmp(config->tunnel, "disabled") == 0)
		return 0;
	return ctx->host->fail(ctx, -EINVAL,
			       "mode: %s with dispatch: %s needs native routing and can't be "
			       "combined with tunnel: %s; use mode: snat or tunnel: disabled",
			       dsr_mode_name(config->mode), dsr_dispatch_name(config->dispatch),
			       config->tunnel);
}

int dsr_config_parse(struct pb_ctx *ctx, const char *text, struct dsr_config *ret_config)
{
	cJSON *json = cJSON_Parse(text);
	int rc = 0;

	*ret_config = (struct dsr_config){.mode = DSR_MODE_DSR,
					  .dispatch = DSR_OPT,
					  .strip = true,
					  .tunnel = "disabled"};
	if (!cJSON_IsObject(json))
		rc = ctx->host->fail(ctx, -EINVAL, "the configuration must be a mapping");
	for (const cJSON *item = rc == 0 ? json->child : NULL; item && rc == 0; item = item->next)
		rc = parse_item(ctx, item, ret_config);
	cJSON_Delete(json);
	return rc < 0 ? rc : check(ctx, ret_config);
}
