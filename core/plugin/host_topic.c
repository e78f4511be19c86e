/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The topic functions of struct pb_host.
 *
 * Owns what a generation publishes before it is live: nobody may see that, because the load may
 * still be called off. It is put into force, in slices, once the generation is live, in the order
 * of the last publication.
 */
#include <plugin/topic.h>

static struct pb_pending *pending_find(struct pb_generation *gen, const char *topic,
				       const char *key)
{
	PB_BUF_FREE struct pb_buf id = {0};
	struct pb_pending *p = NULL;

	if (pb_buf_printf(&id, "%s%c%s", topic, '\0', key) < 0)
		return NULL;
	HASH_FIND(hh, gen->pending, id.data, id.len, p);
	return p;
}

static struct pb_pending *pending_get(struct pb_generation *gen, const char *topic, const char *key)
{
	struct pb_pending *p = pending_find(gen, topic, key);
	size_t topic_len = strlen(topic), key_len = strlen(key);

	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->id_len = topic_len + 1 + key_len;
	p->id = malloc(p->id_len + 1);
	if (!p->id) {
		free(p);
		return NULL;
	}
	memcpy(p->id, topic, topic_len + 1);
	memcpy(p->id + topic_len + 1, key, key_len + 1);
	p->topic = p->id;
	p->key = p->id + topic_len + 1;
	HASH_ADD_KEYPTR(hh, gen->pending, p->id, p->id_len, p);
	return p;
}

static int pending_put(struct pb_generation *gen, const char *topic, uint32_t version,
		       const char *key, void *value, size_t len)
{
	struct pb_pending *p = pending_get(gen, topic, key);

	if (!p)
		return -ENOMEM;
	HASH_DEL(gen->pending, p);
	HASH_ADD_KEYPTR(hh, gen->pending, p->id, p->id_len, p);
	free(p->value);
	p->version = version;
	p->withdraw = value == NULL;
	p->value = value;
	p->len = len;
	pb_topic_pump_wake(gen->manager);
	return 0;
}

static void pending_del(struct pb_generation *gen, struct pb_pending *p)
{
	HASH_DEL(gen->pending, p);
	free(p->value);
	free(p->id);
	free(p);
}

static bool may_publish(const struct pb_generation *gen)
{
	return gen->state >= PB_GEN_PREPARING && gen->state <= PB_GEN_LIVE;
}

static bool in_force(const struct pb_generation *gen)
{
	return gen->state == PB_GEN_LIVE && !gen->pending && !gen->pending_syncs;
}

int pb_host_publish(struct pb_ctx *ctx, const char *topic, uint32_t version, const char *key,
		    const void *value, size_t len)
{
	struct pb_generation *gen = pb_gen(ctx);
	void *copy;
	int rc;

	if (!may_publish(gen))
		return pb_host_wrong_step(gen, "publish()", "from prepare() to quiesce()");
	rc = pb_topic_check(gen, topic, version, key);
	if (rc < 0)
		return rc;
	copy = malloc(len ? len : 1);
	if (!copy)
		return pb_err_set(&gen->fail, -ENOMEM, "publish(): out of memory");
	if (len)
		memcpy(copy, value, len);
	rc = in_force(gen) ? pb_topic_put(gen, topic, version, key, copy, len)
			   : pending_put(gen, topic, version, key, copy, len);
	if (rc < 0)
		free(copy);
	return rc;
}

int pb_host_withdraw(struct pb_ctx *ctx, const char *topic, const char *key)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_pending *p;

	if (!may_publish(gen))
		return pb_host_wrong_step(gen, "withdraw()", "from prepare() to quiesce()");
	if (in_force(gen))
		return pb_topic_delete(gen, topic, key);
	p = pending_find(gen, topic, key);
	if (p ? p->withdraw : !pb_topic_owns(gen, topic, key))
		return -ENOENT;
	return pending_put(gen, topic, p ? p->version : 0, key, NULL, 0);
}

static int pending_sync(struct pb_generation *gen, const char *topic)
{
	size_t size = strlen(topic) + 1;
	struct pb_pending_sync *s;

	LL_FOREACH (gen->pending_syncs, s) {
		if (strcmp(s->topic, topic) == 0)
			return 0;
	}
	s = calloc(1, sizeof(*s) + size);
	if (!s)
		return -ENOMEM;
	memcpy(s->topic, topic, size);
	LL_APPEND(gen->pending_syncs, s);
	return 0;
}

int pb_host_synced(struct pb_ctx *ctx, const char *topic)
{
	struct pb_generation *gen = pb_gen(ctx);

	if (!may_publish(gen))
		return pb_host_wrong_step(gen, "synced()", "from prepare() to quiesce()");
	if (!in_force(gen))
		return pending_sync(gen, topic);
	pb_topic_synced(gen, topic);
	return 0;
}

int pb_host_subscribe(struct pb_ctx *ctx, const char *topic, uint32_t version, pb_topic_fn fn,
		      void *arg)
{
	struct pb_generation *gen = pb_gen(ctx);

	if (gen->state != PB_GEN_PREPARING)
		return pb_host_wrong_step(gen, "subscribe()", "in prepare() only");
	if (!topic || !*topic || version == 0 || !fn)
		return pb_err_set(&gen->fail, -EINVAL,
				  "subscribe(): topic, version and function must be given");
	return pb_topic_subscribe(gen, topic, version, fn, arg);
}

static void pending_apply_one(struct pb_generation *gen, struct pb_pending *p)
{
	int rc;

	if (p->withdraw) {
		pb_topic_delete(gen, p->topic, p->key);
		return;
	}
	rc = pb_topic_put(gen, p->topic, p->version, p->key, p->value, p->len);
	if (rc == 0)
		p->value = NULL;
	else
		pb_error("plugin", "%s generation %u: topic %s: %s is not published: %s",
			 gen->plugin->name, gen->number, p->topic, p->key,
			 rc == -ENOMEM ? "out of memory" : gen->fail.text);
}

void pb_host_pending_apply(struct pb_generation *gen)
{
	uint64_t end = pb_now_ns() + PB_SLICE_NS;
	struct pb_pending_sync *s;

	while (gen->pending && pb_now_ns() < end) {
		struct pb_pending *p = gen->pending;

		pending_apply_one(gen, p);
		pending_del(gen, p);
	}
	if (gen->pending) {
		pb_topic_pump_wake(gen->manager);
		return;
	}
	while ((s = gen->pending_syncs)) {
		LL_DELETE(gen->pending_syncs, s);
		pb_topic_synced(gen, s->topic);
		free(s);
	}
}

void pb_host_pending_free(struct pb_generation *gen)
{
	struct pb_pending *p, *tmp;
	struct pb_pending_sync *s, *stmp;

	HASH_ITER (hh, gen->pending, p, tmp)
		pending_del(gen, p);
	LL_FOREACH_SAFE(gen->pending_syncs, s, stmp)
	free(s);
	gen->pending_syncs = NULL;
}
