/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists that the agent gives a page at a time, because the whole would keep it from its work: asked
 * for until there is no more, shown as one. What changes meanwhile may be shown as it was or as it
 * became. A table is printed page by page, so that one of a million rows needs the memory of a
 * page; JSON is one value, and gathered. Several words of a filter are one text.
 */
#include <cli/cli.h>

/* How a list is asked on. */
struct list {
	struct cli *cli;
	const char **words; /* of the question, with room for one more */
	size_t n_words;
	const char *prefix; /* of the word that says where to go on */
	struct cli_page page;
	cJSON *all; /* for JSON */
};

/* Moves the rows of a page behind those that are there. */
static int gather(cJSON **table, cJSON **page)
{
	cJSON *from = cJSON_GetObjectItemCaseSensitive(*page, "items");
	cJSON *to = cJSON_GetObjectItemCaseSensitive(*table, "items");

	if (!cJSON_IsArray(from) || (*table && !cJSON_IsArray(to)))
		return cli_fail(CLI_FAILED, "the agent's answer is no list");
	if (!*table) {
		*table = PB_TAKE_PTR(*page);
		return CLI_OK;
	}
	while (from->child)
		cJSON_AddItemToArray(to, cJSON_DetachItemViaPointer(from, from->child));
	return CLI_OK;
}

static int take_page(struct list *list, cJSON **page)
{
	return list->cli->json ? gather(&list->all, page) : cli_print_page(&list->page, *page);
}

/* The page at `next`. */
static int ask_next(struct list *list, const cJSON *next, cJSON **ret_page)
{
	PB_FREE char *after = pb_sprintf("%s%s", list->prefix, next->valuestring);
	struct pb_err err = {0};
	int rc = -ENOMEM;

	if (!after)
		return cli_fail(CLI_FAILED, "out of memory");
	list->words[list->n_words] = after;
	rc = cli_ask(list->cli, list->words, list->n_words + 1, ret_page, &err);
	if (rc < 0)
		return cli_report(list->cli, rc, &err);
	/* The same place again would never end. */
	if (strcmp(pb_json_str(*ret_page, "next", ""), next->valuestring) == 0)
		return cli_fail(CLI_FAILED, "the agent gives the same page again");
	return CLI_OK;
}

static int print_pages(struct list *list, cJSON **page)
{
	int rc = CLI_OK;

	for (bool more = true; more && rc == CLI_OK;) {
		PB_JSON_FREE cJSON *next = cJSON_DetachItemFromObjectCaseSensitive(*page, "next");

		more = cJSON_IsString(next) && *next->valuestring;
		rc = take_page(list, page);
		cJSON_Delete(*page);
		*page = NULL;
		if (rc == CLI_OK && more)
			rc = ask_next(list, next, page);
	}
	if (rc == CLI_OK && list->all)
		rc = cli_print(list->cli, list->all);
	cJSON_Delete(list->all);
	return rc;
}

/* A plugin's list says with "next" that there is more, and is asked with one more word. */
int cli_print_all(struct cli *cli, cJSON **result)
{
	PB_FREE const char **words = calloc(cli->n_words + 1, sizeof(*words));
	struct list list = {.cli = cli,
			    .words = words,
			    .n_words = cli->n_words,
			    .prefix = "--after="};

	if (!*pb_json_str(*result, "next", ""))
		return cli_print(cli, *result);
	if (!words)
		return cli_fail(CLI_FAILED, "out of memory");
	memcpy(words, cli->words, cli->n_words * sizeof(*words));
	return print_pages(&list, result);
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
	PB_FREE char *filter = join(args, n_args);
	PB_JSON_FREE cJSON *page = NULL;
	const char *words[4] = {cli->words[0], cli->words[1], filter};
	struct list list = {.cli = cli, .words = words, .n_words = 3, .prefix = ""};
	struct pb_err err = {0};
	int rc;

	if (!filter)
		return cli_fail(CLI_FAILED, "out of memory");
	rc = cli_ask(cli, words, list.n_words, &page, &err);
	return rc < 0 ? cli_report(cli, rc, &err) : print_pages(&list, &page);
}
