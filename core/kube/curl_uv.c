/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl's multi handle on a libuv loop. While curl is on the stack (depth > 0) no handle may
 * be removed and nothing freed: cancel and close leave a mark and are done on the way out.
 */
#include <kube/curl_uv.h>

#include <utlist.h>

#define ERROR_BODY_MAX ((size_t)64 * 1024)
/* How long curl may hand over bodies before other work of the loop gets its turn. */
#define SLICE_NS 2000000ULL

struct pb_http {
	uv_loop_t *loop;
	CURLM *multi;
	uv_timer_t timer; /* curl's */
	uv_idle_t now;	  /* curl's, when it wants no time to pass */
	uv_idle_t resume; /* bodies that wait for their turn */
	struct pb_http_request *requests;
	struct http_socket *sockets;
	uint64_t slice_start;
	unsigned depth;
	unsigned handles; /* of libuv, not yet closed */
	bool closing;
	void (*closed)(void *arg);
	void *closed_arg;
};

struct pb_http_request {
	struct pb_http *http;
	struct pb_http_request *prev, *next;
	CURL *easy;
	struct curl_slist *headers;
	struct pb_http_calls calls;
	void *arg;
	struct pb_buf error_body;
	int body_rc; /* what the body callback ended the request with */
	bool paused;
	bool cancelled;
	char error[CURL_ERROR_SIZE];
};

struct http_socket {
	uv_poll_t poll;
	struct pb_http *http;
	struct http_socket *prev, *next;
	curl_socket_t fd;
};

static void http_enter(struct pb_http *http)
{
	if (http->depth++ == 0)
		http->slice_start = uv_hrtime();
}

static void http_leave(struct pb_http *http);

/* ---- sockets ---- */

static void maybe_free(struct pb_http *http)
{
	if (http->handles)
		return;
	if (http->closed)
		http->closed(http->closed_arg);
	free(http);
	curl_global_cleanup();
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct pb_http *http = handle->data;

	http->handles--;
	maybe_free(http);
}

static void on_socket_closed(uv_handle_t *handle)
{
	struct http_socket *sock = handle->data;
	struct pb_http *http = sock->http;

	free(sock);
	http->handles--;
	if (http->closing)
		maybe_free(http);
}

static void socket_close(struct http_socket *sock)
{
	DL_DELETE(sock->http->sockets, sock);
	uv_poll_stop(&sock->poll);
	uv_close((uv_handle_t *)&sock->poll, on_socket_closed);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct http_socket *sock = poll->data;
	struct pb_http *http = sock->http;
	int flags = status < 0 ? CURL_CSELECT_ERR : 0;
	int running;

	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	http_enter(http);
	curl_multi_socket_action(http->multi, sock->fd, flags, &running);
	http_leave(http);
}

static struct http_socket *socket_new(struct pb_http *http, curl_socket_t fd)
{
	struct http_socket *sock = calloc(1, sizeof(*sock));

	if (!sock || uv_poll_init_socket(http->loop, &sock->poll, fd) < 0) {
		free(sock);
		return NULL;
	}
	sock->http = http;
	sock->fd = fd;
	sock->poll.data = sock;
	http->handles++;
	DL_APPEND(http->sockets, sock);
	curl_multi_assign(http->multi, fd, sock);
	return sock;
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct http_socket *sock = known;
	struct pb_http *http = arg;
	int events = 0;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (sock) {
			curl_multi_assign(http->multi, fd, NULL);
			socket_close(sock);
		}
		return 0;
	}
	if (!sock)
		sock = socket_new(http, fd);
	if (!sock)
		return -1;
	if (what != CURL_POLL_OUT)
		events |= UV_READABLE;
	if (what != CURL_POLL_IN)
		events |= UV_WRITABLE;
	return uv_poll_start(&sock->poll, events, on_poll) < 0 ? -1 : 0;
}

/* ---- timers ---- */

static void time_passed(struct pb_http *http)
{
	int running;

	http_enter(http);
	curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	http_leave(http);
}

static void on_timer(uv_timer_t *timer)
{
	time_passed(timer->data);
}

static void on_now(uv_idle_t *now)
{
	uv_idle_stop(now);
	time_passed(now->data);
}

/*
 * curl says 0 whenever it read bytes of one stream on behalf of another, so with several watches
 * on a connection that is the usual way of an event. A timer of 1 ms would cost up to 2 for each
 * 16 KiB; one of 0 that restarts itself is run for ever within one round of the loop.
 */

static int on_curl_timer(CURLM *multi, long ms, void *arg)
{
	struct pb_http *http = arg;

	(void)multi;
	uv_idle_stop(&http->now);
	uv_timer_stop(&http->timer);
	if (http->closing || ms < 0)
		return 0;
	if (ms == 0)
		return uv_idle_start(&http->now, on_now);
	return uv_timer_start(&http->timer, on_timer, (uint64_t)ms, 0);
}

/* ---- requests ---- */

static bool is_success(CURL *easy)
{
	long status = 0;

	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	return status >= 200 && status < 300;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
	struct pb_http_request *r = arg;

	if (r->cancelled || r->http->closing)
		return 0;
	if (n == 2 && line[0] == '\r' && is_success(r->easy) && r->calls.opened)
		r->calls.opened(r->arg);
	return r->cancelled ? 0 : size * n;
}

static void on_resume(uv_idle_t *idle);

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct pb_http_request *r = arg;
	size_t room = ERROR_BODY_MAX - r->error_body.len;

	(void)size;
	if (r->cancelled || r->http->closing)
		return 0;
	if (!is_success(r->easy)) {
		if (pb_buf_append(&r->error_body, data, n < room ? n : room) < 0)
			r->body_rc = -ENOMEM;
		return r->body_rc < 0 ? 0 : n;
	}
	if (uv_hrtime() - r->http->slice_start > SLICE_NS) {
		r->paused = true;
		uv_idle_start(&r->http->resume, on_resume);
		return CURL_WRITEFUNC_PAUSE;
	}
	r->body_rc = r->calls.body(r->arg, data, n);
	return r->body_rc < 0 || r->cancelled ? 0 : n;
}

/* Off the list and out of curl; not while curl is on the stack. */
static void request_detach(struct pb_http_request *r)
{
	curl_multi_remove_handle(r->http->multi, r->easy);
	DL_DELETE(r->http->requests, r);
}

static void request_free(struct pb_http_request *r)
{
	curl_easy_cleanup(r->easy);
	curl_slist_free_all(r->headers);
	pb_buf_free(&r->error_body);
	free(r);
}

static int errno_of(CURLcode code)
{
	switch (code) {
	case CURLE_OK:
		return 0;
	case CURLE_COULDNT_CONNECT:
		return -ECONNREFUSED;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return -EHOSTUNREACH;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CONNECT_ERROR:
		return -EACCES;
	default:
		return -EIO;
	}
}

/* Takes the request out, tells its owner, frees it. */
static void request_finish(struct pb_http_request *r, int rc, const char *text)
{
	struct pb_http_result result = {.rc = r->body_rc < 0 ? r->body_rc : rc, .text = text};
	curl_off_t retry_after = 0;

	curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &result.status);
	curl_easy_getinfo(r->easy, CURLINFO_RETRY_AFTER, &retry_after);
	result.retry_after = (long)retry_after;
	result.body = r->error_body.data ? r->error_body.data : "";
	request_detach(r);
	if (!r->cancelled && !r->http->closing)
		r->calls.done(r->arg, &result);
	request_free(r);
}

static void finish_with_code(struct pb_http_request *r, CURLcode code)
{
	request_finish(r, errno_of(code), r->error[0] ? r->error : curl_easy_strerror(code));
}

static void take_finished(struct pb_http *http)
{
	struct pb_http_request *r;
	CURLMsg *msg;
	int left;

	while (!http->closing && (msg = curl_multi_info_read(http->multi, &left))) {
		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&r);
		finish_with_code(r, msg->data.result);
	}
}

static void drop_cancelled(struct pb_http *http)
{
	struct pb_http_request *r, *next;

	DL_FOREACH_SAFE(http->requests, r, next)
	{
		if (r->cancelled || http->closing) {
			request_detach(r);
			request_free(r);
		}
	}
}

static void http_destroy(struct pb_http *http)
{
	struct http_socket *sock, *next;

	drop_cancelled(http);
	curl_multi_cleanup(http->multi);
	DL_FOREACH_SAFE(http->sockets, sock, next)
	{
		socket_close(sock);
	}
	uv_close((uv_handle_t *)&http->timer, on_handle_closed);
	uv_close((uv_handle_t *)&http->now, on_handle_closed);
	uv_close((uv_handle_t *)&http->resume, on_handle_closed);
}

/* Callbacks of `done` run at depth 1 too, so that a close in one of them waits for the end. */
static void http_leave(struct pb_http *http)
{
	if (http->depth > 1) {
		http->depth--;
		return;
	}
	take_finished(http);
	drop_cancelled(http);
	http->depth--;
	if (http->closing)
		http_destroy(http);
}

static void on_resume(uv_idle_t *idle)
{
	struct pb_http *http = idle->data;
	struct pb_http_request *r, *next;
	CURLcode code;

	uv_idle_stop(idle);
	http_enter(http);
	DL_FOREACH_SAFE(http->requests, r, next)
	{
		if (!r->paused || r->cancelled || http->closing)
			continue;
		r->paused = false;
		code = curl_easy_pause(r->easy, CURLPAUSE_CONT);
		/* A body that is refused here ends no transfer by itself. */
		if (code != CURLE_OK && !r->cancelled) {
			finish_with_code(r, code);
			/* Its owner may have changed the list. */
			next = http->requests;
		}
	}
	http_leave(http);
}

int pb_http_start(struct pb_http *http, CURL *easy, struct curl_slist *headers,
		  const struct pb_http_calls *calls, void *arg,
		  struct pb_http_request **ret_request)
{
	struct pb_http_request *r = calloc(1, sizeof(*r));

	if (!r || http->closing) {
		free(r);
		curl_easy_cleanup(easy);
		curl_slist_free_all(headers);
		return http->closing ? -ESHUTDOWN : -ENOMEM;
	}
	r->http = http;
	r->easy = easy;
	r->headers = headers;
	r->calls = *calls;
	r->arg = arg;
	curl_easy_setopt(easy, CURLOPT_PRIVATE, r);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, r->error);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, r);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, r);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	if (curl_multi_add_handle(http->multi, easy) != CURLM_OK) {
		request_free(r);
		return -ENOMEM;
	}
	DL_APPEND(http->requests, r);
	*ret_request = r;
	return 0;
}

void pb_http_cancel(struct pb_http_request *r)
{
	r->cancelled = true;
	if (r->http->depth)
		return;
	request_detach(r);
	request_free(r);
}

unsigned pb_http_version(const struct pb_http_request *r)
{
	long version = 0;

	curl_easy_getinfo(r->easy, CURLINFO_HTTP_VERSION, &version);
	return version == 0 ? 0 : version >= CURL_HTTP_VERSION_2_0 ? 2 : 1;
}

/* ---- the whole ---- */

static CURLM *multi_new(struct pb_http *http)
{
	CURLM *multi = curl_multi_init();

	if (!multi)
		return NULL;
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
	curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
	curl_multi_setopt(multi, CURLMOPT_TIMERDATA, http);
	return multi;
}

int pb_http_new(uv_loop_t *loop, struct pb_http **ret_http, struct pb_err *err)
{
	struct pb_http *http = calloc(1, sizeof(*http));

	if (!http)
		return pb_err_set(err, -ENOMEM, "http: out of memory");
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(http);
		return pb_err_set(err, -EIO, "libcurl could not be initialised");
	}
	http->loop = loop;
	http->multi = multi_new(http);
	if (!http->multi) {
		free(http);
		curl_global_cleanup();
		return pb_err_set(err, -ENOMEM, "http: out of memory");
	}
	uv_timer_init(loop, &http->timer);
	uv_idle_init(loop, &http->now);
	uv_idle_init(loop, &http->resume);
	http->timer.data = http->now.data = http->resume.data = http;
	http->handles = 3;
	*ret_http = http;
	return 0;
}

void pb_http_close(struct pb_http *http, void (*closed)(void *arg), void *arg)
{
	http->closing = true;
	http->closed = closed;
	http->closed_arg = arg;
	if (http->depth == 0)
		http_destroy(http);
}

void pb_http_reset(struct pb_http *http, const char *text)
{
	struct pb_http_request *r, *next, *ended = http->requests;
	CURLM *fresh = multi_new(http);

	if (!fresh)
		return;
	http->depth++;
	DL_FOREACH (ended, r) {
		curl_multi_remove_handle(http->multi, r->easy);
	}
	http->requests = NULL;
	curl_multi_cleanup(http->multi);
	http->multi = fresh;
	DL_FOREACH_SAFE(ended, r, next)
	{
		struct pb_http_result result = {.rc = -ETIMEDOUT, .text = text, .body = ""};

		if (!r->cancelled && !http->closing)
			r->calls.done(r->arg, &result);
		request_free(r);
	}
	http_leave(http);
}
