/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What reaches a watcher when events repeat, are old, or come faster than it takes them: per
 * object in order, at most one thing waiting for each, whatever the server sends.
 */
#include <criterion/criterion.h>

#include <malloc.h>

#include <kube/kube.h>
#include <kube/source.h>

#define NS PB_KUBE_NAMESPACE
#define NAMES 10

/* Writes what it is told: "+a" put, "~a" replaced, "-a" deleted. */
struct watcher {
	struct pb_kube_watch *watch;
	struct pb_buf log;
	unsigned n;
	int last[NAMES]; /* the number the object had when it was told; -1: not there */
	unsigned deletes;
};

static uv_loop_t loop;
static struct pb_kube *kube;
static struct pb_sink *sink;

static int number_of(const struct pb_kube_meta *meta)
{
	return meta->n_labels ? atoi(meta->labels[0].value) : 0;
}

static void on_event(void *arg, const struct pb_kube_event *event)
{
	const struct pb_kube_meta *meta = event->object;
	struct watcher *w = arg;

	w->n++;
	if (event->kind > PB_KUBE_DELETE)
		return;
	pb_buf_printf(&w->log, "%s%s ",
		      event->kind == PB_KUBE_DELETE ? "-"
		      : event->old		    ? "~"
						    : "+",
		      meta->name);
	w->deletes += event->kind == PB_KUBE_DELETE;
}

static void watch(struct watcher *w, pb_kube_watch_fn fn)
{
	memset(w, 0, sizeof(*w));
	memset(w->last, -1, sizeof(w->last));
	cr_assert_eq(pb_kube_watch(kube, NS, fn, w, &w->watch), 0);
}

static void put(const char *name, const char *uid, int number)
{
	char json[256];
	struct pb_err err = {0};
	int len = snprintf(json, sizeof(json),
			   "{\"metadata\":{\"name\":\"%s\",\"uid\":\"%s\",\"resourceVersion\":"
			   "\"%d\",\"labels\":{\"n\":\"%d\"}}}",
			   name, uid, number, number);

	cr_assert_eq(pb_sink_put(sink, NS, "v1", json, (size_t)len, &err), 0, "%s", err.text);
}

static void expect(struct watcher *w, const char *log)
{
	while (uv_run(&loop, UV_RUN_NOWAIT))
		;
	cr_assert_str_eq(w->log.data ? w->log.data : "", log);
	pb_buf_reset(&w->log);
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
	bool closed = false;

	pb_kube_close(kube, on_closed, &closed);
	while (!closed)
		uv_run(&loop, UV_RUN_ONCE);
	cr_assert_eq(uv_loop_close(&loop), 0, "a handle was left");
}

TestSuite(kube_api_order, .init = setup, .fini = teardown, .timeout = 60);

/* ---- repeated and old events ---- */

Test(kube_api_order, an_event_that_repeats_is_told_once)
{
	struct watcher w;

	watch(&w, on_event);
	put("a", "u", 1);
	put("a", "u", 1);
	expect(&w, "+a ");
	put("a", "u", 1);
	expect(&w, "");
	pb_buf_free(&w.log);
}

/* Versions are opaque: an older one can't be told from a newer one, but the next event can. */
Test(kube_api_order, an_older_object_between_newer_ones_leaves_no_trace)
{
	struct watcher w;

	watch(&w, on_event);
	put("a", "u", 2);
	put("a", "u", 1);
	put("a", "u", 2);
	expect(&w, "+a ");
	put("a", "u", 1);
	put("a", "u", 2);
	expect(&w, "~a ");
	pb_buf_free(&w.log);
}

Test(kube_api_order, a_deletion_counts_for_the_uid_it_names)
{
	static const struct {
		const char *name, *uid;
		int rc;
	} cases[] = {
		{"unknown", "u2", -ENOENT}, /* never seen */
		{"a", "u1", -ENOENT},	    /* of the object before */
		{"a", "u2", 0},
		{"a", "u2", -ENOENT}, /* again */
	};
	struct watcher w;

	watch(&w, on_event);
	put("a", "u1", 1);
	put("a", "u2", 2);
	expect(&w, "+a ");
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++)
		cr_assert_eq(pb_sink_delete(sink, NS, "", cases[i].name, cases[i].uid), cases[i].rc,
			     "case %zu", i);
	expect(&w, "-a ");
	put("a", "u3", 3);
	expect(&w, "+a ");
	cr_assert_eq(pb_sink_delete(sink, NS, "", "a", NULL), 0, "a source that knows no uid");
	expect(&w, "-a ");
	pb_buf_free(&w.log);
}

Test(kube_api_order, another_uid_under_the_same_name_is_a_deletion_and_a_new_object)
{
	struct watcher w;

	watch(&w, on_event);
	put("a", "u1", 1);
	expect(&w, "+a ");
	put("a", "u2", 2); /* as an event */
	expect(&w, "-a +a ");
	pb_sink_list_begin(sink, NS); /* in a relist */
	put("a", "u3", 3);
	pb_sink_list_end(sink, NS);
	expect(&w, "-a +a ");
	pb_buf_free(&w.log);
}

/* ---- order and bounds ---- */

/* Objects only ever get larger numbers: a smaller one would be out of order. */
static void on_ordered(void *arg, const struct pb_kube_event *event)
{
	const struct pb_kube_meta *meta = event->object;
	struct watcher *w = arg;
	int i;

	if (event->kind > PB_KUBE_DELETE)
		return;
	i = atoi(meta->name + 1);
	w->n++;
	if (event->kind == PB_KUBE_DELETE) {
		cr_assert_geq(w->last[i], 0, "%s was never told", meta->name);
		w->last[i] = -1;
		return;
	}
	cr_assert_gt(number_of(meta), w->last[i], "%s went back", meta->name);
	if (event->old)
		cr_assert_eq(number_of(event->old), w->last[i], "old is not what was told");
	w->last[i] = number_of(meta);
}

Test(kube_api_order, events_of_one_object_are_never_told_out_of_order)
{
	struct watcher quick, slow;
	unsigned seed = 7;

	watch(&quick, on_ordered);
	watch(&slow, on_ordered);
	for (int i = 1; i <= 20000; i++) {
		char name[8];

		snprintf(name, sizeof(name), "n%d", rand_r(&seed) % NAMES);
		if (rand_r(&seed) % 4)
			put(name, "u", i);
		else
			pb_sink_delete(sink, NS, "", name, "u");
		if (rand_r(&seed) % 8 == 0)
			uv_run(&loop, UV_RUN_NOWAIT);
		if (i % 500 == 0)
			pb_kube_hold(slow.watch);
		if (i % 500 == 250)
			pb_kube_resume(slow.watch);
	}
	pb_kube_resume(slow.watch);
	while (uv_run(&loop, UV_RUN_NOWAIT))
		;
	cr_assert_arr_eq(quick.last, slow.last, sizeof(quick.last));
	cr_assert_lt(slow.n, quick.n, "what waited was told as one");
}

Test(kube_api_order, a_slow_watcher_keeps_one_thing_for_each_object)
{
	struct watcher slow, quick;
	size_t before, after;

	watch(&slow, on_ordered);
	watch(&quick, on_ordered);
	for (int i = 0; i < NAMES; i++) {
		char name[8];

		snprintf(name, sizeof(name), "n%d", i);
		put(name, "u", 1);
	}
	while (uv_run(&loop, UV_RUN_NOWAIT))
		;
	pb_kube_hold(slow.watch);
	slow.n = 0;
	before = mallinfo2().uordblks;
	for (int i = 0; i < 100000; i++) {
		char name[8];

		snprintf(name, sizeof(name), "n%d", i % NAMES);
		put(name, "u", i + 2);
		if (i % 100 == 0)
			uv_run(&loop, UV_RUN_NOWAIT);
	}
	while (uv_run(&loop, UV_RUN_NOWAIT))
		;
	after = mallinfo2().uordblks;
	/* Ten notes and the ten objects that they hold: a few hundred bytes each. */
	cr_assert_lt(after - before, 64 * 1024U, "%zu bytes wait", after - before);
	cr_assert_eq(slow.n, 0);
	cr_assert_not(pb_kube_replayed(slow.watch));
	pb_kube_resume(slow.watch);
	while (uv_run(&loop, UV_RUN_NOWAIT))
		;
	cr_assert_eq(slow.n, NAMES);
	cr_assert_eq(slow.last[3], 100000 - NAMES + 3 + 2);
}

Test(kube_api_order, a_kind_may_have_any_number_of_watches)
{
	enum { MANY = 200 };
	struct watcher *w = calloc(MANY, sizeof(*w));

	for (int i = 0; i < MANY; i++)
		watch(&w[i], on_event);
	put("a", "u", 1);
	expect(&w[MANY - 1], "+a ");
	for (int i = 0; i < MANY; i += 2)
		pb_kube_hold(w[i].watch);
	put("a", "u", 2);
	put("a", "u", 3);
	while (uv_run(&loop, UV_RUN_NOWAIT))
		;
	for (int i = 0; i < MANY; i += 2)
		pb_kube_resume(w[i].watch);
	for (int i = 0; i < MANY - 1; i++)
		expect(&w[i], "+a ~a ");
	for (int i = 0; i < MANY; i += 3)
		pb_kube_unwatch(w[i].watch);
	pb_sink_delete(sink, NS, "", "a", "u");
	for (int i = 0; i < MANY; i++) {
		expect(&w[i], i == MANY - 1 ? "~a -a " : i % 3 ? "-a " : "");
		pb_buf_free(&w[i].log);
	}
	free(w);
}
