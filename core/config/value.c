/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of patchbay.yaml: strings, paths, numbers, words and lists, each by its key's row.
 *
 * Owns the words for what is wrong with one; a message names file, line, key and remedy.
 */
#include <config/private.h>

#include <limits.h>

int config_no_memory(struct config_reader *r)
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

int config_unknown_key(struct config_reader *r, const struct pb_yaml_item *item, const char *path,
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

int config_wrong_type(struct config_reader *r, const struct pb_yaml *node, const char *path,
		      const char *want, const char *remedy)
{
	return pb_yaml_fail(r->err, r->name, node->line, path, "must be %s, not %s%s", want,
			    pb_yaml_type_name(node->type), remedy);
}

static int check_string(struct config_reader *r, const struct pb_yaml *node, const char *path)
{
	bool scalar = node->type < PB_YAML_STRING && node->type != PB_YAML_NULL;

	if (node->type != PB_YAML_STRING)
		return config_wrong_type(r, node, path, "a string",
					 scalar ? "; put it in quotes" : "");
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

int config_read_string(struct config_reader *r, const struct config_key *key,
		       const struct pb_yaml *node, const char *path, char **ret_value)
{
	PB_FREE char *value = NULL;
	const char *wrong;
	int rc = check_string(r, node, path);

	if (rc < 0)
		return rc;
	value = key->type == KEY_PATH ? absolute(r->dir, node->text) : strdup(node->text);
	if (!value)
		return config_no_memory(r);
	wrong = key->check ? key->check(value) : NULL;
	if (wrong)
		return pb_yaml_fail(r->err, r->name, node->line, path, "\"%.120s\" %s", value,
				    wrong);
	if (key->type == KEY_PATH && strlen(value) >= PATH_MAX)
		return pb_yaml_fail(r->err, r->name, node->line, path, "is too long for a path");
	*ret_value = PB_TAKE_PTR(value);
	return 0;
}

static int read_uint(struct config_reader *r, const struct config_key *key,
		     const struct pb_yaml *node)
{
	const char *either = key->zero ? " or " : "", *zero = key->zero ? key->zero : "";
	uint64_t value = 0;

	if (key->zero && node->type == PB_YAML_STRING && strcmp(node->text, key->zero) == 0) {
		*(unsigned *)config_field(r->config, key) = 0;
		return 0;
	}
	if (node->type != PB_YAML_INT) {
		char want[64];

		snprintf(want, sizeof(want), "a whole number%s%s", either, zero);
		return config_wrong_type(r, node, key->name, want, "");
	}
	if (pb_yaml_uint(node, &value) < 0 || value < key->min || value > key->max)
		return pb_yaml_fail(r->err, r->name, node->line, key->name,
				    "%.40s is out of range; give %u to %u%s%s", node->text,
				    key->min, key->max, either, zero);
	*(unsigned *)config_field(r->config, key) = (unsigned)value;
	return 0;
}

int config_read_word(struct config_reader *r, const char *const *words, const struct pb_yaml *node,
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

static int read_list(struct config_reader *r, const struct config_key *key,
		     const struct pb_yaml *node)
{
	struct config_list *list = config_field(r->config, key);
	int rc = 0;

	if (node->type == PB_YAML_NULL)
		return 0;
	if (node->type != PB_YAML_LIST) {
		char remedy[80];

		snprintf(remedy, sizeof(remedy), "; write it as %s", key->example);
		return config_wrong_type(r, node, key->name, "a list", remedy);
	}
	list->items = calloc(node->n ? node->n : 1, sizeof(*list->items));
	if (!list->items)
		return config_no_memory(r);
	for (size_t i = 0; i < node->n && rc == 0; i++) {
		rc = config_read_string(r, key, node->items[i].value, key->name, &list->items[i]);
		list->n += rc == 0;
	}
	return rc;
}

int config_read_key(struct config_reader *r, const struct config_key *key,
		    const struct pb_yaml *node)
{
	switch (key->type) {
	case KEY_STRING:
	case KEY_PATH:
		return config_read_string(r, key, node, key->name, config_field(r->config, key));
	case KEY_UINT:
		return read_uint(r, key, node);
	case KEY_WORD:
		return config_read_word(r, key->words, node, key->name,
					config_field(r->config, key));
	default:
		return read_list(r, key, node);
	}
}
