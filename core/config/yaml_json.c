/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A YAML node as JSON text. Numbers keep all their digits; what JSON can't say is an error.
 */
#include <config/yaml.h>

#include <math.h>

struct json_out {
	const char *name;
	struct pb_buf *buf;
	struct pb_err *err;
};

static int json_node(struct json_out *out, const struct pb_yaml *node, const char *const *skip,
		     const char *path);

static int json_oom(struct json_out *out)
{
	return pb_err_set(out->err, -ENOMEM, "%s: out of memory", out->name);
}

int pb_yaml_uint(const struct pb_yaml *node, uint64_t *ret_value)
{
	const char *s = node->text + (*node->text == '+');
	int base = strncmp(s, "0x", 2) == 0 ? 16 : strncmp(s, "0o", 2) == 0 ? 8 : 10;
	unsigned long long value;

	if (*s == '-')
		return -ERANGE;
	errno = 0;
	value = strtoull(base == 10 ? s : s + 2, NULL, base);
	if (errno)
		return -ERANGE;
	*ret_value = value;
	return 0;
}

static int json_int(struct json_out *out, const struct pb_yaml *node, const char *path)
{
	const char *s = node->text;
	bool minus = *s == '-';
	struct pb_yaml positive = {.text = node->text + minus};
	uint64_t value;

	if (pb_yaml_uint(&positive, &value) < 0 || (minus && value > (uint64_t)INT64_MAX + 1))
		return pb_yaml_fail(out->err, out->name, node->line, path,
				    "%.40s doesn't fit into 64 bits; put it in quotes", s);
	if (pb_buf_printf(out->buf, "%s%llu", minus ? "-" : "", (unsigned long long)value) < 0)
		return json_oom(out);
	return 0;
}

static int json_float(struct json_out *out, const struct pb_yaml *node, const char *path)
{
	char *end;
	double value = strtod(node->text, &end);
	char text[64];

	if (*end || !isfinite(value))
		return pb_yaml_fail(out->err, out->name, node->line, path,
				    "%.40s is not a number that JSON knows; put it in quotes",
				    node->text);
	snprintf(text, sizeof(text), "%.15g", value);
	if (strtod(text, NULL) != value)
		snprintf(text, sizeof(text), "%.17g", value);
	return pb_buf_append(out->buf, text, strlen(text)) < 0 ? json_oom(out) : 0;
}

static int json_string(struct json_out *out, const char *s)
{
	int rc = pb_buf_append(out->buf, "\"", 1);

	for (; *s && rc == 0; s++) {
		if (*s == '"' || *s == '\\')
			rc = pb_buf_printf(out->buf, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			rc = pb_buf_printf(out->buf, "\\u%04x", *s);
		else
			rc = pb_buf_append(out->buf, s, 1);
	}
	if (rc == 0)
		rc = pb_buf_append(out->buf, "\"", 1);
	return rc < 0 ? json_oom(out) : 0;
}

static bool json_skipped(const char *key, const char *const *skip)
{
	for (; skip && *skip; skip++) {
		if (strcmp(key, *skip) == 0)
			return true;
	}
	return false;
}

static int json_items(struct json_out *out, const struct pb_yaml *node, const char *const *skip,
		      const char *path)
{
	const char *comma = "";
	int rc = 0;

	for (size_t i = 0; i < node->n && rc == 0; i++) {
		const struct pb_yaml_item *item = &node->items[i];
		char child[256];

		if (item->key && json_skipped(item->key, skip))
			continue;
		if (pb_buf_append(out->buf, comma, strlen(comma)) < 0)
			return json_oom(out);
		comma = ",";
		if (item->key) {
			snprintf(child, sizeof(child), "%.150s.%.100s", path, item->key);
			rc = json_string(out, item->key);
			if (rc == 0 && pb_buf_append(out->buf, ":", 1) < 0)
				return json_oom(out);
		} else {
			snprintf(child, sizeof(child), "%.200s[%zu]", path, i);
		}
		if (rc == 0)
			rc = json_node(out, item->value, NULL, child);
	}
	return rc;
}

static int json_container(struct json_out *out, const struct pb_yaml *node, const char *const *skip,
			  const char *path)
{
	bool map = node->type == PB_YAML_MAP;
	int rc;

	if (pb_buf_append(out->buf, map ? "{" : "[", 1) < 0)
		return json_oom(out);
	rc = json_items(out, node, skip, path);
	if (rc == 0 && pb_buf_append(out->buf, map ? "}" : "]", 1) < 0)
		rc = json_oom(out);
	return rc;
}

static int json_node(struct json_out *out, const struct pb_yaml *node, const char *const *skip,
		     const char *path)
{
	const char *word;

	switch (node->type) {
	case PB_YAML_MAP:
	case PB_YAML_LIST:
		return json_container(out, node, skip, path);
	case PB_YAML_INT:
		return json_int(out, node, path);
	case PB_YAML_FLOAT:
		return json_float(out, node, path);
	case PB_YAML_STRING:
		return json_string(out, node->text);
	case PB_YAML_BOOL:
		word = *node->text == 't' || *node->text == 'T' ? "true" : "false";
		break;
	default:
		word = "null";
		break;
	}
	return pb_buf_append(out->buf, word, strlen(word)) < 0 ? json_oom(out) : 0;
}

int pb_yaml_json(const struct pb_yaml *node, const char *const *skip, const char *name,
		 const char *path, struct pb_buf *out, struct pb_err *err)
{
	struct json_out j = {.name = name, .buf = out, .err = err};

	return json_node(&j, node, skip, path);
}
