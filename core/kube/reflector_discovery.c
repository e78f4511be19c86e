/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which version of its API a kind is read from: the best one served, asked for at the start, when
 * the server no longer knows the path, and at the end of a watch of any but the best one. Only
 * 404, or a list of resources without the kind, means that a version is not served.
 */
#include <kube/reflector_priv.h>

#include <base/log.h>

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

/* Over: what was found before, if anything was, goes on. */
static void discovery_keeps(struct pb_reflector *r)
{
	r->recheck = false;
	r->candidate = 0;
	reflector_run(r);
}

static void discovery_found(struct pb_reflector *r)
{
	char name[128], version[128];

	if (r->found && r->candidate != r->version) {
		reflector_relist(r, "a better version of the API is served");
		r->version = r->candidate;
		reflector_api_version(r, version, sizeof(version));
		pb_info("kube", "%s: the server has %s now; reading from it",
			reflector_name(r, name, sizeof(name)), version);
	}
	r->version = r->candidate;
	r->found = true;
	discovery_keeps(r);
}

static void discovery_next(struct pb_reflector *r)
{
	r->candidate++;
	if (r->found && r->candidate >= r->version) {
		discovery_keeps(r);
		return;
	}
	if (r->resource->versions[r->candidate]) {
		reflector_run(r);
		return;
	}
	r->candidate = r->version = 0;
	reflector_state(r, true, "not served by this cluster");
	reflector_absent(r);
	if (!r->stopped)
		reflector_wait(r, r->timing.absent_ms);
}

static void discovery_path(const struct pb_reflector *r, size_t version, char *buf, size_t size)
{
	snprintf(buf, size, "/apis/%s/%s", r->resource->group, r->resource->versions[version]);
}

/* Discovery is no resource: a role names its path. */
static void discovery_refused(struct pb_reflector *r, const struct pb_api_answer *answer)
{
	char path[256], text[1400];

	discovery_path(r, r->candidate, path, sizeof(path));
	r->candidate = 0;
	if (answer->http.rc == -ETIMEDOUT)
		r->doubt(r->doubt_arg);
	if (r->found) {
		discovery_keeps(r);
	} else if (answer->http.rc == 0 && answer->http.status == 403) {
		snprintf(text, sizeof(text),
			 "forbidden: the agent's role lacks verb \"get\" on nonResourceURL "
			 "\"%s\" (%s)",
			 path, answer->text);
		reflector_retry(r, answer->http.retry_after, text);
	} else {
		reflector_refused(r, answer, "get");
	}
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
		discovery_refused(r, answer);
		return;
	}
	has = discovery_has(r);
	if (has > 0) {
		discovery_found(r);
	} else if (has == 0) {
		discovery_next(r);
	} else if (r->found) {
		discovery_keeps(r);
	} else {
		r->candidate = 0;
		reflector_retry(r, 0, "discovery: the answer is not a list of resources");
	}
}

bool reflector_must_discover(const struct pb_reflector *r)
{
	return r->resource->versions[1] && (!r->found || r->recheck);
}

int reflector_discover(struct pb_reflector *r)
{
	static const struct pb_api_calls calls = {
		.body = on_discovery_body,
		.done = on_discovery_done,
	};
	char path[256];

	pb_buf_reset(&r->line);
	r->state = REFLECTOR_DISCOVERING;
	if (!r->told_absent && !r->found)
		reflector_state(r, r->failures == 0, "discovering");
	discovery_path(r, r->candidate, path, sizeof(path));
	return pb_api_get(r->client, path, PB_API_QUICK, &calls, r, &r->call);
}
