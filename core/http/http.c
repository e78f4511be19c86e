/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's life: listens, tries again, changes its address, closes.
 *
 * libmicrohttpd speaks HTTP; its epoll descriptor and its next deadline hang on the agent's loop,
 * it has no thread. No failure here ever ends the agent.
 */
#include <http/private.h>

#include <sys/un.h>

/* ---- one server ---- */

static void on_deadline(uv_timer_t *timer);

static void server_work(struct http_server *server)
{
	MHD_UNSIGNED_LONG_LONG ms;

	MHD_run(server->mhd);
	/* A timer of 0 could run again in the same turn of the loop. */
	if (MHD_get_timeout(server->mhd, &ms) == MHD_YES)
		uv_timer_start(&server->timer, on_deadline, ms ? ms : 1, 0);
	else
		uv_timer_stop(&server->timer);
}

static void on_deadline(uv_timer_t *timer)
{
	server_work(timer->data);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	server_work(poll->data);
}

static void server_free(struct http_server *server)
{
	if (server->mhd)
		MHD_stop_daemon(server->mhd);
	free(server->text);
	free(server);
}

static int server_watch(struct http_server *server)
{
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(server->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	struct pb_httpd *http = server->http;
	int rc = info ? uv_poll_init(http->loop, &server->poll, info->epoll_fd) : -ENOTSUP;

	if (rc < 0)
		return rc;
	uv_timer_init(http->loop, &server->timer);
	server->poll.data = server->timer.data = server;
	server->handles = 2;
	http->handles += 2;
	return uv_poll_start(&server->poll, UV_READABLE, on_ready);
}

/* Takes over the socket. */
static struct MHD_Daemon *daemon_new(struct pb_httpd *http, int fd)
{
	return MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, http_answer, http,
				MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
				(unsigned)HTTP_CONNECTIONS_MAX, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
				(unsigned)HTTP_CONNECTIONS_MAX_PER_IP,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_CONNECTION_MEMORY,
				MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_CONNECTION_TIMEOUT_S,
				MHD_OPTION_END);
}

static void server_close(struct http_server *server);

static int server_new(struct pb_httpd *http, const struct pb_listen *listen,
		      struct http_server **ret_server, struct pb_err *err)
{
	struct http_server *server = calloc(1, sizeof(*server));
	PB_CLOSE int fd = -1;
	int rc;

	if (server)
		server->text = strdup(http->wanted);
	if (!server || !server->text) {
		free(server);
		return pb_err_set(err, -ENOMEM, "out of memory");
	}
	server->http = http;
	server->listen = *listen;
	rc = http_socket(http, listen, &fd, &server->file, err);
	if (rc == 0) {
		server->mhd = daemon_new(http, fd);
		if (server->mhd)
			PB_TAKE_FD(fd);
		else
			rc = pb_err_set(err, -ENOMEM, "the HTTP library can't start");
	}
	if (rc < 0) {
		server_free(server);
		return rc;
	}
	rc = server_watch(server);
	if (rc < 0) {
		server_close(server);
		return pb_err_set(err, rc, "event loop: %s", uv_strerror(rc));
	}
	*ret_server = server;
	return 0;
}

static void http_handle_closed(struct pb_httpd *http)
{
	void (*closed)(void *arg) = http->closed;
	void *arg = http->closed_arg;
	struct http_path *path, *next;

	if (--http->handles || !closed)
		return;
	LL_FOREACH_SAFE(http->paths, path, next)
	free(path);
	free(http->wanted);
	free(http->group);
	free(http);
	closed(arg);
}

static void server_handle_closed(uv_handle_t *handle)
{
	struct http_server *server = handle->data;
	struct pb_httpd *http = server->http;

	if (--server->handles == 0)
		server_free(server);
	http_handle_closed(http);
}

static void server_close(struct http_server *server)
{
	const struct sockaddr_un *addr = (const struct sockaddr_un *)&server->listen.addr;

	if (addr->sun_family == AF_UNIX)
		pb_unix_remove(addr->sun_path, &server->file);
	if (!server->handles) {
		server_free(server);
		return;
	}
	uv_close((uv_handle_t *)&server->poll, server_handle_closed);
	uv_close((uv_handle_t *)&server->timer, server_handle_closed);
	/* The loop looks at the library's descriptor no more, so its sockets may close at once. */
	MHD_stop_daemon(PB_TAKE_PTR(server->mhd));
}

/* ---- listening where the configuration says ---- */

static void on_retry(uv_timer_t *timer);

/* Said once: a port that stays taken is no news. */
static void listen_failed(struct pb_httpd *http, const struct pb_err *err)
{
	if (strcmp(http->error.text, err->text) != 0)
		pb_error("http",
			 "http.listen %s: %s; free it, or set http.listen to another address or "
			 "off; tried again every %d s%s%s",
			 http->wanted, err->text, HTTP_RETRY_MS / 1000,
			 http->server ? ", until then at " : "",
			 http->server ? http->server->text : "");
	http->error = *err;
	uv_timer_start(&http->retry, on_retry, HTTP_RETRY_MS, 0);
}

/* The new socket before the old one closes. */
static void listen_as_wanted(struct pb_httpd *http)
{
	struct http_server *server = NULL, *old = http->server;
	struct pb_listen listen;
	struct pb_err err = {0};

	pb_listen_parse(http->wanted, &listen);
	if (listen.len && server_new(http, &listen, &server, &err) < 0) {
		listen_failed(http, &err);
		return;
	}
	uv_timer_stop(&http->retry);
	http->error.text[0] = '\0';
	http->server = server;
	if (old)
		server_close(old);
	if (server)
		pb_info("http", "listens at %s", server->text);
}

static void on_retry(uv_timer_t *timer)
{
	listen_as_wanted(timer->data);
}

/* ---- what others call ---- */

int pb_httpd_new(uv_loop_t *loop, const struct pb_config *config, struct pb_httpd **ret_http,
		 struct pb_err *err)
{
	struct pb_httpd *http = calloc(1, sizeof(*http));
	const char *group = config->control.group;

	if (http) {
		http->wanted = strdup(config->http.listen);
		http->group = group ? strdup(group) : NULL;
	}
	if (!http || !http->wanted || (group && !http->group)) {
		if (http)
			free(http->wanted);
		free(http);
		return pb_err_set(err, -ENOMEM, "http: out of memory");
	}
	http->loop = loop;
	uv_timer_init(loop, &http->retry);
	http->retry.data = http;
	http->handles = 1;
	listen_as_wanted(http);
	*ret_http = http;
	return 0;
}

int pb_httpd_add(struct pb_httpd *http, const char *path, pb_httpd_fn fn, void *arg)
{
	struct http_path *p;

	LL_FOREACH (http->paths, p) {
		if (strcmp(p->path, path) == 0)
			return -EEXIST;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	*p = (struct http_path){.path = path, .fn = fn, .arg = arg};
	LL_APPEND(http->paths, p);
	return 0;
}

int pb_httpd_reconfigure(struct pb_httpd *http, const struct pb_config *config, struct pb_err *err)
{
	char *wanted;

	if (strcmp(http->wanted, config->http.listen) == 0)
		return 0;
	wanted = strdup(config->http.listen);
	if (!wanted)
		return pb_err_set(err, -ENOMEM, "http: out of memory");
	free(http->wanted);
	http->wanted = wanted;
	http->error.text[0] = '\0';
	/* Back to where it listens still, after an address that was taken. */
	if (http->server && strcmp(http->server->text, wanted) == 0)
		uv_timer_stop(&http->retry);
	else
		listen_as_wanted(http);
	return 0;
}

static void retry_closed(uv_handle_t *handle)
{
	http_handle_closed(handle->data);
}

void pb_httpd_close(struct pb_httpd *http, void (*closed)(void *arg), void *arg)
{
	http->closed = closed;
	http->closed_arg = arg;
	if (http->server)
		server_close(PB_TAKE_PTR(http->server));
	uv_close((uv_handle_t *)&http->retry, retry_closed);
}

cJSON *pb_httpd_status_json(const struct pb_httpd *http)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddStringToObject(o, "listen", http->server ? http->server->text : "off");
	if (!http->error.text[0])
		return o;
	cJSON_AddStringToObject(o, "wanted", http->wanted);
	cJSON_AddStringToObject(o, "error", http->error.text);
	return o;
}
