/* SPDX-License-Identifier: Apache-2.0 */
/*
 * patchbayd --cleanup. Removes by name what an agent makes, nothing else, and nothing at all
 * while one runs.
 */
#include <agent_private.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static int refuse_if_alive(const char *path, struct pb_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	PB_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return pb_err_set(err, -errno, "socket: %s", strerror(errno));
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 || errno == EAGAIN)
		return pb_err_set(
			err, -EBUSY,
			"an agent answers on %s; stop it first (systemctl stop patchbayd)", path);
	return 0;
}

static int remove_file(int dir, const char *where, const char *name, struct pb_err *err)
{
	if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
		return 0;
	return pb_err_set(err, -errno, "%s/%s: %s", where, name, strerror(errno));
}

/* The files of a directory of ours, and then the directory; there are none below it. */
static int remove_dir(const char *path, struct pb_err *err)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;
	int rc = 0;

	if (!dir)
		return errno == ENOENT ? 0
				       : pb_err_set(err, -errno, "%s: %s", path, strerror(errno));
	while (rc == 0 && (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			rc = remove_file(dirfd(dir), path, entry->d_name, err);
	}
	closedir(dir);
	if (rc == 0 && rmdir(path) < 0)
		rc = pb_err_set(err, -errno, "%s: %s", path, strerror(errno));
	return rc;
}

static int remove_run_dir(const char *run_dir, struct pb_err *err)
{
	static const char *const ours[] = {"endpoints", "plugins", "state"};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < PB_ARRAY_LEN(ours); i++) {
		PB_FREE char *path = pb_sprintf("%s/%s", run_dir, ours[i]);

		rc = path ? remove_dir(path, err) : pb_err_set(err, -ENOMEM, "out of memory");
	}
	if (rc == 0 && rmdir(run_dir) < 0 && errno != ENOENT && errno != ENOTEMPTY &&
	    errno != EBUSY)
		rc = pb_err_set(err, -errno, "%s: %s", run_dir, strerror(errno));
	return rc;
}

int pb_agent_cleanup(const struct pb_config *config, struct pb_err *err)
{
	struct stat st;
	int rc = refuse_if_alive(config->control.socket, err);

	if (rc == 0)
		rc = pb_dp_cleanup(config, err);
	if (rc == 0 && lstat(config->control.socket, &st) == 0 && S_ISSOCK(st.st_mode))
		rc = remove_file(AT_FDCWD, "", config->control.socket, err);
	return rc < 0 ? rc : remove_run_dir(config->agent.run_dir, err);
}
