/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists that the agent gives a page at a time, because the whole would keep it from its work: asked
 * for until there is no more, shown as one. What changes meanwhile may be shown as it was or as it
 * became. Several words of a filter are one text.
 */
#include <cli/cli.h>

/* Moves the rows of a page behind those that are there. */
static int take_page(cJSON **table, cJSON **page)
{
	cJSON *from = cJSON_GetObjectItemCaseSensitive(*page, "items");
	cJSON *to = cJSON_GetObjectItemCaseSensitive(*table, "items");

	if (!cJSON_IsArray(from) || (*table && !cJSON_IsArray(to)))
		return -EPROTO;
	if (!*table) {
		*table = PB_TAKE_PTR(*page);
		return 0;
	}
	while (from->child)
		cJSON_AddItemToArray(to, cJSON_DetachItemViaPointer(from, from->child));
	return 0;
}

/* The same, and what the page says comes next. */
static int next_page(cJSON **table, cJSON **page, struct pb_err *err)
{
	cJSON *next = cJSON_DetachItemFromObjectCaseSensitive(*page, "next");

	cJSON_DeleteItemFromObjectCaseSensitive(*table, "next");
	if (next)
		cJSON_AddItemToObject(*table, "next", next);
	return take_page(table, page) < 0
		       ? pb_err_set(err, -EPROTO, "the agent's answer is no list")
		       : 0;
}

static int ask_page(struct cli *cli, const char *filter, const char *after, cJSON **table,
		    char **ret_next, struct pb_err *err)
{
	const char *words[] = {cli->words[0], cli->words[1], filter, after};
	PB_JSON_FREE cJSON *page = NULL;
	const char *next;
	int rc = cli_ask(cli, words, PB_ARRAY_LEN(words), &page, err);

	if (rc < 0)
		return rc;
	next = pb_json_str(page, "next", "");
	/* The same place again would never end. */
	if (*next && strcmp(next, after) == 0)
		return pb_err_set(err, -EPROTO, "the agent gives the same page again");
	*ret_next = strdup(next);
	if (!*ret_next)
		return pb_err_set(err, -ENOMEM, "out of memory");
	rc = take_page(table, &page);
	return rc < 0 ? pb_err_set(err, rc, "the agent's answer is no list") : 0;
}

/* A plugin's list says with "next" that there is more, and is asked with one more word. */
int cli_ask_all(struct cli *cli, cJSON **ret_result, struct pb_err *err)
{
	PB_FREE const char **words = calloc(cli->n_words + 1, sizeof(*words));
	PB_JSON_FREE cJSON *table = NULL;
	PB_FREE char *after = NULL;
	int rc = words ? cli_ask(cli, cli->words, cli->n_words, &table, err)
		       : pb_err_set(err, -ENOMEM, "out of memory");

	while (rc == 0 && *pb_json_str(table, "next", "")) {
		PB_JSON_FREE cJSON *page = NULL;

		free(after);
		after = NULL;
		if (asprintf(&after, "--after=%s", pb_json_str(table, "next", "")) < 0) {
			after = NULL;
			return pb_err_set(err, -ENOMEM, "out of memory");
		}
		memcpy(words, cli->words, cli->n_words * sizeof(*words));
		words[cli->n_words] = after;
		rc = cli_ask(cli, words, cli->n_words + 1, &page, err);
		if (rc == 0 && strcmp(pb_json_str(page, "next", ""), after + 8) == 0)
			return pb_err_set(err, -EPROTO, "the agent gives the same page again");
		if (rc == 0)
			rc = next_page(&table, &page, err);
	}
	if (rc == 0)
		*ret_result = PB_TAKE_PTR(table);
	return rc;
}

static char *join(const char *const *words, size_t n)
{
	PB_BUF_FREE struct pb_buf text = {0};
	int rc = pb_buf_append(&text, "", 0);

	for (size_t i = 0; i < n && rc == 0; i++)
		rc = pb_buf_printf(&text, "%s%s", i ? " " : "", words[i]);
	return rc == 0 ? PB_TAKE_PTR(text.data) : NULL;
}

int cli_pages(struct cli *cli, const char *const *args, size_t n_args)
{
	PB_JSON_FREE cJSON *table = NULL;
	PB_FREE char *filter = join(args, n_args);
	PB_FREE char *after = strdup("");
	struct pb_err err = {0};
	int rc = filter && after ? 0 : pb_err_set(&err, -ENOMEM, "out of memory");

	do {
		PB_FREE char *next = NULL;

		if (rc == 0)
			rc = ask_page(cli, filter, after, &table, &next, &err);
		free(after);
		after = PB_TAKE_PTR(next);
	} while (rc == 0 && *after);
	if (rc < 0)
		return cli_report(cli, rc, &err);
	cJSON_DeleteItemFromObjectCaseSensitive(table, "next");
	return cli_print(cli, table);
}
