/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a kubeconfig with libyaml. Unknown keys are left alone, as kubectl does: other tools
 * write their own. Known keys must have the right type.
 */
#include <kube/kubeconfig.h>

#include <yaml.h>

#include <kube/kubeconfig_values.h>

#define KUBECONFIG_MAX ((size_t)4 * 1024 * 1024)
/* More than any real file; walking an alias bomb stays cheap because nothing here recurses. */
#define NODES_MAX 100000

/* The file on its way through the parser. */
struct reader {
	const char *name;
	yaml_document_t doc;
	struct pb_api_config *config;
	const char *user; /* whose section is read, NULL before */
	struct pb_err *err;
};

/* One field of a section: where its text goes. */
struct field {
	const char *key;
	char **text;	     /* a string, or */
	bool *flag;	     /* a boolean, or */
	const char *refused; /* why the key of a user can't be honoured */
	unsigned line;	     /* where it was found, 0: not there */
};

static int bad(struct reader *r, const yaml_node_t *node, const char *fmt, ...) PB_PRINTF(3, 4);

static int bad(struct reader *r, const yaml_node_t *node, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	pb_err_setv(r->err, -EINVAL, fmt, ap);
	va_end(ap);
	if (!r->err)
		return -EINVAL;
	return node ? pb_err_prefix(r->err, "%s:%zu", r->name, node->start_mark.line + 1)
		    : pb_err_prefix(r->err, "%s", r->name);
}

static const char *scalar(const yaml_node_t *node)
{
	return node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value
						      : NULL;
}

/* A scalar that YAML itself would take for null: plain and empty, ~ or null. */
static bool is_null(const yaml_node_t *node)
{
	const char *text = scalar(node);

	if (!text || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return false;
	return !*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0;
}

static bool has_nul(const yaml_node_t *node)
{
	return strlen((const char *)node->data.scalar.value) != node->data.scalar.length;
}

/* The value of a key; NULL when missing or null. A key that stands twice is an error. */
static int lookup(struct reader *r, const yaml_node_t *map, const char *key,
		  yaml_node_t **ret_value)
{
	*ret_value = NULL;
	for (yaml_node_pair_t *pair = map->data.mapping.pairs.start;
	     pair < map->data.mapping.pairs.top; pair++) {
		yaml_node_t *k = yaml_document_get_node(&r->doc, pair->key);
		const char *text = scalar(k);

		if (!text || strcmp(text, key) != 0)
			continue;
		if (*ret_value)
			return bad(r, k, "\"%s\" stands twice in this section", key);
		*ret_value = yaml_document_get_node(&r->doc, pair->value);
	}
	if (is_null(*ret_value))
		*ret_value = NULL;
	return 0;
}

static int read_flag(struct reader *r, const yaml_node_t *value, struct field *field)
{
	const char *text = scalar(value);

	if (text && value->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
		if (strcmp(text, "true") == 0)
			*field->flag = true;
		if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
			return 0;
	}
	return bad(r, value, "\"%s\" must be true or false", field->key);
}

static int read_text(struct reader *r, const yaml_node_t *value, struct field *field)
{
	if (!scalar(value) || has_nul(value))
		return bad(r, value, "\"%s\" must be a string", field->key);
	if (!*scalar(value))
		return 0;
	field->line = (unsigned)value->start_mark.line + 1;
	*field->text = strdup(scalar(value));
	return *field->text ? 0 : pb_err_set(r->err, -ENOMEM, "%s: out of memory", r->name);
}

static int read_fields(struct reader *r, const yaml_node_t *map, struct field *fields, size_t n)
{
	yaml_node_t *value;
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = lookup(r, map, fields[i].key, &value);
		if (rc < 0 || !value)
			continue;
		if (fields[i].refused)
			rc = bad(r, value, "user \"%s\": \"%s\": %s", r->user, fields[i].key,
				 fields[i].refused);
		else if (fields[i].flag)
			rc = read_flag(r, value, &fields[i]);
		else
			rc = read_text(r, value, &fields[i]);
	}
	return rc;
}

/* ---- finding the sections that the current context names ---- */

static int section_list(struct reader *r, const char *list, yaml_node_t **ret_list)
{
	int rc = lookup(r, yaml_document_get_root_node(&r->doc), list, ret_list);

	if (rc < 0)
		return rc;
	if (!*ret_list)
		return bad(r, NULL, "\"%s\" is missing", list);
	if ((*ret_list)->type != YAML_SEQUENCE_NODE)
		return bad(r, *ret_list, "\"%s\" must be a list", list);
	return 0;
}

/* The name of entry i of a list of {name: ..., what: {...}}. */
static int entry_name(struct reader *r, const yaml_node_t *entries, const char *list, ptrdiff_t i,
		      yaml_node_t **ret_entry, const char **ret_name)
{
	yaml_node_t *name;
	int rc;

	*ret_entry = yaml_document_get_node(&r->doc, entries->data.sequence.items.start[i]);
	if ((*ret_entry)->type != YAML_MAPPING_NODE)
		return bad(r, *ret_entry, "an entry of \"%s\" must have a name and a content",
			   list);
	rc = lookup(r, *ret_entry, "name", &name);
	if (rc < 0)
		return rc;
	if (!scalar(name))
		return bad(r, *ret_entry, "this entry of \"%s\" has no name", list);
	*ret_name = scalar(name);
	return 0;
}

static int no_such_entry(struct reader *r, const yaml_node_t *asker, const yaml_node_t *entries,
			 const char *what, const char *wanted)
{
	ptrdiff_t n = entries->data.sequence.items.top - entries->data.sequence.items.start;
	PB_FREE const char **names = calloc((size_t)n + 1, sizeof(*names));
	const char *near = NULL;
	yaml_node_t *entry;

	if (names) {
		for (ptrdiff_t i = 0; i < n; i++)
			entry_name(r, entries, what, i, &entry, &names[i]);
		near = pb_suggest(wanted, names);
	}
	if (near)
		return bad(r, asker, "there is no %s \"%s\"; did you mean \"%s\"?", what, wanted,
			   near);
	return bad(r, asker, "there is no %s \"%s\" in this file", what, wanted);
}

/* The content of the entry `wanted` of the list `what` + "s". */
static int find_section(struct reader *r, const char *what, const yaml_node_t *asker,
			yaml_node_t **ret_section)
{
	PB_FREE char *list = pb_sprintf("%ss", what);
	yaml_node_t *entries, *entry;
	const char *name;
	ptrdiff_t n;
	int rc = list ? section_list(r, list, &entries) : -ENOMEM;

	if (rc < 0)
		return rc;
	n = entries->data.sequence.items.top - entries->data.sequence.items.start;
	for (ptrdiff_t i = 0; i < n; i++) {
		rc = entry_name(r, entries, list, i, &entry, &name);
		if (rc < 0)
			return rc;
		if (strcmp(name, scalar(asker)) != 0)
			continue;
		rc = lookup(r, entry, what, ret_section);
		if (rc == 0 && (!*ret_section || (*ret_section)->type != YAML_MAPPING_NODE))
			rc = bad(r, entry, "%s \"%s\" has no section \"%s\"", what, name, what);
		return rc;
	}
	return no_such_entry(r, asker, entries, what, scalar(asker));
}

/* ---- the sections ---- */

static int add_server(struct reader *r, const yaml_node_t *node)
{
	PB_FREE char *url = NULL;
	char **more;
	struct pb_err cause;

	if (!scalar(node) || has_nul(node))
		return bad(r, node, "\"server\" must be a URL");
	if (pb_api_server_url(scalar(node), &url, &cause) < 0)
		return bad(r, node, "\"server\": %s", cause.text);
	more = realloc(r->config->servers, (r->config->n_servers + 1) * sizeof(*more));
	if (!more)
		return pb_err_set(r->err, -ENOMEM, "%s: out of memory", r->name);
	r->config->servers = more;
	more[r->config->n_servers++] = PB_TAKE_PTR(url);
	return 0;
}

/* The one extension of ours: {name: patchbay, extension: {servers: [more URLs]}}. */
static int read_extension(struct reader *r, const yaml_node_t *entry)
{
	yaml_node_t *name, *content, *servers;
	int rc = lookup(r, entry, "name", &name);

	if (rc < 0 || !scalar(name) || strcmp(scalar(name), "patchbay") != 0)
		return rc;
	rc = lookup(r, entry, "extension", &content);
	if (rc < 0)
		return rc;
	if (!content || content->type != YAML_MAPPING_NODE)
		return bad(r, entry,
			   "the extension \"patchbay\" must have a section \"extension\"");
	rc = lookup(r, content, "servers", &servers);
	if (rc < 0)
		return rc;
	if (!servers || servers->type != YAML_SEQUENCE_NODE)
		return bad(r, content, "\"servers\" must be a list of URLs");
	for (yaml_node_item_t *item = servers->data.sequence.items.start;
	     item < servers->data.sequence.items.top && rc == 0; item++)
		rc = add_server(r, yaml_document_get_node(&r->doc, *item));
	return rc;
}

static int read_extensions(struct reader *r, const yaml_node_t *section)
{
	yaml_node_t *list;
	int rc = lookup(r, section, "extensions", &list);

	if (rc < 0 || !list)
		return rc;
	if (list->type != YAML_SEQUENCE_NODE)
		return bad(r, list, "\"extensions\" must be a list");
	for (yaml_node_item_t *item = list->data.sequence.items.start;
	     item < list->data.sequence.items.top && rc == 0; item++) {
		yaml_node_t *entry = yaml_document_get_node(&r->doc, *item);

		if (entry->type == YAML_MAPPING_NODE)
			rc = read_extension(r, entry);
	}
	return rc;
}

/* Base64 of a PEM text, or a file: the inline data wins, as in kubectl. */
static int take_pem(struct reader *r, const struct field *data, const struct field *file,
		    struct pb_api_pem *pem)
{
	struct pb_err cause;
	int rc = 0;

	if (*data->text) {
		rc = pb_api_pem_inline(*data->text, &pem->text, &cause);
		if (rc < 0)
			return pb_err_set(r->err, rc, "%s:%u: \"%s\": %s", r->name, data->line,
					  data->key, cause.text);
		return 0;
	}
	if (*file->text) {
		rc = pb_api_file(r->name, *file->text, &pem->file, &cause);
		if (rc < 0)
			return pb_err_set(r->err, rc, "%s:%u: \"%s\": %s", r->name, file->line,
					  file->key, cause.text);
	}
	return 0;
}

static int read_cluster(struct reader *r, const yaml_node_t *section)
{
	struct pb_api_config *c = r->config;
	PB_FREE char *ca = NULL;
	PB_FREE char *ca_data = NULL;
	struct field fields[] = {
		{.key = "certificate-authority", .text = &ca},
		{.key = "certificate-authority-data", .text = &ca_data},
		{.key = "tls-server-name", .text = &c->tls_server_name},
		{.key = "proxy-url", .text = &c->proxy},
		{.key = "insecure-skip-tls-verify", .flag = &c->insecure},
		{.key = "disable-compression", .flag = &c->no_compression},
	};
	yaml_node_t *server;
	int rc = lookup(r, section, "server", &server);

	if (rc == 0 && !server)
		rc = bad(r, section, "the cluster has no \"server\"");
	if (rc == 0)
		rc = add_server(r, server);
	if (rc == 0)
		rc = read_extensions(r, section);
	if (rc == 0)
		rc = read_fields(r, section, fields, PB_ARRAY_LEN(fields));
	if (rc == 0 && c->insecure && (ca || ca_data))
		rc = bad(r, section,
			 "\"insecure-skip-tls-verify\" and a certificate authority contradict "
			 "each other; remove one");
	return rc < 0 ? rc : take_pem(r, &fields[1], &fields[0], &c->ca);
}

#define REFUSED_PLUGIN                                                                             \
	"login plugins run programs and are not supported; use a service account's token "         \
	"(\"tokenFile\") or a client certificate"
#define REFUSED_IMPERSONATION "impersonation is not supported; give the agent its own user"

static int check_user(struct reader *r, const yaml_node_t *section)
{
	const struct pb_api_config *c = r->config;
	bool cert = c->cert.file || c->cert.text.len, key = c->key.file || c->key.text.len;

	if (cert && !key)
		return bad(r, section, "a client certificate without \"client-key\"");
	if (key && !cert)
		return bad(r, section, "a client key without \"client-certificate\"");
	if (c->username && (c->token || c->token_file))
		return bad(r, section,
			   "\"username\" and a token contradict each other; remove one");
	if (c->token && strpbrk(c->token, "\r\n"))
		return bad(r, section, "\"token\" has a line break in it");
	return 0;
}

static int read_user(struct reader *r, const yaml_node_t *section)
{
	struct pb_api_config *c = r->config;
	PB_FREE char *cert = NULL;
	PB_FREE char *cert_data = NULL;
	PB_FREE char *key = NULL;
	PB_FREE char *key_data = NULL;
	PB_FREE char *token_file = NULL;
	struct field fields[] = {
		{.key = "client-certificate", .text = &cert},
		{.key = "client-certificate-data", .text = &cert_data},
		{.key = "client-key", .text = &key},
		{.key = "client-key-data", .text = &key_data},
		{.key = "tokenFile", .text = &token_file},
		{.key = "token", .text = &c->token},
		{.key = "username", .text = &c->username},
		{.key = "password", .text = &c->password},
		{.key = "exec", .refused = REFUSED_PLUGIN},
		{.key = "auth-provider", .refused = REFUSED_PLUGIN},
		{.key = "as", .refused = REFUSED_IMPERSONATION},
		{.key = "as-uid", .refused = REFUSED_IMPERSONATION},
		{.key = "as-groups", .refused = REFUSED_IMPERSONATION},
		{.key = "as-user-extra", .refused = REFUSED_IMPERSONATION},
	};
	struct pb_err cause;
	int rc = read_fields(r, section, fields, PB_ARRAY_LEN(fields));

	if (rc == 0)
		rc = take_pem(r, &fields[1], &fields[0], &c->cert);
	if (rc == 0)
		rc = take_pem(r, &fields[3], &fields[2], &c->key);
	if (key_data)
		explicit_bzero(key_data, strlen(key_data));
	if (rc == 0 && token_file && pb_api_file(r->name, token_file, &c->token_file, &cause) < 0)
		rc = pb_err_set(r->err, cause.code, "%s:%u: \"tokenFile\": %s", r->name,
				fields[4].line, cause.text);
	return rc < 0 ? rc : check_user(r, section);
}

static int read_context(struct reader *r, const yaml_node_t *context)
{
	yaml_node_t *cluster, *user, *section;
	int rc = lookup(r, context, "cluster", &cluster);

	if (rc == 0 && !scalar(cluster))
		rc = bad(r, context, "the context has no \"cluster\"");
	if (rc == 0)
		rc = find_section(r, "cluster", cluster, &section);
	if (rc == 0)
		rc = read_cluster(r, section);
	if (rc == 0)
		rc = lookup(r, context, "user", &user);
	if (rc < 0 || !user)
		return rc;
	if (!scalar(user))
		return bad(r, user, "\"user\" must be a string");
	if (!*scalar(user))
		return 0;
	r->user = scalar(user);
	rc = find_section(r, "user", user, &section);
	return rc < 0 ? rc : read_user(r, section);
}

static int read_root(struct reader *r)
{
	yaml_node_t *root = yaml_document_get_root_node(&r->doc);
	yaml_node_t *current, *context;
	int rc;

	if (!root)
		return bad(r, NULL, "the file is empty");
	if (root->type != YAML_MAPPING_NODE)
		return bad(r, root, "not a kubeconfig: it must start with keys");
	rc = lookup(r, root, "current-context", &current);
	if (rc == 0 && (!scalar(current) || !*scalar(current)))
		rc = bad(r, current,
			 "\"current-context\" is not set; choose one: kubectl config use-context "
			 "NAME --kubeconfig FILE");
	if (rc == 0)
		rc = find_section(r, "context", current, &context);
	if (rc == 0)
		rc = read_context(r, context);
	if (rc < 0)
		return rc;
	r->config->origin = pb_sprintf("context %s of %s", scalar(current), r->name);
	return r->config->origin ? 0 : pb_err_set(r->err, -ENOMEM, "%s: out of memory", r->name);
}

int pb_kubeconfig_parse(const char *name, const char *text, size_t len,
			struct pb_api_config **ret_config, struct pb_err *err)
{
	struct reader r = {.name = name, .err = err};
	yaml_parser_t parser;
	int rc;

	if (!yaml_parser_initialize(&parser))
		return pb_err_set(err, -ENOMEM, "%s: out of memory", name);
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
	if (!yaml_parser_load(&parser, &r.doc)) {
		rc = pb_err_set(err, -EINVAL, "%s:%zu: %s", name, parser.problem_mark.line + 1,
				parser.problem ? parser.problem : "not YAML");
		yaml_parser_delete(&parser);
		return rc;
	}
	r.config = calloc(1, sizeof(*r.config));
	if (!r.config)
		rc = pb_err_set(err, -ENOMEM, "%s: out of memory", name);
	else if (r.doc.nodes.top - r.doc.nodes.start > NODES_MAX)
		rc = pb_err_set(err, -EFBIG, "%s: more than %d values", name, NODES_MAX);
	else
		rc = read_root(&r);
	yaml_document_delete(&r.doc);
	yaml_parser_delete(&parser);
	if (rc < 0)
		pb_api_config_free(r.config);
	else
		*ret_config = r.config;
	return rc;
}

int pb_kubeconfig_load(const char *path, struct pb_api_config **ret_config, struct pb_err *err)
{
	struct pb_buf text = {0};
	int rc = pb_file_read(path, KUBECONFIG_MAX, &text, err);

	if (rc == 0)
		rc = pb_kubeconfig_parse(path, text.data, text.len, ret_config, err);
	if (text.data)
		explicit_bzero(text.data, text.cap);
	pb_buf_free(&text);
	return rc;
}
