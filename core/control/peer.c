/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection: lines in, answers out, both bounded. A peer that doesn't read its answers is
 * not read from; one that takes nothing for long is dropped.
 */
#include <control/internal.h>

#include <utlist.h>

#include <base/log.h>

struct control_write {
	uv_write_t req;
	size_t len;
	char data[];
};

static void peer_serve(struct control_peer *peer);

static void peer_free_request(struct pb_request *req)
{
	cJSON_Delete(req->body);
	free(req->args);
	free(req);
}

static void peer_handle_closed(uv_handle_t *handle)
{
	struct control_peer *peer = handle->data;
	struct pb_control *control = peer->control;

	if (--peer->handles > 0)
		return;
	DL_DELETE(control->peers, peer);
	control->n_peers--;
	pb_buf_free(&peer->in);
	free(peer);
	control_maybe_closed(control);
}

void control_peer_close(struct control_peer *peer)
{
	struct pb_request *req;

	if (peer->closing)
		return;
	peer->closing = true;
	/* Their handlers still answer; it goes nowhere. */
	DL_FOREACH (peer->requests, req)
		req->peer = NULL;
	peer->requests = NULL;
	uv_close((uv_handle_t *)&peer->pipe, peer_handle_closed);
	uv_close((uv_handle_t *)&peer->stall, peer_handle_closed);
	uv_close((uv_handle_t *)&peer->turn, peer_handle_closed);
}

static void peer_stalled(uv_timer_t *timer)
{
	struct control_peer *peer = timer->data;
	size_t queue = uv_stream_get_write_queue_size((uv_stream_t *)&peer->pipe);

	if (queue == 0 || queue < peer->last_queue) {
		peer->last_queue = queue;
		return;
	}
	if (peer->last_queue == 0) {
		peer->last_queue = queue;
		return;
	}
	pb_warn("control", "dropped a connection whose peer doesn't read its answers");
	control_peer_close(peer);
}

static void peer_written(uv_write_t *uv_req, int status)
{
	struct control_write *w = (struct control_write *)uv_req;
	struct control_peer *peer = uv_req->handle->data;

	peer->queued -= w->len;
	free(w);
	if (status < 0 || (peer->last && peer->queued == 0)) {
		control_peer_close(peer);
		return;
	}
	if (peer->queued == 0) {
		peer->last_queue = 0;
		uv_timer_stop(&peer->stall);
	}
	peer_serve(peer);
}

static int peer_send(struct control_peer *peer, const char *text, size_t len)
{
	struct control_write *w = malloc(sizeof(*w) + len + 1);
	uv_buf_t buf;
	int rc;

	if (!w)
		return -ENOMEM;
	memcpy(w->data, text, len);
	w->data[len] = '\n';
	w->len = len + 1;
	buf = uv_buf_init(w->data, (unsigned)w->len);
	rc = uv_write(&w->req, (uv_stream_t *)&peer->pipe, &buf, 1, peer_written);
	if (rc < 0) {
		free(w);
		return rc;
	}
	peer->queued += w->len;
	if (!uv_is_active((uv_handle_t *)&peer->stall))
		uv_timer_start(&peer->stall, peer_stalled, CONTROL_STALL_MS, CONTROL_STALL_MS);
	return 0;
}

/* Takes over `answer`. */
static void peer_answer(struct control_peer *peer, const cJSON *id, cJSON *answer)
{
	PB_JSON_FREE cJSON *owned = answer;
	PB_FREE char *text = NULL;
	size_t len;

	if (id)
		cJSON_AddItemToObject(answer, "id", cJSON_Duplicate(id, true));
	text = cJSON_PrintUnformatted(answer);
	len = text ? strlen(text) : 0;
	if (len > CONTROL_ANSWER_MAX) {
		free(text);
		text = strdup("{\"ok\":false,\"errno\":7,\"error\":\"the answer is larger than 64 "
			      "MiB; ask for less\"}");
		len = text ? strlen(text) : 0;
	}
	if (!text || peer_send(peer, text, len) < 0)
		control_peer_close(peer);
}

static cJSON *peer_error(int err, const char *text)
{
	cJSON *answer = cJSON_CreateObject();

	cJSON_AddBoolToObject(answer, "ok", false);
	cJSON_AddNumberToObject(answer, "errno", err < 0 ? -err : err);
	cJSON_AddStringToObject(answer, "error", text);
	return answer;
}

static void peer_end(struct control_peer *peer, cJSON *answer)
{
	peer->last = true;
	uv_read_stop((uv_stream_t *)&peer->pipe);
	peer->reading = false;
	peer_answer(peer, NULL, answer);
}

static void peer_refuse(struct control_peer *peer, int err, const char *text)
{
	peer_end(peer, peer_error(err, text));
}

/* A mark of its own, because an operation may fail by EACCES too. */
static void peer_refuse_user(struct control_peer *peer, const char *text)
{
	cJSON *answer = peer_error(EACCES, text);

	cJSON_AddBoolToObject(answer, "refused", true);
	peer_end(peer, answer);
}

static void request_done(struct pb_request *req, cJSON *answer)
{
	struct control_peer *peer = req->peer;

	if (!peer) {
		cJSON_Delete(answer);
		peer_free_request(req);
		return;
	}
	DL_DELETE(peer->requests, req);
	peer->n_requests--;
	peer_answer(peer, req->id, answer);
	peer_free_request(req);
	if (!peer->closing)
		peer_serve(peer);
}

void pb_request_reply(struct pb_request *req, cJSON *result)
{
	cJSON *answer = cJSON_CreateObject();

	cJSON_AddBoolToObject(answer, "ok", true);
	cJSON_AddItemToObject(answer, "result", result ? result : cJSON_CreateObject());
	request_done(req, answer);
}

void pb_request_fail(struct pb_request *req, int err, const char *fmt, ...)
{
	PB_FREE char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	request_done(req, peer_error(err, text ? text : "out of memory"));
}

static void peer_line(struct control_peer *peer, const char *line, size_t len)
{
	struct pb_request *req = calloc(1, sizeof(*req));

	if (!req) {
		peer_refuse(peer, ENOMEM, "out of memory");
		return;
	}
	req->peer = peer;
	req->body = cJSON_ParseWithLength(line, len);
	DL_APPEND(peer->requests, req);
	peer->n_requests++;
	if (!cJSON_IsObject(req->body)) {
		pb_request_fail(req, EINVAL,
				"a request is one JSON object in one line, such as "
				"{\"command\":\"status\",\"args\":[]}");
		return;
	}
	req->id = cJSON_GetObjectItemCaseSensitive(req->body, "id");
	control_dispatch(peer->control, req);
}

static bool peer_is_behind(const struct control_peer *peer)
{
	return peer->queued > CONTROL_QUEUE_MAX || peer->n_requests >= CONTROL_REQUESTS_MAX;
}

static void peer_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct control_peer *peer = handle->data;

	(void)suggested;
	*buf = uv_buf_init(peer->control->chunk, sizeof(peer->control->chunk));
}

static void peer_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct control_peer *peer = stream->data;

	if (n == 0)
		return;
	if (n < 0) {
		uv_read_stop(stream);
		peer->reading = false;
		peer->eof = true;
		if (n == UV_EOF)
			peer_serve(peer);
		else
			control_peer_close(peer);
		return;
	}
	if (pb_buf_append(&peer->in, buf->base, (size_t)n) < 0) {
		control_peer_close(peer);
		return;
	}
	peer_serve(peer);
}

static void peer_turn(uv_timer_t *timer)
{
	struct control_peer *peer = timer->data;

	peer->more = false;
	peer_serve(peer);
}

static void peer_consume_lines(struct control_peer *peer)
{
	uint64_t deadline = pb_now_ns() + CONTROL_TURN_NS;
	size_t done = 0;

	while (done < peer->in.len && !peer->closing && !peer->last && !peer->more &&
	       !peer_is_behind(peer)) {
		char *line = peer->in.data + done;
		char *end = memchr(line, '\n', peer->in.len - done);

		if (!end)
			break;
		if (done && pb_now_ns() > deadline) {
			peer->more = true;
			uv_timer_start(&peer->turn, peer_turn, CONTROL_PAUSE_MS, 0);
			break;
		}
		done = (size_t)(end + 1 - peer->in.data);
		peer_line(peer, line, (size_t)(end - line));
	}
	if (done) {
		memmove(peer->in.data, peer->in.data + done, peer->in.len - done);
		peer->in.len -= done;
	}
}

/* Handles the lines that are there, as far as the peer keeps up, and reads on if it does. */
static void peer_serve(struct control_peer *peer)
{
	bool behind;

	if (peer->serving || peer->closing || peer->last)
		return;
	peer->serving = true;
	peer_consume_lines(peer);
	peer->serving = false;
	if (peer->closing || peer->last)
		return;
	/* A peer may close its sending side and still wait for answers. */
	if (peer->eof && peer->queued == 0 && !peer->requests && !peer->more) {
		control_peer_close(peer);
		return;
	}
	behind = peer->more || peer_is_behind(peer);
	if (!behind && peer->in.len > CONTROL_LINE_MAX) {
		peer_refuse(peer, EMSGSIZE, "a request may have at most 64 KiB");
		return;
	}
	if (behind && peer->reading)
		uv_read_stop((uv_stream_t *)&peer->pipe);
	else if (!behind && !peer->reading && !peer->eof)
		uv_read_start((uv_stream_t *)&peer->pipe, peer_alloc, peer_read);
	peer->reading = !behind && !peer->eof;
}

void control_peer_accept(struct pb_control *control)
{
	struct control_peer *peer = calloc(1, sizeof(*peer));
	struct pb_err err;
	uv_os_fd_t fd;

	if (!peer)
		return;
	peer->control = control;
	peer->handles = 3;
	uv_pipe_init(control->pipe.loop, &peer->pipe, 0);
	uv_timer_init(control->pipe.loop, &peer->stall);
	uv_timer_init(control->pipe.loop, &peer->turn);
	peer->pipe.data = peer;
	peer->stall.data = peer;
	peer->turn.data = peer;
	DL_APPEND(control->peers, peer);
	control->n_peers++;
	if (uv_accept((uv_stream_t *)&control->pipe, (uv_stream_t *)&peer->pipe) < 0 ||
	    uv_fileno((uv_handle_t *)&peer->pipe, &fd) < 0)
		control_peer_close(peer);
	else if (control_check_peer(control, fd, &err) < 0)
		peer_refuse_user(peer, err.text);
	else if (control->n_peers > CONTROL_PEERS_MAX)
		peer_refuse(peer, EAGAIN, "too many connections to the agent; try again");
	else
		peer_serve(peer);
}
