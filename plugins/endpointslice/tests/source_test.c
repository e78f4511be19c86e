/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decision table: what is known, and where backends are read from.
 */
#include <criterion/criterion.h>

#include "../source.h"

#define ALL_KNOWN .services = ES_SYNCED

static const struct {
	const char *name;
	struct es_facts facts;
	enum es_policy policy;
	enum es_reason reason;
	bool want_endpoints;
} cases[] = {
	{"E23 enabled: false reads Endpoints, whatever else there is",
	 {ALL_KNOWN, .mode = ES_ENDPOINTS, .endpoints = ES_SYNCED, .slices = ES_SYNCED},
	 ES_FROM_ENDPOINTS,
	 ES_WHY_CONFIGURED,
	 true},
	{"E35 nothing is decided before discovery has answered",
	 {ALL_KNOWN, .slices = ES_UNKNOWN},
	 0,
	 ES_WHY_WAITING,
	 false},
	{"E41 v1 with a slice of default/kubernetes: Endpoints are never asked for",
	 {ALL_KNOWN, .slices = ES_SYNCED, .api = ES_API_V1, .slice_seen = true},
	 ES_FROM_SLICES,
	 ES_WHY_SERVED,
	 false},
	{"E42 v1 without it: Endpoints are looked at",
	 {ALL_KNOWN, .slices = ES_SYNCED, .api = ES_API_V1},
	 0,
	 ES_WHY_WAITING,
	 true},
	{"E42 and used when default/kubernetes has some",
	 {ALL_KNOWN, .slices = ES_SYNCED, .api = ES_API_V1, .endpoints = ES_SYNCED,
	  .endpoints_seen = true},
	 ES_FROM_ENDPOINTS,
	 ES_WHY_NO_MAKER,
	 true},
	{"E43 or let go of when it has none either",
	 {ALL_KNOWN, .slices = ES_SYNCED, .api = ES_API_V1, .endpoints = ES_SYNCED},
	 ES_FROM_SLICES,
	 ES_WHY_SERVED,
	 false},
	{"E43 or when they may not be listed",
	 {ALL_KNOWN, .slices = ES_SYNCED, .api = ES_API_V1, .endpoints = ES_ABSENT},
	 ES_FROM_SLICES,
	 ES_WHY_SERVED,
	 false},
	{"E44 v1beta1 has no mirroring: Endpoints for Services without slices",
	 {ALL_KNOWN, .slices = ES_SYNCED, .api = ES_API_V1BETA1, .endpoints = ES_SYNCED,
	  .endpoints_seen = true, .slice_seen = true},
	 ES_FROM_BOTH,
	 ES_WHY_NO_MIRROR,
	 true},
	{"E44 not before the Endpoints are in",
	 {ALL_KNOWN, .slices = ES_SYNCED, .api = ES_API_V1BETA1, .slice_seen = true},
	 0,
	 ES_WHY_WAITING,
	 true},
	{"E44 slices alone when Endpoints may not be listed",
	 {ALL_KNOWN, .slices = ES_SYNCED, .api = ES_API_V1BETA1, .endpoints = ES_ABSENT,
	  .slice_seen = true},
	 ES_FROM_SLICES,
	 ES_WHY_NO_ENDPOINTS,
	 true},
	{"E42 v1beta1 whose controller is off: Endpoints",
	 {ALL_KNOWN, .slices = ES_SYNCED, .api = ES_API_V1BETA1, .endpoints = ES_SYNCED,
	  .endpoints_seen = true},
	 ES_FROM_ENDPOINTS,
	 ES_WHY_NO_MAKER,
	 true},
	{"E45 manifests: slices, Endpoints for Services without; nobody is warned of",
	 {ALL_KNOWN, .slices = ES_SYNCED, .api = ES_API_NONE, .endpoints = ES_SYNCED,
	  .endpoints_seen = true},
	 ES_FROM_BOTH,
	 ES_WHY_MANIFESTS,
	 true},
	{"E46 group absent, or 403 on the list: Endpoints",
	 {ALL_KNOWN, .slices = ES_ABSENT, .endpoints = ES_SYNCED},
	 ES_FROM_ENDPOINTS,
	 ES_WHY_NO_SLICES,
	 true},
	{"E46 not before they are in", {ALL_KNOWN, .slices = ES_ABSENT}, 0, ES_WHY_WAITING, true},
	{"E47 neither can be listed: nothing is published, nothing taken away",
	 {ALL_KNOWN, .slices = ES_ABSENT, .endpoints = ES_ABSENT},
	 0,
	 ES_WHY_NOTHING,
	 true},
	{"E48 slices appear: Endpoints stay until no Service needs them",
	 {ALL_KNOWN, .slices = ES_SYNCED, .api = ES_API_V1, .endpoints = ES_SYNCED,
	  .slice_seen = true, .policy = ES_FROM_ENDPOINTS, .from_endpoints = 3},
	 ES_MOVING,
	 ES_WHY_MOVING,
	 true},
	{"E48 some Services still need them",
	 {ALL_KNOWN, .slices = ES_SYNCED, .api = ES_API_V1, .endpoints = ES_SYNCED,
	  .slice_seen = true, .policy = ES_MOVING, .from_endpoints = 1},
	 ES_MOVING,
	 ES_WHY_MOVING,
	 true},
	{"E48 none does",
	 {ALL_KNOWN, .slices = ES_SYNCED, .api = ES_API_V1, .endpoints = ES_SYNCED,
	  .slice_seen = true, .policy = ES_MOVING},
	 ES_FROM_SLICES,
	 ES_WHY_SERVED,
	 false},
	{"E49 slices vanish: what was published stays until the Endpoints are in",
	 {ALL_KNOWN, .slices = ES_ABSENT, .policy = ES_FROM_SLICES},
	 0,
	 ES_WHY_WAITING,
	 true},
	{"E50 enabled: true: slices of any version, no Endpoints",
	 {ALL_KNOWN, .mode = ES_SLICES, .slices = ES_SYNCED, .api = ES_API_V1BETA1},
	 ES_FROM_SLICES,
	 ES_WHY_CONFIGURED,
	 false},
	{"E50 enabled: true never falls back",
	 {ALL_KNOWN, .mode = ES_SLICES, .slices = ES_ABSENT},
	 0,
	 ES_WHY_NOTHING,
	 false},
	{"E36 nothing is published before the Services are in",
	 {.slices = ES_SYNCED, .api = ES_API_V1, .slice_seen = true},
	 0,
	 ES_WHY_WAITING,
	 false},
};

Test(source, E35_E36_E41_E42_E43_E44_E45_E46_E47_E48_E49_E50_the_decision_table)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct es_decision d = es_decide(&cases[i].facts);

		cr_expect_eq(d.policy, cases[i].policy, "%s: policy %d", cases[i].name, d.policy);
		cr_expect_eq(d.reason, cases[i].reason, "%s: reason %d", cases[i].name, d.reason);
		cr_expect_eq(d.want_endpoints, cases[i].want_endpoints, "%s", cases[i].name);
	}
}

Test(source, versions_of_the_api)
{
	cr_expect_eq(es_api_of("discovery.k8s.io/v1"), ES_API_V1);
	cr_expect_eq(es_api_of("discovery.k8s.io/v1beta1"), ES_API_V1BETA1);
	cr_expect_eq(es_api_of(""), ES_API_NONE);
	cr_expect_eq(es_api_of(NULL), ES_API_NONE);
}

Test(source, every_policy_and_reason_has_a_text)
{
	for (uint32_t p = 0; p <= ES_MOVING; p++)
		cr_expect(es_policy_text(p)[0]);
	for (uint32_t r = 0; r <= ES_WHY_NOTHING; r++)
		cr_expect(es_reason_text(r)[0]);
}
