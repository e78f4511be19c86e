/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes from a client of the control socket. Every line gets one answer, in one line of JSON
 * that says whether it went well; the end of the stream closes the connection.
 */
#include <control/control.h>

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Up to this size no line can be too long. */
#define SURE 65536

static uv_loop_t loop;
static struct pb_control *control;
static struct pb_config config;
static char dir[] = "/tmp/pb-fuzz-XXXXXX";
static char *path;

static void echo(void *arg, struct pb_request *req, const char *const *args, uint32_t n)
{
	cJSON *list = cJSON_CreateArray();

	(void)arg;
	for (uint32_t i = 0; i < n; i++)
		cJSON_AddItemToArray(list, cJSON_CreateString(args[i]));
	pb_request_reply(req, list);
}

static void remove_files(void)
{
	unlink(path);
	rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const struct pb_control_command commands[] = {
		{"echo", "[WORD]...", "says it again", echo, NULL},
		{"echo twice", "[WORD]...", "as well", echo, NULL},
	};
	struct pb_err err = {0};

	(void)argc;
	(void)argv;
	signal(SIGPIPE, SIG_IGN);
	if (uv_loop_init(&loop) < 0 || !mkdtemp(dir))
		abort();
	path = pb_sprintf("%s/socket", dir);
	config.control.socket = path;
	if (!path || pb_control_new(&loop, &config, &control, &err) < 0)
		abort();
	for (size_t i = 0; i < PB_ARRAY_LEN(commands); i++)
		if (pb_control_add(control, &commands[i]) < 0)
			abort();
	atexit(remove_files);
	return 0;
}

static int connect_client(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		abort();
	return fd;
}

/* Sends what there is, closes that side, and reads to the end. */
static void talk(int fd, const uint8_t *data, size_t size, struct pb_buf *answers)
{
	static char chunk[65536];
	size_t sent = 0;
	ssize_t n = -1;

	while (n != 0) {
		ssize_t w = sent < size ? send(fd, data + sent, size - sent, MSG_NOSIGNAL) : 0;

		sent += w > 0 ? (size_t)w : 0;
		if (w < 0 && errno != EAGAIN)
			sent = size;
		if (sent == size)
			shutdown(fd, SHUT_WR);
		uv_run(&loop, UV_RUN_NOWAIT);
		n = recv(fd, chunk, sizeof(chunk), 0);
		if (n < 0 && errno != EAGAIN)
			return;
		if (n > 0 && pb_buf_append(answers, chunk, (size_t)n) < 0)
			abort();
	}
}

static size_t check_answers(const struct pb_buf *answers)
{
	const char *line = answers->data, *end;
	size_t left = answers->len, n = 0;

	while (left && (end = memchr(line, '\n', left))) {
		PB_JSON_FREE cJSON *json = cJSON_ParseWithLength(line, (size_t)(end - line));
		bool ok = pb_json_bool(json, "ok", false);

		if (!cJSON_IsObject(json) || (!ok && !*pb_json_str(json, "error", "")) ||
		    (ok && !cJSON_GetObjectItemCaseSensitive(json, "result")))
			abort();
		left -= (size_t)(end + 1 - line);
		line = end + 1;
		n++;
	}
	if (left)
		abort();
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	PB_BUF_FREE struct pb_buf answers = {0};
	PB_CLOSE int fd = connect_client();
	size_t lines = 0, answered;

	for (size_t i = 0; i < size; i++)
		lines += data[i] == '\n';
	talk(fd, data, size, &answers);
	answered = check_answers(&answers);
	if (size < SURE && answered != lines)
		abort();
	return 0;
}
