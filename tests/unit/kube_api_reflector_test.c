/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reflector against a server that speaks list and watch exactly. Numbers E.. are the cases
 * of the specification of EndpointSlices, section 7.
 */
#include "kube_api_harness.h"

#define SVC PB_KUBE_SERVICE
#define SLICE PB_KUBE_ENDPOINTSLICE

/* Three services, listed and watched. */
static void watching(struct bench *b)
{
	bench_open(b);
	fake_api_put(b->api, SERVICES, "a", "one", "");
	fake_api_put(b->api, SERVICES, "a", "two", "");
	fake_api_put(b->api, SERVICES, "b", "one", "");
	bench_start(b, NULL, SVC);
	WAIT(b, fake_api_watches(b->api) == 1 && bench_says(b, SVC, "watching"));
	cr_assert_str_eq(bench_objects(b, SVC), "a/one a/two b/one");
	bench_forget(b);
}

Test(kube_api_reflector, a_list_is_followed_by_a_watch_from_its_version)
{
	unsigned seconds = 0;
	struct bench b;

	watching(&b);
	cr_assert_eq(fake_api_asked(b.api, SERVICES "?limit=500&resourceVersion=0", NULL), 1);
	cr_assert_eq(sscanf(fake_api_last(b.api, "watch=1"),
			    SERVICES "?watch=1&resourceVersion=103&allowWatchBookmarks=true"
				     "&timeoutSeconds=%u",
			    &seconds),
		     1, "%s", fake_api_last(b.api, "watch=1"));
	cr_assert(seconds >= 300 && seconds <= 600);
	cr_assert(b.sink.healthy[SVC]);

	fake_api_put(b.api, SERVICES, "b", "two", "");
	fake_api_put(b.api, SERVICES, "a", "one", "\"spec\":{}");
	fake_api_delete(b.api, SERVICES, "a", "two");
	WAIT(&b, strcmp(bench_log(&b), "put b/two\nput a/one\ndelete a/two\n") == 0);
	bench_close(&b);
}

Test(kube_api_reflector, items_of_a_list_get_its_version_and_events_carry_their_own)
{
	struct bench b;

	bench_open(&b);
	fake_api_put(b.api, SLICES, "a", "one", "");
	bench_start(&b, NULL, SLICE);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_str_eq(b.sink.api_version, "discovery.k8s.io/v1");
	bench_forget(&b);
	fake_api_put(b.api, SLICES, "a", "two", "");
	WAIT(&b, strcmp(bench_log(&b), "put a/two\n") == 0);
	cr_assert_str_eq(b.sink.api_version, "");
	cr_assert_eq(fake_api_asked(b.api,
				    SLICES "?labelSelector=%21service.kubernetes.io%2Fheadless",
				    NULL),
		     2, "both the list and the watch leave headless services out");
	bench_close(&b);
}

Test(kube_api_reflector, an_object_that_cant_be_decoded_stops_nothing)
{
	struct bench b;

	bench_open(&b);
	fake_api_put(b.api, SERVICES, "a", "undecodable", "");
	fake_api_put(b.api, SERVICES, "a", "two", "");
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	fake_api_put(b.api, SERVICES, "b", "undecodable", "");
	fake_api_put(b.api, SERVICES, "b", "two", "");
	WAIT(&b, strcmp(bench_objects(&b, SVC), "a/two b/two") == 0);
	bench_close(&b);
}

/* ---- paging ---- */

static void five_services(struct bench *b)
{
	bench_open(b);
	for (int i = 0; i < 5; i++) {
		char name[2] = {(char)('a' + i), 0};

		fake_api_put(b->api, SERVICES, "n", name, "");
	}
	fake_api_page_max(b->api, 2);
}

Test(kube_api_reflector, pages_are_one_list)
{
	struct bench b;

	five_services(&b);
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_str_eq(bench_log(&b),
			 "begin\nput n/a\nput n/b\nput n/c\nput n/d\nput n/e\nend\n");
	cr_assert_eq(fake_api_asked(b.api, "limit=500&continue=", NULL), 2);
	bench_close(&b);
}

static void compact_before_page_two(void *arg, unsigned page)
{
	struct bench *b = arg;

	if (page == 1)
		return;
	fake_api_delete(b->api, SERVICES, "n", "a");
	fake_api_compact(b->api);
	fake_api_on_page(b->api, NULL, NULL);
}

Test(kube_api_reflector, a_page_that_expired_starts_the_list_over_without_pages)
{
	struct bench b;

	five_services(&b);
	fake_api_on_page(b.api, compact_before_page_two, &b);
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_str_eq(bench_log(&b), "begin\nput n/a\nput n/b\nabort\nbegin\nput n/b\nput n/c\n"
					"put n/d\nput n/e\ndelete n/a\nend\n");
	cr_assert_str_eq(bench_objects(&b, SVC), "n/b n/c n/d n/e");
	cr_assert_eq(fake_api_asked(b.api, "limit=", NULL), 2);
	bench_close(&b);
}

Test(kube_api_reflector, a_first_page_that_broke_off_is_forgotten)
{
	struct bench b;

	five_services(&b);
	fake_api_cut_lists(b.api, 1);
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_str_eq(bench_log(&b), "begin\nput n/a\nabort\nbegin\nput n/a\nput n/b\nput n/c\n"
					"put n/d\nput n/e\nend\n");
	bench_close(&b);
}

static void cut_page_two(void *arg, unsigned page)
{
	struct bench *b = arg;

	if (page == 1)
		return;
	fake_api_cut_lists(b->api, 1);
	fake_api_on_page(b->api, NULL, NULL);
}

Test(kube_api_reflector, a_later_page_that_broke_off_is_asked_for_again)
{
	struct bench b;

	five_services(&b);
	fake_api_on_page(b.api, cut_page_two, &b);
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_str_eq(bench_log(&b), "begin\nput n/a\nput n/b\nput n/c\nput n/c\nput n/d\n"
					"put n/e\nend\n");
	cr_assert_eq(fake_api_asked(b.api, "resourceVersion=0", "limit"), 1);
	bench_close(&b);
}

/*
 * Such an answer may offer a token that goes on from another state; taking it would mix two
 * snapshots, so it is left.
 */
Test(kube_api_reflector, an_inconsistent_continue_token_is_not_used)
{
	struct bench b;

	five_services(&b);
	fake_api_fail(b.api, "continue=", 1, 410, "",
		      "{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\",\"metadata\":"
		      "{\"continue\":\"inconsistent\"},\"message\":\"The provided continue "
		      "parameter is too old\"}");
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_eq(fake_api_asked(b.api, "inconsistent", NULL), 0);
	cr_assert_eq(b.sink.synced[SVC], 1);
	cr_assert_str_eq(bench_objects(&b, SVC), "n/a n/b n/c n/d n/e");
	bench_close(&b);
}

/* Without a pause the agent and its server would be busy with nothing else. */
Test(kube_api_reflector, a_page_that_is_its_own_successor_ends_the_list)
{
	struct bench b;

	five_services(&b);
	fake_api_fail(b.api, SERVICES "?limit", 2, 200, "",
		      "{\"metadata\":{\"resourceVersion\":\"9\",\"continue\":\"a/b\"},\"items\":"
		      "[{\"metadata\":{\"name\":\"x\",\"namespace\":\"n\"}}]}");
	bench_start(&b, NULL, SVC);
	WAIT(&b, bench_says(&b, SVC, "retrying in") &&
			 bench_says(&b, SVC, "a page of the list names itself as the next"));
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_str_eq(bench_objects(&b, SVC), "n/a n/b n/c n/d n/e");
	cr_assert_eq(fake_api_asked(b.api, "continue=a%2Fb", NULL), 1);
	bench_close(&b);
}

Test(kube_api_reflector, expired_in_answer_to_a_list_asks_for_the_current_state)
{
	struct bench b;

	five_services(&b);
	fake_api_fail(b.api, SERVICES "?limit", 1, 410, "",
		      "{\"code\":410,\"message\":\"too old resource version: 0\"}");
	bench_start(&b, NULL, SVC);
	WAIT(&b, bench_says(&b, SVC, "list services: 410: too old resource version: 0"));
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_eq(fake_api_asked(b.api, "resourceVersion=0", "limit"), 1);
	cr_assert_eq(b.sink.synced[SVC], 1);
	bench_close(&b);
}

/* ---- what happens to a watch ---- */

Test(kube_api_reflector, a_watch_that_ends_goes_on_from_the_last_version)
{
	struct bench b;

	watching(&b);
	fake_api_put(b.api, SERVICES, "c", "new", "");
	WAIT(&b, strcmp(bench_log(&b), "put c/new\n") == 0);
	fake_api_end_watches(b.api, true);
	fake_api_put(b.api, SERVICES, "c", "meanwhile", "");
	WAIT(&b, strcmp(bench_log(&b), "put c/new\nput c/meanwhile\n") == 0);
	cr_assert_eq(fake_api_asked(b.api, "watch=1&resourceVersion=104&", NULL), 1);
	cr_assert_eq(fake_api_asked(b.api, "limit", NULL), 1, "nothing was listed again");
	bench_close(&b);
}

Test(kube_api_reflector, E20_a_bookmark_moves_the_version_and_nothing_else)
{
	struct bench b;

	watching(&b);
	for (int i = 0; i < 50; i++)
		fake_api_tick(b.api);
	fake_api_bookmark(b.api);
	WAIT(&b, fake_api_asked(b.api, "watch=1", NULL) == 1);
	bench_pass(&b, 30);
	fake_api_compact(b.api);
	fake_api_end_watches(b.api, true);
	WAIT(&b, fake_api_asked(b.api, "watch=1&resourceVersion=153&", NULL) == 1);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_str_eq(bench_log(&b), "");
	cr_assert_eq(fake_api_asked(b.api, "limit", NULL), 1, "nothing was listed again");
	bench_close(&b);
}

Test(kube_api_reflector, E27_half_a_line_at_the_end_is_dropped)
{
	struct bench b;

	watching(&b);
	fake_api_raw(b.api, "{\"type\":\"DELETED\",\"object\":{\"kind\":\"Service\",\"metadata\":"
			    "{\"name\":\"one\",\"namespace\":\"a\",\"resourceVersion\":\"999\"}}");
	bench_pass(&b, 20);
	fake_api_end_watches(b.api, false);
	WAIT(&b, fake_api_asked(b.api, "watch=1&resourceVersion=103&", NULL) == 2);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_str_eq(bench_objects(&b, SVC), "a/one a/two b/one");
	bench_close(&b);
}

static void expire_while_away(bool as_status)
{
	struct bench b;

	watching(&b);
	fake_api_gone_as_status(b.api, as_status);
	fake_api_end_watches(b.api, false);
	fake_api_delete(b.api, SERVICES, "a", "two");
	fake_api_compact(b.api);
	WAIT(&b, strcmp(bench_log(&b), "begin\nput a/one\nput b/one\ndelete a/two\nend\n") == 0);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_eq(fake_api_asked(b.api, "limit", "resourceVersion=0"), 1,
		     "a relist asks for the current state, not for a cache");
	fake_api_put(b.api, SERVICES, "a", "three", "");
	WAIT(&b, strcmp(bench_objects(&b, SVC), "a/one a/three b/one") == 0);
	bench_close(&b);
}

Test(kube_api_reflector, E19_expired_in_the_stream_lists_anew_without_flapping)
{
	expire_while_away(false);
}

Test(kube_api_reflector, E21_a_deletion_while_away_is_found_by_the_new_list)
{
	expire_while_away(true);
}

Test(kube_api_reflector, E19_expired_again_and_again_is_not_a_storm)
{
	struct bench b;

	watching(&b);
	b.timing.backoff_ms = 40;
	bench_close_source(&b);
	WAIT(&b, b.closed);
	b.closed = false;
	b.timing.short_watch_ms = 1000;
	fake_api_fail(b.api, "watch=1", 1000, 410, "", "{}");
	bench_start(&b, NULL, SVC);
	WAIT(&b, bench_says(&b, SVC, "the server forgets its changes too soon (410)"));
	bench_pass(&b, 300);
	cr_assert_leq(fake_api_asked(b.api, "watch=1", NULL), 20);
	fake_api_fail(b.api, "never", 0, 0, "", "");
	bench_close(&b);
}

Test(kube_api_reflector, an_error_event_means_what_its_code_or_reason_says)
{
	static const struct {
		const char *status;
		bool relist;
	} cases[] = {
		{"{\"code\":410}", true},
		{"{\"code\":500,\"reason\":\"Expired\"}", true},
		{"{\"reason\":\"Gone\"}", true},
		{"{\"code\":429,\"reason\":\"TooManyRequests\"}", false},
		{"{\"code\":500}", false},
		{"{\"code\":503}", false},
		{"{}", false},
		{"[]", false},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		PB_FREE char *line =
			pb_sprintf("{\"type\":\"ERROR\",\"object\":%s}\n", cases[i].status);
		struct bench b;

		watching(&b);
		fake_api_raw(b.api, line);
		WAIT(&b, fake_api_asked(b.api, "watch=1&resourceVersion=103&", NULL) == 2);
		cr_assert_eq(b.sink.synced[SVC], cases[i].relist ? 2 : 1, "%s", line);
		cr_assert_str_eq(bench_objects(&b, SVC), "a/one a/two b/one");
		bench_close(&b);
	}
}

Test(kube_api_reflector, E26_an_error_in_the_stream_pauses_and_goes_on_from_the_last_version)
{
	struct bench b;

	watching(&b);
	fake_api_raw(b.api, "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":500,"
			    "\"message\":\"etcdserver: leader changed\"}}\n");
	WAIT(&b, bench_says(&b, SVC,
			    "watch services: the server ended the watch with 500: "
			    "etcdserver: leader changed"));
	cr_assert_eq(strncmp(b.sink.state[SVC], "retrying in 0.0 s: ", 19), 0, "%s",
		     b.sink.state[SVC]);
	cr_assert_not(b.sink.healthy[SVC]);
	WAIT(&b, bench_says(&b, SVC, "watching"));
	cr_assert(b.sink.healthy[SVC]);
	cr_assert_eq(fake_api_asked(b.api, "watch=1&resourceVersion=103&", NULL), 2);
	cr_assert_str_eq(bench_log(&b), "");
	bench_close(&b);
}

/* What the state says of the pause, in tenths of a second. */
static unsigned pause_of(struct bench *b)
{
	unsigned s = 99, tenth = 9;

	sscanf(b->sink.state[SVC], "retrying in %u.%u s", &s, &tenth);
	return s * 10 + tenth;
}

Test(kube_api_reflector, pauses_grow_and_start_over_after_a_quiet_time)
{
	struct bench b;

	bench_open(&b);
	b.timing.backoff_ms = 20;
	b.timing.backoff_max_ms = 10000;
	b.timing.backoff_reset_ms = 1000;
	fake_api_fail(b.api, SERVICES, 6, 503, "", "");
	bench_start(&b, NULL, SVC);
	/* the sixth pause: between 320 and 640 ms */
	WAIT(&b,
	     fake_api_asked(b.api, SERVICES, NULL) == 6 && pause_of(&b) >= 3 && pause_of(&b) <= 6);
	WAIT(&b, bench_says(&b, SVC, "watching"));
	bench_pass(&b, 1050);
	fake_api_raw(b.api, "{\"type\":\"ERROR\",\"object\":{\"code\":500}}\n");
	WAIT(&b, bench_says(&b, SVC, "retrying in 0.0 s"));
	bench_close(&b);
}

Test(kube_api_reflector, a_version_that_no_watch_accepts_is_listed_anew)
{
	struct bench b;

	watching(&b);
	fake_api_fail(b.api, "watch=1", 5, 504, "", "{\"message\":\"Too large resource version\"}");
	fake_api_end_watches(b.api, true);
	WAIT(&b, fake_api_asked(b.api, "limit", NULL) == 2);
	WAIT(&b, fake_api_watches(b.api) == 1);
	bench_close(&b);
}

Test(kube_api_reflector, a_watch_that_ends_at_once_is_not_a_storm)
{
	struct bench b;

	watching(&b);
	bench_close_source(&b);
	WAIT(&b, b.closed);
	b.closed = false;
	b.timing.short_watch_ms = 1000;
	b.timing.backoff_max_ms = 400;
	fake_api_fail(b.api, "watch=1", 1000, 200, "", "");
	bench_start(&b, NULL, SVC);
	WAIT(&b, bench_says(&b, SVC, "watch services: the server ended it at once"));
	bench_pass(&b, 300);
	cr_assert_leq(fake_api_asked(b.api, "watch=1", NULL), 8);
	bench_close(&b);
}

Test(kube_api_reflector, nonsense_in_the_stream_is_no_event)
{
	static const struct {
		const char *line;
		const char *state;
	} cases[] = {
		{"hello\n", "a line of the watch is not an event"},
		{"{\"type\":\"ADDED\"}\n", "a line of the watch is not an event"},
		{"{\"type\":\"ADDED\",\"object\":{}}\n", "an event of the watch has no metadata"},
		{"{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"x\"}}}\n",
		 "an event of the watch has no resourceVersion"},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct bench b;

		watching(&b);
		fake_api_raw(b.api, "\n\r\n"); /* empty lines are fine */
		fake_api_raw(b.api, cases[i].line);
		WAIT(&b, bench_says(&b, SVC, cases[i].state));
		WAIT(&b, bench_says(&b, SVC, "watching"));
		cr_assert_str_eq(bench_log(&b), "");
		bench_close(&b);
	}
}

/* ---- starting, stopping, closing inside a callback ---- */

static void stop_and_start(void *arg)
{
	struct bench *b = arg;

	b->sink.on_put = NULL;
	bench_want(b, SVC, false);
	bench_want(b, SVC, true);
}

Test(kube_api_reflector, a_kind_may_be_dropped_and_wanted_inside_a_put)
{
	struct bench b;

	five_services(&b);
	b.sink.on_put = stop_and_start;
	b.sink.on_put_arg = &b;
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_str_eq(bench_log(&b), "begin\nput n/a\nabort\nbegin\nput n/a\nput n/b\nput n/c\n"
					"put n/d\nput n/e\nend\n");
	b.sink.on_put = stop_and_start;
	fake_api_put(b.api, SERVICES, "n", "f", "");
	WAIT(&b, b.sink.synced[SVC] == 2);
	WAIT(&b, fake_api_watches(b.api) == 1);
	bench_close(&b);
}

static void close_all(void *arg)
{
	struct bench *b = arg;

	b->sink.on_put = NULL;
	bench_close_source(b);
}

Test(kube_api_reflector, the_source_may_be_closed_inside_a_put)
{
	struct bench b;

	five_services(&b);
	b.sink.on_put = close_all;
	b.sink.on_put_arg = &b;
	bench_start(&b, NULL, SVC);
	WAIT(&b, b.closed);
	cr_assert_str_eq(bench_log(&b), "begin\nput n/a\nabort\n");
	bench_close(&b);
}

Test(kube_api_reflector, a_kind_nobody_wants_is_not_asked_for)
{
	struct bench b;

	watching(&b);
	bench_want(&b, SVC, false);
	WAIT(&b, fake_api_watches(b.api) == 0);
	fake_api_put(b.api, SERVICES, "c", "unseen", "");
	bench_pass(&b, 50);
	cr_assert_str_eq(bench_log(&b), "");
	cr_assert_eq(fake_api_asked(b.api, "/pods", NULL), 0);
	bench_close(&b);
}
