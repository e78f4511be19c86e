/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP server over real sockets: what it answers and refuses, how it changes its address, what
 * it does when an address is taken. Ports are those that the kernel finds free.
 */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <config/listen.h>
#include <http/http.h>

static uv_loop_t loop;
static struct pb_httpd *http;
static struct pb_config config;
static char dir[] = "/tmp/pb-http-XXXXXX";
static char where[64], other[64], path[64];
static bool is_closed;
static unsigned asked;

static int on_page(void *arg, const struct pb_httpd_request *request,
		   struct pb_httpd_answer *answer)
{
	asked++;
	answer->status = request->brief ? 203 : 200;
	return pb_buf_printf(&answer->body, "page %s of %s\n", (const char *)arg, request->path);
}

static int on_broken(void *arg, const struct pb_httpd_request *request,
		     struct pb_httpd_answer *answer)
{
	(void)arg;
	(void)request;
	pb_buf_printf(&answer->body, "half an answer");
	return -EIO;
}

static int on_empty(void *arg, const struct pb_httpd_request *request,
		    struct pb_httpd_answer *answer)
{
	(void)arg;
	(void)request;
	answer->status = 204;
	return 0;
}

/* A port that was free a moment ago. */
static void free_port(int family, char *text, size_t size)
{
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_storage got;
	socklen_t len = sizeof(got);
	bool six = family == AF_INET6;
	PB_CLOSE int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_eq(bind(fd, six ? (void *)&v6 : (void *)&v4, six ? sizeof(v6) : sizeof(v4)), 0);
	cr_assert_eq(getsockname(fd, (struct sockaddr *)&got, &len), 0);
	snprintf(text, size, six ? "[::1]:%u" : "127.0.0.1:%u",
		 ntohs(((struct sockaddr_in *)&got)->sin_port));
}

static void open_at(char *listen)
{
	struct pb_err err = {0};

	config.http.listen = listen;
	cr_assert_eq(pb_httpd_new(&loop, &config, &http, &err), 0, "%s", err.text);
	cr_assert_eq(pb_httpd_add(http, "/page", on_page, (void *)"one"), 0);
	cr_assert_eq(pb_httpd_add(http, "/page", on_page, (void *)"two"), -EEXIST);
	cr_assert_eq(pb_httpd_add(http, "/broken", on_broken, NULL), 0);
	cr_assert_eq(pb_httpd_add(http, "/empty", on_empty, NULL), 0);
}

static void change_to(char *listen)
{
	struct pb_err err = {0};

	config.http.listen = listen;
	cr_assert_eq(pb_httpd_reconfigure(http, &config, &err), 0);
}

static void set_up(void)
{
	uv_loop_init(&loop);
	cr_assert_not_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "unix:%s/http.sock", dir);
	free_port(AF_INET, where, sizeof(where));
	free_port(AF_INET, other, sizeof(other));
}

static void on_closed(void *arg)
{
	(void)arg;
	is_closed = true;
}

static void tear_down(void)
{
	pb_httpd_close(http, on_closed, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	cr_expect(is_closed);
	cr_expect_eq(uv_loop_close(&loop), 0, "a handle is left");
	cr_expect_eq(rmdir(dir), 0, "the socket is left");
}

TestSuite(http, .init = set_up, .fini = tear_down, .timeout = 60);

static int connect_to(const char *listen)
{
	struct pb_listen at;
	int fd;

	cr_assert_null(pb_listen_parse(listen, &at));
	fd = socket(at.addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&at.addr, at.len) < 0) {
		close(fd);
		return -errno;
	}
	return fd;
}

/* Turns the loop until the peer has ended or something that ends with `end` was read. */
static const char *read_until(int fd, const char *end)
{
	static char text[65536];
	size_t len = 0;

	for (;;) {
		ssize_t n = recv(fd, text + len, sizeof(text) - 1 - len, MSG_DONTWAIT);

		if (n > 0)
			len += (size_t)n;
		text[len] = '\0';
		if (n == 0 || (n < 0 && errno != EAGAIN) ||
		    (end && len >= strlen(end) && strcmp(text + len - strlen(end), end) == 0))
			return text;
		uv_run(&loop, UV_RUN_NOWAIT);
	}
}

/* One request on a connection of its own; the whole answer. */
static const char *ask(const char *listen, const char *request)
{
	int fd = connect_to(listen);
	const char *text;

	if (fd < 0)
		return strerror(-fd);
	cr_assert_eq(send(fd, request, strlen(request), MSG_NOSIGNAL), (ssize_t)strlen(request));
	text = read_until(fd, NULL);
	close(fd);
	return text;
}

#define END "Host: x\r\nConnection: close\r\n\r\n"

static const struct {
	const char *what, *request, *answer, *body;
} requests[] = {
	{"a page", "GET /page HTTP/1.1\r\n" END, "HTTP/1.1 200 OK\r\n", "page one of /page\n"},
	{"its query is ignored", "GET /page?a=b HTTP/1.1\r\n" END, "HTTP/1.1 200 OK\r\n",
	 "page one of /page\n"},
	{"HTTP/1.0", "GET /page HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n", "page one of /page\n"},
	{"brief", "GET /page HTTP/1.1\r\nBrief: true\r\n" END, "HTTP/1.1 203 ", NULL},
	{"HEAD has no body", "HEAD /page HTTP/1.1\r\n" END, "HTTP/1.1 200 OK\r\n", ""},
	{"nothing to say", "GET /empty HTTP/1.1\r\n" END, "HTTP/1.1 204 No Content\r\n", ""},
	{"an unknown path", "GET /nope HTTP/1.1\r\n" END, "HTTP/1.1 404 Not Found\r\n",
	 "not found\n"},
	{"no way up", "GET /page/../../etc/passwd HTTP/1.1\r\n" END, "HTTP/1.1 404 Not Found\r\n",
	 "not found\n"},
	{"an answer that fails", "GET /broken HTTP/1.1\r\n" END,
	 "HTTP/1.1 500 Internal Server Error\r\n", "no answer\n"},
	{"POST", "POST /page HTTP/1.1\r\nContent-Length: 3\r\n" END "abc",
	 "HTTP/1.1 405 Method Not Allowed\r\n", "only GET and HEAD\n"},
	{"DELETE", "DELETE /page HTTP/1.1\r\n" END, "HTTP/1.1 405 Method Not Allowed\r\n",
	 "only GET and HEAD\n"},
	{"a body", "GET /page HTTP/1.1\r\nContent-Length: 3\r\n" END "abc",
	 "HTTP/1.1 400 Bad Request\r\n", "no request has a body here\n"},
	{"a chunked body", "GET /page HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END "0\r\n\r\n",
	 "HTTP/1.1 400 Bad Request\r\n", "no request has a body here\n"},
	{"no HTTP", "\x16\x03\x01 hello\r\n\r\n", "HTTP/1.", NULL},
};

Test(http, requests_are_answered_or_refused)
{
	open_at(where);
	for (size_t i = 0; i < PB_ARRAY_LEN(requests); i++) {
		const char *text = ask(where, requests[i].request);
		const char *body = strstr(text, "\r\n\r\n");

		cr_expect_eq(strncmp(text, requests[i].answer, strlen(requests[i].answer)), 0,
			     "%s: %s", requests[i].what, text);
		if (requests[i].body)
			cr_expect_str_eq(body ? body + 4 : "", requests[i].body, "%s",
					 requests[i].what);
	}
}

Test(http, a_connection_is_used_again)
{
	static const char request[] = "GET /page HTTP/1.1\r\nHost: x\r\n\r\n";
	int fd;

	open_at(where);
	fd = connect_to(where);
	for (unsigned i = 1; i <= 3; i++) {
		cr_assert_gt(send(fd, request, strlen(request), MSG_NOSIGNAL), 0);
		cr_expect_not_null(strstr(read_until(fd, "/page\n"), "200 OK"));
		cr_expect_eq(asked, i);
	}
	close(fd);
}

Test(http, a_header_without_end_costs_a_bounded_amount_of_memory)
{
	static char flood[1 << 17];
	int fd;

	open_at(where);
	fd = connect_to(where);
	memset(flood, 'a', sizeof(flood));
	memcpy(flood, "GET /page HTTP/1.1\r\nX: ", 23);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	send(fd, flood, sizeof(flood), MSG_NOSIGNAL);
	cr_expect_not_null(strstr(read_until(fd, NULL), "431"), "the library gives up");
	cr_expect_eq(asked, 0);
	close(fd);
}

Test(http, more_connections_than_there_is_room_for_do_not_keep_others_out_for_ever)
{
	int fds[64];

	open_at(where);
	for (size_t i = 0; i < PB_ARRAY_LEN(fds); i++) {
		fds[i] = connect_to(where);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	for (size_t i = 0; i < PB_ARRAY_LEN(fds); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	/* As soon as the server has seen that they are gone. */
	while (!strstr(ask(where, "GET /page HTTP/1.1\r\n" END), "200 OK"))
		;
}

Test(http, it_listens_on_ipv6_and_on_a_unix_socket)
{
	char six[64];
	struct stat st;

	free_port(AF_INET6, six, sizeof(six));
	open_at(six);
	cr_expect_not_null(strstr(ask(six, "GET /page HTTP/1.1\r\n" END), "200 OK"));
	change_to(path);
	cr_expect_not_null(strstr(ask(path, "GET /page HTTP/1.1\r\n" END), "200 OK"));
	cr_assert_eq(stat(path + 5, &st), 0);
	cr_expect_eq(st.st_mode & 0777, 0660);
	cr_expect_str_eq(ask(six, ""), strerror(ECONNREFUSED), "the old one is closed");
}

Test(http, another_address_is_served_before_the_old_one_closes)
{
	PB_JSON_FREE cJSON *status = NULL;
	int fd;

	open_at(where);
	/* given a connection that is open */
	fd = connect_to(where);
	uv_run(&loop, UV_RUN_NOWAIT);
	change_to(other);
	cr_expect_not_null(strstr(ask(other, "GET /page HTTP/1.1\r\n" END), "200 OK"));
	cr_expect_str_eq(ask(where, ""), strerror(ECONNREFUSED));
	status = pb_httpd_status_json(http);
	cr_expect_str_eq(pb_json_str(status, "listen", ""), other);
	cr_expect_null(cJSON_GetObjectItem(status, "error"));
	close(fd);
}

Test(http, off_is_off)
{
	PB_JSON_FREE cJSON *status = NULL;

	open_at(where);
	change_to((char *)"off");
	cr_expect_str_eq(ask(where, ""), strerror(ECONNREFUSED));
	status = pb_httpd_status_json(http);
	cr_expect_str_eq(pb_json_str(status, "listen", ""), "off");
	change_to(where);
	cr_expect_not_null(strstr(ask(where, "GET /page HTTP/1.1\r\n" END), "200 OK"));
}

/* Takes an address as another process would. */
static int occupy(const char *listen_at)
{
	struct pb_listen at;
	int on = 1, fd;

	cr_assert_null(pb_listen_parse(listen_at, &at));
	fd = socket(at.addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	cr_assert_eq(bind(fd, (struct sockaddr *)&at.addr, at.len), 0);
	cr_assert_eq(listen(fd, 1), 0);
	return fd;
}

Test(http, a_taken_port_is_reported_and_the_old_address_is_kept)
{
	PB_JSON_FREE cJSON *at_start = NULL, *later = NULL, *back = NULL;
	int fd = occupy(where);

	/* given a port that is taken at the start, then nothing listens and status says why */
	open_at(where);
	at_start = pb_httpd_status_json(http);
	cr_expect_str_eq(pb_json_str(at_start, "listen", ""), "off");
	cr_expect_str_eq(pb_json_str(at_start, "wanted", ""), where);
	cr_expect_str_eq(pb_json_str(at_start, "error", ""), "Address already in use");
	change_to(other);
	/* given a server, when it shall move to the taken port, then it stays where it is */
	change_to(where);
	later = pb_httpd_status_json(http);
	cr_expect_str_eq(pb_json_str(later, "listen", ""), other);
	cr_expect_str_eq(pb_json_str(later, "wanted", ""), where);
	cr_expect_not_null(strstr(ask(other, "GET /page HTTP/1.1\r\n" END), "200 OK"));
	/* when the wish is taken back, then nothing is wrong any more */
	change_to(other);
	back = pb_httpd_status_json(http);
	cr_expect_null(cJSON_GetObjectItem(back, "error"));
	close(fd);
}

static bool listens(void)
{
	PB_JSON_FREE cJSON *status = pb_httpd_status_json(http);

	return !cJSON_GetObjectItem(status, "error");
}

Test(http, a_taken_port_is_tried_again)
{
	int fd = occupy(where);

	open_at(where);
	cr_expect_not(listens());
	close(fd);
	while (!listens())
		uv_run(&loop, UV_RUN_ONCE);
	cr_expect_not_null(strstr(ask(where, "GET /page HTTP/1.1\r\n" END), "200 OK"));
}

Test(http, a_dead_unix_socket_is_replaced_and_a_living_one_is_not)
{
	PB_JSON_FREE cJSON *status = NULL;
	int fd = occupy(path);

	open_at(path);
	status = pb_httpd_status_json(http);
	cr_expect_not_null(
		strstr(pb_json_str(status, "error", ""), "another process answers on this socket"));
	close(fd);
	change_to((char *)"off");
	change_to(path);
	cr_expect_not_null(strstr(ask(path, "GET /page HTTP/1.1\r\n" END), "200 OK"));
}
