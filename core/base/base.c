/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cleanup functions, error texts, clocks, hashes and suggestions. Nothing here may log or block.
 */
#include <base/base.h>

#include <time.h>

void pb_cleanup_free(void *p)
{
	free(*(void **)p);
}

void pb_cleanup_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

void pb_cleanup_file(FILE **f)
{
	if (*f)
		fclose(*f);
}

int pb_err_setv(struct pb_err *err, int code, const char *fmt, va_list ap)
{
	if (!err)
		return code;
	err->code = code;
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	return code;
}

int pb_err_set(struct pb_err *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	pb_err_setv(err, code, fmt, ap);
	va_end(ap);
	return code;
}

int pb_err_prefix(struct pb_err *err, const char *fmt, ...)
{
	PB_BUF_FREE struct pb_buf text = {0};
	PB_FREE char *prefix = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&prefix, fmt, ap) < 0)
		prefix = NULL;
	va_end(ap);
	if (prefix && pb_buf_printf(&text, "%s: %s", prefix, err->text) == 0)
		snprintf(err->text, sizeof(err->text), "%s", text.data);
	return err->code;
}

uint64_t pb_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

/* FNV-1a, 64 bits (offset basis and prime from the FNV specification), seeded. */
uint64_t pb_hash64(const void *data, size_t len, uint64_t seed)
{
	const unsigned char *p = data;
	uint64_t h = 0xcbf29ce484222325ULL ^ seed;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3ULL;
	return h;
}

#define PB_SUGGEST_MAX 64

static unsigned pb_min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

static unsigned pb_edit_distance(const char *a, const char *b)
{
	unsigned row[PB_SUGGEST_MAX + 1];
	size_t la = strlen(a), lb = strlen(b);

	if (la > PB_SUGGEST_MAX || lb > PB_SUGGEST_MAX)
		return PB_SUGGEST_MAX;
	for (unsigned j = 0; j <= lb; j++)
		row[j] = j;
	for (unsigned i = 1; i <= la; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= lb; j++) {
			unsigned up = row[j];

			row[j] = pb_min3(up + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
			diagonal = up;
		}
	}
	return row[lb];
}

bool pb_name_valid(const char *name)
{
	size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

	return len > 0 && len < PB_NAME_MAX && name[len] == '\0' && name[0] != '-' &&
	       name[len - 1] != '-';
}

const char *pb_suggest(const char *word, const char *const *candidates)
{
	unsigned limit = strlen(word) / 3 > 2 ? (unsigned)strlen(word) / 3 : 2;
	const char *best = NULL;

	for (; *candidates; candidates++) {
		unsigned d = pb_edit_distance(word, *candidates);

		if (d <= limit && d < strlen(*candidates)) {
			best = *candidates;
			if (d == 0)
				break;
			limit = d - 1;
		}
	}
	return best;
}
