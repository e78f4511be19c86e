/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the text format of Prometheus, version 0.0.4.
 *
 * Owns its grammar: every value stands behind the HELP and TYPE of its family, label values and
 * help texts are escaped. The caller keeps all values of a family together.
 */
#ifndef PB_PROM_H
#define PB_PROM_H

#include <base/base.h>

#define PB_PROM_COUNTER "counter"
#define PB_PROM_GAUGE "gauge"

struct pb_prom_label {
	const char *name;
	const char *value;
};

/* Opens a family. Names are literals: letters, digits and underscores. */
int pb_prom_family(struct pb_buf *out, const char *name, const char *type, const char *help);
/* One value of the family, with `n` labels. */
int pb_prom_value(struct pb_buf *out, const char *name, const struct pb_prom_label *labels,
		  size_t n, double value);
/* A family with one value that has no labels. */
int pb_prom_single(struct pb_buf *out, const char *name, const char *type, const char *help,
		   double value);

#endif
