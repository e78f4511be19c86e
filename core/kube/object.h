/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoded objects in memory: one allocation each, counted references, shared strings.
 *
 * Owns how an object is put together (a scratch arena that is copied once, exactly sized) and
 * taken apart, and the pool of interned strings, which is the room's only process-wide state:
 * node and zone names are the same pointers in all objects, whichever thread decoded them.
 * After an object is finished nothing in it changes but the reference count.
 */
#ifndef PB_KUBE_OBJECT_H
#define PB_KUBE_OBJECT_H

#include <base/base.h>
#include <base/scan.h>
#include <patchbay/kube.h>

/* Stands before every decoded object. References are counted on the loop thread only. */
struct pb_kube_object {
	uint32_t refs;
	uint32_t len;	 /* bytes of what follows */
	uint64_t digest; /* of the decoded content: equal objects have equal digests */
};

struct pb_kube_object *pb_kube_object_of(const struct pb_kube_meta *meta);
struct pb_kube_meta *pb_kube_object_meta(struct pb_kube_object *object);
/* The arena's product starts with one reference. unref(NULL) is fine. */
struct pb_kube_object *pb_kube_object_ref(struct pb_kube_object *object);
void pb_kube_object_unref(struct pb_kube_object *object);
/* True if both say the same. */
bool pb_kube_object_same(const struct pb_kube_object *a, const struct pb_kube_object *b);
/* Gives back the interned strings of an object that never was finished. */
void pb_kube_release_strings(const struct pb_kube_meta *meta);

/* ---- interned strings; any thread ---- */

/* A string with one reference more; "" is never counted. NULL without memory. */
const char *pb_kube_intern(const char *text, size_t len);
void pb_kube_intern_ref(const char *interned, uint32_t more);
void pb_kube_intern_unref(const char *interned);
/* unref() for many: drop() between lock() and unlock(), nothing else of the pool meanwhile. */
void pb_kube_intern_lock(void);
void pb_kube_intern_drop(const char *interned);
void pb_kube_intern_unlock(void);
/* How many strings the pool holds. */
size_t pb_kube_intern_count(void);

/* ---- putting one object together ---- */

struct pb_kube_arena {
	char *base; /* scratch; the object's structure is at its start */
	size_t len;
	size_t cap;
	uint32_t *slots; /* offsets of pointers that point into the scratch */
	size_t n_slots;
	size_t cap_slots;
	int rc; /* the first failure; later calls do nothing */
};

/*
 * Makes room for what `json_len` bytes of text can decode to, and for the object's structure of
 * `size` bytes (zeroed), which is returned; NULL without memory.
 */
void *pb_kube_arena_start(struct pb_kube_arena *arena, size_t json_len, size_t size);
void pb_kube_arena_stop(struct pb_kube_arena *arena);
/* The string's text in the arena; "" (outside of it) for an empty one or a failure. */
const char *pb_kube_arena_text(struct pb_kube_arena *arena, struct pb_span string);
/* Notes that *slot, a pointer in the arena, may point into it. */
void pb_kube_arena_slot(struct pb_kube_arena *arena, const void *slot);
/*
 * Copies n elements into the arena; `slots` are the offsets of pointers in an element, ended by
 * a negative one; NULL for none. NULL for n 0 or a failure.
 */
void *pb_kube_arena_copy(struct pb_kube_arena *arena, const void *elements, size_t n, size_t size,
			 const int *slots);
/* The finished object in an allocation of its exact size; NULL without memory. */
struct pb_kube_object *pb_kube_arena_finish(const struct pb_kube_arena *arena);

#endif
