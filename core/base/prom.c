/* SPDX-License-Identifier: Apache-2.0 */
/* Families and values of the Prometheus text format, and what has to be escaped in them. */
#include <base/prom.h>

#define EXACT_MAX 9007199254740992.0 /* 2^53 */

static int put_escaped(struct pb_buf *out, const char *text, bool quotes)
{
	const char *special = quotes ? "\n\\\"" : "\n\\";
	int rc = 0;

	while (*text && rc == 0) {
		size_t plain = strcspn(text, special);

		rc = pb_buf_append(out, text, plain);
		text += plain;
		if (!*text || rc < 0)
			break;
		rc = *text == '\n' ? pb_buf_append(out, "\\n", 2)
				   : pb_buf_printf(out, "\\%c", *text);
		text++;
	}
	return rc;
}

int pb_prom_family(struct pb_buf *out, const char *name, const char *type, const char *help)
{
	int rc = pb_buf_printf(out, "# HELP %s ", name);

	if (rc == 0)
		rc = put_escaped(out, help, false);
	return rc < 0 ? rc : pb_buf_printf(out, "\n# TYPE %s %s\n", name, type);
}

int pb_prom_value(struct pb_buf *out, const char *name, const struct pb_prom_label *labels,
		  size_t n, double value)
{
	int rc = pb_buf_printf(out, "%s", name);

	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = pb_buf_printf(out, "%s%s=\"", i ? "," : "{", labels[i].name);
		if (rc == 0)
			rc = put_escaped(out, labels[i].value, true);
		if (rc == 0)
			rc = pb_buf_printf(out, "\"");
	}
	/* Whole numbers with every digit, others (times since the epoch) to a microsecond. */
	return rc < 0 ? rc
		      : pb_buf_printf(out, "%s %.*g\n", n ? "}" : "",
				      value > -EXACT_MAX && value < EXACT_MAX &&
						      value == (double)(int64_t)value
					      ? 16
					      : 15,
				      value);
}

int pb_prom_single(struct pb_buf *out, const char *name, const char *type, const char *help,
		   double value)
{
	int rc = pb_prom_family(out, name, type, help);

	return rc < 0 ? rc : pb_prom_value(out, name, NULL, 0, value);
}
