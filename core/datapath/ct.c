/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When the clean-up runs, what became of it, and the questions of the commands.
 *
 * Owns the timer and the jobs on the pool. The loop reads one record of counters a second and
 * nothing else of the map. What deletes runs one at a time.
 */
#include <base/log.h>
#include <datapath/ct_private.h>
#include <datapath/internal.h>

#define TICK_MS 1000
#define INTERVAL_START_S 300
/* A map that stays full isn't walked all the time: a run may take a tenth of it. */
#define REST_FACTOR 10
/* That it is full is said this seldom. */
#define SAY_FULL_NS (60 * 1000000000ULL)

struct pb_ct_table {
	uv_loop_t *loop;
	int fd, settings_fd, stats_fd;
	int n_cpus;
	uv_timer_t timer;
	uv_work_t gc_work;
	bool gc_running;
	atomic_bool cancel;
	uv_mutex_t deleting; /* of the pool's threads */
	unsigned jobs;	     /* on the pool, the clean-up too */
	bool timer_closed;
	void (*closed)(void *arg);
	void *closed_arg;

	uint32_t fixed_s; /* gc_interval of the configuration; 0: as the map needs it */
	uint64_t last_end_ns, next_ns;
	uint64_t full_seen; /* drops for want of room that a run has followed */
	uint64_t full_said_ns;
	struct pb_ct_counts counts;
	/* Of the run on the pool. */
	struct pb_ct_gc gc;
	uint64_t run_ns;
	int run_code;
};

uint32_t pb_ct_now(void)
{
	return (uint32_t)(pb_now_ns() / 1000000000);
}

static struct pb_ct_walk walk_of(const struct pb_ct_table *t)
{
	return (struct pb_ct_walk){.fd = t->fd,
				   .max_entries = t->counts.max_entries,
				   .cancel = &t->cancel};
}

static void maybe_closed(struct pb_ct_table *t)
{
	void (*closed)(void *) = t->closed;
	void *arg = t->closed_arg;

	if (!t->timer_closed || t->jobs > 0)
		return;
	uv_mutex_destroy(&t->deleting);
	free(t);
	if (closed)
		closed(arg);
}

/* ---- the clean-up ---- */

static void gc_on_pool(uv_work_t *work)
{
	struct pb_ct_table *t = work->data;
	struct pb_ct_walk walk = walk_of(t);
	uint64_t start = pb_now_ns();

	uv_mutex_lock(&t->deleting);
	t->run_code = pb_ct_gc_run(&walk, pb_ct_now(), &t->gc);
	uv_mutex_unlock(&t->deleting);
	t->run_ns = pb_now_ns() - start;
}

static void note_run(struct pb_ct_table *t)
{
	struct pb_ct_counts *c = &t->counts;

	c->runs++;
	c->deleted += t->gc.deleted;
	c->orphans += t->gc.orphans;
	c->incomplete += t->gc.incomplete;
	c->last_run_ns = t->run_ns;
	c->entries = (uint32_t)t->gc.kept;
	c->interval_s =
		t->fixed_s ? t->fixed_s : pb_ct_gc_interval(c->interval_s, &t->gc, c->max_entries);
}

static void gc_done(uv_work_t *work, int status)
{
	struct pb_ct_table *t = work->data;

	(void)status;
	t->jobs--;
	t->gc_running = false;
	t->last_end_ns = pb_now_ns();
	if (t->run_code == 0)
		note_run(t);
	else if (t->run_code != -ECANCELED)
		pb_error("datapath", "conntrack: what has expired can't be deleted: %s",
			 strerror(-t->run_code));
	t->next_ns = t->last_end_ns + t->counts.interval_s * 1000000000ULL;
	maybe_closed(t);
}

static void gc_start(struct pb_ct_table *t)
{
	t->gc_work.data = t;
	if (uv_queue_work(t->loop, &t->gc_work, gc_on_pool, gc_done) < 0)
		return;
	t->gc_running = true;
	t->jobs++;
	t->full_seen = t->counts.flows.full;
}

static void read_stats(struct pb_ct_table *t)
{
	PB_FREE struct pb_ct_stats *cpus = calloc((size_t)t->n_cpus, sizeof(*cpus));
	struct pb_ct_stats sum = {0};
	const uint32_t zero = 0;

	if (!cpus || bpf_map_lookup_elem(t->stats_fd, &zero, cpus) < 0)
		return;
	for (int i = 0; i < t->n_cpus; i++) {
		sum.created += cpus[i].created;
		sum.full += cpus[i].full;
		sum.no_port += cpus[i].no_port;
		sum.collisions += cpus[i].collisions;
	}
	t->counts.flows = sum;
}

static void say_full(struct pb_ct_table *t, bool full)
{
	const uint64_t now = pb_now_ns();

	if (!full || (t->full_said_ns && now - t->full_said_ns < SAY_FULL_NS))
		return;
	t->full_said_ns = now;
	pb_error("datapath",
		 "conntrack: the map is full (%u entries): new flows are dropped, known "
		 "ones go on; `patchbay ct list` shows them, shorter datapath.conntrack "
		 "timeouts make room",
		 t->counts.max_entries);
}

static void on_tick(uv_timer_t *timer)
{
	struct pb_ct_table *t = timer->data;
	uint64_t now = pb_now_ns();
	bool full;

	read_stats(t);
	if (t->gc_running)
		return;
	full = t->counts.flows.full > t->full_seen;
	say_full(t, full);
	if (now >= t->next_ns || (full && now - t->last_end_ns >= t->run_ns * REST_FACTOR))
		gc_start(t);
}

/* ---- questions ---- */

struct job {
	uv_work_t work;
	struct pb_ct_table *table;
	char *filter, *after;
	bool nat, flush;
	pb_ct_reply_fn reply;
	void *arg;
	cJSON *result;
	struct pb_err err;
};

static cJSON *flush(struct job *job)
{
	struct pb_ct_table *t = job->table;
	struct pb_ct_walk walk = walk_of(t);
	struct pb_ct_filter filter;
	cJSON *result;
	int64_t n;

	if (pb_ct_filter_parse(job->filter, &filter, &job->err) < 0)
		return NULL;
	uv_mutex_lock(&t->deleting);
	n = pb_ct_flush_run(&walk, &filter);
	uv_mutex_unlock(&t->deleting);
	if (n < 0) {
		pb_err_set(&job->err, (int)n, "flows can't be deleted: %s", strerror((int)-n));
		return NULL;
	}
	result = cJSON_CreateObject();
	cJSON_AddNumberToObject(result, "deleted", (double)n);
	/* What a walk that was given up didn't see is still there. */
	if (walk.incomplete)
		cJSON_AddBoolToObject(result, "incomplete", true);
	return result;
}

static void job_on_pool(uv_work_t *work)
{
	struct job *job = work->data;

	if (job->flush)
		job->result = flush(job);
	else
		job->result = pb_ct_page(job->table->fd, job->filter, job->after, job->nat,
					 pb_ct_now(), &job->err);
}

static void job_free(struct job *job)
{
	free(job->filter);
	free(job->after);
	free(job);
}

static void job_done(uv_work_t *work, int status)
{
	struct job *job = work->data;
	struct pb_ct_table *t = job->table;

	(void)status;
	t->jobs--;
	job->reply(job->arg, job->result, &job->err);
	job_free(job);
	maybe_closed(t);
}

static void ask(struct pb_ct_table *t, const struct job *question, const char *filter,
		const char *after)
{
	struct pb_err err = {0};
	struct job *job = malloc(sizeof(*job));

	if (job) {
		*job = *question;
		job->table = t;
		job->work.data = job;
		job->filter = strdup(filter);
		job->after = strdup(after);
		if (job->filter && job->after &&
		    uv_queue_work(t->loop, &job->work, job_on_pool, job_done) == 0) {
			t->jobs++;
			return;
		}
		job_free(job);
	}
	pb_err_set(&err, -ENOMEM, "out of memory");
	question->reply(question->arg, NULL, &err);
}

void pb_ct_list(struct pb_ct_table *table, const char *filter, const char *after, bool nat,
		pb_ct_reply_fn reply, void *arg)
{
	ask(table, &(struct job){.nat = nat, .reply = reply, .arg = arg}, filter, after);
}

void pb_ct_flush(struct pb_ct_table *table, const char *filter, pb_ct_reply_fn reply, void *arg)
{
	ask(table, &(struct job){.flush = true, .reply = reply, .arg = arg}, filter, "");
}

/* ---- reports ---- */

void pb_ct_count(const struct pb_ct_table *table, struct pb_ct_counts *ret_counts)
{
	*ret_counts = table->counts;
}

cJSON *pb_ct_status_json(const struct pb_ct_table *table)
{
	const struct pb_ct_counts *c = &table->counts;
	cJSON *o = cJSON_CreateObject();

	cJSON_AddNumberToObject(o, "entries", c->entries);
	cJSON_AddNumberToObject(o, "max_entries", c->max_entries);
	cJSON_AddNumberToObject(o, "created", (double)c->flows.created);
	cJSON_AddNumberToObject(o, "full", (double)c->flows.full);
	cJSON_AddNumberToObject(o, "no_port", (double)c->flows.no_port);
	cJSON_AddNumberToObject(o, "collisions", (double)c->flows.collisions);
	cJSON_AddNumberToObject(o, "gc_runs", (double)c->runs);
	cJSON_AddNumberToObject(o, "gc_deleted", (double)c->deleted);
	cJSON_AddNumberToObject(o, "gc_orphans", (double)c->orphans);
	cJSON_AddNumberToObject(o, "gc_incomplete", (double)c->incomplete);
	cJSON_AddNumberToObject(o, "gc_last_ms", (double)c->last_run_ns / 1e6);
	cJSON_AddNumberToObject(o, "gc_interval_s", c->interval_s);
	return o;
}

/* ---- life ---- */

int pb_ct_reconfigure(struct pb_ct_table *t, const struct pb_config *config, struct pb_err *err)
{
	const struct pb_ct_settings settings = {
		.tcp_opening = config->datapath.ct_tcp_opening,
		.tcp_established = config->datapath.ct_tcp_established,
		.tcp_closing = config->datapath.ct_tcp_closing,
		.other = config->datapath.ct_other,
	};
	const uint32_t zero = 0;
	int rc = bpf_map_update_elem(t->settings_fd, &zero, &settings, BPF_ANY);

	if (rc < 0)
		return pb_err_set(err, rc, "can't write pb_ct_settings: %s", strerror(-rc));
	if (t->fixed_s == config->datapath.ct_gc_interval && t->counts.interval_s)
		return 0;
	t->fixed_s = config->datapath.ct_gc_interval;
	t->counts.interval_s = t->fixed_s ? t->fixed_s : INTERVAL_START_S;
	t->next_ns = 0;
	return 0;
}

static int open_maps(struct pb_ct_table *t, struct pb_dp *dp, struct pb_err *err)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	int rc;

	t->fd = pb_dp_core_fd(dp, "pb_ct");
	t->settings_fd = pb_dp_core_fd(dp, "pb_ct_settings");
	t->stats_fd = pb_dp_core_fd(dp, "pb_ct_stats");
	t->n_cpus = libbpf_num_possible_cpus();
	if (t->fd < 0 || t->settings_fd < 0 || t->stats_fd < 0 || t->n_cpus < 1)
		return pb_err_set(err, -ENOENT, "the datapath has no conntrack maps");
	rc = bpf_obj_get_info_by_fd(t->fd, &info, &len);
	if (rc < 0)
		return pb_err_set(err, rc, "map pb_ct: can't read its properties: %s",
				  strerror(-rc));
	t->counts.max_entries = info.max_entries;
	return 0;
}

int pb_ct_new(uv_loop_t *loop, const struct pb_config *config, struct pb_dp *dp,
	      struct pb_ct_table **ret_table, struct pb_err *err)
{
	struct pb_ct_table *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return pb_err_set(err, -ENOMEM, "out of memory");
	t->loop = loop;
	rc = open_maps(t, dp, err);
	if (rc == 0)
		rc = pb_ct_reconfigure(t, config, err);
	if (rc < 0) {
		free(t);
		return rc;
	}
	uv_mutex_init(&t->deleting);
	/* Drops of an agent before have been followed by its runs. */
	read_stats(t);
	t->full_seen = t->counts.flows.full;
	uv_timer_init(loop, &t->timer);
	t->timer.data = t;
	uv_timer_start(&t->timer, on_tick, 0, TICK_MS);
	*ret_table = t;
	return 0;
}

static void timer_closed(uv_handle_t *handle)
{
	struct pb_ct_table *t = handle->data;

	t->timer_closed = true;
	maybe_closed(t);
}

void pb_ct_close(struct pb_ct_table *t, void (*closed)(void *arg), void *arg)
{
	t->closed = closed;
	t->closed_arg = arg;
	atomic_store(&t->cancel, true);
	uv_close((uv_handle_t *)&t->timer, timer_closed);
}
