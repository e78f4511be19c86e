/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the journal has told, as mapcheck_truth.c keeps it and mapcheck_judge.c reads it.
 *
 * The judge marks what it has seen and forgets what nothing asks about any more; it must never
 * change a time or a count.
 */
#ifndef MAPCHECK_TRUTH_H
#define MAPCHECK_TRUTH_H

#include <uthash.h>

#include "mapcheck.h"

/* A thing that comes and goes. Counts, because several slices may name one backend. */
struct presence {
	uint32_t possible;
	uint32_t certain;
	uint64_t possible_until; /* when `possible` became 0 */
	uint64_t certain_since;
};

struct backend {
	struct mc_endpoint at;
	struct presence here;
	uint32_t seen;	/* number of the picture that had it last */
	uint32_t twice; /* of the one that had it more than once */
	UT_hash_handle hh;
};

struct endpoints {
	struct mc_endpoint *list;
	bool *optional;
	uint32_t n;
};

struct slice {
	char *name;
	struct endpoints done;
	struct endpoints sent;
	bool pending;
	UT_hash_handle hh;
};

struct service {
	char *name;
	struct mc_endpoint at; /* family 0: no line has told it yet */
	struct presence here;
	bool pending;
	bool exists;
	struct backend *backends;
	struct slice *slices;
	uint32_t seen;
	UT_hash_handle hh;
	UT_hash_handle hh_at;
};

struct stranger {
	struct mc_endpoint at;
	uint64_t since;
	uint32_t seen;
	UT_hash_handle hh;
};

struct mc_truth {
	FILE *journal;
	char *line;
	size_t line_size;
	struct service *services;
	struct service *by_frontend;
	struct stranger *strangers;
	uint64_t cut;	 /* 0: connected */
	uint64_t joined; /* the end of the last cut */
	uint32_t pictures;
};

/* `p`, which is not NULL; else the program ends: a reader that lost something is no reader. */
void *mc_must(void *p);

#endif
