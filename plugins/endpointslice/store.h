/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which objects stand behind each Service, and which of its parts have to be published anew.
 *
 * Owns the objects' place in the Services, the choice between EndpointSlices and Endpoints for
 * each Service (never both at once) and the rhythm of publication. A change costs in proportion
 * to the slice that changed, never to the Service. Keeps the core's pointers, copies no object.
 * Pure: the clock is passed in, publication goes through a function.
 */
#ifndef ENDPOINTSLICE_STORE_H
#define ENDPOINTSLICE_STORE_H

#include "merge.h"

/* A quiet Service is published at once, then at most once in this many ms. */
#define ES_INTERVAL_MS 100
/* How long the loss of the last usable backend waits for a successor. */
#define ES_GRACE_MS 100
/* When a publication that failed is tried again. */
#define ES_RETRY_MS 1000

/* Where backends are read from. */
enum es_policy {
	ES_FROM_SLICES = 1,
	ES_FROM_ENDPOINTS = 2,
	ES_FROM_BOTH = 3, /* slices; Endpoints for a Service without any */
	/*
	 * On the way to ES_FROM_SLICES: a Service that was read from Endpoints goes over once its
	 * slices have as many usable backends.
	 */
	ES_MOVING = 4,
};

struct es_store;

struct es_store_ops {
	/* value NULL: withdraw. Returns 0 or a negative errno; it is tried again later. */
	int (*publish)(void *arg, const char *key, const void *value, size_t len);
	/* The Service's Endpoints, which are in use, lack addresses. Once, until they don't. */
	void (*truncated)(void *arg, const char *key);
	void *arg;
	const char *node;
	bool all_addresses; /* of an endpoint count, not only the first */
	uint64_t seed;	    /* not to be guessed by those who write slices */
};

/* NULL without memory. The strings of `ops` are borrowed. Nothing is published before open. */
struct es_store *es_store_new(const struct es_store_ops *ops);
void es_store_free(struct es_store *s);

/*
 * `old` is what the object replaces, or NULL; `now` what it is from now on, NULL when it is
 * deleted. Neither is kept that can't make a key: -EINVAL. -ENOMEM: the object was not taken in.
 */
int es_store_slice(struct es_store *s, const struct pb_kube_endpointslice *old,
		   const struct pb_kube_endpointslice *now, uint64_t now_ms);
int es_store_endpoints(struct es_store *s, const struct pb_kube_endpoints *old,
		       const struct pb_kube_endpoints *now, uint64_t now_ms);
/* Whether the Service itself exists: what nobody asks for any more is withdrawn. */
int es_store_service(struct es_store *s, const char *ns, const char *name, bool exists,
		     uint64_t now_ms);

/* From here on every Service is read by this policy; all of them become due. */
void es_store_open(struct es_store *s, enum es_policy policy, uint64_t now_ms);
/* Nothing is published until es_store_open(); what was stays. */
void es_store_hold(struct es_store *s);
/*
 * Forgets Endpoints objects, which the policy must not use, until `deadline_ms` of `clock_ms`
 * has come. True: there is none left.
 */
bool es_store_drop_endpoints(struct es_store *s, uint64_t (*clock_ms)(void *arg), void *arg,
			     uint64_t deadline_ms);
/* Publishes what is due until `deadline_ms` of `clock_ms` has come. */
void es_store_run(struct es_store *s, uint64_t (*clock_ms)(void *arg), void *arg,
		  uint64_t deadline_ms);
/* When es_store_run() is wanted next; UINT64_MAX: not before an event. */
uint64_t es_store_due(const struct es_store *s);
/* True once everything that es_store_open() made due has been published. */
bool es_store_drained(const struct es_store *s);

struct es_counts {
	uint32_t services; /* heads that are published */
	uint32_t parts;
	uint32_t backends;
	uint32_t duplicates;	 /* shown by one more slice of the same Service */
	uint32_t from_endpoints; /* Services that are read from Endpoints */
	uint64_t publications;	 /* calls of ops.publish */
	uint64_t work;		 /* backends looked at: what changes have cost */
};
struct es_counts es_store_counts(const struct es_store *s);
/* Whether any slice, or an Endpoints object, speaks of the Service. */
bool es_store_has_slices(struct es_store *s, const char *ns, const char *name);
bool es_store_has_endpoints(struct es_store *s, const char *ns, const char *name);

#endif
