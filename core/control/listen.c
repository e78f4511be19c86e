/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listening socket and who may speak on it. A socket file is only removed after a connect
 * showed that nobody answers on it.
 */
#include <control/internal.h>

#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#define LOCK_TRIES 200
#define LOCK_PAUSE_NS 10000000L
#define GROUPS_MAX 65536

/*
 * Two agents that start together must not both find the old socket dead and replace it. The
 * directory itself is the lock, so nothing is left behind.
 */
static int lock_directory(const char *path, int *ret_fd, struct pb_err *err)
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

		if (i == LOCK_TRIES)
			return pb_err_set(err, -EBUSY, "%s: locked by another process", dir);
		nanosleep(&pause, NULL);
	}
	*ret_fd = PB_TAKE_FD(fd);
	return 0;
}

static int remove_dead_socket(const struct sockaddr_un *addr, struct pb_err *err)
{
	PB_CLOSE int fd = -1;
	struct stat st;

	if (lstat(addr->sun_path, &st) < 0)
		return errno == ENOENT
			       ? 0
			       : pb_err_set(err, -errno, "%s: %s", addr->sun_path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return pb_err_set(err, -EEXIST,
				  "%s: exists and is no socket; remove it or set control.socket",
				  addr->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return pb_err_set(err, -errno, "socket: %s", strerror(errno));
	/* EAGAIN: the queue of a living listener is full. */
	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EAGAIN)
		return pb_err_set(err, -EADDRINUSE,
				  "%s: another agent answers on this socket; stop it, or give this "
				  "one its own control.socket, agent.run_dir and datapath.bpffs",
				  addr->sun_path);
	if (errno != ECONNREFUSED)
		return pb_err_set(err, -errno, "%s: %s", addr->sun_path, strerror(errno));
	if (unlink(addr->sun_path) < 0)
		return pb_err_set(err, -errno, "%s: can't remove the dead agent's socket: %s",
				  addr->sun_path, strerror(errno));
	return 0;
}

static int bind_socket(struct pb_control *control, int fd, const struct sockaddr_un *addr,
		       struct pb_err *err)
{
	mode_t old = umask(0177);
	int rc = bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? -errno : 0;
	struct stat st;

	umask(old);
	if (rc == 0 && control->has_group && chown(addr->sun_path, (uid_t)-1, control->group) < 0)
		rc = -errno;
	if (rc == 0 && chmod(addr->sun_path, 0660) < 0)
		rc = -errno;
	if (rc == 0 && lstat(addr->sun_path, &st) < 0)
		rc = -errno;
	if (rc == 0 && listen(fd, CONTROL_PEERS_MAX) < 0)
		rc = -errno;
	if (rc < 0)
		return pb_err_set(err, rc, "%s: %s", addr->sun_path, strerror(-rc));
	control->dev = st.st_dev;
	control->ino = st.st_ino;
	return 0;
}

int control_listen(struct pb_control *control, int *ret_fd, struct pb_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	PB_CLOSE int lock = -1;
	PB_CLOSE int fd = -1;
	int rc;

	if (*control->path != '/' || strlen(control->path) >= sizeof(addr.sun_path))
		return pb_err_set(err, -ENAMETOOLONG, "%s: not an address for a socket",
				  control->path);
	memcpy(addr.sun_path, control->path, strlen(control->path));
	rc = lock_directory(control->path, &lock, err);
	if (rc == 0)
		rc = remove_dead_socket(&addr, err);
	if (rc < 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return pb_err_set(err, -errno, "socket: %s", strerror(errno));
	rc = bind_socket(control, fd, &addr, err);
	if (rc == 0)
		*ret_fd = PB_TAKE_FD(fd);
	return rc;
}

static bool peer_in_group(int fd, gid_t primary, gid_t wanted)
{
	PB_FREE gid_t *groups = NULL;
	socklen_t len = 0;

	if (primary == wanted)
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0 || errno != ERANGE ||
	    len > GROUPS_MAX * sizeof(gid_t))
		return false;
	groups = malloc(len);
	if (!groups || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
		return false;
	for (size_t i = 0; i < len / sizeof(gid_t); i++) {
		if (groups[i] == wanted)
			return true;
	}
	return false;
}

int control_check_peer(const struct pb_control *control, int fd, struct pb_err *err)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return pb_err_set(err, -EACCES, "who asks is unknown: %s", strerror(errno));
	if (cred.uid == 0 || cred.uid == geteuid())
		return 0;
	if (control->has_group && peer_in_group(fd, cred.gid, control->group))
		return 0;
	return pb_err_set(err, -EACCES,
			  "user %u may not use this socket; ask as root or as a member of "
			  "control.group",
			  (unsigned)cred.uid);
}
