/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decision table, one function a row group.
 */
#include "source.h"

#include <stddef.h>
#include <string.h>

enum es_api es_api_of(const char *version)
{
	if (!version || !*version)
		return ES_API_NONE;
	return strcmp(version, "discovery.k8s.io/v1beta1") == 0 ? ES_API_V1BETA1 : ES_API_V1;
}

static struct es_decision only(enum es_known known, enum es_policy policy, bool want_endpoints)
{
	struct es_decision d = {.want_endpoints = want_endpoints};

	if (known == ES_SYNCED)
		d.policy = policy;
	if (known != ES_UNKNOWN)
		d.reason = known == ES_SYNCED ? ES_WHY_CONFIGURED : ES_WHY_NOTHING;
	return d;
}

static struct es_decision without_slices(const struct es_facts *f)
{
	struct es_decision d = {.want_endpoints = true};

	if (f->endpoints == ES_SYNCED)
		d.policy = ES_FROM_ENDPOINTS;
	if (f->endpoints != ES_UNKNOWN)
		d.reason = f->endpoints == ES_SYNCED ? ES_WHY_NO_SLICES : ES_WHY_NOTHING;
	return d;
}

/* The API is there, but of default/kubernetes, which always has one, there is no slice. */
static bool nobody_makes_slices(const struct es_facts *f)
{
	return f->api != ES_API_NONE && !f->slice_seen && f->endpoints == ES_SYNCED &&
	       f->endpoints_seen;
}

static struct es_decision with_both(const struct es_facts *f)
{
	struct es_decision d = {.want_endpoints = true};

	if (f->endpoints == ES_UNKNOWN)
		return d;
	if (f->endpoints == ES_ABSENT) {
		d.policy = ES_FROM_SLICES;
		d.reason = ES_WHY_NO_ENDPOINTS;
	} else if (nobody_makes_slices(f)) {
		d.policy = ES_FROM_ENDPOINTS;
		d.reason = ES_WHY_NO_MAKER;
	} else {
		d.policy = ES_FROM_BOTH;
		d.reason = f->api == ES_API_NONE ? ES_WHY_MANIFESTS : ES_WHY_NO_MIRROR;
	}
	return d;
}

/* Slices are all there is to read, as soon as no Service depends on Endpoints any more. */
static struct es_decision with_slices(const struct es_facts *f)
{
	bool depends = f->policy != 0 && f->policy != ES_FROM_SLICES && f->endpoints == ES_SYNCED;

	/* Not before the policy has been in force for a moment: only then the count is right. */
	if (depends && (f->policy != ES_MOVING || f->from_endpoints > 0))
		return (struct es_decision){.policy = ES_MOVING,
					    .reason = ES_WHY_MOVING,
					    .want_endpoints = true,
					    .looked = f->looked};
	return (struct es_decision){.policy = ES_FROM_SLICES,
				    .reason = ES_WHY_SERVED,
				    .looked = f->looked};
}

static struct es_decision with_v1(const struct es_facts *f)
{
	struct es_facts looked = *f;

	if (f->slice_seen || f->looked)
		return with_slices(f);
	if (f->endpoints == ES_UNKNOWN)
		return (struct es_decision){.want_endpoints = true};
	if (nobody_makes_slices(f))
		return (struct es_decision){.policy = ES_FROM_ENDPOINTS,
					    .reason = ES_WHY_NO_MAKER,
					    .want_endpoints = true};
	looked.looked = true;
	return with_slices(&looked);
}

struct es_decision es_decide(const struct es_facts *f)
{
	struct es_decision d;

	if (f->mode == ES_ENDPOINTS)
		d = only(f->endpoints, ES_FROM_ENDPOINTS, true);
	else if (f->mode == ES_SLICES)
		d = only(f->slices, ES_FROM_SLICES, false);
	else if (f->slices == ES_UNKNOWN)
		d = (struct es_decision){.want_endpoints =
						 f->policy != 0 && f->policy != ES_FROM_SLICES};
	else if (f->slices == ES_ABSENT)
		d = without_slices(f);
	else
		d = f->api == ES_API_V1 ? with_v1(f) : with_both(f);
	/* Without the list of Services nobody could tell an empty one from one that is gone. */
	if (f->services == ES_UNKNOWN && f->policy == 0) {
		d.policy = 0;
		d.reason = ES_WHY_WAITING;
	}
	return d;
}

const char *es_policy_text(enum es_policy policy)
{
	switch (policy) {
	case ES_FROM_SLICES:
		return "EndpointSlices";
	case ES_FROM_ENDPOINTS:
		return "Endpoints";
	case ES_FROM_BOTH:
		return "EndpointSlices, Endpoints for Services without";
	case ES_MOVING:
		return "from Endpoints to EndpointSlices";
	}
	return "none yet";
}

const char *es_reason_text(enum es_reason reason)
{
	static const char *const texts[] = {
		[ES_WHY_WAITING] = "a first list is not complete",
		[ES_WHY_CONFIGURED] = "configured",
		[ES_WHY_SERVED] = "the cluster makes EndpointSlices",
		[ES_WHY_NO_MIRROR] = "v1beta1 may be without mirroring of Endpoints",
		[ES_WHY_MANIFESTS] = "the source has whatever was written",
		[ES_WHY_NO_SLICES] = "the source has no EndpointSlices, or may not list them",
		[ES_WHY_NO_MAKER] = "default/kubernetes has Endpoints, but no EndpointSlice",
		[ES_WHY_MOVING] = "EndpointSlices have appeared; some Services wait for theirs",
		[ES_WHY_NO_ENDPOINTS] = "Endpoints are not served, or may not be listed",
		[ES_WHY_NOTHING] = "nothing that may be read can be listed",
	};

	return texts[reason];
}
