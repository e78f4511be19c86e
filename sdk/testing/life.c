/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of a plugin in the fake host: the steps of a load and of a reload, and the queue of what
 * waits to be delivered.
 *
 * Owns the order of the steps. A generation is freed only after its stop(), and never while a
 * task or a grave still refers to it.
 */
#include <ctype.h>

#include "fake.h"

/* ---- tasks ----------------------------------------------------------------------------- */

struct fake_task *fake_task_add(struct fake_gen *gen, enum fake_task_kind kind)
{
	struct fake_task *task = calloc(1, sizeof(*task));

	if (!task)
		return NULL;
	task->gen = gen;
	task->kind = kind;
	DL_APPEND(gen->fake->tasks, task);
	return task;
}

void fake_bury(struct pb_fake *fake, void *memory)
{
	struct fake_grave *grave;

	if (!memory)
		return;
	grave = malloc(sizeof(*grave));
	/* Without memory a leak is the lesser evil: somebody may still look at it. */
	if (!grave)
		return;
	grave->memory = memory;
	LL_PREPEND(fake->graves, grave);
}

static void graves_free(struct pb_fake *fake)
{
	struct fake_grave *grave, *next;

	LL_FOREACH_SAFE(fake->graves, grave, next)
	{
		free(grave->memory);
		free(grave);
	}
	fake->graves = NULL;
}

static void task_run(const struct fake_task *task)
{
	struct pb_ctx *ctx = &task->gen->ctx;

	switch (task->kind) {
	case FAKE_TASK_RECORD:
		task->sub->fn(ctx, task->sub->arg, &task->record);
		break;
	case FAKE_TASK_KUBE:
		task->watch->fn(ctx, task->watch->arg, &task->event);
		break;
	case FAKE_TASK_WORK:
		task->done(ctx, task->arg, task->work(task->arg));
		break;
	}
}

static struct fake_task *task_runnable(struct pb_fake *fake)
{
	struct fake_task *task;

	DL_FOREACH (fake->tasks, task)
		if (task->gen->phase == FAKE_RUNNING)
			return task;
	return NULL;
}

void fake_drain(struct pb_fake *fake)
{
	struct fake_task *task;

	while ((task = task_runnable(fake))) {
		DL_DELETE(fake->tasks, task);
		task_run(task);
		free(task);
	}
	if (!fake->tasks)
		graves_free(fake);
}

/* Work that was begun is finished before stop(); everything else is forgotten. */
static void tasks_purge(struct fake_gen *gen)
{
	struct fake_task *task, *next;

	DL_FOREACH_SAFE(gen->fake->tasks, task, next)
	{
		if (task->gen != gen)
			continue;
		DL_DELETE(gen->fake->tasks, task);
		if (task->kind == FAKE_TASK_WORK)
			task_run(task);
		free(task);
	}
}

/* ---- generations ----------------------------------------------------------------------- */

/* As the agent does: it takes them back, and says so. */
static void note_leaks(struct fake_gen *gen)
{
	const struct fake_timer *timer;
	const struct fake_fd *fd;
	unsigned timers = 0, fds = 0;

	LL_FOREACH (gen->timers, timer)
		timers++;
	LL_FOREACH (gen->fds, fd)
		fds++;
	if (timers || fds)
		pb_buf_printf(&gen->fake->log,
			      "warn: generation %u left %u timers and %u watched fds behind after "
			      "stop()\n",
			      gen->number, timers, fds);
}

static void gen_stop(struct fake_gen *gen)
{
	tasks_purge(gen);
	gen->stopping = true;
	if (gen->plugin->stop)
		gen->plugin->stop(&gen->ctx);
	note_leaks(gen);
	/* What stop() itself queued has nobody to go to. */
	tasks_purge(gen);
	fake_cidrs_release(gen);
	fake_gen_free(gen);
}

static bool name_ok(const char *name)
{
	size_t len = strnlen(name, PB_NAME_MAX);

	for (size_t i = 0; i < len; i++)
		if (!islower((unsigned char)name[i]) && !isdigit((unsigned char)name[i]) &&
		    name[i] != '-')
			return false;
	return len > 0 && len < PB_NAME_MAX;
}

static bool manifest_ok(const struct pb_manifest *m, const struct pb_plugin *plugin)
{
	return memcmp(m->magic, PB_MANIFEST_MAGIC, sizeof(m->magic)) == 0 &&
	       m->size == sizeof(*m) && m->abi_major == PB_ABI_MAJOR &&
	       m->abi_minor <= PB_ABI_MINOR && name_ok(m->name) && plugin->size && plugin->prepare;
}

struct pb_fake *pb_fake_new(const struct pb_manifest *manifest, const struct pb_plugin *plugin,
			    const char *config, const char *node)
{
	struct pb_fake *fake;

	if (!manifest_ok(manifest, plugin))
		return NULL;
	fake = calloc(1, sizeof(*fake));
	if (!fake)
		return NULL;
	fake->manifest = manifest;
	fake->plugin = plugin;
	fake->config = strdup(config ? config : "{}");
	fake->node = strdup(node);
	if (!fake->config || !fake->node || pb_buf_append(&fake->log, "", 0) < 0) {
		pb_fake_free(fake);
		return NULL;
	}
	return fake;
}

static void named_free(struct pb_fake *fake)
{
	struct fake_map_def *def, *def_next;
	struct fake_metric *metric, *metric_next;
	struct fake_event_type *type, *type_next;
	struct fake_fault *fault, *fault_next;

	LL_FOREACH_SAFE(fake->defs, def, def_next)
	{
		free(def->name);
		free(def);
	}
	LL_FOREACH_SAFE(fake->metrics, metric, metric_next)
	{
		free(metric->name);
		free(metric);
	}
	LL_FOREACH_SAFE(fake->event_types, type, type_next)
	{
		free(type->name);
		free(type);
	}
	LL_FOREACH_SAFE(fake->faults, fault, fault_next)
	{
		free(fault->function);
		free(fault);
	}
}

void pb_fake_free(struct pb_fake *fake)
{
	struct fake_kube_object *object, *object_next;
	struct fake_map *map, *map_next;

	if (!fake)
		return;
	if (fake->next)
		gen_stop(fake->next);
	if (fake->retired)
		gen_stop(fake->retired);
	if (fake->current)
		gen_stop(fake->current);
	graves_free(fake);
	fake_kept_free(fake);
	fake_topics_free(fake);
	LL_FOREACH_SAFE(fake->maps, map, map_next)
	fake_map_free(map);
	for (size_t kind = 0; kind < FAKE_KINDS; kind++) {
		DL_FOREACH_SAFE(fake->kube[kind], object, object_next)
		free(object);
		free(fake->kube_version[kind]);
	}
	named_free(fake);
	pb_buf_free(&fake->state);
	pb_buf_free(&fake->log);
	free(fake->config);
	free(fake->node);
	free(fake);
}

int pb_fake_config(struct pb_fake *fake, const char *config)
{
	char *copy = strdup(config);

	if (!copy)
		return -ENOMEM;
	free(fake->config);
	fake->config = copy;
	return 0;
}

/* ---- single steps ---------------------------------------------------------------------- */

static int gen_new(struct pb_fake *fake, struct fake_gen **ret_gen)
{
	struct fake_gen *gen = calloc(1, sizeof(*gen));

	if (!gen)
		return -ENOMEM;
	gen->ctx.host = &fake_host;
	gen->fake = fake;
	gen->manifest = fake->manifest;
	gen->plugin = fake->plugin;
	gen->number = ++fake->generations;
	gen->config = strdup(fake->config);
	if (!gen->config) {
		free(gen);
		return -ENOMEM;
	}
	*ret_gen = gen;
	return 0;
}

int pb_fake_prepare(struct pb_fake *fake)
{
	struct fake_gen *gen = NULL;
	int err;

	if (fake->next || fake->retired)
		return -EBUSY;
	err = gen_new(fake, &gen);
	if (err < 0)
		return err;
	err = gen->plugin->prepare(&gen->ctx);
	gen->phase = FAKE_PREPARED;
	if (err < 0) {
		/* A prepare() that failed gets no stop(): it has cleaned up after itself. */
		fake_cidrs_release(gen);
		fake_gen_free(gen);
		return err;
	}
	err = fake_maps_resolve(gen);
	if (err == 0)
		err = fake_topics_check(gen);
	if (err < 0) {
		gen_stop(gen);
		return err;
	}
	fake->next = gen;
	return 0;
}

int pb_fake_quiesce(struct pb_fake *fake)
{
	struct fake_gen *gen = fake->current;
	int err;

	if (!gen || gen->phase != FAKE_RUNNING)
		return -ENOENT;
	err = gen->plugin->quiesce ? gen->plugin->quiesce(&gen->ctx) : 0;
	if (err == 0)
		gen->phase = FAKE_QUIESCED;
	fake_drain(fake);
	return err;
}

int pb_fake_save(struct pb_fake *fake)
{
	struct fake_gen *gen = fake->current;
	int err;

	if (!gen)
		return -ENOENT;
	pb_buf_reset(&fake->state);
	fake->have_state = false;
	if (!gen->manifest->state_schema || !gen->plugin->save)
		return 0;
	err = gen->plugin->save(&gen->ctx, &fake->state);
	fake->have_state = err == 0;
	fake->state_schema = gen->manifest->state_schema;
	return err;
}

int pb_fake_restore(struct pb_fake *fake)
{
	struct fake_gen *gen = fake->next;
	struct pb_state state = {
		.size = sizeof(state),
		.schema = fake->state_schema,
		.data = fake->state.data,
		.len = fake->state.len,
	};

	if (!gen)
		return -ENOENT;
	if (!fake->have_state || !gen->manifest->state_schema || !gen->plugin->restore)
		return 0;
	if (state.schema < gen->manifest->state_schema_min ||
	    state.schema > gen->manifest->state_schema)
		return gen->ctx.host->fail(
			&gen->ctx, -EPROTO,
			"saved state has schema %u, this plugin accepts %u to %u", state.schema,
			gen->manifest->state_schema_min, gen->manifest->state_schema);
	return gen->plugin->restore(&gen->ctx, &state);
}

int pb_fake_start(struct pb_fake *fake)
{
	struct fake_gen *gen = fake->next;
	int err;

	if (!gen)
		return -ENOENT;
	if (fake->current)
		fake->current->phase = FAKE_QUIESCED;
	gen->phase = FAKE_RUNNING;
	err = fake_topics_replay(gen);
	if (err == 0)
		err = fake_kube_replay(gen);
	fake_drain(fake);
	fake->retired = fake->current;
	fake->current = gen;
	fake->next = NULL;
	gen->started = true;
	if (err == 0 && gen->plugin->start)
		err = gen->plugin->start(&gen->ctx);
	fake_drain(fake);
	return err;
}

int pb_fake_stop(struct pb_fake *fake)
{
	if (fake->retired) {
		gen_stop(fake->retired);
		fake->retired = NULL;
	} else if (fake->current) {
		gen_stop(fake->current);
		fake->current = NULL;
		fake_kept_free(fake);
		fake_topics_withdraw_older(fake, NULL, UINT32_MAX);
	} else {
		return -ENOENT;
	}
	fake_drain(fake);
	return 0;
}

int pb_fake_resume(struct pb_fake *fake)
{
	struct fake_gen *gen = fake->current;

	if (fake->next)
		gen_stop(fake->next);
	fake->next = NULL;
	if (gen && gen->phase == FAKE_QUIESCED) {
		gen->phase = FAKE_RUNNING;
		if (gen->plugin->resume)
			gen->plugin->resume(&gen->ctx);
	}
	fake_drain(fake);
	return 0;
}

int pb_fake_reconfigure(struct pb_fake *fake, const char *config)
{
	struct fake_gen *gen = fake->current;
	int err;

	if (!gen)
		return -ENOENT;
	if (!gen->plugin->reconfigure)
		return -ENOTSUP;
	err = gen->plugin->reconfigure(&gen->ctx, config);
	if (err == 0)
		err = pb_fake_config(fake, config);
	fake_drain(fake);
	return err;
}

/* ---- whole operations ------------------------------------------------------------------ */

int pb_fake_load(struct pb_fake *fake)
{
	int err;

	if (fake->current)
		return -EEXIST;
	err = pb_fake_prepare(fake);
	return err < 0 ? err : pb_fake_start(fake);
}

int pb_fake_reload(struct pb_fake *fake)
{
	int err;

	if (!fake->current)
		return pb_fake_load(fake);
	err = pb_fake_prepare(fake);
	if (err == 0)
		err = pb_fake_quiesce(fake);
	if (err == 0)
		err = pb_fake_save(fake);
	if (err == 0)
		err = pb_fake_restore(fake);
	if (err < 0) {
		pb_fake_resume(fake);
		return err;
	}
	err = pb_fake_start(fake);
	pb_fake_stop(fake);
	return err;
}

int pb_fake_reload_as(struct pb_fake *fake, const struct pb_manifest *manifest,
		      const struct pb_plugin *plugin)
{
	const struct pb_manifest *old_manifest = fake->manifest;
	const struct pb_plugin *old_plugin = fake->plugin;
	uint32_t current = fake->current ? fake->current->number : 0;
	int err;

	if (!manifest_ok(manifest, plugin))
		return -EINVAL;
	fake->manifest = manifest;
	fake->plugin = plugin;
	err = pb_fake_reload(fake);
	if (fake->current && fake->current->number == current) {
		fake->manifest = old_manifest;
		fake->plugin = old_plugin;
	}
	return err;
}

int pb_fake_unload(struct pb_fake *fake)
{
	return pb_fake_stop(fake);
}

void *pb_fake_self(const struct pb_fake *fake)
{
	return fake->current ? fake->current->ctx.self : NULL;
}

const void *pb_fake_state(const struct pb_fake *fake, size_t *ret_len)
{
	if (ret_len)
		*ret_len = fake->have_state ? fake->state.len : 0;
	return fake->have_state ? fake->state.data : NULL;
}

int pb_fake_state_set(struct pb_fake *fake, uint32_t schema, const void *data, size_t len)
{
	pb_buf_reset(&fake->state);
	fake->state_schema = schema;
	fake->have_state = true;
	return pb_buf_append(&fake->state, data, len);
}
