/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin manager's own life: made at start, closed at stop.
 *
 * Owns the table of plugins by name. The end never touches the datapath: chains keep running
 * with the programs they have.
 */
#include <plugin/op.h>
#include <plugin/topic.h>
#include <plugin/report.h>

/* ---- plugins by name ---- */

struct pb_plugin_entry *pb_plugin_find(struct pb_manager *m, const char *name)
{
	struct pb_plugin_entry *p;

	LL_FOREACH (m->plugins, p) {
		if (strcmp(p->name, name) == 0)
			return p;
	}
	return NULL;
}

struct pb_plugin_entry *pb_plugin_get(struct pb_manager *m, const char *name)
{
	struct pb_plugin_entry *p = pb_plugin_find(m, name);

	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (p)
		p->name = strdup(name);
	if (!p || !p->name) {
		free(p);
		return NULL;
	}
	LL_APPEND(m->plugins, p);
	return p;
}

const struct pb_config_plugin *pb_config_plugin_find(const struct pb_config *config,
						     const char *name)
{
	for (size_t i = 0; i < config->n_plugins; i++) {
		if (strcmp(config->plugins[i].name, name) == 0)
			return &config->plugins[i];
	}
	return NULL;
}

/* ---- the last good copy ---- */

static bool mark_if_old_enough(struct pb_manager *m, struct pb_plugin_entry *p)
{
	if (!p->live || p->marked_good)
		return true;
	if (pb_now_ns() - p->live->live_ns < PB_GOOD_AFTER_NS)
		return false;
	p->marked_good = true;
	if (pb_stage_mark_good(m, p->name, p->live->staged) < 0)
		pb_warn("plugin", "%s generation %u can't be kept as the last good copy: %s",
			p->name, p->live->number, strerror(errno));
	return true;
}

static void on_good_timer(uv_timer_t *timer)
{
	struct pb_manager *m = timer->data;
	struct pb_plugin_entry *p;
	bool all = true;

	LL_FOREACH (m->plugins, p)
		all &= mark_if_old_enough(m, p);
	if (!all)
		pb_manager_good_later(m);
}

void pb_manager_good_later(struct pb_manager *m)
{
	if (!m->closing)
		uv_timer_start(&m->good_timer, on_good_timer, PB_GOOD_AFTER_NS / 1000000, 0);
}

/* ---- start ---- */

static void report_crashes(struct pb_manager *m)
{
	const struct pb_crash_record *r;

	LL_FOREACH (m->crashes, r) {
		if (r->fresh)
			pb_error("plugin",
				 "%s brought the previous agent process down: %s; crash %u of %u, "
				 "the datapath went on running%s",
				 r->plugin, r->text, r->count, m->config->agent.max_crashes,
				 pb_config_plugin_find(m->config, r->plugin)
					 ? ""
					 : "; it isn't in the configuration, so it isn't loaded "
					   "again");
	}
}

static int open_handles(struct pb_manager *m, struct pb_err *err)
{
	int rc = pb_topic_pump_open(m);

	if (rc == 0)
		rc = uv_timer_init(m->env.loop, &m->good_timer);
	if (rc < 0)
		return pb_err_set(err, rc, "plugin manager: %s", strerror(-rc));
	m->good_timer.data = m;
	m->handles++;
	/* Doesn't keep an agent alive that has nothing else to do. */
	uv_unref((uv_handle_t *)&m->good_timer);
	return 0;
}

static void manager_free(struct pb_manager *m)
{
	struct pb_plugin_entry *p, *tmp;
	struct pb_event_name *n, *ntmp;

	pb_host_commands_close(m);
	pb_topics_free(m);
	pb_core_topics_free(m);
	LL_FOREACH_SAFE(m->plugins, p, tmp)
	{
		pb_host_kept_free(p);
		free(p->name);
		free(p->path);
		free(p);
	}
	LL_FOREACH_SAFE(m->event_names, n, ntmp)
	{
		free(n->name);
		free(n);
	}
	pb_host_metrics_free(m);
	pb_crash_records_free(m->crashes);
	free(m->stage_dir);
	free(m->node_name);
	free(m);
}

int pb_manager_new(const struct pb_manager_env *env, struct pb_manager **ret_manager,
		   struct pb_err *err)
{
	struct pb_manager *m = calloc(1, sizeof(*m));
	int rc = 0;

	if (m)
		m->node_name = strdup(env->config->node.name ? env->config->node.name : "");
	if (!m || !m->node_name) {
		free(m);
		return pb_err_set(err, -ENOMEM, "out of memory");
	}
	/* Has an effect before the pool's first use only. */
	setenv("UV_THREADPOOL_SIZE", PB_POOL_THREADS, 0);
	m->env = *env;
	m->config = env->config;
	m->first_apply = true;
	rc = pb_crash_records_read(m->config->agent.run_dir, &m->crashes, err);
	if (rc == 0)
		rc = pb_stage_open(m, err);
	if (rc == 0)
		rc = pb_crash_watch(m->config->agent.callback_deadline_ms, err);
	if (rc == 0)
		rc = open_handles(m, err);
	if (rc < 0) {
		manager_free(m);
		return rc;
	}
	report_crashes(m);
	pb_report_commands_add(m);
	pb_dp_events(env->dp, pb_host_event, m);
	*ret_manager = m;
	return 0;
}

/* ---- stop ---- */

/* Operations that never began; the one that runs is waited for. */
static void cancel_ops(struct pb_manager *m)
{
	struct pb_op *op;

	while ((op = m->op_running && m->ops ? m->ops->next : m->ops))
		pb_op_cancel(op);
}

static void stop_all(struct pb_manager *m)
{
	struct pb_plugin_entry *p;

	m->closing = true;
	LL_FOREACH (m->plugins, p) {
		if (!p->live)
			continue;
		pb_gen_hold(p->live);
		pb_gen_retire(PB_TAKE_PTR(p->live));
	}
	uv_close((uv_handle_t *)&m->pump, pb_manager_handle_closed);
	uv_close((uv_handle_t *)&m->good_timer, pb_manager_handle_closed);
}

void pb_manager_handle_closed(uv_handle_t *handle)
{
	struct pb_manager *m = handle->data;

	m->handles--;
	pb_manager_check_closed(m);
}

void pb_manager_check_closed(struct pb_manager *m)
{
	pb_manager_done_fn closed;
	void *arg;

	if (!m->close_wanted || m->op_running || m->applying)
		return;
	if (!m->closing) {
		stop_all(m);
		return;
	}
	if (m->handles || m->lingering)
		return;
	closed = m->closed;
	arg = m->closed_arg;
	pb_crash_unwatch();
	manager_free(m);
	if (closed)
		closed(arg, 0, "");
}

void pb_manager_close(struct pb_manager *m, pb_manager_done_fn done, void *arg)
{
	m->closed = done;
	m->closed_arg = arg;
	m->close_wanted = true;
	pb_dp_events(m->env.dp, NULL, NULL);
	pb_report_commands_remove(m);
	cancel_ops(m);
	pb_manager_check_closed(m);
}
