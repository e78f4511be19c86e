/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growing buffers and strings. A buffer's data always ends in a NUL that isn't counted.
 */
#include <base/base.h>

static int pb_buf_reserve(struct pb_buf *buf, size_t more)
{
	size_t cap = buf->cap ? buf->cap : 128;
	char *data;

	if (more > SIZE_MAX / 2 - buf->len - 1)
		return -ENOMEM;
	if (buf->len + more + 1 <= buf->cap)
		return 0;
	while (cap < buf->len + more + 1)
		cap *= 2;
	data = realloc(buf->data, cap);
	if (!data)
		return -ENOMEM;
	buf->data = data;
	buf->cap = cap;
	return 0;
}

int pb_buf_append(struct pb_buf *buf, const void *data, size_t len)
{
	int err = pb_buf_reserve(buf, len);

	if (err < 0)
		return err;
	if (len)
		memcpy(buf->data + buf->len, data, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
	return 0;
}

int pb_buf_printf(struct pb_buf *buf, const char *fmt, ...)
{
	va_list ap, again;
	int n, err;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	err = n < 0 ? -EINVAL : pb_buf_reserve(buf, (size_t)n);
	if (err == 0) {
		vsnprintf(buf->data + buf->len, (size_t)n + 1, fmt, again);
		buf->len += (size_t)n;
	}
	va_end(again);
	return err;
}

void pb_buf_reset(struct pb_buf *buf)
{
	buf->len = 0;
	if (buf->data)
		buf->data[0] = '\0';
}

void pb_buf_free(struct pb_buf *buf)
{
	if (!buf)
		return;
	free(buf->data);
	memset(buf, 0, sizeof(*buf));
}

void pb_cleanup_buf(struct pb_buf *buf)
{
	pb_buf_free(buf);
}

char *pb_sprintf(const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		s = NULL;
	va_end(ap);
	return s;
}
