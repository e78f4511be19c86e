/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts decoded objects together and takes them apart. Pointers inside an object are moved once,
 * from the scratch to the final allocation; a pointer that nobody noted would dangle, so every
 * pointer into the arena goes through pb_kube_arena_slot() or pb_kube_arena_copy().
 */
#include <kube/object.h>

struct pb_kube_object *pb_kube_object_of(const struct pb_kube_meta *meta)
{
	return (struct pb_kube_object *)(uintptr_t)meta - 1;
}

struct pb_kube_meta *pb_kube_object_meta(struct pb_kube_object *object)
{
	return (struct pb_kube_meta *)(object + 1);
}

struct pb_kube_object *pb_kube_object_ref(struct pb_kube_object *object)
{
	object->refs++;
	return object;
}

static void release_entries(const struct pb_endpoint_entry *entries, uint32_t n)
{
	if (!n)
		return;
	pb_kube_intern_lock();
	for (uint32_t i = 0; i < n; i++) {
		pb_kube_intern_drop(entries[i].node);
		pb_kube_intern_drop(entries[i].zone);
		pb_kube_intern_drop(entries[i].hints);
	}
	pb_kube_intern_unlock();
}

void pb_kube_release_strings(const struct pb_kube_meta *meta)
{
	if (meta->kind == PB_KUBE_ENDPOINTSLICE) {
		const struct pb_kube_endpointslice *slice = (const void *)meta;

		release_entries(slice->endpoints, slice->n_endpoints);
	} else if (meta->kind == PB_KUBE_ENDPOINTS) {
		const struct pb_kube_endpoints *endpoints = (const void *)meta;

		for (uint32_t i = 0; i < endpoints->n_subsets; i++)
			release_entries(endpoints->subsets[i].endpoints,
					endpoints->subsets[i].n_endpoints);
	}
}

void pb_kube_object_unref(struct pb_kube_object *object)
{
	if (!object || --object->refs)
		return;
	pb_kube_release_strings(pb_kube_object_meta(object));
	free(object);
}

/* The text can't decode to more than this: docs/design/kube.md has the sums. */
#define ARENA_FACTOR 5
#define ARENA_SLACK 2048

void *pb_kube_arena_start(struct pb_kube_arena *arena, size_t json_len, size_t size)
{
	*arena = (struct pb_kube_arena){.cap = json_len * ARENA_FACTOR + ARENA_SLACK + size};
	arena->base = malloc(arena->cap);
	if (!arena->base) {
		arena->rc = -ENOMEM;
		return NULL;
	}
	arena->len = (size + 7) & ~(size_t)7;
	memset(arena->base, 0, arena->len);
	return arena->base;
}

void pb_kube_arena_stop(struct pb_kube_arena *arena)
{
	free(arena->base);
	free(arena->slots);
	*arena = (struct pb_kube_arena){0};
}

static void *arena_take(struct pb_kube_arena *arena, size_t size, size_t align)
{
	size_t at = (arena->len + align - 1) & ~(align - 1);

	if (arena->rc < 0)
		return NULL;
	if (at > arena->cap || size > arena->cap - at) {
		arena->rc = -E2BIG;
		return NULL;
	}
	memset(arena->base + arena->len, 0, at - arena->len);
	arena->len = at + size;
	return arena->base + at;
}

const char *pb_kube_arena_text(struct pb_kube_arena *arena, struct pb_span string)
{
	char *text;

	if (pb_span_type(string) != '"' || pb_span_room(string) <= 1)
		return "";
	text = arena_take(arena, pb_span_room(string), 1);
	if (!text)
		return "";
	arena->len = (size_t)(text - arena->base) + pb_span_text(string, text) + 1;
	return text;
}

void pb_kube_arena_slot(struct pb_kube_arena *arena, const void *slot)
{
	const char *target;

	memcpy(&target, slot, sizeof(target));
	if (arena->rc < 0 || target < arena->base || target >= arena->base + arena->len)
		return;
	if (arena->n_slots == arena->cap_slots) {
		size_t cap = arena->cap_slots ? arena->cap_slots * 2 : 64;
		uint32_t *slots = realloc(arena->slots, cap * sizeof(*slots));

		if (!slots) {
			arena->rc = -ENOMEM;
			return;
		}
		arena->slots = slots;
		arena->cap_slots = cap;
	}
	arena->slots[arena->n_slots++] = (uint32_t)((const char *)slot - arena->base);
}

void *pb_kube_arena_copy(struct pb_kube_arena *arena, const void *elements, size_t n, size_t size,
			 const int *slots)
{
	char *copy;

	if (n == 0)
		return NULL;
	copy = arena_take(arena, n * size, 8);
	if (!copy)
		return NULL;
	memcpy(copy, elements, n * size);
	for (size_t i = 0; slots && i < n; i++)
		for (const int *slot = slots; *slot >= 0; slot++)
			pb_kube_arena_slot(arena, copy + i * size + *slot);
	return copy;
}

/* Eight bytes at a time: an object is hashed whenever an event brings it. */
static uint64_t digest_of(const char *data, size_t len)
{
	uint64_t hash = len, word;

	for (size_t i = 0; i < len; i += sizeof(word)) {
		word = 0;
		memcpy(&word, data + i, len - i < sizeof(word) ? len - i : sizeof(word));
		hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
	}
	return hash;
}

/* Pointers inside of equal objects differ, all by the distance of the objects. */
bool pb_kube_object_same(const struct pb_kube_object *a, const struct pb_kube_object *b)
{
	const char *left = (const char *)(a + 1), *right = (const char *)(b + 1);
	uintptr_t l, r;

	if (a->digest != b->digest || a->len != b->len)
		return false;
	for (size_t i = 0; i + sizeof(l) <= a->len; i += sizeof(l)) {
		memcpy(&l, left + i, sizeof(l));
		memcpy(&r, right + i, sizeof(r));
		if (l != r &&
		    (l - (uintptr_t)left >= a->len || l - (uintptr_t)left != r - (uintptr_t)right))
			return false;
	}
	return memcmp(left + a->len / sizeof(l) * sizeof(l), right + a->len / sizeof(l) * sizeof(l),
		      a->len % sizeof(l)) == 0;
}

struct pb_kube_object *pb_kube_arena_finish(const struct pb_kube_arena *arena)
{
	struct pb_kube_object *object = malloc(sizeof(*object) + arena->len);
	char *data = (char *)(object + 1);

	if (!object)
		return NULL;
	*object = (struct pb_kube_object){.refs = 1, .len = (uint32_t)arena->len};
	memcpy(data, arena->base, arena->len);
	/* As offsets the pointers are the same for equal content, so the digest can cover all. */
	for (size_t i = 0; i < arena->n_slots; i++) {
		uintptr_t value;

		memcpy(&value, data + arena->slots[i], sizeof(value));
		value -= (uintptr_t)arena->base;
		memcpy(data + arena->slots[i], &value, sizeof(value));
	}
	object->digest = digest_of(data, arena->len);
	for (size_t i = 0; i < arena->n_slots; i++) {
		uintptr_t value;

		memcpy(&value, data + arena->slots[i], sizeof(value));
		value += (uintptr_t)data;
		memcpy(data + arena->slots[i], &value, sizeof(value));
	}
	return object;
}
