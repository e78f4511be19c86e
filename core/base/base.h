/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small things that every room of the agent uses.
 *
 * Owns cleanup attributes, error texts, growing buffers and file helpers. Imports nothing of
 * ours but the SDK, logs nothing, and never ends the process.
 */
#ifndef PB_BASE_H
#define PB_BASE_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <patchbay/plugin.h>

#define PB_ARRAY_LEN(a_) (sizeof(a_) / sizeof((a_)[0]))
#define PB_CONTAINER_OF(ptr_, type_, member_) ((type_ *)((char *)(ptr_)-offsetof(type_, member_)))

void pb_cleanup_free(void *p);	/* for a pointer variable: free(*(void **)p) */
void pb_cleanup_close(int *fd); /* closes fd >= 0, keeps errno */
void pb_cleanup_file(FILE **f);

#define PB_FREE __attribute__((cleanup(pb_cleanup_free), unused))
#define PB_CLOSE __attribute__((cleanup(pb_cleanup_close), unused))
#define PB_FCLOSE __attribute__((cleanup(pb_cleanup_file), unused))

/* Takes the value out of an owning variable so that its cleanup finds nothing. */
#define PB_TAKE_PTR(p_)                                                                            \
	({                                                                                         \
		__typeof__(p_) pb_taken_ = (p_);                                                   \
		(p_) = NULL;                                                                       \
		pb_taken_;                                                                         \
	})
#define PB_TAKE_FD(fd_)                                                                            \
	({                                                                                         \
		int pb_taken_ = (fd_);                                                             \
		(fd_) = -1;                                                                        \
		pb_taken_;                                                                         \
	})

/*
 * Why something failed, in words for the admin: object, cause, remedy. Functions that fail fill
 * it and return the negative errno; whoever can act on the failure reports it, once.
 */
struct pb_err {
	int code;
	char text[1024];
};

/* Sets the text and returns `code`. `err` may be NULL. */
int pb_err_set(struct pb_err *err, int code, const char *fmt, ...) PB_PRINTF(3, 4);
int pb_err_setv(struct pb_err *err, int code, const char *fmt, va_list ap);
/* Puts "prefix: " before the text that is there; returns err->code. */
int pb_err_prefix(struct pb_err *err, const char *fmt, ...) PB_PRINTF(2, 3);

struct pb_buf {
	char *data; /* NUL terminated once something was appended */
	size_t len;
	size_t cap;
};

int pb_buf_append(struct pb_buf *buf, const void *data, size_t len);
int pb_buf_printf(struct pb_buf *buf, const char *fmt, ...) PB_PRINTF(2, 3);
void pb_buf_reset(struct pb_buf *buf); /* len = 0, memory kept */
void pb_buf_free(struct pb_buf *buf);  /* frees and zeroes; NULL is fine */
void pb_cleanup_buf(struct pb_buf *buf);
#define PB_BUF_FREE __attribute__((cleanup(pb_cleanup_buf), unused))

/* A new string; NULL without memory. */
char *pb_sprintf(const char *fmt, ...) PB_PRINTF(1, 2);

/* Reads a whole regular file of at most `max` bytes. -EFBIG when it is larger. Never waits. */
int pb_file_read(const char *path, size_t max, struct pb_buf *out, struct pb_err *err);
/* Writes a file so that a reader sees the old content or the new, never a part. */
int pb_file_write(const char *path, const void *data, size_t len, unsigned mode,
		  struct pb_err *err);
/* mkdir -p. An existing directory is fine. */
int pb_dir_make(const char *path, unsigned mode, struct pb_err *err);
/*
 * The same for a directory whose files this process trusts: -EACCES when it belongs to another
 * user or others may write it. A symbolic link is refused.
 */
int pb_dir_make_own(const char *path, unsigned mode, struct pb_err *err);

uint64_t pb_now_ns(void); /* CLOCK_MONOTONIC */
uint64_t pb_hash64(const void *data, size_t len, uint64_t seed);

/* A plugin's name: lower case letters, digits and inner dashes, shorter than PB_NAME_MAX. */
bool pb_name_valid(const char *name);

/*
 * The candidate nearest to `word` (edit distance at most 2, or a third of the word), for "did
 * you mean"; NULL when none is near. `candidates` ends with NULL.
 */
const char *pb_suggest(const char *word, const char *const *candidates);

#endif
