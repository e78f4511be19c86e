/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The section "plugins": names, and a section each that is handed on as JSON.
 *
 * Owns the reserved keys "path" and "required". Knows no plugin.
 */
#include <config/private.h>

static const char *const required_words[] = {"never", "always", NULL};
static const char *const plugin_words[] = {"path", "required", NULL};

static int check_plugin_name(struct config_reader *r, const struct pb_yaml_item *item)
{
	const char *name = item->key;

	if (pb_name_valid(name))
		return 0;
	return pb_yaml_fail(r->err, r->name, item->line, "plugins",
			    "\"%.60s\" is no plugin name; use at most %d lower case letters, "
			    "digits and dashes",
			    name, PB_NAME_MAX - 1);
}

static int read_reserved(struct config_reader *r, struct pb_config_plugin *plugin,
			 const struct pb_yaml_item *item)
{
	static const struct config_key path_key = {.name = "path", .type = KEY_PATH};
	char path[128];
	unsigned word = 0;
	int rc = 0;

	snprintf(path, sizeof(path), "plugins.%s.%.60s", plugin->name, item->key);
	if (strcmp(item->key, "path") == 0)
		rc = config_read_string(r, &path_key, item->value, path, &plugin->path);
	else if (strcmp(item->key, "required") == 0)
		rc = config_read_word(r, required_words, item->value, path, &word);
	plugin->required |= word == 1;
	return rc;
}

static int read_plugin(struct config_reader *r, struct pb_config_plugin *plugin,
		       const struct pb_yaml_item *item)
{
	PB_BUF_FREE struct pb_buf json = {0};
	char path[128];
	int rc = check_plugin_name(r, item);

	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "plugins.%s", item->key);
	plugin->line = item->line;
	plugin->name = strdup(item->key);
	if (!plugin->name)
		return config_no_memory(r);
	if (item->value->type != PB_YAML_MAP && item->value->type != PB_YAML_NULL)
		return config_wrong_type(r, item->value, path, "a mapping", "; write {} for none");
	for (size_t i = 0; i < item->value->n && rc == 0; i++)
		rc = read_reserved(r, plugin, &item->value->items[i]);
	if (rc < 0)
		return rc;
	if (item->value->type == PB_YAML_MAP)
		rc = pb_yaml_json(item->value, plugin_words, r->name, path, &json, r->err);
	else
		rc = pb_buf_append(&json, "{}", 2) < 0 ? config_no_memory(r) : 0;
	plugin->json = PB_TAKE_PTR(json.data);
	return rc;
}

int config_read_plugins(struct config_reader *r, const struct pb_yaml *node)
{
	struct pb_config *config = r->config;
	int rc = 0;

	if (node->type == PB_YAML_NULL)
		return 0;
	if (node->type != PB_YAML_MAP)
		return config_wrong_type(r, node, "plugins", "a mapping",
					 "; write it as {NAME: {}}");
	config->plugins = calloc(node->n ? node->n : 1, sizeof(*config->plugins));
	if (!config->plugins)
		return config_no_memory(r);
	for (size_t i = 0; i < node->n && rc == 0; i++)
		rc = read_plugin(r, &config->plugins[config->n_plugins++], &node->items[i]);
	return rc;
}
