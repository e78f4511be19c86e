/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of a kind: pages, streamed item by item into the sink.
 *
 * A page that broke off is asked for again with the same token: the token names a snapshot, so
 * the same objects come. A first page that broke off names none: what it brought may be gone by
 * the next try, so the sink has to forget that a list began.
 */
#include <kube/reflector_priv.h>

#include <base/log.h>

#define PAGE 500

char *reflector_escape(const char *text)
{
	char *escaped = curl_easy_escape(NULL, text, 0);
	char *copy = escaped ? strdup(escaped) : NULL;

	curl_free(escaped);
	return copy;
}

char *reflector_path(const struct pb_reflector *r)
{
	const struct pb_api_resource *res = r->resource;
	const char *version = res->versions[r->version];
	PB_FREE char *base = NULL;

	if (res->group[0])
		base = pb_sprintf("/apis/%s/%s/%s?", res->group, version, res->plural);
	else
		base = pb_sprintf("/api/%s/%s?", version, res->plural);
	if (!base || !res->selector)
		return PB_TAKE_PTR(base);
	return pb_sprintf("%slabelSelector=%s&", base, res->selector);
}

void reflector_list_abort(struct pb_reflector *r)
{
	free(PB_TAKE_PTR(r->next_page));
	if (!r->listing)
		return;
	r->listing = false;
	pb_sink_list_abort(r->sink, r->resource->kind);
}

void reflector_list_begin(struct pb_reflector *r)
{
	char version[128];

	if (r->listing)
		return;
	r->listing = true;
	pb_sink_list_begin(r->sink, r->resource->kind);
	reflector_api_version(r, version, sizeof(version));
	pb_sink_version(r->sink, r->resource->kind, version);
	reflector_state(r, r->failures == 0, "listing");
}

void reflector_list_end(struct pb_reflector *r, const char *version)
{
	snprintf(r->rv, sizeof(r->rv), "%s", version);
	r->listing = false;
	r->list_once = false;
	r->initial_failures = 0;
	r->told_absent = false;
	r->list_options = LIST_CURRENT;
	r->lists++;
	r->listed_at = uv_now(r->loop);
	pb_sink_list_end(r->sink, r->resource->kind);
}

void reflector_relist(struct pb_reflector *r, const char *reason)
{
	r->rv[0] = '\0';
	r->list_options = LIST_CURRENT;
	snprintf(r->relist_reason, sizeof(r->relist_reason), "%s", reason);
}

static int on_item(void *arg, const char *json, size_t len)
{
	struct pb_reflector *r = arg;
	char api_version[128];
	struct pb_err err;

	reflector_api_version(r, api_version, sizeof(api_version));
	if (pb_sink_put(r->sink, r->resource->kind, api_version, json, len, &err) < 0)
		pb_warn("kube", "%s", err.text);
	return r->stopped || !r->call ? -ECANCELED : 0;
}

static int on_list_body(void *arg, const char *data, size_t len)
{
	struct pb_reflector *r = arg;
	struct pb_err err;
	int rc;

	r->last_byte = r->last_event = uv_now(r->loop);
	r->bytes += len;
	rc = pb_json_stream_feed(r->list, data, len, &err);
	if (rc < 0 && rc != -ECANCELED)
		snprintf(r->why, sizeof(r->why), "%s", err.text);
	return rc;
}

/* All pages are in. */
static void list_complete(struct pb_reflector *r)
{
	char version[RV_MAX];

	snprintf(version, sizeof(version), "%s", pb_json_stream_version(r->list));
	free(PB_TAKE_PTR(r->next_page));
	r->list = pb_json_stream_free(r->list);
	reflector_list_end(r, version);
	if (!r->stopped)
		reflector_run(r);
}

static void list_broken(struct pb_reflector *r, const char *why)
{
	char text[sizeof(r->why) + 160], name[128];

	if (!r->next_page)
		reflector_list_abort(r);
	snprintf(text, sizeof(text), "list %s: %s", reflector_name(r, name, sizeof(name)), why);
	reflector_retry(r, 0, text);
}

/* A page of this list, or the snapshot that its token names, is no longer to be had. */
static void list_expired(struct pb_reflector *r, const struct pb_api_answer *answer)
{
	bool paging = r->next_page;

	reflector_list_abort(r);
	if (!paging) {
		r->list_options = LIST_CURRENT;
		reflector_refused(r, answer, "list");
		return;
	}
	pb_debug("kube", "%s: the list expired between two pages; listing without pages",
		 r->resource->plural);
	r->list_options = LIST_WHOLE;
	reflector_run(r);
}

/* A refusal that says nothing about the page asked for. */
static bool may_pass(long status)
{
	return status >= 500 || status == 429 || status == 401;
}

static void list_refused(struct pb_reflector *r, const struct pb_api_answer *answer)
{
	long status = answer->http.rc == 0 ? answer->http.status : 0;

	if (status == 410) {
		list_expired(r, answer);
		return;
	}
	if (!r->next_page || (status && !may_pass(status)))
		reflector_list_abort(r);
	if (status == 404)
		r->found = false;
	r->lacks_list = status == 403;
	if (status == 403 && r->resource->has_substitute && !r->lists)
		reflector_absent(r);
	if (!r->stopped)
		reflector_refused(r, answer, "list");
}

/* Goes on with the page that `token` names. */
static void list_next_page(struct pb_reflector *r, const char *token)
{
	PB_FREE char *before = PB_TAKE_PTR(r->next_page);

	r->next_page = reflector_escape(token);
	if (r->next_page && before && strcmp(before, r->next_page) == 0) {
		free(PB_TAKE_PTR(r->next_page));
		list_broken(r, "a page of the list names itself as the next");
	} else if (r->next_page) {
		reflector_run(r);
	} else {
		list_broken(r, "out of memory");
	}
}

static void on_list_done(void *arg, const struct pb_api_answer *answer)
{
	struct pb_reflector *r = arg;
	const char *token;
	struct pb_err err;

	r->call = NULL;
	if (r->why[0]) {
		list_broken(r, r->why);
		return;
	}
	if (answer->http.rc < 0 || answer->http.status != 200) {
		list_refused(r, answer);
		return;
	}
	if (pb_json_stream_end(r->list, &err) < 0) {
		list_broken(r, err.text);
		return;
	}
	r->lacks_list = false;
	token = pb_json_stream_continue(r->list);
	if (token[0])
		list_next_page(r, token);
	else
		list_complete(r);
}

/*
 * No list takes longer than a minute to go on: the server's own limit for a request. Half of it
 * raises a doubt: over HTTP/2 the next try would be a stream of the same dead connection.
 */
static void on_list_tick(uv_timer_t *timer)
{
	struct pb_reflector *r = timer->data;
	uint64_t silence = uv_now(r->loop) - r->last_byte;

	if (silence >= r->timing.heartbeat_ms && pb_api_http_version(r->call) != 1)
		r->doubt(r->doubt_arg);
	if (silence < 2ULL * r->timing.heartbeat_ms)
		return;
	pb_api_give_up(PB_TAKE_PTR(r->call));
	list_broken(r, "the server has gone silent");
}

static char *list_url(const struct pb_reflector *r)
{
	PB_FREE char *path = reflector_path(r);

	if (!path)
		return NULL;
	if (r->next_page)
		return pb_sprintf("%slimit=%d&continue=%s", path, PAGE, r->next_page);
	if (r->list_options == LIST_FROM_CACHE)
		return pb_sprintf("%slimit=%d&resourceVersion=0", path, PAGE);
	if (r->list_options == LIST_CURRENT)
		return pb_sprintf("%slimit=%d", path, PAGE);
	path[strlen(path) - 1] = '\0';
	return PB_TAKE_PTR(path);
}

int reflector_list(struct pb_reflector *r)
{
	static const struct pb_api_calls calls = {.body = on_list_body, .done = on_list_done};
	PB_FREE char *url = list_url(r);
	int rc;

	r->list = pb_json_stream_free(r->list);
	rc = url ? pb_json_stream_new(OBJECT_MAX, on_item, r, &r->list) : -ENOMEM;
	if (rc < 0)
		return rc;
	r->state = REFLECTOR_LISTING;
	r->began_with_objects = false;
	r->why[0] = '\0';
	r->last_byte = uv_now(r->loop);
	reflector_list_begin(r);
	rc = pb_api_get(r->client, url, PB_API_COMPRESSED, &calls, r, &r->call);
	if (rc == 0)
		uv_timer_start(&r->timer, on_list_tick, r->timing.heartbeat_ms / 3 + 1,
			       r->timing.heartbeat_ms / 3 + 1);
	return rc;
}
