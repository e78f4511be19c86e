/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A binary heap whose elements know their place.
 */
#include "queue.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool before(const struct es_waiter *a, const struct es_waiter *b)
{
	return a->due_ms != b->due_ms ? a->due_ms < b->due_ms : a->seq < b->seq;
}

static void set(struct es_queue *q, uint32_t place, struct es_waiter *w)
{
	q->heap[place] = w;
	w->place = place + 1;
}

static void rise(struct es_queue *q, uint32_t i, struct es_waiter *w)
{
	for (; i > 0 && before(w, q->heap[(i - 1) / 2]); i = (i - 1) / 2)
		set(q, i, q->heap[(i - 1) / 2]);
	set(q, i, w);
}

static void sink(struct es_queue *q, uint32_t i, struct es_waiter *w)
{
	for (uint32_t child = 2 * i + 1; child < q->n; child = 2 * i + 1) {
		if (child + 1 < q->n && before(q->heap[child + 1], q->heap[child]))
			child++;
		if (!before(q->heap[child], w))
			break;
		set(q, i, q->heap[child]);
		i = child;
	}
	set(q, i, w);
}

int es_queue_reserve(struct es_queue *q, uint32_t n)
{
	uint32_t cap = q->cap ? q->cap : 16;
	void *p;

	if (n <= q->cap)
		return 0;
	while (cap < n)
		cap *= 2;
	p = realloc(q->heap, cap * sizeof(struct es_waiter *));
	if (!p)
		return -ENOMEM;
	q->heap = p;
	q->cap = cap;
	return 0;
}

void es_queue_put(struct es_queue *q, struct es_waiter *w, uint64_t due_ms)
{
	es_queue_remove(q, w);
	w->due_ms = due_ms;
	w->seq = ++q->seq;
	rise(q, q->n++, w);
}

void es_queue_remove(struct es_queue *q, struct es_waiter *w)
{
	uint32_t place = w->place - 1;
	struct es_waiter *last;

	if (!w->place)
		return;
	w->place = 0;
	last = q->heap[--q->n];
	if (last == w)
		return;
	if (place > 0 && before(last, q->heap[(place - 1) / 2]))
		rise(q, place, last);
	else
		sink(q, place, last);
}

struct es_waiter *es_queue_first(const struct es_queue *q)
{
	return q->n ? q->heap[0] : NULL;
}

void es_queue_free(struct es_queue *q)
{
	free(q->heap);
	memset(q, 0, sizeof(*q));
}
