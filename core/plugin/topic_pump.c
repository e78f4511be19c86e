/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hands out what subscriptions are owed, in slices of bounded time.
 *
 * Owns the only calls of topic callbacks. Never called from publish(): a callback that publishes
 * adds to a queue, it doesn't recurse.
 */
#include <plugin/topic.h>

static void sub_call(struct pb_topic_sub *sub, struct pb_record *record)
{
	struct pb_call call;

	record->size = sizeof(*record);
	pb_call_enter(sub->gen, PB_STEP_TOPIC, &call);
	sub->fn(&sub->gen->ctx, sub->arg, record);
	pb_call_leave(sub->gen, PB_STEP_TOPIC, &call);
}

static void deliver_item(struct pb_topic_sub *sub, struct pb_topic_item *item)
{
	struct pb_topic_record *before = item->told, *now = item->pending;
	struct pb_record record = {.kind = PB_RECORD_DELETE, .key = item->key};

	pb_topic_item_dequeue(sub, item);
	item->pending = NULL;
	item->told = now;
	if (now) {
		record.kind = PB_RECORD_PUT;
		record.key = now->key;
		record.value = now->value;
		record.len = now->len;
	}
	if (now || before)
		sub_call(sub, &record);
	pb_topic_record_unref(before);
	/* The callback may have caused the same key to be owed again. */
	if (!item->told && !item->queued) {
		HASH_DEL(sub->items, item);
		free(item);
	}
}

static bool sync_due(const struct pb_topic_sub *sub)
{
	return sub->sync_pending && sub->sync_owed == 0;
}

static bool sub_ready(const struct pb_topic_sub *sub)
{
	return !sub->gen->hold_data && (sub->replaying || sub->queue || sub->sync_pending);
}

/* Delivers one thing; false when nothing is left. */
static bool sub_deliver(struct pb_topic_sub *sub)
{
	struct pb_record synced = {.kind = PB_RECORD_SYNCED};

	if (!sub_ready(sub))
		return false;
	pb_topic_replay_next(sub);
	if (sync_due(sub)) {
		sub->sync_pending = false;
		sub_call(sub, &synced);
	} else if (sub->queue) {
		deliver_item(sub, sub->queue);
	}
	return true;
}

/* Turns: no subscription waits for another one's whole backlog. */
static bool pump_round(struct pb_manager *m)
{
	struct pb_topic *t;
	struct pb_topic_sub *sub;
	bool more = false;

	LL_FOREACH (m->topics, t) {
		DL_FOREACH2(t->subs, sub, topic_next)
		more |= sub_deliver(sub);
	}
	return more;
}

static void pump(uv_idle_t *handle)
{
	struct pb_manager *m = handle->data;
	uint64_t end = pb_now_ns() + PB_SLICE_NS;
	struct pb_plugin_entry *p;
	bool more = false;

	LL_FOREACH (m->plugins, p) {
		if (p->live && (p->live->pending || p->live->pending_syncs))
			pb_host_pending_apply(p->live);
	}
	do {
		more = pump_round(m);
	} while (more && pb_now_ns() < end);
	if (!more)
		more = pb_topic_subs_sweep(m, end);
	LL_FOREACH (m->plugins, p)
		more |= p->live && (p->live->pending || p->live->pending_syncs);
	if (!more)
		uv_idle_stop(handle);
}

int pb_topic_pump_open(struct pb_manager *m)
{
	int rc = uv_idle_init(m->env.loop, &m->pump);

	if (rc == 0) {
		m->pump.data = m;
		m->handles++;
	}
	return rc;
}

void pb_topic_pump_wake(struct pb_manager *m)
{
	if (!m->closing)
		uv_idle_start(&m->pump, pump);
}
