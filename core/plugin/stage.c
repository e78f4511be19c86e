/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a plugin's file to mapped code.
 *
 * Owns RUN_DIR/plugins: one private copy a generation, named NAME-GENERATION.so, and the link
 * NAME.good to the last copy that ran well. A file is never mapped from where the admin put it:
 * whoever overwrites that file would change running code. [pool] unless noted.
 */
#include <plugin/private.h>

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#define STAGE_FILE_MAX (256U << 20)

static int check_owner(int fd, const char *path, struct pb_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return pb_err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return pb_err_set(err, -EACCES, "%s: not a regular file", path);
	if (st.st_uid != 0)
		return pb_err_set(err, -EACCES,
				  "%s: owned by user %u: a plugin runs as root, so its file must "
				  "belong to root (chown root)",
				  path, st.st_uid);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return pb_err_set(
			err, -EACCES,
			"%s: writable by group or others (mode %04o): whoever can write it "
			"is root (chmod go-w)",
			path, st.st_mode & 07777);
	return 0;
}

/* Reads through the descriptor that was checked, so the file can't be exchanged in between. */
static int read_checked(const char *path, struct pb_buf *out, struct pb_err *err)
{
	PB_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char chunk[65536];
	int rc;

	if (fd < 0 && errno == ENOENT)
		return pb_err_set(err, -ENOENT,
				  "%s: no such file; install the plugin there, or name its file: "
				  "plugins.NAME.path, or `patchbay plugin load NAME FILE`",
				  path);
	if (fd < 0)
		return pb_err_set(err, -errno, "%s: %s", path, strerror(errno));
	rc = check_owner(fd, path, err);
	while (rc == 0) {
		ssize_t n = read(fd, chunk, sizeof(chunk));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = pb_err_set(err, -errno, "%s: %s", path, strerror(errno));
		if (n <= 0)
			break;
		if (out->len + (size_t)n > STAGE_FILE_MAX)
			rc = pb_err_set(err, -EFBIG, "%s: larger than %u bytes", path,
					STAGE_FILE_MAX);
		else if (pb_buf_append(out, chunk, (size_t)n) < 0)
			rc = pb_err_set(err, -ENOMEM, "%s: out of memory", path);
	}
	return rc;
}

static int write_copy(const char *path, const struct pb_buf *data, struct pb_err *err)
{
	PB_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0500);
	size_t done = 0;

	if (fd < 0)
		return pb_err_set(err, -errno, "%s: %s", path, strerror(errno));
	while (done < data->len) {
		ssize_t n = write(fd, data->data + done, data->len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int code = -errno;

			unlink(path);
			return pb_err_set(err, code, "%s: %s", path, strerror(-code));
		}
		done += (size_t)n;
	}
	return 0;
}

int pb_stage_hash(const char *path, uint64_t *ret_hash, struct pb_err *err)
{
	PB_BUF_FREE struct pb_buf file = {0};
	int rc = read_checked(path, &file, err);

	if (rc == 0)
		*ret_hash = pb_hash64(file.data, file.len, 0);
	return rc;
}

/* dlerror() says "FILE: undefined symbol: NAME"; the admin wants to know what to do. */
static int dlopen_error(const struct pb_generation *gen, const char *text, struct pb_err *err)
{
	const char *symbol = text ? strstr(text, "undefined symbol: ") : NULL;

	if (symbol)
		return pb_err_set(err, -ENOEXEC,
				  "%s: needs the function %s, which nothing here offers: a plugin "
				  "calls the agent through struct pb_host only, and must be linked "
				  "with every library it uses",
				  gen->source, symbol + strlen("undefined symbol: "));
	return pb_err_set(err, -ENOEXEC, "%s: can't be mapped: %s", gen->source,
			  text ? text : "unknown error");
}

static int map_code(struct pb_generation *gen, struct pb_err *err)
{
	struct pb_crash_call saved;
	const char *text;

	pb_crash_enter(gen->culprit, PB_STEP_DLOPEN, pb_now_ns(), true, &saved);
	gen->dl = dlopen(gen->staged, RTLD_NOW | RTLD_LOCAL);
	text = gen->dl ? NULL : dlerror();
	pb_crash_leave(&saved);
	if (!gen->dl)
		return dlopen_error(gen, text, err);
	gen->code = dlsym(gen->dl, "pb_plugin_v1");
	if (!gen->code)
		return pb_err_set(err, -ENOEXEC,
				  "%s: no symbol pb_plugin_v1: PB_PLUGIN() makes it; was the file "
				  "stripped of its dynamic symbols?",
				  gen->source);
	if (gen->code->size < offsetof(struct pb_plugin, restore) || !gen->code->prepare)
		return pb_err_set(err, -EINVAL, "%s: has no prepare(), which is mandatory",
				  gen->source);
	if (gen->code->flags)
		return pb_err_set(err, -EINVAL,
				  "%s: struct pb_plugin has flags %#x, which this agent doesn't "
				  "know",
				  gen->source, gen->code->flags);
	return 0;
}

int pb_stage(struct pb_generation *gen, struct pb_err *err)
{
	PB_BUF_FREE struct pb_buf file = {0};
	PB_FREE char *copy =
		pb_sprintf("%s/%s-%u.so", gen->manager->stage_dir, gen->plugin->name, gen->number);
	int rc;

	if (!copy)
		return pb_err_set(err, -ENOMEM, "%s: out of memory", gen->source);
	rc = read_checked(gen->source, &file, err);
	if (rc == 0)
		rc = pb_manifest_parse(gen->source, file.data, file.len, &gen->manifest, err);
	if (rc == 0 && strcmp(gen->manifest.name, gen->plugin->name) != 0)
		rc = pb_err_set(err, -EINVAL,
				"%s: holds the plugin \"%s\", but \"%s\" was asked for",
				gen->source, gen->manifest.name, gen->plugin->name);
	if (rc == 0)
		rc = pb_dir_make_own(gen->manager->stage_dir, 0700, err);
	if (rc == 0)
		rc = write_copy(copy, &file, err);
	if (rc < 0)
		return rc;
	gen->staged = PB_TAKE_PTR(copy);
	gen->hash = pb_hash64(file.data, file.len, 0);
	gen->culprit = pb_crash_culprit_new(gen->plugin->name, gen->hash);
	pb_buf_reset(&file);
	/* What is mapped is the copy, so the copy is what must have passed. */
	rc = read_checked(gen->staged, &file, err);
	if (rc == 0)
		rc = pb_manifest_parse(gen->staged, file.data, file.len, &gen->manifest, err);
	return rc < 0 ? rc : map_code(gen, err);
}

/* Name without directory of what NAME.good points to, or NULL. */
static char *good_target(struct pb_manager *m, const char *name)
{
	PB_FREE char *link = pb_sprintf("%s/%s.good", m->stage_dir, name);
	char target[PATH_MAX];
	ssize_t n = link ? readlink(link, target, sizeof(target) - 1) : -1;

	if (n <= 0)
		return NULL;
	target[n] = '\0';
	return strchr(target, '/') ? NULL : strdup(target);
}

char *pb_stage_good(struct pb_manager *m, const char *name)
{
	PB_FREE char *target = good_target(m, name);
	char *path = target ? pb_sprintf("%s/%s", m->stage_dir, target) : NULL;

	if (path && access(path, R_OK) < 0) {
		free(path);
		path = NULL;
	}
	return path;
}

int pb_stage_mark_good(struct pb_manager *m, const char *name, const char *staged)
{
	PB_FREE char *link = pb_sprintf("%s/%s.good", m->stage_dir, name);
	PB_FREE char *tmp = pb_sprintf("%s/%s.good.new", m->stage_dir, name);
	PB_FREE char *old = pb_stage_good(m, name);
	const char *base = strrchr(staged, '/');

	if (!link || !tmp || !base)
		return -ENOMEM;
	unlink(tmp);
	if (symlink(base + 1, tmp) < 0 || rename(tmp, link) < 0)
		return -errno;
	if (old && strcmp(old, staged) != 0)
		unlink(old);
	return 0;
}

static bool is_good(struct pb_manager *m, const char *name, const char *staged)
{
	PB_FREE char *good = pb_stage_good(m, name);

	return good && strcmp(good, staged) == 0;
}

/* A destructor of thread-local data, for instance, makes dlclose() succeed and unmap nothing. */
static void unmap(struct pb_generation *gen)
{
	struct pb_crash_call saved;
	void *still;

	pb_crash_enter(gen->culprit, PB_STEP_DLCLOSE, pb_now_ns(), true, &saved);
	dlclose(gen->dl);
	pb_crash_leave(&saved);
	still = dlopen(gen->staged, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
	if (still) {
		dlclose(still);
		pb_warn("plugin",
			"%s generation %u stays mapped: its file doesn't let itself be "
			"unloaded (thread-local destructors, or linked with -z nodelete)",
			gen->plugin->name, gen->number);
	}
	gen->dl = NULL;
	gen->code = NULL;
}

void pb_stage_drop(struct pb_generation *gen)
{
	if (gen->dl)
		unmap(gen);
	if (gen->staged && !is_good(gen->manager, gen->plugin->name, gen->staged))
		unlink(gen->staged);
	pb_crash_culprit_free(gen->culprit);
	gen->culprit = NULL;
}

/* "NAME-12.so": the name before the last dash and the number; false for other files. */
static bool parse_copy(const char *file, char name[PB_NAME_MAX], unsigned *ret_number)
{
	const char *dash = strrchr(file, '-');
	char end[4] = "";

	if (!dash || dash - file >= PB_NAME_MAX || sscanf(dash, "-%9u%3s", ret_number, end) != 2 ||
	    strcmp(end, ".so") != 0)
		return false;
	memcpy(name, file, (size_t)(dash - file));
	name[dash - file] = '\0';
	return pb_name_valid(name);
}

/* Copies that a killed agent left are removed; numbers go on above them. */
static void sweep(struct pb_manager *m, DIR *dir)
{
	struct dirent *d;

	while ((d = readdir(dir))) {
		PB_FREE char *path = pb_sprintf("%s/%s", m->stage_dir, d->d_name);
		struct pb_plugin_entry *plugin;
		char name[PB_NAME_MAX];
		unsigned number;

		if (!path || !parse_copy(d->d_name, name, &number))
			continue;
		plugin = pb_plugin_get(m, name);
		if (plugin && plugin->generations < number)
			plugin->generations = number;
		if (!is_good(m, name, path))
			unlink(path);
	}
}

int pb_stage_open(struct pb_manager *m, struct pb_err *err)
{
	DIR *dir;
	int rc;

	m->stage_dir = pb_sprintf("%s/plugins", m->config->agent.run_dir);
	if (!m->stage_dir)
		return pb_err_set(err, -ENOMEM, "out of memory");
	rc = pb_dir_make_own(m->stage_dir, 0700, err);
	if (rc == 0 && chmod(m->stage_dir, 0700) < 0)
		rc = pb_err_set(err, -errno, "%s: %s", m->stage_dir, strerror(errno));
	if (rc < 0)
		return rc;
	dir = opendir(m->stage_dir);
	if (!dir)
		return pb_err_set(err, -errno, "%s: %s", m->stage_dir, strerror(errno));
	sweep(m, dir);
	closedir(dir);
	return 0;
}
