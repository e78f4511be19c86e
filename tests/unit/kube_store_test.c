/* SPDX-License-Identifier: Apache-2.0 */
/* The store: what watchers are told when a source reports this or that. */
#include <criterion/criterion.h>

#include <time.h>

#include <kube/kube.h>
#include <kube/object.h>
#include <kube/source.h>
#include <kube/store.h>

#define NS PB_KUBE_NAMESPACE

/* Writes what it is told: "+a=1" put, "~a=2<1" replaced, "-a=2" deleted, "." synced, "!" absent. */
struct watcher {
	char log[4096];
	unsigned n;
	struct pb_kube_watch *watch;
	bool unwatch_in_callback;
};

static uv_loop_t loop;
static struct pb_kube *kube;
static struct pb_sink *sink;
static bool is_closed;

static const char *value_of(const void *object)
{
	const struct pb_kube_meta *meta = object;

	return meta->n_labels ? meta->labels[0].value : "";
}

static void on_event(void *arg, const struct pb_kube_event *event)
{
	const struct pb_kube_meta *meta = event->object;
	struct watcher *w = arg;
	char *end = w->log + strlen(w->log);
	size_t room = sizeof(w->log) - (size_t)(end - w->log);

	w->n++;
	cr_assert_geq(event->size, sizeof(*event));
	cr_assert_not_null(event->api_version);
	if (event->kind == PB_KUBE_SYNCED)
		snprintf(end, room, ".%s ", event->api_version);
	else if (event->kind == PB_KUBE_ABSENT)
		snprintf(end, room, "! ");
	else if (event->kind == PB_KUBE_DELETE)
		snprintf(end, room, "-%s=%s ", meta->name, value_of(meta));
	else if (event->old)
		snprintf(end, room, "~%s=%s<%s ", meta->name, value_of(meta), value_of(event->old));
	else
		snprintf(end, room, "+%s=%s ", meta->name, value_of(meta));
	if (w->unwatch_in_callback) {
		pb_kube_unwatch(w->watch);
		w->watch = NULL;
	}
}

static void watch(struct watcher *w)
{
	memset(w, 0, sizeof(*w));
	cr_assert_eq(pb_kube_watch(kube, NS, on_event, w, &w->watch), 0);
}

/* Runs the loop until nothing is left to tell. */
static void settle(void)
{
	while (uv_run(&loop, UV_RUN_NOWAIT))
		;
}

static void expect(struct watcher *w, const char *log)
{
	settle();
	cr_assert_str_eq(w->log, log);
	w->log[0] = '\0';
}

static int put_uid(const char *name, const char *value, const char *uid)
{
	PB_FREE char *json = pb_sprintf("{\"metadata\":{\"name\":\"%s\",\"uid\":\"%s\",\"labels\":"
					"{\"v\":\"%s\"}}}",
					name, uid, value);
	struct pb_err err = {0};

	return pb_sink_put(sink, NS, "v1", json, strlen(json), &err);
}

static void put(const char *name, const char *value)
{
	cr_assert_eq(put_uid(name, value, "u"), 0);
}

static void list(const char *const *pairs)
{
	pb_sink_list_begin(sink, NS);
	for (; *pairs; pairs += 2)
		put(pairs[0], pairs[1]);
	pb_sink_list_end(sink, NS);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void setup(void)
{
	struct pb_config config = {0};
	struct pb_err err;

	uv_loop_init(&loop);
	cr_assert_eq(pb_kube_new(&loop, &config, &kube, &err), 0);
	sink = (struct pb_sink *)kube;
}

static void teardown(void)
{
	is_closed = false;
	pb_kube_close(kube, on_closed, &is_closed);
	while (!is_closed)
		uv_run(&loop, UV_RUN_ONCE);
	cr_assert_eq(uv_loop_close(&loop), 0, "a handle was left");
	cr_assert_eq(pb_kube_intern_count(), 0);
}

TestSuite(kube_store, .init = setup, .fini = teardown, .timeout = 60);

Test(kube_store, nothing_is_told_from_inside_a_call)
{
	struct watcher w;

	watch(&w);
	list((const char *[]){"a", "1", NULL});
	cr_assert_eq(w.n, 0);
	expect(&w, "+a=1 . ");
}

Test(kube_store, that_a_kind_is_gone_is_told_before_its_objects_go)
{
	struct watcher w;

	watch(&w);
	list((const char *[]){"a", "1", NULL});
	expect(&w, "+a=1 . ");
	put("a", "2");
	pb_sink_absent(sink, NS);
	expect(&w, "! -a=1 ");
	list((const char *[]){"a", "3", NULL});
	expect(&w, "+a=3 . ");
}

Test(kube_store, an_equal_object_is_no_event)
{
	struct watcher w;

	watch(&w);
	list((const char *[]){"a", "1", NULL});
	expect(&w, "+a=1 . ");
	put("a", "1");
	expect(&w, "");
	put("a", "2");
	expect(&w, "~a=2<1 ");
}

Test(kube_store, E21_what_a_full_list_no_longer_holds_is_deleted)
{
	struct watcher w;

	watch(&w);
	list((const char *[]){"a", "1", "b", "1", NULL});
	expect(&w, "+a=1 +b=1 . ");
	list((const char *[]){"b", "1", "c", "1", NULL});
	expect(&w, "+c=1 -a=1 ");
}

Test(kube_store, E19_a_relist_that_changes_nothing_is_silent)
{
	struct watcher w;

	watch(&w);
	list((const char *[]){"a", "1", "b", "1", NULL});
	expect(&w, "+a=1 +b=1 . ");
	list((const char *[]){"b", "1", "a", "1", NULL});
	expect(&w, "");
}

Test(kube_store, a_list_that_broke_off_deletes_nothing)
{
	struct watcher w;

	watch(&w);
	list((const char *[]){"a", "1", "b", "1", NULL});
	pb_sink_list_begin(sink, NS);
	put("b", "2");
	pb_sink_list_abort(sink, NS);
	pb_sink_list_end(sink, NS);
	expect(&w, "+a=1 +b=2 . ");
}

Test(kube_store, synced_waits_for_the_first_full_list)
{
	struct watcher w;

	watch(&w);
	put("a", "1");
	expect(&w, "+a=1 ");
	pb_sink_list_begin(sink, NS);
	put("a", "1");
	pb_sink_list_end(sink, NS);
	expect(&w, ". ");
}

Test(kube_store, a_late_watcher_gets_a_replay_in_order)
{
	struct watcher first, late;

	watch(&first);
	list((const char *[]){"b", "1", "a", "1", NULL});
	expect(&first, "+b=1 +a=1 . ");
	watch(&late);
	cr_assert(!pb_kube_replayed(late.watch));
	cr_assert_eq(late.n, 0);
	put("b", "2");
	put("c", "1");
	expect(&late, "+b=2 +a=1 +c=1 . ");
	cr_assert(pb_kube_replayed(late.watch));
	expect(&first, "~b=2<1 +c=1 ");
}

Test(kube_store, an_object_deleted_during_the_replay_is_never_shown)
{
	struct watcher first, late;

	watch(&first);
	list((const char *[]){"a", "1", "b", "1", NULL});
	expect(&first, "+a=1 +b=1 . ");
	watch(&late);
	pb_sink_delete(sink, NS, NULL, "a", NULL);
	expect(&late, "+b=1 . ");
	expect(&first, "-a=1 ");
}

Test(kube_store, a_held_watch_gets_the_last_state_once)
{
	struct watcher held, other;

	watch(&held);
	watch(&other);
	list((const char *[]){"a", "1", "b", "1", NULL});
	expect(&held, "+a=1 +b=1 . ");
	expect(&other, "+a=1 +b=1 . ");
	pb_kube_hold(held.watch);
	put("a", "2");
	settle();
	put("a", "3");
	pb_sink_delete(sink, NS, "", "b", NULL);
	put("c", "1");
	settle();
	pb_sink_delete(sink, NS, "", "c", NULL);
	expect(&held, "");
	expect(&other, "~a=2<1 ~a=3<2 -b=1 +c=1 -c=1 ");
	cr_assert(!pb_kube_replayed(held.watch));
	pb_kube_resume(held.watch);
	expect(&held, "~a=3<1 -b=1 ");
	cr_assert(pb_kube_replayed(held.watch));
}

Test(kube_store, a_new_uid_is_another_object)
{
	struct watcher w;

	watch(&w);
	cr_assert_eq(put_uid("a", "1", "u1"), 0);
	expect(&w, "+a=1 ");
	cr_assert_eq(put_uid("a", "2", "u2"), 0);
	expect(&w, "-a=1 +a=2 ");
}

Test(kube_store, E33_the_same_name_in_two_namespaces_is_two_objects)
{
	static const char *const namespaces[] = {"x", "y"};
	struct watcher w = {0};
	struct pb_err err;

	cr_assert_eq(pb_kube_watch(kube, PB_KUBE_POD, on_event, &w, &w.watch), 0);
	for (int i = 0; i < 2; i++) {
		PB_FREE char *json =
			pb_sprintf("{\"metadata\":{\"name\":\"p\",\"namespace\":\"%s\"}}",
				   namespaces[i]);

		cr_assert_eq(pb_sink_put(sink, PB_KUBE_POD, NULL, json, strlen(json), &err), 0);
	}
	pb_sink_delete(sink, PB_KUBE_POD, "x", "p", NULL);
	cr_assert_eq(pb_sink_delete(sink, PB_KUBE_POD, "z", "p", NULL), -ENOENT);
	expect(&w, "+p= ");
}

Test(kube_store, a_bad_object_keeps_the_last_good_one_even_over_a_list)
{
	static const char bad[] = "{\"metadata\":{\"name\":\"a\",\"labels\":{\"v\":true}}}";
	struct pb_err err = {0};
	struct watcher w;

	watch(&w);
	list((const char *[]){"a", "1", NULL});
	expect(&w, "+a=1 . ");
	pb_sink_list_begin(sink, NS);
	cr_assert_eq(pb_sink_put(sink, NS, "v1", bad, strlen(bad), &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "Namespace /a: metadata.labels"), "%s", err.text);
	pb_sink_list_end(sink, NS);
	expect(&w, "");
}

static const cJSON *namespaces_of(const cJSON *status)
{
	const cJSON *kind;

	cJSON_ArrayForEach (kind, cJSON_GetObjectItemCaseSensitive(status, "kinds"))
		if (strcmp(pb_json_str(kind, "kind", ""), "Namespace") == 0)
			return kind;
	return NULL;
}

/* A server that invents objects takes no more memory than is allowed, and nothing else is lost. */
Test(kube_store, a_kind_without_end_fills_its_room_and_says_so)
{
	PB_JSON_FREE cJSON *status = NULL;
	const cJSON *kind;
	struct watcher w;
	uint64_t full;

	kube->bytes_max = 100000;
	watch(&w);
	pb_sink_state(sink, NS, true, "watching");
	put("first", "1");
	for (int i = 0; i < 10000; i++) {
		PB_FREE char *name = pb_sprintf("n%d", i);

		put(name, "1");
	}
	full = kube->stores[NS].objects;
	cr_assert(full > 100 && full < 1000, "%lu objects", full);
	cr_assert_leq(kube->stores[NS].bytes, 100000);
	cr_assert_eq(HASH_COUNT(kube->stores[NS].entries), full);
	settle();
	w.log[0] = '\0';
	/* what is known goes on being followed */
	put("first", "2");
	expect(&w, "~first=2<1 ");
	status = pb_kube_status_json(kube);
	kind = namespaces_of(status);
	cr_assert(cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(kind, "healthy")));
	cr_assert_not_null(strstr(pb_json_str(kind, "source", ""), "no room for all objects"));
	cr_assert_eq(pb_json_num(kind, "refused", 0), 10001 - (double)full);
	cr_assert_not_null(strstr(pb_json_str(kind, "last_error", ""),
				  "Namespace /n9999: not kept: the objects of this kind"));
	/* a list of what there really is makes room */
	list((const char *[]){"first", "2", "last", "1", NULL});
	settle();
	cr_assert_eq(kube->stores[NS].objects, 2);
	cr_assert_not(kube->stores[NS].full);
	pb_sink_absent(sink, NS);
	cr_assert_eq(kube->stores[NS].bytes, 0);
	cr_assert_eq(kube->stores[NS].old_bytes, 0);
}

/* Lists that break off delete nothing, so what they bring has to be counted over all of them. */
Test(kube_store, lists_that_break_off_again_and_again_fill_no_more_than_two_rooms)
{
	struct watcher w;

	kube->bytes_max = 100000;
	watch(&w);
	for (int i = 0; i < 5000; i++) {
		PB_FREE char *name = pb_sprintf("n%d", i);

		if (i % 100 == 0)
			pb_sink_list_begin(sink, NS);
		put(name, "1");
		if (i % 100 == 99)
			pb_sink_list_abort(sink, NS);
	}
	cr_assert_leq(kube->stores[NS].bytes + kube->stores[NS].old_bytes, 200000);
	cr_assert_lt(kube->stores[NS].objects, 2000);
	settle();
	list((const char *[]){"n1", "1", NULL});
	settle();
	cr_assert_eq(kube->stores[NS].objects, 1);
	cr_assert_eq(kube->stores[NS].old_bytes, 0);
	pb_sink_delete(sink, NS, "", "n1", "u");
	cr_assert_eq(kube->stores[NS].bytes, 0);
}

Test(kube_store, the_pool_of_names_has_an_end)
{
	static char name[1024 * 1024];
	const char *names[100];
	unsigned n = 0;

	memset(name, 'x', sizeof(name));
	for (;; n++) {
		cr_assert_lt(n, PB_ARRAY_LEN(names));
		name[0] = (char)('a' + n % 26);
		name[1] = (char)('a' + n / 26);
		names[n] = pb_kube_intern(name, sizeof(name));
		if (!names[n])
			break;
	}
	cr_assert_eq(n, 63);
	while (n)
		pb_kube_intern_unref(names[--n]);
	names[0] = pb_kube_intern(name, sizeof(name));
	cr_assert_not_null(names[0], "what was given back can be had again");
	pb_kube_intern_unref(names[0]);
}

Test(kube_store, an_absent_kind_has_no_objects)
{
	struct watcher w;

	watch(&w);
	pb_sink_absent(sink, NS);
	expect(&w, "! ");
	list((const char *[]){"a", "1", NULL});
	expect(&w, "+a=1 . ");
	pb_sink_absent(sink, NS);
	expect(&w, "! -a=1 ");
}

static void list_of_version(const char *version, const char *const *pairs)
{
	pb_sink_list_begin(sink, NS);
	pb_sink_version(sink, NS, version);
	for (; *pairs; pairs += 2)
		put(pairs[0], pairs[1]);
	pb_sink_list_end(sink, NS);
}

Test(kube_store, synced_carries_the_version_and_comes_again_when_it_changes)
{
	static const char *const a1[] = {"a", "1", NULL}, *const a2[] = {"a", "2", NULL};
	struct watcher w, late;

	watch(&w);
	list_of_version("x/v1beta1", a1);
	expect(&w, "+a=1 .x/v1beta1 ");
	list_of_version("x/v1beta1", a2);
	expect(&w, "~a=2<1 ");
	list_of_version("x/v1", a2);
	expect(&w, ".x/v1 ");
	watch(&late);
	expect(&late, "+a=2 .x/v1 ");
	list(a2); /* a source without versions took over */
	expect(&w, ". ");
	pb_sink_absent(sink, NS);
	expect(&w, "! -a=2 ");
	list_of_version("x/v1", a1);
	expect(&w, "+a=1 .x/v1 ");
}

Test(kube_store, a_version_counts_only_from_the_end_of_its_list_on)
{
	struct watcher w, late;

	watch(&w);
	list_of_version("x/v1beta1", (const char *[]){"a", "1", NULL});
	expect(&w, "+a=1 .x/v1beta1 ");
	pb_sink_list_begin(sink, NS);
	pb_sink_version(sink, NS, "x/v1");
	pb_sink_list_abort(sink, NS);
	expect(&w, "");
	watch(&late);
	expect(&late, "+a=1 .x/v1beta1 ");
}

Test(kube_store, an_old_object_lives_until_every_watcher_was_told)
{
	struct watcher quick, slow;

	watch(&quick);
	watch(&slow);
	put("a", "1");
	settle();
	slow.log[0] = '\0';
	pb_kube_hold(slow.watch);
	for (char v = '2'; v <= '9'; v++) {
		put("a", (char[]){v, '\0'});
		settle();
	}
	pb_kube_resume(slow.watch);
	expect(&slow, "~a=9<1 ");
}

Test(kube_store, a_watcher_may_unwatch_in_its_callback)
{
	struct watcher w, other;

	watch(&w);
	watch(&other);
	w.unwatch_in_callback = true;
	list((const char *[]){"a", "1", "b", "1", NULL});
	expect(&other, "+a=1 +b=1 . ");
	cr_assert_eq(w.n, 1);
}

Test(kube_store, the_last_watcher_takes_the_objects_with_it)
{
	struct watcher w, again;

	watch(&w);
	list((const char *[]){"a", "1", NULL});
	expect(&w, "+a=1 . ");
	pb_kube_unwatch(w.watch);
	put("a", "2");
	watch(&again);
	expect(&again, "");
	list((const char *[]){"b", "1", NULL});
	expect(&again, "+b=1 . ");
}

/* Not the wall clock: other tests run beside this one. */
static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

Test(kube_store, events_are_told_in_slices_of_bounded_time)
{
	struct watcher w;
	uint64_t longest = 0;

	watch(&w);
	pb_sink_list_begin(sink, NS);
	for (int i = 0; i < 20000; i++) {
		PB_FREE char *name = pb_sprintf("n%d", i);

		put(name, "1");
	}
	pb_sink_list_end(sink, NS);
	for (bool busy = true; busy;) {
		uint64_t start = cpu_ns(), took;

		w.log[0] = '\0';
		busy = uv_run(&loop, UV_RUN_NOWAIT);
		took = cpu_ns() - start;
		longest = took > longest ? took : longest;
	}
	cr_assert_eq(w.n, 20001);
	cr_assert_lt(longest, 10 * 1000 * 1000ULL, "a turn took %lu us", longest / 1000);
}

Test(kube_store, status_counts_by_kind)
{
	struct watcher w;
	cJSON *status, *kind;

	watch(&w);
	list((const char *[]){"a", "1", "b", "1", NULL});
	list((const char *[]){"a", "2", NULL});
	pb_sink_error(sink, NS, "connection refused");
	pb_sink_state(sink, NS, false, "retrying in 3 s: connection refused");
	pb_sink_state(sink, NS, false, "listing");
	settle();
	status = pb_kube_status_json(kube);
	kind = cJSON_GetArrayItem(cJSON_GetObjectItem(status, "kinds"), NS - 1);
	cr_assert_str_eq(pb_json_str(kind, "kind", ""), "Namespace");
	cr_assert_str_eq(pb_json_str(kind, "state", ""), "synced");
	cr_assert_str_eq(pb_json_str(kind, "source", ""), "listing");
	cr_assert_str_eq(pb_json_str(kind, "last_error", ""), "connection refused");
	cr_assert_eq(pb_json_num(kind, "objects", -1), 1);
	cr_assert_eq(pb_json_num(kind, "events", -1), 4);
	cr_assert_eq(pb_json_num(kind, "relists", -1), 1);
	cJSON_Delete(status);
}
