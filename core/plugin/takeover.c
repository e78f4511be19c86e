/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From quiesce to start: one generation takes over from another, or everything goes back.
 *
 * Owns the point of no return, which is the flip. Before it pb_op_fail() leaves the old
 * generation serving as if nothing had happened; behind it nothing fails any more, it is only
 * reported.
 */
#include <plugin/op.h>
#include <plugin/topic.h>

#include <time.h>

static uint64_t wall_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- the way back ---- */

static void resume_old(struct pb_op *op)
{
	struct pb_generation *old = op->old;
	struct pb_call call;

	if (!op->held)
		return;
	old->state = PB_GEN_LIVE;
	if (op->quiesced && PB_CODE_HAS(old->code, resume)) {
		pb_call_enter(old, PB_STEP_RESUME, &call);
		old->code->resume(&old->ctx);
		pb_call_leave(old, PB_STEP_RESUME, &call);
	}
	pb_gen_release(old);
}

/* The datapath names the plugin itself, for it knows whose program of a chain it was. */
static void name_plugin(struct pb_op *op)
{
	if (strncmp(op->err.text, "plugin ", 7) != 0)
		pb_err_prefix(&op->err, "plugin %s", op->name);
}

void pb_op_fail(struct pb_op *op, int rc)
{
	struct pb_plugin_entry *p = op->plugin;

	name_plugin(op);
	op->build = pb_dp_build_free(op->build);
	if (op->gen) {
		p->next_gen = NULL;
		pb_gen_retire(PB_TAKE_PTR(op->gen));
	}
	resume_old(op);
	pb_host_commands_commit(p, op->m);
	pb_host_commands_run(op->m);
	/* Who loads by hand has been told; nobody waits for what no configuration names. */
	p->failed = !p->live && op->kind == PB_OP_LOAD &&
		    pb_config_plugin_find(op->m->config, op->name);
	p->left_out = op->left_out;
	p->since_ms = p->live ? p->since_ms : wall_ms();
	snprintf(p->last_error, sizeof(p->last_error), "%s", op->err.text);
	if (!op->retry_later)
		pb_error("plugin", "%s%s", op->err.text,
			 p->live ? "; the running generation goes on serving" : "");
	pb_op_finish(op, rc);
}

/* ---- commit ---- */

static void remember_good(struct pb_op *op)
{
	struct pb_generation *gen = op->gen;
	PB_FREE char *good = pb_stage_good(op->m, op->name);

	op->plugin->marked_good = false;
	if (!good)
		op->plugin->marked_good = pb_stage_mark_good(op->m, op->name, gen->staged) == 0;
	else if (!uv_is_active((uv_handle_t *)&op->m->good_timer))
		pb_manager_good_later(op->m);
}

/* After the flip: a generation whose start() fails is live and stays so. */
static void call_start(struct pb_op *op)
{
	struct pb_generation *gen = op->gen;
	struct pb_err err = {0};
	struct pb_call call;
	int rc;

	if (!PB_CODE_HAS(gen->code, start))
		return;
	gen->fail.text[0] = '\0';
	pb_call_enter(gen, PB_STEP_START, &call);
	rc = gen->code->start(&gen->ctx);
	pb_call_leave(gen, PB_STEP_START, &call);
	if (pb_call_result(gen, "start()", rc, &err) == 0)
		return;
	pb_error("plugin", "plugin %s: %s; generation %u stays loaded", op->name, err.text,
		 gen->number);
	pb_buf_printf(&op->note, "%splugin %s: %s", op->note.len ? "; " : "", op->name, err.text);
}

static void finish_load(struct pb_op *op, int rc)
{
	if (rc < 0)
		pb_warn("plugin", "%s: old chains: %s", op->name, op->err.text);
	if (op->old)
		pb_gen_retire(PB_TAKE_PTR(op->old));
	op->gen = NULL;
	pb_op_finish(op, 0);
}

static void note_commit(struct pb_op *op)
{
	struct pb_plugin_entry *p = op->plugin;
	struct pb_generation *gen = op->gen;

	p->failed = false;
	p->left_out = false;
	p->since_ms = wall_ms();
	p->flip_ns = op->build && !op->m->first_apply ? pb_dp_flip_ns(op->m->env.dp) : 0;
	snprintf(p->last_error, sizeof(p->last_error), "%s", op->note.len ? op->note.data : "");
	pb_info("plugin", "%s %s %s, generation %u%s%s", p->name, gen->manifest.version,
		op->old ? "reloaded" : "loaded", gen->number, op->note.len ? "; " : "",
		op->note.len ? op->note.data : "");
}

static void commit(struct pb_op *op)
{
	struct pb_plugin_entry *p = op->plugin;
	struct pb_generation *gen = op->gen;

	p->live = gen;
	p->next_gen = NULL;
	gen->state = PB_GEN_LIVE;
	pb_host_pending_apply(gen);
	call_start(op);
	gen->live_ns = pb_now_ns();
	p->swap_ns = gen->live_ns - op->quiesce_ns;
	pb_gen_release(gen);
	pb_host_commands_commit(p, op->m);
	pb_host_commands_run(op->m);
	pb_host_events_observe(op->m);
	remember_good(op);
	note_commit(op);
	if (op->build && !op->m->first_apply)
		pb_op_pool(op, pb_op_retire, finish_load);
	else
		finish_load(op, 0);
}

static void after_flip(struct pb_op *op, int rc)
{
	if (rc < 0)
		pb_op_fail(op, rc);
	else
		commit(op);
}

/* ---- replay ---- */

static void replay_closed(uv_handle_t *handle)
{
	struct pb_op *op = handle->data;

	op->m->handles--;
	if (op->rc < 0)
		pb_op_fail(op, op->rc);
	else if (op->build && !op->m->first_apply)
		pb_op_pool(op, pb_op_flip, after_flip);
	else
		commit(op);
}

/* Idle handles run once a round of the loop, between the slices of topics and the store. */
static void replay_poll(uv_idle_t *handle)
{
	struct pb_op *op = handle->data;

	if (pb_gen_replayed(op->gen)) {
		op->rc = 0;
	} else if (pb_now_ns() - op->replay_ns > PB_REPLAY_MAX_NS) {
		op->rc = pb_err_set(&op->err, -ETIMEDOUT,
				    "the replay of topics and Kubernetes objects wasn't finished "
				    "after %llu s",
				    (unsigned long long)(PB_REPLAY_MAX_NS / 1000000000));
	} else {
		return;
	}
	uv_close((uv_handle_t *)handle, replay_closed);
}

static void start_replay(struct pb_op *op)
{
	int rc;

	op->gen->state = PB_GEN_TAKEOVER;
	rc = pb_gen_watch(op->gen, &op->err);
	if (rc < 0) {
		pb_op_fail(op, rc);
		return;
	}
	op->replay_ns = pb_now_ns();
	uv_idle_init(op->m->env.loop, &op->replay);
	op->m->handles++;
	op->replay.data = op;
	uv_idle_start(&op->replay, replay_poll);
}

/* ---- quiesce, save, restore ---- */

static int quiesce(struct pb_op *op)
{
	struct pb_generation *old = op->old;
	struct pb_call call;
	int rc = 0;

	old->fail.text[0] = '\0';
	if (PB_CODE_HAS(old->code, quiesce)) {
		pb_call_enter(old, PB_STEP_QUIESCE, &call);
		rc = old->code->quiesce(&old->ctx);
		pb_call_leave(old, PB_STEP_QUIESCE, &call);
	}
	if (rc < 0)
		return pb_call_result(old, "quiesce()", rc, &op->err);
	op->quiesced = true;
	op->held = true;
	old->state = PB_GEN_QUIESCED;
	pb_gen_hold(old);
	return 0;
}

static bool has_state(const struct pb_op *op)
{
	return op->old->manifest.state_schema && op->gen->manifest.state_schema &&
	       PB_CODE_HAS(op->old->code, save) && PB_CODE_HAS(op->gen->code, restore);
}

static int save(struct pb_op *op)
{
	struct pb_call call;
	int rc;

	pb_call_enter(op->old, PB_STEP_SAVE, &call);
	rc = op->old->code->save(&op->old->ctx, &op->state);
	pb_call_leave(op->old, PB_STEP_SAVE, &call);
	return pb_call_result(op->old, "save()", rc, &op->err);
}

static int restore(struct pb_op *op)
{
	struct pb_state state = {.size = sizeof(state),
				 .schema = op->old->manifest.state_schema,
				 .data = op->state.data,
				 .len = op->state.len};
	struct pb_call call;
	int rc;

	op->gen->state = PB_GEN_TAKEOVER;
	op->gen->fail.text[0] = '\0';
	pb_call_enter(op->gen, PB_STEP_RESTORE, &call);
	rc = op->gen->code->restore(&op->gen->ctx, &state);
	pb_call_leave(op->gen, PB_STEP_RESTORE, &call);
	return pb_call_result(op->gen, "restore()", rc, &op->err);
}

void pb_op_takeover(struct pb_op *op)
{
	int rc = 0;

	op->quiesce_ns = pb_now_ns();
	op->gen->collect = true;
	if (op->old)
		rc = quiesce(op);
	if (rc == 0 && op->old && has_state(op)) {
		rc = save(op);
		if (rc == 0)
			rc = restore(op);
	}
	if (rc < 0)
		pb_op_fail(op, rc);
	else
		start_replay(op);
}
