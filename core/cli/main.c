/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the command line to one command. Exit codes: 0 done, 1 the agent or the command failed,
 * 2 words or options make no sense, 3 no agent answers.
 */
#include <cli/cli.h>

#include <getopt.h>
#include <signal.h>

#include <config/config.h>

#define TIMEOUT_MS 60000
#define CLI_COMMANDS_MAX 64
#define CONFIG_FILE PB_SYSCONF_DIR "/patchbay/patchbay.yaml"

static const char usage_text[] =
	"Usage: patchbay [OPTION]... COMMAND [ARGUMENT]...\n"
	"Shows and changes what the Patchbay agent of this machine does.\n"
	"\n"
	"Options, before or after the command:\n"
	"  -o, --output FORMAT    table (default) or json\n"
	"  -s, --socket PATH      control socket of the agent\n"
	"  -c, --config FILE      take the socket from this configuration\n"
	"  -t, --timeout SECONDS  how long to wait for an answer (default 60)\n"
	"  -h, --help             show this help\n"
	"  -V, --version          like the command \"version\"\n"
	"  -v, --verbose          more, for commands that have more to say: status\n"
	"      --type TYPE        only those of a type, for lists that have types\n"
	"\n"
	"Without --socket and --config, the environment variable PATCHBAY_SOCKET and then\n"
	"the installed configuration name the socket.\n"
	"\n"
	"Commands:\n";

static const char usage_end[] =
	"\nPlugins add commands of their own; \"patchbay help\" asks the agent for them.\n"
	"Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the agent is not running.\n";

static void print_usage(FILE *out)
{
	fputs(usage_text, out);
	for (const struct cli_command *c = cli_commands; c->name; c++)
		fprintf(out, "  %-15s %-16s %s\n", c->name, c->usage, c->help);
	fputs(usage_end, out);
}

static int socket_of_config(struct cli *cli, const char *file)
{
	struct pb_config *config = NULL;
	struct pb_err err = {0};
	int rc = pb_config_load(file, &config, &err);

	if (rc < 0)
		return cli_fail(CLI_USAGE, "%s", err.text);
	free(cli->socket);
	cli->socket = strdup(config->control.socket);
	pb_config_free(config);
	return cli->socket ? CLI_OK : cli_fail(CLI_FAILED, "out of memory");
}

static int default_socket(struct cli *cli)
{
	const char *env = getenv("PATCHBAY_SOCKET");

	if (env && *env) {
		cli->socket = strdup(env);
	} else if (access(CONFIG_FILE, R_OK) == 0) {
		return socket_of_config(cli, CONFIG_FILE);
	} else {
		struct pb_config *config = NULL;

		if (pb_config_parse(CONFIG_FILE, "", 0, &config, NULL) == 0)
			cli->socket = strdup(config->control.socket);
		pb_config_free(config);
	}
	return cli->socket ? CLI_OK : cli_fail(CLI_FAILED, "out of memory");
}

static int set_option(struct cli *cli, int option, const char *value)
{
	char *end;
	double seconds;

	switch (option) {
	case 'o':
		if (strcmp(value, "json") != 0 && strcmp(value, "table") != 0)
			return cli_fail(CLI_USAGE, "unknown output \"%s\"; known are table, json",
					value);
		cli->json = strcmp(value, "json") == 0;
		return CLI_OK;
	case 's':
		free(cli->socket);
		cli->socket = strdup(value);
		return cli->socket ? CLI_OK : cli_fail(CLI_FAILED, "out of memory");
	case 'c':
		return socket_of_config(cli, value);
	case 't':
		seconds = strtod(value, &end);
		if (*end || end == value || !(seconds >= 0.001 && seconds <= 86400))
			return cli_fail(CLI_USAGE,
					"--timeout: \"%s\" is no number of seconds from 0.001 to "
					"86400",
					value);
		cli->timeout_ms = (unsigned)(seconds * 1000);
		return CLI_OK;
	case 'V':
		cli->words[cli->n_words++] = "version";
		return CLI_OK;
	default:
		return cli_fail(CLI_USAGE, "\"patchbay --help\" lists the options");
	}
}

/* `plugin new` has its own options; they are not looked at here. */
static bool takes_the_rest(const struct cli *cli)
{
	return cli->n_words == 2 && strcmp(cli->words[0], "plugin") == 0 &&
	       strcmp(cli->words[1], "new") == 0;
}

/* Options may stand anywhere; what is none of them are words. */
static int read_arguments(struct cli *cli, int argc, char **argv, bool *ret_help)
{
	static const struct option options[] = {
		{"output", required_argument, NULL, 'o'},
		{"socket", required_argument, NULL, 's'},
		{"config", required_argument, NULL, 'c'},
		{"timeout", required_argument, NULL, 't'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{"verbose", no_argument, NULL, 'v'},
		{"type", required_argument, NULL, 'T'},
		{NULL, 0, NULL, 0},
	};
	const char *type = NULL;
	bool verbose = false;
	int rc = CLI_OK;

	while (optind < argc && rc == CLI_OK) {
		int option = takes_the_rest(cli)
				     ? -1
				     : getopt_long(argc, argv, "+o:s:c:t:hVv", options, NULL);

		if (option == -1) {
			if (optind < argc)
				cli->words[cli->n_words++] = argv[optind++];
		} else if (option == 'h') {
			*ret_help = true;
		} else if (option == 'v') {
			verbose = true;
		} else if (option == 'T') {
			type = optarg;
		} else {
			rc = set_option(cli, option, optarg);
		}
	}
	/* Words like others, for the commands that know them; wherever they stood. */
	if (type) {
		cli->words[cli->n_words++] = "--type";
		cli->words[cli->n_words++] = type;
	}
	if (verbose)
		cli->words[cli->n_words++] = "--verbose";
	return rc;
}

static int too_many(const struct cli_command *command, size_t n_args)
{
	size_t allowed = *command->usage != '\0';

	for (const char *p = command->usage; *p; p++)
		allowed += *p == ' ';
	if (n_args <= allowed || command->fn == cli_plugin_new || strstr(command->usage, "..."))
		return CLI_OK;
	return cli_fail(CLI_USAGE, "too many arguments; usage: patchbay %s%s%s", command->name,
			*command->usage ? " " : "", command->usage);
}

static int too_few(const struct cli_command *command, size_t n_args)
{
	size_t needed = 0;

	for (const char *p = command->usage; *p; p += strcspn(p, " "), p += *p == ' ')
		needed += *p != '[';
	if (n_args >= needed)
		return CLI_OK;
	return cli_fail(CLI_USAGE, "too few arguments; usage: patchbay %s %s", command->name,
			command->usage);
}

/* Ours of a group, but for those that the agent has `listed` already. */
static void add_own(const char *group, const char *listed, struct pb_buf *out)
{
	size_t len = strlen(group);

	for (size_t i = 0; i < CLI_COMMANDS_MAX && cli_commands[i].name; i++) {
		const struct cli_command *c = &cli_commands[i];

		if (strncmp(c->name, group, len) == 0 && c->name[len] == ' ' &&
		    !strstr(listed, c->name))
			pb_buf_printf(out, ", %s", c->name);
	}
}

/* The agent knows its own commands only; help and completion offer more. */
static int unknown_command(const struct cli *cli, const struct pb_err *err)
{
	const char *names[CLI_COMMANDS_MAX + 1] = {NULL};
	PB_BUF_FREE struct pb_buf own = {0};
	const char *near = NULL;
	char given[128];

	for (size_t i = 0; i < CLI_COMMANDS_MAX && cli_commands[i].name; i++)
		names[i] = cli_commands[i].name;
	snprintf(given, sizeof(given), "%.60s%s%.60s", cli->words[0], cli->n_words > 1 ? " " : "",
		 cli->n_words > 1 ? cli->words[1] : "");
	near = pb_suggest(given, names);
	if (near)
		return cli_fail(CLI_USAGE, "unknown command \"%s\"; did you mean \"%s\"?", given,
				near);
	add_own(cli->words[0], err->text, &own);
	return cli_fail(CLI_USAGE, "%s%s", err->text, own.len ? own.data : "");
}

static int ask_agent(struct cli *cli, const struct cli_command *command)
{
	PB_JSON_FREE cJSON *result = NULL;
	struct pb_err err = {0};
	int rc = cli_ask(cli, cli->words, cli->n_words, &result, &err);

	/*
	 * The core's questions change nothing and may be repeated, once. One to a plugin may be
	 * what brought the agent down.
	 */
	if (rc == -EPIPE && command && cli_wait_until_ready(cli, &err) == 0)
		rc = cli_ask(cli, cli->words, cli->n_words, &result, &err);
	if (rc == -ENOSYS)
		return unknown_command(cli, &err);
	return rc < 0 ? cli_report(cli, rc, &err) : cli_print_all(cli, &result);
}

static int run(struct cli *cli)
{
	size_t used = 0;
	const struct cli_command *command = cli_find(cli->words, cli->n_words, &used);
	int rc = CLI_OK;

	if (command) {
		rc = too_many(command, cli->n_words - used);
		if (rc == CLI_OK)
			rc = too_few(command, cli->n_words - used);
	}
	if (rc == CLI_OK && !cli->socket)
		rc = default_socket(cli);
	if (rc != CLI_OK)
		return rc;
	if (command && command->fn)
		return command->fn(cli, cli->words + used, cli->n_words - used);
	return ask_agent(cli, command);
}

int main(int argc, char **argv)
{
	struct cli cli = {.timeout_ms = TIMEOUT_MS};
	bool help = false;
	int rc;

	signal(SIGPIPE, SIG_IGN);
	/* "--type=X" becomes two. */
	cli.words = calloc(2 * (size_t)argc + 1, sizeof(*cli.words));
	if (!cli.words)
		return cli_fail(CLI_FAILED, "out of memory");
	rc = read_arguments(&cli, argc, argv, &help);
	if (rc == CLI_OK && help) {
		print_usage(stdout);
	} else if (rc == CLI_OK && cli.n_words == 0) {
		print_usage(stderr);
		rc = CLI_USAGE;
	} else if (rc == CLI_OK) {
		rc = run(&cli);
	}
	free(cli.socket);
	free(cli.words);
	return rc;
}
