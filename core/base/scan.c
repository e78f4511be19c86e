/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Validates JSON text, in one pass that notes where the outermost members are. Nothing here
 * allocates, and nothing gets by that isn't strict JSON: the walk trusts what passed.
 */
#include "scan_text.h"

struct checker {
	const char *p;
	const char *end;
	const char *why;
	struct pb_scan_doc *doc; /* NULL: nobody wants to know */
	struct pb_span key;	 /* of the outermost object's current member */
	const char *value;
};

const char *pb_scan_plain(const char *p, const char *end)
{
	return plain(p, end);
}

static bool refuse(struct checker *c, const char *why)
{
	c->why = why;
	return false;
}

static bool is_hex(char ch)
{
	return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'f') || (ch >= 'A' && ch <= 'F');
}

static bool check_escape(struct checker *c)
{
	if (++c->p == c->end)
		return refuse(c, "the text ends inside a string");
	if (*c->p != 'u')
		return strchr("\"\\/bfnrt", *c->p) && *c->p ? (c->p++, true)
							    : refuse(c, "unknown escape");
	for (int i = 0; i < 4; i++)
		if (++c->p == c->end || !is_hex(*c->p))
			return refuse(c, "\\u needs four hexadecimal digits");
	c->p++;
	return true;
}

static bool check_string(struct checker *c)
{
	for (c->p++; (c->p = plain(c->p, c->end)) < c->end;) {
		if (*c->p == '"') {
			c->p++;
			return true;
		}
		if (*c->p != '\\')
			return refuse(c, "a raw control character in a string");
		if (!check_escape(c))
			return false;
	}
	return refuse(c, "the text ends inside a string");
}

static bool check_digits(struct checker *c)
{
	const char *from = c->p;

	while (c->p < c->end && *c->p >= '0' && *c->p <= '9')
		c->p++;
	return c->p > from || refuse(c, "a digit is missing");
}

static bool check_number(struct checker *c)
{
	if (*c->p == '-')
		c->p++;
	if (c->p < c->end && *c->p == '0')
		c->p++;
	else if (!check_digits(c))
		return false;
	if (c->p < c->end && *c->p == '.') {
		c->p++;
		if (!check_digits(c))
			return false;
	}
	if (c->p < c->end && (*c->p == 'e' || *c->p == 'E')) {
		c->p++;
		if (c->p < c->end && (*c->p == '+' || *c->p == '-'))
			c->p++;
		return check_digits(c);
	}
	return true;
}

static bool check_word(struct checker *c, const char *word)
{
	size_t len = strlen(word);

	if ((size_t)(c->end - c->p) < len || memcmp(c->p, word, len) != 0)
		return refuse(c, "a value was expected");
	c->p += len;
	return true;
}

static bool check_scalar(struct checker *c)
{
	switch (*c->p) {
	case '"':
		return check_string(c);
	case 't':
		return check_word(c, "true");
	case 'f':
		return check_word(c, "false");
	case 'n':
		return check_word(c, "null");
	default:
		if (*c->p == '-' || (*c->p >= '0' && *c->p <= '9'))
			return check_number(c);
		return refuse(c, "a value was expected");
	}
}

static bool check_key(struct checker *c, bool outermost)
{
	const char *key = c->p = skip_blanks(c->p, c->end);

	if (c->p == c->end || *c->p != '"')
		return refuse(c, "a member's name in double quotes was expected");
	if (!check_string(c))
		return false;
	if (outermost)
		c->key = (struct pb_span){key, c->p};
	c->p = skip_blanks(c->p, c->end);
	if (c->p == c->end || *c->p != ':')
		return refuse(c, "':' was expected");
	c->p++;
	return true;
}

/* A value of the outermost object ends here. */
static void note_member(struct checker *c)
{
	struct pb_scan_doc *doc = c->doc;

	if (!doc)
		return;
	doc->all = doc->n < PB_SCAN_MEMBERS;
	if (!doc->all)
		return;
	doc->keys[doc->n] = c->key;
	doc->values[doc->n++] = (struct pb_span){c->value, c->p};
}

/* After a value: closes what ends here. *ret_more: another member or element follows. */
static bool check_after(struct checker *c, const char *closers, unsigned *depth, bool *ret_more)
{
	while (*depth) {
		if (*depth == 1)
			note_member(c);
		c->p = skip_blanks(c->p, c->end);
		if (c->p == c->end)
			return refuse(c, "the text ends inside an object or a list");
		*ret_more = *c->p == ',';
		if (!*ret_more && *c->p != closers[*depth - 1])
			return refuse(c, "',' or the end of the object or list was expected");
		c->p++;
		if (*ret_more)
			return true;
		(*depth)--;
	}
	*ret_more = false;
	return true;
}

static bool check_value(struct checker *c)
{
	char closers[PB_SCAN_DEPTH];
	unsigned depth = 0;
	bool more = true;

	while (more) {
		if (depth && closers[depth - 1] == '}' && !check_key(c, depth == 1))
			return false;
		c->p = skip_blanks(c->p, c->end);
		if (c->p == c->end)
			return refuse(c, "the text ends where a value was expected");
		if (depth == 1)
			c->value = c->p;
		if (*c->p == '{' || *c->p == '[') {
			if (depth == PB_SCAN_DEPTH)
				return refuse(c, "nested too deeply");
			closers[depth++] = *c->p++ == '{' ? '}' : ']';
			c->p = skip_blanks(c->p, c->end);
			if (c->p == c->end || *c->p != closers[depth - 1])
				continue;
			c->p++;
			depth--;
		} else if (!check_scalar(c)) {
			return false;
		}
		if (!check_after(c, closers, &depth, &more))
			return false;
	}
	return true;
}

static int check(const char *json, size_t len, struct pb_scan_doc *doc, struct pb_span *ret_root,
		 struct pb_err *err)
{
	struct checker c = {.p = json, .end = json + len, .doc = doc};
	const char *start = skip_blanks(json, c.end);
	unsigned line = 1, column = 1;

	if (check_value(&c)) {
		*ret_root = (struct pb_span){start, c.p};
		c.p = skip_blanks(c.p, c.end);
		if (c.p == c.end)
			return 0;
		c.why = "more text follows the value";
	}
	for (const char *p = json; p < c.p && p < c.end; p++) {
		column = *p == '\n' ? 1 : column + 1;
		line += *p == '\n';
	}
	return pb_err_set(err, -EINVAL, "line %u, column %u: not valid JSON: %s", line, column,
			  c.why);
}

int pb_scan_check(const char *json, size_t len, struct pb_span *ret_root, struct pb_err *err)
{
	return check(json, len, NULL, ret_root, err);
}

int pb_scan_check_doc(const char *json, size_t len, struct pb_scan_doc *ret_doc, struct pb_err *err)
{
	ret_doc->n = 0;
	ret_doc->all = true;
	return check(json, len, ret_doc, &ret_doc->root, err);
}

int pb_scan_check_front(const char *json, size_t len, struct pb_scan_doc *ret_doc)
{
	struct checker c = {.p = json, .end = json + len, .doc = ret_doc};
	const char *start = skip_blanks(json, c.end);

	ret_doc->n = 0;
	ret_doc->all = true;
	if (!check_value(&c))
		return -EINVAL;
	ret_doc->root = (struct pb_span){start, c.p};
	return 0;
}
