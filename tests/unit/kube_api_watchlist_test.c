/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A watch that begins with the objects (WatchList): where the server has it, where it refuses,
 * where it has never heard of it, and what happens when it breaks off before the mark.
 */
#include "kube_api_harness.h"

#define SVC PB_KUBE_SERVICE
#define SLICE PB_KUBE_ENDPOINTSLICE
#define INITIAL "sendInitialEvents=true"

/* Three services at a server of 1.33 that does `how`. */
static void three(struct bench *b, enum fake_watch_list how)
{
	bench_open(b);
	fake_api_is(b->api, "33+", "v1.33.1");
	fake_api_watch_list(b->api, how);
	fake_api_put(b->api, SERVICES, "a", "one", "");
	fake_api_put(b->api, SERVICES, "a", "two", "");
	fake_api_put(b->api, SERVICES, "b", "one", "");
}

#define THREE "put a/one\nput a/two\nput b/one\n"

static bool has_log(struct bench *b, const char *text)
{
	return strcmp(bench_log(b), text) == 0;
}

Test(kube_api_watchlist, one_request_brings_the_objects_and_then_the_changes)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_SERVED);
	bench_start(&b, NULL, SVC);
	WAIT(&b, has_log(&b, "begin\n" THREE "end\n"));
	cr_assert(bench_says(&b, SVC, "watching"));
	cr_assert_str_eq(b.sink.version[SVC], "v1");
	cr_assert_eq(strncmp(fake_api_last(b.api, "watch=1"),
			     SERVICES "?watch=1&sendInitialEvents=true"
				      "&resourceVersionMatch=NotOlderThan"
				      "&allowWatchBookmarks=true&timeoutSeconds=",
			     strlen(SERVICES) + 105),
		     0, "%s", fake_api_last(b.api, "watch=1"));
	bench_forget(&b);
	fake_api_put(b.api, SERVICES, "a", "three", "");
	fake_api_delete(b.api, SERVICES, "b", "one");
	WAIT(&b, has_log(&b, "put a/three\ndelete b/one\n"));
	cr_assert_eq(fake_api_asked(b.api, SERVICES, NULL), 1);
	bench_close(&b);
}

Test(kube_api_watchlist, the_next_watch_goes_on_from_the_last_version)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_SERVED);
	bench_start(&b, NULL, SVC);
	WAIT(&b, b.sink.synced[SVC] == 1);
	fake_api_end_watches(b.api, true);
	WAIT(&b, fake_api_asked(b.api, "watch=1&resourceVersion=103&", NULL) == 1);
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 1);
	bench_close(&b);
}

Test(kube_api_watchlist, nothing_is_complete_before_the_mark)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_UNMARKED);
	bench_start(&b, NULL, SVC);
	WAIT(&b, has_log(&b, "begin\n" THREE));
	fake_api_put(b.api, SERVICES, "a", "one", "\"spec\":{}");
	fake_api_delete(b.api, SERVICES, "b", "one");
	WAIT(&b, has_log(&b, "begin\n" THREE "put a/one\ndelete b/one\n"));
	cr_assert_eq(b.sink.synced[SVC], 0);
	cr_assert(bench_says(&b, SVC, "listing"));
	fake_api_mark(b.api);
	WAIT(&b, b.sink.synced[SVC] == 1);
	cr_assert_str_eq(bench_objects(&b, SVC), "a/one a/two");
	bench_close(&b);
}

static void break_off_before_the_mark(bool clean)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_UNMARKED);
	bench_start(&b, NULL, SVC);
	WAIT(&b, has_log(&b, "begin\n" THREE));
	fake_api_delete(b.api, SERVICES, "a", "two");
	WAIT(&b, has_log(&b, "begin\n" THREE "delete a/two\n"));
	fake_api_watch_list(b.api, FAKE_WATCH_LIST_SERVED);
	fake_api_end_watches(b.api, clean);
	WAIT(&b, bench_says(&b, SVC, "it ended before all objects had come"));
	WAIT(&b, b.sink.synced[SVC] == 1);
	cr_assert(has_log(&b, "begin\n" THREE "delete a/two\nabort\n"
			      "begin\nput a/one\nput b/one\nend\n"),
		  "%s", bench_log(&b));
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 2);
	cr_assert_eq(fake_api_asked(b.api, "watch=1&resourceVersion", NULL), 0);
	bench_close(&b);
}

Test(kube_api_watchlist, a_stream_that_ends_in_order_before_the_mark_starts_again)
{
	break_off_before_the_mark(true);
}

Test(kube_api_watchlist, a_connection_that_breaks_before_the_mark_starts_again)
{
	break_off_before_the_mark(false);
}

/* What is said inside the stream before the mark. */
static void said_before_the_mark(const char *event, const char *state)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_UNMARKED);
	bench_start(&b, NULL, SVC);
	WAIT(&b, has_log(&b, "begin\n" THREE));
	fake_api_watch_list(b.api, FAKE_WATCH_LIST_SERVED);
	fake_api_raw(b.api, event);
	WAIT(&b, bench_says(&b, SVC, state));
	WAIT(&b, b.sink.synced[SVC] == 1);
	cr_assert(has_log(&b, "begin\n" THREE "abort\nbegin\n" THREE "end\n"), "%s", bench_log(&b));
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 2);
	bench_close(&b);
}

Test(kube_api_watchlist, expired_before_the_mark_starts_again_after_a_pause)
{
	said_before_the_mark("{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410,"
			     "\"reason\":\"Expired\"}}\n",
			     "the server forgets its changes too soon (410)");
}

Test(kube_api_watchlist, an_error_before_the_mark_starts_again_after_a_pause)
{
	said_before_the_mark("{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":500,"
			     "\"message\":\"etcdserver: leader changed\"}}\n",
			     "the server ended the watch with 500: etcdserver: leader changed");
}

Test(kube_api_watchlist, too_many_requests_before_the_mark_starts_again_after_a_pause)
{
	said_before_the_mark("{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":429,"
			     "\"reason\":\"TooManyRequests\"}}\n",
			     "the server ended the watch with 429: TooManyRequests");
}

Test(kube_api_watchlist, nonsense_before_the_mark_starts_again_after_a_pause)
{
	said_before_the_mark("hello\n", "a line of the watch is not an event");
}

Test(kube_api_watchlist, a_bookmark_without_a_version_starts_again_after_a_pause)
{
	said_before_the_mark("{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"annotations\":"
			     "{\"k8s.io/initial-events-end\":\"true\"}}}}\n",
			     "an event of the watch has no resourceVersion");
}

Test(kube_api_watchlist, a_second_mark_is_a_bookmark)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_SERVED);
	bench_start(&b, NULL, SVC);
	WAIT(&b, b.sink.synced[SVC] == 1);
	fake_api_tick(b.api);
	fake_api_mark(b.api);
	fake_api_end_watches(b.api, true);
	WAIT(&b, fake_api_asked(b.api, "watch=1&resourceVersion=104&", NULL) == 1);
	cr_assert(has_log(&b, "begin\n" THREE "end\n"), "%s", bench_log(&b));
	bench_close(&b);
}

/* A login page, say. */
Test(kube_api_watchlist, a_page_of_html_is_neither_list_nor_watch)
{
	static const char html[] = "<html>\n<body>please log in</body>\n</html>\n";
	struct bench b;

	three(&b, FAKE_WATCH_LIST_SERVED);
	fake_api_fail(b.api, SERVICES, 6, 200, "Content-Type: text/html\r\n", html);
	bench_start(&b, NULL, SVC);
	WAIT(&b, bench_says(&b, SVC, "a line of the watch is not an event"));
	WAIT(&b, bench_says(&b, SVC, "the answer is not a Kubernetes list"));
	cr_assert_eq(b.sink.synced[SVC], 0);
	WAIT(&b, b.sink.synced[SVC] == 1);
	cr_assert_str_eq(bench_objects(&b, SVC), "a/one a/two b/one");
	bench_close(&b);
}

Test(kube_api_watchlist, a_busy_server_is_asked_again_when_it_wants)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_SERVED);
	b.timing.backoff_max_ms = 2000;
	fake_api_fail(b.api, INITIAL, 1, 429, "Retry-After: 1\r\n", "{}");
	bench_start(&b, NULL, SVC);
	WAIT(&b, bench_says(&b, SVC, "retrying in 1.0 s: watch services: 429"));
	WAIT(&b, b.sink.synced[SVC] == 1);
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 2);
	cr_assert_eq(fake_api_asked(b.api, "limit=", NULL), 0);
	bench_close(&b);
}

Test(kube_api_watchlist, what_never_gets_to_the_mark_is_listed_for_once)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_SERVED);
	fake_api_fail(b.api, INITIAL, 3, 200, "", "");
	bench_start(&b, NULL, SVC);
	WAIT(&b, b.sink.synced[SVC] == 1);
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 3);
	cr_assert_eq(fake_api_asked(b.api, "limit=", NULL), 1);
	/* the next relist is one with a watch again */
	WAIT(&b, fake_api_watches(b.api) == 1);
	fake_api_end_watches(b.api, true);
	fake_api_tick(b.api);
	fake_api_compact(b.api);
	WAIT(&b, b.sink.synced[SVC] == 2);
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 4);
	bench_close(&b);
}

/* Its etcd is slow or gone: a state as new as the request can't be had, the cache can be read. */
Test(kube_api_watchlist, what_is_refused_again_and_again_is_listed_for_once)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_SERVED);
	fake_api_fail(b.api, INITIAL, 1000, 504, "", "{\"message\":\"Too large version\"}");
	bench_start(&b, NULL, SVC);
	WAIT(&b, b.sink.synced[SVC] == 1);
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 3);
	cr_assert_eq(fake_api_asked(b.api, "limit=500&resourceVersion=0", NULL), 1);
	WAIT(&b, fake_api_watches(b.api) == 1);
	bench_close(&b);
}

/* The head of the answer never comes; that of any other request does. */
Test(kube_api_watchlist, what_is_never_answered_is_listed_for_once)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_MUTE);
	b.timing.heartbeat_ms = 50;
	bench_start(&b, NULL, SVC);
	WAIT(&b, b.sink.synced[SVC] == 1);
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 3);
	cr_assert_eq(fake_api_asked(b.api, "limit=", NULL), 1);
	bench_close(&b);
}

Test(kube_api_watchlist, a_relist_after_410_finds_the_deletions_that_were_missed)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_SERVED);
	bench_start(&b, NULL, SVC);
	WAIT(&b, b.sink.synced[SVC] == 1);
	bench_forget(&b);
	fake_api_end_watches(b.api, false);
	fake_api_delete(b.api, SERVICES, "a", "two");
	fake_api_compact(b.api);
	WAIT(&b, has_log(&b, "begin\nput a/one\nput b/one\ndelete a/two\nend\n"));
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 2);
	cr_assert_eq(fake_api_asked(b.api, "limit=", NULL), 0);
	bench_close(&b);
}

/* ---- servers without it ---- */

Test(kube_api_watchlist, a_refusal_leads_to_a_list_at_once_and_is_remembered_for_all_kinds)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_INVALID);
	b.timing.backoff_ms = b.timing.backoff_max_ms = 60000; /* a pause would never end */
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1 && bench_says(&b, SVC, "watching"));
	cr_assert(has_log(&b, "begin\n" THREE "end\n"), "%s", bench_log(&b));
	cr_assert_eq(fake_api_asked(b.api, "limit=500&resourceVersion=0", NULL), 1);
	bench_want(&b, PB_KUBE_POD, true);
	WAIT(&b, fake_api_watches(b.api) == 2);
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 1);
	bench_close(&b);
}

Test(kube_api_watchlist, a_server_of_another_version_is_asked_anew)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_INVALID);
	b.timing.version_ms = 30;
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	WAIT(&b, fake_api_asked(b.api, "/version", NULL) >= 3);
	bench_want(&b, PB_KUBE_NODE, true);
	WAIT(&b, b.sink.synced[PB_KUBE_NODE] == 1);
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 1, "the same version: not again");
	fake_api_is(b.api, "34", "v1.34.0");
	fake_api_watch_list(b.api, FAKE_WATCH_LIST_SERVED);
	WAIT(&b, fake_api_asked(b.api, "/version", NULL) >= 6);
	bench_want(&b, PB_KUBE_POD, true);
	WAIT(&b, b.sink.synced[PB_KUBE_POD] == 1);
	cr_assert_eq(fake_api_asked(b.api, "/api/v1/pods?watch=1&" INITIAL, NULL), 1);
	bench_close(&b);
}

Test(kube_api_watchlist, versions_before_1_27_and_unknown_ones_are_not_asked)
{
	static const struct {
		const char *minor, *git;
	} cases[] = {{"26", "v1.26.15"}, {"18+", "v1.18.20-eks"}, {"", ""}, {"x", "v9"}};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct bench b;

		three(&b, FAKE_WATCH_LIST_IGNORED);
		fake_api_is(b.api, cases[i].minor, cases[i].git);
		bench_start(&b, NULL, SVC);
		WAIT(&b, fake_api_watches(b.api) == 1 && b.sink.synced[SVC] == 1);
		cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 0, "1.%s", cases[i].minor);
		bench_close(&b);
	}
}

Test(kube_api_watchlist, a_version_that_may_not_be_read_means_a_list)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_SERVED);
	fake_api_fail(b.api, "/version", 100, 403, "", "{}");
	bench_start(&b, NULL, SVC);
	WAIT(&b, b.sink.synced[SVC] == 1);
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 0);
	bench_close(&b);
}

/* A pool in the middle of an upgrade: /version was answered by another server. */
Test(kube_api_watchlist, a_bookmark_without_the_mark_tells_of_a_server_that_ignores_the_wish)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_IGNORED);
	bench_start(&b, NULL, SVC);
	WAIT(&b, has_log(&b, "begin\n" THREE));
	fake_api_bookmark(b.api);
	WAIT(&b, b.sink.synced[SVC] == 1);
	cr_assert(has_log(&b, "begin\n" THREE "abort\nbegin\n" THREE "end\n"), "%s", bench_log(&b));
	bench_want(&b, PB_KUBE_POD, true);
	WAIT(&b, b.sink.synced[PB_KUBE_POD] == 1);
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 1);
	bench_close(&b);
}

Test(kube_api_watchlist, silence_before_the_mark_ends_in_a_list)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_IGNORED);
	b.timing.initial_ms = 50;
	b.timing.backoff_ms = b.timing.backoff_max_ms = 60000; /* a pause would never end */
	bench_start(&b, NULL, SVC);
	WAIT(&b, b.sink.synced[SVC] == 1);
	cr_assert(has_log(&b, "begin\n" THREE "abort\nbegin\n" THREE "end\n"), "%s", bench_log(&b));
	cr_assert_eq(fake_api_asked(b.api, INITIAL, NULL), 1);
	cr_assert_eq(fake_api_asked(b.api, "limit=", NULL), 1);
	bench_close(&b);
}

/* ---- refusals, absence, life ---- */

Test(kube_api_watchlist, a_forbidden_watch_leaves_the_list_and_names_the_verb)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_SERVED);
	fake_api_fail(b.api, "watch=1", 2, 403, "", "{}");
	bench_start(&b, NULL, SVC);
	WAIT(&b, b.sink.synced[SVC] == 1);
	WAIT(&b, bench_says(&b, SVC, "lacks verb \"watch\" on resource \"services\""));
	WAIT(&b, fake_api_watches(b.api) == 1 && bench_says(&b, SVC, "watching"));
	cr_assert_str_eq(bench_objects(&b, SVC), "a/one a/two b/one");
	bench_close(&b);
}

Test(kube_api_watchlist, slices_come_from_the_version_that_discovery_chose)
{
	struct bench b;

	bench_open(&b);
	fake_api_is(b.api, "33", "v1.33.1");
	fake_api_watch_list(b.api, FAKE_WATCH_LIST_SERVED);
	fake_api_put(b.api, SLICES, "a", "one", "");
	bench_start(&b, NULL, SLICE);
	WAIT(&b, b.sink.synced[SLICE] == 1);
	cr_assert_str_eq(b.sink.version[SLICE], "discovery.k8s.io/v1");
	cr_assert_str_eq(bench_objects(&b, SLICE), "a/one");
	bench_close(&b);
}

static void stop_and_start(void *arg)
{
	struct bench *b = arg;

	b->sink.on_put = NULL;
	bench_want(b, SVC, false);
	bench_want(b, SVC, true);
}

Test(kube_api_watchlist, a_kind_may_be_dropped_and_wanted_before_the_mark)
{
	struct bench b;

	three(&b, FAKE_WATCH_LIST_SERVED);
	b.sink.on_put = stop_and_start;
	b.sink.on_put_arg = &b;
	bench_start(&b, NULL, SVC);
	WAIT(&b, b.sink.synced[SVC] == 1);
	cr_assert(has_log(&b, "begin\nput a/one\nabort\nbegin\n" THREE "end\n"), "%s",
		  bench_log(&b));
	bench_close(&b);
}

Test(kube_api_watchlist, every_chunk_boundary_gives_the_same)
{
	static const size_t steps[] = {1, 2, 3, 7, 64, 1000};

	for (size_t i = 0; i < PB_ARRAY_LEN(steps); i++) {
		struct bench b;

		three(&b, FAKE_WATCH_LIST_SERVED);
		fake_http_chunk(fake_api_http(b.api), steps[i]);
		bench_start(&b, NULL, SVC);
		WAIT(&b, b.sink.synced[SVC] == 1);
		cr_assert(has_log(&b, "begin\n" THREE "end\n"));
		bench_close(&b);
	}
}
