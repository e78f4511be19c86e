/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest directory as a source: follows it by inotify, has the pool read what changed,
 * applies it in slices.
 *
 * A change is read when its writer closed the file or moved it into place. What may be a half
 * done change (a file created, written to, or gone for a moment while an editor saves) waits
 * until it was quiet for a while. One job at a time; nothing here reads a file.
 */
#include <kube/manifests_set.h>

#include <limits.h>
#include <malloc.h>
#include <sys/inotify.h>

/* How long what may be half done has to be quiet. */
#define QUIET_WRITE_MS 1000
#define QUIET_GONE_MS 100
/* A directory that isn't there is looked for again. */
#define RETRY_MS 1000
/* How long results are applied in one turn of the loop. */
#define SLICE_NS (1000 * 1000ULL)
/* After reading more than this, memory is given back to the kernel. */
#define TRIM_LEN (4U << 20)

/* A file that has to be read. */
struct dirty {
	UT_hash_handle hh;
	uint64_t due; /* uv_now() */
	char path[];
};

struct watched_dir {
	UT_hash_handle hh;
	int wd;
	uint32_t seen;
	char path[];
};

struct manifests {
	struct pb_source base;
	uv_loop_t *loop;
	char *directory;
	int inotify_fd;
	uv_poll_t poll;
	uv_timer_t timer;
	uv_idle_t idle; /* runs while results are applied */
	uv_work_t work;
	struct pb_manifest_job *job;
	struct pb_manifest_set set;
	struct dirty *dirty;
	struct watched_dir *dirs;
	uint32_t listed;    /* bits of kinds whose first list is complete */
	uint32_t listing;   /* bits of kinds whose first list is being applied */
	uint32_t listing_n; /* number of the newest listing */
	bool needs_list;
	bool needs_force;
	bool is_working; /* the pool has the work item */
	bool is_closing;
	char *error; /* of the directory */
	unsigned open;
	void (*closed)(void *arg);
	void *closed_arg;
};

static void schedule(struct manifests *m);
static bool queue(struct manifests *m);
static void timer_cb(uv_timer_t *timer);

static struct pb_sink *sink_of(struct manifests *m)
{
	return (struct pb_sink *)m->set.kube;
}

/* ---- what is in the way of a job ---- */

static void mark_dirty(struct manifests *m, const char *path, uint64_t delay)
{
	uint64_t due = uv_now(m->loop) + delay;
	struct dirty *dirty;

	HASH_FIND_STR(m->dirty, path, dirty);
	if (!dirty) {
		size_t len = strlen(path);

		dirty = calloc(1, sizeof(*dirty) + len + 1);
		if (!dirty) {
			m->needs_list = true;
			return;
		}
		memcpy(dirty->path, path, len);
		HASH_ADD_STR(m->dirty, path, dirty);
	}
	dirty->due = due;
}

static void dirty_drop(struct manifests *m, struct dirty *dirty)
{
	HASH_DEL(m->dirty, dirty);
	free(dirty);
}

/* Moves what is due into the job. */
static bool take_due(struct manifests *m, struct pb_manifest_job *job)
{
	uint64_t now = uv_now(m->loop);
	struct dirty *dirty, *tmp;

	HASH_ITER (hh, m->dirty, dirty, tmp) {
		struct pb_manifest_file *file;

		if (dirty->due > now)
			continue;
		file = pb_manifest_file_new(dirty->path);
		if (!file)
			return false;
		file->next = job->files;
		job->files = file;
		dirty_drop(m, dirty);
	}
	return true;
}

static int held_compare(const void *a, const void *b)
{
	return strcmp((*(struct pb_manifest_file *const *)a)->path,
		      (*(struct pb_manifest_file *const *)b)->path);
}

static struct pb_manifest_file *known_add(struct pb_manifest_job *job, const char *path)
{
	struct pb_manifest_file *file = pb_manifest_file_new(path);

	if (file)
		job->known[job->n_known++] = file;
	return file;
}

/* What a listing needs not read: unchanged files, and those in the middle of a change. */
static bool take_known(struct manifests *m, struct pb_manifest_job *job)
{
	size_t n = HASH_COUNT(m->set.files) + HASH_COUNT(m->dirty);
	struct pb_manifest_held *held, *next_held;
	struct pb_manifest_file *file;
	struct dirty *dirty, *tmp;

	job->known = calloc(n + 1, sizeof(*job->known));
	if (!job->known)
		return false;
	HASH_ITER (hh, m->dirty, dirty, tmp) {
		if (dirty->due <= uv_now(m->loop)) {
			dirty_drop(m, dirty);
			continue;
		}
		file = known_add(job, dirty->path);
		if (!file)
			return false;
		file->is_busy = true;
	}
	HASH_ITER (hh, m->set.files, held, next_held) {
		HASH_FIND_STR(m->dirty, held->path, dirty);
		/* A broken one is read again whenever the directory is. */
		if (dirty || held->is_broken)
			continue;
		file = known_add(job, held->path);
		if (!file)
			return false;
		file->mark = held->mark;
	}
	qsort(job->known, job->n_known, sizeof(*job->known), held_compare);
	return true;
}

static struct pb_manifest_job *job_new(struct manifests *m)
{
	struct pb_manifest_job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->directory = strdup(m->directory);
	job->inotify_fd = m->inotify_fd;
	job->kinds = m->set.kinds;
	job->list = m->needs_list;
	job->force = m->needs_force;
	if (!job->directory || !(job->list ? take_known(m, job) : take_due(m, job))) {
		pb_manifest_job_free(job);
		return NULL;
	}
	return job;
}

/* ---- the job ---- */

static void work_cb(uv_work_t *work)
{
	struct manifests *m = work->data;

	if (m->job)
		pb_manifest_job_run(m->job);
	else
		malloc_trim(0);
}

static void set_state(struct manifests *m)
{
	PB_FREE char *text = NULL;
	unsigned bad = 0;
	struct pb_manifest_held *held, *tmp;
	const struct pb_manifest_held *first = NULL;

	HASH_ITER (hh, m->set.files, held, tmp) {
		bad += held->error != NULL;
		if (held->error && (!first || strcmp(held->path, first->path) < 0))
			first = held;
	}
	if (m->error)
		text = pb_sprintf("%s (what was read before stays; trying again)", m->error);
	else if (first)
		text = pb_sprintf("%u of %u files have errors; %s: %s", bad,
				  HASH_COUNT(m->set.files), first->path, first->error);
	else
		text = pb_sprintf("watching %s", m->directory);
	for (uint32_t kind = 1; kind < PB_KUBE_KINDS; kind++) {
		if (!(m->set.kinds & 1U << kind))
			continue;
		pb_sink_state(sink_of(m), kind, !m->error && !bad, text ? text : "");
		if (m->error || bad)
			pb_sink_error(sink_of(m), kind, text ? text : "");
	}
}

static void job_done(struct manifests *m)
{
	bool is_large = m->job->text_len > TRIM_LEN;

	for (uint32_t kind = 1; kind < PB_KUBE_KINDS; kind++)
		if (m->listing & 1U << kind)
			pb_sink_list_end(sink_of(m), kind);
	m->listed |= m->listing;
	m->listing = 0;
	pb_manifest_job_free(m->job);
	m->job = NULL;
	set_state(m);
	if (!is_large || !queue(m))
		schedule(m);
}

static void idle_cb(uv_idle_t *idle)
{
	struct manifests *m = idle->data;

	if (pb_manifest_set_step(&m->set, uv_hrtime() + SLICE_NS))
		return;
	uv_idle_stop(idle);
	job_done(m);
}

static void job_failed(struct manifests *m)
{
	if (!m->error || strcmp(m->error, m->job->err.text) != 0)
		pb_warn("kube", "manifests: %s (trying again)", m->job->err.text);
	free(m->error);
	m->error = strdup(m->job->err.text);
	pb_manifest_job_free(m->job);
	m->job = NULL;
	m->needs_list = true;
	set_state(m);
	uv_timer_start(&m->timer, timer_cb, RETRY_MS, 0);
}

static void dirs_update(struct manifests *m)
{
	struct watched_dir *dir, *tmp;

	for (const struct pb_manifest_dir *d = m->job->dirs; d; d = d->next) {
		size_t len = strlen(d->path);

		HASH_FIND_INT(m->dirs, &d->wd, dir);
		if (dir) {
			HASH_DEL(m->dirs, dir);
			free(dir);
		}
		dir = calloc(1, sizeof(*dir) + len + 1);
		if (!dir)
			continue;
		memcpy(dir->path, d->path, len);
		dir->wd = d->wd;
		dir->seen = m->listing_n;
		HASH_ADD_INT(m->dirs, wd, dir);
	}
	HASH_ITER (hh, m->dirs, dir, tmp) {
		if (dir->seen == m->listing_n)
			continue;
		inotify_rm_watch(m->inotify_fd, dir->wd);
		HASH_DEL(m->dirs, dir);
		free(dir);
	}
}

/* A file that is known but was not there when the directory was listed is gone. */
static void add_vanished(struct manifests *m)
{
	struct pb_manifest_held *held, *tmp;
	struct dirty *waiting;

	for (const struct pb_manifest_file *file = m->job->files; file; file = file->next) {
		HASH_FIND_STR(m->set.files, file->path, held);
		if (held)
			held->seen = m->listing_n;
	}
	HASH_ITER (hh, m->set.files, held, tmp) {
		struct pb_manifest_file *file;

		HASH_FIND_STR(m->dirty, held->path, waiting);
		if (held->seen == m->listing_n || waiting)
			continue;
		file = pb_manifest_file_new(held->path);
		if (!file)
			continue;
		file->outcome = PB_MANIFEST_GONE;
		file->next = m->job->files;
		m->job->files = file;
	}
}

static void listing_apply(struct manifests *m)
{
	free(m->error);
	m->error = NULL;
	m->listing_n++;
	dirs_update(m);
	add_vanished(m);
	m->listing = m->job->kinds & m->set.kinds & ~m->listed;
	for (uint32_t kind = 1; kind < PB_KUBE_KINDS; kind++)
		if (m->listing & 1U << kind)
			pb_sink_list_begin(sink_of(m), kind);
}

static void one_closed(struct manifests *m);

static void after_work_cb(uv_work_t *work, int status)
{
	struct manifests *m = work->data;

	(void)status;
	m->is_working = false;
	if (m->is_closing) {
		one_closed(m);
		return;
	}
	if (!m->job) {
		schedule(m);
		return;
	}
	if (m->job->rc < 0) {
		job_failed(m);
		return;
	}
	if (m->job->list)
		listing_apply(m);
	pb_manifest_set_start(&m->set, m->job->files);
	uv_idle_start(&m->idle, idle_cb);
}

static bool queue(struct manifests *m)
{
	if (uv_queue_work(m->loop, &m->work, work_cb, after_work_cb) < 0)
		return false;
	m->is_working = true;
	return true;
}

static void timer_cb(uv_timer_t *timer)
{
	struct manifests *m = timer->data;

	if (m->is_working || m->job || !m->set.kinds)
		return;
	m->job = job_new(m);
	if (!m->job) {
		/* Out of memory. At once again would be in this very turn of the loop. */
		uv_timer_start(&m->timer, timer_cb, RETRY_MS, 0);
		return;
	}
	if ((m->job->list || m->job->files) && queue(m)) {
		m->needs_list = m->needs_list && !m->job->list;
		m->needs_force = m->needs_force && !m->job->list;
		return;
	}
	pb_manifest_job_free(m->job);
	m->job = NULL;
	schedule(m);
}

/* Sets the timer to when there is something to do next. */
static void schedule(struct manifests *m)
{
	uint64_t due = UINT64_MAX, now = uv_now(m->loop);
	struct dirty *dirty, *tmp;

	if (m->is_closing || m->is_working || m->job || !m->set.kinds)
		return;
	if (m->needs_list)
		due = now;
	HASH_ITER (hh, m->dirty, dirty, tmp)
		due = dirty->due < due ? dirty->due : due;
	if (due != UINT64_MAX)
		uv_timer_start(&m->timer, timer_cb, due > now ? due - now : 0, 0);
}

/* ---- inotify ---- */

static void on_change(struct manifests *m, const struct inotify_event *event,
		      const struct watched_dir *dir)
{
	char path[PATH_MAX];

	/* Kubernetes swaps what a mounted ConfigMap shows by renaming ..data. */
	if (event->mask & IN_ISDIR || strncmp(event->name, "..", 2) == 0) {
		m->needs_list = true;
		return;
	}
	if (!pb_manifest_is_name(event->name) ||
	    snprintf(path, sizeof(path), "%s%s", dir->path, event->name) >= (int)sizeof(path))
		return;
	if (event->mask & (IN_CLOSE_WRITE | IN_MOVED_TO))
		mark_dirty(m, path, 0);
	else if (event->mask & (IN_DELETE | IN_MOVED_FROM))
		mark_dirty(m, path, QUIET_GONE_MS);
	else
		mark_dirty(m, path, QUIET_WRITE_MS);
}

static void on_event(struct manifests *m, const struct inotify_event *event)
{
	struct watched_dir *dir;

	if (event->mask & IN_Q_OVERFLOW) {
		m->needs_list = true;
		return;
	}
	HASH_FIND_INT(m->dirs, &event->wd, dir);
	if (event->mask & IN_IGNORED) {
		if (dir) {
			HASH_DEL(m->dirs, dir);
			free(dir);
			m->needs_list = true;
		}
		return;
	}
	/* A watch that the job added just now isn't known here yet. */
	if (!dir || event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT))
		m->needs_list = true;
	else if (event->len)
		on_change(m, event, dir);
}

static void poll_cb(uv_poll_t *poll, int status, int events)
{
	char buf[16384] __attribute__((aligned(8)));
	struct manifests *m = poll->data;
	ssize_t n;

	(void)status;
	(void)events;
	n = read(m->inotify_fd, buf, sizeof(buf));
	for (char *p = buf; n > 0 && p < buf + n;) {
		const struct inotify_event *event = (const void *)p;

		on_event(m, event);
		p += sizeof(*event) + event->len;
	}
	schedule(m);
}

/* ---- as a source ---- */

static void manifests_want(struct pb_source *source, uint32_t kind, bool on)
{
	struct manifests *m = PB_CONTAINER_OF(source, struct manifests, base);
	uint32_t bit = 1U << kind;

	if (on) {
		m->set.kinds |= bit;
		m->needs_list = m->needs_force = true;
		schedule(m);
		return;
	}
	m->set.kinds &= ~bit;
	m->listed &= ~bit;
	m->listing &= ~bit;
	pb_manifest_set_forget(&m->set, kind);
}

static int error_compare(const void *a, const void *b)
{
	return strcmp((*(struct pb_manifest_held *const *)a)->path,
		      (*(struct pb_manifest_held *const *)b)->path);
}

static void add_errors(struct manifests *m, cJSON *list)
{
	struct pb_manifest_held *held, *tmp;
	PB_FREE struct pb_manifest_held **bad = calloc(HASH_COUNT(m->set.files) + 1, sizeof(*bad));
	size_t n = 0;

	HASH_ITER (hh, m->set.files, held, tmp)
		if (bad && held->error)
			bad[n++] = held;
	if (n)
		qsort(bad, n, sizeof(*bad), error_compare);
	for (size_t i = 0; i < n; i++) {
		cJSON *item = cJSON_CreateObject();

		cJSON_AddStringToObject(item, "file", bad[i]->path);
		cJSON_AddStringToObject(item, "error", bad[i]->error);
		cJSON_AddBoolToObject(item, "kept", bad[i]->is_broken && bad[i]->n);
		cJSON_AddItemToArray(list, item);
	}
}

static cJSON *manifests_status(struct pb_source *source)
{
	struct manifests *m = PB_CONTAINER_OF(source, struct manifests, base);
	struct pb_manifest_held *held, *tmp;
	cJSON *json = cJSON_CreateObject();
	unsigned n = 0;

	HASH_ITER (hh, m->set.files, held, tmp)
		n += held->n;
	cJSON_AddStringToObject(json, "directory", m->directory);
	cJSON_AddNumberToObject(json, "files", HASH_COUNT(m->set.files));
	cJSON_AddNumberToObject(json, "objects", n);
	if (m->error)
		cJSON_AddStringToObject(json, "error", m->error);
	add_errors(m, cJSON_AddArrayToObject(json, "errors"));
	return json;
}

static void manifests_free(struct manifests *m)
{
	struct watched_dir *dir, *next_dir;
	struct dirty *dirty, *tmp;

	pb_manifest_job_free(m->job);
	pb_manifest_set_free(&m->set);
	HASH_ITER (hh, m->dirty, dirty, tmp)
		dirty_drop(m, dirty);
	HASH_ITER (hh, m->dirs, dir, next_dir) {
		HASH_DEL(m->dirs, dir);
		free(dir);
	}
	close(m->inotify_fd);
	free(m->error);
	free(m->directory);
	free(m);
}

static void one_closed(struct manifests *m)
{
	void (*closed)(void *arg) = m->closed;
	void *arg = m->closed_arg;

	if (--m->open)
		return;
	manifests_free(m);
	if (closed)
		closed(arg);
}

static void handle_closed(uv_handle_t *handle)
{
	one_closed(handle->data);
}

static void manifests_close(struct pb_source *source, void (*closed)(void *arg), void *arg)
{
	struct manifests *m = PB_CONTAINER_OF(source, struct manifests, base);

	m->is_closing = true;
	m->closed = closed;
	m->closed_arg = arg;
	/* A job that runs still needs what manifests_free() frees. */
	m->open = 3 + m->is_working;
	uv_close((uv_handle_t *)&m->poll, handle_closed);
	uv_close((uv_handle_t *)&m->timer, handle_closed);
	uv_close((uv_handle_t *)&m->idle, handle_closed);
}

static void manifests_describe(struct pb_source *source, uint32_t kind,
			       struct pb_source_kind *ret_kind)
{
	(void)source;
	(void)kind;
	ret_kind->mode = "files";
}

static const struct pb_source_ops manifests_ops = {
	.name = "manifests",
	.want = manifests_want,
	.describe = manifests_describe,
	.status = manifests_status,
	.close = manifests_close,
};

/* Nothing of libuv can fail here but the poll, which goes first. */
static int handles_init(struct manifests *m)
{
	int rc = uv_poll_init(m->loop, &m->poll, m->inotify_fd);

	if (rc < 0)
		return rc;
	uv_timer_init(m->loop, &m->timer);
	uv_idle_init(m->loop, &m->idle);
	m->poll.data = m->timer.data = m->idle.data = m->work.data = m;
	uv_poll_start(&m->poll, UV_READABLE, poll_cb);
	return 0;
}

int pb_source_manifests_new(uv_loop_t *loop, struct pb_sink *sink, const char *directory,
			    struct pb_source **ret_source, struct pb_err *err)
{
	struct manifests *m = calloc(1, sizeof(*m));
	int rc = -ENOMEM;

	if (!m)
		return pb_err_set(err, -ENOMEM, "manifests: out of memory");
	m->base.ops = &manifests_ops;
	m->loop = loop;
	m->set.kube = (struct pb_kube *)sink;
	m->directory = strdup(directory);
	m->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (m->inotify_fd < 0)
		rc = pb_err_set(err, -errno,
				"manifests: inotify: %s: raise fs.inotify.max_user_instances",
				strerror(errno));
	else if (m->directory)
		rc = handles_init(m);
	if (rc < 0) {
		if (m->inotify_fd >= 0) {
			pb_err_set(err, rc, "manifests: %s: %s", directory, strerror(-rc));
			close(m->inotify_fd);
		}
		free(m->directory);
		free(m);
		return rc;
	}
	*ret_source = &m->base;
	return 0;
}
