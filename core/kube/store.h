/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of struct pb_kube: what store.c (objects), watch.c (telling watchers) and kube.c
 * (source and life) share.
 *
 * Owns one rule: an entry's `object` is the truth, and a watch is either in step with it or has
 * one note saying what it was told last. Everything else (replay, holding back, coalescing,
 * how long an old object lives) follows from that.
 */
#ifndef PB_KUBE_STORE_IMPL_H
#define PB_KUBE_STORE_IMPL_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include <kube/decode.h>
#include <kube/kube.h>
#include <kube/source.h>

#define PB_KUBE_KINDS 7 /* enum pb_kube_kind, 0 unused */

/* "discovery.k8s.io/v1beta1" and longer ones. */
#define PB_KUBE_VERSION_MAX 128

/*
 * Of one kind: 150,000 pods with more than 3 KiB each. As much again is held while a list replaces
 * what was known before it.
 */
#define PB_KUBE_BYTES_MAX ((uint64_t)512 * 1024 * 1024)

/* One name of one kind. Lives on without an object until every watch was told. */
struct pb_kube_entry {
	UT_hash_handle hh;
	struct pb_kube_object *object; /* NULL: deleted */
	struct pb_kube_note *notes;    /* of all watches, one each at most */
	uint64_t seq;		       /* order of creation, which is the order of replay */
	uint32_t listed;	       /* the list that last put it */
	char key[];		       /* NAMESPACE/NAME */
};

/* What a watch has still to be told about an entry. */
struct pb_kube_note {
	struct pb_kube_note *next; /* of the watch */
	struct pb_kube_note *prev;
	struct pb_kube_note *entry_next;
	struct pb_kube_note *entry_prev;
	struct pb_kube_watch *watch;
	struct pb_kube_entry *entry;
	struct pb_kube_object *told; /* with a reference; NULL: nothing yet */
};

enum pb_kube_known {
	PB_KNOWN_NOT = 0,
	PB_KNOWN_SYNCED = 1,
	PB_KNOWN_ABSENT = 2,
};

struct pb_kube_watch {
	struct pb_kube_watch *next; /* of the kind */
	struct pb_kube_watch *prev;
	struct pb_kube *kube;
	uint32_t kind;
	uint64_t mark; /* equal to the store's: it has a note for the entry in question */
	pb_kube_watch_fn fn;
	void *arg;
	struct pb_kube_note *notes;   /* first in, first out */
	struct pb_kube_entry *cursor; /* the next entry to replay; NULL: done */
	uint64_t told;		      /* the store's known_serial */
	bool held;
	bool gone; /* unwatched inside its own callback */
};

struct pb_kube_store {
	struct pb_kube_entry *entries; /* in the order of `seq` */
	struct pb_kube_watch *watches;
	uint64_t mark; /* grows with each change */
	uint64_t next_seq;
	uint64_t objects;
	uint64_t bytes;	    /* of the objects that the newest list and events since have named */
	uint64_t old_bytes; /* of those that the list may still name */
	uint64_t events;
	uint64_t lists; /* complete ones */
	uint64_t refused;
	uint64_t last_change; /* uv_now() */
	uint32_t list;	      /* number of the newest list */
	bool listing;
	bool healthy;
	bool full; /* since the last list began an object had no room */
	enum pb_kube_known known;
	uint64_t known_serial;			/* grows when watches have to be told of `known` */
	char version[PB_KUBE_VERSION_MAX];	/* of the API, as the last complete list said */
	char next_version[PB_KUBE_VERSION_MAX]; /* of the list that is going on */
	char *state;
	char *last_error;
};

struct pb_kube {
	uv_loop_t *loop;
	uv_idle_t idle; /* runs while a watch has something to be told */
	struct pb_source *source;
	enum pb_kube_source_kind source_kind;
	char *source_path;
	char *source_error; /* why the configuration's source was not taken, NULL: it was */
	struct pb_kube_store stores[PB_KUBE_KINDS];
	struct pb_kube_watch *delivering;
	uint32_t turn;	    /* the kind that is served first */
	unsigned open;	    /* handles and sources still to close */
	uint64_t bytes_max; /* of each kind; tests have a smaller one */
	bool started;	    /* a configuration was applied, so no source means no objects */
	bool closing;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* ---- store.c ---- */

/* Takes the reference. The manifests' way: the object was decoded on the thread pool. */
void pb_kube_store_put(struct pb_kube *kube, struct pb_kube_object *object);
void pb_kube_store_refused(struct pb_kube *kube, uint32_t kind, const char *text);
/* Forgets all objects of a kind and tells its watches. */
void pb_kube_store_clear(struct pb_kube *kube, uint32_t kind);
/* What the source said of itself: it is another one, or nobody asks it any more. */
void pb_kube_state_forget(struct pb_kube_store *store);
/* Removes an entry that nobody needs any more. */
void pb_kube_store_settle(struct pb_kube_store *store, struct pb_kube_entry *entry);

/* ---- kube.c ---- */

/* Closes a source, which may be NULL; what it brought stays. */
void pb_kube_source_drop(struct pb_kube *kube, struct pb_source *source);

/* ---- watch.c ---- */

/* The entry's object is about to change from what it is now. */
void pb_kube_note_change(struct pb_kube *kube, uint32_t kind, struct pb_kube_entry *entry);
/* What is known of the kind as a whole; watches are told when it, or the version, is new. */
void pb_kube_known_set(struct pb_kube *kube, uint32_t kind, enum pb_kube_known known);
/* Something may have to be told. */
void pb_kube_wake(struct pb_kube *kube);
void pb_kube_idle_cb(uv_idle_t *idle);

#endif
