/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which objects stand behind each Service, and which Services have to be published anew.
 *
 * Owns the choice between EndpointSlices and Endpoints (never both for one Service) and the
 * rhythm of publication. Keeps the core's pointers, copies no object. Pure: the clock is passed
 * in, publication goes through a function.
 */
#ifndef ENDPOINTSLICE_STORE_H
#define ENDPOINTSLICE_STORE_H

#include "merge.h"

/* A Service is published at once when it was quiet, then at most once in this many ms. */
#define ES_INTERVAL_MS 100
#define ES_INTERVAL_MAX_MS 1000
/* A Service of this many backends waits a millisecond longer: publishing it costs that much. */
#define ES_BACKENDS_PER_MS 22

struct es_service;
struct es_store;

struct es_store_ops {
	/* value NULL: withdraw. Returns 0 or a negative errno; it is tried again later. */
	int (*publish)(void *arg, const char *key, const void *value, size_t len);
	void *arg;
	const char *node;
};

/* NULL without memory. The strings of `ops` are borrowed. */
struct es_store *es_store_new(const struct es_store_ops *ops);
void es_store_free(struct es_store *s);

/*
 * `old` is what the object replaces, or NULL; `now` what it is from now on, NULL when it is
 * deleted. -ENOMEM: the object was not taken in.
 */
int es_store_slice(struct es_store *s, const struct pb_kube_endpointslice *old,
		   const struct pb_kube_endpointslice *now, uint64_t now_ms);
int es_store_endpoints(struct es_store *s, const struct pb_kube_endpoints *old,
		       const struct pb_kube_endpoints *now, uint64_t now_ms);
/* Whether the Service itself exists: what nobody asks for any more is withdrawn. */
int es_store_service(struct es_store *s, const char *ns, const char *name, bool exists,
		     uint64_t now_ms);

/* Until this call nothing is published; then every Service is due. */
void es_store_open(struct es_store *s, uint64_t now_ms);
/*
 * Publishes what is due until `deadline_ms` of `clock_ms` has come. Returns the time at which
 * it has to be called again, UINT64_MAX when nothing waits.
 */
uint64_t es_store_run(struct es_store *s, uint64_t (*clock_ms)(void *arg), void *arg,
		      uint64_t deadline_ms);
/* When es_store_run() is wanted next; UINT64_MAX: not before an event. */
uint64_t es_store_due(const struct es_store *s);
/* True once everything that es_store_open() made due has been published. */
bool es_store_drained(const struct es_store *s);

struct es_counts {
	uint32_t services;
	uint32_t from_endpoints; /* Services that only Endpoints tell of */
	uint64_t publications;
};
struct es_counts es_store_counts(const struct es_store *s);
/* Whether the Service is known from Endpoints only. */
bool es_store_from_endpoints(struct es_store *s, const char *ns, const char *name);

#endif
