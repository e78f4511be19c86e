/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGHUP: another source, or the same kubeconfig with other content. What both sources have never
 * sees a deletion; what can't be read leaves the old source at work.
 */
#include <criterion/criterion.h>

#include <signal.h>
#include <sys/stat.h>

#include <base/json.h>
#include <kube/kube.h>
#include <kube/kubeconfig.h>

#include "../tools/kube_fake_api.h"

#define NAMESPACES "/api/v1/namespaces"

struct world {
	uv_loop_t loop;
	uv_timer_t tick;
	struct fake_api *api;
	struct pb_kube *kube;
	struct pb_kube_watch *watch;
	char dir[32];	   /* of everything */
	struct pb_buf log; /* "+a", "~a" replaced, "-a", ".v1" synced, "!" absent */
	bool closed;
};

static void on_tick(uv_timer_t *timer)
{
	(void)timer;
}

static void on_event(void *arg, const struct pb_kube_event *event)
{
	const struct pb_kube_meta *meta = event->object;
	struct world *w = arg;

	if (event->kind == PB_KUBE_SYNCED)
		pb_buf_printf(&w->log, ".%s ", event->api_version);
	else if (event->kind == PB_KUBE_ABSENT)
		pb_buf_printf(&w->log, "! ");
	else
		pb_buf_printf(&w->log, "%s%s ",
			      event->kind == PB_KUBE_DELETE ? "-"
			      : event->old		    ? "~"
							    : "+",
			      meta->name);
}

static const char *seen(const struct world *w)
{
	return w->log.data ? w->log.data : "";
}

static void turn_until(struct world *w, bool (*done)(struct world *w, const void *arg),
		       const void *arg)
{
	uint64_t deadline = uv_hrtime() + 20000000000ULL;

	while (!done(w, arg)) {
		cr_assert_lt(uv_hrtime(), deadline, "seen: %s", seen(w));
		uv_run(&w->loop, UV_RUN_ONCE);
	}
}

static bool log_is(struct world *w, const void *text)
{
	return strcmp(seen(w), text) == 0;
}

static void expect(struct world *w, const char *text)
{
	turn_until(w, log_is, text);
	pb_buf_reset(&w->log);
}

static bool has_watches(struct world *w, const void *n)
{
	return fake_api_watches(w->api) == *(const unsigned *)n;
}

static bool has_asked_watches(struct world *w, const void *n)
{
	return fake_api_asked(w->api, "watch=1", NULL) == *(const unsigned *)n;
}

/* For what must not happen. */
static void pass(struct world *w, unsigned ms)
{
	uint64_t until = uv_hrtime() + ms * 1000000ULL;

	while (uv_hrtime() < until)
		uv_run(&w->loop, UV_RUN_ONCE);
}

static void write_file(struct world *w, const char *name, const char *text)
{
	PB_FREE char *path = pb_sprintf("%s/%s", w->dir, name);
	struct pb_err err;

	cr_assert_eq(pb_file_write(path, text, strlen(text), 0600, &err), 0);
}

static void write_kubeconfig(struct world *w, struct fake_api *api, const char *user)
{
	PB_FREE char *text = pb_sprintf("current-context: c\n"
					"contexts: [{name: c, context: {cluster: k, user: u}}]\n"
					"clusters: [{name: k, cluster: {server: \"%s\"}}]\n"
					"users: [{name: u, user: {%s}}]\n",
					fake_http_url(fake_api_http(api)), user);

	write_file(w, "kubeconfig", text);
}

static int hup(struct world *w, enum pb_kube_source_kind source, const char *name,
	       struct pb_err *err)
{
	PB_FREE char *path = pb_sprintf("%s/%s", w->dir, name);
	struct pb_config config = {.kubernetes = {.source = source}};

	if (source == PB_SOURCE_API)
		config.kubernetes.kubeconfig = path;
	else
		config.kubernetes.manifests = path;
	return pb_kube_start(w->kube, &config, err);
}

static void switch_to(struct world *w, enum pb_kube_source_kind source, const char *name)
{
	struct pb_err err = {0};

	cr_assert_eq(hup(w, source, name, &err), 0, "%s", err.text);
}

static void hup_fails(struct world *w, enum pb_kube_source_kind source, const char *name,
		      const char *part)
{
	PB_JSON_FREE cJSON *status = NULL;
	struct pb_err err = {0};

	cr_assert_lt(hup(w, source, name, &err), 0);
	cr_assert_not_null(strstr(err.text, part), "%s", err.text);
	cr_assert_not_null(strstr(err.text, "; the source before goes on"), "%s", err.text);
	status = pb_kube_status_json(w->kube);
	cr_assert_not_null(strstr(pb_json_str(status, "source_error", ""), part));
}

/* A server with namespaces a and b, and a directory with b and c. */
static void world_open(struct world *w)
{
	struct pb_config config = {0};
	struct pb_err err = {0};
	PB_FREE char *manifests = NULL;

	memset(w, 0, sizeof(*w));
	signal(SIGPIPE, SIG_IGN);
	strcpy(w->dir, "/tmp/pb-switch-XXXXXX");
	cr_assert_not_null(mkdtemp(w->dir));
	manifests = pb_sprintf("%s/manifests", w->dir);
	cr_assert_eq(mkdir(manifests, 0700), 0);
	write_file(w, "manifests/all.yaml",
		   "{apiVersion: v1, kind: Namespace, metadata: {name: b}}\n---\n"
		   "{apiVersion: v1, kind: Namespace, metadata: {name: c}}\n");
	uv_loop_init(&w->loop);
	uv_timer_init(&w->loop, &w->tick);
	uv_timer_start(&w->tick, on_tick, 5, 5);
	w->api = fake_api_new(&w->loop, NULL, NULL);
	fake_api_put(w->api, NAMESPACES, "", "a", "");
	fake_api_put(w->api, NAMESPACES, "", "b", "");
	write_kubeconfig(w, w->api, "");
	cr_assert_eq(pb_kube_new(&w->loop, &config, &w->kube, &err), 0);
	switch_to(w, PB_SOURCE_API, "kubeconfig");
	cr_assert_eq(pb_kube_watch(w->kube, PB_KUBE_NAMESPACE, on_event, w, &w->watch), 0);
	expect(w, "+a +b .v1 ");
	turn_until(w, has_watches, &(unsigned){1});
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void world_close(struct world *w)
{
	static const char *const files[] = {"manifests/all.yaml", "manifests", "kubeconfig",
					    "token", "ca.crt"};

	pb_kube_close(w->kube, on_closed, &w->closed);
	while (!w->closed)
		uv_run(&w->loop, UV_RUN_ONCE);
	fake_api_close(w->api);
	uv_close((uv_handle_t *)&w->tick, NULL);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	cr_assert_eq(uv_loop_close(&w->loop), 0, "handles were left open");
	for (size_t i = 0; i < PB_ARRAY_LEN(files); i++) {
		PB_FREE char *path = pb_sprintf("%s/%s", w->dir, files[i]);

		remove(path);
	}
	cr_assert_eq(rmdir(w->dir), 0);
	pb_buf_free(&w->log);
}

Test(kube_api_switch, what_both_sources_have_never_sees_a_deletion)
{
	struct world w;

	world_open(&w);
	/* The versions and uids differ, so b is replaced, never deleted. */
	switch_to(&w, PB_SOURCE_MANIFESTS, "manifests");
	expect(&w, "~b +c -a . ");
	switch_to(&w, PB_SOURCE_API, "kubeconfig");
	expect(&w, "+a ~b -c .v1 ");
	turn_until(&w, has_watches, &(unsigned){1});
	fake_api_delete(w.api, NAMESPACES, "", "a");
	expect(&w, "-a ");
	world_close(&w);
}

Test(kube_api_switch, objects_stay_until_the_new_source_has_listed)
{
	struct world w;

	world_open(&w);
	switch_to(&w, PB_SOURCE_MANIFESTS, "manifests");
	expect(&w, "~b +c -a . ");
	fake_http_down(fake_api_http(w.api));
	switch_to(&w, PB_SOURCE_API, "kubeconfig");
	pass(&w, 100);
	expect(&w, "");
	fake_http_up(fake_api_http(w.api));
	expect(&w, "+a ~b -c .v1 ");
	world_close(&w);
}

Test(kube_api_switch, a_source_that_cant_be_read_leaves_the_old_one_at_work)
{
	struct world w;

	world_open(&w);
	hup_fails(&w, PB_SOURCE_API, "nowhere", "nowhere: No such file or directory");
	hup_fails(&w, PB_SOURCE_MANIFESTS, "nowhere", "nowhere: No such file or directory");
	hup_fails(&w, PB_SOURCE_MANIFESTS, "kubeconfig", "kubeconfig: Not a directory");
	write_file(&w, "kubeconfig", "current-context: [\n");
	hup_fails(&w, PB_SOURCE_API, "kubeconfig", "kubernetes.kubeconfig: ");
	write_kubeconfig(&w, w.api, "exec: {command: aws}");
	hup_fails(&w, PB_SOURCE_API, "kubeconfig",
		  "user \"u\": \"exec\": login plugins run programs and are not supported; use a "
		  "service account's token (\"tokenFile\") or a client certificate");
	fake_api_put(w.api, NAMESPACES, "", "new", "");
	expect(&w, "+new ");
	cr_assert_eq(fake_api_asked(w.api, "watch=1", NULL), 1, "the connection was kept");
	world_close(&w);
}

/* ---- the same path ---- */

static const cJSON *namespaces_of(const cJSON *status)
{
	const cJSON *kind;

	cJSON_ArrayForEach (kind, cJSON_GetObjectItemCaseSensitive(status, "kinds"))
		if (strcmp(pb_json_str(kind, "kind", ""), "Namespace") == 0)
			return kind;
	return NULL;
}

Test(kube_api_switch, without_a_source_status_says_so_and_nothing_of_the_old_one)
{
	struct pb_config none = {.kubernetes = {.source = PB_SOURCE_NONE}};
	PB_JSON_FREE cJSON *status = NULL;
	struct pb_err err = {0};
	const cJSON *kind;
	struct world w;

	world_open(&w);
	cr_assert_eq(pb_kube_start(w.kube, &none, &err), 0);
	expect(&w, "! -a -b ");
	status = pb_kube_status_json(w.kube);
	kind = namespaces_of(status);
	cr_assert_str_eq(pb_json_str(status, "source", ""), "none");
	cr_assert_str_eq(pb_json_str(kind, "state", ""), "not served");
	cr_assert_str_eq(pb_json_str(kind, "source", "?"), "");
	cr_assert(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(kind, "healthy")));
	world_close(&w);
}

/* Each SIGHUP catches the source before it somewhere else: connecting, listing, reading. */
Test(kube_api_switch, back_and_forth_leaves_the_last_source_at_work)
{
	struct world w;

	world_open(&w);
	fake_http_chunk(fake_api_http(w.api), 7);
	for (int i = 0; i < 40; i++) {
		switch_to(&w, i & 1 ? PB_SOURCE_API : PB_SOURCE_MANIFESTS,
			  i & 1 ? "kubeconfig" : "manifests");
		for (int turn = 0; turn < i / 2; turn++) {
			PB_JSON_FREE cJSON *status = pb_kube_status_json(w.kube);

			cr_assert_not_null(namespaces_of(status));
			uv_run(&w.loop, UV_RUN_ONCE);
		}
	}
	turn_until(&w, has_watches, &(unsigned){1});
	pb_buf_reset(&w.log);
	fake_api_put(w.api, NAMESPACES, "", "d", "");
	fake_api_delete(w.api, NAMESPACES, "", "a");
	expect(&w, "+d -a ");
	world_close(&w);
}

Test(kube_api_switch, a_kubeconfig_that_did_not_change_is_no_change)
{
	struct pb_err err = {0};
	struct world w;

	world_open(&w);
	write_file(&w, "token", "t1\n");
	write_kubeconfig(&w, w.api, "tokenFile: token");
	switch_to(&w, PB_SOURCE_API, "kubeconfig");
	turn_until(&w, has_asked_watches, &(unsigned){2});
	/* a token that was rotated is read without a new source */
	write_file(&w, "token", "t2\n");
	write_kubeconfig(&w, w.api, "tokenFile: token");
	cr_assert_eq(hup(&w, PB_SOURCE_API, "kubeconfig", &err), 0);
	pass(&w, 100);
	cr_assert_eq(fake_api_asked(w.api, "watch=1", NULL), 2, "nothing was connected anew");
	expect(&w, "");
	world_close(&w);
}

Test(kube_api_switch, a_token_in_the_same_kubeconfig_is_taken_over)
{
	struct world w;

	world_open(&w);
	fake_api_require(w.api, "Bearer two");
	write_kubeconfig(&w, w.api, "token: two");
	switch_to(&w, PB_SOURCE_API, "kubeconfig");
	fake_api_put(w.api, NAMESPACES, "", "new", "");
	expect(&w, "+new ");
	turn_until(&w, has_watches, &(unsigned){1});
	world_close(&w);
}

Test(kube_api_switch, a_server_in_the_same_kubeconfig_is_taken_over)
{
	struct fake_api *other;
	struct world w;

	world_open(&w);
	other = fake_api_new(&w.loop, NULL, NULL);
	fake_api_put(other, NAMESPACES, "", "a", "");
	fake_api_put(other, NAMESPACES, "", "z", "");
	write_kubeconfig(&w, other, "");
	switch_to(&w, PB_SOURCE_API, "kubeconfig");
	/* a has the version that it had there: not even a change */
	expect(&w, "+z -b ");
	turn_until(&w, has_watches, &(unsigned){0});
	fake_api_close(other);
	world_close(&w);
}

Test(kube_api_switch, certificates_are_compared_by_content)
{
	static const char text[] = "current-context: c\n"
				   "contexts: [{name: c, context: {cluster: k}}]\n"
				   "clusters: [{name: k, cluster: {server: \"https://a\", "
				   "certificate-authority: ca.crt}}]\n";
	struct pb_api_config *config;
	uint64_t digests[3];
	struct pb_err err;
	struct world w;
	PB_FREE char *path = NULL;

	world_open(&w);
	path = pb_sprintf("%s/kubeconfig", w.dir);
	write_file(&w, "kubeconfig", text);
	for (int i = 0; i < 3; i++) {
		write_file(&w, "ca.crt", i < 2 ? "one" : "two");
		cr_assert_eq(pb_kubeconfig_load(path, &config, &err), 0, "%s", err.text);
		digests[i] = pb_api_config_digest(config);
		pb_api_config_free(config);
	}
	cr_assert_eq(digests[0], digests[1]);
	cr_assert_neq(digests[1], digests[2]);
	world_close(&w);
}
