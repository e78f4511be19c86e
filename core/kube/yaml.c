/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libyaml's events -> JSON text. No tree: an anchor is a piece of the text written so far, an
 * alias copies it. Whatever the input says, memory is bounded by its size and the alias budget.
 */
#include <kube/yaml.h>

#include <yaml.h>

#include <base/scan.h>

/* The most keys of a mapping with <<: each merged key is compared with all of them. */
#define MERGE_KEYS_MAX 256

struct key {
	uint64_t hash;
	size_t at; /* of the key's text in the output */
	unsigned line;
};

/* An open mapping or sequence. */
struct frame {
	bool is_map;
	bool wants_value;     /* a key was written */
	bool merging;	      /* that key was << */
	unsigned n;	      /* members or elements so far */
	size_t start;	      /* in the output */
	size_t value_start;   /* of the value of << */
	size_t first_key;     /* in keys */
	struct pb_buf merged; /* values of <<, each followed by a newline */
	char *anchor;
};

struct anchor {
	char *name;
	size_t start;
	size_t end;
};

struct converter {
	yaml_parser_t parser;
	struct pb_buf out;
	struct frame frames[PB_SCAN_DEPTH];
	unsigned depth;
	struct key *keys;
	size_t n_keys, cap_keys;
	struct anchor *anchors;
	size_t n_anchors;
	size_t expanded;
	unsigned line; /* of the current event */
	struct pb_err *err;
};

static int fail(struct converter *c, const char *why)
{
	return pb_err_set(c->err, -EINVAL, "line %u: %s", c->line, why);
}

static int no_memory(struct converter *c)
{
	return pb_err_set(c->err, -ENOMEM, "line %u: out of memory", c->line);
}

static struct frame *top(struct converter *c)
{
	return c->depth ? &c->frames[c->depth - 1] : NULL;
}

/* Takes the name; the anchor's text is out[start, end of out). */
static int anchor_set(struct converter *c, char *name, size_t start)
{
	struct anchor *anchors;

	for (size_t i = 0; i < c->n_anchors; i++) {
		if (strcmp(c->anchors[i].name, name) != 0)
			continue;
		free(c->anchors[i].name);
		c->anchors[i] = (struct anchor){name, start, c->out.len};
		return 0;
	}
	anchors = reallocarray(c->anchors, c->n_anchors + 1, sizeof(*anchors));
	if (!anchors) {
		free(name);
		return no_memory(c);
	}
	c->anchors = anchors;
	c->anchors[c->n_anchors++] = (struct anchor){name, start, c->out.len};
	return 0;
}

static int key_add(struct converter *c, size_t at)
{
	if (c->n_keys == c->cap_keys) {
		size_t cap = c->cap_keys ? c->cap_keys * 2 : 64;
		struct key *keys = reallocarray(c->keys, cap, sizeof(*keys));

		if (!keys)
			return no_memory(c);
		c->keys = keys;
		c->cap_keys = cap;
	}
	c->keys[c->n_keys++] = (struct key){
		.hash = pb_hash64(c->out.data + at, c->out.len - at, 0),
		.at = at,
		.line = c->line,
	};
	return 0;
}

static int key_compare(const void *a, const void *b)
{
	const struct key *left = a, *right = b;

	if (left->hash != right->hash)
		return left->hash < right->hash ? -1 : 1;
	return (left->line > right->line) - (left->line < right->line);
}

/* Sorts the keys of the mapping that ends; one given twice is refused. */
static int keys_check(struct converter *c, size_t first)
{
	size_t n = c->n_keys - first;
	struct key *keys;

	if (n < 2)
		return 0;
	keys = c->keys + first;
	qsort(keys, n, sizeof(*keys), key_compare);
	for (size_t i = 1; i < n; i++) {
		const char *text = c->out.data + keys[i].at;

		if (keys[i].hash == keys[i - 1].hash)
			return pb_err_set(c->err, -EINVAL,
					  "line %u: the key %.*s is given twice, first in line %u",
					  keys[i].line, (int)strcspn(text + 1, "\"") + 2, text,
					  keys[i - 1].line);
	}
	return 0;
}

/* A value or a key starts: what separates it from what is before. */
static int before_node(struct converter *c, bool *ret_is_key)
{
	struct frame *f = top(c);

	*ret_is_key = f && f->is_map && !f->wants_value;
	if (!f)
		return 0;
	if (f->is_map && f->wants_value) {
		f->value_start = c->out.len;
		return f->merging ? 0 : pb_buf_append(&c->out, ":", 1);
	}
	return f->n++ ? pb_buf_append(&c->out, ",", 1) : 0;
}

/* Anchors in text that is taken out again can't be used any more. */
static void anchors_forget(struct converter *c, size_t from)
{
	size_t kept = 0;

	for (size_t i = 0; i < c->n_anchors; i++) {
		if (c->anchors[i].end > from)
			free(c->anchors[i].name);
		else
			c->anchors[kept++] = c->anchors[i];
	}
	c->n_anchors = kept;
}

/* Moves the value of << out of the text, to be merged when the mapping ends. */
static int merge_keep(struct converter *c, struct frame *f)
{
	const char *value = c->out.data + f->value_start;
	size_t len = c->out.len - f->value_start;
	int rc;

	if (len == 0 || (*value != '{' && *value != '['))
		return fail(c, "the value of << is neither a mapping nor a list of mappings");
	rc = pb_buf_append(&f->merged, value, len);
	if (rc == 0)
		rc = pb_buf_append(&f->merged, "\n", 1);
	if (rc < 0)
		return no_memory(c);
	anchors_forget(c, f->value_start);
	c->out.len = f->value_start;
	f->merging = false;
	return 0;
}

static int after_value(struct converter *c)
{
	struct frame *f = top(c);

	if (!f || !f->is_map)
		return 0;
	f->wants_value = false;
	return f->merging ? merge_keep(c, f) : 0;
}

static int write_scalar(struct converter *c, const yaml_event_t *event, bool as_key)
{
	const char *text = (const char *)event->data.scalar.value;
	const char *tag = (const char *)event->data.scalar.tag;
	size_t len = event->data.scalar.length;
	bool is_plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;

	if (tag && strcmp(tag, "!") != 0) {
		static const char *const plain_tags[] = {YAML_INT_TAG, YAML_BOOL_TAG,
							 YAML_FLOAT_TAG, YAML_NULL_TAG};

		is_plain = false;
		for (size_t i = 0; i < PB_ARRAY_LEN(plain_tags); i++)
			is_plain = is_plain || strcmp(tag, plain_tags[i]) == 0;
		if (!is_plain && strcmp(tag, YAML_STR_TAG) != 0)
			return fail(c, "a tag that Kubernetes objects don't have");
	}
	if (!is_plain)
		return pb_yaml_string(&c->out, text, len) < 0 ? no_memory(c) : 0;
	switch (pb_yaml_plain(&c->out, text, len, as_key)) {
	case 0:
		return 0;
	case -EINVAL:
		return fail(c, "a number that JSON can't hold");
	default:
		return no_memory(c);
	}
}

static int take_anchor(struct converter *c, const yaml_char_t *anchor, char **ret_name)
{
	*ret_name = anchor ? strdup((const char *)anchor) : NULL;
	return anchor && !*ret_name ? no_memory(c) : 0;
}

static int on_scalar(struct converter *c, const yaml_event_t *event)
{
	struct frame *f = top(c);
	PB_FREE char *anchor = NULL;
	bool is_key;
	size_t at;
	int rc;

	if (before_node(c, &is_key) < 0)
		return no_memory(c);
	at = c->out.len;
	if (is_key) {
		f->wants_value = true;
		if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
		    strcmp((const char *)event->data.scalar.value, "<<") == 0) {
			f->merging = true;
			/* Its comma goes too: the members come at the end. */
			f->n--;
			c->out.len -= f->n ? 1 : 0;
			return 0;
		}
	}
	rc = write_scalar(c, event, is_key);
	if (rc == 0)
		rc = take_anchor(c, event->data.scalar.anchor, &anchor);
	if (rc == 0 && anchor)
		rc = anchor_set(c, PB_TAKE_PTR(anchor), at);
	if (rc < 0)
		return rc;
	return is_key ? key_add(c, at) : after_value(c);
}

static int on_alias(struct converter *c, const yaml_event_t *event)
{
	const char *name = (const char *)event->data.alias.anchor;
	bool is_key;

	if (before_node(c, &is_key) < 0)
		return no_memory(c);
	if (is_key)
		return fail(c, "an alias as a key");
	for (size_t i = 0; i < c->n_anchors; i++) {
		const struct anchor *a = &c->anchors[i];
		size_t len = a->end - a->start;
		PB_FREE char *copy = NULL;

		if (strcmp(a->name, name) != 0)
			continue;
		c->expanded += len;
		if (c->expanded > PB_YAML_ALIAS_MAX)
			return fail(c, "aliases expand to too much text");
		copy = malloc(len + 1);
		if (!copy)
			return no_memory(c);
		memcpy(copy, c->out.data + a->start, len);
		if (pb_buf_append(&c->out, copy, len) < 0)
			return no_memory(c);
		return after_value(c);
	}
	return pb_err_set(c->err, -EINVAL, "line %u: no anchor is named \"%s\" before this line",
			  c->line, name);
}

static int on_start(struct converter *c, bool is_map, const yaml_char_t *anchor)
{
	struct frame *f;
	bool is_key;
	int rc;

	if (before_node(c, &is_key) < 0)
		return no_memory(c);
	if (is_key)
		return fail(c, "a key that is a mapping or a list");
	if (c->depth == PB_SCAN_DEPTH)
		return fail(c, "nested too deeply");
	f = &c->frames[c->depth];
	*f = (struct frame){.is_map = is_map, .start = c->out.len, .first_key = c->n_keys};
	rc = take_anchor(c, anchor, &f->anchor);
	if (rc < 0)
		return rc;
	c->depth++;
	return pb_buf_append(&c->out, is_map ? "{" : "[", 1) < 0 ? no_memory(c) : 0;
}

static bool has_key(const struct converter *c, size_t first, uint64_t hash)
{
	for (size_t i = first; i < c->n_keys; i++)
		if (c->keys[i].hash == hash)
			return true;
	return false;
}

static int merge_map(struct converter *c, struct frame *f, struct pb_span map)
{
	struct pb_scan scan = pb_scan_object(map);
	struct pb_span key, value;
	int rc = 0;

	while (rc == 0 && pb_scan_member(&scan, &key, &value)) {
		size_t key_len = (size_t)(key.end - key.p);
		size_t at;

		c->expanded += (size_t)(value.end - key.p);
		if (c->expanded > PB_YAML_ALIAS_MAX || c->n_keys - f->first_key > MERGE_KEYS_MAX)
			return fail(c, "aliases expand to too much text");
		if (has_key(c, f->first_key, pb_hash64(key.p, key_len, 0)))
			continue;
		rc = f->n++ ? pb_buf_append(&c->out, ",", 1) : 0;
		at = c->out.len;
		if (rc == 0)
			rc = pb_buf_append(&c->out, key.p, key_len);
		if (rc == 0)
			rc = key_add(c, at);
		if (rc == 0)
			rc = pb_buf_append(&c->out, ":", 1);
		if (rc == 0)
			rc = pb_buf_append(&c->out, value.p, (size_t)(value.end - value.p));
	}
	return rc == -ENOMEM ? no_memory(c) : rc;
}

static int merge_all(struct converter *c, struct frame *f)
{
	const char *p = f->merged.data, *end = p + f->merged.len;
	int rc = 0;

	while (rc == 0 && p < end) {
		const char *line_end = memchr(p, '\n', (size_t)(end - p));
		struct pb_span value = {p, line_end}, element;
		struct pb_scan scan = pb_scan_list(value);

		if (pb_span_type(value) == '{')
			rc = merge_map(c, f, value);
		while (rc == 0 && pb_scan_element(&scan, &element)) {
			if (pb_span_type(element) != '{')
				return fail(c, "the value of << holds something but mappings");
			rc = merge_map(c, f, element);
		}
		p = line_end + 1;
	}
	return rc;
}

static int on_end(struct converter *c)
{
	struct frame *f = top(c);
	char *anchor;
	int rc = f->is_map ? keys_check(c, f->first_key) : 0;

	if (rc == 0 && f->merged.len)
		rc = merge_all(c, f);
	if (rc < 0)
		return rc;
	c->n_keys = f->first_key;
	if (pb_buf_append(&c->out, f->is_map ? "}" : "]", 1) < 0)
		return no_memory(c);
	pb_buf_free(&f->merged);
	anchor = PB_TAKE_PTR(f->anchor);
	c->depth--;
	if (anchor)
		rc = anchor_set(c, anchor, f->start);
	return rc < 0 ? rc : after_value(c);
}

static void document_reset(struct converter *c)
{
	while (c->depth) {
		struct frame *f = &c->frames[--c->depth];

		pb_buf_free(&f->merged);
		free(f->anchor);
	}
	for (size_t i = 0; i < c->n_anchors; i++)
		free(c->anchors[i].name);
	free(c->anchors);
	c->anchors = NULL;
	c->n_anchors = 0;
	c->n_keys = 0;
	c->expanded = 0;
	pb_buf_reset(&c->out);
}

static int on_event(struct converter *c, const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return on_scalar(c, event);
	case YAML_ALIAS_EVENT:
		return on_alias(c, event);
	case YAML_MAPPING_START_EVENT:
		return on_start(c, true, event->data.mapping_start.anchor);
	case YAML_SEQUENCE_START_EVENT:
		return on_start(c, false, event->data.sequence_start.anchor);
	case YAML_MAPPING_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
		return on_end(c);
	default:
		return 0;
	}
}

/* libyaml's name for a tab in the indentation helps nobody. */
static const char *remedy(const char *problem)
{
	return problem && strcmp(problem, "found character that cannot start any token") == 0
		       ? "; indent with blanks, not tabs"
		       : "";
}

static int parser_error(struct converter *c)
{
	const yaml_parser_t *p = &c->parser;
	/* A reader's error has no mark, only what was read so far. */
	size_t line = p->problem_mark.line ? p->problem_mark.line : p->mark.line;

	if (p->error == YAML_MEMORY_ERROR)
		return no_memory(c);
	return pb_err_set(c->err, -EINVAL, "line %zu: not valid YAML: %s%s%s%s", line + 1,
			  p->problem ? p->problem : "unknown error", p->context ? " " : "",
			  p->context ? p->context : "", remedy(p->problem));
}

static int convert(struct converter *c, pb_yaml_fn fn, void *arg)
{
	unsigned document_line = 1;
	bool at_end = false;
	int rc = 0;

	while (rc == 0 && !at_end) {
		yaml_event_t event;

		if (!yaml_parser_parse(&c->parser, &event))
			return parser_error(c);
		c->line = (unsigned)event.start_mark.line + 1;
		at_end = event.type == YAML_STREAM_END_EVENT;
		rc = on_event(c, &event);
		if (event.type == YAML_DOCUMENT_START_EVENT) {
			document_reset(c);
			document_line = c->line;
		} else if (event.type == YAML_DOCUMENT_END_EVENT && rc == 0) {
			rc = fn(arg, c->out.data, c->out.len, document_line, c->err);
		}
		yaml_event_delete(&event);
	}
	return rc;
}

int pb_yaml_documents(FILE *in, pb_yaml_fn fn, void *arg, struct pb_err *err)
{
	struct converter *c = calloc(1, sizeof(*c));
	int rc;

	if (!c || !yaml_parser_initialize(&c->parser)) {
		free(c);
		return pb_err_set(err, -ENOMEM, "out of memory");
	}
	c->err = err;
	yaml_parser_set_input_file(&c->parser, in);
	rc = convert(c, fn, arg);
	document_reset(c);
	pb_buf_free(&c->out);
	free(c->keys);
	yaml_parser_delete(&c->parser);
	free(c);
	return rc;
}
