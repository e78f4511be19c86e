/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Topics of the fake host.
 *
 * Owns what is retained and who is told of it. A delivery is always a task, never a call from
 * inside another callback; a replaced value lives until everybody has been told. Every publication
 * is delivered, where the agent may leave out all but the last one of a key.
 */
#include "fake.h"

static struct fake_topic *topic_find(const struct pb_fake *fake, const char *name)
{
	struct fake_topic *topic;

	LL_FOREACH (fake->topics, topic)
		if (strcmp(topic->name, name) == 0)
			return topic;
	return NULL;
}

static struct fake_record *record_find(const struct fake_topic *topic, const char *key)
{
	struct fake_record *record = NULL;

	if (topic)
		HASH_FIND_STR(topic->records, key, record);
	return record;
}

static int record_send(struct fake_sub *sub, uint32_t kind, const struct fake_record *record)
{
	struct fake_task *task = fake_task_add(sub->gen, FAKE_TASK_RECORD);

	if (!task)
		return -ENOMEM;
	task->sub = sub;
	task->record = (struct pb_record){.size = sizeof(task->record), .kind = kind};
	if (record) {
		task->record.key = record->key;
		task->record.value = kind == PB_RECORD_PUT ? record->value : NULL;
		task->record.len = kind == PB_RECORD_PUT ? record->len : 0;
	}
	return 0;
}

static void topic_send(struct pb_fake *fake, const struct fake_topic *topic, uint32_t kind,
		       const struct fake_record *record)
{
	struct fake_gen *gens[] = {fake->retired, fake->current, fake->next};
	struct fake_sub *sub;

	for (size_t i = 0; i < PB_ARRAY_LEN(gens); i++) {
		if (!fake_gen_listens(gens[i]))
			continue;
		LL_FOREACH (gens[i]->subs, sub)
			if (strcmp(sub->topic, topic->name) == 0)
				record_send(sub, kind, record);
	}
}

static int topic_open(struct pb_fake *fake, const char *name, uint32_t version,
		      struct fake_topic **ret_topic)
{
	struct fake_topic *topic = topic_find(fake, name);

	if (!topic) {
		topic = calloc(1, sizeof(*topic));
		if (!topic)
			return -ENOMEM;
		topic->name = strdup(name);
		if (!topic->name) {
			free(topic);
			return -ENOMEM;
		}
		LL_PREPEND(fake->topics, topic);
	}
	/* Version 0: synced() came before the first record. */
	if (topic->version == 0)
		topic->version = version;
	if (version && topic->version != version)
		return -EPROTO;
	*ret_topic = topic;
	return 0;
}

/* gen 0 is the test, which stands for all other plugins. */
static int topic_publish(struct pb_fake *fake, uint32_t gen, const char *name, uint32_t version,
			 const char *key, const void *value, size_t len)
{
	struct fake_topic *topic = NULL;
	struct fake_record *record;
	PB_FREE void *copy = NULL;
	int err = topic_open(fake, name, version, &topic);

	if (err < 0)
		return err;
	record = record_find(topic, key);
	if (record && (record->gen == 0) != (gen == 0))
		return -EEXIST;
	copy = malloc(len ? len : 1);
	if (!copy)
		return -ENOMEM;
	if (len)
		memcpy(copy, value, len);
	if (!record) {
		record = calloc(1, sizeof(*record));
		if (!record)
			return -ENOMEM;
		record->key = strdup(key);
		if (!record->key) {
			free(record);
			return -ENOMEM;
		}
		HASH_ADD_KEYPTR(hh, topic->records, record->key, strlen(record->key), record);
	}
	/* A replay goes by the order of the last publication. */
	HASH_DEL(topic->records, record);
	HASH_ADD_KEYPTR(hh, topic->records, record->key, strlen(record->key), record);
	fake_bury(fake, record->value);
	record->value = PB_TAKE_PTR(copy);
	record->len = len;
	record->gen = gen;
	topic->changes++;
	topic_send(fake, topic, PB_RECORD_PUT, record);
	return 0;
}

static void record_withdraw(struct pb_fake *fake, struct fake_topic *topic,
			    struct fake_record *record)
{
	topic->changes++;
	topic_send(fake, topic, PB_RECORD_DELETE, record);
	HASH_DEL(topic->records, record);
	fake_bury(fake, record->key);
	fake_bury(fake, record->value);
	free(record);
}

static int topic_withdraw(struct pb_fake *fake, uint32_t gen, const char *name, const char *key)
{
	struct fake_topic *topic = topic_find(fake, name);
	struct fake_record *record = record_find(topic, key);

	if (!record || (record->gen == 0) != (gen == 0))
		return -ENOENT;
	record_withdraw(fake, topic, record);
	return 0;
}

static void topic_withdraw_older(struct pb_fake *fake, struct fake_topic *topic, uint32_t gen)
{
	struct fake_record *record, *tmp;

	HASH_ITER (hh, topic->records, record, tmp)
		if (record->gen > 0 && record->gen < gen)
			record_withdraw(fake, topic, record);
}

void fake_topics_withdraw_older(struct pb_fake *fake, const char *name, uint32_t gen)
{
	struct fake_topic *topic;

	LL_FOREACH (fake->topics, topic) {
		if (name && strcmp(topic->name, name) != 0)
			continue;
		topic_withdraw_older(fake, topic, gen);
		if (!name && topic->synced_by_plugin)
			topic->synced = topic->synced_by_plugin = false;
	}
}

void fake_topics_free(struct pb_fake *fake)
{
	struct fake_topic *topic, *next;
	struct fake_record *record, *tmp;

	LL_FOREACH_SAFE(fake->topics, topic, next)
	{
		HASH_ITER (hh, topic->records, record, tmp) {
			HASH_DEL(topic->records, record);
			free(record->key);
			free(record->value);
			free(record);
		}
		free(topic->name);
		free(topic);
	}
	fake->topics = NULL;
}

int fake_topics_check(struct fake_gen *gen)
{
	const struct fake_topic *topic;
	struct fake_sub *sub;

	LL_FOREACH (gen->subs, sub) {
		topic = topic_find(gen->fake, sub->topic);
		if (topic && topic->version && topic->version != sub->version)
			return gen->ctx.host->fail(
				&gen->ctx, -EPROTO,
				"topic %s: published as version %u, subscribed as version %u",
				sub->topic, topic->version, sub->version);
	}
	return 0;
}

/* ---- what a plugin calls --------------------------------------------------------------- */

int fake_host_publish(struct pb_ctx *ctx, const char *topic, uint32_t version, const char *key,
		      const void *value, size_t len)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "publish");

	if (err < 0)
		return err;
	return topic_publish(gen->fake, gen->number, topic, version, key, value, len);
}

int fake_host_withdraw(struct pb_ctx *ctx, const char *topic, const char *key)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "withdraw");

	return err < 0 ? err : topic_withdraw(gen->fake, gen->number, topic, key);
}

int fake_host_synced(struct pb_ctx *ctx, const char *name)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	struct fake_topic *topic = NULL;
	int err = fake_fault(gen->fake, "synced");

	if (err == 0)
		err = topic_open(gen->fake, name, 0, &topic);
	if (err < 0)
		return err;
	fake_topics_withdraw_older(gen->fake, name, gen->number);
	topic->synced = topic->synced_by_plugin = true;
	topic_send(gen->fake, topic, PB_RECORD_SYNCED, NULL);
	return 0;
}

int fake_host_subscribe(struct pb_ctx *ctx, const char *topic, uint32_t version, pb_topic_fn fn,
			void *arg)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "subscribe");
	struct fake_sub *sub;

	if (err == 0)
		err = fake_prepare_only(gen, "subscribe");
	if (err < 0)
		return err;
	sub = calloc(1, sizeof(*sub));
	if (!sub)
		return -ENOMEM;
	*sub = (struct fake_sub){
		.gen = gen, .topic = strdup(topic), .version = version, .fn = fn, .arg = arg};
	if (!sub->topic) {
		free(sub);
		return -ENOMEM;
	}
	LL_APPEND(gen->subs, sub);
	return 0;
}

/* ---- replay ---------------------------------------------------------------------------- */

static int replay_topic(struct fake_sub *sub)
{
	const struct fake_topic *topic = topic_find(sub->gen->fake, sub->topic);
	struct fake_record *record, *tmp;
	int err = 0;

	if (!topic)
		return 0;
	HASH_ITER (hh, topic->records, record, tmp) {
		err = record_send(sub, PB_RECORD_PUT, record);
		if (err < 0)
			return err;
	}
	return topic->synced ? record_send(sub, PB_RECORD_SYNCED, NULL) : 0;
}

int fake_topics_replay(struct fake_gen *gen)
{
	struct fake_sub *sub;
	int err;

	LL_FOREACH (gen->subs, sub) {
		err = replay_topic(sub);
		if (err < 0)
			return err;
	}
	return 0;
}

/* ---- what a test calls ----------------------------------------------------------------- */

int pb_fake_publish(struct pb_fake *fake, const char *topic, uint32_t version, const char *key,
		    const void *value, size_t len)
{
	int err = topic_publish(fake, 0, topic, version, key, value, len);

	fake_drain(fake);
	return err;
}

int pb_fake_withdraw(struct pb_fake *fake, const char *topic, const char *key)
{
	int err = topic_withdraw(fake, 0, topic, key);

	fake_drain(fake);
	return err;
}

int pb_fake_synced(struct pb_fake *fake, const char *name)
{
	struct fake_topic *topic = NULL;
	int err = topic_open(fake, name, 0, &topic);

	if (err < 0)
		return err;
	topic->synced = true;
	topic_send(fake, topic, PB_RECORD_SYNCED, NULL);
	fake_drain(fake);
	return 0;
}

const void *pb_fake_topic_get(const struct pb_fake *fake, const char *topic, const char *key,
			      size_t *ret_len)
{
	const struct fake_record *record = record_find(topic_find(fake, topic), key);

	if (ret_len)
		*ret_len = record ? record->len : 0;
	return record ? record->value : NULL;
}

size_t pb_fake_topic_count(const struct pb_fake *fake, const char *name)
{
	const struct fake_topic *topic = topic_find(fake, name);

	return topic ? HASH_COUNT(topic->records) : 0;
}

bool pb_fake_topic_synced(const struct pb_fake *fake, const char *name)
{
	const struct fake_topic *topic = topic_find(fake, name);

	return topic && topic->synced;
}

uint64_t pb_fake_topic_changes(const struct pb_fake *fake, const char *name)
{
	const struct fake_topic *topic = topic_find(fake, name);

	return topic ? topic->changes : 0;
}
