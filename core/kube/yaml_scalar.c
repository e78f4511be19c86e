/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a scalar of YAML means, written as JSON. No state.
 */
#include <kube/yaml.h>

#include <ctype.h>

int pb_yaml_string(struct pb_buf *out, const char *text, size_t len)
{
	int rc = pb_buf_append(out, "\"", 1);
	size_t from = 0;

	for (size_t i = 0; i < len && rc == 0; i++) {
		unsigned char ch = (unsigned char)text[i];

		if (ch >= 0x20 && ch != '"' && ch != '\\')
			continue;
		rc = pb_buf_append(out, text + from, i - from);
		if (rc == 0)
			rc = ch < 0x20 ? pb_buf_printf(out, "\\u%04x", ch)
				       : pb_buf_printf(out, "\\%c", ch);
		from = i + 1;
	}
	if (rc == 0)
		rc = pb_buf_append(out, text + from, len - from);
	return rc < 0 ? rc : pb_buf_append(out, "\"", 1);
}

static bool is_one_of(const char *text, const char *const *words)
{
	for (; *words; words++)
		if (strcmp(text, *words) == 0)
			return true;
	return false;
}

/* "null", "true" or "false" if the word stands for one of them. */
static const char *constant_of(const char *text)
{
	static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
	static const char *const yes[] = {"y",	  "Y",	  "yes", "Yes", "YES", "true",
					  "True", "TRUE", "on",	 "On",	"ON",  NULL};
	static const char *const no[] = {"n",	  "N",	   "no",  "No",	 "NO",	"false",
					 "False", "FALSE", "off", "Off", "OFF", NULL};

	if (is_one_of(text, nulls))
		return "null";
	if (is_one_of(text, yes))
		return "true";
	return is_one_of(text, no) ? "false" : NULL;
}

/* Whole numbers: decimal, 0x, 0o, 0b and the old 0777. */
static bool integer_of(const char *text, char *out, size_t size)
{
	const char *digits = text + (*text == '-' || *text == '+');
	unsigned long long value;
	int base = 10;
	char *end;

	if (digits[0] == '0' && digits[1]) {
		char mark = (char)tolower((unsigned char)digits[1]);

		base = mark == 'x' ? 16 : mark == 'b' ? 2 : 8;
		digits += mark == 'x' || mark == 'b' || mark == 'o' ? 2 : 1;
	}
	if (!isxdigit((unsigned char)*digits))
		return false;
	errno = 0;
	value = strtoull(digits, &end, base);
	if (errno || *end || (*text == '-' && value > (1ULL << 63)))
		return false;
	snprintf(out, size, "%s%llu", *text == '-' && value ? "-" : "", value);
	return true;
}

/* [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)? */
static bool is_float(const char *p)
{
	size_t whole, fraction = 0;

	p += *p == '-' || *p == '+';
	whole = strspn(p, "0123456789");
	p += whole;
	if (*p == '.') {
		fraction = strspn(p + 1, "0123456789");
		p += 1 + fraction;
	}
	if (whole + fraction == 0)
		return false;
	if (*p == 'e' || *p == 'E') {
		p++;
		p += *p == '-' || *p == '+';
		if (!isdigit((unsigned char)*p))
			return false;
		p += strspn(p, "0123456789");
	}
	return *p == '\0';
}

static bool is_infinite(const char *text)
{
	static const char *const words[] = {".nan",  ".NaN",  ".NAN",  ".inf",	".Inf",
					    ".INF",  "+.inf", "+.Inf", "+.INF", "-.inf",
					    "-.Inf", "-.INF", NULL};

	return is_one_of(text, words);
}

/* 1: a number, in `out`; 0: none; -EINVAL: one that JSON can't hold. */
static int number_of(const char *text, char *out, size_t size)
{
	char plain[64];
	size_t n = 0;
	double value;

	if (!*text || !strchr("+-.0123456789", *text))
		return 0;
	if (is_infinite(text))
		return -EINVAL;
	for (const char *p = text; *p; p++)
		if (*p != '_')
			plain[n++] = *p;
	plain[n] = '\0';
	if (integer_of(plain, out, size))
		return 1;
	if (!is_float(plain))
		return 0;
	value = strtod(plain, NULL);
	if (value > 1e300 || value < -1e300)
		return -EINVAL;
	snprintf(out, size, "%.17g", value);
	return 1;
}

int pb_yaml_plain(struct pb_buf *out, const char *text, size_t len, bool as_key)
{
	const char *constant;
	char number[64];
	int rc;

	if (len >= sizeof(number) - 1 || strlen(text) != len)
		return pb_yaml_string(out, text, len);
	constant = constant_of(text);
	rc = constant ? 0 : number_of(text, number, sizeof(number));
	if (rc < 0)
		return rc;
	if (!constant && rc == 0)
		return pb_yaml_string(out, text, len);
	return pb_buf_printf(out, as_key ? "\"%s\"" : "%s", constant ? constant : number);
}
