/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `patchbay`: what its files share.
 *
 * Owns one command of the administrator from its words to an exit code. Holds no state between
 * runs and decides nothing that the agent decides; bytes from the agent reach the terminal
 * escaped.
 */
#ifndef PB_CLI_H
#define PB_CLI_H

#include <base/json.h>

enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,	     /* the agent, or a local command, said why */
	CLI_USAGE = 2,	     /* the words or options make no sense */
	CLI_UNREACHABLE = 3, /* no agent answers on the socket */
};

struct cli {
	char *socket;
	bool json;
	unsigned timeout_ms;
	const char **words;
	size_t n_words;
};

/* ---- table.c: the commands of the tool and of the core ---- */

struct cli_command {
	const char *name; /* one or two words */
	const char *usage;
	const char *help;
	/* NULL: the agent answers. The words after the name are passed. */
	int (*fn)(struct cli *cli, const char *const *args, size_t n_args);
};

extern const struct cli_command cli_commands[]; /* ends with name NULL */

/* The longest command that the words begin with, or NULL. *ret_used: how many words it has. */
const struct cli_command *cli_find(const char *const *words, size_t n_words, size_t *ret_used);
/* A new table {columns, items} of the static commands and those of `agent` ("help", or NULL). */
cJSON *cli_command_table(const cJSON *agent);

/* ---- client.c: asking the agent ---- */

/*
 * Asks and waits. Result: 0 and the answer's "result"; -ECONNREFUSED: nobody answers; -EPIPE:
 * the connection broke before the answer came; -ETIMEDOUT; -ENOSYS: the agent doesn't know the
 * command; another code: the agent said so.
 */
int cli_ask(const struct cli *cli, const char *const *words, size_t n_words, cJSON **ret_result,
	    struct pb_err *err);
/* Asks again until the agent is back, for at most 10 s. */
int cli_ask_again(const struct cli *cli, const char *const *words, size_t n_words,
		  cJSON **ret_result, struct pb_err *err);
/* Asks for the status until an agent that restarted is ready, or a while has passed. */
int cli_wait_until_ready(const struct cli *cli, struct pb_err *err);

/* ---- output.c ---- */

/* As a table, as indented lines, or as JSON; to standard output. */
int cli_print(const struct cli *cli, const cJSON *result);
/* The same into a buffer. */
int cli_render(const cJSON *result, bool json, struct pb_buf *out);
#define CLI_COLUMNS_MAX 64
/* A list that comes in pages. Zeroed: before the first, which has the titles. */
struct cli_page {
	size_t widths[CLI_COLUMNS_MAX]; /* of the pages before; columns only grow */
	bool begun;
};
/* A page as lines of a table. cli_render_page(): -EPROTO: it is no list. */
int cli_print_page(struct cli_page *page, const cJSON *result);
int cli_render_page(struct cli_page *page, const cJSON *result, struct pb_buf *out);
/* Appends text so that a terminal shows it and obeys nothing in it. Returns its width. */
size_t cli_escape(struct pb_buf *out, const char *text);

/* ---- commands that need no agent, or more than one question ---- */

int cli_version(struct cli *cli, const char *const *args, size_t n_args);
int cli_help(struct cli *cli, const char *const *args, size_t n_args);
int cli_completion(struct cli *cli, const char *const *args, size_t n_args);
int cli_plugin_inspect(struct cli *cli, const char *const *args, size_t n_args);
int cli_plugin_new(struct cli *cli, const char *const *args, size_t n_args);
/* Load, unload, reload: when the agent restarts on the way, says what became of it. */
int cli_plugin_change(struct cli *cli, const char *const *args, size_t n_args);

/* pages.c: prints the answer to the tool's words, and the pages that follow it. */
int cli_print_all(struct cli *cli, cJSON **result);
/* A list of the agent's core, all its pages; the two words of the command come first. */
int cli_pages(struct cli *cli, const char *const *args, size_t n_args);

/* completion.c; NULL for a shell that isn't known. */
char *cli_completion_script(const char *shell, const cJSON *table);

int cli_fail(int code, const char *fmt, ...) PB_PRINTF(2, 3);
/* Prints the error of cli_ask() with what to do about it; returns the exit code. */
int cli_report(const struct cli *cli, int rc, const struct pb_err *err);

#endif
