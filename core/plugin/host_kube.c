/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host->kube_watch(): wraps the store's watches so that events reach only a generation that may
 * have them, with marker and clock around every callback.
 */
#include <plugin/private.h>

static void on_kube(void *arg, const struct pb_kube_event *event)
{
	struct pb_host_kube *k = arg;
	struct pb_call call;

	pb_call_enter(k->gen, PB_STEP_KUBE, &call);
	k->fn(&k->gen->ctx, k->arg, event);
	pb_call_leave(k->gen, PB_STEP_KUBE, &call);
}

int pb_host_kube_watch(struct pb_ctx *ctx, uint32_t kind, pb_kube_fn fn, void *arg)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_host_kube *k;

	if (gen->state != PB_GEN_PREPARING)
		return pb_host_wrong_step(gen, "kube_watch()", "in prepare() only");
	if (kind < PB_KUBE_SERVICE || kind > PB_KUBE_NAMESPACE || !fn)
		return pb_err_set(&gen->fail, -EINVAL, "kube_watch(): no such kind: %u", kind);
	k = calloc(1, sizeof(*k));
	if (!k)
		return pb_err_set(&gen->fail, -ENOMEM, "kube_watch(): out of memory");
	*k = (struct pb_host_kube){.gen = gen, .kind = kind, .fn = fn, .arg = arg};
	LL_APPEND(gen->kube, k);
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
