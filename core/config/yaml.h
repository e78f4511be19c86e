/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A YAML document as a tree that remembers its lines.
 *
 * Owns parsing by libyaml, what a plain scalar means (YAML 1.2 core schema), and the bounds on
 * a document. Refuses what a configuration has no use for: aliases, tags, a second document,
 * duplicate keys. Knows no key by name.
 */
#ifndef PB_CONFIG_YAML_H
#define PB_CONFIG_YAML_H

#include <base/base.h>

enum pb_yaml_type {
	PB_YAML_NULL = 0,
	PB_YAML_BOOL = 1,
	PB_YAML_INT = 2,
	PB_YAML_FLOAT = 3,
	PB_YAML_STRING = 4,
	PB_YAML_MAP = 5,
	PB_YAML_LIST = 6,
};

struct pb_yaml_item {
	char *key; /* NULL in a list */
	unsigned line;
	struct pb_yaml *value;
};

struct pb_yaml {
	enum pb_yaml_type type;
	unsigned line;
	char *text; /* of a scalar, as written */
	struct pb_yaml_item *items;
	size_t n;
};

/* An empty text is a PB_YAML_NULL. Errors read "NAME:LINE: KEY: reason; remedy". */
int pb_yaml_parse(const char *name, const char *text, size_t len, struct pb_yaml **ret_root,
		  struct pb_err *err);
struct pb_yaml *pb_yaml_free(struct pb_yaml *node); /* returns NULL */
void pb_cleanup_yaml(struct pb_yaml **node);
#define PB_YAML_FREE __attribute__((cleanup(pb_cleanup_yaml)))

/* "a string", "a whole number", ... */
const char *pb_yaml_type_name(enum pb_yaml_type type);
/* -ERANGE when it doesn't fit. */
int pb_yaml_uint(const struct pb_yaml *node, uint64_t *ret_value);
/*
 * Appends the node as JSON, leaving out the keys of `skip` (NULL terminated, or NULL) on the top
 * level. `path` names the node in messages.
 */
int pb_yaml_json(const struct pb_yaml *node, const char *const *skip, const char *name,
		 const char *path, struct pb_buf *out, struct pb_err *err);

/* The error of one place in a file: "NAME:LINE: KEY: text", control bytes replaced. -EINVAL. */
int pb_yaml_fail(struct pb_err *err, const char *name, unsigned line, const char *key,
		 const char *fmt, ...) PB_PRINTF(5, 6);

#endif
