/* SPDX-License-Identifier: Apache-2.0 */
/* From a kubeconfig file through the source, the decoders and the store to a watcher. */
#include <criterion/criterion.h>

#include <signal.h>

#include <base/json.h>
#include <kube/kube.h>

#include "../tools/kube_fake_api.h"

#define SLICES "/apis/discovery.k8s.io/v1/endpointslices"
#define SLICE PB_KUBE_ENDPOINTSLICE
#define SLICE_BODY                                                                                 \
	"\"addressType\":\"IPv4\",\"ports\":[{\"name\":\"http\",\"port\":8080}],\"endpoints\":["   \
	"{\"addresses\":[\"10.1.0.1\"],\"conditions\":{\"ready\":true},\"nodeName\":\"n\"}]"

struct world {
	uv_loop_t loop;
	uv_timer_t tick;
	struct fake_api *api;
	struct pb_kube *kube;
	char kubeconfig[32];
	struct pb_buf log; /* "put a/b 1" (endpoints), "delete a/b", "synced", "absent" */
	bool closed;
};

static void on_tick(uv_timer_t *timer)
{
	(void)timer;
}

static void on_event(void *arg, const struct pb_kube_event *event)
{
	const struct pb_kube_endpointslice *slice = event->object;
	struct world *w = arg;

	switch (event->kind) {
	case PB_KUBE_PUT:
		pb_buf_printf(&w->log, "put %s/%s %u\n", slice->meta.ns, slice->meta.name,
			      slice->n_endpoints);
		break;
	case PB_KUBE_DELETE:
		slice = event->object ? event->object : event->old;
		pb_buf_printf(&w->log, "delete %s/%s\n", slice->meta.ns, slice->meta.name);
		break;
	case PB_KUBE_SYNCED:
		pb_buf_printf(&w->log, "synced\n");
		break;
	default:
		pb_buf_printf(&w->log, "absent\n");
		break;
	}
}

static const char *seen(const struct world *w)
{
	return w->log.data ? w->log.data : "";
}

static void wait_for(struct world *w, const char *text)
{
	uint64_t deadline = uv_hrtime() + 20000000000ULL;

	while (strcmp(seen(w), text) != 0) {
		cr_assert_lt(uv_hrtime(), deadline, "wanted:\n%sgot:\n%s", text, seen(w));
		uv_run(&w->loop, UV_RUN_ONCE);
	}
	pb_buf_reset(&w->log);
}

static void world_open(struct world *w)
{
	memset(w, 0, sizeof(*w));
	signal(SIGPIPE, SIG_IGN);
	uv_loop_init(&w->loop);
	uv_timer_init(&w->loop, &w->tick);
	uv_timer_start(&w->tick, on_tick, 5, 5);
	w->api = fake_api_new(&w->loop, NULL, NULL);
}

static void world_start(struct world *w)
{
	struct pb_config config = {0};
	struct pb_kube_watch *watch;
	struct pb_err err = {0};
	PB_FREE char *text = pb_sprintf("current-context: c\n"
					"contexts: [{name: c, context: {cluster: k}}]\n"
					"clusters: [{name: k, cluster: {server: \"%s\"}}]\n",
					fake_http_url(fake_api_http(w->api)));

	strcpy(w->kubeconfig, "/tmp/pb-kubeconfig-XXXXXX");
	close(mkstemp(w->kubeconfig));
	cr_assert_eq(pb_file_write(w->kubeconfig, text, strlen(text), 0600, &err), 0);
	config.kubernetes.source = PB_SOURCE_API;
	config.kubernetes.kubeconfig = w->kubeconfig;
	cr_assert_eq(pb_kube_new(&w->loop, &config, &w->kube, &err), 0, "%s", err.text);
	cr_assert_eq(pb_kube_start(w->kube, &config, &err), 0, "%s", err.text);
	cr_assert_eq(pb_kube_watch(w->kube, PB_KUBE_ENDPOINTSLICE, on_event, w, &watch), 0);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void world_close(struct world *w)
{
	pb_kube_close(w->kube, on_closed, &w->closed);
	while (!w->closed)
		uv_run(&w->loop, UV_RUN_ONCE);
	fake_api_close(w->api);
	uv_close((uv_handle_t *)&w->tick, NULL);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	cr_assert_eq(uv_loop_close(&w->loop), 0, "handles were left open");
	unlink(w->kubeconfig);
	pb_buf_free(&w->log);
}

Test(kube_api_store, a_watcher_sees_the_list_then_the_changes)
{
	struct world w;

	world_open(&w);
	fake_api_put(w.api, SLICES, "a", "one", SLICE_BODY);
	world_start(&w);
	wait_for(&w, "put a/one 1\nsynced\n");
	fake_api_put(w.api, SLICES, "a", "two", SLICE_BODY);
	wait_for(&w, "put a/two 1\n");
	fake_api_delete(w.api, SLICES, "a", "one");
	wait_for(&w, "delete a/one\n");
	world_close(&w);
}

Test(kube_api_store, E21_a_relist_tells_of_what_was_deleted_and_of_nothing_else)
{
	struct world w;

	world_open(&w);
	fake_api_put(w.api, SLICES, "a", "one", SLICE_BODY);
	fake_api_put(w.api, SLICES, "a", "two", SLICE_BODY);
	world_start(&w);
	wait_for(&w, "put a/one 1\nput a/two 1\nsynced\n");
	fake_api_end_watches(w.api, false);
	fake_api_delete(w.api, SLICES, "a", "one");
	fake_api_compact(w.api);
	wait_for(&w, "delete a/one\n");
	world_close(&w);
}

/* A slice of one endpoint, as a watch shows it. */
#define SHOWN(name)                                                                                \
	"{\"kind\":\"EndpointSlice\",\"apiVersion\":\"discovery.k8s.io/"                           \
	"v1\",\"metadata\":{\"name\":\"" name                                                      \
	"\",\"namespace\":\"a\",\"resourceVersion\":\"9\"}," SLICE_BODY "}"

Test(kube_api_store, members_of_an_event_come_in_any_order_and_bad_json_is_refused_alone)
{
	static const struct {
		const char *line;
		const char *seen;
	} cases[] = {
		{"{\"type\":\"ADDED\",\"object\":" SHOWN("usual") "}\n", "put a/usual 1\n"},
		{"{\"object\":" SHOWN("first") ",\"type\":\"ADDED\"}\n", "put a/first 1\n"},
		{"{\"type\":\"ADDED\",\"object\":" SHOWN("amid") ",\"object2\":{\"x\":[1]}}\n",
		 "put a/amid 1\n"},
		{" {\"x\":[{}], \"type\" : \"ADDED\" , \"object\" : " SHOWN("wide") " } \r\n",
		 "put a/wide 1\n"},
		/* Not JSON, with a place to go on all the same: what follows it is seen. */
		{"{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"bad\","
		 "\"resourceVersion\":"
		 "\"9\"},\"x\":nil}}\n{\"type\":\"ADDED\",\"object\":" SHOWN("next") "}\n",
		 "put a/next 1\n"},
	};
	struct world w;

	world_open(&w);
	world_start(&w);
	wait_for(&w, "synced\n");
	while (!fake_api_watches(w.api))
		uv_run(&w.loop, UV_RUN_ONCE);
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		fake_api_raw(w.api, cases[i].line);
		wait_for(&w, cases[i].seen);
	}
	world_close(&w);
}

Test(kube_api_store, a_cluster_without_slices_says_absent)
{
	struct world w;

	world_open(&w);
	fake_api_serve(w.api, "v1", NULL);
	world_start(&w);
	wait_for(&w, "absent\n");
	world_close(&w);
}

/* Field of a kind in status, as JSON text; to be freed. */
static char *status_of(struct world *w, uint32_t kind, const char *field)
{
	PB_JSON_FREE cJSON *json = pb_kube_status_json(w->kube);
	const cJSON *kinds = cJSON_GetObjectItemCaseSensitive(json, "kinds");
	const cJSON *item = cJSON_GetArrayItem(kinds, (int)kind - 1);
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(item, field);

	cr_assert_not_null(value, "status has no %s", field);
	return cJSON_PrintUnformatted(value);
}

static void wait_status(struct world *w, uint32_t kind, const char *field, const char *part)
{
	uint64_t deadline = uv_hrtime() + 20000000000ULL;

	for (;;) {
		PB_FREE char *text = status_of(w, kind, field);

		if (strstr(text, part))
			return;
		cr_assert_lt(uv_hrtime(), deadline, "%s: wanted %s, got %s", field, part, text);
		uv_run(&w->loop, UV_RUN_ONCE);
	}
}

Test(kube_api_store, status_names_each_right_that_is_missing_until_it_is_granted)
{
	struct world w;

	world_open(&w);
	fake_api_fail(w.api, SLICES "?labelSelector", 1, 403, "", "{\"message\":\"no\"}");
	world_start(&w);
	wait_status(&w, SLICE, "missing_rights", "[\"list endpointslices.discovery.k8s.io\"]");
	wait_status(&w, SLICE, "healthy", "false");
	wait_status(&w, SLICE, "last_error",
		    "forbidden: the agent's role lacks verb \\\"list\\\" on resource "
		    "\\\"endpointslices.discovery.k8s.io\\\" in all namespaces (403: no)");
	wait_for(&w, "absent\n");
	fake_api_fail(w.api, "watch=1", 1, 403, "", "{\"message\":\"no\"}");
	wait_status(&w, SLICE, "missing_rights", "[\"watch endpointslices.discovery.k8s.io\"]");
	wait_status(&w, SLICE, "healthy", "true");
	wait_status(&w, SLICE, "missing_rights", "[]");
	/* what went wrong is still told, without what was done about it then */
	wait_status(&w, SLICE, "last_error", "\"forbidden: the agent's role lacks verb \\\"watch");
	wait_for(&w, "synced\n");
	world_close(&w);
}

Test(kube_api_store, both_rights_can_be_named_at_once)
{
	struct world w;

	world_open(&w);
	fake_api_is(w.api, "33", "v1.33.0");
	fake_api_watch_list(w.api, FAKE_WATCH_LIST_SERVED);
	fake_api_fail(w.api, SLICES "?", 1000, 403, "", "{}");
	world_start(&w);
	wait_status(&w, SLICE, "missing_rights",
		    "[\"list endpointslices.discovery.k8s.io\","
		    "\"watch endpointslices.discovery.k8s.io\"]");
	world_close(&w);
}

Test(kube_api_store, a_kind_that_nobody_watches_is_neither_healthy_nor_ill)
{
	struct world w;

	world_open(&w);
	world_start(&w);
	wait_status(&w, SLICE, "healthy", "true");
	wait_status(&w, PB_KUBE_POD, "healthy", "null");
	wait_status(&w, PB_KUBE_POD, "state", "not watched");
	wait_status(&w, PB_KUBE_POD, "mode", "\"\"");
	world_close(&w);
}

Test(kube_api_store, status_counts_what_a_kind_cost)
{
	PB_FREE char *bytes = NULL;
	struct world w;

	world_open(&w);
	fake_api_put(w.api, SLICES, "a", "one", SLICE_BODY);
	world_start(&w);
	wait_for(&w, "put a/one 1\nsynced\n");
	wait_status(&w, SLICE, "mode", "\"watch\"");
	wait_status(&w, SLICE, "api_version", "\"discovery.k8s.io/v1\"");
	wait_status(&w, SLICE, "objects", "1");
	wait_status(&w, SLICE, "events", "1");
	wait_status(&w, SLICE, "relists", "0");
	wait_status(&w, SLICE, "last_event_seconds", "0");
	bytes = status_of(&w, SLICE, "bytes");
	cr_assert_str_neq(bytes, "0");
	fake_api_end_watches(w.api, false);
	fake_api_delete(w.api, SLICES, "a", "one");
	fake_api_compact(w.api);
	wait_for(&w, "delete a/one\n");
	wait_status(&w, SLICE, "relists", "1");
	wait_status(&w, SLICE, "last_relist", "\"the server no longer had the changes (410)\"");
	world_close(&w);
}
