/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frontends and who claims them: each has a queue of claims, of which the first has it. A Service's
 * claims are one array, replaced as a whole; what old and new one have in common keeps its turn.
 */
#include "kpr_claims.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "kpr_fronts.h"

/* ---- frontends ---- */

struct kpr_front *kpr_model_front(const struct kpr_model *m, const struct pb_svc_key *key)
{
	struct kpr_front *front;

	HASH_FIND(hh, m->fronts, key, sizeof(*key), front);
	return front;
}

static struct kpr_front *add_front(struct kpr_model *m, const struct pb_svc_key *key)
{
	struct kpr_front *front = kpr_model_front(m, key);

	if (front)
		return front;
	front = calloc(1, sizeof(*front));
	if (!front)
		return NULL;
	front->key = *key;
	HASH_ADD(hh, m->fronts, key, sizeof(front->key), front);
	return front;
}

static void claim_insert(struct kpr_front *front, struct kpr_claim *claim)
{
	struct kpr_claim **at = &front->claims;

	/* Who had the frontend at the restart keeps it. */
	if (!front->adopted || front->value.owner != claim->svc->hash)
		while (*at)
			at = &(*at)->next;
	claim->next = *at;
	*at = claim;
}

int kpr_model_adopt(struct kpr_model *m, const struct pb_svc_key *key, const struct pb_svc *v,
		    struct kpr_pool *pool)
{
	struct kpr_front *front = add_front(m, key);
	struct kpr_claim *claim, *next;

	if (!front)
		return -ENOMEM;
	front->value = *v;
	front->pool = pool;
	front->programmed = true;
	front->adopted = true;
	claim = front->claims;
	front->claims = NULL;
	for (; claim; claim = next) {
		next = claim->next;
		claim_insert(front, claim);
	}
	return 0;
}

static void front_unclaimed(struct kpr_model *m, struct kpr_front *front)
{
	if (front->claims || front->gone)
		return;
	if (front->programmed) {
		front->gone = true;
		/* Deleted when the one that says it is there has been written: they come last. */
		if (front->key.scope == PB_SVC_SCOPE_EXT)
			DL_APPEND(m->gone, front);
		else
			DL_PREPEND(m->gone, front);
	} else {
		HASH_DEL(m->fronts, front);
		free(front);
	}
}

void kpr_model_deleted(struct kpr_model *m, struct kpr_front *front)
{
	front->programmed = false;
	if (front->gone)
		DL_DELETE(m->gone, front);
	front->gone = false;
	front_unclaimed(m, front);
}

/* At node addresses only the entry for all of them is spoken of. */
static void say_lost(const struct kpr_model *m, struct kpr_claim *claim)
{
	const struct pb_svc_key *key = &claim->front->key;
	uint32_t kind = PB_SVC_KIND(claim->flags);
	char addr[INET6_ADDRSTRLEN] = "";
	char text[512];

	claim->lost = true;
	if (!m->opts.warn || key->scope == PB_SVC_SCOPE_EXT ||
	    ((kind == PB_SVC_NODE_PORT || kind == PB_SVC_HOST_PORT) &&
	     (key->addr.v6[0] | key->addr.v6[1] | key->addr.v6[2] | key->addr.v6[3])))
		return;
	inet_ntop(key->family == 4 ? AF_INET : AF_INET6, &key->addr, addr, sizeof(addr));
	snprintf(text, sizeof(text),
		 "%s %s port %u is taken by %.300s, which came first: it is served when that goes",
		 kpr_kind_name(kind), addr, ntohs(key->port), claim->front->claims->svc->key);
	m->opts.warn(m->opts.warn_arg, claim->svc->key, text);
}

static void claim_add(struct kpr_model *m, struct kpr_claim *claim)
{
	struct kpr_claim *loser;
	struct kpr_front *front = claim->front;

	if (front->gone)
		DL_DELETE(m->gone, front);
	front->gone = false;
	claim_insert(front, claim);
	loser = front->claims == claim ? claim->next : claim;
	if (loser && !loser->lost)
		say_lost(m, loser);
}

static void claim_remove(struct kpr_model *m, struct kpr_claim *claim)
{
	struct kpr_front *front = claim->front;
	struct kpr_claim **at = &front->claims;
	bool had_it = front->claims == claim;

	while (*at != claim)
		at = &(*at)->next;
	*at = claim->next;
	front->adopted = front->adopted && front->value.owner != claim->svc->hash;
	if (had_it && front->claims) {
		front->claims->lost = false;
		kpr_model_dirty(m, front->claims->svc);
	}
	front_unclaimed(m, front);
}

bool kpr_model_owners_known(const struct kpr_model *m)
{
	return m->services_synced && m->pods_synced;
}

static bool has_turn(const struct kpr_model *m, const struct kpr_front *front,
		     const struct kpr_svc *svc)
{
	return front->claims && front->claims->svc == svc &&
	       (kpr_model_owners_known(m) || !front->adopted || front->value.owner == svc->hash);
}

bool kpr_claim_may_write(const struct kpr_model *m, const struct kpr_claim *claim)
{
	return has_turn(m, claim->front, claim->svc) &&
	       (!claim->base || has_turn(m, claim->base, claim->svc));
}

/* ---- the claims of a Service ---- */

struct wanted {
	struct kpr_model *m;
	struct kpr_svc *svc;
	struct kpr_claim *claims;
	struct kpr_front *base; /* the last one with scope INT, NULL: it was given twice */
	uint32_t n;
	uint32_t cap;
	bool at_node;
};

static int wanted_room(struct wanted *w)
{
	uint32_t cap = w->cap ? 2 * w->cap : 8;
	struct kpr_claim *claims = w->claims;

	if (w->n < w->cap)
		return 0;
	claims = realloc(claims, cap * sizeof(*claims));
	if (!claims)
		return -ENOMEM;
	w->claims = claims;
	w->cap = cap;
	return 0;
}

static int want(void *arg, const struct kpr_wish *wish)
{
	bool is_ext = wish->key.scope == PB_SVC_SCOPE_EXT;
	struct wanted *w = arg;
	struct kpr_front *front;
	struct kpr_port *port;

	w->at_node = w->at_node || wish->at_node;
	/* Of what is given twice the first counts, with all that belongs to it. */
	if (wish->why || (is_ext && !w->base))
		return 0;
	front = wanted_room(w) < 0 ? NULL : add_front(w->m, &wish->key);
	if (!front)
		return -ENOMEM;
	if (!is_ext)
		w->base = front->round == w->m->round ? NULL : front;
	if (front->round == w->m->round)
		return 0;
	front->round = w->m->round;
	port = kpr_port_add(w->m, w->svc, &wish->key, wish->local, wish->port->name);
	if (!port) {
		front_unclaimed(w->m, front);
		return -ENOMEM;
	}
	port->round = w->m->round;
	w->claims[w->n++] = (struct kpr_claim){.svc = w->svc,
					       .front = front,
					       .port = port,
					       .base = is_ext ? w->base : NULL,
					       .flags = wish->flags};
	return 0;
}

/* The claims of `obj`; frontends are made as needed. -ENOMEM: *w is empty. */
static int wanted_claims(struct wanted *w, const struct pb_kube_service *obj)
{
	int rc = 0;

	w->m->round++;
	if (kpr_fronts_any(obj, w->m->opts.proxy_name))
		rc = kpr_fronts_each(w->m, obj, want, w);
	if (rc == 0)
		return 0;
	while (w->n > 0)
		front_unclaimed(w->m, w->claims[--w->n].front);
	free(w->claims);
	return rc;
}

/* Where the Service's claim hangs in the frontend's queue, NULL when it has none. */
static struct kpr_claim **claim_of(struct kpr_front *front, const struct kpr_svc *svc)
{
	struct kpr_claim **at = &front->claims;

	while (*at && (*at)->svc != svc)
		at = &(*at)->next;
	return *at ? at : NULL;
}

/* Ports that no claim is for any more go; `round` marks the others. */
static void swap_ports(struct kpr_model *m, struct kpr_svc *svc, uint32_t round)
{
	struct kpr_port *port, *next;

	LL_FOREACH_SAFE(svc->ports, port, next)
	{
		if (svc->n_claims > 0 && port->round == round)
			continue;
		/* Changes that were noted name it. */
		if (svc->n_changes > 0)
			kpr_changes_drop(svc);
		LL_DELETE(svc->ports, port);
		kpr_port_free(m, port);
	}
}

/* Puts the new claims in the place of the old ones; what both have keeps its turn. */
static void swap_claims(struct kpr_model *m, struct kpr_svc *svc, struct kpr_claim *claims,
			uint32_t n)
{
	m->round++;
	for (uint32_t i = 0; i < n; i++) {
		struct kpr_claim **at = claim_of(claims[i].front, svc);

		claims[i].front->round = m->round;
		if (!at) {
			claim_add(m, &claims[i]);
			continue;
		}
		claims[i].next = (*at)->next;
		claims[i].lost = (*at)->lost;
		*at = &claims[i];
	}
	for (uint32_t i = 0; i < svc->n_claims; i++)
		if (svc->claims[i].front->round != m->round)
			claim_remove(m, &svc->claims[i]);
	free(svc->claims);
	svc->claims = claims;
	svc->n_claims = n;
}

/* ---- all of a Service ---- */

int kpr_claims_take(struct kpr_model *m, struct kpr_svc *svc, const struct pb_kube_service *obj)
{
	struct wanted w = {.m = m, .svc = svc};
	uint32_t round;
	int rc = wanted_claims(&w, obj);

	if (rc < 0)
		return rc;
	svc->at_node = w.at_node;
	round = m->round;
	swap_claims(m, svc, w.claims, w.n);
	swap_ports(m, svc, round);
	return 0;
}

void kpr_claims_drop(struct kpr_model *m, struct kpr_svc *svc)
{
	swap_claims(m, svc, NULL, 0);
	swap_ports(m, svc, 0);
}

void kpr_claims_sweep(struct kpr_model *m)
{
	struct kpr_front *front, *next;

	HASH_ITER (hh, m->fronts, front, next)
		front_unclaimed(m, front);
}
