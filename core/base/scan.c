/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Validates JSON text once and then walks it without looking twice. Nothing here allocates, and
 * no walk may be handed text that wasn't checked.
 */
#include <base/scan.h>

struct checker {
	const char *p;
	const char *end;
	const char *why;
};

static const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
		p++;
	return p;
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
	for (c->p++; c->p < c->end;) {
		unsigned char ch = (unsigned char)*c->p;

		if (ch == '"') {
			c->p++;
			return true;
		}
		if (ch < 0x20)
			return refuse(c, "a raw control character in a string");
		if (ch != '\\')
			c->p++;
		else if (!check_escape(c))
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

static bool check_key(struct checker *c)
{
	c->p = skip_blanks(c->p, c->end);
	if (c->p == c->end || *c->p != '"')
		return refuse(c, "a member's name in double quotes was expected");
	if (!check_string(c))
		return false;
	c->p = skip_blanks(c->p, c->end);
	if (c->p == c->end || *c->p != ':')
		return refuse(c, "':' was expected");
	c->p++;
	return true;
}

/* After a value: closes what ends here. *ret_more: another member or element follows. */
static bool check_after(struct checker *c, const char *closers, unsigned *depth, bool *ret_more)
{
	while (*depth) {
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
		if (depth && closers[depth - 1] == '}' && !check_key(c))
			return false;
		c->p = skip_blanks(c->p, c->end);
		if (c->p == c->end)
			return refuse(c, "the text ends where a value was expected");
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

int pb_scan_check(const char *json, size_t len, struct pb_span *ret_root, struct pb_err *err)
{
	struct checker c = {.p = json, .end = json + len};
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

static const char *skip_string(const char *p)
{
	for (p++; *p != '"'; p++)
		p += *p == '\\';
	return p + 1;
}

static const char *skip_value(const char *p, const char *end)
{
	unsigned depth = 0;

	if (*p == '"')
		return skip_string(p);
	if (*p != '{' && *p != '[') {
		while (p < end && *p != ',' && *p != '}' && *p != ']' && *p != ' ' && *p != '\n' &&
		       *p != '\t' && *p != '\r')
			p++;
		return p;
	}
	do {
		if (*p == '"') {
			p = skip_string(p);
			continue;
		}
		if (*p == '{' || *p == '[')
			depth++;
		else if (*p == '}' || *p == ']')
			depth--;
		p++;
	} while (depth);
	return p;
}

char pb_span_type(struct pb_span value)
{
	if (!value.p || *value.p == 'n')
		return '\0';
	return *value.p == '-' || (*value.p >= '0' && *value.p <= '9') ? '0' : *value.p;
}

struct pb_scan pb_scan_object(struct pb_span object)
{
	if (pb_span_type(object) != '{')
		return (struct pb_scan){0};
	return (struct pb_scan){object.p + 1, object.end - 1};
}

struct pb_scan pb_scan_list(struct pb_span list)
{
	if (pb_span_type(list) != '[')
		return (struct pb_scan){0};
	return (struct pb_scan){list.p + 1, list.end - 1};
}

bool pb_scan_element(struct pb_scan *scan, struct pb_span *ret_value)
{
	const char *p = skip_blanks(scan->p, scan->end);

	if (p == scan->end)
		return false;
	ret_value->p = p;
	ret_value->end = skip_value(p, scan->end);
	p = skip_blanks(ret_value->end, scan->end);
	scan->p = p < scan->end ? p + 1 : p;
	return true;
}

bool pb_scan_member(struct pb_scan *scan, struct pb_span *ret_key, struct pb_span *ret_value)
{
	const char *p = skip_blanks(scan->p, scan->end);

	if (p == scan->end)
		return false;
	ret_key->p = p;
	ret_key->end = skip_string(p);
	scan->p = skip_blanks(ret_key->end, scan->end) + 1;
	return pb_scan_element(scan, ret_value);
}

void pb_scan_fields(struct pb_span object, const struct pb_scan_field *fields, size_t n)
{
	struct pb_scan scan = pb_scan_object(object);
	struct pb_span key, value;

	for (size_t i = 0; i < n; i++)
		*fields[i].value = (struct pb_span){0};
	while (pb_scan_member(&scan, &key, &value)) {
		for (size_t i = 0; i < n; i++) {
			if (!pb_span_is(key, fields[i].name))
				continue;
			*fields[i].value = pb_span_type(value) ? value : (struct pb_span){0};
			break;
		}
	}
}

size_t pb_span_room(struct pb_span string)
{
	return (size_t)(string.end - string.p) - 1;
}

bool pb_span_is(struct pb_span value, const char *text)
{
	char plain[256]; /* longer than any name with every character escaped */
	size_t len = strlen(text);

	if (pb_span_type(value) != '"')
		return false;
	if (memchr(value.p, '\\', (size_t)(value.end - value.p)) == NULL)
		return pb_span_room(value) - 1 == len && memcmp(value.p + 1, text, len) == 0;
	if (pb_span_room(value) > sizeof(plain))
		return false;
	pb_span_text(value, plain);
	return strcmp(plain, text) == 0;
}

static unsigned hex4(const char *p)
{
	unsigned v = 0;

	for (int i = 0; i < 4; i++) {
		unsigned char ch = (unsigned char)p[i];

		v = v << 4 | (unsigned)(ch <= '9' ? ch - '0' : (ch | 0x20) - 'a' + 10);
	}
	return v;
}

static char *put_utf8(char *dst, unsigned code)
{
	if (code < 0x80) {
		*dst++ = (char)code;
	} else if (code < 0x800) {
		*dst++ = (char)(0xc0 | code >> 6);
		*dst++ = (char)(0x80 | (code & 0x3f));
	} else if (code < 0x10000) {
		*dst++ = (char)(0xe0 | code >> 12);
		*dst++ = (char)(0x80 | (code >> 6 & 0x3f));
		*dst++ = (char)(0x80 | (code & 0x3f));
	} else {
		*dst++ = (char)(0xf0 | code >> 18);
		*dst++ = (char)(0x80 | (code >> 12 & 0x3f));
		*dst++ = (char)(0x80 | (code >> 6 & 0x3f));
		*dst++ = (char)(0x80 | (code & 0x3f));
	}
	return dst;
}

/* p is behind "\u"; returns how many characters of the text were used. */
static size_t unescape_u(const char *p, const char *end, unsigned *ret_code)
{
	unsigned code = hex4(p);

	*ret_code = code;
	if (code >= 0xd800 && code < 0xdc00 && end - p >= 10 && p[4] == '\\' && p[5] == 'u') {
		unsigned low = hex4(p + 6);

		if (low >= 0xdc00 && low < 0xe000) {
			*ret_code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
			return 10;
		}
	}
	if (code == 0 || (code >= 0xd800 && code < 0xe000))
		*ret_code = 0xfffd;
	return 4;
}

size_t pb_span_text(struct pb_span string, char *dst)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	const char *p = string.p + 1, *end = string.end - 1;
	char *out = dst;

	while (p < end) {
		const char *escape = memchr(p, '\\', (size_t)(end - p));
		size_t run = (size_t)((escape ? escape : end) - p);
		const char *hit;
		unsigned code;

		memcpy(out, p, run);
		out += run;
		p += run;
		if (!escape)
			break;
		p += 2;
		if (p[-1] == 'u') {
			p += unescape_u(p, end, &code);
			out = put_utf8(out, code);
			continue;
		}
		hit = strchr(from, p[-1]);
		*out++ = hit ? to[hit - from] : p[-1];
	}
	*out = '\0';
	return (size_t)(out - dst);
}

int pb_span_int(struct pb_span value, int64_t *ret_number)
{
	const char *p = value.p;
	bool negative;
	int64_t n = 0;

	if (pb_span_type(value) != '0')
		return -EINVAL;
	negative = *p == '-';
	for (p += negative; p < value.end; p++) {
		if (*p < '0' || *p > '9')
			return -EINVAL;
		if (__builtin_mul_overflow(n, (int64_t)10, &n) ||
		    __builtin_add_overflow(n, (int64_t)(*p - '0'), &n))
			return -ERANGE;
	}
	*ret_number = negative ? -n : n;
	return 0;
}
