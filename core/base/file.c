/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole files and directories. These block; the loop thread uses them at start and stop only.
 */
#include <base/base.h>

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

int pb_file_read(const char *path, size_t max, struct pb_buf *out, struct pb_err *err)
{
	/* Whoever puts a FIFO in a file's place must not be able to stop the agent at open(). */
	PB_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char chunk[16384];
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return pb_err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return pb_err_set(err, -EISDIR, "%s: %s", path, strerror(EISDIR));
	if (!S_ISREG(st.st_mode))
		return pb_err_set(err, -EINVAL, "%s: not a regular file", path);
	for (;;) {
		ssize_t n = read(fd, chunk, sizeof(chunk));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pb_err_set(err, -errno, "%s: %s", path, strerror(errno));
		if (n == 0)
			return pb_buf_append(out, "", 0);
		if (out->len + (size_t)n > max)
			return pb_err_set(err, -EFBIG, "%s: larger than the limit of %zu bytes",
					  path, max);
		if (pb_buf_append(out, chunk, (size_t)n) < 0)
			return pb_err_set(err, -ENOMEM, "%s: out of memory", path);
	}
}

static int pb_write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

int pb_file_write(const char *path, const void *data, size_t len, unsigned mode, struct pb_err *err)
{
	PB_FREE char *tmp = pb_sprintf("%s.XXXXXX", path);
	int fd, rc;

	if (!tmp)
		return pb_err_set(err, -ENOMEM, "%s: out of memory", path);
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return pb_err_set(err, -errno, "%s: %s", path, strerror(errno));
	rc = pb_write_all(fd, data, len);
	if (rc == 0 && fchmod(fd, mode) < 0)
		rc = -errno;
	close(fd);
	if (rc == 0 && rename(tmp, path) < 0)
		rc = -errno;
	if (rc < 0) {
		unlink(tmp);
		return pb_err_set(err, rc, "%s: %s", path, strerror(-rc));
	}
	return 0;
}

int pb_dir_make(const char *path, unsigned mode, struct pb_err *err)
{
	char part[PATH_MAX];
	size_t len = strlen(path);

	if (len == 0 || len >= sizeof(part))
		return pb_err_set(err, -ENAMETOOLONG, "%s: not a usable path", path);
	memcpy(part, path, len + 1);
	for (char *p = part + 1;; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(part, mode) < 0 && errno != EEXIST)
			return pb_err_set(err, -errno, "%s: %s", part, strerror(errno));
		if (c == '\0')
			return 0;
		*p = c;
	}
}

int pb_dir_make_own(const char *path, unsigned mode, struct pb_err *err)
{
	PB_CLOSE int fd = -1;
	struct stat st;
	int rc = pb_dir_make(path, mode, err);

	if (rc < 0)
		return rc;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) < 0)
		return pb_err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (st.st_uid != geteuid())
		return pb_err_set(err, -EACCES,
				  "%s: belongs to user %u, who could exchange what the agent keeps "
				  "there: remove it or name another directory",
				  path, st.st_uid);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return pb_err_set(err, -EACCES,
				  "%s: writable by group or others (mode %04o), who could exchange "
				  "what the agent keeps there: chmod go-w",
				  path, st.st_mode & 07777);
	return 0;
}
