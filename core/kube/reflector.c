/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state machine of one kind. Requests are started from a timer or from the end of another
 * request, never from inside a call of the sink: stop and start only leave marks there.
 */
#include <kube/reflector.h>

#include <kube/json_stream.h>
#include <kube/reflector_priv.h>

#include <inttypes.h>
#include <sys/random.h>

#include <base/log.h>

/* ---- words for status and log ---- */

const char *reflector_name(const struct pb_reflector *r, char *buf, size_t size)
{
	bool group = r->resource->group[0];

	snprintf(buf, size, "%s%s%s", r->resource->plural, group ? "." : "", r->resource->group);
	return buf;
}

void reflector_api_version(const struct pb_reflector *r, char *buf, size_t size)
{
	const char *group = r->resource->group;

	snprintf(buf, size, "%s%s%s", group, group[0] ? "/" : "",
		 r->resource->versions[r->version]);
}

void reflector_state(struct pb_reflector *r, bool healthy, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r->text, sizeof(r->text), fmt, ap);
	va_end(ap);
	r->healthy = healthy;
	pb_sink_state(r->sink, r->resource->kind, healthy, r->text);
}

/* ---- pauses ---- */

static uint64_t random_below(uint64_t limit)
{
	uint64_t value = 0;

	if (getrandom(&value, sizeof(value), GRND_NONBLOCK) != sizeof(value))
		value = uv_hrtime();
	return limit ? value % limit : 0;
}

unsigned reflector_watch_seconds(const struct pb_reflector *r)
{
	unsigned min = r->timing.watch_min_s, max = r->timing.watch_max_s;

	return min + (unsigned)random_below(max - min + 1);
}

/* The n-th pause in a row is between half of backoff * 2^n and all of it. */
static uint64_t backoff_next(struct pb_reflector *r)
{
	uint64_t now = uv_now(r->loop), ms = r->timing.backoff_ms;

	if (now - r->last_error > r->timing.backoff_reset_ms)
		r->failures = 0;
	r->last_error = now;
	for (unsigned i = 0; i < r->failures && ms < r->timing.backoff_max_ms; i++)
		ms *= 2;
	if (ms > r->timing.backoff_max_ms)
		ms = r->timing.backoff_max_ms;
	r->failures++;
	return ms / 2 + random_below(ms / 2 + 1);
}

static void on_retry(uv_timer_t *timer)
{
	reflector_run(timer->data);
}

void reflector_wait(struct pb_reflector *r, uint64_t ms)
{
	r->state = REFLECTOR_WAITING;
	uv_timer_start(&r->timer, on_retry, ms, 0);
}

void reflector_retry(struct pb_reflector *r, long server_wants_s, const char *why)
{
	uint64_t ms = backoff_next(r);
	char name[128];

	if (server_wants_s > 0 && (uint64_t)server_wants_s * 1000 > ms)
		ms = (uint64_t)server_wants_s * 1000;
	if (ms > r->timing.backoff_max_ms)
		ms = r->timing.backoff_max_ms;
	/* Said once: what repeats itself is in the status. */
	pb_log(r->failures == 1 ? PB_LOG_WARN : PB_LOG_DEBUG, "kube", "%s: %s; trying again",
	       reflector_name(r, name, sizeof(name)), why);
	reflector_state(r, false, "retrying in %" PRIu64 ".%" PRIu64 " s: %s", ms / 1000,
			ms % 1000 / 100, why);
	pb_sink_error(r->sink, r->resource->kind, why);
	reflector_wait(r, ms);
}

void reflector_again(struct pb_reflector *r)
{
	reflector_wait(r, 0);
}

/* An answer that is no success, in a text that names what is missing. */
void reflector_refused(struct pb_reflector *r, const struct pb_api_answer *answer, const char *verb)
{
	char name[128], text[1400];

	if (answer->again) {
		pb_debug("kube", "%s: %s; trying again at once",
			 reflector_name(r, name, sizeof(name)), answer->text);
		reflector_again(r);
		return;
	}
	reflector_name(r, name, sizeof(name));
	if (answer->http.status == 403)
		snprintf(text, sizeof(text),
			 "forbidden: the agent's role lacks verb \"%s\" on resource \"%s\"%s (%s)",
			 verb, name, r->resource->cluster_scoped ? "" : " in all namespaces",
			 answer->text);
	else if (answer->http.status == 401)
		snprintf(text, sizeof(text),
			 "unauthorized: the server refuses the agent's credentials (%s)",
			 answer->text);
	else
		snprintf(text, sizeof(text), "%s %s: %s", verb, name, answer->text);
	reflector_retry(r, answer->http.retry_after, text);
}

/* ---- life ---- */

void reflector_run(struct pb_reflector *r)
{
	int rc;

	if (r->stopped)
		return;
	if (reflector_must_discover(r))
		rc = reflector_discover(r);
	else if (r->rv[0])
		rc = reflector_watch(r);
	else if (reflector_may_watch_list(r))
		rc = reflector_watch_list(r);
	else
		rc = reflector_list(r);
	if (rc < 0) {
		r->call = NULL;
		reflector_retry(r, 0, strerror(-rc));
	}
}

int pb_reflector_new(const struct pb_reflector_options *options,
		     struct pb_reflector **ret_reflector)
{
	struct pb_reflector *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->loop = options->loop;
	r->sink = options->sink;
	r->client = options->client;
	r->resource = options->resource;
	r->timing = *options->timing;
	r->server = options->server;
	r->doubt = options->doubt;
	r->doubt_arg = options->arg;
	r->stopped = true;
	uv_timer_init(r->loop, &r->timer);
	r->timer.data = r;
	*ret_reflector = r;
	return 0;
}

void pb_reflector_start(struct pb_reflector *r)
{
	if (!r->stopped)
		return;
	r->stopped = false;
	r->found = r->recheck = false;
	r->version = r->candidate = 0;
	r->failures = 0;
	r->lists = 0;
	r->initial_failures = 0;
	r->list_once = r->began_with_objects = false;
	r->lacks_list = r->lacks_watch = false;
	r->relist_reason[0] = '\0';
	r->rv[0] = '\0';
	reflector_again(r);
}

void pb_reflector_stop(struct pb_reflector *r)
{
	if (r->stopped)
		return;
	r->stopped = true;
	r->told_absent = false;
	uv_timer_stop(&r->timer);
	if (r->call)
		pb_api_cancel(r->call);
	r->call = NULL;
	r->initial = false;
	reflector_list_abort(r);
	r->state = REFLECTOR_OFF;
	snprintf(r->text, sizeof(r->text), "off");
}

static void on_closed(uv_handle_t *handle)
{
	struct pb_reflector *r = handle->data;
	void (*closed)(void *arg) = r->closed;
	void *arg = r->closed_arg;

	pb_json_stream_free(r->list);
	free(r->next_page);
	pb_buf_free(&r->line);
	free(r);
	closed(arg);
}

void pb_reflector_close(struct pb_reflector *r, void (*closed)(void *arg), void *arg)
{
	pb_reflector_stop(r);
	r->closed = closed;
	r->closed_arg = arg;
	uv_close((uv_handle_t *)&r->timer, on_closed);
}

void pb_reflector_describe(struct pb_reflector *r, struct pb_source_kind *ret_kind)
{
	if (r->stopped)
		return;
	reflector_name(r, r->name, sizeof(r->name));
	ret_kind->resource = r->name;
	ret_kind->mode = r->began_with_objects ? "watch-list" : r->rv[0] ? "watch" : "list";
	ret_kind->last_relist = r->relist_reason;
	ret_kind->bytes = r->bytes;
	ret_kind->last_event = r->last_event;
	ret_kind->lacks_list = r->lacks_list;
	ret_kind->lacks_watch = r->lacks_watch;
}
