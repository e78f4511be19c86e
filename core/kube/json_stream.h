/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes JSON apart without building a tree: a list response into its items while the bytes
 * arrive, and one member out of a complete object.
 *
 * Owns the split and nothing else: values are found by strings and nesting, not validated; the
 * decoder that gets the text does that. Memory follows the largest item, never the list.
 */
#ifndef PB_KUBE_JSON_STREAM_H
#define PB_KUBE_JSON_STREAM_H

#include <base/base.h>

/* A value inside somebody else's text; a string with its quotes. */
struct pb_json_span {
	const char *text;
	size_t len;
};

/* The value of a top-level member. -ENOENT: no such member; -EINVAL: not an object or cut off. */
int pb_json_member(struct pb_json_span object, const char *key, struct pb_json_span *ret_value);
/* The text from the value of a top-level member on, which itself isn't looked at. Errors as above.
 */
int pb_json_member_rest(struct pb_json_span object, const char *key, struct pb_json_span *ret_rest);
/* The text of a string value. -EINVAL: no string; -ENOSPC: does not fit. */
int pb_json_text(struct pb_json_span value, char *buf, size_t size);
/* Both in one: "" when the member is missing or no string that fits. */
void pb_json_member_text(struct pb_json_span object, const char *key, char *buf, size_t size);

/* One item of the list; valid during the call. A negative result ends the feed with it. */
typedef int (*pb_json_item_fn)(void *arg, const char *json, size_t len);

struct pb_json_stream;

/* max: the most bytes that one item may have. */
int pb_json_stream_new(size_t max, pb_json_item_fn item, void *arg,
		       struct pb_json_stream **ret_stream);
/* -EPROTO: not a list; -EFBIG: an item above max; or what the callback returned. */
int pb_json_stream_feed(struct pb_json_stream *stream, const char *data, size_t len,
			struct pb_err *err);
/* Says whether the list was complete, with its metadata.resourceVersion: -EPROTO if not. */
int pb_json_stream_end(const struct pb_json_stream *stream, struct pb_err *err);
/* metadata.resourceVersion and metadata.continue; "" until known or when missing. */
const char *pb_json_stream_version(const struct pb_json_stream *stream);
const char *pb_json_stream_continue(const struct pb_json_stream *stream);
struct pb_json_stream *pb_json_stream_free(struct pb_json_stream *stream); /* returns NULL */

#endif
