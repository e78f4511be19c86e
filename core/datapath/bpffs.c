/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bpffs directory: made, locked, emptied.
 *
 * Owns nothing but the directory itself. Mounts a bpffs only at /sys/fs/bpf, its customary
 * place; any other mount is the admin's decision.
 */
#include <datapath/internal.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <base/log.h>

#define BPFFS_MAGIC 0xcafe4a11
#define BPFFS_DEFAULT "/sys/fs/bpf"
#define LOCK_WAIT_NS 10000000000ULL
#define LOCK_POLL_MS 20

static bool is_bpffs(const char *path)
{
	struct statfs st;

	return statfs(path, &st) == 0 && (uint32_t)st.f_type == BPFFS_MAGIC;
}

/* The nearest directory that exists, at or above `path`. */
static char *existing_parent(const char *path)
{
	char *parent = strdup(path);

	while (parent && access(parent, F_OK) < 0) {
		char *slash = strrchr(parent, '/');

		if (!slash || slash == parent) {
			free(parent);
			return strdup("/");
		}
		*slash = '\0';
	}
	return parent;
}

static int mount_default(struct pb_err *err)
{
	if (mount("bpf", BPFFS_DEFAULT, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") < 0)
		return pb_err_set(err, -errno, "can't mount a bpffs at " BPFFS_DEFAULT ": %s",
				  strerror(errno));
	pb_info("datapath", "mounted a bpffs at " BPFFS_DEFAULT);
	return 0;
}

int pb_bpffs_make(const char *dir, struct pb_err *err)
{
	static const char *const below[] = {"core", "chains", "plugins", "links"};
	const size_t len = strlen(BPFFS_DEFAULT);
	PB_FREE char *parent = existing_parent(dir);
	int rc = 0;

	if (!parent)
		return pb_err_set(err, -ENOMEM, "no memory");
	if (!is_bpffs(parent)) {
		if (strncmp(dir, BPFFS_DEFAULT, len) != 0 || (dir[len] != '/' && dir[len]) ||
		    is_bpffs(BPFFS_DEFAULT))
			return pb_err_set(
				err, -EINVAL,
				"datapath.bpffs: %s is not on a bpffs; mount one (mount -t "
				"bpf bpf %s) or choose a directory below " BPFFS_DEFAULT,
				dir, dir);
		rc = mount_default(err);
	}
	for (size_t i = 0; rc == 0 && i < PB_ARRAY_LEN(below); i++) {
		PB_FREE char *path = pb_sprintf("%s/%s", dir, below[i]);

		rc = path ? pb_dir_make(path, 0700, err) : pb_err_set(err, -ENOMEM, "no memory");
	}
	return rc;
}

/* ---- the lock ---- */

/* Who holds the lock of this file; 0 when /proc/locks doesn't say. */
static int lock_holder(const struct stat *st)
{
	FILE *f = fopen("/proc/locks", "re");
	char line[256];
	int found = 0;

	while (f && !found && fgets(line, sizeof(line), f)) {
		unsigned major_no, minor_no;
		unsigned long inode;
		int pid;

		if (sscanf(line, "%*d: FLOCK %*s %*s %d %x:%x:%lu", &pid, &major_no, &minor_no,
			   &inode) == 4 &&
		    major_no == major(st->st_dev) && minor_no == minor(st->st_dev) &&
		    inode == st->st_ino)
			found = pid;
	}
	if (f)
		fclose(f);
	return found;
}

static void process_name(int pid, char *buf, size_t len)
{
	PB_FREE char *path = pb_sprintf("/proc/%d/comm", pid);
	PB_BUF_FREE struct pb_buf comm = {0};

	snprintf(buf, len, "?");
	if (path && pb_file_read(path, 4096, &comm, NULL) == 0 && comm.len > 1)
		snprintf(buf, len, "%.*s", (int)comm.len - 1, comm.data);
}

static int lock_refused(const char *dir, int holder, struct pb_err *err)
{
	char name[64];

	if (holder <= 0)
		return pb_err_set(err, -EBUSY,
				  "datapath.bpffs: another agent uses %s; stop it or give this one "
				  "another directory",
				  dir);
	process_name(holder, name, sizeof(name));
	return pb_err_set(err, -EBUSY,
			  "datapath.bpffs: %s (pid %d) uses %s; stop it or give this agent another "
			  "directory",
			  name, holder, dir);
}

int pb_bpffs_lock(const char *dir, int *ret_fd, struct pb_err *err)
{
	PB_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const uint64_t deadline = pb_now_ns() + LOCK_WAIT_NS;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return pb_err_set(err, -errno, "can't open %s: %s", dir, strerror(errno));
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int holder = lock_holder(&st);

		if (errno != EWOULDBLOCK && errno != EINTR)
			return pb_err_set(err, -errno, "can't lock %s: %s", dir, strerror(errno));
		/*
		 * Our own pid: this process executed itself anew after a crash, and the child that
		 * dumps the core still shares the old lock.
		 */
		if (holder != getpid() || pb_now_ns() > deadline)
			return lock_refused(dir, holder, err);
		usleep(LOCK_POLL_MS * 1000);
	}
	*ret_fd = PB_TAKE_FD(fd);
	return 0;
}

/* ---- removal ---- */

static int remove_entry(const char *path, struct pb_err *err)
{
	struct stat st;

	if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return pb_bpffs_remove(path, err);
	if (unlink(path) < 0 && errno != ENOENT)
		return pb_err_set(err, -errno, "can't remove %s: %s", path, strerror(errno));
	return 0;
}

int pb_bpffs_remove(const char *dir, struct pb_err *err)
{
	struct dirent **names = NULL;
	int n = scandir(dir, &names, NULL, NULL), rc = 0;

	if (n < 0 && errno == ENOENT)
		return 0;
	if (n < 0)
		return pb_err_set(err, -errno, "can't list %s: %s", dir, strerror(errno));
	for (int i = 0; i < n; i++) {
		const char *name = names[i]->d_name;
		PB_FREE char *path = pb_sprintf("%s/%s", dir, name);

		if (rc == 0 && path && strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
			rc = remove_entry(path, err);
		free(names[i]);
	}
	free(names);
	if (rc == 0 && rmdir(dir) < 0 && errno != ENOENT && errno != EBUSY)
		rc = pb_err_set(err, -errno, "can't remove %s: %s", dir, strerror(errno));
	return rc;
}
