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

static void wait_then_run(struct pb_reflector *r, uint64_t ms)
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
	wait_then_run(r, ms);
}

void reflector_again(struct pb_reflector *r)
{
	wait_then_run(r, 0);
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
			 "forbidden: the agent's role lacks verb \"%s\" on resource \"%s\" (%s)",
			 verb, name, answer->text);
	else if (answer->http.status == 401)
		snprintf(text, sizeof(text),
			 "unauthorized: the server refuses the agent's credentials (%s)",
			 answer->text);
	else
		snprintf(text, sizeof(text), "%s %s: %s", verb, name, answer->text);
	reflector_retry(r, answer->http.retry_after, text);
}

/* ---- discovery ---- */

void reflector_absent(struct pb_reflector *r)
{
	if (!r->told_absent)
		pb_sink_absent(r->sink, r->resource->kind);
	r->told_absent = true;
}

static int on_discovery_body(void *arg, const char *data, size_t len)
{
	struct pb_reflector *r = arg;

	r->last_byte = uv_now(r->loop);
	if (r->line.len + len > DISCOVERY_MAX)
		return -EFBIG;
	return pb_buf_append(&r->line, data, len);
}

/* 1: in the list; 0: not; negative: not such a list. */
static int discovery_has(const struct pb_reflector *r)
{
	PB_JSON_FREE cJSON *list = cJSON_ParseWithLength(r->line.data, r->line.len);
	const cJSON *resources = cJSON_GetObjectItemCaseSensitive(list, "resources");
	const cJSON *item;

	if (!cJSON_IsArray(resources))
		return -EPROTO;
	cJSON_ArrayForEach (item, resources) {
		if (strcmp(pb_json_str(item, "name", ""), r->resource->plural) == 0)
			return 1;
	}
	return 0;
}

static void discovery_next(struct pb_reflector *r)
{
	r->version++;
	if (r->resource->versions[r->version]) {
		reflector_run(r);
		return;
	}
	r->version = 0;
	reflector_state(r, true, "not served by this cluster");
	reflector_absent(r);
	if (!r->stopped)
		wait_then_run(r, r->timing.absent_ms);
}

static void on_discovery_done(void *arg, const struct pb_api_answer *answer)
{
	struct pb_reflector *r = arg;
	int has;

	r->call = NULL;
	if (answer->http.rc == 0 && answer->http.status == 404) {
		discovery_next(r);
		return;
	}
	if (answer->http.rc < 0 || answer->http.status != 200) {
		r->version = 0;
		reflector_refused(r, answer, "get");
		return;
	}
	has = discovery_has(r);
	if (has < 0) {
		r->version = 0;
		reflector_retry(r, 0, "discovery: the answer is not a list of resources");
	} else if (has) {
		r->found = true;
		reflector_run(r);
	} else {
		discovery_next(r);
	}
}

static const struct pb_api_calls discovery_calls = {
	.body = on_discovery_body,
	.done = on_discovery_done,
};

static int discovery_start(struct pb_reflector *r)
{
	char path[256];

	pb_buf_reset(&r->line);
	r->state = REFLECTOR_DISCOVERING;
	if (!r->told_absent)
		reflector_state(r, r->failures == 0, "discovering");
	snprintf(path, sizeof(path), "/apis/%s/%s", r->resource->group,
		 r->resource->versions[r->version]);
	return pb_api_get(r->client, path, PB_API_QUICK, &discovery_calls, r, &r->call);
}

/* ---- life ---- */

void reflector_run(struct pb_reflector *r)
{
	int rc;

	if (r->stopped)
		return;
	if (!r->found && r->resource->versions[1])
		rc = discovery_start(r);
	else if (!r->rv[0])
		rc = reflector_list(r);
	else
		rc = reflector_watch(r);
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
	r->found = false;
	r->version = 0;
	r->failures = 0;
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

cJSON *pb_reflector_status(const struct pb_reflector *r)
{
	cJSON *json = cJSON_CreateObject();
	char name[128];

	cJSON_AddStringToObject(json, "resource", reflector_name(r, name, sizeof(name)));
	cJSON_AddStringToObject(json, "version", r->resource->versions[r->version]);
	cJSON_AddBoolToObject(json, "healthy", r->healthy);
	cJSON_AddStringToObject(json, "state", r->text);
	cJSON_AddStringToObject(json, "resourceVersion", r->rv);
	cJSON_AddNumberToObject(json, "lists", (double)r->lists);
	cJSON_AddNumberToObject(json, "watches", (double)r->watches);
	cJSON_AddNumberToObject(json, "events", (double)r->events);
	cJSON_AddNumberToObject(json, "bytes", (double)r->bytes);
	if (r->last_event)
		cJSON_AddNumberToObject(json, "lastEventSeconds",
					(double)(uv_now(r->loop) - r->last_event) / 1000);
	return json;
}
