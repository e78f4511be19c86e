/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One generation of a plugin: made, held, released, retired, taken back.
 *
 * Owns the rule that nothing of a generation is unmapped while any of its code may still be
 * called: stop() waits for its work, unmapping for stop().
 */
#include <plugin/topic.h>

struct pb_host_config *pb_host_config_free(struct pb_host_config *config)
{
	if (config)
		free(config->json);
	free(config);
	return NULL;
}

struct pb_generation *pb_gen_new(struct pb_manager *m, struct pb_plugin_entry *plugin,
				 const char *config)
{
	struct pb_generation *gen = calloc(1, sizeof(*gen));
	struct pb_host_config *c = calloc(1, sizeof(*c));

	if (c)
		c->json = strdup(config);
	if (!gen || !c || !c->json) {
		free(gen);
		free(c);
		return NULL;
	}
	gen->ctx.host = &pb_host_table;
	gen->manager = m;
	gen->plugin = plugin;
	gen->number = ++plugin->generations;
	gen->configs = c;
	gen->hold_data = true;
	gen->hold_events = true;
	return gen;
}

/* ---- callbacks ---- */

void pb_call_enter(struct pb_generation *gen, enum pb_crash_step step, struct pb_call *call)
{
	call->start_ns = pb_now_ns();
	pb_crash_enter(gen->culprit, step, call->start_ns, true, &call->saved);
}

void pb_call_leave(struct pb_generation *gen, enum pb_crash_step step, struct pb_call *call)
{
	uint64_t took = pb_now_ns() - call->start_ns;

	pb_crash_leave(&call->saved);
	if (took <= PB_SLOW_NS)
		return;
	gen->slow_calls++;
	gen->plugin->slow_calls++;
	pb_warn("plugin", "%s generation %u: %s took %llu ms; the agent waits while it runs",
		gen->plugin->name, gen->number, pb_crash_step_name(step),
		(unsigned long long)(took / 1000000));
}

int pb_call_result(struct pb_generation *gen, const char *step, int rc, struct pb_err *err)
{
	if (rc >= 0)
		return 0;
	if (gen->fail.text[0])
		return pb_err_set(err, rc, "%s: %s", step, gen->fail.text);
	return pb_err_set(err, rc, "%s: returned %d (%s) and gave no reason with host->fail()",
			  step, rc, strerror(-rc));
}

/* ---- holding back and letting go ---- */

void pb_gen_hold(struct pb_generation *gen)
{
	struct pb_host_kube *k;

	gen->hold_data = true;
	gen->hold_events = true;
	gen->collect = true;
	LL_FOREACH (gen->kube, k) {
		if (k->watch)
			pb_kube_hold(k->watch);
	}
	pb_host_loop_hold(gen);
}

void pb_gen_release(struct pb_generation *gen)
{
	bool data_was_held = gen->hold_data;
	struct pb_host_kube *k;

	gen->hold_data = false;
	gen->hold_events = false;
	gen->collect = false;
	if (data_was_held) {
		LL_FOREACH (gen->kube, k) {
			if (k->watch)
				pb_kube_resume(k->watch);
		}
	}
	pb_topic_pump_wake(gen->manager);
	pb_host_loop_release(gen);
	pb_host_events_release(gen);
}

int pb_gen_watch(struct pb_generation *gen, struct pb_err *err)
{
	int rc;

	gen->hold_data = false;
	rc = pb_topic_activate(gen, err);
	return rc < 0 ? rc : pb_host_kube_start(gen, err);
}

bool pb_gen_replayed(const struct pb_generation *gen)
{
	const struct pb_host_kube *k;

	if (!pb_topic_replayed(gen))
		return false;
	LL_FOREACH (gen->kube, k) {
		if (!pb_kube_replayed(k->watch))
			return false;
	}
	return true;
}

/* ---- the end ---- */

static void call_stop(struct pb_generation *gen)
{
	struct pb_call call;

	if (gen->prepared && PB_CODE_HAS(gen->code, stop)) {
		pb_call_enter(gen, PB_STEP_STOP, &call);
		gen->code->stop(&gen->ctx);
		pb_call_leave(gen, PB_STEP_STOP, &call);
		pb_host_loop_leaks(gen);
	}
	gen->state = PB_GEN_STOPPED;
	if (!gen->leak[0])
		return;
	snprintf(gen->plugin->leak, sizeof(gen->plugin->leak), "%s", gen->leak);
	pb_warn("plugin", "%s: %s; taken back", gen->plugin->name, gen->leak);
}

void pb_gen_free(struct pb_generation *gen)
{
	struct pb_host_config *c, *tmp;

	if (!gen)
		return;
	pb_host_loop_free(gen);
	pb_host_kube_free(gen);
	pb_host_cidr_free(gen);
	pb_topic_subs_free(gen);
	pb_host_pending_free(gen);
	pb_host_events_free(gen);
	pb_host_commands_free(gen);
	pb_host_bpf_free(gen);
	pb_stage_drop(gen);
	LL_FOREACH_SAFE(gen->configs, c, tmp)
	pb_host_config_free(c);
	free(gen->source);
	free(gen->staged);
	free(gen);
}

void pb_gen_retire(struct pb_generation *gen)
{
	struct pb_manager *m = gen->manager;

	gen->state = PB_GEN_RETIRING;
	gen->hold_data = true;
	gen->hold_events = true;
	pb_host_loop_hold(gen);
	pb_host_work_cancel(gen);
	if (gen->works_running == 0) {
		call_stop(gen);
		pb_gen_free(gen);
		return;
	}
	LL_PREPEND2(m->lingering, gen, next_lingering);
	m->n_lingering++;
	pb_info("plugin", "%s generation %u stays mapped until %u work function%s ended",
		gen->plugin->name, gen->number, gen->works_running,
		gen->works_running == 1 ? " has" : "s have");
}

void pb_gen_linger_check(struct pb_generation *gen)
{
	struct pb_manager *m = gen->manager;

	if (gen->works_running)
		return;
	LL_DELETE2(m->lingering, gen, next_lingering);
	m->n_lingering--;
	call_stop(gen);
	pb_info("plugin", "%s generation %u has ended its work and is unloaded", gen->plugin->name,
		gen->number);
	pb_gen_free(gen);
}
