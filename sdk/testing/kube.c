/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kubernetes objects of the fake host.
 *
 * Owns what the test said there is, and who is told of it. A delivery is always a task, never a
 * call from inside another callback. Objects belong to the test.
 */
#include "fake.h"

/* ---- telling --------------------------------------------------------------------------- */

static int kube_send(struct fake_watch *watch, uint32_t event, const struct pb_kube_meta *object,
		     const struct pb_kube_meta *old)
{
	struct fake_task *task = fake_task_add(watch->gen, FAKE_TASK_KUBE);

	if (!task)
		return -ENOMEM;
	task->watch = watch;
	task->event = (struct pb_kube_event){.size = sizeof(task->event),
					     .kind = event,
					     .object_kind = watch->kind,
					     .object = object,
					     .old = old,
					     .api_version = ""};
	if (event == PB_KUBE_SYNCED && watch->gen->fake->kube_version[watch->kind])
		task->event.api_version = watch->gen->fake->kube_version[watch->kind];
	return 0;
}

static void kube_send_all(struct pb_fake *fake, uint32_t kind, uint32_t event,
			  const struct pb_kube_meta *object, const struct pb_kube_meta *old)
{
	struct fake_gen *gens[] = {fake->retired, fake->current, fake->next};
	struct fake_watch *watch;

	for (size_t i = 0; i < PB_ARRAY_LEN(gens); i++) {
		if (!fake_gen_listens(gens[i]))
			continue;
		LL_FOREACH (gens[i]->watches, watch)
			if (watch->kind == kind)
				kube_send(watch, event, object, old);
	}
}

static int replay_kube(struct fake_watch *watch)
{
	struct pb_fake *fake = watch->gen->fake;
	struct fake_kube_object *o;
	int err;

	DL_FOREACH (fake->kube[watch->kind], o) {
		err = kube_send(watch, PB_KUBE_PUT, o->object, NULL);
		if (err < 0)
			return err;
	}
	if (fake->kube_state[watch->kind])
		return kube_send(watch, fake->kube_state[watch->kind], NULL, NULL);
	return 0;
}

int fake_kube_replay(struct fake_gen *gen)
{
	struct fake_watch *watch;
	int err;

	LL_FOREACH (gen->watches, watch) {
		err = replay_kube(watch);
		if (err < 0)
			return err;
	}
	return 0;
}

/* ---- what a plugin calls --------------------------------------------------------------- */

static int watch_new(struct fake_gen *gen, uint32_t kind, pb_kube_fn fn, void *arg,
		     struct fake_watch **ret_watch)
{
	struct fake_watch *watch;

	if (kind == 0 || kind >= FAKE_KINDS || !fn)
		return -EINVAL;
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		return -ENOMEM;
	*watch = (struct fake_watch){.gen = gen, .kind = kind, .fn = fn, .arg = arg};
	LL_APPEND(gen->watches, watch);
	*ret_watch = watch;
	return 0;
}

int fake_host_kube_watch(struct pb_ctx *ctx, uint32_t kind, pb_kube_fn fn, void *arg)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "kube_watch");
	struct fake_watch *watch = NULL;

	if (err == 0)
		err = fake_prepare_only(gen, "kube_watch");
	return err < 0 ? err : watch_new(gen, kind, fn, arg, &watch);
}

int fake_host_kube_watch_open(struct pb_ctx *ctx, uint32_t kind, pb_kube_fn fn, void *arg,
			      uint32_t *ret_id)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "kube_watch_open");
	struct fake_watch *watch = NULL;

	if (err < 0)
		return err;
	if (gen->phase != FAKE_RUNNING || !gen->started)
		return ctx->host->fail(ctx, -EPERM,
				       "kube_watch_open: only allowed from start() to quiesce()");
	err = watch_new(gen, kind, fn, arg, &watch);
	if (err < 0)
		return err;
	*ret_id = watch->id = ++gen->watch_ids;
	return replay_kube(watch);
}

static void tasks_forget(struct pb_fake *fake, const struct fake_watch *watch)
{
	struct fake_task *task, *next;

	DL_FOREACH_SAFE(fake->tasks, task, next)
	{
		if (task->kind != FAKE_TASK_KUBE || task->watch != watch)
			continue;
		DL_DELETE(fake->tasks, task);
		free(task);
	}
}

int fake_host_kube_watch_close(struct pb_ctx *ctx, uint32_t id)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	struct fake_watch *watch;

	LL_FOREACH (gen->watches, watch)
		if (id && watch->id == id)
			break;
	if (!watch)
		return -ENOENT;
	tasks_forget(gen->fake, watch);
	LL_DELETE(gen->watches, watch);
	free(watch);
	return 0;
}

/* ---- what a test calls ----------------------------------------------------------------- */

static struct fake_kube_object *kube_find(const struct pb_fake *fake,
					  const struct pb_kube_meta *meta)
{
	struct fake_kube_object *o;

	DL_FOREACH (fake->kube[meta->kind], o)
		if (strcmp(o->object->name, meta->name) == 0 &&
		    strcmp(o->object->ns, meta->ns) == 0)
			return o;
	return NULL;
}

int pb_fake_kube(struct pb_fake *fake, uint32_t event, const struct pb_kube_meta *object)
{
	const struct pb_kube_meta *old = NULL;
	struct fake_kube_object *o;

	if (object->kind == 0 || object->kind >= FAKE_KINDS)
		return -EINVAL;
	o = kube_find(fake, object);
	if (event == PB_KUBE_DELETE) {
		if (!o)
			return -ENOENT;
		kube_send_all(fake, object->kind, event, o->object, NULL);
		DL_DELETE(fake->kube[object->kind], o);
		free(o);
	} else if (event == PB_KUBE_PUT) {
		if (!o) {
			o = calloc(1, sizeof(*o));
			if (!o)
				return -ENOMEM;
			DL_APPEND(fake->kube[object->kind], o);
		}
		old = o->object;
		o->object = object;
		kube_send_all(fake, object->kind, event, object, old);
	} else {
		return -EINVAL;
	}
	fake_drain(fake);
	return 0;
}

static int kube_state(struct pb_fake *fake, uint32_t kind, uint32_t state)
{
	if (kind == 0 || kind >= FAKE_KINDS)
		return -EINVAL;
	fake->kube_state[kind] = state;
	kube_send_all(fake, kind, state, NULL, NULL);
	fake_drain(fake);
	return 0;
}

int pb_fake_kube_synced(struct pb_fake *fake, uint32_t kind)
{
	return kube_state(fake, kind, PB_KUBE_SYNCED);
}

int pb_fake_kube_absent(struct pb_fake *fake, uint32_t kind)
{
	return kube_state(fake, kind, PB_KUBE_ABSENT);
}

int pb_fake_kube_version(struct pb_fake *fake, uint32_t kind, const char *api_version)
{
	char *copy;

	if (kind == 0 || kind >= FAKE_KINDS)
		return -EINVAL;
	copy = strdup(api_version);
	if (!copy)
		return -ENOMEM;
	fake_bury(fake, fake->kube_version[kind]);
	fake->kube_version[kind] = copy;
	return 0;
}

bool pb_fake_kube_watched(const struct pb_fake *fake, uint32_t kind)
{
	struct fake_watch *watch;

	if (fake->current)
		LL_FOREACH (fake->current->watches, watch)
			if (watch->kind == kind)
				return true;
	return false;
}
