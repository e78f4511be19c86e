/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening on a UNIX socket. A socket file is only removed after a connect showed that nobody
 * answers on it.
 */
#include <base/unix.h>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LOCK_TRIES 200
#define LOCK_PAUSE_NS 10000000L

/*
 * Two agents that start together must not both find the old socket dead and replace it. The
 * directory itself is the lock, so nothing is left behind.
 */
static int lock_directory(const char *path, bool wait, int *ret_fd, struct pb_err *err)
{
	PB_FREE char *dir = strdup(path);
	PB_CLOSE int fd = -1;
	char *slash;
	int rc;

	if (!dir)
		return pb_err_set(err, -ENOMEM, "out of memory");
	slash = strrchr(dir, '/');
	slash[slash == dir] = '\0';
	rc = pb_dir_make(dir, 0755, err);
	if (rc < 0)
		return rc;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return pb_err_set(err, -errno, "%s: %s", dir, strerror(errno));
	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};

		if (!wait || i == LOCK_TRIES)
			return pb_err_set(err, -EBUSY, "%s: locked by another process", dir);
		nanosleep(&pause, NULL);
	}
	*ret_fd = PB_TAKE_FD(fd);
	return 0;
}

static int remove_dead_socket(const struct sockaddr_un *addr, const struct pb_unix *opts,
			      struct pb_err *err)
{
	PB_CLOSE int fd = -1;
	struct stat st;

	if (lstat(addr->sun_path, &st) < 0)
		return errno == ENOENT
			       ? 0
			       : pb_err_set(err, -errno, "%s: %s", addr->sun_path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return pb_err_set(err, -EEXIST, "%s: exists and is no socket; remove it or set %s",
				  addr->sun_path, opts->key);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return pb_err_set(err, -errno, "socket: %s", strerror(errno));
	/* EAGAIN: the queue of a living listener is full. */
	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EAGAIN)
		return pb_err_set(
			err, -EADDRINUSE,
			"%s: another %s answers on this socket; stop it, or give this one %s",
			addr->sun_path, opts->other, opts->remedy);
	if (errno != ECONNREFUSED)
		return pb_err_set(err, -errno, "%s: %s", addr->sun_path, strerror(errno));
	if (unlink(addr->sun_path) < 0)
		return pb_err_set(err, -errno, "%s: can't remove the dead socket: %s",
				  addr->sun_path, strerror(errno));
	return 0;
}

static int bind_socket(const struct pb_unix *opts, int fd, const struct sockaddr_un *addr,
		       struct stat *ret_st, struct pb_err *err)
{
	mode_t old = umask(0177);
	int rc = bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? -errno : 0;

	umask(old);
	if (rc == 0 && opts->group && chown(addr->sun_path, (uid_t)-1, *opts->group) < 0)
		rc = -errno;
	if (rc == 0 && chmod(addr->sun_path, 0660) < 0)
		rc = -errno;
	if (rc == 0 && lstat(addr->sun_path, ret_st) < 0)
		rc = -errno;
	if (rc == 0 && listen(fd, opts->backlog) < 0)
		rc = -errno;
	return rc < 0 ? pb_err_set(err, rc, "%s: %s", addr->sun_path, strerror(-rc)) : 0;
}

int pb_unix_listen(const struct pb_unix *opts, int *ret_fd, struct stat *ret_st, struct pb_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	PB_CLOSE int lock = -1;
	PB_CLOSE int fd = -1;
	int rc;

	if (*opts->path != '/' || strlen(opts->path) >= sizeof(addr.sun_path))
		return pb_err_set(err, -ENAMETOOLONG, "%s: not an address for a socket",
				  opts->path);
	memcpy(addr.sun_path, opts->path, strlen(opts->path));
	rc = lock_directory(opts->path, opts->wait, &lock, err);
	if (rc == 0)
		rc = remove_dead_socket(&addr, opts, err);
	if (rc < 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return pb_err_set(err, -errno, "socket: %s", strerror(errno));
	rc = bind_socket(opts, fd, &addr, ret_st, err);
	if (rc == 0)
		*ret_fd = PB_TAKE_FD(fd);
	return rc;
}

void pb_unix_remove(const char *path, const struct stat *st)
{
	struct stat now;

	if (lstat(path, &now) == 0 && now.st_dev == st->st_dev && now.st_ino == st->st_ino)
		unlink(path);
}
