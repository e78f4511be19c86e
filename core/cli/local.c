/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands that need no agent, and those on plugins, during which the agent may restart.
 */
#include <cli/cli.h>

#include <cli/plugin_new.h>
#include <plugin/manager.h>

#include <time.h>

#define READY_NS 10000000000ULL
#define READY_PAUSE_NS 50000000L

int cli_version(struct cli *cli, const char *const *args, size_t n_args)
{
	static const char *const words[] = {"status"};
	PB_JSON_FREE cJSON *status = NULL;
	PB_JSON_FREE cJSON *answer = cJSON_CreateObject();
	struct pb_err err;

	(void)args;
	(void)n_args;
	cJSON_AddStringToObject(answer, "patchbay", PACKAGE_VERSION);
	if (cli_ask(cli, words, 1, &status, &err) == 0)
		cJSON_AddStringToObject(answer, "patchbayd", pb_json_str(status, "version", "?"));
	else
		cJSON_AddNullToObject(answer, "patchbayd");
	return cli_print(cli, answer);
}

static cJSON *whole_table(const struct cli *cli)
{
	static const char *const words[] = {"help"};
	PB_JSON_FREE cJSON *agent = NULL;
	struct pb_err err;

	/* Without an agent the static part is what there is. */
	(void)cli_ask(cli, words, 1, &agent, &err);
	return cli_command_table(agent);
}

int cli_help(struct cli *cli, const char *const *args, size_t n_args)
{
	PB_JSON_FREE cJSON *table = whole_table(cli);

	(void)args;
	(void)n_args;
	return table ? cli_print(cli, table) : cli_fail(CLI_FAILED, "out of memory");
}

int cli_completion(struct cli *cli, const char *const *args, size_t n_args)
{
	PB_JSON_FREE cJSON *table = whole_table(cli);
	PB_FREE char *script = cli_completion_script(args[0], table);

	(void)n_args;
	if (!script)
		return cli_fail(CLI_USAGE, "unknown shell \"%s\"; known are bash, zsh, fish",
				args[0]);
	return fputs(script, stdout) < 0 ? CLI_FAILED : CLI_OK;
}

int cli_plugin_inspect(struct cli *cli, const char *const *args, size_t n_args)
{
	PB_JSON_FREE cJSON *json = NULL;
	struct pb_manifest manifest;
	struct pb_err err = {0};

	(void)n_args;
	if (pb_manifest_read(args[0], &manifest, &err) < 0)
		return cli_fail(CLI_FAILED, "%s", err.text);
	json = pb_manifest_json(&manifest, args[0]);
	return json ? cli_print(cli, json) : cli_fail(CLI_FAILED, "out of memory");
}

int cli_plugin_new(struct cli *cli, const char *const *args, size_t n_args)
{
	char **argv = calloc(n_args + 1, sizeof(*argv));
	int rc;

	(void)cli;
	if (!argv)
		return cli_fail(CLI_FAILED, "out of memory");
	for (size_t i = 0; i < n_args; i++)
		argv[i] = (char *)args[i];
	rc = pb_cli_plugin_new((int)n_args, argv);
	free(argv);
	return rc;
}

/* The row of `plugin list` about a plugin, or NULL. */
static const cJSON *row_of(const cJSON *list, const char *plugin)
{
	const cJSON *item;

	cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(list, "items")) {
		if (strcmp(pb_json_str(item, "name", ""), plugin) == 0)
			return item;
	}
	return NULL;
}

int cli_wait_until_ready(const struct cli *cli, struct pb_err *err)
{
	static const char *const words[] = {"status"};
	const struct timespec pause = {.tv_nsec = READY_PAUSE_NS};
	uint64_t deadline = pb_now_ns() + READY_NS;

	for (;;) {
		PB_JSON_FREE cJSON *status = NULL;
		int rc = cli_ask_again(cli, words, 1, &status, err);

		/* What is known about the plugin is told even when the rest takes longer. */
		if (rc < 0 || strcmp(pb_json_str(status, "state", ""), "ready") == 0 ||
		    pb_now_ns() > deadline)
			return rc;
		nanosleep(&pause, NULL);
	}
}

/*
 * The plugin crashed or hung the agent, which has replaced itself and loaded what was good
 * before. What became of the operation is in the plugin's row.
 */
static int report_restart(struct cli *cli, const char *plugin)
{
	static const char *const words[] = {"plugin", "list"};
	PB_JSON_FREE cJSON *list = NULL;
	PB_BUF_FREE struct pb_buf text = {0};
	struct pb_err err = {0};
	const cJSON *row;
	const char *last;
	int rc = cli_wait_until_ready(cli, &err);

	if (rc == 0)
		rc = cli_ask(cli, words, 2, &list, &err);
	if (rc < 0)
		return cli_report(cli, rc, &err);
	row = row_of(list, plugin);
	last = pb_json_str(row, "error", "");
	if (cli->json) {
		cli_print(cli, row ? row : list);
	} else if (row) {
		cli_render(row, false, &text);
		fputs(text.data ? text.data : "", stdout);
	}
	return cli_fail(CLI_FAILED,
			"the agent restarted during the operation; plugin \"%s\" is %s: %s", plugin,
			row ? pb_json_str(row, "state", "in an unknown state") : "not loaded",
			*last ? last
			: row ? "the agent's log says why"
			      : "it isn't in the configuration, so it wasn't loaded again");
}

int cli_plugin_change(struct cli *cli, const char *const *args, size_t n_args)
{
	PB_JSON_FREE cJSON *result = NULL;
	PB_FREE char *file = NULL;
	struct pb_err err = {0};
	int rc;

	/* The agent has another working directory. */
	if (n_args > 1) {
		file = realpath(args[1], NULL);
		if (!file)
			return cli_fail(CLI_FAILED, "%s: %s", args[1], strerror(errno));
		cli->words[cli->n_words - 1] = file;
	}
	rc = cli_ask(cli, cli->words, cli->n_words, &result, &err);
	if (rc == -EPIPE)
		return report_restart(cli, args[0]);
	return rc < 0 ? cli_report(cli, rc, &err) : cli_print(cli, result);
}
