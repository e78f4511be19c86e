/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of topics: who may publish what, which are retained, who is owed what. Calls no plugin.
 */
#include <plugin/topic.h>

static struct pb_topic *topic_find(struct pb_manager *m, const char *name)
{
	struct pb_topic *t;

	LL_FOREACH (m->topics, t) {
		if (strcmp(t->name, name) == 0)
			return t;
	}
	return NULL;
}

static struct pb_topic *topic_get(struct pb_manager *m, const char *name)
{
	struct pb_topic *t = topic_find(m, name);

	if (t)
		return t;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->name = strdup(name);
	if (!t->name) {
		free(t);
		return NULL;
	}
	LL_APPEND(m->topics, t);
	return t;
}

void pb_topic_record_unref(struct pb_topic_record *r)
{
	if (!r || --r->refs)
		return;
	free(r->value);
	free(r);
}

static struct pb_topic_publisher *publisher_find(struct pb_topic *t, struct pb_plugin_entry *plugin)
{
	struct pb_topic_publisher *p;

	LL_FOREACH (t->publishers, p) {
		if (p->plugin == plugin)
			return p;
	}
	return NULL;
}

static struct pb_topic_publisher *publisher_get(struct pb_topic *t, struct pb_plugin_entry *plugin)
{
	struct pb_topic_publisher *p = publisher_find(t, plugin);

	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (p) {
		p->plugin = plugin;
		LL_PREPEND(t->publishers, p);
	}
	return p;
}

/* ---- what subscriptions are owed ---- */

static struct pb_topic_item *item_get(struct pb_topic_sub *sub, const char *key, size_t len)
{
	struct pb_topic_item *item;

	HASH_FIND(hh, sub->items, key, len, item);
	if (item)
		return item;
	item = calloc(1, sizeof(*item) + len + 1);
	if (!item)
		return NULL;
	memcpy(item->key, key, len);
	HASH_ADD_KEYPTR(hh, sub->items, item->key, len, item);
	return item;
}

/*
 * To the end, also if it waits already: whoever acts on a later record has heard all earlier ones.
 * The epoch stays, for it says what SYNCED has to wait for.
 */
static void item_queue(struct pb_topic_sub *sub, struct pb_topic_item *item)
{
	if (item->queued) {
		DL_DELETE(sub->queue, item);
	} else {
		item->queued = true;
		item->epoch = sub->epoch;
		sub->n_queued++;
	}
	DL_APPEND(sub->queue, item);
}

static int sub_owe(struct pb_topic_sub *sub, const char *key, struct pb_topic_record *r)
{
	struct pb_topic_item *item = item_get(sub, key, strlen(key));

	if (!item)
		return -ENOMEM;
	pb_topic_record_unref(item->pending);
	item->pending = r;
	if (r)
		r->refs++;
	item_queue(sub, item);
	return 0;
}

void pb_topic_item_dequeue(struct pb_topic_sub *sub, struct pb_topic_item *item)
{
	DL_DELETE(sub->queue, item);
	item->queued = false;
	sub->n_queued--;
	if (item->epoch != sub->epoch)
		sub->sync_owed--;
}

/* A replay comes by what is published now, last; what waits is out of date. */
static void item_leave_to_replay(struct pb_topic_sub *sub, struct pb_topic_item *item)
{
	if (!item || !item->queued)
		return;
	pb_topic_item_dequeue(sub, item);
	pb_topic_record_unref(item->pending);
	item->pending = NULL;
	if (!item->told) {
		HASH_DEL(sub->items, item);
		free(item);
	}
}

static int sub_tell(struct pb_topic_sub *sub, const char *key, struct pb_topic_record *r)
{
	struct pb_topic_item *item;

	if (r && !sub->replay)
		return sub_owe(sub, key, r);
	HASH_FIND_STR(sub->items, key, item);
	if (r)
		item_leave_to_replay(sub, item);
	/* Who has not heard of a record need not hear that it is gone. */
	return r || !item ? 0 : sub_owe(sub, key, NULL);
}

static void topic_tell(struct pb_manager *m, struct pb_topic *t, const char *key,
		       struct pb_topic_record *r)
{
	struct pb_topic_sub *sub;

	DL_FOREACH2(t->subs, sub, topic_next)
	{
		if (sub_tell(sub, key, r) < 0)
			pb_error("plugin", "topic %s: out of memory: %s misses a change of %s",
				 t->name, sub->gen->plugin->name, key);
	}
	pb_topic_pump_wake(m);
}

static bool topic_is_synced(const struct pb_topic *t)
{
	const struct pb_topic_publisher *p;

	LL_FOREACH (t->publishers, p) {
		if (!p->synced)
			return false;
	}
	return t->publishers != NULL;
}

static void sub_owe_sync(struct pb_topic_sub *sub)
{
	if (sub->replaying) {
		sub->sync_after_replay = true;
		return;
	}
	sub->sync_pending = true;
	sub->epoch++;
	sub->sync_owed = sub->n_queued;
}

/* ---- publishers ---- */

/* Another version is fine while nobody else would be told of it. */
static bool version_fits(const struct pb_topic *t, uint32_t version,
			 const struct pb_plugin_entry *plugin)
{
	const struct pb_topic_publisher *p;
	const struct pb_topic_sub *sub;

	if (t->version == 0 || t->version == version)
		return true;
	LL_FOREACH (t->publishers, p) {
		if (p->plugin != plugin)
			return false;
	}
	DL_FOREACH2(t->subs, sub, topic_next)
	{
		if (sub->version != version)
			return false;
	}
	return true;
}

int pb_topic_check(struct pb_generation *gen, const char *topic, uint32_t version, const char *key)
{
	struct pb_topic *t = topic_find(gen->manager, topic);
	struct pb_topic_record *r = NULL;

	if (version == 0 || !*topic || !*key)
		return pb_err_set(&gen->fail, -EINVAL,
				  "publish(): topic, key and version must not be empty");
	if (!t)
		return 0;
	if (!version_fits(t, version, gen->plugin))
		return pb_err_set(&gen->fail, -EPROTO,
				  "publish(): topic %s is in use as version %u, not %u", topic,
				  t->version, version);
	HASH_FIND_STR(t->records, key, r);
	if (r && r->owner != gen->plugin)
		return pb_err_set(&gen->fail, -EEXIST,
				  "publish(): topic %s: %s is published by %s%s", topic, key,
				  strcmp(r->owner->name, PB_CORE_NAME) == 0 ? "the " : "plugin ",
				  r->owner->name);
	return 0;
}

static struct pb_topic_record *record_new(struct pb_generation *gen, const char *key, void *value,
					  size_t len)
{
	size_t key_size = strlen(key) + 1;
	struct pb_topic_record *r = calloc(1, sizeof(*r) + key_size);

	if (!r)
		return NULL;
	memcpy(r->key, key, key_size);
	r->refs = 1;
	r->owner = gen->plugin;
	r->generation = gen->number;
	r->value = value;
	r->len = len;
	return r;
}

/* The record leaves its place: replays go on behind it. */
static void replays_pass(struct pb_topic *t, const struct pb_topic_record *r)
{
	struct pb_topic_sub *sub;

	DL_FOREACH2(t->subs, sub, topic_next)
	{
		if (sub->replay == r)
			sub->replay = r->hh.next;
	}
}

static void record_remove(struct pb_manager *m, struct pb_topic *t, struct pb_topic_record *r)
{
	replays_pass(t, r);
	HASH_DEL(t->records, r);
	topic_tell(m, t, r->key, NULL);
	pb_topic_record_unref(r);
}

static void topic_set_version(struct pb_manager *m, struct pb_topic *t, uint32_t version)
{
	struct pb_topic_record *r, *tmp;

	if (t->version && t->version != version)
		HASH_ITER (hh, t->records, r, tmp)
			record_remove(m, t, r);
	t->version = version;
}

/* The same again: nobody needs to hear it, but it is the latest publication now. */
static void record_touch(struct pb_topic *t, struct pb_topic_record *r)
{
	struct pb_topic_item *item;
	struct pb_topic_sub *sub;

	if (r->hh.next) {
		replays_pass(t, r);
		HASH_DEL(t->records, r);
		HASH_ADD_KEYPTR(hh, t->records, r->key, strlen(r->key), r);
	}
	DL_FOREACH2(t->subs, sub, topic_next)
	{
		HASH_FIND_STR(sub->items, r->key, item);
		if (sub->replay)
			item_leave_to_replay(sub, item);
		else if (item && item->queued)
			item_queue(sub, item);
	}
}

int pb_topic_put(struct pb_generation *gen, const char *topic, uint32_t version, const char *key,
		 void *value, size_t len)
{
	int rc = pb_topic_check(gen, topic, version, key);
	struct pb_topic *t = rc < 0 ? NULL : topic_get(gen->manager, topic);
	struct pb_topic_record *old = NULL, *r;

	if (!t)
		return rc < 0 ? rc : -ENOMEM;
	topic_set_version(gen->manager, t, version);
	HASH_FIND_STR(t->records, key, old);
	if (old && old->len == len && (len == 0 || memcmp(old->value, value, len) == 0)) {
		old->generation = gen->number;
		record_touch(t, old);
		free(value);
		return 0;
	}
	r = publisher_get(t, gen->plugin) ? record_new(gen, key, value, len) : NULL;
	if (!r)
		return -ENOMEM;
	/* First the new one, so that a replay at the old one finds what follows it. */
	HASH_ADD_KEYPTR(hh, t->records, r->key, strlen(r->key), r);
	if (old) {
		replays_pass(t, old);
		HASH_DEL(t->records, old);
	}
	topic_tell(gen->manager, t, r->key, r);
	pb_topic_record_unref(old);
	return 0;
}

bool pb_topic_owns(struct pb_generation *gen, const char *topic, const char *key)
{
	struct pb_topic *t = topic_find(gen->manager, topic);
	struct pb_topic_record *r = NULL;

	if (t)
		HASH_FIND_STR(t->records, key, r);
	return r && r->owner == gen->plugin;
}

int pb_topic_delete(struct pb_generation *gen, const char *topic, const char *key)
{
	struct pb_topic *t = topic_find(gen->manager, topic);
	struct pb_topic_record *r = NULL;

	if (!pb_topic_owns(gen, topic, key))
		return -ENOENT;
	HASH_FIND_STR(t->records, key, r);
	record_remove(gen->manager, t, r);
	return 0;
}

void pb_topic_synced(struct pb_generation *gen, const char *topic)
{
	struct pb_topic *t = topic_get(gen->manager, topic);
	struct pb_topic_publisher *p = t ? publisher_get(t, gen->plugin) : NULL;
	struct pb_topic_record *r, *tmp;
	struct pb_topic_sub *sub;

	if (!p)
		return;
	HASH_ITER (hh, t->records, r, tmp) {
		if (r->owner == gen->plugin && r->generation != gen->number)
			record_remove(gen->manager, t, r);
	}
	p->synced = true;
	if (!topic_is_synced(t))
		return;
	DL_FOREACH2(t->subs, sub, topic_next)
	sub_owe_sync(sub);
	pb_topic_pump_wake(gen->manager);
}

void pb_topic_forget(struct pb_manager *m, struct pb_plugin_entry *plugin)
{
	struct pb_topic *t;

	LL_FOREACH (m->topics, t) {
		struct pb_topic_publisher *p = publisher_find(t, plugin);
		struct pb_topic_record *r, *tmp;

		if (!p)
			continue;
		HASH_ITER (hh, t->records, r, tmp) {
			if (r->owner == plugin)
				record_remove(m, t, r);
		}
		LL_DELETE(t->publishers, p);
		free(p);
		if (!t->publishers && !t->subs)
			t->version = 0;
	}
}

/* ---- subscriptions ---- */

int pb_topic_subscribe(struct pb_generation *gen, const char *topic, uint32_t version,
		       pb_topic_fn fn, void *arg)
{
	struct pb_topic *t = topic_get(gen->manager, topic);
	struct pb_topic_sub *sub = t ? calloc(1, sizeof(*sub)) : NULL;

	if (!sub)
		return -ENOMEM;
	*sub = (struct pb_topic_sub){
		.gen = gen, .topic = t, .version = version, .fn = fn, .arg = arg};
	LL_APPEND(gen->subs, sub);
	return 0;
}

static int activate(struct pb_topic_sub *sub, struct pb_err *err)
{
	struct pb_topic *t = sub->topic;

	if (t->version && t->version != sub->version)
		return pb_err_set(err, -EPROTO,
				  "subscribes to version %u of topic %s, but version %u is in use "
				  "here: load plugins of the same release",
				  sub->version, t->name, t->version);
	DL_APPEND2(t->subs, sub, topic_prev, topic_next);
	sub->active = true;
	sub->replay = t->records;
	sub->replaying = sub->replay;
	if (topic_is_synced(t))
		sub_owe_sync(sub);
	return 0;
}

void pb_topic_replay_next(struct pb_topic_sub *sub)
{
	struct pb_topic_record *r = sub->replay;
	struct pb_topic_item *item;

	if (!sub->replaying)
		return;
	if (!r) {
		sub->replaying = false;
		if (sub->sync_after_replay)
			sub_owe_sync(sub);
		return;
	}
	HASH_FIND_STR(sub->items, r->key, item);
	/* Without memory it is tried again in the next turn. */
	if (!(item && item->told == r && !item->queued) && sub_owe(sub, r->key, r) < 0)
		return;
	sub->replay = r->hh.next;
}

int pb_topic_activate(struct pb_generation *gen, struct pb_err *err)
{
	struct pb_topic_sub *sub;
	int rc = 0;

	LL_FOREACH (gen->subs, sub) {
		rc = activate(sub, err);
		if (rc < 0)
			break;
	}
	pb_topic_pump_wake(gen->manager);
	return rc;
}

bool pb_topic_replayed(const struct pb_generation *gen)
{
	const struct pb_topic_sub *sub;

	LL_FOREACH (gen->subs, sub) {
		if (!sub->active || sub->replaying || sub->queue || sub->sync_pending)
			return false;
	}
	return true;
}

/* ---- the end of subscriptions ---- */

/* Freeing the items of a large topic takes milliseconds, and nobody waits for it. */
void pb_topic_subs_free(struct pb_generation *gen)
{
	struct pb_topic_sub *sub, *tmp;

	if (!gen->subs)
		return;
	LL_FOREACH_SAFE(gen->subs, sub, tmp)
	{
		if (sub->active)
			DL_DELETE2(sub->topic->subs, sub, topic_prev, topic_next);
		sub->queue = sub->items;
		HASH_CLEAR(hh, sub->items);
		LL_PREPEND(gen->manager->dead_subs, sub);
	}
	gen->subs = NULL;
	pb_topic_pump_wake(gen->manager);
}

bool pb_topic_subs_sweep(struct pb_manager *m, uint64_t until_ns)
{
	struct pb_topic_sub *sub = m->dead_subs;
	unsigned n = 0;

	while (sub && (++n % 16 || pb_now_ns() < until_ns)) {
		struct pb_topic_item *item = sub->queue;

		if (!item) {
			LL_DELETE(m->dead_subs, sub);
			free(sub);
			sub = m->dead_subs;
			continue;
		}
		sub->queue = item->hh.next;
		pb_topic_record_unref(item->told);
		pb_topic_record_unref(item->pending);
		free(item);
	}
	return sub;
}

void pb_topics_free(struct pb_manager *m)
{
	struct pb_topic *t, *next;

	pb_topic_subs_sweep(m, UINT64_MAX);
	LL_FOREACH_SAFE(m->topics, t, next)
	{
		struct pb_topic_publisher *p, *ptmp;
		struct pb_topic_record *r, *tmp;

		HASH_ITER (hh, t->records, r, tmp) {
			HASH_DEL(t->records, r);
			pb_topic_record_unref(r);
		}
		LL_FOREACH_SAFE(t->publishers, p, ptmp)
		free(p);
		free(t->name);
		free(t);
	}
	m->topics = NULL;
}
