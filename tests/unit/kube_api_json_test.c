/* SPDX-License-Identifier: Apache-2.0 */
/* Units of core/kube/json_stream.c: a list is split at its items wherever the bytes are cut. */
#include <criterion/criterion.h>

#include <kube/json_stream.h>

struct items {
	struct pb_buf seen; /* every item followed by a bar */
	unsigned count;
	unsigned fail_at; /* the item that the callback refuses, counted from 1 */
};

static int take_item(void *arg, const char *json, size_t len)
{
	struct items *items = arg;

	if (++items->count == items->fail_at)
		return -EINTR;
	pb_buf_append(&items->seen, json, len);
	return pb_buf_append(&items->seen, "|", 1);
}

/* Feeds the text in steps of `step` bytes; the stream is the caller's. */
static int feed(struct pb_json_stream *stream, const char *text, size_t len, size_t step,
		struct pb_err *err)
{
	int rc = 0;

	for (size_t at = 0; at < len && rc == 0; at += step)
		rc = pb_json_stream_feed(stream, text + at, len - at < step ? len - at : step, err);
	return rc == 0 ? pb_json_stream_end(stream, err) : rc;
}

static const char list[] =
	"{\"kind\":\"ServiceList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"77\","
	"\"continue\":\"to\\u0026ken\",\"remainingItemCount\":3},\"items\" : [ "
	"{\"a\":\"x]}\\\"\"},\n"
	" {\"b\":[{},[1,2]],\"items\":[{\"c\":null}]} ] ,\"extra\":12.5e3 }\n";

Test(kube_api_json, a_list_splits_the_same_at_every_chunk_boundary)
{
	for (size_t step = 1; step <= sizeof(list); step++) {
		struct pb_json_stream *stream;
		struct items items = {0};
		struct pb_err err = {0};

		cr_assert_eq(pb_json_stream_new(1000, take_item, &items, &stream), 0);
		cr_assert_eq(feed(stream, list, strlen(list), step, &err), 0, "step %zu: %s", step,
			     err.text);
		cr_assert_str_eq(items.seen.data, "{\"a\":\"x]}\\\"\"}|"
						  "{\"b\":[{},[1,2]],\"items\":[{\"c\":null}]}|");
		cr_assert_str_eq(pb_json_stream_version(stream), "77");
		cr_assert_str_eq(pb_json_stream_continue(stream), "to&ken");
		pb_json_stream_free(stream);
		pb_buf_free(&items.seen);
	}
}

Test(kube_api_json, lists_of_every_shape)
{
	static const struct {
		const char *text;
		int rc;
		unsigned items;
		const char *error;
	} cases[] = {
		{"{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[]}", 0, 0, ""},
		{"{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":null}", 0, 0, ""},
		/* custom resources: members in alphabetical order, so items before metadata */
		{"{\"items\":[{}],\"metadata\":{\"resourceVersion\":\"1\"}}", 0, 1, ""},
		{"{\"items\":[{},{}],\"metadata\":{}}", -EPROTO, 2,
		 "the list has no metadata.resourceVersion"},
		{"{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[{}", -EPROTO, 1,
		 "the list was cut short"},
		{"{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[{}]", -EPROTO, 1,
		 "the list was cut short"},
		{"", -EPROTO, 0, "the list was cut short"},
		{"404 page not found\n", -EPROTO, 0, "the answer is not a Kubernetes list"},
		{"[{}]", -EPROTO, 0, "the answer is not a Kubernetes list"},
		{"{\"items\":[{} {}]}", -EPROTO, 1, "the answer is not a Kubernetes list"},
		{"{\"items\":[,{}]}", -EPROTO, 0, "the answer is not a Kubernetes list"},
		{"{\"items\":[{}]}}", -EPROTO, 1, "the answer is not a Kubernetes list"},
		{"{\"items\":[{\"k\":\"0123456789012345678901234567890\"}]}", -EFBIG, 0,
		 "an object of the list is larger than 32 bytes"},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		for (size_t step = 1; step < 80; step += 3) {
			struct pb_json_stream *stream;
			struct items items = {0};
			struct pb_err err = {0};

			cr_assert_eq(pb_json_stream_new(32, take_item, &items, &stream), 0);
			cr_expect_eq(feed(stream, cases[i].text, strlen(cases[i].text), step, &err),
				     cases[i].rc, "case %zu step %zu", i, step);
			cr_expect_eq(items.count, cases[i].items, "case %zu step %zu", i, step);
			cr_expect_str_eq(err.text, cases[i].error, "case %zu step %zu", i, step);
			pb_json_stream_free(stream);
			pb_buf_free(&items.seen);
		}
	}
}

Test(kube_api_json, an_item_that_is_refused_ends_the_list)
{
	struct items items = {.fail_at = 2};
	struct pb_json_stream *stream;
	struct pb_err err = {0};

	cr_assert_eq(pb_json_stream_new(1000, take_item, &items, &stream), 0);
	cr_assert_eq(feed(stream, list, strlen(list), 7, &err), -EINTR);
	cr_assert_eq(items.count, 2);
	pb_json_stream_free(stream);
	pb_buf_free(&items.seen);
}

Test(kube_api_json, nesting_without_end_is_refused_in_bounded_memory)
{
	PB_FREE char *deep = malloc(300000);
	struct pb_json_stream *stream;
	struct items items = {0};
	struct pb_err err;
	int n = sprintf(deep, "{\"items\":[");

	memset(deep + n, '[', 300000 - (size_t)n);
	cr_assert_eq(pb_json_stream_new(1 << 20, take_item, &items, &stream), 0);
	cr_assert_eq(feed(stream, deep, 300000, 1000, &err), -EPROTO);
	pb_json_stream_free(stream);
}

Test(kube_api_json, members_are_found_without_parsing_the_rest)
{
	static const char event[] = " { \"type\" : \"ADDED\", \"object\":{\"metadata\":"
				    "{\"name\":\"a\\u002db\",\"labels\":{\"name\":\"no\"}}} } ";
	struct pb_json_span span = {event, strlen(event)}, object, metadata, out;
	char text[8];

	pb_json_member_text(span, "type", text, sizeof(text));
	cr_assert_str_eq(text, "ADDED");
	cr_assert_eq(pb_json_member(span, "object", &object), 0);
	cr_assert_eq(pb_json_member(object, "metadata", &metadata), 0);
	pb_json_member_text(metadata, "name", text, sizeof(text));
	cr_assert_str_eq(text, "a-b");
	pb_json_member_text(metadata, "labels", text, sizeof(text));
	cr_assert_str_eq(text, "", "an object is no text");
	cr_assert_eq(pb_json_member(span, "name", &out), -ENOENT);
	for (size_t len = 0; len < strlen(event) - 2; len++) {
		span.len = len;
		cr_assert_eq(pb_json_member(span, "missing", &out), -EINVAL, "cut at %zu", len);
	}
	cr_assert_eq(pb_json_text((struct pb_json_span){"\"too long\"", 10}, text, 8), -ENOSPC);
}
