/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source against servers that refuse, vanish, fall silent or speak TLS: discovery, tokens,
 * rotation, heart beat. Numbers E.. are the cases of the specification of EndpointSlices.
 */
#include "kube_api_harness.h"

#include <base/json.h>

#define SVC PB_KUBE_SERVICE
#define SLICE PB_KUBE_ENDPOINTSLICE

/* ---- discovery ---- */

Test(kube_api_source, discovery_chooses_the_best_version_served)
{
	static const struct {
		const char *v1, *v1beta1;
		const char *path;
	} cases[] = {
		{"endpointslices", "endpointslices", SLICES},
		{NULL, "endpointslices", SLICES_BETA},
		{"somethingelse", "endpointslices", SLICES_BETA},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct bench b;

		bench_open(&b);
		fake_api_serve(b.api, "v1", cases[i].v1);
		fake_api_serve(b.api, "v1beta1", cases[i].v1beta1);
		fake_api_put(b.api, cases[i].path, "a", "one", "");
		bench_start(&b, NULL, SLICE);
		WAIT(&b, fake_api_watches(b.api) == 1);
		cr_assert_str_eq(bench_objects(&b, SLICE), "a/one");
		cr_assert_eq(b.sink.absent[SLICE], 0);
		bench_close(&b);
	}
}

Test(kube_api_source, a_kind_that_is_not_served_is_absent_until_it_is)
{
	struct bench b;

	bench_open(&b);
	fake_api_serve(b.api, "v1", NULL);
	bench_start(&b, NULL, SLICE);
	WAIT(&b, b.sink.absent[SLICE] == 1);
	cr_assert_str_eq(b.sink.state[SLICE], "not served by this cluster");
	WAIT(&b, fake_api_asked(b.api, "/apis/discovery.k8s.io/v1beta1", NULL) >= 3);
	cr_assert_eq(b.sink.absent[SLICE], 1, "said once");
	fake_api_serve(b.api, "v1", "endpointslices");
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_eq(b.sink.synced[SLICE], 1);
	bench_close(&b);
}

Test(kube_api_source, E35_discovery_503_is_not_absent)
{
	struct bench b;

	bench_open(&b);
	fake_api_fail(b.api, "/apis/discovery.k8s.io", 4, 503, "", "upstream connect error\r\n");
	bench_start(&b, NULL, SLICE);
	WAIT(&b, bench_says(&b, SLICE,
			    "get endpointslices.discovery.k8s.io: 503: upstream connect "
			    "error"));
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_eq(b.sink.absent[SLICE], 0);
	cr_assert_eq(fake_api_asked(b.api, "/apis/discovery.k8s.io/v1beta1", NULL), 0);
	bench_close(&b);
}

Test(kube_api_source, a_version_that_goes_away_is_discovered_anew)
{
	struct bench b;

	bench_open(&b);
	fake_api_serve(b.api, "v1", NULL);
	fake_api_serve(b.api, "v1beta1", "endpointslices");
	bench_start(&b, NULL, SLICE);
	WAIT(&b, fake_api_watches(b.api) == 1);
	fake_api_serve(b.api, "v1beta1", NULL);
	fake_api_serve(b.api, "v1", "endpointslices");
	fake_api_fail(b.api, SLICES_BETA, 1, 404, "", "404 page not found\n");
	fake_api_end_watches(b.api, true);
	WAIT(&b, fake_api_asked(b.api, SLICES "?", "watch=1") == 1);
	bench_close(&b);
}

/* Watching v1beta1, one object. */
static void beta(struct bench *b)
{
	bench_open(b);
	fake_api_serve(b->api, "v1", NULL);
	fake_api_serve(b->api, "v1beta1", "endpointslices");
	fake_api_put(b->api, SLICES_BETA, "a", "one", "");
	fake_api_put(b->api, SLICES, "a", "one", "");
	bench_start(b, NULL, SLICE);
	WAIT(b, fake_api_watches(b->api) == 1);
	cr_assert_str_eq(b->sink.version[SLICE], "discovery.k8s.io/v1beta1");
	bench_forget(b);
}

Test(kube_api_source, a_better_version_is_found_at_the_end_of_a_watch)
{
	struct bench b;

	beta(&b);
	fake_api_serve(b.api, "v1", "endpointslices");
	fake_api_end_watches(b.api, true);
	WAIT(&b, fake_api_asked(b.api, SLICES "?", "watch=1") == 1);
	cr_assert_str_eq(bench_log(&b), "begin\nput a/one\nend\n");
	cr_assert_str_eq(b.sink.version[SLICE], "discovery.k8s.io/v1");
	cr_assert_eq(b.sink.absent[SLICE], 0);
	bench_close(&b);
}

Test(kube_api_source, while_there_is_no_better_version_the_watch_goes_on)
{
	static const int statuses[] = {404, 503, 403};

	for (size_t i = 0; i < PB_ARRAY_LEN(statuses); i++) {
		struct bench b;

		beta(&b);
		fake_api_fail(b.api, "/apis/discovery.k8s.io/v1", 1, statuses[i], "", "{}");
		fake_api_end_watches(b.api, true);
		WAIT(&b, fake_api_asked(b.api, SLICES_BETA "?", "watch=1") == 2);
		cr_assert_str_eq(bench_log(&b), "", "status %d", statuses[i]);
		bench_close(&b);
	}
}

Test(kube_api_source, a_kind_that_is_served_no_more_is_absent)
{
	struct bench b;

	bench_open(&b);
	bench_start(&b, NULL, SLICE);
	WAIT(&b, fake_api_watches(b.api) == 1);
	fake_api_serve(b.api, "v1", NULL);
	fake_api_fail(b.api, SLICES, 1, 404, "", "404 page not found\n");
	fake_api_fail(b.api, "/apis/discovery.k8s.io/v1", 3, 503, "", "");
	fake_api_end_watches(b.api, true);
	WAIT(&b, bench_says(&b, SLICE, "get endpointslices.discovery.k8s.io: status 503"));
	cr_assert_eq(b.sink.absent[SLICE], 0, "an error says nothing");
	WAIT(&b, b.sink.absent[SLICE] == 1);
	bench_close(&b);
}

/* ---- refusals ---- */

static const char forbidden[] = "{\"kind\":\"Status\",\"code\":403,\"reason\":\"Forbidden\","
				"\"message\":\"endpointslices is "
				"forbidden: User \\\"agent\\\" cannot list\"}";

Test(kube_api_source, a_forbidden_list_names_verb_and_resource_and_counts_as_absent)
{
	struct bench b;

	bench_open(&b);
	fake_api_fail(b.api, SLICES "?", 3, 403, "", forbidden);
	bench_start(&b, NULL, SLICE);
	WAIT(&b, bench_says(&b, SLICE,
			    "forbidden: the agent's role lacks verb \"list\" on resource "
			    "\"endpointslices.discovery.k8s.io\" in all namespaces (403: "
			    "endpointslices is "
			    "forbidden: User \"agent\" cannot list)"));
	cr_assert_not(b.sink.healthy[SLICE]);
	cr_assert_eq(b.sink.absent[SLICE], 1, "Endpoints can stand in");
	WAIT(&b, fake_api_watches(b.api) == 1);
	WAIT(&b, b.sink.healthy[SLICE]);
	cr_assert_eq(b.sink.absent[SLICE], 1);
	bench_close(&b);
}

/* Else whoever asks anew would wait for both kinds for ever. */
Test(kube_api_source, a_refusal_counts_as_absent_for_who_asks_anew_too)
{
	struct bench b;

	bench_open(&b);
	bench_start(&b, NULL, SLICE);
	WAIT(&b, b.sink.synced[SLICE] == 1);
	bench_want(&b, SLICE, false);
	fake_api_fail(b.api, SLICES "?", 1000, 403, "", forbidden);
	bench_want(&b, SLICE, true);
	WAIT(&b, bench_says(&b, SLICE, "lacks verb \"list\""));
	cr_assert_eq(b.sink.absent[SLICE], 1);
	bench_close(&b);
}

Test(kube_api_source, a_forbidden_discovery_names_its_path)
{
	struct bench b;

	bench_open(&b);
	fake_api_fail(b.api, "/apis/discovery.k8s.io/v1", 1, 403, "", "{\"message\":\"no\"}");
	bench_start(&b, NULL, SLICE);
	WAIT(&b, bench_says(&b, SLICE,
			    "lacks verb \"get\" on nonResourceURL \"/apis/discovery.k8s.io/v1\" "
			    "(403: no)"));
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_eq(b.sink.absent[SLICE], 0);
	bench_close(&b);
}

Test(kube_api_source, a_forbidden_watch_names_its_verb_and_services_are_never_absent)
{
	struct bench b;

	bench_open(&b);
	fake_api_fail(b.api, SERVICES "?limit", 1, 403, "", "{}");
	fake_api_fail(b.api, SERVICES "?watch", 1, 403, "", "{}");
	bench_start(&b, NULL, SVC);
	WAIT(&b, bench_says(&b, SVC, "lacks verb \"list\" on resource \"services\""));
	WAIT(&b, bench_says(&b, SVC, "lacks verb \"watch\" on resource \"services\""));
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_eq(b.sink.absent[SVC], 0);
	bench_close(&b);
}

Test(kube_api_source, a_busy_server_is_left_alone_as_long_as_it_asks)
{
	struct bench b;

	bench_open(&b);
	b.timing.backoff_max_ms = 2000;
	fake_api_fail(b.api, SERVICES, 1, 429, "Retry-After: 1\r\n", "{}");
	bench_start(&b, NULL, SVC);
	WAIT(&b, bench_says(&b, SVC, "retrying in 1.0 s: list services: 429"));
	WAIT(&b, fake_api_watches(b.api) == 1);
	bench_close(&b);
}

/* ---- tokens ---- */

static void write_token(const char *path, const char *text)
{
	struct pb_err err;

	cr_assert_eq(pb_file_write(path, text, strlen(text), 0600, &err), 0);
}

Test(kube_api_source, a_token_that_was_replaced_is_read_again_on_401_and_used_at_once)
{
	char path[] = "/tmp/pb-token-XXXXXX";
	struct pb_api_config *config;
	struct bench b;

	close(mkstemp(path));
	write_token(path, "old\n");
	bench_open(&b);
	b.timing.backoff_ms = b.timing.backoff_max_ms = 60000; /* a pause would never end */
	fake_api_require(b.api, "Bearer old");
	config = bench_config(&b);
	config->token_file = strdup(path);
	bench_start(&b, config, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	write_token(path, "new");
	fake_api_require(b.api, "Bearer new");
	fake_api_end_watches(b.api, true);
	WAIT(&b, fake_api_asked(b.api, "watch=1", NULL) == 3);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_eq(fake_api_asked(b.api, "limit", NULL), 1);
	bench_close(&b);
	unlink(path);
}

Test(kube_api_source, a_token_file_is_read_again_when_it_is_old)
{
	char path[] = "/tmp/pb-token-XXXXXX";
	struct pb_api_config *config;
	struct bench b;

	close(mkstemp(path));
	write_token(path, "old");
	bench_open(&b);
	b.timing.token_ms = 50;
	fake_api_require(b.api, "Bearer old");
	config = bench_config(&b);
	config->token_file = strdup(path);
	bench_start(&b, config, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	write_token(path, "new");
	fake_api_require(b.api, "Bearer new");
	bench_pass(&b, 60);
	fake_api_end_watches(b.api, true);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_eq(fake_api_asked(b.api, "watch=1", NULL), 2, "not refused once");
	bench_close(&b);
	unlink(path);
}

Test(kube_api_source, a_token_file_that_vanished_leaves_the_old_token_in_use)
{
	char path[] = "/tmp/pb-token-XXXXXX";
	struct pb_api_config *config;
	struct bench b;

	close(mkstemp(path));
	write_token(path, "only");
	bench_open(&b);
	b.timing.token_ms = 1;
	fake_api_require(b.api, "Bearer only");
	config = bench_config(&b);
	config->token_file = strdup(path);
	bench_start(&b, config, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	unlink(path);
	bench_pass(&b, 10);
	fake_api_end_watches(b.api, true);
	WAIT(&b, fake_api_watches(b.api) == 1);
	bench_close(&b);
}

Test(kube_api_source, credentials_that_are_refused_are_said_so_and_tried_with_pauses)
{
	struct pb_api_config *config;
	struct bench b;

	bench_open(&b);
	fake_api_require(b.api, "Basic YWdlbnQ6c2VjcmV0"); /* agent:secret */
	bench_start(&b, NULL, SVC);
	WAIT(&b, bench_says(&b, SVC,
			    "unauthorized: the server refuses the agent's credentials "
			    "(401: Unauthorized)"));
	bench_close_source(&b);
	WAIT(&b, b.closed);
	b.closed = false;
	config = bench_config(&b);
	config->username = strdup("agent");
	config->password = strdup("secret");
	bench_start(&b, config, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	bench_close(&b);
}

/* ---- servers that go away ---- */

static void add_server(struct pb_api_config *c, const char *url, size_t at)
{
	c->servers = realloc(c->servers, (c->n_servers + 1) * sizeof(*c->servers));
	memmove(&c->servers[at + 1], &c->servers[at], (c->n_servers - at) * sizeof(*c->servers));
	c->servers[at] = strdup(url);
	c->n_servers++;
}

Test(kube_api_source, E21_a_server_that_was_away_is_asked_for_what_was_missed)
{
	struct bench b;

	bench_open(&b);
	fake_api_put(b.api, SERVICES, "a", "one", "");
	fake_api_put(b.api, SERVICES, "a", "two", "");
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	fake_http_down(fake_api_http(b.api));
	WAIT(&b, bench_says(&b, SVC, "retrying in ") && bench_says(&b, SVC, "http://127.0.0.1"));
	cr_assert_str_eq(bench_objects(&b, SVC), "a/one a/two", "nothing is deleted");
	fake_api_delete(b.api, SERVICES, "a", "one");
	fake_api_put(b.api, SERVICES, "a", "three", "");
	fake_http_up(fake_api_http(b.api));
	WAIT(&b, strcmp(bench_objects(&b, SVC), "a/three a/two") == 0);
	cr_assert_eq(b.sink.synced[SVC], 1, "the history was enough");
	bench_close(&b);
}

Test(kube_api_source, a_server_that_refuses_connections_is_passed_over_at_once)
{
	struct pb_api_config *config;
	struct bench b;

	bench_open(&b);
	b.timing.backoff_ms = b.timing.backoff_max_ms = 60000; /* a pause would never end */
	config = bench_config(&b);
	add_server(config, "http://127.0.0.1:1", 0);
	add_server(config, "http://127.0.0.1:2", 0);
	bench_start(&b, config, SVC);
	bench_want(&b, PB_KUBE_NODE, true);
	WAIT(&b, fake_api_watches(b.api) == 2);
	bench_close(&b);
}

Test(kube_api_source, when_no_server_answers_each_round_ends_with_a_pause)
{
	struct pb_api_config *config;
	struct bench b;

	bench_open(&b);
	fake_http_down(fake_api_http(b.api));
	config = bench_config(&b);
	add_server(config, "http://127.0.0.1:1", 0);
	bench_start(&b, config, SVC);
	WAIT(&b, bench_says(&b, SVC, "retrying in "));
	fake_http_up(fake_api_http(b.api));
	WAIT(&b, fake_api_watches(b.api) == 1);
	bench_close(&b);
}

/* ---- silence ---- */

Test(kube_api_source, a_watch_on_a_half_open_connection_is_renewed)
{
	struct bench b;

	bench_open(&b);
	b.timing.heartbeat_ms = 60;
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	fake_http_freeze(fake_api_http(b.api), true);
	WAIT(&b, bench_says(&b, SVC, "watch: the server doesn't answer"));
	fake_http_drop_all(fake_api_http(b.api));
	fake_http_freeze(fake_api_http(b.api), false);
	fake_api_put(b.api, SERVICES, "a", "one", "");
	WAIT(&b, strcmp(bench_objects(&b, SVC), "a/one") == 0);
	cr_assert_eq(b.sink.synced[SVC], 1);
	bench_close(&b);
}

Test(kube_api_source, bookmarks_keep_a_quiet_watch_from_being_doubted)
{
	struct bench b;

	bench_open(&b);
	b.timing.heartbeat_ms = 500;
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	for (int i = 0; i < 8; i++) {
		fake_api_bookmark(b.api);
		bench_pass(&b, 250);
	}
	cr_assert_eq(fake_api_asked(b.api, "watch=1", NULL), 1);
	bench_close(&b);
}

Test(kube_api_source, a_list_that_falls_silent_is_given_up_and_the_next_server_asked)
{
	struct pb_api_config *config;
	struct bench dead, b;

	bench_open(&dead);
	fake_http_freeze(fake_api_http(dead.api), true);
	bench_open(&b);
	b.timing.heartbeat_ms = 50;
	config = bench_config(&b);
	add_server(config, fake_http_url(fake_api_http(dead.api)), 0);
	bench_start(&b, config, SVC);
	for (uint64_t end = uv_hrtime() + 20000000000ULL; !fake_api_watches(b.api);) {
		cr_assert_lt(uv_hrtime(), end, "never watched: %s", b.sink.state[SVC]);
		uv_run(&dead.loop, UV_RUN_NOWAIT);
		bench_turn(&b);
	}
	bench_close(&b);
	dead.closed = true;
	bench_close(&dead);
}

/* ---- status ---- */

Test(kube_api_source, status_names_server_version_and_what_a_kind_does)
{
	struct pb_source_kind kind = {.mode = "", .resource = "", .last_relist = ""};
	cJSON *json;
	struct bench b;

	bench_open(&b);
	fake_api_put(b.api, SERVICES, "a", "one", "");
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1 && bench_says(&b, SVC, "watching"));
	json = b.source->ops->status(b.source);
	cr_assert_str_eq(pb_json_str(json, "server", ""), fake_http_url(fake_api_http(b.api)));
	cr_assert_str_eq(pb_json_str(json, "version", ""), "v1.26.0");
	cr_assert_str_eq(pb_json_str(json, "config", ""), "test");
	b.source->ops->describe(b.source, PB_KUBE_POD, &kind);
	cr_assert_str_eq(kind.mode, "", "nobody asked for pods");
	b.source->ops->describe(b.source, SVC, &kind);
	cr_assert_str_eq(kind.resource, "services");
	cr_assert_str_eq(kind.mode, "watch");
	cr_assert_gt(kind.bytes, 0);
	cr_assert_gt(kind.last_event, 0);
	cr_assert_str_eq(kind.last_relist, "");
	fake_api_end_watches(b.api, true);
	fake_api_tick(b.api);
	fake_api_compact(b.api);
	WAIT(&b, b.sink.synced[SVC] == 2);
	b.source->ops->describe(b.source, SVC, &kind);
	cr_assert_str_eq(kind.last_relist, "the server no longer had the changes (410)");
	cJSON_Delete(json);
	bench_close(&b);
}

Test(kube_api_source, a_bad_kubeconfig_is_an_error_at_once)
{
	struct pb_source *source = NULL;
	struct pb_err err;
	uv_loop_t loop;

	uv_loop_init(&loop);
	cr_assert_eq(pb_source_api_new(&loop, NULL, "/nonexistent/kubeconfig", &source, &err),
		     -ENOENT);
	cr_assert_str_eq(
		err.text,
		"kubernetes.kubeconfig: /nonexistent/kubeconfig: No such file or directory");
	cr_assert_eq(uv_loop_close(&loop), 0);
}
