/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source that reads from an API server: one client, one reflector a kind that is wanted.
 *
 * Owns which kinds exist and under which names, the server's version for status, and the probe
 * of a connection in doubt. Decodes nothing.
 */
#include <kube/api_source.h>

#include <base/log.h>
#include <kube/reflector.h>

#define VERSION_MAX ((size_t)64 * 1024)

/* What stands behind headless Services and those of another proxy is nobody's business here. */
#define BACKENDS_SELECTOR                                                                          \
	"%21service.kubernetes.io%2Fheadless%2C%21service.kubernetes.io%2Fservice-proxy-name"

static const struct pb_api_resource resources[] = {
	{.kind = PB_KUBE_SERVICE, .group = "", .plural = "services", .versions = {"v1"}},
	{.kind = PB_KUBE_ENDPOINTSLICE,
	 .group = "discovery.k8s.io",
	 .plural = "endpointslices",
	 .versions = {"v1", "v1beta1"},
	 .selector = BACKENDS_SELECTOR,
	 .has_substitute = true},
	{.kind = PB_KUBE_ENDPOINTS,
	 .group = "",
	 .plural = "endpoints",
	 .versions = {"v1"},
	 .selector = BACKENDS_SELECTOR,
	 .has_substitute = true},
	{.kind = PB_KUBE_POD, .group = "", .plural = "pods", .versions = {"v1"}},
	{.kind = PB_KUBE_NODE,
	 .group = "",
	 .plural = "nodes",
	 .versions = {"v1"},
	 .cluster_scoped = true},
	{.kind = PB_KUBE_NAMESPACE,
	 .group = "",
	 .plural = "namespaces",
	 .versions = {"v1"},
	 .cluster_scoped = true},
};

#define RESOURCES PB_ARRAY_LEN(resources)

struct api_source {
	struct pb_source source; /* first: what others hold */
	uv_loop_t *loop;
	struct pb_sink *sink;
	struct pb_api_client *client;
	struct pb_api_timing timing;
	struct pb_reflector *reflectors[RESOURCES];
	uv_timer_t timer; /* asks for the version until it is known */
	struct pb_api_call *probe;
	struct pb_buf probe_body;
	uint64_t alive_at; /* the last answer to a probe */
	struct pb_api_server_facts server;
	bool wanted[RESOURCES];
	bool probed;  /* the version was asked for once, with whatever answer */
	bool doubted; /* the probe asks for a watch that is silent */
	bool dead;
	unsigned closing; /* handles that have not closed yet */
	void (*closed)(void *arg);
	void *closed_arg;
};

/* ---- GET /version: for status, and to find out whether a connection lives ---- */

static int on_probe_body(void *arg, const char *data, size_t len)
{
	struct api_source *s = arg;

	if (s->probe_body.len + len > VERSION_MAX)
		return -EFBIG;
	return pb_buf_append(&s->probe_body, data, len);
}

/* 1.27 is the first that can have WatchList; whether it has depends on its settings: 422 says no.
 */
static bool may_watch_list(const cJSON *version)
{
	long major = strtol(pb_json_str(version, "major", ""), NULL, 10);
	long minor = strtol(pb_json_str(version, "minor", ""), NULL, 10);

	return major > 1 || (major == 1 && minor >= 27);
}

static void take_version(struct api_source *s)
{
	PB_JSON_FREE cJSON *json = cJSON_ParseWithLength(s->probe_body.data, s->probe_body.len);
	const char *version = pb_json_str(json, "gitVersion", "");

	if (*version && strcmp(version, s->server.version) != 0) {
		snprintf(s->server.version, sizeof(s->server.version), "%s", version);
		s->server.may_watch_list = may_watch_list(json);
		pb_info("kube", "the API server %s is %s", pb_api_client_server(s->client),
			s->server.version);
	}
}

/*
 * The kinds wait for the first answer to /version, or for its failure: what the server can do
 * decides how they are listed.
 */
static void probe_over(struct api_source *s)
{
	if (s->probed)
		return;
	s->probed = true;
	for (size_t i = 0; i < RESOURCES; i++)
		if (s->wanted[i])
			pb_reflector_start(s->reflectors[i]);
}

static void on_timer(uv_timer_t *timer);

/* Any answer proves the connection. Without one, every watch on it is dead too. */
static void on_probe_done(void *arg, const struct pb_api_answer *answer)
{
	struct api_source *s = arg;

	s->probe = NULL;
	if (answer->http.rc == 0 && answer->http.status == 200)
		take_version(s);
	pb_buf_free(&s->probe_body);
	if (answer->http.rc == 0)
		s->alive_at = uv_now(s->loop);
	else
		s->dead = s->doubted;
	s->doubted = false;
	/* The reset waits for the timer: this is inside one of the connections' callbacks. */
	uv_timer_start(&s->timer, on_timer,
		       s->dead		      ? 0
		       : s->server.version[0] ? s->timing.version_ms
					      : s->timing.backoff_max_ms,
		       0);
	probe_over(s);
}

static void probe_start(struct api_source *s)
{
	static const struct pb_api_calls calls = {.body = on_probe_body, .done = on_probe_done};

	if (s->probe)
		return;
	pb_buf_reset(&s->probe_body);
	if (pb_api_get(s->client, "/version", PB_API_QUICK, &calls, s, &s->probe) < 0) {
		s->probe = NULL;
		uv_timer_start(&s->timer, on_timer, s->timing.backoff_max_ms, 0);
		probe_over(s);
	}
}

static void on_timer(uv_timer_t *timer)
{
	struct api_source *s = timer->data;

	if (s->dead) {
		s->dead = false;
		pb_warn("kube", "%s is silent; closing its connections",
			pb_api_client_server(s->client));
		pb_api_client_reset(s->client, "the connection went silent");
		return;
	}
	probe_start(s);
}

static void on_doubt(void *arg)
{
	struct api_source *s = arg;

	if (s->alive_at && uv_now(s->loop) - s->alive_at < s->timing.heartbeat_ms / 2)
		return;
	s->doubted = true;
	probe_start(s);
}

/* ---- what the store sees ---- */

static void source_want(struct pb_source *source, uint32_t kind, bool on)
{
	struct api_source *s = (struct api_source *)source;

	for (size_t i = 0; i < RESOURCES; i++) {
		if (resources[i].kind != kind)
			continue;
		s->wanted[i] = on;
		if (!on)
			pb_reflector_stop(s->reflectors[i]);
		else if (s->probed)
			pb_reflector_start(s->reflectors[i]);
		else
			pb_sink_state(s->sink, kind, true, "asking the server for its version");
	}
}

static void source_describe(struct pb_source *source, uint32_t kind,
			    struct pb_source_kind *ret_kind)
{
	struct api_source *s = (struct api_source *)source;

	for (size_t i = 0; i < RESOURCES; i++)
		if (resources[i].kind == kind)
			pb_reflector_describe(s->reflectors[i], ret_kind);
}

static cJSON *source_status(struct pb_source *source)
{
	struct api_source *s = (struct api_source *)source;
	const struct pb_api_config *config = pb_api_client_config(s->client);
	cJSON *json = cJSON_CreateObject();
	cJSON *list;

	cJSON_AddStringToObject(json, "source", "api");
	cJSON_AddStringToObject(json, "config", config->origin);
	cJSON_AddStringToObject(json, "server", pb_api_client_server(s->client));
	list = cJSON_AddArrayToObject(json, "servers");
	for (size_t i = 0; i < config->n_servers; i++)
		cJSON_AddItemToArray(list, cJSON_CreateString(config->servers[i]));
	cJSON_AddStringToObject(json, "version", s->server.version);
	return json;
}

static void on_part_closed(void *arg)
{
	struct api_source *s = arg;

	if (--s->closing)
		return;
	pb_buf_free(&s->probe_body);
	if (s->closed)
		s->closed(s->closed_arg);
	free(s);
}

static void on_timer_closed(uv_handle_t *handle)
{
	on_part_closed(handle->data);
}

static void source_close(struct pb_source *source, void (*closed)(void *arg), void *arg)
{
	struct api_source *s = (struct api_source *)source;

	s->closed = closed;
	s->closed_arg = arg;
	s->closing = 1;
	for (size_t i = 0; i < RESOURCES; i++) {
		if (!s->reflectors[i])
			continue;
		s->closing++;
		pb_reflector_close(s->reflectors[i], on_part_closed, s);
	}
	if (s->probe)
		pb_api_cancel(s->probe);
	s->closing++;
	uv_close((uv_handle_t *)&s->timer, on_timer_closed);
	pb_api_client_close(s->client, on_part_closed, s);
}

static const struct pb_source_ops source_ops = {
	.name = "api",
	.want = source_want,
	.describe = source_describe,
	.status = source_status,
	.close = source_close,
};

/* A kind nobody wants costs its structure only. */
static int make_reflectors(struct api_source *s, struct pb_sink *sink)
{
	struct pb_reflector_options options = {
		.loop = s->loop,
		.sink = sink,
		.client = s->client,
		.timing = &s->timing,
		.server = &s->server,
		.doubt = on_doubt,
		.arg = s,
	};
	int rc = 0;

	for (size_t i = 0; i < RESOURCES && rc == 0; i++) {
		options.resource = &resources[i];
		rc = pb_reflector_new(&options, &s->reflectors[i]);
	}
	return rc;
}

int pb_api_source_start(uv_loop_t *loop, struct pb_sink *sink, struct pb_api_config *config,
			const struct pb_api_timing *timing, struct pb_source **ret_source,
			struct pb_err *err)
{
	struct api_source *s = calloc(1, sizeof(*s));
	int rc;

	if (!s) {
		pb_api_config_free(config);
		return pb_err_set(err, -ENOMEM, "API source: out of memory");
	}
	s->source.ops = &source_ops;
	s->source.digest = pb_api_config_digest(config);
	s->loop = loop;
	s->sink = sink;
	s->timing = *timing;
	rc = pb_api_client_new(loop, config, timing, &s->client, err);
	if (rc < 0) {
		free(s);
		return rc;
	}
	uv_timer_init(loop, &s->timer);
	s->timer.data = s;
	rc = make_reflectors(s, sink);
	if (rc < 0) {
		source_close(&s->source, NULL, NULL);
		return pb_err_set(err, rc, "API source: out of memory");
	}
	uv_timer_start(&s->timer, on_timer, 0, 0);
	*ret_source = &s->source;
	return 0;
}

/* kubectl accepts this, so do we; but it should not go unnoticed. */
static void warn_of_plain_text(const struct pb_api_config *config)
{
	bool secret = config->token || config->token_file || config->password;

	for (size_t i = 0; i < config->n_servers && secret; i++) {
		if (strncmp(config->servers[i], "http://", 7) == 0)
			pb_warn("kube",
				"%s is not https: the agent's credentials can be read on the way",
				config->servers[i]);
	}
}

int pb_source_api_new(uv_loop_t *loop, struct pb_sink *sink, const char *kubeconfig,
		      struct pb_source **ret_source, struct pb_err *err)
{
	struct pb_api_config *config = NULL;
	int rc;

	if (kubeconfig)
		rc = pb_kubeconfig_load(kubeconfig, &config, err);
	else
		rc = pb_api_config_in_cluster(PB_SERVICE_ACCOUNT_DIR, &config, err);
	if (rc < 0)
		return kubeconfig ? pb_err_prefix(err, "kubernetes.kubeconfig") : rc;
	warn_of_plain_text(config);
	return pb_api_source_start(loop, sink, config, &pb_api_timing_default, ret_source, err);
}
