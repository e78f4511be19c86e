/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML documents -> JSON text, with scalars resolved as Kubernetes' own tools do (YAML 1.1: yes
 * and on are booleans, 0777 is octal, what is quoted is a string).
 *
 * Owns the conversion. Bounded: nesting by PB_SCAN_DEPTH, aliases by PB_YAML_ALIAS_MAX bytes a
 * document. A key given twice is refused; a merge key (<<) gives way to the mapping's own keys.
 */
#ifndef PB_KUBE_YAML_H
#define PB_KUBE_YAML_H

#include <base/base.h>

/* The most text that all aliases of one document may expand to. */
#define PB_YAML_ALIAS_MAX (8U << 20)

/* `line` is where the document starts. A negative result ends the reading. */
typedef int (*pb_yaml_fn)(void *arg, const char *json, size_t len, unsigned line,
			  struct pb_err *err);

/* Calls fn for every document. Errors name the line; documents before it were delivered. */
int pb_yaml_documents(FILE *in, pb_yaml_fn fn, void *arg, struct pb_err *err);

/*
 * Appends what a plain scalar means, as JSON. -EINVAL: a value that JSON can't hold (.inf).
 * `as_key`: in quotes, whatever it is.
 */
int pb_yaml_plain(struct pb_buf *out, const char *text, size_t len, bool as_key);
int pb_yaml_string(struct pb_buf *out, const char *text, size_t len);

#endif
