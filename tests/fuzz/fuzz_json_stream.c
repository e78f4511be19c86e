/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: a list splits the same whole and in pieces. The first byte of the input
 * chooses the size of the pieces.
 */
#include <kube/json_stream.h>

#define ITEM_MAX ((size_t)4096)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int collect(void *arg, const char *json, size_t len)
{
	return pb_buf_append(arg, json, len);
}

static int split(const char *text, size_t len, size_t step, struct pb_buf *out)
{
	struct pb_json_stream *stream;
	struct pb_err err;
	int rc = pb_json_stream_new(ITEM_MAX, collect, out, &stream);

	if (rc < 0)
		abort();
	for (size_t at = 0; at < len && rc == 0; at += step)
		rc = pb_json_stream_feed(stream, text + at, len - at < step ? len - at : step,
					 &err);
	if (rc == 0)
		rc = pb_json_stream_end(stream, &err);
	pb_buf_append(out, pb_json_stream_version(stream), strlen(pb_json_stream_version(stream)));
	pb_json_stream_free(stream);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	PB_BUF_FREE struct pb_buf whole = {0};
	PB_BUF_FREE struct pb_buf pieces = {0};
	const char *text = (const char *)data + 1;
	struct pb_json_span value;
	char name[64];
	int rc;

	if (size < 2)
		return 0;
	rc = split(text, size - 1, size - 1, &whole);
	if (rc != split(text, size - 1, (size_t)data[0] % 61 + 1, &pieces))
		abort();
	if (rc == 0 && (whole.len != pieces.len || memcmp(whole.data, pieces.data, whole.len) != 0))
		abort();
	if (pb_json_member((struct pb_json_span){text, size - 1}, "metadata", &value) == 0)
		pb_json_member_text(value, "name", name, sizeof(name));
	return 0;
}
