/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which API backends are read from: the decision table.
 *
 * Owns the rules of docs/behaviour/endpointslice.md (E23, E36 and following) about EndpointSlices
 * and Endpoints. Pure: what is known goes in, what to do comes out.
 */
#ifndef ENDPOINTSLICE_SOURCE_H
#define ENDPOINTSLICE_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "store.h"

/* Key `enabled`. */
enum es_mode {
	ES_AUTO = 0,
	ES_SLICES = 1,	  /* true: slices only */
	ES_ENDPOINTS = 2, /* false: Endpoints only */
};

enum es_known {
	ES_UNKNOWN = 0, /* not asked for, or the first list isn't complete */
	ES_SYNCED = 1,
	ES_ABSENT = 2, /* not served, or not allowed to be listed */
};

/* The version that slices were listed from. */
enum es_api {
	ES_API_NONE = 0, /* the source has no versions: a manifest directory */
	ES_API_V1BETA1 = 1,
	ES_API_V1 = 2,
};

struct es_facts {
	enum es_mode mode;
	enum es_known services;
	enum es_known slices;
	enum es_known endpoints;
	enum es_api api;
	enum es_policy policy;	 /* in force; 0: none yet */
	uint32_t from_endpoints; /* Services that are read from Endpoints */
	bool slice_seen;	 /* a slice of default/kubernetes, since slices were synced */
	bool endpoints_seen;	 /* Endpoints default/kubernetes are there */
	bool looked;		 /* neither was there when both were known */
};

enum es_reason {
	ES_WHY_WAITING = 0,	 /* a first list isn't complete */
	ES_WHY_CONFIGURED = 1,	 /* enabled: true or false */
	ES_WHY_SERVED = 2,	 /* v1 slices, and somebody makes them */
	ES_WHY_NO_MIRROR = 3,	 /* v1beta1: nobody mirrors hand-made Endpoints */
	ES_WHY_MANIFESTS = 4,	 /* both are whatever somebody wrote */
	ES_WHY_NO_SLICES = 5,	 /* the source has none */
	ES_WHY_NO_MAKER = 6,	 /* served, but nobody makes slices */
	ES_WHY_MOVING = 7,	 /* slices have appeared, some Services still wait for theirs */
	ES_WHY_NO_ENDPOINTS = 8, /* Endpoints can't be read, so slices alone */
	ES_WHY_NOTHING = 9,	 /* nothing that may be read can be */
};

struct es_decision {
	enum es_policy policy; /* 0: publish nothing new for now */
	enum es_reason reason;
	bool want_endpoints; /* watch them */
	bool looked;	     /* to be kept in es_facts */
};

struct es_decision es_decide(const struct es_facts *facts);
/* "discovery.k8s.io/v1" as a number; an unknown one counts as v1. */
enum es_api es_api_of(const char *version);

const char *es_policy_text(enum es_policy policy);
const char *es_reason_text(enum es_reason reason);

#endif
