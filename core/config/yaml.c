/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds the tree from libyaml's events. The depth is bounded, so recursion here is; the text is
 * bounded by its reader.
 */
#include <config/yaml.h>

#include <yaml.h>

#define YAML_DEPTH_MAX 32
/* Keys of one mapping are compared pairwise. */
#define YAML_KEYS_MAX 4096

struct yaml_reader {
	yaml_parser_t parser;
	const char *name;
	struct pb_err *err;
};

static int yaml_node(struct yaml_reader *r, const yaml_event_t *event, const char *path,
		     unsigned depth, struct pb_yaml **ret_node);

int pb_yaml_fail(struct pb_err *err, const char *name, unsigned line, const char *key,
		 const char *fmt, ...)
{
	char text[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (key && *key)
		pb_err_set(err, -EINVAL, "%s:%u: %.200s: %s", name, line, key, text);
	else
		pb_err_set(err, -EINVAL, "%s:%u: %s", name, line, text);
	for (char *p = err ? err->text : text; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	}
	return -EINVAL;
}

struct pb_yaml *pb_yaml_free(struct pb_yaml *node)
{
	if (!node)
		return NULL;
	for (size_t i = 0; i < node->n; i++) {
		free(node->items[i].key);
		pb_yaml_free(node->items[i].value);
	}
	free(node->items);
	free(node->text);
	free(node);
	return NULL;
}

void pb_cleanup_yaml(struct pb_yaml **node)
{
	pb_yaml_free(*node);
}

/* libyaml's name for a tab in the indentation helps nobody. */
static const char *yaml_remedy(const char *problem)
{
	return problem && strcmp(problem, "found character that cannot start any token") == 0
		       ? "; indent with blanks, not tabs, and quote what starts with @, ` or %"
		       : "";
}

static int yaml_syntax(struct yaml_reader *r)
{
	const yaml_parser_t *p = &r->parser;
	unsigned line = (unsigned)(p->problem_mark.line ? p->problem_mark.line : p->mark.line) + 1;

	if (p->error == YAML_MEMORY_ERROR)
		return pb_err_set(r->err, -ENOMEM, "%s: out of memory", r->name);
	return pb_yaml_fail(r->err, r->name, line, NULL, "not valid YAML: %s%s%s%s",
			    p->context ? p->context : "", p->context ? ": " : "",
			    p->problem ? p->problem : "unknown problem", yaml_remedy(p->problem));
}

static int yaml_next(struct yaml_reader *r, yaml_event_t *event)
{
	return yaml_parser_parse(&r->parser, event) ? 0 : yaml_syntax(r);
}

static int yaml_append(struct pb_yaml *node, struct pb_yaml_item *item)
{
	if ((node->n & (node->n - 1)) == 0) {
		size_t cap = node->n ? node->n * 2 : 1;
		struct pb_yaml_item *items = realloc(node->items, cap * sizeof(*items));

		if (!items)
			return -ENOMEM;
		node->items = items;
	}
	node->items[node->n++] = *item;
	return 0;
}

static int yaml_plain_only(struct yaml_reader *r, const yaml_event_t *event, const char *path)
{
	const yaml_char_t *anchor = NULL, *tag = NULL;
	unsigned line = (unsigned)event->start_mark.line + 1;

	if (event->type == YAML_SCALAR_EVENT) {
		anchor = event->data.scalar.anchor;
		tag = event->data.scalar.tag;
	} else if (event->type == YAML_MAPPING_START_EVENT) {
		anchor = event->data.mapping_start.anchor;
		tag = event->data.mapping_start.tag;
	} else if (event->type == YAML_SEQUENCE_START_EVENT) {
		anchor = event->data.sequence_start.anchor;
		tag = event->data.sequence_start.tag;
	}
	if (event->type == YAML_ALIAS_EVENT || anchor)
		return pb_yaml_fail(r->err, r->name, line, path,
				    "anchors and aliases are not supported; write the value out");
	if (tag)
		return pb_yaml_fail(r->err, r->name, line, path,
				    "tags are not supported; remove \"%.100s\"", (const char *)tag);
	return 0;
}

static int yaml_text(struct yaml_reader *r, const yaml_event_t *event, const char *path,
		     char **ret_text)
{
	const char *value = (const char *)event->data.scalar.value;

	if (memchr(value, '\0', event->data.scalar.length))
		return pb_yaml_fail(r->err, r->name, (unsigned)event->start_mark.line + 1, path,
				    "contains a NUL character; remove it");
	*ret_text = strdup(value);
	return *ret_text ? 0 : pb_err_set(r->err, -ENOMEM, "%s: out of memory", r->name);
}

static bool yaml_all(const char *s, const char *set)
{
	return *s && s[strspn(s, set)] == '\0';
}

static bool yaml_is_one_of(const char *s, const char *const *words)
{
	for (; *words; words++) {
		if (strcmp(s, *words) == 0)
			return true;
	}
	return false;
}

static bool yaml_is_float(const char *s)
{
	size_t whole, fraction = 0;

	s += *s == '-' || *s == '+';
	whole = strspn(s, "0123456789");
	s += whole;
	if (*s == '.') {
		fraction = strspn(++s, "0123456789");
		s += fraction;
	}
	if (whole + fraction == 0)
		return false;
	if (*s == 'e' || *s == 'E') {
		s += 1 + (s[1] == '-' || s[1] == '+');
		return yaml_all(s, "0123456789");
	}
	return *s == '\0';
}

/* Section 10.3.2 of YAML 1.2: tag resolution of the core schema. */
static enum pb_yaml_type yaml_resolve(const char *s)
{
	static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
	static const char *const bools[] = {"true",  "True",  "TRUE", "false",
					    "False", "FALSE", NULL};
	static const char *const odd[] = {".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN", NULL};

	if (yaml_is_one_of(s, nulls))
		return PB_YAML_NULL;
	if (yaml_is_one_of(s, bools))
		return PB_YAML_BOOL;
	if (yaml_all(s + (*s == '-' || *s == '+'), "0123456789") ||
	    (strncmp(s, "0o", 2) == 0 && yaml_all(s + 2, "01234567")) ||
	    (strncmp(s, "0x", 2) == 0 && yaml_all(s + 2, "0123456789abcdefABCDEF")))
		return PB_YAML_INT;
	if (yaml_is_float(s) || yaml_is_one_of(s + (*s == '-' || *s == '+'), odd))
		return PB_YAML_FLOAT;
	return PB_YAML_STRING;
}

static int yaml_child(struct yaml_reader *r, const yaml_event_t *event, struct pb_yaml *parent,
		      struct pb_yaml_item *item, const char *path, unsigned depth)
{
	int rc = yaml_node(r, event, path, depth, &item->value);

	if (rc == 0 && yaml_append(parent, item) < 0)
		rc = pb_err_set(r->err, -ENOMEM, "%s: out of memory", r->name);
	if (rc < 0) {
		pb_yaml_free(item->value);
		free(item->key);
	}
	return rc;
}

static int yaml_list(struct yaml_reader *r, struct pb_yaml *node, const char *path, unsigned depth)
{
	for (;;) {
		struct pb_yaml_item item = {0};
		yaml_event_t event;
		bool end;
		int rc = yaml_next(r, &event);

		if (rc < 0)
			return rc;
		end = event.type == YAML_SEQUENCE_END_EVENT;
		item.line = (unsigned)event.start_mark.line + 1;
		if (!end)
			rc = yaml_child(r, &event, node, &item, path, depth);
		yaml_event_delete(&event);
		if (end || rc < 0)
			return rc;
	}
}

/* "a.b" and "c" make "a.b.c"; too long a path is cut, it only serves messages. */
static void yaml_path(char *out, size_t size, const char *path, const char *key)
{
	snprintf(out, size, "%.150s%s%.100s", path, *path ? "." : "", key);
}

static int yaml_duplicate(struct yaml_reader *r, const struct pb_yaml_item *first,
			  const struct pb_yaml_item *again, const char *path)
{
	char child[256];

	yaml_path(child, sizeof(child), path, again->key);
	return pb_yaml_fail(r->err, r->name, again->line, child,
			    "duplicate key, the first is in line %u; remove one", first->line);
}

static int yaml_key(struct yaml_reader *r, const yaml_event_t *event, const struct pb_yaml *node,
		    const char *path, struct pb_yaml_item *item)
{
	int rc = yaml_plain_only(r, event, path);

	item->line = (unsigned)event->start_mark.line + 1;
	if (rc < 0)
		return rc;
	if (event->type != YAML_SCALAR_EVENT)
		return pb_yaml_fail(r->err, r->name, item->line, path,
				    "a key must be a word, not a list or a mapping");
	if (node->n == YAML_KEYS_MAX)
		return pb_yaml_fail(r->err, r->name, item->line, path,
				    "more than %d keys in one mapping", YAML_KEYS_MAX);
	rc = yaml_text(r, event, path, &item->key);
	for (size_t i = 0; rc == 0 && i < node->n; i++) {
		if (strcmp(node->items[i].key, item->key) == 0)
			rc = yaml_duplicate(r, &node->items[i], item, path);
	}
	if (rc < 0)
		free(item->key);
	return rc;
}

static int yaml_map(struct yaml_reader *r, struct pb_yaml *node, const char *path, unsigned depth)
{
	for (;;) {
		struct pb_yaml_item item = {0};
		char child[256];
		yaml_event_t event;
		bool end;
		int rc = yaml_next(r, &event);

		if (rc < 0)
			return rc;
		end = event.type == YAML_MAPPING_END_EVENT;
		if (!end)
			rc = yaml_key(r, &event, node, path, &item);
		yaml_event_delete(&event);
		if (end || rc < 0)
			return rc;
		yaml_path(child, sizeof(child), path, item.key);
		rc = yaml_next(r, &event);
		if (rc < 0) {
			free(item.key);
			return rc;
		}
		rc = yaml_child(r, &event, node, &item, child, depth);
		yaml_event_delete(&event);
		if (rc < 0)
			return rc;
	}
}

static int yaml_node(struct yaml_reader *r, const yaml_event_t *event, const char *path,
		     unsigned depth, struct pb_yaml **ret_node)
{
	PB_YAML_FREE struct pb_yaml *node = NULL;
	int rc = yaml_plain_only(r, event, path);

	if (rc < 0)
		return rc;
	node = calloc(1, sizeof(*node));
	if (!node)
		return pb_err_set(r->err, -ENOMEM, "%s: out of memory", r->name);
	node->line = (unsigned)event->start_mark.line + 1;
	if (depth > YAML_DEPTH_MAX)
		return pb_yaml_fail(r->err, r->name, node->line, path,
				    "nested deeper than %d levels", YAML_DEPTH_MAX);
	if (event->type == YAML_SCALAR_EVENT) {
		rc = yaml_text(r, event, path, &node->text);
		node->type = PB_YAML_STRING;
		if (rc == 0 && event->data.scalar.plain_implicit)
			node->type = yaml_resolve(node->text);
	} else if (event->type == YAML_MAPPING_START_EVENT) {
		node->type = PB_YAML_MAP;
		rc = yaml_map(r, node, path, depth + 1);
	} else {
		node->type = PB_YAML_LIST;
		rc = yaml_list(r, node, path, depth + 1);
	}
	if (rc == 0)
		*ret_node = PB_TAKE_PTR(node);
	return rc;
}

static int yaml_document(struct yaml_reader *r, struct pb_yaml **ret_root)
{
	PB_YAML_FREE struct pb_yaml *root = NULL;
	bool end = false;
	int rc = 0;

	while (!end && rc == 0) {
		yaml_event_t event;

		rc = yaml_next(r, &event);
		if (rc < 0)
			break;
		end = event.type == YAML_STREAM_END_EVENT;
		if (event.type == YAML_DOCUMENT_START_EVENT && root)
			rc = pb_yaml_fail(r->err, r->name, (unsigned)event.start_mark.line + 1,
					  NULL, "a second document starts here; only one is read");
		else if (!end && event.type != YAML_STREAM_START_EVENT &&
			 event.type != YAML_DOCUMENT_START_EVENT &&
			 event.type != YAML_DOCUMENT_END_EVENT)
			rc = yaml_node(r, &event, "", 1, &root);
		yaml_event_delete(&event);
	}
	if (rc == 0 && !root) {
		root = calloc(1, sizeof(*root));
		rc = root ? 0 : pb_err_set(r->err, -ENOMEM, "%s: out of memory", r->name);
	}
	if (rc == 0)
		*ret_root = PB_TAKE_PTR(root);
	return rc;
}

int pb_yaml_parse(const char *name, const char *text, size_t len, struct pb_yaml **ret_root,
		  struct pb_err *err)
{
	struct yaml_reader r = {.name = name, .err = err};
	int rc;

	if (!yaml_parser_initialize(&r.parser))
		return pb_err_set(err, -ENOMEM, "%s: out of memory", name);
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
	rc = yaml_document(&r, ret_root);
	yaml_parser_delete(&r.parser);
	return rc;
}

const char *pb_yaml_type_name(enum pb_yaml_type type)
{
	static const char *const names[] = {
		[PB_YAML_NULL] = "empty",      [PB_YAML_BOOL] = "true or false",
		[PB_YAML_INT] = "a number",    [PB_YAML_FLOAT] = "a fraction",
		[PB_YAML_STRING] = "a string", [PB_YAML_MAP] = "a mapping",
		[PB_YAML_LIST] = "a list",
	};

	return names[type];
}
