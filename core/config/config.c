/* SPDX-License-Identifier: Apache-2.0 */
/*
 * patchbay.yaml as a whole: sections by the table of keys, defaults, what must go together, and the
 * comparison of two configurations.
 */
#include <config/private.h>

#include <limits.h>

#define CONFIG_SIZE_MAX (4U << 20)

static const char *const section_words[] = {"node", "kubernetes", "datapath", "control",
					    "http", "agent",	  "cluster",  "identity",
					    "log",  "plugins",	  NULL};

/* ---- sections ---- */

static const struct config_key *find_key(const char *path)
{
	for (size_t k = 0; k < PB_ARRAY_LEN(config_keys); k++)
		if (strcmp(config_keys[k].name, path) == 0)
			return &config_keys[k];
	return NULL;
}

/* A mapping of keys inside a section. */
static bool is_part(const char *path)
{
	size_t len = strlen(path);

	for (size_t k = 0; k < PB_ARRAY_LEN(config_keys); k++)
		if (strncmp(config_keys[k].name, path, len) == 0 && config_keys[k].name[len] == '.')
			return true;
	return false;
}

/* The words that may follow `section`, each once; `names` is room for them. */
static void known_words(const char *section, const char **known, char (*names)[64])
{
	size_t len = strlen(section), n = 0;

	for (size_t k = 0; k < PB_ARRAY_LEN(config_keys); k++) {
		const char *rest = config_keys[k].name + len + 1;

		if (strncmp(config_keys[k].name, section, len) != 0 ||
		    config_keys[k].name[len] != '.')
			continue;
		snprintf(names[n], sizeof(names[n]), "%.*s", (int)strcspn(rest, "."), rest);
		if (n == 0 || strcmp(names[n - 1], names[n]) != 0) {
			known[n] = names[n];
			n++;
		}
	}
	known[n] = NULL;
}

static int read_section(struct config_reader *r, const char *section, const struct pb_yaml *node)
{
	const char *known[PB_ARRAY_LEN(config_keys) + 1];
	char names[PB_ARRAY_LEN(config_keys)][64], path[256];
	int rc = 0;

	if (node->type == PB_YAML_NULL)
		return 0;
	if (node->type != PB_YAML_MAP)
		return config_wrong_type(r, node, section, "a mapping", "");
	known_words(section, known, names);
	for (size_t i = 0; i < node->n && rc == 0; i++) {
		const struct pb_yaml_item *item = &node->items[i];
		const struct config_key *key;

		snprintf(path, sizeof(path), "%s.%.200s", section, item->key);
		key = strchr(item->key, '.') ? NULL : find_key(path);
		if (key)
			rc = config_read_key(r, key, item->value);
		else if (!strchr(item->key, '.') && is_part(path))
			rc = read_section(r, path, item->value);
		else
			rc = config_unknown_key(r, item, path, known);
	}
	return rc;
}

/* ---- the whole file ---- */

static int read_root(struct config_reader *r, const struct pb_yaml *root)
{
	int rc = 0;

	if (root->type == PB_YAML_NULL)
		return 0;
	if (root->type != PB_YAML_MAP)
		return pb_yaml_fail(r->err, r->name, root->line, NULL,
				    "the file must be a mapping, not %s; see patchbay.yaml(5)",
				    pb_yaml_type_name(root->type));
	for (size_t i = 0; i < root->n && rc == 0; i++) {
		const struct pb_yaml_item *item = &root->items[i];
		const char *const *section = section_words;

		while (*section && strcmp(*section, item->key) != 0)
			section++;
		if (!*section)
			rc = config_unknown_key(r, item, item->key, section_words);
		else if (strcmp(*section, "plugins") == 0)
			rc = config_read_plugins(r, item->value);
		else
			rc = read_section(r, *section, item->value);
	}
	return rc;
}

static unsigned key_line(const struct pb_yaml *root, const char *section, const char *key)
{
	for (size_t i = 0; i < root->n; i++) {
		const struct pb_yaml *node = root->items[i].value;

		if (strcmp(root->items[i].key, section) != 0)
			continue;
		for (size_t k = 0; k < node->n; k++) {
			if (strcmp(node->items[k].key, key) == 0)
				return node->items[k].line;
		}
		return root->items[i].line;
	}
	return 1;
}

static int check_source(struct config_reader *r, const struct pb_yaml *root)
{
	const struct pb_config *c = r->config;
	enum pb_kube_source_kind source = c->kubernetes.source;

	if (source == PB_SOURCE_MANIFESTS && !c->kubernetes.manifests)
		return pb_yaml_fail(r->err, r->name, key_line(root, "kubernetes", "source"),
				    "kubernetes.manifests",
				    "is missing; source \"manifests\" needs a directory");
	if (c->kubernetes.manifests && source != PB_SOURCE_MANIFESTS)
		return pb_yaml_fail(r->err, r->name, key_line(root, "kubernetes", "manifests"),
				    "kubernetes.manifests", "needs \"source: manifests\"");
	if (c->kubernetes.kubeconfig && source != PB_SOURCE_API)
		return pb_yaml_fail(r->err, r->name, key_line(root, "kubernetes", "kubeconfig"),
				    "kubernetes.kubeconfig", "needs \"source: api\"");
	return 0;
}

static void preset(struct pb_config *config)
{
	for (size_t k = 0; k < PB_ARRAY_LEN(config_keys); k++) {
		if (config_keys[k].type == KEY_UINT || config_keys[k].type == KEY_WORD)
			*(unsigned *)config_field(config, &config_keys[k]) = config_keys[k].preset;
	}
}

static int host_name(struct config_reader *r)
{
	char name[256] = "";

	if (gethostname(name, sizeof(name) - 1) < 0 || !*name)
		return pb_err_set(r->err, -ENOENT, "%s: node.name: the host has no name; set it",
				  r->name);
	for (char *p = name; *p; p++) {
		if (*p >= 'A' && *p <= 'Z')
			*p = (char)(*p - 'A' + 'a');
	}
	r->config->node.name = strdup(name);
	return r->config->node.name ? 0 : config_no_memory(r);
}

static int defaults(struct config_reader *r)
{
	struct pb_config *config = r->config;

	for (size_t k = 0; k < PB_ARRAY_LEN(config_keys); k++) {
		char **string = config_field(config, &config_keys[k]);

		if (!config_keys[k].fallback || *string)
			continue;
		*string = strdup(config_keys[k].fallback);
		if (!*string)
			return config_no_memory(r);
	}
	if (!config->control.socket) {
		config->control.socket = pb_sprintf("%s/patchbay.sock", config->agent.run_dir);
		if (!config->control.socket)
			return config_no_memory(r);
		if (config_check_socket(config->control.socket))
			return pb_err_set(r->err, -EINVAL,
					  "%s: control.socket: \"%.120s\" %s; set it or choose a "
					  "shorter agent.run_dir",
					  r->name, config->control.socket,
					  config_check_socket(config->control.socket));
	}
	return config->node.name ? 0 : host_name(r);
}

static char *directory_of(const char *name)
{
	const char *slash = strrchr(name, '/');
	size_t len = slash ? (size_t)(slash - name) : 0;
	char cwd[PATH_MAX];

	if (*name == '/')
		return len ? strndup(name, len) : strdup("/");
	if (!getcwd(cwd, sizeof(cwd)))
		return NULL;
	return len ? pb_sprintf("%s/%.*s", cwd, (int)len, name) : strdup(cwd);
}

static int parse(struct config_reader *r, const char *text, size_t len)
{
	PB_YAML_FREE struct pb_yaml *root = NULL;
	int rc;

	r->config->file = strdup(r->name);
	r->dir = directory_of(r->name);
	if (!r->config->file || !r->dir)
		return config_no_memory(r);
	rc = pb_yaml_parse(r->name, text, len, &root, r->err);
	preset(r->config);
	if (rc == 0)
		rc = read_root(r, root);
	if (rc == 0)
		rc = check_source(r, root);
	return rc < 0 ? rc : defaults(r);
}

int pb_config_parse(const char *name, const char *text, size_t len, struct pb_config **ret_config,
		    struct pb_err *err)
{
	struct config_reader r = {.name = name, .err = err};
	int rc;

	r.config = calloc(1, sizeof(*r.config));
	if (!r.config)
		return config_no_memory(&r);
	rc = parse(&r, text, len);
	free(r.dir);
	if (rc < 0)
		pb_config_free(r.config);
	else
		*ret_config = r.config;
	return rc;
}

int pb_config_load(const char *path, struct pb_config **ret_config, struct pb_err *err)
{
	PB_BUF_FREE struct pb_buf text = {0};
	int rc = pb_file_read(path, CONFIG_SIZE_MAX, &text, err);

	return rc < 0 ? rc : pb_config_parse(path, text.data, text.len, ret_config, err);
}

static void list_free(struct config_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->items[i]);
	free(list->items);
}

struct pb_config *pb_config_free(struct pb_config *config)
{
	if (!config)
		return NULL;
	for (size_t k = 0; k < PB_ARRAY_LEN(config_keys); k++) {
		if (config_keys[k].type == KEY_STRING || config_keys[k].type == KEY_PATH)
			free(*(char **)config_field(config, &config_keys[k]));
		else if (config_keys[k].type == KEY_LIST)
			list_free(config_field(config, &config_keys[k]));
	}
	for (size_t i = 0; i < config->n_plugins; i++) {
		free(config->plugins[i].name);
		free(config->plugins[i].path);
		free(config->plugins[i].json);
	}
	free(config->plugins);
	free(config->file);
	free(config);
	return NULL;
}

static bool same_string(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

const char *pb_config_fixed_change(const struct pb_config *a, const struct pb_config *b)
{
	for (size_t k = 0; k < PB_ARRAY_LEN(config_keys); k++) {
		const void *x = config_field(a, &config_keys[k]),
			   *y = config_field(b, &config_keys[k]);
		bool string = config_keys[k].type == KEY_STRING || config_keys[k].type == KEY_PATH;

		if (!config_keys[k].fixed)
			continue;
		if (string ? !same_string(*(char *const *)x, *(char *const *)y)
			   : memcmp(x, y, sizeof(unsigned)) != 0)
			return config_keys[k].name;
	}
	return NULL;
}
