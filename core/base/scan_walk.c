/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk over text that pb_scan_check() passed, and what single values mean. It trusts the
 * text: handed anything else it runs past the end.
 */
#include "scan_text.h"

static const char *skip_string(const char *p, const char *end)
{
	for (p = plain(p + 1, end); *p != '"'; p = plain(p, end))
		p += *p == '\\' ? 2 : 1;
	return p + 1;
}

/* Brackets differ from braces in one bit. */
static const char *skip_nest(const char *p, const char *end)
{
	unsigned depth = 0;

	do {
		if (*p == '"') {
			p = skip_string(p, end);
			continue;
		}
		if ((*p | 0x20) == '{')
			depth++;
		else if ((*p | 0x20) == '}')
			depth--;
		p++;
	} while (depth);
	return p;
}

static const char *skip_value(const char *p, const char *end)
{
	if (*p == '"')
		return skip_string(p, end);
	if (*p == '{' || *p == '[')
		return skip_nest(p, end);
	while (p < end && (unsigned char)*p > ' ' && *p != ',' && *p != '}' && *p != ']')
		p++;
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
	ret_key->end = skip_string(p, scan->end);
	scan->p = skip_blanks(ret_key->end, scan->end) + 1;
	return pb_scan_element(scan, ret_value);
}

/* What most names are told apart by is their first byte. */
static bool key_is(struct pb_span key, const char *name)
{
	const char *p = key.p + 1;

	if (*p != *name && *p != '\\')
		return false;
	return pb_span_is(key, name);
}

static void fields_clear(const struct pb_scan_field *fields, size_t n)
{
	for (size_t i = 0; i < n; i++)
		*fields[i].value = (struct pb_span){0};
}

static void fields_take(const struct pb_scan_field *fields, size_t n, struct pb_span key,
			struct pb_span value)
{
	for (size_t i = 0; i < n; i++) {
		if (!key_is(key, fields[i].name))
			continue;
		*fields[i].value = pb_span_type(value) ? value : (struct pb_span){0};
		break;
	}
}

void pb_scan_fields(struct pb_span object, const struct pb_scan_field *fields, size_t n)
{
	struct pb_scan scan = pb_scan_object(object);
	struct pb_span key, value;

	fields_clear(fields, n);
	while (pb_scan_member(&scan, &key, &value))
		fields_take(fields, n, key, value);
}

void pb_scan_doc_fields(const struct pb_scan_doc *doc, const struct pb_scan_field *fields, size_t n)
{
	if (!doc->all || pb_span_type(doc->root) != '{') {
		pb_scan_fields(doc->root, fields, n);
		return;
	}
	fields_clear(fields, n);
	for (unsigned i = 0; i < doc->n; i++)
		fields_take(fields, n, doc->keys[i], doc->values[i]);
}

bool pb_scan_element_fields(struct pb_scan *scan, const struct pb_scan_field *fields, size_t n)
{
	const char *p = skip_blanks(scan->p, scan->end), *end = scan->end;
	struct pb_span key, value;

	fields_clear(fields, n);
	if (p == end || *p != '{')
		return pb_scan_element(scan, &value);
	p = skip_blanks(p + 1, end);
	while (*p == '"') {
		key = (struct pb_span){p, skip_string(p, end)};
		p = skip_blanks(skip_blanks(key.end, end) + 1, end);
		value = (struct pb_span){p, skip_value(p, end)};
		fields_take(fields, n, key, value);
		p = skip_blanks(value.end, end);
		if (*p == ',')
			p = skip_blanks(p + 1, end);
	}
	p = skip_blanks(p + 1, end);
	scan->p = p < end ? p + 1 : p;
	return true;
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
	if (pb_span_room(value) - 1 == len && memcmp(value.p + 1, text, len) == 0)
		return true;
	if (pb_span_room(value) - 1 <= len || pb_span_room(value) > sizeof(plain) ||
	    !memchr(value.p, '\\', (size_t)(value.end - value.p)))
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
