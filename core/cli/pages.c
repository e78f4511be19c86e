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
