/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of patchbay.yaml: one table row each. Reading, defaults, messages and the comparison
 * of two configurations all follow the table; a key exists nowhere else.
 */
#include <config/config.h>

#include <config/listen.h>
#include <config/yaml.h>

#include <limits.h>

#define CONFIG_SIZE_MAX (4U << 20)
/* A week: longer than any flow that says nothing. */
#define CONFIG_CT_MAX 604800
/* sizeof(sun_path) - 1 */
#define CONFIG_SOCKET_MAX 107

enum key_type {
	KEY_STRING,
	KEY_PATH,
	KEY_UINT,
	KEY_WORD, /* one of `words`, stored as its index */
	KEY_LIST,
};

struct key {
	const char *name; /* section.key, or section.part.key */
	enum key_type type;
	bool fixed; /* can't be changed while the agent runs */
	size_t offset;
	unsigned min, max, preset; /* KEY_UINT; preset also of KEY_WORD */
	const char *zero;	   /* KEY_UINT: a word that is stored as 0; NULL: none */
	const char *fallback;
	const char *const *words;
	const char *example; /* KEY_LIST: how to write one */
	/* NULL when the string is fine, else what is wrong with it. */
	const char *(*check)(const char *value);
};

static const char *const source_words[] = {"none", "manifests", "api", NULL};
static const char *const attach_words[] = {"auto", "tcx", "clsact", NULL};
static const char *const format_words[] = {"logfmt", "json", NULL};
static const char *const level_words[] = {"error", "warn", "info", "debug", NULL};
static const char *const bool_words[] = {"false", "true", NULL};
static const char *const required_words[] = {"never", "always", NULL};
static const char *const section_words[] = {"node", "kubernetes", "datapath", "control",
					    "http", "agent",	  "cluster",  "identity",
					    "log",  "plugins",	  NULL};
static const char *const plugin_words[] = {"path", "required", NULL};

static const char *check_node_name(const char *value)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-.";
	size_t len = strlen(value);

	if (len > 253)
		return "is longer than the 253 characters of a node's name";
	if (value[strspn(value, allowed)] || strchr("-.", value[0]) || strchr("-.", value[len - 1]))
		return "is no node name; use lower case letters, digits, '-' and '.'";
	return NULL;
}

static const char *check_device(const char *value)
{
	size_t len = strlen(value);

	if (len > 15 || strpbrk(value, "/ \t\n:"))
		return "is no device name; at most 15 characters without '/', ':' and blanks";
	if (memchr(value, '+', len - 1))
		return "has a '+' inside; it stands for \"anything\" at the end only";
	return NULL;
}

static const char *check_cluster(const char *value)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-.";
	size_t len = strlen(value);

	if (len > 63 || value[strspn(value, allowed)] || strchr("-.", value[0]) ||
	    strchr("-.", value[len - 1]))
		return "is no cluster name; use up to 63 lower case letters, digits, '-' and '.'";
	return NULL;
}

static const char *check_label(const char *value)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-_./";
	const bool out = *value == '!';
	const char *key = value + out;

	if (strncmp(key, "k8s:", 4) == 0 || strncmp(key, "any:", 4) == 0)
		key += 4;
	if (!*key)
		return "names no label; give the beginning of a label's key";
	if (strchr(key, ':'))
		return "has an unknown source; known are k8s and any";
	if (key[strspn(key, allowed)])
		return "is no beginning of a label's key; patterns are not understood";
	if (strlen(key) > 317)
		return "is longer than the 317 characters of a label's key";
	if (out && (strcmp(key, "io.kubernetes.pod.namespace") == 0 ||
		    strcmp(key, "io.cilium.k8s.policy.cluster") == 0 ||
		    strcmp(key, "io.cilium.k8s.policy.serviceaccount") == 0))
		return "can't be left out: policies depend on it";
	return NULL;
}

static const char *check_socket(const char *value)
{
	if (strlen(value) > CONFIG_SOCKET_MAX)
		return "is too long for a socket's address; at most 107 bytes";
	return NULL;
}

static const char *check_listen(const char *value)
{
	struct pb_listen listen;

	return pb_listen_parse(value, &listen);
}

#define AT(member_) offsetof(struct pb_config, member_)

static const struct key keys[] = {
	{"node.name", KEY_STRING, .fixed = true, .offset = AT(node.name), .check = check_node_name},
	{"kubernetes.source", KEY_WORD, .offset = AT(kubernetes.source), .words = source_words},
	{"kubernetes.manifests", KEY_PATH, .offset = AT(kubernetes.manifests)},
	{"kubernetes.kubeconfig", KEY_PATH, .offset = AT(kubernetes.kubeconfig)},
	{"datapath.devices", KEY_LIST, .offset = AT(datapath.devices), .check = check_device,
	 .example = "[eth0]"},
	{"datapath.cgroup", KEY_PATH, .fixed = true, .offset = AT(datapath.cgroup)},
	{"datapath.bpffs", KEY_PATH, .fixed = true, .offset = AT(datapath.bpffs),
	 .fallback = "/sys/fs/bpf/patchbay"},
	{"datapath.attach", KEY_WORD, .fixed = true, .offset = AT(datapath.attach),
	 .words = attach_words},
	{"datapath.conntrack.tcp_established", KEY_UINT, .offset = AT(datapath.ct_tcp_established),
	 .min = 1, .max = CONFIG_CT_MAX, .preset = 21600},
	{"datapath.conntrack.tcp_opening", KEY_UINT, .offset = AT(datapath.ct_tcp_opening),
	 .min = 1, .max = CONFIG_CT_MAX, .preset = 60},
	{"datapath.conntrack.tcp_closing", KEY_UINT, .offset = AT(datapath.ct_tcp_closing),
	 .min = 1, .max = CONFIG_CT_MAX, .preset = 10},
	{"datapath.conntrack.other", KEY_UINT, .offset = AT(datapath.ct_other), .min = 1,
	 .max = CONFIG_CT_MAX, .preset = 60},
	{"datapath.conntrack.gc_interval", KEY_UINT, .offset = AT(datapath.ct_gc_interval),
	 .min = 1, .max = 43200, .zero = "auto"},
	{"control.socket", KEY_PATH, .fixed = true, .offset = AT(control.socket),
	 .check = check_socket},
	{"control.group", KEY_STRING, .fixed = true, .offset = AT(control.group)},
	{"http.listen", KEY_STRING, .offset = AT(http.listen), .fallback = "127.0.0.1:9876",
	 .check = check_listen},
	{"agent.run_dir", KEY_PATH, .fixed = true, .offset = AT(agent.run_dir),
	 .fallback = "/run/patchbay"},
	{"agent.plugin_dir", KEY_PATH, .fixed = true, .offset = AT(agent.plugin_dir),
	 .fallback = PB_PLUGIN_DIR},
	{"agent.max_crashes", KEY_UINT, .fixed = true, .offset = AT(agent.max_crashes), .min = 1,
	 .max = 1000, .preset = 3},
	{"agent.callback_deadline_ms", KEY_UINT, .fixed = true,
	 .offset = AT(agent.callback_deadline_ms), .min = 100, .max = 600000, .preset = 5000},
	{"cluster.name", KEY_STRING, .offset = AT(cluster.name), .fallback = "default",
	 .check = check_cluster},
	{"identity.labels", KEY_LIST, .offset = AT(identity.labels), .check = check_label,
	 .example = "[k8s:app, \"!k8s:commit\"]"},
	{"identity.remote_node", KEY_WORD, .offset = AT(identity.remote_node), .words = bool_words,
	 .preset = 1},
	{"log.format", KEY_WORD, .offset = AT(log.format), .words = format_words},
	{"log.level", KEY_WORD, .offset = AT(log.level), .words = level_words,
	 .preset = PB_LOG_INFO},
};

/* A KEY_LIST: its length follows the pointer in the structure. */
struct list {
	char **items;
	size_t n;
};
_Static_assert(AT(datapath.n_devices) == AT(datapath.devices) + offsetof(struct list, n),
	       "a KEY_LIST is a pointer and its length");
_Static_assert(AT(identity.n_labels) == AT(identity.labels) + offsetof(struct list, n),
	       "a KEY_LIST is a pointer and its length");

struct reader {
	struct pb_config *config;
	const char *name;
	char *dir; /* absolute directory of the file */
	struct pb_err *err;
};

static void *field(const struct pb_config *config, const struct key *key)
{
	return (char *)config + key->offset;
}

static int no_memory(struct reader *r)
{
	return pb_err_set(r->err, -ENOMEM, "%s: out of memory", r->name);
}

static void word_list(const char *const *words, char *out, size_t size)
{
	size_t used = 0;

	*out = '\0';
	for (size_t i = 0; words[i] && used < size; i++)
		used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", words[i]);
}

static int unknown_key(struct reader *r, const struct pb_yaml_item *item, const char *path,
		       const char *const *known)
{
	const char *near = pb_suggest(item->key, known);
	char list[256];

	if (near)
		return pb_yaml_fail(r->err, r->name, item->line, path,
				    "unknown key; did you mean \"%s\"?", near);
	word_list(known, list, sizeof(list));
	return pb_yaml_fail(r->err, r->name, item->line, path, "unknown key; known are %s", list);
}

static int wrong_type(struct reader *r, const struct pb_yaml *node, const char *path,
		      const char *want, const char *remedy)
{
	return pb_yaml_fail(r->err, r->name, node->line, path, "must be %s, not %s%s", want,
			    pb_yaml_type_name(node->type), remedy);
}

static int check_string(struct reader *r, const struct pb_yaml *node, const char *path)
{
	bool scalar = node->type < PB_YAML_STRING && node->type != PB_YAML_NULL;

	if (node->type != PB_YAML_STRING)
		return wrong_type(r, node, path, "a string", scalar ? "; put it in quotes" : "");
	if (*node->text == '\0')
		return pb_yaml_fail(r->err, r->name, node->line, path,
				    "is empty; give a value or remove the key");
	return 0;
}

static char *absolute(const char *dir, const char *path)
{
	if (*path == '/')
		return strdup(path);
	while (path[0] == '.' && path[1] == '/')
		path += 2 + strspn(path + 2, "/");
	if (strcmp(path, ".") == 0 || *path == '\0')
		return strdup(dir);
	return pb_sprintf("%s/%s", strcmp(dir, "/") == 0 ? "" : dir, path);
}

static int read_string(struct reader *r, const struct key *key, const struct pb_yaml *node,
		       const char *path, char **ret_value)
{
	PB_FREE char *value = NULL;
	const char *wrong;
	int rc = check_string(r, node, path);

	if (rc < 0)
		return rc;
	value = key->type == KEY_PATH ? absolute(r->dir, node->text) : strdup(node->text);
	if (!value)
		return no_memory(r);
	wrong = key->check ? key->check(value) : NULL;
	if (wrong)
		return pb_yaml_fail(r->err, r->name, node->line, path, "\"%.120s\" %s", value,
				    wrong);
	if (key->type == KEY_PATH && strlen(value) >= PATH_MAX)
		return pb_yaml_fail(r->err, r->name, node->line, path, "is too long for a path");
	*ret_value = PB_TAKE_PTR(value);
	return 0;
}

static int read_uint(struct reader *r, const struct key *key, const struct pb_yaml *node)
{
	const char * or = key->zero ? " or " : "", *zero = key->zero ? key->zero : "";
	uint64_t value = 0;

	if (key->zero && node->type == PB_YAML_STRING && strcmp(node->text, key->zero) == 0) {
		*(unsigned *)field(r->config, key) = 0;
		return 0;
	}
	if (node->type != PB_YAML_INT) {
		char want[64];

		snprintf(want, sizeof(want), "a whole number%s%s", or, zero);
		return wrong_type(r, node, key->name, want, "");
	}
	if (pb_yaml_uint(node, &value) < 0 || value < key->min || value > key->max)
		return pb_yaml_fail(r->err, r->name, node->line, key->name,
				    "%.40s is out of range; give %u to %u%s%s", node->text,
				    key->min, key->max, or, zero);
	*(unsigned *)field(r->config, key) = (unsigned)value;
	return 0;
}

static int read_word(struct reader *r, const char *const *words, const struct pb_yaml *node,
		     const char *path, unsigned *ret_index)
{
	const char *near;
	char list[128];

	word_list(words, list, sizeof(list));
	if (!node->text)
		return pb_yaml_fail(r->err, r->name, node->line, path, "must be one of %s, not %s",
				    list, pb_yaml_type_name(node->type));
	for (unsigned i = 0; words[i]; i++) {
		if (strcmp(words[i], node->text) == 0) {
			*ret_index = i;
			return 0;
		}
	}
	near = pb_suggest(node->text, words);
	if (near)
		return pb_yaml_fail(r->err, r->name, node->line, path,
				    "unknown value \"%.60s\"; did you mean \"%s\"?", node->text,
				    near);
	return pb_yaml_fail(r->err, r->name, node->line, path,
			    "unknown value \"%.60s\"; known are %s", node->text, list);
}

static int read_list(struct reader *r, const struct key *key, const struct pb_yaml *node)
{
	struct list *list = field(r->config, key);
	int rc = 0;

	if (node->type == PB_YAML_NULL)
		return 0;
	if (node->type != PB_YAML_LIST) {
		char remedy[80];

		snprintf(remedy, sizeof(remedy), "; write it as %s", key->example);
		return wrong_type(r, node, key->name, "a list", remedy);
	}
	list->items = calloc(node->n ? node->n : 1, sizeof(*list->items));
	if (!list->items)
		return no_memory(r);
	for (size_t i = 0; i < node->n && rc == 0; i++) {
		rc = read_string(r, key, node->items[i].value, key->name, &list->items[i]);
		list->n += rc == 0;
	}
	return rc;
}

static int read_key(struct reader *r, const struct key *key, const struct pb_yaml *node)
{
	switch (key->type) {
	case KEY_STRING:
	case KEY_PATH:
		return read_string(r, key, node, key->name, field(r->config, key));
	case KEY_UINT:
		return read_uint(r, key, node);
	case KEY_WORD:
		return read_word(r, key->words, node, key->name, field(r->config, key));
	default:
		return read_list(r, key, node);
	}
}

static const struct key *find_key(const char *path)
{
	for (size_t k = 0; k < PB_ARRAY_LEN(keys); k++)
		if (strcmp(keys[k].name, path) == 0)
			return &keys[k];
	return NULL;
}

/* A mapping of keys inside a section. */
static bool is_part(const char *path)
{
	size_t len = strlen(path);

	for (size_t k = 0; k < PB_ARRAY_LEN(keys); k++)
		if (strncmp(keys[k].name, path, len) == 0 && keys[k].name[len] == '.')
			return true;
	return false;
}

/* The words that may follow `section`, each once; `names` is room for them. */
static void known_words(const char *section, const char **known, char (*names)[64])
{
	size_t len = strlen(section), n = 0;

	for (size_t k = 0; k < PB_ARRAY_LEN(keys); k++) {
		const char *rest = keys[k].name + len + 1;

		if (strncmp(keys[k].name, section, len) != 0 || keys[k].name[len] != '.')
			continue;
		snprintf(names[n], sizeof(names[n]), "%.*s", (int)strcspn(rest, "."), rest);
		if (n == 0 || strcmp(names[n - 1], names[n]) != 0) {
			known[n] = names[n];
			n++;
		}
	}
	known[n] = NULL;
}

static int read_section(struct reader *r, const char *section, const struct pb_yaml *node)
{
	const char *known[PB_ARRAY_LEN(keys) + 1];
	char names[PB_ARRAY_LEN(keys)][64], path[256];
	int rc = 0;

	if (node->type == PB_YAML_NULL)
		return 0;
	if (node->type != PB_YAML_MAP)
		return wrong_type(r, node, section, "a mapping", "");
	known_words(section, known, names);
	for (size_t i = 0; i < node->n && rc == 0; i++) {
		const struct pb_yaml_item *item = &node->items[i];
		const struct key *key;

		snprintf(path, sizeof(path), "%s.%.200s", section, item->key);
		key = strchr(item->key, '.') ? NULL : find_key(path);
		if (key)
			rc = read_key(r, key, item->value);
		else if (!strchr(item->key, '.') && is_part(path))
			rc = read_section(r, path, item->value);
		else
			rc = unknown_key(r, item, path, known);
	}
	return rc;
}

/* ---- plugins ---- */

static int check_plugin_name(struct reader *r, const struct pb_yaml_item *item)
{
	const char *name = item->key;

	if (pb_name_valid(name))
		return 0;
	return pb_yaml_fail(r->err, r->name, item->line, "plugins",
			    "\"%.60s\" is no plugin name; use at most %d lower case letters, "
			    "digits and dashes",
			    name, PB_NAME_MAX - 1);
}

static int read_reserved(struct reader *r, struct pb_config_plugin *plugin,
			 const struct pb_yaml_item *item)
{
	static const struct key path_key = {.name = "path", .type = KEY_PATH};
	char path[128];
	unsigned word = 0;
	int rc = 0;

	snprintf(path, sizeof(path), "plugins.%s.%.60s", plugin->name, item->key);
	if (strcmp(item->key, "path") == 0)
		rc = read_string(r, &path_key, item->value, path, &plugin->path);
	else if (strcmp(item->key, "required") == 0)
		rc = read_word(r, required_words, item->value, path, &word);
	plugin->required |= word == 1;
	return rc;
}

static int read_plugin(struct reader *r, struct pb_config_plugin *plugin,
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
		return no_memory(r);
	if (item->value->type != PB_YAML_MAP && item->value->type != PB_YAML_NULL)
		return wrong_type(r, item->value, path, "a mapping", "; write {} for none");
	for (size_t i = 0; i < item->value->n && rc == 0; i++)
		rc = read_reserved(r, plugin, &item->value->items[i]);
	if (rc < 0)
		return rc;
	if (item->value->type == PB_YAML_MAP)
		rc = pb_yaml_json(item->value, plugin_words, r->name, path, &json, r->err);
	else
		rc = pb_buf_append(&json, "{}", 2) < 0 ? no_memory(r) : 0;
	plugin->json = PB_TAKE_PTR(json.data);
	return rc;
}

static int read_plugins(struct reader *r, const struct pb_yaml *node)
{
	struct pb_config *config = r->config;
	int rc = 0;

	if (node->type == PB_YAML_NULL)
		return 0;
	if (node->type != PB_YAML_MAP)
		return wrong_type(r, node, "plugins", "a mapping", "; write it as {NAME: {}}");
	config->plugins = calloc(node->n ? node->n : 1, sizeof(*config->plugins));
	if (!config->plugins)
		return no_memory(r);
	for (size_t i = 0; i < node->n && rc == 0; i++)
		rc = read_plugin(r, &config->plugins[config->n_plugins++], &node->items[i]);
	return rc;
}

/* ---- the whole file ---- */

static int read_root(struct reader *r, const struct pb_yaml *root)
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
			rc = unknown_key(r, item, item->key, section_words);
		else if (strcmp(*section, "plugins") == 0)
			rc = read_plugins(r, item->value);
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

static int check_source(struct reader *r, const struct pb_yaml *root)
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
	for (size_t k = 0; k < PB_ARRAY_LEN(keys); k++) {
		if (keys[k].type == KEY_UINT || keys[k].type == KEY_WORD)
			*(unsigned *)field(config, &keys[k]) = keys[k].preset;
	}
}

static int host_name(struct reader *r)
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
	return r->config->node.name ? 0 : no_memory(r);
}

static int defaults(struct reader *r)
{
	struct pb_config *config = r->config;

	for (size_t k = 0; k < PB_ARRAY_LEN(keys); k++) {
		char **string = field(config, &keys[k]);

		if (!keys[k].fallback || *string)
			continue;
		*string = strdup(keys[k].fallback);
		if (!*string)
			return no_memory(r);
	}
	if (!config->control.socket) {
		config->control.socket = pb_sprintf("%s/patchbay.sock", config->agent.run_dir);
		if (!config->control.socket)
			return no_memory(r);
		if (check_socket(config->control.socket))
			return pb_err_set(r->err, -EINVAL,
					  "%s: control.socket: \"%.120s\" %s; set it or choose a "
					  "shorter agent.run_dir",
					  r->name, config->control.socket,
					  check_socket(config->control.socket));
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

static int parse(struct reader *r, const char *text, size_t len)
{
	PB_YAML_FREE struct pb_yaml *root = NULL;
	int rc;

	r->config->file = strdup(r->name);
	r->dir = directory_of(r->name);
	if (!r->config->file || !r->dir)
		return no_memory(r);
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
	struct reader r = {.name = name, .err = err};
	int rc;

	r.config = calloc(1, sizeof(*r.config));
	if (!r.config)
		return no_memory(&r);
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

static void list_free(struct list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->items[i]);
	free(list->items);
}

struct pb_config *pb_config_free(struct pb_config *config)
{
	if (!config)
		return NULL;
	for (size_t k = 0; k < PB_ARRAY_LEN(keys); k++) {
		if (keys[k].type == KEY_STRING || keys[k].type == KEY_PATH)
			free(*(char **)field(config, &keys[k]));
		else if (keys[k].type == KEY_LIST)
			list_free(field(config, &keys[k]));
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
	for (size_t k = 0; k < PB_ARRAY_LEN(keys); k++) {
		const void *x = field(a, &keys[k]), *y = field(b, &keys[k]);
		bool string = keys[k].type == KEY_STRING || keys[k].type == KEY_PATH;

		if (!keys[k].fixed)
			continue;
		if (string ? !same_string(*(char *const *)x, *(char *const *)y)
			   : memcmp(x, y, sizeof(unsigned)) != 0)
			return keys[k].name;
	}
	return NULL;
}
