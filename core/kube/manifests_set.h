/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the manifests in force say: files, their objects, and which file counts for an object
 * that several hold.
 *
 * Owns the difference between what a file held and what it holds now; tells the store put by
 * put and delete by delete, in steps that end when their time is over. Loop thread only.
 */
#ifndef PB_KUBE_MANIFESTS_SET_H
#define PB_KUBE_MANIFESTS_SET_H

#include <kube/manifests.h>
#include <kube/store.h>

struct pb_manifest_held;

/* One object of one file. */
struct pb_manifest_item {
	UT_hash_handle hh;	       /* of the item that counts: the first of its key */
	struct pb_manifest_item *next; /* of the same key, in other files, by file name */
	struct pb_manifest_item *in_file;
	struct pb_manifest_held *file;
	struct pb_kube_object *object; /* with a reference */
	uint64_t key;
	uint32_t kind;
	uint32_t round; /* of its file, in which it was last seen */
};

struct pb_manifest_held {
	UT_hash_handle hh;
	struct pb_manifest_item *items;
	struct pb_manifest_mark mark;
	uint32_t round;
	uint32_t seen;	/* the listing that last saw it */
	unsigned n;	/* items */
	char *error;	/* of the file, or of its first bad object; NULL: none */
	bool is_broken; /* the file could not be read; the items are those of before */
	char path[];
};

struct pb_manifest_set {
	struct pb_kube *kube;
	uint32_t kinds; /* bits of the kinds that are wanted */
	struct pb_manifest_held *files;
	struct pb_manifest_item *index;
	/* Where the application of a job's files stands. */
	struct pb_manifest_file *result;
	struct pb_manifest_held *held;
	struct pb_manifest_item **sweep;
	size_t at;
};

/* Starts to apply; the files stay the caller's until step() has said that it is done. */
void pb_manifest_set_start(struct pb_manifest_set *set, struct pb_manifest_file *files);
/* Works until the time (uv_hrtime()). True: there is more. */
bool pb_manifest_set_step(struct pb_manifest_set *set, uint64_t until);
/* Forgets a kind without telling the store, which forgets it by itself. */
void pb_manifest_set_forget(struct pb_manifest_set *set, uint32_t kind);
void pb_manifest_set_free(struct pb_manifest_set *set);

#endif
