/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One question to the agent and what its answer means, within a deadline.
 */
#include <cli/cli.h>

#include <time.h>

#include <control/ask.h>

#define AGAIN_MS 10000
#define AGAIN_PAUSE_NS 50000000L

static uint64_t now_ms(void)
{
	return pb_now_ns() / 1000000;
}

static char *request_line(const char *const *words, size_t n_words)
{
	PB_JSON_FREE cJSON *request = cJSON_CreateObject();
	cJSON *list = cJSON_AddArrayToObject(request, "words");
	PB_FREE char *text = NULL;

	for (size_t i = 0; i < n_words; i++)
		cJSON_AddItemToArray(list, cJSON_CreateString(words[i]));
	text = cJSON_PrintUnformatted(request);
	return text ? pb_sprintf("%s\n", text) : NULL;
}

static int take_answer(const struct pb_buf *line, cJSON **ret_result, struct pb_err *err)
{
	PB_JSON_FREE cJSON *answer = cJSON_ParseWithLength(line->data, line->len);
	int code = pb_json_num(answer, "errno", 0) == ENOSYS ? ENOSYS : EREMOTEIO;

	if (!cJSON_IsObject(answer))
		return pb_err_set(err, -EPROTO, "what answers on the socket is no Patchbay agent");
	if (pb_json_bool(answer, "ok", false)) {
		*ret_result = cJSON_DetachItemFromObjectCaseSensitive(answer, "result");
		return *ret_result ? 0 : pb_err_set(err, -EPROTO, "the agent's answer is empty");
	}
	/*
	 * Codes of our own must not be taken for the agent's, and EACCES of an operation (the
	 * kernel refused a program) not for a refusal of who asks.
	 */
	if (pb_json_bool(answer, "refused", false))
		code = EACCES;
	return pb_err_set(err, -code, "%s", pb_json_str(answer, "error", "no reason given"));
}

static int ask(const struct cli *cli, const char *const *words, size_t n_words, uint64_t deadline,
	       cJSON **ret_result, struct pb_err *err)
{
	PB_FREE char *request = request_line(words, n_words);
	PB_BUF_FREE struct pb_buf line = {0};
	int rc;

	if (!request)
		return pb_err_set(err, -ENOMEM, "out of memory");
	rc = pb_control_ask(cli->socket, request, deadline, &line, err);
	if (rc == -ETIMEDOUT)
		return pb_err_set(err, rc, "no answer within %u ms", cli->timeout_ms);
	return rc < 0 ? rc : take_answer(&line, ret_result, err);
}

int cli_ask(const struct cli *cli, const char *const *words, size_t n_words, cJSON **ret_result,
	    struct pb_err *err)
{
	return ask(cli, words, n_words, now_ms() + cli->timeout_ms, ret_result, err);
}

int cli_ask_again(const struct cli *cli, const char *const *words, size_t n_words,
		  cJSON **ret_result, struct pb_err *err)
{
	const struct timespec pause = {.tv_nsec = AGAIN_PAUSE_NS};
	uint64_t deadline = now_ms() + AGAIN_MS;
	int rc;

	for (;;) {
		rc = ask(cli, words, n_words, deadline, ret_result, err);
		if ((rc != -ECONNREFUSED && rc != -EPIPE) || now_ms() >= deadline)
			return rc;
		nanosleep(&pause, NULL);
	}
}

int cli_report(const struct cli *cli, int rc, const struct pb_err *err)
{
	if (rc == -ECONNREFUSED)
		return cli_fail(
			CLI_UNREACHABLE,
			"no agent answers (%s); start it with \"systemctl start patchbayd\" "
			"or \"patchbayd -c FILE\", or name its socket with --socket",
			err->text);
	if (rc == -EACCES)
		return cli_fail(CLI_UNREACHABLE, "%s", err->text);
	if (rc == -EPIPE)
		return cli_fail(CLI_UNREACHABLE, "%s (%s); its log says why", err->text,
				cli->socket);
	if (rc == -ETIMEDOUT)
		return cli_fail(
			CLI_FAILED,
			"%s; the agent may be busy: look at its log, or give --timeout more "
			"seconds",
			err->text);
	return cli_fail(CLI_FAILED, "%s", err->text);
}
