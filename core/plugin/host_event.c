/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ring events for plugins.
 *
 * Owns the numbers of event types and who hears of which. During a swap the events that arrive
 * are kept, a bounded number of them, for both the old and the new generation; whichever goes
 * on serving gets them.
 */
#include <plugin/private.h>

#define FIRST_TYPE 256

static bool type_taken(struct pb_manager *m, uint16_t type)
{
	struct pb_event_name *n;

	LL_FOREACH (m->event_names, n) {
		if (n->type == type)
			return true;
	}
	return false;
}

/*
 * From the name's hash, so that programs which a restarted agent adopted and the plugin that
 * is loaded again agree.
 */
static uint16_t type_pick(struct pb_manager *m, const char *name)
{
	uint32_t span = UINT16_MAX + 1 - FIRST_TYPE;
	uint32_t at = (uint32_t)(pb_hash64(name, strlen(name), 0) % span);

	while (type_taken(m, (uint16_t)(FIRST_TYPE + at)))
		at = (at + 1) % span;
	return (uint16_t)(FIRST_TYPE + at);
}

static struct pb_event_name *name_get(struct pb_manager *m, const char *plugin, const char *name)
{
	PB_FREE char *full = pb_sprintf("%s/%s", plugin, name);
	struct pb_event_name *n;

	if (!full)
		return NULL;
	LL_FOREACH (m->event_names, n) {
		if (strcmp(n->name, full) == 0)
			return n;
	}
	n = calloc(1, sizeof(*n));
	if (!n)
		return NULL;
	n->type = type_pick(m, full);
	n->name = PB_TAKE_PTR(full);
	LL_APPEND(m->event_names, n);
	return n;
}

int pb_host_event_type(struct pb_ctx *ctx, const char *name, uint16_t *ret_type)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_event_name *n;

	if (gen->state != PB_GEN_PREPARING)
		return pb_host_wrong_step(gen, "event_type()", "in prepare() only");
	n = name && *name ? name_get(gen->manager, gen->plugin->name, name) : NULL;
	if (!n)
		return pb_err_set(&gen->fail, -EINVAL, "event_type(): a name must be given");
	*ret_type = n->type;
	return 0;
}

int pb_host_event_subscribe(struct pb_ctx *ctx, uint16_t type, pb_event_fn fn, void *arg)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_host_event_sub *sub;

	if (gen->state < PB_GEN_PREPARING || gen->state > PB_GEN_LIVE || !fn)
		return pb_host_wrong_step(gen, "event_subscribe()", "before quiesce()");
	sub = calloc(1, sizeof(*sub));
	if (!sub)
		return pb_err_set(&gen->fail, -ENOMEM, "event_subscribe(): out of memory");
	*sub = (struct pb_host_event_sub){.gen = gen, .type = type, .fn = fn, .arg = arg};
	LL_APPEND(gen->event_subs, sub);
	pb_host_events_observe(gen->manager);
	return 0;
}

static bool gen_wants_drops(const struct pb_generation *gen)
{
	const struct pb_host_event_sub *sub;

	LL_FOREACH (gen->event_subs, sub) {
		if (sub->type == PB_EVENT_DROP)
			return true;
	}
	return false;
}

/* Sending drop events costs; the exit programs do it only while somebody listens. */
void pb_host_events_observe(struct pb_manager *m)
{
	struct pb_plugin_entry *p;
	bool wanted = false;

	LL_FOREACH (m->plugins, p)
		wanted |= p->live && gen_wants_drops(p->live);
	if (wanted == m->drops_observed)
		return;
	if (pb_dp_observe_drops(m->env.dp, wanted) == 0)
		m->drops_observed = wanted;
}

static void deliver(struct pb_generation *gen, const struct pb_event *event)
{
	struct pb_host_event_sub *sub;
	struct pb_call call;

	LL_FOREACH (gen->event_subs, sub) {
		if (sub->type != event->type)
			continue;
		pb_call_enter(gen, PB_STEP_EVENT, &call);
		sub->fn(&gen->ctx, sub->arg, event);
		pb_call_leave(gen, PB_STEP_EVENT, &call);
	}
}

static bool wants(const struct pb_generation *gen, uint16_t type)
{
	const struct pb_host_event_sub *sub;

	LL_FOREACH (gen->event_subs, sub) {
		if (sub->type == type)
			return true;
	}
	return false;
}

static void keep(struct pb_generation *gen, const struct pb_event *event)
{
	struct pb_held_event *h;

	if (!wants(gen, event->type))
		return;
	h = gen->n_held < PB_HELD_MAX ? malloc(sizeof(*h) + event->len) : NULL;
	if (!h) {
		gen->n_held_lost++;
		return;
	}
	memcpy(h->event, event, event->len);
	DL_APPEND(gen->held_events, h);
	gen->n_held++;
}

static void hand(struct pb_generation *gen, const struct pb_event *event)
{
	if (!gen->hold_events)
		deliver(gen, event);
	else if (gen->collect)
		keep(gen, event);
}

void pb_host_event(void *manager, const struct pb_event *event)
{
	struct pb_manager *m = manager;
	struct pb_plugin_entry *p;

	LL_FOREACH (m->plugins, p) {
		if (p->live)
			hand(p->live, event);
		if (p->next_gen)
			hand(p->next_gen, event);
	}
}

void pb_host_events_drop_held(struct pb_generation *gen)
{
	struct pb_held_event *h, *tmp;

	DL_FOREACH_SAFE(gen->held_events, h, tmp)
	{
		DL_DELETE(gen->held_events, h);
		free(h);
	}
	gen->n_held = 0;
}

void pb_host_events_release(struct pb_generation *gen)
{
	struct pb_held_event *h;

	while ((h = gen->held_events)) {
		DL_DELETE(gen->held_events, h);
		gen->n_held--;
		deliver(gen, (const struct pb_event *)h->event);
		free(h);
	}
	if (gen->n_held_lost)
		pb_warn("plugin", "%s generation %u: %u ring events were lost during the swap",
			gen->plugin->name, gen->number, gen->n_held_lost);
	gen->n_held_lost = 0;
}

void pb_host_events_free(struct pb_generation *gen)
{
	struct pb_host_event_sub *sub, *tmp;

	pb_host_events_drop_held(gen);
	LL_FOREACH_SAFE(gen->event_subs, sub, tmp)
	free(sub);
	gen->event_subs = NULL;
}
