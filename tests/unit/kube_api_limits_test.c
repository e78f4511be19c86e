/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes: how they are cut, compressed, how large an object may be, and how long a list may keep
 * the loop.
 */
#include "kube_api_harness.h"

#include <sys/resource.h>

#define SVC PB_KUBE_SERVICE
#define OBJECT_MAX ((size_t)4 * 1024 * 1024)

Test(kube_api_limits, every_chunk_boundary_gives_the_same)
{
	static const size_t steps[] = {1, 2, 3, 7, 64, 1000};

	for (size_t i = 0; i < PB_ARRAY_LEN(steps); i++) {
		struct bench b;

		bench_open(&b);
		fake_http_chunk(fake_api_http(b.api), steps[i]);
		fake_api_put(b.api, SERVICES, "a", "one", "\"spec\":{\"x\":\"}]\\\"\"}");
		fake_api_put(b.api, SERVICES, "a", "two", "");
		bench_start(&b, NULL, SVC);
		WAIT(&b, fake_api_watches(b.api) == 1);
		fake_api_put(b.api, SERVICES, "b", "one", "\"spec\":{\"x\":\"\\n\"}");
		fake_api_delete(b.api, SERVICES, "a", "two");
		WAIT(&b, strcmp(bench_objects(&b, SVC), "a/one b/one") == 0);
		bench_close(&b);
	}
}

Test(kube_api_limits, a_compressed_list_is_read)
{
	struct bench b;

	bench_open(&b);
	fake_api_compress(b.api, true);
	for (int i = 0; i < 20; i++) {
		char name[8];

		snprintf(name, sizeof(name), "s%02d", i);
		fake_api_put(b.api, SERVICES, "n", name, "");
	}
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_eq(strlen(bench_objects(&b, SVC)), 20 * strlen("n/s00 ") - 1);
	fake_api_put(b.api, SERVICES, "n", "later", "");
	WAIT(&b, strstr(bench_objects(&b, SVC), "n/later"));
	bench_close(&b);
}

/* Three services, listed and watched. */
static void watching(struct bench *b)
{
	bench_open(b);
	fake_api_put(b->api, SERVICES, "a", "one", "");
	fake_api_put(b->api, SERVICES, "a", "two", "");
	fake_api_put(b->api, SERVICES, "b", "one", "");
	bench_start(b, NULL, SVC);
	WAIT(b, fake_api_watches(b->api) == 1 && bench_says(b, SVC, "watching"));
}

/* The length of an object a/x without padding, in a list or in an event. */
static size_t bare_len(bool in_event)
{
	struct bench b;
	size_t len;

	bench_open(&b);
	if (!in_event)
		fake_api_put(b.api, SERVICES, "a", "x", "\"data\":\"\"");
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	if (in_event)
		fake_api_put(b.api, SERVICES, "a", "x", "\"data\":\"\"");
	WAIT(&b, b.sink.objects);
	len = b.sink.objects->len;
	bench_close(&b);
	return len;
}

/* "data":"xxx", with so many x. */
static char *padding(size_t n)
{
	char *more = malloc(n + 10);

	memset(more, 'x', n + 8);
	memcpy(more, "\"data\":\"", 8);
	memcpy(more + n + 8, "\"", 2);
	return more;
}

Test(kube_api_limits, an_object_of_four_mebibytes_passes_in_a_list)
{
	PB_FREE char *more = padding(OBJECT_MAX - bare_len(false));
	struct bench b;

	bench_open(&b);
	fake_api_put(b.api, SERVICES, "a", "x", more);
	bench_start(&b, NULL, SVC);
	WAIT(&b, b.sink.synced[SVC] == 1);
	cr_assert_eq(b.sink.objects->len, OBJECT_MAX);
	bench_close(&b);
}

Test(kube_api_limits, an_object_of_four_mebibytes_passes_in_a_watch)
{
	PB_FREE char *more = padding(OBJECT_MAX - bare_len(true));
	struct bench b;

	bench_open(&b);
	bench_start(&b, NULL, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	fake_api_put(b.api, SERVICES, "a", "x", more);
	WAIT(&b, b.sink.objects);
	cr_assert_eq(b.sink.objects->len, OBJECT_MAX);
	cr_assert_eq(fake_api_asked(b.api, "watch=1", NULL), 1);
	bench_close(&b);
}

Test(kube_api_limits, one_byte_more_is_refused_in_a_list)
{
	PB_FREE char *more = padding(OBJECT_MAX - bare_len(false) + 1);
	struct bench b;

	bench_open(&b);
	fake_api_put(b.api, SERVICES, "a", "x", more);
	bench_start(&b, NULL, SVC);
	WAIT(&b, bench_says(&b, SVC, "an object of the list is larger than 4194304 bytes"));
	cr_assert_eq(b.sink.synced[SVC], 0);
	bench_close(&b);
}

Test(kube_api_limits, one_byte_more_is_refused_in_a_watch_and_deletes_nothing)
{
	PB_FREE char *more = padding(OBJECT_MAX - bare_len(true) + 1);
	struct bench b;

	watching(&b);
	fake_api_put(b.api, SERVICES, "a", "x", more);
	WAIT(&b, bench_says(&b, SVC, "an object of the watch is larger than 4194304 bytes"));
	cr_assert_str_eq(bench_objects(&b, SVC), "a/one a/two b/one");
	bench_close(&b);
}

/* It is longer as an item of the list than the limit of any object. */
Test(kube_api_limits, an_object_that_is_far_too_large_is_named_and_deletes_nothing)
{
	PB_FREE char *more = padding(OBJECT_MAX + (1 << 20));
	struct bench b;

	watching(&b);
	fake_api_put(b.api, SERVICES, "a", "huge", more);
	WAIT(&b, bench_says(&b, SVC, "an object of the watch is larger than 4194304 bytes"));
	WAIT(&b, bench_says(&b, SVC, "an object of the list is larger than 4194304 bytes"));
	cr_assert_str_eq(bench_objects(&b, SVC), "a/one a/two b/one");
	bench_close(&b);
}

/* ---- a slow reader ---- */

static void long_list(bool compressed, bool watch_list)
{
	PB_FREE char *more = padding(4000);
	struct bench b;

	bench_open(&b);
	b.sink.put_ms = 1;
	fake_api_compress(b.api, compressed);
	fake_api_is(b.api, watch_list ? "33" : "26", "v1");
	fake_api_watch_list(b.api, FAKE_WATCH_LIST_SERVED);
	for (int i = 0; i < 200; i++) {
		char name[8];

		snprintf(name, sizeof(name), "s%03d", i);
		fake_api_put(b.api, SERVICES, "n", name, more);
	}
	bench_start(&b, NULL, SVC);
	while (!b.sink.synced[SVC])
		bench_counted_turn(&b);
	/* A slice has 4 ms and each put takes one, but what curl has in hand it hands over. */
	cr_assert_lt(b.most_puts, 60, "%u of 200 in one round of the loop", b.most_puts);
	cr_assert_eq(strlen(bench_objects(&b, SVC)), 200 * strlen("n/s000 ") - 1);
	WAIT(&b, fake_api_watches(b.api) == 1);
	bench_close(&b);
}

Test(kube_api_limits, a_long_list_leaves_the_loop_to_others_in_between)
{
	long_list(false, false);
}

Test(kube_api_limits, a_long_compressed_list_leaves_the_loop_to_others_too)
{
	long_list(true, false);
}

Test(kube_api_limits, a_long_watch_list_leaves_the_loop_to_others_too)
{
	long_list(false, true);
}

/* {"type":"ERROR","object":...}: text of a few mebibytes can name millions of values. */
Test(kube_api_limits, an_error_event_of_many_values_costs_no_more_than_its_text)
{
	static const char head[] = "{\"type\":\"ERROR\",\"object\":{\"code\":500,\"message\":\"no "
				   "\\\"x\\\"\",\"details\":[0";
	PB_FREE char *line = malloc(OBJECT_MAX);
	size_t len = strlen(head), end = OBJECT_MAX - 5;
	struct rusage before, after;
	struct bench b;

	watching(&b);
	memcpy(line, head, len);
	for (; len < end - 1; len += 2)
		memcpy(line + len, ",0", 2);
	memcpy(line + len, "]}}\n", 5);
	getrusage(RUSAGE_SELF, &before);
	fake_api_raw(b.api, line);
	WAIT(&b, bench_says(&b, SVC, "the server ended the watch with 500: no \"x\""));
	getrusage(RUSAGE_SELF, &after);
	cr_assert_lt(after.ru_maxrss - before.ru_maxrss, 64 * 1024, "%ld KiB",
		     after.ru_maxrss - before.ru_maxrss);
	bench_close(&b);
}
