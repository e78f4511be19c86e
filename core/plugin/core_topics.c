/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core as a publisher of topics.
 *
 * Owns a generation without code that stands for the core where topics ask whose a record is. It
 * is in no list of plugins: nothing can load, reload or show it.
 */
#include <plugin/topic.h>

static struct pb_generation *core_new(struct pb_manager *m)
{
	struct pb_plugin_entry *entry = calloc(1, sizeof(*entry));
	struct pb_generation *gen = NULL;

	if (entry)
		entry->name = strdup(PB_CORE_NAME);
	if (entry && entry->name)
		gen = pb_gen_new(m, entry, "{}");
	if (!gen) {
		if (entry)
			free(entry->name);
		free(entry);
		return NULL;
	}
	gen->state = PB_GEN_LIVE;
	return gen;
}

static struct pb_generation *core_get(struct pb_manager *m)
{
	if (!m->core)
		m->core = core_new(m);
	return m->core;
}

static int core_put(struct pb_generation *core, const char *topic, uint32_t version,
		    const char *key, const void *value, size_t len)
{
	void *copy = malloc(len ? len : 1);
	int rc;

	if (!copy)
		return pb_err_set(&core->fail, -ENOMEM, "out of memory");
	if (len)
		memcpy(copy, value, len);
	rc = pb_topic_put(core, topic, version, key, copy, len);
	if (rc < 0)
		free(copy);
	return rc;
}

int pb_manager_publish(struct pb_manager *m, const char *topic, uint32_t version, const char *key,
		       const void *value, size_t len)
{
	struct pb_generation *core = core_get(m);
	int rc;

	if (!core)
		return -ENOMEM;
	if (!value)
		return pb_topic_delete(core, topic, key);
	core->fail.text[0] = '\0';
	rc = core_put(core, topic, version, key, value, len);
	if (rc < 0)
		pb_error("plugin", "topic %s: %s of the core is not published: %s", topic, key,
			 core->fail.text[0] ? core->fail.text : strerror(-rc));
	return rc;
}

void pb_manager_synced(struct pb_manager *m, const char *topic)
{
	struct pb_generation *core = core_get(m);

	if (core)
		pb_topic_synced(core, topic);
}

void pb_core_topics_free(struct pb_manager *m)
{
	struct pb_plugin_entry *entry = m->core ? m->core->plugin : NULL;

	if (!entry)
		return;
	pb_gen_free(PB_TAKE_PTR(m->core));
	free(entry->name);
	free(entry);
}
