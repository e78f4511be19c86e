/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The job of the thread pool: walks the directory, finds what changed, has it parsed. Knows
 * nothing of what is in force; that is decided on the loop.
 */
#include <kube/manifests.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/inotify.h>

struct pb_manifest_file *pb_manifest_file_new(const char *path)
{
	struct pb_manifest_file *file = calloc(1, sizeof(*file) + strlen(path) + 1);

	if (file)
		memcpy(file->path, path, strlen(path) + 1);
	return file;
}

static void objects_drop(struct pb_manifest_file *file)
{
	for (size_t i = 0; i < file->n_objects; i++) {
		pb_kube_object_unref(file->objects[i].object);
		free(file->objects[i].text);
	}
	free(file->objects);
	file->objects = NULL;
	file->n_objects = file->cap_objects = 0;
}

void pb_manifest_files_free(struct pb_manifest_file *files)
{
	while (files) {
		struct pb_manifest_file *next = files->next;

		objects_drop(files);
		free(files->error);
		free(files);
		files = next;
	}
}

void pb_manifest_job_free(struct pb_manifest_job *job)
{
	if (!job)
		return;
	pb_manifest_files_free(job->files);
	for (size_t i = 0; i < job->n_known; i++)
		free(job->known[i]);
	free(job->known);
	while (job->dirs) {
		struct pb_manifest_dir *next = job->dirs->next;

		free(job->dirs);
		job->dirs = next;
	}
	free(job->directory);
	free(job);
}

uint32_t pb_manifest_events(void)
{
	return IN_CLOSE_WRITE | IN_CREATE | IN_MODIFY | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
	       IN_DELETE_SELF | IN_MOVE_SELF | IN_ATTRIB | IN_ONLYDIR;
}

bool pb_manifest_is_name(const char *name)
{
	const char *dot = strrchr(name, '.');

	if (!dot || *name == '.' || *name == '#')
		return false;
	return strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0 || strcmp(dot, ".json") == 0;
}

static bool is_same(const struct pb_manifest_mark *a, const struct pb_manifest_mark *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
	       a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec == b->mtime.tv_nsec &&
	       a->ctime.tv_sec == b->ctime.tv_sec && a->ctime.tv_nsec == b->ctime.tv_nsec;
}

static int known_compare(const void *key, const void *element)
{
	return strcmp(key, (*(struct pb_manifest_file *const *)element)->path);
}

static bool is_unchanged(const struct pb_manifest_job *job, const struct pb_manifest_file *file)
{
	struct pb_manifest_file *const *hit =
		job->n_known ? bsearch(file->path, job->known, job->n_known, sizeof(*job->known),
				       known_compare)
			     : NULL;

	if (hit && (*hit)->is_busy)
		return true;
	return hit && !job->force && is_same(&(*hit)->mark, &file->mark);
}

static int open_file(const struct pb_manifest_job *job, struct pb_manifest_file *file,
		     FILE **ret_in, struct pb_err *err)
{
	PB_FREE char *path = pb_sprintf("%s/%s", job->directory, file->path);
	/* Not to hang on a FIFO somebody left there. */
	PB_CLOSE int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return pb_err_set(err, -errno, "%s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return pb_err_set(err, -EINVAL, "not a regular file");
	if (st.st_size > PB_MANIFEST_MAX)
		return pb_err_set(err, -EFBIG, "larger than %u MiB: split it",
				  PB_MANIFEST_MAX >> 20);
	file->mark = (struct pb_manifest_mark){.dev = st.st_dev,
					       .ino = st.st_ino,
					       .size = st.st_size,
					       .mtime = st.st_mtim,
					       .ctime = st.st_ctim};
	*ret_in = fdopen(fd, "r");
	if (!*ret_in)
		return pb_err_set(err, -ENOMEM, "out of memory");
	(void)PB_TAKE_FD(fd);
	return 0;
}

static void file_failed(struct pb_manifest_file *file, int rc, const struct pb_err *err)
{
	objects_drop(file);
	file->outcome = rc == -ENOENT || rc == -ENOTDIR ? PB_MANIFEST_GONE : PB_MANIFEST_FAILED;
	file->error = strdup(err->text);
}

static void read_file(struct pb_manifest_job *job, struct pb_manifest_file *file)
{
	bool json = strcmp(strrchr(file->path, '.'), ".json") == 0;
	PB_FCLOSE FILE *in = NULL;
	struct pb_err err = {0};
	size_t len = 0;
	int rc = open_file(job, file, &in, &err);

	if (rc == 0 && job->list && is_unchanged(job, file)) {
		file->outcome = PB_MANIFEST_SAME;
		return;
	}
	if (rc == 0)
		rc = pb_manifest_file_parse(in, json, job->kinds, file, &len, &err);
	job->text_len += len;
	if (rc < 0)
		file_failed(file, rc, &err);
	else
		file->outcome = PB_MANIFEST_READ;
}

static int add_dir(struct pb_manifest_job *job, const char *full, const char *path)
{
	struct pb_manifest_dir *dir = calloc(1, sizeof(*dir) + strlen(path) + 1);

	if (!dir)
		return -ENOMEM;
	memcpy(dir->path, path, strlen(path) + 1);
	/* Before the directory is read, so that no change falls between the two. */
	dir->wd = inotify_add_watch(job->inotify_fd, full, pb_manifest_events());
	if (dir->wd < 0) {
		free(dir);
		return -errno;
	}
	dir->next = job->dirs;
	job->dirs = dir;
	return 0;
}

static bool is_dir(int dir_fd, const struct dirent *entry)
{
	struct stat st;

	if (entry->d_type == DT_DIR)
		return true;
	if (entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN)
		return false;
	return fstatat(dir_fd, entry->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

static int walk(struct pb_manifest_job *job, const char *path, unsigned depth);

static int walk_entry(struct pb_manifest_job *job, DIR *dir, const struct dirent *entry,
		      const char *path, unsigned depth)
{
	PB_FREE char *name = NULL;
	struct pb_manifest_file *file;

	if (entry->d_name[0] == '.')
		return 0;
	if (is_dir(dirfd(dir), entry)) {
		name = pb_sprintf("%s%s/", path, entry->d_name);
		if (!name)
			return -ENOMEM;
		/* One that vanished meanwhile or may not be read hides nothing else. */
		if (depth < PB_MANIFEST_DEPTH)
			walk(job, name, depth + 1);
		return 0;
	}
	if (!pb_manifest_is_name(entry->d_name))
		return 0;
	name = pb_sprintf("%s%s", path, entry->d_name);
	file = name ? pb_manifest_file_new(name) : NULL;
	if (!file)
		return -ENOMEM;
	file->next = job->files;
	job->files = file;
	return 0;
}

static int walk(struct pb_manifest_job *job, const char *path, unsigned depth)
{
	PB_FREE char *full = pb_sprintf("%s/%s", job->directory, path);
	const struct dirent *entry;
	DIR *dir;
	int rc;

	if (!full)
		return -ENOMEM;
	rc = add_dir(job, full, path);
	if (rc < 0)
		return rc;
	dir = opendir(full);
	if (!dir)
		return -errno;
	while (rc == 0) {
		errno = 0;
		entry = readdir(dir);
		if (!entry) {
			rc = -errno;
			break;
		}
		rc = walk_entry(job, dir, entry, path, depth);
	}
	closedir(dir);
	return rc;
}

void pb_manifest_job_run(struct pb_manifest_job *job)
{
	if (job->list) {
		job->rc = walk(job, "", 0);
		if (job->rc < 0) {
			pb_err_set(&job->err, job->rc, "%s: %s", job->directory,
				   strerror(-job->rc));
			return;
		}
	}
	for (struct pb_manifest_file *file = job->files; file; file = file->next)
		read_file(job, file);
}
