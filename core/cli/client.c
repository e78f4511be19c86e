/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One question to the agent: connect, one line out, one line back, within a deadline.
 */
#include <cli/cli.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define ANSWER_MAX (80U << 20)
#define AGAIN_MS 10000
#define AGAIN_PAUSE_NS 50000000L

static uint64_t now_ms(void)
{
	return pb_now_ns() / 1000000;
}

static int wait_for(int fd, short events, uint64_t deadline)
{
	for (;;) {
		uint64_t now = now_ms();
		struct pollfd p = {.fd = fd, .events = events};
		int n = poll(&p, 1, now < deadline ? (int)(deadline - now) : 0);

		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

static int open_socket(const struct cli *cli, int *ret_fd, struct pb_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	PB_CLOSE int fd = -1;

	if (strlen(cli->socket) >= sizeof(addr.sun_path))
		return pb_err_set(err, -ECONNREFUSED, "%s: too long for a socket's address",
				  cli->socket);
	memcpy(addr.sun_path, cli->socket, strlen(cli->socket));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return pb_err_set(err, -errno, "socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return errno == EACCES
			       ? pb_err_set(err, -EACCES,
					    "%s: Permission denied; ask as root, or as a member of "
					    "the group in control.group",
					    cli->socket)
			       : pb_err_set(err, -ECONNREFUSED, "%s: %s", cli->socket,
					    strerror(errno));
	*ret_fd = PB_TAKE_FD(fd);
	return 0;
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

static int send_line(int fd, const char *line, uint64_t deadline)
{
	size_t len = strlen(line);

	while (len) {
		ssize_t n = send(fd, line, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		int rc = 0;

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -EPIPE;
		if (n < 0)
			rc = wait_for(fd, POLLOUT, deadline);
		if (rc < 0)
			return rc;
		line += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int receive_line(int fd, struct pb_buf *line, uint64_t deadline)
{
	char chunk[65536];

	while (line->len < ANSWER_MAX) {
		int rc = wait_for(fd, POLLIN, deadline);
		ssize_t n;

		if (rc < 0)
			return rc;
		n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return -EPIPE;
		rc = pb_buf_append(line, chunk, (size_t)n);
		if (rc < 0)
			return rc;
		if (line->data[line->len - 1] == '\n')
			return 0;
	}
	return -EMSGSIZE;
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
	PB_CLOSE int fd = -1;
	int rc = open_socket(cli, &fd, err);

	if (rc < 0)
		return rc;
	if (!request)
		return pb_err_set(err, -ENOMEM, "out of memory");
	rc = send_line(fd, request, deadline);
	if (rc == 0)
		rc = receive_line(fd, &line, deadline);
	if (rc == 0)
		return take_answer(&line, ret_result, err);
	if (rc == -ETIMEDOUT)
		return pb_err_set(err, rc, "no answer within %u ms", cli->timeout_ms);
	if (rc == -EPIPE)
		return pb_err_set(err, rc, "the agent closed the connection before it answered");
	return pb_err_set(err, rc, "%s: %s", cli->socket, strerror(-rc));
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
