/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any JSON as the agent's answer: no byte of what is shown is one that a terminal obeys, what is
 * shown as JSON is JSON, and no word gets into a completion script that a shell would act on.
 */
#include <cli/cli.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_shown(const struct pb_buf *out, const char *allowed)
{
	for (size_t i = 0; i < out->len; i++) {
		unsigned char c = (unsigned char)out->data[i];

		if ((c < 0x20 && (c == '\0' || !strchr(allowed, c))) || c == 0x7f)
			abort();
	}
}

static void check_json(const struct pb_buf *out)
{
	PB_JSON_FREE cJSON *again = cJSON_ParseWithLength(out->data, out->len);

	if (!again)
		abort();
	check_shown(out, "\n\t");
}

static size_t count(const char *text, char wanted)
{
	size_t n = 0;

	for (; text && *text; text++)
		n += *text == wanted;
	return n;
}

/* The script's own special characters, and no more. */
static void check_script(const char *shell, const cJSON *table)
{
	PB_JSON_FREE cJSON *none = cJSON_CreateObject();
	PB_FREE char *script = cli_completion_script(shell, table);
	PB_FREE char *plain = cli_completion_script(shell, none);

	for (const char *special = "`\\&<>|!#~{}*?"; *special; special++)
		if (count(script, *special) != count(plain, *special))
			abort();
	if (count(script, '\'') % 2)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	PB_JSON_FREE cJSON *json = cJSON_ParseWithLength((const char *)data, size);
	PB_BUF_FREE struct pb_buf table = {0};
	PB_BUF_FREE struct pb_buf text = {0};

	if (!json)
		return 0;
	if (cli_render(json, false, &table) < 0 || cli_render(json, true, &text) < 0)
		abort();
	check_shown(&table, "\n");
	check_json(&text);
	check_script("bash", json);
	check_script("fish", json);
	return 0;
}
