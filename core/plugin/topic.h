/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Topics: retained records between plugins.
 *
 * Owns records, their owners, and what each subscription has been told. Delivery never happens
 * inside publish(): records wait in the subscription's queue, one place a key, and the pump
 * hands them out in slices of bounded time, in the order of their last publication. A record
 * lives until every subscriber has been told of its successor.
 */
#ifndef PB_TOPIC_H
#define PB_TOPIC_H

#include <plugin/private.h>

struct pb_topic_record {
	unsigned refs;
	struct pb_plugin_entry *owner;
	uint32_t generation; /* that published it last */
	size_t len;
	void *value;
	UT_hash_handle hh;
	char key[];
};

/* One key as one subscription sees it. */
struct pb_topic_item {
	struct pb_topic_record *told;	 /* what the subscriber holds */
	struct pb_topic_record *pending; /* what it gets next; NULL with `queued`: a delete */
	bool queued;
	uint32_t epoch; /* the subscription's, when the item came into the queue */
	struct pb_topic_item *prev, *next;
	UT_hash_handle hh;
	char key[];
};

struct pb_topic_sub {
	struct pb_generation *gen;
	struct pb_topic *topic;
	uint32_t version;
	pb_topic_fn fn;
	void *arg;
	bool active;
	bool replaying; /* what was published before it came is still to be owed */
	bool sync_after_replay;
	struct pb_topic_record *replay; /* the next of the topic's records; NULL: the end */
	bool sync_pending;		/* SYNCED follows once sync_owed is 0 */
	uint32_t epoch;			/* counts the SYNCED that were owed */
	size_t n_queued;
	size_t sync_owed; /* items in the queue of an older epoch */
	struct pb_topic_item *items;
	struct pb_topic_item *queue;
	struct pb_topic_sub *next;		      /* of the generation */
	struct pb_topic_sub *topic_prev, *topic_next; /* active ones of the topic */
};

struct pb_topic_publisher {
	struct pb_plugin_entry *plugin;
	bool synced;
	struct pb_topic_publisher *next;
};

struct pb_topic {
	char *name;
	uint32_t version;		 /* 0: nobody has said */
	struct pb_topic_record *records; /* in the order of their last publication */
	struct pb_topic_sub *subs;
	struct pb_topic_publisher *publishers;
	struct pb_topic *next;
};

/* May this generation publish that key? -EEXIST, -EPROTO with a text in gen->fail. */
int pb_topic_check(struct pb_generation *gen, const char *topic, uint32_t version, const char *key);
/* Takes over `value` (malloc'ed) on success. */
int pb_topic_put(struct pb_generation *gen, const char *topic, uint32_t version, const char *key,
		 void *value, size_t len);
int pb_topic_delete(struct pb_generation *gen, const char *topic, const char *key);
bool pb_topic_owns(struct pb_generation *gen, const char *topic, const char *key);
void pb_topic_synced(struct pb_generation *gen, const char *topic);

int pb_topic_subscribe(struct pb_generation *gen, const char *topic, uint32_t version,
		       pb_topic_fn fn, void *arg);
/* Starts the replay of all subscriptions of a generation. */
int pb_topic_activate(struct pb_generation *gen, struct pb_err *err);
bool pb_topic_replayed(const struct pb_generation *gen);
/* Unsubscribes. The memory goes in slices, by the pump. */
void pb_topic_subs_free(struct pb_generation *gen);
/* For the pump: the item is about to be told, or needn't be any more. */
void pb_topic_item_dequeue(struct pb_topic_sub *sub, struct pb_topic_item *item);
/* For the pump: owes the next record of a replay. */
void pb_topic_replay_next(struct pb_topic_sub *sub);
/* For the pump: frees what is left of subscriptions until then; false: nothing is left. */
bool pb_topic_subs_sweep(struct pb_manager *m, uint64_t until_ns);
/* An unloaded plugin's records are withdrawn. */
void pb_topic_forget(struct pb_manager *m, struct pb_plugin_entry *plugin);

void pb_topics_free(struct pb_manager *m);
void pb_topic_record_unref(struct pb_topic_record *r);

/* ---- topic_pump.c ---- */
int pb_topic_pump_open(struct pb_manager *m);
void pb_topic_pump_wake(struct pb_manager *m);

#endif
