/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One operation from its start to the point where an old generation is touched.
 *
 * Owns the order inspect, stage, prepare, build of docs/design/reload-protocol.md, and unload and
 * reconfigure. Every step that blocks runs on the thread pool. Until pb_op_takeover() a failure
 * costs the old generation nothing, it hasn't even been told.
 */
#include <plugin/op.h>
#include <plugin/topic.h>

/* ---- stage ---- */

static char *source_path(struct pb_op *op)
{
	const struct pb_config_plugin *c = pb_config_plugin_find(op->m->config, op->name);

	if (op->path)
		return strdup(op->path);
	if (c && c->path)
		return strdup(c->path);
	return pb_sprintf("%s/%s.so", op->m->config->agent.plugin_dir, op->name);
}

static const char *config_json(struct pb_op *op)
{
	const struct pb_config_plugin *c = pb_config_plugin_find(op->m->config, op->name);

	if (op->config)
		return op->config;
	return c && c->json ? c->json : "{}";
}

/* True when `path` names another file than the one with `hash`, and one that may be run. */
static bool usable_instead(struct pb_op *op, const char *path, uint64_t hash)
{
	uint64_t other = 0;

	return path && pb_stage_hash(path, &other, NULL) == 0 && other != hash &&
	       pb_crash_count(op->m->crashes, op->name, other) < op->m->config->agent.max_crashes;
}

/*
 * [pool] A file that brought the agent down isn't run again while a good copy exists, and not
 * more than max_crashes times at all.
 */
static int choose_file(struct pb_op *op, struct pb_err *err)
{
	struct pb_generation *gen = op->gen;
	PB_FREE char *good = NULL;
	const struct pb_crash_record *r;
	uint64_t hash = 0;
	int rc;

	if (op->explicit)
		return 0;
	rc = pb_stage_hash(gen->source, &hash, err);
	r = rc < 0 ? NULL : pb_crash_find(op->m->crashes, op->name, hash);
	if (!r)
		return rc;
	good = pb_stage_good(op->m, op->name);
	if (usable_instead(op, good, hash)) {
		pb_buf_printf(&op->note,
			      "%s brought the agent down %u time%s (%s): the last good copy runs "
			      "instead",
			      gen->source, r->count, r->count == 1 ? "" : "s", r->text);
		free(gen->source);
		gen->source = PB_TAKE_PTR(good);
		return 0;
	}
	if (r->count < op->m->config->agent.max_crashes)
		return 0;
	op->left_out = true;
	return pb_err_set(err, -ECANCELED,
			  "%s: left out: it brought the agent down %u times (%s); install another "
			  "version, or try this one again with `patchbay plugin load %s`",
			  gen->source, r->count, r->text, op->name);
}

static int stage(struct pb_op *op, struct pb_err *err)
{
	int rc = choose_file(op, err);

	return rc < 0 ? rc : pb_stage(op->gen, err);
}

/* ---- prepare ---- */

static int check_required(struct pb_op *op)
{
	char list[sizeof(op->gen->manifest.requires)], *save = NULL;

	memcpy(list, op->gen->manifest.requires, sizeof(list));
	for (char *w = strtok_r(list, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		struct pb_plugin_entry *p = pb_plugin_find(op->m, w);

		if (p && p->live)
			continue;
		op->retry_later = true;
		return pb_err_set(&op->err, -ENOENT,
				  "requires plugin %s, which is not loaded: add it to `plugins` in "
				  "the configuration, or load it first",
				  w);
	}
	return 0;
}

static int check_schema(struct pb_op *op)
{
	const struct pb_manifest *old = op->old ? &op->old->manifest : NULL;
	const struct pb_manifest *new = &op->gen->manifest;

	if (!old || !old->state_schema || !new->state_schema)
		return 0;
	if (old->state_schema >= new->state_schema_min && old->state_schema <= new->state_schema)
		return 0;
	return pb_err_set(&op->err, -EPROTO,
			  "version %s accepts saved state of versions %u to %u, but the running "
			  "version %s writes version %u: unload it first, which loses its state",
			  new->version, new->state_schema_min, new->state_schema, old->version,
			  old->state_schema);
}

static int prepare(struct pb_op *op)
{
	struct pb_generation *gen = op->gen;
	struct pb_call call;
	int rc;

	op->plugin->next_gen = gen;
	gen->state = PB_GEN_PREPARING;
	pb_call_enter(gen, PB_STEP_PREPARE, &call);
	rc = gen->code->prepare(&gen->ctx);
	pb_call_leave(gen, PB_STEP_PREPARE, &call);
	gen->prepared = rc >= 0;
	gen->state = PB_GEN_PREPARED;
	pb_gen_keep_consts(gen, true);
	return pb_call_result(gen, "prepare()", rc, &op->err);
}

static void after_build(struct pb_op *op, int rc)
{
	if (rc < 0)
		pb_op_fail(op, rc);
	else
		pb_op_takeover(op);
}

static void after_stage(struct pb_op *op, int rc)
{
	if (rc == 0)
		rc = check_required(op);
	if (rc == 0)
		rc = check_schema(op);
	if (rc == 0)
		rc = prepare(op);
	if (rc == 0)
		rc = pb_op_plan(op, op->old, op->gen);
	if (rc < 0)
		pb_op_fail(op, rc);
	else if (op->gen->objects || op->gen->maps || op->hooks)
		pb_op_pool(op, pb_op_build, after_build);
	else
		pb_op_takeover(op);
}

/* ---- load and reload ---- */

static int check_lingering(struct pb_op *op)
{
	PB_BUF_FREE struct pb_buf names = {0};
	struct pb_generation *gen;

	if (op->m->n_lingering < PB_LINGER_MAX)
		return 0;
	LL_FOREACH2(op->m->lingering, gen, next_lingering)
	pb_buf_printf(&names, "%s%s generation %u", names.len ? ", " : "", gen->plugin->name,
		      gen->number);
	return pb_err_set(&op->err, -EBUSY,
			  "%u old generations still run work functions (%s): wait until they end, "
			  "or restart the agent, which leaves the datapath running",
			  op->m->n_lingering, names.data);
}

static int check_may_load(struct pb_op *op)
{
	if (op->kind == PB_OP_LOAD && op->old)
		return pb_err_set(&op->err, -EEXIST,
				  "is loaded already (generation %u): use reload", op->old->number);
	if (op->kind == PB_OP_RELOAD && !op->old)
		return pb_err_set(&op->err, -ENOENT, "is not loaded: use load");
	return check_lingering(op);
}

static void start_load(struct pb_op *op)
{
	int rc = check_may_load(op);

	if (rc == 0) {
		op->gen = pb_gen_new(op->m, op->plugin, config_json(op));
		if (op->gen)
			op->gen->source = source_path(op);
		if (!op->gen || !op->gen->source)
			rc = pb_err_set(&op->err, -ENOMEM, "out of memory");
	}
	if (rc < 0)
		pb_op_fail(op, rc);
	else
		pb_op_pool(op, stage, after_stage);
}

/* ---- unload ---- */

static bool requires(const struct pb_generation *gen, const char *name)
{
	char list[sizeof(gen->manifest.requires)], *save = NULL;

	memcpy(list, gen->manifest.requires, sizeof(list));
	for (char *w = strtok_r(list, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		if (strcmp(w, name) == 0)
			return true;
	}
	return false;
}

static int check_may_unload(struct pb_op *op)
{
	PB_BUF_FREE struct pb_buf names = {0};
	struct pb_plugin_entry *p;

	if (!op->old)
		return pb_err_set(&op->err, -ENOENT, "is not loaded");
	LL_FOREACH (op->m->plugins, p) {
		if (p->live && requires(p->live, op->name))
			pb_buf_printf(&names, "%s%s", names.len ? ", " : "", p->name);
	}
	if (!names.len)
		return check_lingering(op);
	op->retry_later = true;
	return pb_err_set(&op->err, -EBUSY, "can't be unloaded: required by %s", names.data);
}

static void unload_finish(struct pb_op *op, int rc)
{
	struct pb_manager *m = op->m;

	/* The chains have changed; that old ones couldn't be freed is a report, not a failure. */
	if (rc < 0)
		pb_warn("plugin", "%s: old chains: %s", op->name, op->err.text);
	op->plugin->live = NULL;
	op->plugin->failed = false;
	op->plugin->left_out = false;
	pb_topic_forget(m, op->plugin);
	pb_host_commands_commit(op->plugin, m);
	pb_host_events_observe(m);
	pb_info("plugin", "%s %s unloaded, generation %u", op->name, op->old->manifest.version,
		op->old->number);
	pb_gen_retire(PB_TAKE_PTR(op->old));
	pb_host_kept_free(op->plugin);
	pb_op_finish(op, 0);
}

static void unload_flipped(struct pb_op *op, int rc)
{
	if (rc < 0)
		pb_op_fail(op, rc);
	else
		pb_op_pool(op, pb_op_retire, unload_finish);
}

static void unload_built(struct pb_op *op, int rc)
{
	if (rc < 0) {
		pb_op_fail(op, rc);
		return;
	}
	op->held = true;
	op->old->state = PB_GEN_QUIESCED;
	pb_gen_hold(op->old);
	if (op->build && !op->m->first_apply)
		pb_op_pool(op, pb_op_flip, unload_flipped);
	else
		unload_finish(op, 0);
}

static void start_unload(struct pb_op *op)
{
	int rc = check_may_unload(op);

	if (rc == 0)
		rc = pb_op_plan(op, op->old, NULL);
	if (rc < 0)
		pb_op_fail(op, rc);
	else if (op->hooks)
		pb_op_pool(op, pb_op_build, unload_built);
	else
		unload_built(op, 0);
}

/* ---- reconfigure ---- */

static struct pb_host_config *config_new(const char *json)
{
	struct pb_host_config *c = calloc(1, sizeof(*c));

	if (c)
		c->json = strdup(json);
	return c && c->json ? c : pb_host_config_free(c);
}

static int call_reconfigure(struct pb_op *op, const char *json, struct pb_err *err)
{
	struct pb_generation *gen = op->old;
	struct pb_call call;
	int rc;

	if (!PB_CODE_HAS(gen->code, reconfigure))
		return -ENOTSUP;
	gen->fail.text[0] = '\0';
	gen->reconfiguring = true;
	pb_call_enter(gen, PB_STEP_RECONFIGURE, &call);
	rc = gen->code->reconfigure(&gen->ctx, json);
	pb_call_leave(gen, PB_STEP_RECONFIGURE, &call);
	gen->reconfiguring = false;
	return pb_call_result(gen, "reconfigure()", rc, err);
}

/* The plugin follows the new configuration already, its programs can't: it has to go back. */
static void reconfigure_undo(struct pb_op *op, int rc)
{
	struct pb_generation *gen = op->old;
	struct pb_err err = {0};

	pb_gen_keep_consts(gen, false);
	if (call_reconfigure(op, gen->configs->json, &err) < 0)
		pb_error("plugin", "%s generation %u: can't go back to its old configuration: %s",
			 op->name, gen->number, err.text);
	pb_gen_keep_consts(gen, false);
	pb_op_fail(op, rc);
}

static void reconfigured(struct pb_op *op, int rc)
{
	if (rc < 0)
		pb_warn("plugin", "%s: old chains: %s", op->name, op->err.text);
	pb_gen_keep_consts(op->old, true);
	LL_PREPEND(op->old->configs, op->new_config);
	op->new_config = NULL;
	op->plugin->last_error[0] = '\0';
	pb_info("plugin", "%s reconfigured, generation %u", op->name, op->old->number);
	pb_op_finish(op, 0);
}

static void reconfigure_flipped(struct pb_op *op, int rc)
{
	if (rc < 0)
		reconfigure_undo(op, rc);
	else
		pb_op_pool(op, pb_op_retire, reconfigured);
}

static void reconfigure_built(struct pb_op *op, int rc)
{
	if (rc < 0)
		reconfigure_undo(op, rc);
	else
		pb_op_pool(op, pb_op_flip, reconfigure_flipped);
}

static void reconfigure_apply(struct pb_op *op)
{
	struct pb_generation *gen = op->old;
	int rc = 0;

	if (gen->consts_dirty && !op->m->first_apply) {
		rc = pb_op_plan(op, NULL, NULL);
		op->hooks = pb_gen_hooks(gen);
	}
	if (rc < 0)
		reconfigure_undo(op, rc);
	else if (op->hooks)
		pb_op_pool(op, pb_op_build, reconfigure_built);
	else
		reconfigured(op, 0);
}

static void start_reconfigure(struct pb_op *op)
{
	int rc = 0;

	if (!op->old)
		rc = pb_err_set(&op->err, -ENOENT, "is not loaded");
	else if (!(op->new_config = config_new(config_json(op))))
		rc = pb_err_set(&op->err, -ENOMEM, "out of memory");
	if (rc < 0) {
		pb_op_fail(op, rc);
		return;
	}
	rc = call_reconfigure(op, op->new_config->json, &op->err);
	if (rc == 0) {
		reconfigure_apply(op);
		return;
	}
	pb_gen_keep_consts(op->old, false);
	if (rc == -ENOTSUP) {
		op->kind = PB_OP_RELOAD;
		start_load(op);
	} else {
		pb_op_fail(op, rc);
	}
}

/* ---- the joint flip of the first apply ---- */

static void joined(struct pb_op *op, int rc)
{
	pb_op_finish(op, rc);
}

static void join_flipped(struct pb_op *op, int rc)
{
	if (rc < 0)
		pb_op_finish(op, rc);
	else
		pb_op_pool(op, pb_op_retire, joined);
}

static void join_built(struct pb_op *op, int rc)
{
	if (rc < 0)
		pb_op_finish(op, rc);
	else
		pb_op_pool(op, pb_op_flip, join_flipped);
}

static void start_join(struct pb_op *op)
{
	int rc = pb_op_plan(op, NULL, NULL);

	/* Also hooks that no plugin uses now: an adopted chain may hold programs of an old one. */
	op->hooks = (1U << PB_HOOK_COUNT) - 1;
	if (rc < 0)
		pb_op_finish(op, rc);
	else
		pb_op_pool(op, pb_op_build, join_built);
}

void pb_op_start(struct pb_op *op)
{
	if (op->kind == PB_OP_JOIN) {
		start_join(op);
		return;
	}
	op->plugin = pb_plugin_get(op->m, op->name);
	if (!op->plugin) {
		pb_op_finish(op, pb_err_set(&op->err, -ENOMEM, "%s: out of memory", op->name));
		return;
	}
	op->old = op->plugin->live;
	if (op->kind == PB_OP_UNLOAD)
		start_unload(op);
	else if (op->kind == PB_OP_RECONFIGURE)
		start_reconfigure(op);
	else
		start_load(op);
}
