/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket as a client sees it. Agent and client share a thread: the loop is turned
 * until the client has what it waits for, or a deadline passes.
 */
#include <criterion/criterion.h>

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <control/ask.h>
#include <control/control.h>

#define DEADLINE_NS 10000000000ULL

static uv_loop_t loop;
static struct pb_config config;
static struct pb_control *control;
static struct pb_request *kept[64];
static unsigned n_kept;
static char dir[] = "/tmp/pb-control-XXXXXX";
static char socket_path[64];

static void echo(void *arg, struct pb_request *req, const char *const *args, uint32_t n)
{
	cJSON *result = cJSON_CreateObject();
	cJSON *list = cJSON_AddArrayToObject(result, "args");

	cJSON_AddStringToObject(result, "by", arg);
	for (uint32_t i = 0; i < n; i++)
		cJSON_AddItemToArray(list, cJSON_CreateString(args[i]));
	pb_request_reply(req, result);
}

static void later(void *arg, struct pb_request *req, const char *const *args, uint32_t n)
{
	(void)arg;
	(void)args;
	(void)n;
	kept[n_kept++] = req;
}

static void big(void *arg, struct pb_request *req, const char *const *args, uint32_t n)
{
	PB_FREE char *text = calloc(1, (1 << 20) + 1);

	(void)arg;
	(void)args;
	(void)n;
	memset(text, 'x', 1 << 20);
	n_kept++;
	pb_request_reply(req, cJSON_CreateString(text));
}

static int start(struct pb_control **ret_control, struct pb_err *err)
{
	config.control.socket = socket_path;
	return pb_control_new(&loop, &config, ret_control, err);
}

static void setup(void)
{
	static const struct pb_control_command commands[] = {
		{"service list", "[NAMESPACE]", "list services", echo, "service list"},
		{"service", "", "one word", echo, "service"},
		{"status", "", "show it all", echo, "status"},
		{"later", "", "answers later", later, NULL},
		{"big", "", "answers a lot", big, NULL},
	};
	struct pb_err err;

	/* As main() does: a client that left must not end the agent. */
	signal(SIGPIPE, SIG_IGN);
	cr_assert_eq(uv_loop_init(&loop), 0);
	cr_assert_not_null(mkdtemp(dir));
	snprintf(socket_path, sizeof(socket_path), "%s/run/patchbay.sock", dir);
	cr_assert_eq(start(&control, &err), 0, "%s", err.text);
	for (size_t i = 0; i < PB_ARRAY_LEN(commands); i++)
		cr_assert_eq(pb_control_add(control, &commands[i]), 0);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void stop(struct pb_control *c)
{
	uint64_t deadline = pb_now_ns() + DEADLINE_NS;
	bool closed = false;

	pb_control_close(c, on_closed, &closed);
	while (!closed && pb_now_ns() < deadline)
		uv_run(&loop, UV_RUN_NOWAIT);
	cr_assert(closed);
}

static void teardown(void)
{
	struct stat st;

	stop(control);
	cr_assert_eq(uv_loop_close(&loop), 0, "a handle was left on the loop");
	cr_assert_lt(lstat(socket_path, &st), 0, "the socket file was left");
	*strrchr(socket_path, '/') = '\0';
	rmdir(socket_path);
	rmdir(dir);
}

static int client(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	memcpy(addr.sun_path, socket_path, strlen(socket_path) + 1);
	cr_assert_eq(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void client_send(int fd, const char *text, size_t len)
{
	uint64_t deadline = pb_now_ns() + DEADLINE_NS;

	while (len && pb_now_ns() < deadline) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		cr_assert(n >= 0 || errno == EAGAIN, "send: %s", strerror(errno));
		text += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	cr_assert_eq(len, 0, "the agent stopped reading");
}

/* One answer line, or NULL when the agent closed the connection. */
static char *client_line(int fd, struct pb_buf *buf)
{
	uint64_t deadline = pb_now_ns() + DEADLINE_NS;
	char chunk[65536];

	while (pb_now_ns() < deadline) {
		char *end = buf->len ? memchr(buf->data, '\n', buf->len) : NULL;
		ssize_t n;

		if (end) {
			char *line = strndup(buf->data, (size_t)(end - buf->data));

			buf->len -= (size_t)(end + 1 - buf->data);
			memmove(buf->data, end + 1, buf->len);
			return line;
		}
		uv_run(&loop, UV_RUN_NOWAIT);
		n = recv(fd, chunk, sizeof(chunk), 0);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return NULL;
		if (n > 0)
			pb_buf_append(buf, chunk, (size_t)n);
	}
	cr_assert_fail("no answer within the deadline");
	return NULL;
}

static char *ask(const char *request)
{
	PB_BUF_FREE struct pb_buf buf = {0};
	PB_CLOSE int fd = client();

	client_send(fd, request, strlen(request));
	client_send(fd, "\n", 1);
	return client_line(fd, &buf);
}

TestSuite(control, .init = setup, .fini = teardown);

Test(control, a_request_is_answered_with_one_line_of_json)
{
	static const struct {
		const char *given, *answer;
	} cases[] = {
		{"{\"command\":\"service list\",\"args\":[\"default\"]}",
		 "{\"ok\":true,\"result\":{\"args\":[\"default\"],\"by\":\"service list\"}}"},
		{"{\"command\":\"status\"}",
		 "{\"ok\":true,\"result\":{\"args\":[],\"by\":\"status\"}}"},
		{"{\"command\":\"status\",\"id\":7}",
		 "{\"ok\":true,\"result\":{\"args\":[],\"by\":\"status\"},\"id\":7}"},
		{"{\"words\":[\"service\",\"list\",\"a\",\"b\"]}",
		 "{\"ok\":true,\"result\":{\"args\":[\"a\",\"b\"],\"by\":\"service list\"}}"},
		{"{\"words\":[\"service\",\"x\"]}",
		 "{\"ok\":true,\"result\":{\"args\":[\"x\"],\"by\":\"service\"}}"},
		{"{\"command\":\"statsu\"}",
		 "{\"ok\":false,\"errno\":38,\"error\":\"unknown command \\\"statsu\\\"; did you "
		 "mean \\\"status\\\"?\"}"},
		{"{\"words\":[\"servce\",\"list\",\"x\"]}",
		 "{\"ok\":false,\"errno\":38,\"error\":\"unknown command \\\"servce list x\\\"; "
		 "did you mean \\\"service list\\\"?\"}"},
		{"{\"command\":\"frobnicate\"}",
		 "{\"ok\":false,\"errno\":38,\"error\":\"unknown command \\\"frobnicate\\\"; "
		 "\\\"patchbay help\\\" lists all commands, a plugin's only while it is loaded\"}"},
		{"{\"command\":\"status\",\"args\":[1]}",
		 "{\"ok\":false,\"errno\":22,\"error\":\"a request needs \\\"command\\\" and "
		 "\\\"args\\\", or \\\"words\\\"; both lists hold strings\"}"},
		{"hello", "{\"ok\":false,\"errno\":22,\"error\":\"a request is one JSON object in "
			  "one line, such as {\\\"command\\\":\\\"status\\\",\\\"args\\\":[]}\"}"},
		{"[]", "{\"ok\":false,\"errno\":22,\"error\":\"a request is one JSON object in one "
		       "line, such as {\\\"command\\\":\\\"status\\\",\\\"args\\\":[]}\"}"},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		PB_FREE char *answer = ask(cases[i].given);

		cr_expect_str_eq(answer, cases[i].answer, "given %s\ntold %s", cases[i].given,
				 answer);
	}
}

Test(control, help_lists_every_command_until_it_is_removed)
{
	PB_FREE char *before = ask("{\"command\":\"help\"}");
	PB_FREE char *after = NULL;

	cr_assert_not_null(strstr(before, "{\"command\":\"service list\",\"usage\":\"[NAMESPACE]\","
					  "\"help\":\"list services\"}"));
	pb_control_remove(control, "service list");
	after = ask("{\"command\":\"help\"}");
	cr_assert_null(strstr(after, "service list"));
	cr_assert_not_null(strstr(after, "status"));
}

Test(control, a_name_is_taken_once)
{
	struct pb_control_command again = {"status", "", "", echo, NULL};

	cr_assert_eq(pb_control_add(control, &again), -EEXIST);
}

Test(control, answers_come_in_the_order_in_which_they_are_ready)
{
	static const char requests[] = "{\"command\":\"later\",\"id\":1}\n"
				       "{\"command\":\"later\",\"id\":2}\n"
				       "{\"command\":\"status\",\"id\":3}\n";
	static const char *const ids[] = {"\"id\":3", "\"id\":2", "\"id\":1"};
	PB_BUF_FREE struct pb_buf buf = {0};
	PB_CLOSE int fd = client();

	client_send(fd, requests, strlen(requests));
	for (size_t i = 0; i < PB_ARRAY_LEN(ids); i++) {
		PB_FREE char *line = client_line(fd, &buf);

		cr_expect_not_null(strstr(line, ids[i]), "%s is not in %s", ids[i], line);
		if (i == 0) {
			cr_assert_eq(n_kept, 2);
			pb_request_fail(kept[1], EBUSY, "second");
			pb_request_reply(kept[0], NULL);
		}
	}
}

Test(control, a_client_that_left_costs_its_answer_only)
{
	int fd = client();

	client_send(fd, "{\"command\":\"later\"}\n", 20);
	while (n_kept == 0)
		uv_run(&loop, UV_RUN_NOWAIT);
	close(fd);
	for (int i = 0; i < 10; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	pb_request_reply(kept[0], NULL);
}

Test(control, a_client_may_close_its_sending_side_and_still_gets_all_answers)
{
	PB_BUF_FREE struct pb_buf buf = {0};
	PB_CLOSE int fd = client();
	unsigned answers = 0;
	char *line;

	for (int i = 0; i < 100; i++)
		client_send(fd, "{\"command\":\"status\"}\n", 21);
	shutdown(fd, SHUT_WR);
	for (; (line = client_line(fd, &buf)); answers++)
		free(line);
	cr_assert_eq(answers, 100);
}

/* Requests that take a millisecond each, and how long the longest turn of the loop was. */
static void slow(void *arg, struct pb_request *req, const char *const *args, uint32_t n)
{
	uint64_t end = pb_now_ns() + 1000000;

	(void)arg;
	(void)args;
	(void)n;
	while (pb_now_ns() < end)
		;
	n_kept++;
	pb_request_reply(req, NULL);
}

Test(control, a_client_with_a_thousand_requests_at_once_leaves_the_loop_to_others)
{
	static const struct pb_control_command command = {"slow", "", "1 ms", slow, NULL};
	PB_BUF_FREE struct pb_buf requests = {0};
	PB_BUF_FREE struct pb_buf buf = {0};
	PB_CLOSE int fd = client();
	unsigned most = 0;

	cr_assert_eq(pb_control_add(control, &command), 0);
	for (int i = 0; i < 1000; i++)
		pb_buf_printf(&requests, "{\"words\":[\"slow\"]}\n");
	cr_assert_eq(send(fd, requests.data, requests.len, MSG_NOSIGNAL), (ssize_t)requests.len);
	while (n_kept < 1000) {
		unsigned before = n_kept;

		uv_run(&loop, UV_RUN_NOWAIT);
		most = n_kept - before > most ? n_kept - before : most;
	}
	/* One turn may serve on by its timer and by what it read. */
	cr_expect_leq(most, 6, "%u requests of 1 ms were answered in one turn", most);
	for (int i = 0; i < 1000; i++)
		free(client_line(fd, &buf));
}

Test(control, a_line_without_end_is_refused_at_64_kibibytes)
{
	PB_BUF_FREE struct pb_buf buf = {0};
	PB_FREE char *text = malloc(2 << 20);
	PB_FREE char *line = NULL;
	PB_FREE char *rest = NULL;
	PB_CLOSE int fd = client();
	uint64_t deadline = pb_now_ns() + DEADLINE_NS;
	size_t sent = 0;

	memset(text, 'x', 2 << 20);
	while (sent < (2 << 20) && pb_now_ns() < deadline) {
		ssize_t n = send(fd, text + sent, (2 << 20) - sent, MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			break;
		sent += n > 0 ? (size_t)n : 0;
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	cr_assert_lt(sent, 2 << 20);
	line = client_line(fd, &buf);
	cr_assert_str_eq(line,
			 "{\"ok\":false,\"errno\":90,\"error\":\"a request may have at most 64 "
			 "KiB\"}");
	rest = client_line(fd, &buf);
	cr_assert_null(rest);
}

Test(control, a_client_that_does_not_read_is_not_read_from)
{
	PB_BUF_FREE struct pb_buf buf = {0};
	PB_CLOSE int fd = client();
	unsigned answers = 0;

	/* 32 answers of 1 MiB are asked for; the queue is full after a few. */
	for (int i = 0; i < 32; i++)
		client_send(fd, "{\"command\":\"big\"}\n", 18);
	for (int i = 0; i < 100; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	cr_assert_leq(n_kept, 8, "%u answers of 1 MiB wait in memory", n_kept);
	for (; answers < 32; answers++) {
		PB_FREE char *line = client_line(fd, &buf);

		cr_assert_gt(strlen(line), 1 << 20);
	}
	cr_assert_eq(n_kept, 32);
}

Test(control, no_more_requests_are_open_per_client_than_allowed)
{
	PB_CLOSE int fd = client();

	for (int i = 0; i < 60; i++)
		client_send(fd, "{\"command\":\"later\"}\n", 20);
	for (int i = 0; i < 20; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	cr_assert_eq(n_kept, 32);
	pb_request_reply(kept[0], NULL);
	pb_request_reply(kept[1], NULL);
	for (int i = 0; i < 20; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	cr_assert_eq(n_kept, 34);
	for (unsigned i = 2; i < n_kept; i++)
		pb_request_reply(kept[i], NULL);
}

Test(control, a_request_may_be_answered_after_the_socket_is_closed)
{
	PB_CLOSE int fd = client();

	client_send(fd, "{\"command\":\"later\"}\n", 20);
	while (n_kept == 0)
		uv_run(&loop, UV_RUN_NOWAIT);
	stop(control);
	pb_request_reply(kept[0], NULL);
	cr_assert_eq(start(&control, NULL), 0);
}

Test(control, a_second_agent_on_the_socket_is_refused_and_the_first_goes_on)
{
	struct pb_control *second = NULL;
	struct pb_err err = {0};
	PB_FREE char *want = pb_sprintf(
		"%s: another agent answers on this socket; stop it, or give this one its own "
		"control.socket, agent.run_dir and datapath.bpffs",
		socket_path);
	PB_FREE char *answer = NULL;

	cr_assert_eq(start(&second, &err), -EADDRINUSE);
	cr_assert_str_eq(err.text, want);
	cr_assert_null(second);
	answer = ask("{\"command\":\"status\"}");
	cr_assert_not_null(strstr(answer, "\"ok\":true"));
}

Test(control, a_dead_agents_socket_is_replaced)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	PB_FREE char *answer = NULL;
	struct pb_err err;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	stop(control);
	memcpy(addr.sun_path, socket_path, strlen(socket_path) + 1);
	cr_assert_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd);
	cr_assert_eq(start(&control, &err), 0, "%s", err.text);
	answer = ask("{\"command\":\"help\"}");
	cr_assert_not_null(strstr(answer, "\"ok\":true"));
}

Test(control, a_file_that_is_no_socket_is_left_alone)
{
	PB_FREE char *want =
		pb_sprintf("%s: exists and is no socket; remove it or set control.socket",
			   socket_path);
	struct pb_control *second = NULL;
	struct pb_err err;

	stop(control);
	cr_assert_eq(pb_file_write(socket_path, "x", 1, 0600, &err), 0);
	cr_assert_eq(start(&second, &err), -EEXIST);
	cr_assert_str_eq(err.text, want);
	unlink(socket_path);
	cr_assert_eq(start(&control, &err), 0);
}

/* A container runtime calls patchbay-cni, and waits for it. */
Test(control, who_asks_an_agent_that_hangs_gets_an_answer_by_the_deadline, .timeout = 30)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	PB_BUF_FREE struct pb_buf line = {0};
	struct pb_err err;
	int fds[1024], rc = 0;
	size_t n = 0;

	/* Given an agent that accepts nobody, because its loop doesn't turn, and a full queue */
	memcpy(addr.sun_path, socket_path, strlen(socket_path));
	while (rc == 0 && n < PB_ARRAY_LEN(fds)) {
		fds[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		rc = connect(fds[n++], (struct sockaddr *)&addr, sizeof(addr));
	}
	cr_assert_eq(errno, EAGAIN);

	cr_expect_eq(pb_control_ask(socket_path, "x\n", pb_now_ns() / 1000000 + 100, &line, &err),
		     -ETIMEDOUT);
	while (n > 0)
		close(fds[--n]);
}

struct question {
	int rc;
	bool done;
	struct pb_buf line;
	struct pb_err err;
};

static void *ask_aside(void *arg)
{
	struct question *q = arg;

	q->rc = pb_control_ask(socket_path, "{\"command\":\"status\"}\n",
			       (pb_now_ns() + DEADLINE_NS) / 1000000, &q->line, &q->err);
	__atomic_store_n(&q->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static void ask_while_the_loop_turns(struct question *q)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, ask_aside, q), 0);
	while (!__atomic_load_n(&q->done, __ATOMIC_ACQUIRE))
		uv_run(&loop, UV_RUN_NOWAIT);
	pthread_join(thread, NULL);
}

Test(control, with_as_many_waiting_as_may_wait_others_are_served_and_a_refusal_says_why)
{
	struct question few = {0}, many = {0};
	int fds[256];

	/* Given as many connections as CNI plugins may wait */
	for (size_t i = 0; i < 128; i++)
		fds[i] = client();
	ask_while_the_loop_turns(&few);
	cr_expect_eq(few.rc, 0, "%s", few.err.text);
	cr_expect(strstr(few.line.data, "\"ok\":true"), "%s", few.line.data);
	/* And with all there may be */
	for (size_t i = 128; i < PB_ARRAY_LEN(fds); i++) {
		fds[i] = client();
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	ask_while_the_loop_turns(&many);
	cr_expect_eq(many.rc, 0, "%s", many.err.text);
	cr_expect(strstr(many.line.data, "too many connections"), "%s", many.line.data);
	for (size_t i = 0; i < PB_ARRAY_LEN(fds); i++)
		close(fds[i]);
	pb_buf_free(&few.line);
	pb_buf_free(&many.line);
}

Test(control, the_socket_is_for_owner_and_group_only)
{
	struct stat st;

	cr_assert_eq(lstat(socket_path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0660);
}

Test(control, a_group_that_does_not_exist_is_named)
{
	struct pb_config other = {.control = {.socket = socket_path, .group = "no-such-group"}};
	struct pb_control *second = NULL;
	struct pb_err err;

	cr_assert_eq(pb_control_new(&loop, &other, &second, &err), -ENOENT);
	cr_assert_str_eq(err.text, "control.group: no group \"no-such-group\" on this machine; "
				   "create it with groupadd, or remove the key");
}
