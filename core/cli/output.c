/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers as tables, indented lines or JSON. Whatever came from outside is escaped: a terminal
 * must obey no byte of it.
 */
#include <cli/cli.h>

#include <math.h>

#define COLUMN_GAP 2
#define COLUMNS_MAX CLI_COLUMNS_MAX /* what has more is shown line by line */
#define CELL_MAX 200		    /* in columns; longer values are for -o json */

struct range {
	uint32_t first, last;
};

static bool in_ranges(uint32_t c, const struct range *ranges, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (c >= ranges[i].first && c <= ranges[i].last)
			return true;
	}
	return false;
}

/* Columns that a terminal uses: East Asian wide characters and emoji take two, marks none. */
static size_t char_width(uint32_t c)
{
	static const struct range wide[] = {
		{0x1100, 0x115f},   {0x2e80, 0xa4cf},	{0xac00, 0xd7a3}, {0xf900, 0xfaff},
		{0xfe30, 0xfe6f},   {0xff00, 0xff60},	{0xffe0, 0xffe6}, {0x1f300, 0x1f64f},
		{0x1f900, 0x1f9ff}, {0x20000, 0x3fffd},
	};
	static const struct range none[] = {{0x0300, 0x036f},
					    {0x200b, 0x200d},
					    {0x20d0, 0x20ff},
					    {0xfe00, 0xfe0f}};

	if (in_ranges(c, none, PB_ARRAY_LEN(none)))
		return 0;
	return in_ranges(c, wide, PB_ARRAY_LEN(wide)) ? 2 : 1;
}

/* Controls, and the marks that reorder a line or break it. */
static bool is_unsafe(uint32_t c)
{
	static const struct range unsafe[] = {
		{0, 0x1f}, {0x7f, 0x9f}, {0x200e, 0x200f}, {0x2028, 0x202e}, {0x2066, 0x2069}};

	return in_ranges(c, unsafe, PB_ARRAY_LEN(unsafe));
}

/* Bytes of the UTF-8 character at `s`, 0 when it is none. */
static size_t decode(const unsigned char *s, uint32_t *ret_c)
{
	size_t n = s[0] < 0x80	 ? 1
		   : s[0] < 0xc2 ? 0
		   : s[0] < 0xe0 ? 2
		   : s[0] < 0xf0 ? 3
		   : s[0] < 0xf5 ? 4
				 : 0;
	uint32_t c = n == 1 ? s[0] : n ? s[0] & (0x7fU >> n) : 0;

	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if ((n == 3 && (c < 0x800 || (c >= 0xd800 && c <= 0xdfff))) ||
	    (n == 4 && (c < 0x10000 || c > 0x10ffff)))
		return 0;
	*ret_c = c;
	return n;
}

size_t cli_escape(struct pb_buf *out, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t width = 0;

	while (*s) {
		uint32_t c = 0;
		size_t n = decode(s, &c);

		if (n == 0 || (is_unsafe(c) && n == 1)) {
			pb_buf_printf(out, "\\x%02x", *s);
			width += 4;
		} else if (is_unsafe(c)) {
			pb_buf_printf(out, "\\u%04x", c);
			width += 6;
		} else {
			pb_buf_append(out, s, n);
			width += char_width(c);
		}
		s += n ? n : 1;
	}
	return width;
}

/* JSON text stays JSON: what a terminal would obey is only found inside its strings. */
static int escape_json(struct pb_buf *out, const char *json)
{
	const unsigned char *s = (const unsigned char *)json;
	int rc = 0;

	while (*s && rc == 0) {
		uint32_t c = 0xfffd;
		size_t n = decode(s, &c);

		if (n && (*s == '\n' || *s == '\t' || !is_unsafe(c)))
			rc = pb_buf_append(out, s, n);
		else
			rc = pb_buf_printf(out, "\\u%04x", c);
		s += n ? n : 1;
	}
	return rc < 0 ? rc : pb_buf_append(out, "\n", 1);
}

static void number_text(const cJSON *value, char *text, size_t size)
{
	double d = value->valuedouble;

	snprintf(text, size, d == floor(d) && fabs(d) < 1e15 ? "%.0f" : "%.15g", d);
}

static bool is_scalar(const cJSON *value)
{
	return !cJSON_IsObject(value) && !cJSON_IsArray(value);
}

/* A value in one line. Returns its width. */
static size_t value_text(struct pb_buf *out, const cJSON *value)
{
	PB_FREE char *json = NULL;
	const cJSON *item;
	char number[40];
	size_t width = 0;

	if (!value || cJSON_IsNull(value))
		return cli_escape(out, "-");
	if (cJSON_IsString(value))
		return cli_escape(out, *value->valuestring ? value->valuestring : "-");
	if (cJSON_IsBool(value))
		return cli_escape(out, cJSON_IsTrue(value) ? "yes" : "no");
	if (cJSON_IsNumber(value)) {
		number_text(value, number, sizeof(number));
		return cli_escape(out, number);
	}
	if (cJSON_IsObject(value)) {
		json = cJSON_PrintUnformatted(value);
		return cli_escape(out, json ? json : "");
	}
	cJSON_ArrayForEach (item, value) {
		if (width)
			width += cli_escape(out, ", ");
		width += value_text(out, item);
	}
	return width ? width : cli_escape(out, "-");
}

/* ---- tables ---- */

struct cell {
	char *text;
	size_t width;
};

struct table {
	struct cell *cells; /* row by row, the titles first */
	size_t *widths;
	size_t rows, columns;
};

static void table_free(struct table *t)
{
	for (size_t i = 0; t->cells && i < t->rows * t->columns; i++)
		free(t->cells[i].text);
	free(t->cells);
	free(t->widths);
}

static void table_put(struct table *t, size_t row, size_t column, const cJSON *value)
{
	struct cell *cell = &t->cells[row * t->columns + column];
	struct pb_buf text = {0};

	cell->width = value_text(&text, value);
	cell->text = text.data;
	if (cell->width > t->widths[column])
		t->widths[column] = cell->width < CELL_MAX ? cell->width : CELL_MAX;
}

static void table_print(const struct table *t, size_t first, unsigned indent, struct pb_buf *out)
{
	for (size_t r = first; r < t->rows; r++) {
		pb_buf_printf(out, "%*s", (int)indent, "");
		for (size_t c = 0; c < t->columns; c++) {
			const struct cell *cell = &t->cells[r * t->columns + c];
			size_t width = t->widths[c] + COLUMN_GAP;

			pb_buf_printf(out, "%s", cell->text ? cell->text : "");
			if (c + 1 < t->columns)
				pb_buf_printf(out, "%*s",
					      cell->width < width ? (int)(width - cell->width) : 1,
					      "");
		}
		pb_buf_append(out, "\n", 1);
	}
}

/* `page` NULL: the whole list. */
static int render_table(const cJSON *columns, const cJSON *items, unsigned indent,
			struct cli_page *page, struct pb_buf *out)
{
	struct table t = {.rows = (size_t)cJSON_GetArraySize(items) + 1,
			  .columns = (size_t)cJSON_GetArraySize(columns)};
	const cJSON *column, *item;
	size_t c = 0;

	t.cells = calloc(t.rows * t.columns + 1, sizeof(*t.cells));
	t.widths = calloc(t.columns + 1, sizeof(*t.widths));
	if (!t.cells || !t.widths) {
		table_free(&t);
		return -ENOMEM;
	}
	if (page)
		memcpy(t.widths, page->widths, t.columns * sizeof(*t.widths));
	cJSON_ArrayForEach (column, columns) {
		const char *field = pb_json_str(column, "field", "");
		size_t r = 1;

		table_put(&t, 0, c, cJSON_GetObjectItemCaseSensitive(column, "title"));
		cJSON_ArrayForEach (item, items)
			table_put(&t, r++, c, cJSON_GetObjectItemCaseSensitive(item, field));
		c++;
	}
	table_print(&t, page && page->begun, indent, out);
	if (page) {
		memcpy(page->widths, t.widths, t.columns * sizeof(*t.widths));
		page->begun = true;
	}
	table_free(&t);
	return 0;
}

static bool is_table(const cJSON *value)
{
	const cJSON *columns = cJSON_GetObjectItemCaseSensitive(value, "columns");

	return cJSON_IsArray(columns) && cJSON_GetArraySize(columns) <= COLUMNS_MAX &&
	       cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(value, "items"));
}

/* ---- objects ---- */

static int render_value(const cJSON *value, unsigned indent, struct pb_buf *out);

static bool is_short_list(const cJSON *value)
{
	const cJSON *item;

	if (!cJSON_IsArray(value))
		return false;
	cJSON_ArrayForEach (item, value) {
		if (!is_scalar(item))
			return false;
	}
	return true;
}

static bool is_empty(const cJSON *value)
{
	return !value || cJSON_IsNull(value) || (cJSON_IsString(value) && !value->valuestring[0]) ||
	       (cJSON_IsArray(value) && !value->child);
}

/* What no row has would only push the other columns apart. */
static bool is_empty_column(const cJSON *list, const char *field)
{
	const cJSON *item;

	cJSON_ArrayForEach (item, list) {
		if (!is_empty(cJSON_GetObjectItemCaseSensitive(item, field)))
			return false;
	}
	return true;
}

static void column_add(cJSON *columns, const char *field)
{
	cJSON *column = cJSON_CreateObject();

	cJSON_AddStringToObject(column, "title", field);
	cJSON_AddStringToObject(column, "field", field);
	cJSON_AddItemToArray(columns, column);
}

/* Objects that all have the scalars of the first one are clearer as a table. */
static cJSON *columns_of(const cJSON *list)
{
	const cJSON *first = cJSON_GetArrayItem(list, 0), *item, *field;
	cJSON *columns;

	cJSON_ArrayForEach (item, list) {
		if (!cJSON_IsObject(item))
			return NULL;
		cJSON_ArrayForEach (field, item) {
			if (!is_scalar(field) && !is_short_list(field))
				return NULL;
		}
	}
	if (cJSON_GetArraySize(first) > COLUMNS_MAX)
		return NULL;
	columns = cJSON_CreateArray();
	cJSON_ArrayForEach (field, first) {
		if (!is_empty_column(list, field->string))
			column_add(columns, field->string);
	}
	return columns;
}

static int render_list(const cJSON *list, unsigned indent, struct pb_buf *out)
{
	PB_JSON_FREE cJSON *columns = columns_of(list);
	const cJSON *item;
	int rc = 0;

	if (columns)
		return render_table(columns, list, indent, NULL, out);
	cJSON_ArrayForEach (item, list) {
		if (rc < 0)
			break;
		if (is_scalar(item) || is_short_list(item)) {
			pb_buf_printf(out, "%*s", (int)indent, "");
			value_text(out, item);
			rc = pb_buf_append(out, "\n", 1);
		} else {
			pb_buf_printf(out, "%*s-\n", (int)indent, "");
			rc = render_value(item, indent + 2, out);
		}
	}
	return rc;
}

static int render_object(const cJSON *object, unsigned indent, struct pb_buf *out)
{
	const cJSON *item;
	size_t widest = 0;
	int rc = 0;

	cJSON_ArrayForEach (item, object) {
		size_t len = strlen(item->string);

		if ((is_scalar(item) || is_short_list(item)) && len > widest)
			widest = len;
	}
	cJSON_ArrayForEach (item, object) {
		bool one_line = is_scalar(item) || is_short_list(item);
		size_t width;

		if (rc < 0)
			break;
		pb_buf_printf(out, "%*s", (int)indent, "");
		width = cli_escape(out, item->string);
		if (one_line) {
			pb_buf_printf(out, "%*s", (int)(widest > width ? widest - width : 0) + 2,
				      "");
			value_text(out, item);
		}
		rc = pb_buf_append(out, "\n", 1);
		if (rc == 0 && !one_line)
			rc = render_value(item, indent + 2, out);
	}
	return rc;
}

static int render_value(const cJSON *value, unsigned indent, struct pb_buf *out)
{
	if (is_table(value))
		return render_table(cJSON_GetObjectItemCaseSensitive(value, "columns"),
				    cJSON_GetObjectItemCaseSensitive(value, "items"), indent, NULL,
				    out);
	if (cJSON_IsObject(value))
		return render_object(value, indent, out);
	if (cJSON_IsArray(value))
		return render_list(value, indent, out);
	pb_buf_printf(out, "%*s", (int)indent, "");
	value_text(out, value);
	return pb_buf_append(out, "\n", 1);
}

int cli_render(const cJSON *result, bool json, struct pb_buf *out)
{
	PB_FREE char *text = NULL;

	if (!json)
		return render_value(result, 0, out);
	if (is_table(result))
		result = cJSON_GetObjectItemCaseSensitive(result, "items");
	text = cJSON_Print(result);
	return text ? escape_json(out, text) : -ENOMEM;
}

int cli_render_page(struct cli_page *page, const cJSON *result, struct pb_buf *out)
{
	if (!is_table(result))
		return -EPROTO;
	return render_table(cJSON_GetObjectItemCaseSensitive(result, "columns"),
			    cJSON_GetObjectItemCaseSensitive(result, "items"), 0, page, out);
}

static int put(const struct pb_buf *out)
{
	if (fwrite(out->data, 1, out->len, stdout) != out->len || fflush(stdout) != 0)
		return cli_fail(CLI_FAILED, "standard output: %s", strerror(errno));
	return CLI_OK;
}

int cli_print_page(struct cli_page *page, const cJSON *result)
{
	PB_BUF_FREE struct pb_buf out = {0};
	int rc = cli_render_page(page, result, &out);

	if (rc < 0)
		return cli_fail(CLI_FAILED, "%s",
				rc == -EPROTO ? "the agent's answer is no list" : "out of memory");
	return out.len ? put(&out) : CLI_OK;
}

int cli_print(const struct cli *cli, const cJSON *result)
{
	PB_BUF_FREE struct pb_buf out = {0};

	if (cJSON_IsObject(result) && !result->child)
		return cli->json ? (puts("{}") < 0 ? CLI_FAILED : CLI_OK) : CLI_OK;
	if (cli_render(result, cli->json, &out) < 0)
		return cli_fail(CLI_FAILED, "out of memory");
	return put(&out);
}

int cli_fail(int code, const char *fmt, ...)
{
	PB_BUF_FREE struct pb_buf out = {0};
	PB_FREE char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	cli_escape(&out, text ? text : "out of memory");
	fprintf(stderr, "patchbay: %s\n", out.data ? out.data : "out of memory");
	return code;
}
