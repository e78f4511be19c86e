/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fake API server holds, and how it is written: the history of changes, and the texts
 * that answers are made of.
 *
 * Owns spelling only; which change is told to whom is kube_fake_api.c's matter.
 */
#ifndef KUBE_FAKE_OBJECTS_H
#define KUBE_FAKE_OBJECTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "kube_fake_api.h"

struct fake_change {
	unsigned long rv;
	char *collection, *ns, *name;
	char *body; /* members after metadata */
	bool deleted;
	bool first;
};

struct fake_text {
	char *data;
	size_t len;
	FILE *file;
};

/* Writing goes to text->file; data is to be freed once closed. */
void fake_text_open(struct fake_text *text);
void fake_text_close(struct fake_text *text);

bool fake_same_object(const struct fake_change *a, const struct fake_change *b);
/* The changes that are the objects of a collection at version rv, in order of appearance. */
size_t fake_snapshot(struct fake_change *changes, size_t n_changes, const char *collection,
		     unsigned long rv, struct fake_change **out);
/* Items of a list carry no kind; objects of a watch (typed) do. */
void fake_print_object(FILE *f, const struct fake_change *c, unsigned long rv, bool typed);
void fake_print_event(FILE *f, const struct fake_change *c);
/* mark: the one that ends the initial objects of a WatchList. */
void fake_print_bookmark(FILE *f, const char *collection, unsigned long rv, bool mark);
/* A page of `items` from `from` to `to` of `all`. */
void fake_print_list(FILE *f, const char *collection, struct fake_change **items, size_t from,
		     size_t to, size_t all, unsigned long rv);
/* gzip with stored blocks (RFC 1951, 3.2.4): valid, if not small. */
void fake_gzip(struct fake_text *out, const char *data, size_t len);

#endif
