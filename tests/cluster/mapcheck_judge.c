/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares a picture of the maps with what the journal has told, by the rules of mapcheck.h.
 *
 * Must never call something right that it can't know, nor wrong what the rules leave open.
 */
#include <stdlib.h>
#include <string.h>

#include "mapcheck_truth.h"

static bool was_possible(const struct presence *here, uint64_t since)
{
	return here->possible > 0 || here->possible_until >= since;
}

static bool was_certain(const struct presence *here, uint64_t since)
{
	return here->certain > 0 && here->certain_since <= since;
}

/* What judging one picture needs everywhere. */
struct judge {
	struct mc_truth *truth;
	FILE *out;
	uint64_t now;
	uint64_t since;
	uint64_t grace;
	unsigned wrong;
};

static void wrong(struct judge *judge, const char *service, const struct mc_endpoint *frontend,
		  const struct mc_endpoint *backend, const char *what)
{
	char at[MC_ENDPOINT_TEXT], to[MC_ENDPOINT_TEXT] = "";

	judge->wrong++;
	if (backend)
		mc_endpoint_text(backend, to);
	fprintf(judge->out, "wrong %llu %s %s %s %s\n", (unsigned long long)judge->now, service,
		mc_endpoint_text(frontend, at), backend ? to : "-", what);
}

static void judge_backends(struct judge *judge, struct service *service,
			   const struct mc_frontend *frontend)
{
	const uint32_t number = judge->truth->pictures;
	struct backend *backend, *next;

	for (uint32_t i = 0; i < frontend->n_backends; i++) {
		const struct mc_endpoint *at = &frontend->backends[i];

		HASH_FIND(hh, service->backends, at, sizeof(*at), backend);
		if (!backend) {
			wrong(judge, service->name, &frontend->at, at, "was never a backend");
			continue;
		}
		/* Once it is a pool that is being rearranged. */
		if (backend->seen == number) {
			if (backend->twice && backend->twice == number - 1)
				wrong(judge, service->name, &frontend->at, at, "is there twice");
			backend->twice = number;
		}
		if (!was_possible(&backend->here, judge->since))
			wrong(judge, service->name, &frontend->at, at, "was removed long ago");
		backend->seen = number;
	}
	HASH_ITER (hh, service->backends, backend, next) {
		if (backend->seen != number && was_certain(&backend->here, judge->since))
			wrong(judge, service->name, &frontend->at, &backend->at, "is missing");
		/* Nothing asks about it again, except to say that it was removed. */
		if (!backend->here.possible && !judge->truth->cut && backend->seen != number &&
		    backend->here.possible_until + 10 * judge->grace < judge->now) {
			HASH_DEL(service->backends, backend);
			free(backend);
		}
	}
}

/* A frontend without a line: its line may be on the way. */
static void judge_stranger(struct judge *judge, const struct mc_endpoint *at)
{
	struct stranger *stranger;

	HASH_FIND(hh, judge->truth->strangers, at, sizeof(*at), stranger);
	if (!stranger) {
		stranger = mc_must(calloc(1, sizeof(*stranger)));
		stranger->at = *at;
		stranger->since = judge->now;
		HASH_ADD(hh, judge->truth->strangers, at, sizeof(stranger->at), stranger);
	}
	stranger->seen = judge->truth->pictures;
	if (stranger->since < judge->since)
		wrong(judge, "-", at, NULL, "is nobody's frontend");
}

static void judge_absent(struct judge *judge)
{
	const uint32_t number = judge->truth->pictures;
	struct service *service, *next;
	struct stranger *stranger, *next_stranger;

	HASH_ITER (hh, judge->truth->services, service, next) {
		if (service->seen != number && was_certain(&service->here, judge->since))
			wrong(judge, service->name, &service->at, NULL, "is missing");
	}
	HASH_ITER (hh, judge->truth->strangers, stranger, next_stranger) {
		if (stranger->seen == number)
			continue;
		HASH_DEL(judge->truth->strangers, stranger);
		free(stranger);
	}
}

unsigned mc_truth_judge(struct mc_truth *truth, const struct mc_picture *picture, uint64_t now,
			uint64_t grace, bool others, FILE *out)
{
	uint64_t from = now;
	struct judge judge = {.truth = truth, .out = out, .now = now, .grace = grace};

	/* After a cut the agent has the grace time for what it heard of late. */
	if (truth->joined && truth->joined + grace < now)
		truth->cut = truth->joined = 0;
	if (truth->cut && truth->cut < now)
		from = truth->cut;
	judge.since = from - grace;
	truth->pictures++;
	for (uint32_t i = 0; i < picture->n_frontends; i++) {
		const struct mc_frontend *frontend = &picture->frontends[i];
		struct service *service;

		HASH_FIND(hh_at, truth->by_frontend, &frontend->at, sizeof(frontend->at), service);
		if (!service) {
			if (!others)
				judge_stranger(&judge, &frontend->at);
			continue;
		}
		service->seen = truth->pictures;
		if (!was_possible(&service->here, judge.since))
			wrong(&judge, service->name, &frontend->at, NULL, "is gone for long");
		if (!frontend->unsettled)
			judge_backends(&judge, service, frontend);
	}
	judge_absent(&judge);
	return judge.wrong;
}
