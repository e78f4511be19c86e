/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jobs that bring the kernel in line with the table, on the thread pool.
 *
 * The kernel takes tens of milliseconds over some of this (it waits for running programs, or for
 * whoever holds its network lock), so nothing here may be called on the loop but the pump.
 * Owns the order: adopt, check, list devices, then one device or the cgroup at a time.
 */
#include <datapath/links_table.h>

#include <dirent.h>

#include <base/log.h>

#define CHECKS_A_JOB 256

/* ---- on the pool ---- */

static void keep_first(struct pb_links_job *job, int code, const struct pb_err *why)
{
	if (code < 0 && job->code == 0) {
		job->code = code;
		job->why = *why;
	}
}

static bool use_tcx(struct pb_links *links, int prog_fd)
{
	if (links->env.mode != PB_ATTACH_AUTO)
		return links->env.mode == PB_ATTACH_TCX;
	if (!links->probed) {
		links->tcx = pb_tcx_supported(prog_fd);
		links->probed = true;
		pb_info("datapath", "attaching to devices by %s", links->tcx ? "TCX" : "clsact");
	}
	return links->tcx;
}

static void op_attach(struct pb_links_job *job, struct pb_links_op *op)
{
	struct pb_links *links = job->links;
	int prog_fd = links->env.entry_fd[op->place.hook];
	struct pb_err why = {0};

	if (op->place.hook >= PB_HOOK_TC_COUNT)
		op->place.how = PB_HOW_CGROUP;
	else if (!op->place.how)
		op->place.how = use_tcx(links, prog_fd) ? PB_HOW_TCX : PB_HOW_CLSACT;
	op->code = pb_attach(&op->place, links->cgroup, prog_fd, &why);
	op->prog_id = pb_prog_id(prog_fd);
	keep_first(job, op->code, &why);
}

/* Detaching first: a place may change hands between the hooks of devices and of pods. */
static void place_run(struct pb_links_job *job)
{
	bool clsact = false;

	for (size_t i = 0; i < job->n_ops; i++) {
		struct pb_links_op *op = &job->ops[i];
		struct pb_err why = {0};

		if (!op->detach)
			continue;
		op->code = pb_detach(&op->place, &why);
		op->detached = op->code == 0;
		clsact |= op->place.how == PB_HOW_CLSACT;
		keep_first(job, op->code, &why);
	}
	if (job->release && clsact && job->code == 0)
		pb_clsact_release(job->links->dir, job->ifindex);
	for (size_t i = 0; i < job->n_ops; i++)
		if (job->ops[i].attach && job->ops[i].code == 0)
			op_attach(job, &job->ops[i]);
}

static void check_run(struct pb_links_job *job)
{
	for (size_t i = 0; i < job->n_ops; i++)
		job->ops[i].code = pb_attach_check(&job->ops[i].place, job->ops[i].prog_id);
}

static void scan_found(void *arg, const struct pb_nl_link *link)
{
	struct pb_links_job *job = arg;
	struct pb_nl_link *found = reallocarray(job->found, job->n_found + 1, sizeof(*found));

	if (!found) {
		job->code = pb_err_set(&job->why, -ENOMEM, "list of devices: out of memory");
		return;
	}
	job->found = found;
	job->found[job->n_found++] = *link;
}

static void scan_run(struct pb_links_job *job)
{
	struct pb_err why = {0};

	keep_first(job, pb_nl_link_dump(job->links->nl, scan_found, job, &why), &why);
}

static bool is_found(const struct pb_links_job *job, const struct pb_place *place)
{
	for (size_t i = 0; i < job->n_ops; i++)
		if (job->ops[i].place.hook == place->hook &&
		    job->ops[i].place.ifindex == place->ifindex)
			return true;
	return false;
}

static int adopted(struct pb_links_job *job, const struct pb_place *place, int prog_fd,
		   struct pb_err *err)
{
	struct pb_links_op *ops = reallocarray(job->ops, job->n_ops + 1, sizeof(*ops));

	if (!ops)
		return pb_err_set(err, -ENOMEM, "out of memory");
	job->ops = ops;
	job->ops[job->n_ops++] =
		(struct pb_links_op){.place = *place, .prog_id = pb_prog_id(prog_fd)};
	return 0;
}

static int adopt(struct pb_links_job *job, const struct pb_place *place, struct pb_err *err)
{
	struct pb_links *links = job->links;
	int prog_fd = links->env.entry_fd[place->hook];
	int rc;

	/* A clsact place has up to two pins. */
	if (place->how == PB_HOW_CLSACT && is_found(job, place))
		return 0;
	if (place->how == PB_HOW_CGROUP && !pb_attach_is_on_cgroup(place, links->cgroup))
		return pb_detach(place, err);
	if (prog_fd < 0)
		return pb_detach(place, err);
	rc = pb_attach(place, links->cgroup, prog_fd, err);
	if (rc == -ENOLINK || rc == -ENODEV) {
		rc = pb_detach(place, err);
		pb_clsact_release(links->dir, place->ifindex);
		return rc;
	}
	return rc < 0 ? rc : adopted(job, place, prog_fd, err);
}

static void adopt_run(struct pb_links_job *job)
{
	struct pb_err why = {0};
	DIR *dir = opendir(job->links->dir);
	const struct dirent *entry;

	if (!dir) {
		keep_first(job,
			   pb_err_set(&why, -errno, "%s: %s", job->links->dir, strerror(errno)),
			   &why);
		return;
	}
	while ((entry = readdir(dir))) {
		struct pb_place place;

		if (pb_place_parse(entry->d_name, job->links->dir, &place))
			keep_first(job, adopt(job, &place, &why), &why);
	}
	closedir(dir);
}

/* ---- on the loop ---- */

static void adopt_done(struct pb_links_job *job)
{
	struct pb_links *links = job->links;
	struct pb_err why = {0};
	int last_code = 0;

	for (size_t i = 0; i < job->n_ops; i++)
		keep_first(job, pb_links_remember(links, &job->ops[i], &why), &why);
	pb_links_report(links, &last_code, job->code, &job->why);
}

static struct pb_links_job *job_new(struct pb_links *links, size_t max_ops,
				    void (*run)(struct pb_links_job *),
				    void (*done)(struct pb_links_job *))
{
	struct pb_links_job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->ops = calloc(max_ops + 1, sizeof(*job->ops));
	if (!job->ops) {
		free(job);
		return NULL;
	}
	job->links = links;
	job->run = run;
	job->done = done;
	job->work.data = job;
	return job;
}

static void job_free(struct pb_links_job *job)
{
	free(job->found);
	free(job->ops);
	free(job);
}

static struct pb_links_job *check_job(struct pb_links *links)
{
	struct pb_links_job *job = job_new(links, CHECKS_A_JOB, check_run, pb_links_checked);

	while (job && links->checks > 0 && job->n_ops < CHECKS_A_JOB) {
		const struct attachment *a =
			links->check_next ? links->check_next : links->attachments;

		links->checks = a ? links->checks - 1 : 0;
		if (!a)
			break;
		links->check_next = a->hh.next;
		if (a->attached && !a->stale)
			job->ops[job->n_ops++] =
				(struct pb_links_op){.place = a->place, .prog_id = a->prog_id};
	}
	return job;
}

static struct pb_links_job *place_job(struct pb_links *links, uint32_t ifindex)
{
	struct pb_links_job *job = job_new(links, PB_HOOK_COUNT, place_run, pb_links_applied);

	if (!job)
		return NULL;
	job->ifindex = ifindex;
	job->release = ifindex != 0;
	for (uint32_t hook = 0; hook < PB_HOOK_COUNT; hook++) {
		struct attachment *a = pb_links_find(links, hook, ifindex);

		if (a && a->wanted)
			job->release = false;
		if (!a || !pb_links_due(a))
			continue;
		job->ops[job->n_ops++] = (struct pb_links_op){
			.place = a->place,
			.detach = a->stale || !a->wanted,
			.attach = a->wanted,
		};
		a->stale = false;
		a->touched = true;
		a->attaching = a->wanted;
		a->detaching = !a->wanted;
	}
	return job;
}

static const struct attachment *first_due(struct pb_links *links)
{
	const struct attachment *a;

	for (a = links->attachments; a; a = a->hh.next)
		if (pb_links_due(a))
			return a;
	return NULL;
}

/* False: there is nothing to do. *ret_job is NULL when memory ran out. */
static bool next_job(struct pb_links *links, struct pb_links_job **ret_job)
{
	const struct attachment *due;

	if (!links->adopted) {
		*ret_job = job_new(links, 0, adopt_run, adopt_done);
		links->adopted = *ret_job != NULL;
	} else if (links->checks > 0) {
		*ret_job = check_job(links);
	} else if (links->scan) {
		*ret_job = job_new(links, 0, scan_run, pb_links_scanned);
		if (*ret_job)
			pb_links_scan_begin(links);
	} else {
		due = first_due(links);
		if (due)
			*ret_job = place_job(links, due->key.ifindex);
		return due != NULL;
	}
	return true;
}

static void settle(struct pb_links *links)
{
	pb_links_done_fn settled = links->settled;
	struct pb_err all = links->first;

	links->settled = NULL;
	if (!settled)
		return;
	if (links->failures > 1)
		pb_err_set(&all, all.code, "%s (and %u more errors)", links->first.text,
			   links->failures - 1);
	settled(links->settled_arg, all.code, all.text);
}

static void on_pool(uv_work_t *work)
{
	struct pb_links_job *job = work->data;

	job->run(job);
}

static void after_pool(uv_work_t *work, int status)
{
	struct pb_links_job *job = work->data;
	struct pb_links *links = job->links;

	(void)status;
	links->job = NULL;
	if (!links->closing)
		job->done(job);
	job_free(job);
	if (links->closing)
		pb_links_finish(links);
	else
		pb_links_pump(links);
}

void pb_links_pump(struct pb_links *links)
{
	struct pb_links_job *job = NULL;

	if (links->job || links->closing)
		return;
	if (!next_job(links, &job)) {
		settle(links);
		return;
	}
	/* Without memory the timer comes back to it. */
	if (!job)
		return;
	links->job = job;
	/* Fails only without a function to run. */
	uv_queue_work(links->env.loop, &job->work, on_pool, after_pool);
}
