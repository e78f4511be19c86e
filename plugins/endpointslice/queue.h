/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services that wait, the one that is due first on top.
 *
 * Owns only the order: by time, among equals by who came first. A Service is in it once or not
 * at all.
 */
#ifndef ENDPOINTSLICE_QUEUE_H
#define ENDPOINTSLICE_QUEUE_H

#include <stdint.h>

/* Part of what waits. Zeroed: not in the queue. */
struct es_waiter {
	uint64_t due_ms;
	uint64_t seq;
	uint32_t place; /* in es_queue.heap, plus one; 0: not in it */
};

struct es_queue {
	struct es_waiter **heap;
	uint64_t seq;
	uint32_t n;
	uint32_t cap;
};

/* Room for n waiters in all; es_queue_put() can't fail as long as there are no more. -ENOMEM. */
int es_queue_reserve(struct es_queue *q, uint32_t n);
/* Adds the waiter, or moves it to another time. */
void es_queue_put(struct es_queue *q, struct es_waiter *w, uint64_t due_ms);
/* Nothing happens when it isn't in it. */
void es_queue_remove(struct es_queue *q, struct es_waiter *w);
/* NULL: nobody waits. */
struct es_waiter *es_queue_first(const struct es_queue *q);
void es_queue_free(struct es_queue *q);

#endif
