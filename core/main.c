/* SPDX-License-Identifier: Apache-2.0 */
/*
 * patchbayd: options, then one of four things: check the configuration, clean up, say who it is,
 * run. Exit codes: 0 done, 1 failed, 2 wrong usage.
 */
#include <agent.h>

#include <getopt.h>
#include <signal.h>

#include <plugin/manager.h>

#define CONFIG_FILE PB_SYSCONF_DIR "/patchbay/patchbay.yaml"

static const char usage_text[] =
	"Usage: patchbayd [OPTION]...\n"
	"The Patchbay agent: owns the kernel hooks of this node and runs its plugins.\n"
	"\n"
	"  -c, --config FILE      configuration (default " CONFIG_FILE ")\n"
	"      --check-config     check the configuration and exit\n"
	"      --cleanup          remove every pin, link and file that an agent with this\n"
	"                         configuration made, and exit\n"
	"      --log-level LEVEL  error, warn, info or debug, whatever the file says\n"
	"  -h, --help             show this help\n"
	"  -V, --version          show the version\n"
	"\n"
	"Signals: HUP reads the configuration again, TERM and INT end the agent. The\n"
	"datapath goes on without it.\n";

enum action {
	ACTION_RUN,
	ACTION_CHECK,
	ACTION_CLEANUP,
	ACTION_EXIT, /* everything was said */
};

static int wrong_usage(const char *fmt, const char *value)
{
	fprintf(stderr, "patchbayd: ");
	fprintf(stderr, fmt, value);
	fprintf(stderr, "; \"patchbayd --help\" lists the options\n");
	return 2;
}

static int read_level(const char *word, struct pb_agent_options *options)
{
	static const char *const levels[] = {"error", "warn", "info", "debug"};

	for (size_t i = 0; i < PB_ARRAY_LEN(levels); i++) {
		if (strcmp(levels[i], word) == 0) {
			options->log_level = (int)i;
			return 0;
		}
	}
	return wrong_usage("--log-level: unknown level \"%.40s\"; known are error, warn, info, "
			   "debug",
			   word);
}

static int read_option(int option, struct pb_agent_options *options, enum action *action)
{
	switch (option) {
	case 'c':
		options->config_file = optarg;
		return 0;
	case 'C':
		*action = ACTION_CHECK;
		return 0;
	case 'X':
		*action = ACTION_CLEANUP;
		return 0;
	case 'L':
		return read_level(optarg, options);
	case 'h':
		fputs(usage_text, stdout);
		*action = ACTION_EXIT;
		return 0;
	case 'V':
		puts("patchbayd " PACKAGE_VERSION);
		*action = ACTION_EXIT;
		return 0;
	default:
		fputs("patchbayd: \"patchbayd --help\" lists the options\n", stderr);
		return 2;
	}
}

static int read_options(int argc, char **argv, struct pb_agent_options *options,
			enum action *action)
{
	static const struct option known[] = {
		{"config", required_argument, NULL, 'c'},
		{"check-config", no_argument, NULL, 'C'},
		{"cleanup", no_argument, NULL, 'X'},
		{"log-level", required_argument, NULL, 'L'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	int option, rc = 0;

	while (rc == 0 && *action != ACTION_EXIT &&
	       (option = getopt_long(argc, argv, "c:hV", known, NULL)) != -1)
		rc = read_option(option, options, action);
	if (rc == 0 && *action != ACTION_EXIT && optind < argc)
		return wrong_usage("unknown argument \"%.80s\"", argv[optind]);
	return rc;
}

static int cleanup(struct pb_config *config)
{
	struct pb_err err = {0};

	pb_log_setup(config->log.format, config->log.level, 2);
	if (pb_agent_cleanup(config, &err) == 0)
		return 0;
	fprintf(stderr, "patchbayd: --cleanup: %s\n", err.text);
	return 1;
}

static int run(int argc, char **argv, const struct pb_agent_options *options,
	       struct pb_config *config)
{
	struct pb_err err = {0};

	/* Peers of sockets may leave at any time. */
	signal(SIGPIPE, SIG_IGN);
	if (pb_dir_make_own(config->agent.run_dir, 0755, &err) < 0 ||
	    pb_crash_setup(argc, argv, config->agent.run_dir, &err) < 0) {
		fprintf(stderr, "patchbayd: %s\n", err.text);
		pb_config_free(config);
		return 1;
	}
	return pb_agent_run(options, config);
}

int main(int argc, char **argv)
{
	struct pb_agent_options options = {.config_file = CONFIG_FILE, .log_level = -1};
	enum action action = ACTION_RUN;
	struct pb_config *config = NULL;
	struct pb_err err = {0};
	int rc = read_options(argc, argv, &options, &action);

	if (rc || action == ACTION_EXIT)
		return rc;
	if (pb_config_load(options.config_file, &config, &err) < 0) {
		fprintf(stderr, "patchbayd: %s\n", err.text);
		return 1;
	}
	if (action == ACTION_RUN)
		return run(argc, argv, &options, config);
	if (action == ACTION_CHECK)
		printf("%s: OK\n", options.config_file);
	else
		rc = cleanup(config);
	pb_config_free(config);
	return rc;
}
