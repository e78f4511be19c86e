/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host->kube_watch() and kube_watch_open(): wraps the store's watches so that events reach only a
 * generation that may have them, with marker and clock around every callback. A watch may be
 * closed inside its callback, so nothing of it is touched after that.
 */
#include <plugin/private.h>

static void on_kube(void *arg, const struct pb_kube_event *event)
{
	struct pb_host_kube *k = arg;
	struct pb_generation *gen = k->gen;
	struct pb_call call;

	pb_call_enter(gen, PB_STEP_KUBE, &call);
	k->fn(&gen->ctx, k->arg, event);
	pb_call_leave(gen, PB_STEP_KUBE, &call);
}

static int watch_new(struct pb_generation *gen, const char *function, uint32_t kind, pb_kube_fn fn,
		     void *arg, struct pb_host_kube **ret_watch)
{
	struct pb_host_kube *k;

	if (kind < PB_KUBE_SERVICE || kind > PB_KUBE_NAMESPACE || !fn)
		return pb_err_set(&gen->fail, -EINVAL, "%s: no such kind: %u", function, kind);
	k = calloc(1, sizeof(*k));
	if (!k)
		return pb_err_set(&gen->fail, -ENOMEM, "%s: out of memory", function);
	*k = (struct pb_host_kube){.gen = gen, .kind = kind, .fn = fn, .arg = arg};
	*ret_watch = k;
	return 0;
}

int pb_host_kube_watch(struct pb_ctx *ctx, uint32_t kind, pb_kube_fn fn, void *arg)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_host_kube *k = NULL;
	int rc;

	if (gen->state != PB_GEN_PREPARING)
		return pb_host_wrong_step(gen, "kube_watch()", "in prepare() only");
	rc = watch_new(gen, "kube_watch()", kind, fn, arg, &k);
	if (rc == 0)
		LL_APPEND(gen->kube, k);
	return rc;
}

int pb_host_kube_open(struct pb_ctx *ctx, uint32_t kind, pb_kube_fn fn, void *arg, uint32_t *ret_id)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_host_kube *k = NULL;
	int rc;

	if (gen->state != PB_GEN_LIVE)
		return pb_host_wrong_step(gen, "kube_watch_open()", "from start() to quiesce()");
	rc = watch_new(gen, "kube_watch_open()", kind, fn, arg, &k);
	if (rc < 0)
		return rc;
	rc = pb_kube_watch(gen->manager->env.kube, kind, on_kube, k, &k->watch);
	if (rc < 0) {
		free(k);
		return pb_err_set(&gen->fail, rc, "kube_watch_open(): kind %u: %s", kind,
				  strerror(-rc));
	}
	k->id = ++gen->next_kube;
	*ret_id = k->id;
	LL_APPEND(gen->kube, k);
	return 0;
}

int pb_host_kube_close(struct pb_ctx *ctx, uint32_t id)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_host_kube *k;

	LL_FOREACH (gen->kube, k) {
		if (id && k->id == id)
			break;
	}
	if (!k)
		return pb_err_set(&gen->fail, -ENOENT, "kube_watch_close(): no watch %u", id);
	pb_kube_unwatch(k->watch);
	LL_DELETE(gen->kube, k);
	free(k);
	return 0;
}

int pb_host_kube_start(struct pb_generation *gen, struct pb_err *err)
{
	struct pb_host_kube *k;

	LL_FOREACH (gen->kube, k) {
		int rc = pb_kube_watch(gen->manager->env.kube, k->kind, on_kube, k, &k->watch);

		if (rc < 0)
			return pb_err_set(err, rc, "kube_watch(): kind %u: %s", k->kind,
					  strerror(-rc));
	}
	return 0;
}

void pb_host_kube_free(struct pb_generation *gen)
{
	struct pb_host_kube *k, *tmp;

	LL_FOREACH_SAFE(gen->kube, k, tmp)
	{
		if (k->watch)
			pb_kube_unwatch(k->watch);
		free(k);
	}
	gen->kube = NULL;
}
