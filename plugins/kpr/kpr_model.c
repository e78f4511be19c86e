/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services and frontends, each in a hash; a Service that changed goes to the dirty list, a
 * frontend that lost its last claim to the gone list. Who writes the maps empties both.
 */
#include "kpr_model.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "kpr_fronts.h"
#include "kpr_pools.h"
#include "kpr_sources.h"

#define KEY_MAX 512
#define FNV_BASIS 0xcbf29ce484222325ULL
#define FNV_PRIME 0x100000001b3ULL

uint64_t kpr_hash_name(const char *key)
{
	uint64_t hash = FNV_BASIS;

	for (; *key; key++)
		hash = (hash ^ (unsigned char)*key) * FNV_PRIME;
	return hash;
}

/* ---- the lists ---- */

void kpr_model_init(struct kpr_model *m, const struct kpr_model_opts *opts)
{
	memset(m, 0, sizeof(*m));
	m->opts = *opts;
}

/* Who writes the maps deletes them once no frontend names them. */
static void drop_sources(struct kpr_model *m, struct kpr_svc *svc)
{
	if (svc->sources)
		LL_PREPEND(m->unwanted_sources, svc->sources);
	svc->sources = NULL;
}

static void svc_free(struct kpr_model *m, struct kpr_svc *svc)
{
	struct kpr_part *part, *next_part;
	struct kpr_port *port, *next_port;

	DL_FOREACH_SAFE(svc->parts, part, next_part)
	kpr_part_free(m, part);
	LL_FOREACH_SAFE(svc->ports, port, next_port)
	kpr_port_free(m, port);
	HASH_DEL(m->svcs, svc);
	drop_sources(m, svc);
	free(svc->changes);
	free(svc->claims);
	free(svc->extra);
	free(svc);
}

/* All at once: taking each out of its hash first would cost the agent's loop twice the time. */
void kpr_model_free(struct kpr_model *m)
{
	struct kpr_front *front = m->fronts, *next_front;
	struct kpr_svc *svc = m->svcs, *next_svc;

	HASH_CLEAR(hh, m->fronts);
	HASH_CLEAR(hh, m->svcs);
	HASH_CLEAR(hh, m->parts);
	HASH_CLEAR(hh, m->ports);
	for (; svc; svc = next_svc) {
		struct kpr_part *part, *next_part;
		struct kpr_port *port, *next_port;

		next_svc = svc->hh.next;
		/* The walk waits for memory most of the time. */
		if (next_svc) {
			__builtin_prefetch(next_svc->hh.next);
			__builtin_prefetch(next_svc->parts);
			__builtin_prefetch(next_svc->ports);
			__builtin_prefetch(next_svc->claims);
		}
		DL_FOREACH_SAFE(svc->parts, part, next_part)
		free(part);
		LL_FOREACH_SAFE(svc->ports, port, next_port)
		free(port);
		free(svc->changes);
		free(svc->claims);
		free(svc->extra);
		free(svc);
	}
	free(m->addresses);
	for (; front; front = next_front) {
		next_front = front->hh.next;
		if (next_front)
			__builtin_prefetch(next_front->hh.next);
		free(front);
	}
	memset(m, 0, sizeof(*m));
}

void kpr_model_dirty(struct kpr_model *m, struct kpr_svc *svc)
{
	if (!svc->dirty)
		DL_APPEND(m->dirty, svc);
	svc->dirty = true;
}

void kpr_model_forget(struct kpr_model *m, struct kpr_svc *svc)
{
	if (!svc->obj && !svc->head && !svc->parts && !svc->dirty)
		svc_free(m, svc);
}

struct kpr_svc *kpr_model_next_dirty(struct kpr_model *m)
{
	struct kpr_svc *svc;

	while ((svc = m->dirty)) {
		DL_DELETE(m->dirty, svc);
		svc->dirty = false;
		if (svc->obj)
			return svc;
		kpr_model_forget(m, svc);
	}
	return NULL;
}

struct kpr_svc *kpr_model_find(const struct kpr_model *m, const char *key)
{
	struct kpr_svc *svc;

	HASH_FIND_STR(m->svcs, key, svc);
	return svc;
}

struct kpr_svc *kpr_model_add(struct kpr_model *m, const char *key)
{
	struct kpr_svc *svc = kpr_model_find(m, key);
	size_t len = strlen(key);

	if (svc)
		return svc;
	svc = calloc(1, sizeof(*svc) + len + 1);
	if (!svc)
		return NULL;
	memcpy(svc->key, key, len);
	svc->hash = kpr_hash_name(key);
	svc->serial = ++m->next_serial;
	for (const char *const *name = m->opts.fail_open; name && *name; name++)
		svc->fail_open = svc->fail_open || strcmp(*name, key) == 0;
	HASH_ADD_KEYPTR(hh, m->svcs, svc->key, len, svc);
	return svc;
}

/* ---- frontends and claims ---- */

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
	port->outside = wish->outside || (port->outside && port->round == w->m->round);
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

/* ---- events ---- */

static int make_key(char *key, const struct pb_kube_meta *meta)
{
	int len = snprintf(key, KEY_MAX, "%s/%s", meta->ns, meta->name);

	return len > 0 && len < KEY_MAX ? 0 : -EINVAL;
}

/* Said again only when it is about something else than the last time. */
static void warn_of(struct kpr_model *m, struct kpr_svc *svc, const struct pb_kube_service *obj)
{
	char text[1024] = "";
	char *line = text, *end;
	uint64_t hash;

	if (kpr_fronts_any(obj, m->opts.proxy_name))
		kpr_fronts_warnings(m, obj, text, sizeof(text));
	hash = *text ? kpr_hash_name(text) : 0;
	if (hash == svc->warned)
		return;
	svc->warned = hash;
	for (; *line && m->opts.warn; line = end) {
		end = line + strcspn(line, "\n");
		if (*end)
			*end++ = '\0';
		m->opts.warn(m->opts.warn_arg, svc->key, line);
	}
}

static int take_in(struct kpr_model *m, struct kpr_svc *svc, const struct pb_kube_service *obj)
{
	struct wanted w = {.m = m, .svc = svc};
	uint32_t round;
	int rc = wanted_claims(&w, obj);

	if (rc < 0)
		return rc;
	m->n_services += !svc->obj && obj->type != KPR_TYPE_HOST_PORT;
	svc->obj = obj;
	svc->affinity_s = kpr_fronts_affinity(obj);
	svc->at_node = w.at_node;
	svc->stale = false;
	round = m->round;
	swap_claims(m, svc, w.claims, w.n);
	swap_ports(m, svc, round);
	return 0;
}

int kpr_model_put(struct kpr_model *m, struct kpr_svc *svc, const struct pb_kube_service *obj)
{
	int rc = take_in(m, svc, obj);

	if (rc < 0)
		return rc;
	kpr_model_dirty(m, svc);
	warn_of(m, svc, obj);
	return 0;
}

int kpr_model_service(struct kpr_model *m, const struct pb_kube_service *obj)
{
	struct kpr_svc *svc;
	char key[KEY_MAX];
	int rc;

	if (make_key(key, &obj->meta) < 0)
		return -EINVAL;
	svc = kpr_model_add(m, key);
	if (!svc)
		return -ENOMEM;
	rc = kpr_model_put(m, svc, obj);
	if (rc < 0)
		kpr_model_forget(m, svc);
	return rc;
}

int kpr_model_refresh(struct kpr_model *m, struct kpr_svc *svc)
{
	return svc->stale ? take_in(m, svc, svc->obj) : 0;
}

void kpr_model_gone(struct kpr_model *m, struct kpr_svc *svc)
{
	m->n_services -= svc->obj && svc->obj->type != KPR_TYPE_HOST_PORT;
	svc->obj = NULL;
	svc->state = KPR_SVC_OK;
	drop_sources(m, svc);
	swap_claims(m, svc, NULL, 0);
	swap_ports(m, svc, 0);
	kpr_model_forget(m, svc);
}

void kpr_model_service_gone(struct kpr_model *m, const struct pb_kube_service *obj)
{
	struct kpr_svc *svc;
	char key[KEY_MAX];

	if (make_key(key, &obj->meta) < 0)
		return;
	svc = kpr_model_find(m, key);
	if (svc && svc->obj)
		kpr_model_gone(m, svc);
}

bool kpr_model_whole(const struct kpr_svc *svc)
{
	return !svc->open && (!svc->head || svc->n_parts >= svc->head->n_parts);
}

static int head_put(struct kpr_model *m, const char *key, const struct pb_backends_head *head)
{
	struct kpr_svc *svc = kpr_model_add(m, key);

	if (!svc)
		return -ENOMEM;
	svc->head = head;
	svc->open = false;
	svc->surplus = svc->n_parts > head->n_parts;
	svc->withdrawn = false;
	if (svc->obj)
		kpr_model_dirty(m, svc);
	return 0;
}

static void head_gone(struct kpr_model *m, const char *key)
{
	struct kpr_svc *svc = kpr_model_find(m, key);

	if (!svc)
		return;
	svc->withdrawn = svc->obj != NULL;
	svc->head = NULL;
	svc->open = svc->parts != NULL;
	kpr_changes_drop(svc);
	if (svc->obj)
		kpr_model_dirty(m, svc);
	kpr_model_forget(m, svc);
}

/*
 * Parts that a publisher left behind say what others say too. What changes in one of them tells
 * nothing then, so all are compared.
 */
static void part_changed(struct kpr_svc *svc)
{
	if (svc->surplus)
		kpr_changes_drop(svc);
}

static int part_put(struct kpr_model *m, const char *svc_key, const char *key,
		    const struct pb_backends *value)
{
	struct kpr_svc *svc = kpr_model_add(m, svc_key);
	int rc;

	if (!svc)
		return -ENOMEM;
	rc = kpr_part_put(m, svc, key, value);
	if (rc < 0) {
		kpr_model_forget(m, svc);
		return rc;
	}
	part_changed(svc);
	svc->open = true;
	return 0;
}

static void part_gone(struct kpr_model *m, const char *svc_key, const char *key)
{
	struct kpr_svc *svc = kpr_model_find(m, svc_key);

	if (!svc)
		return;
	kpr_part_gone(m, key);
	part_changed(svc);
	/* One that was left behind: no head follows. */
	if (svc->surplus && svc->obj && !svc->open && kpr_model_whole(svc))
		kpr_model_dirty(m, svc);
	svc->open = svc->open && (svc->head || svc->parts);
	kpr_model_forget(m, svc);
}

int kpr_model_record(struct kpr_model *m, const struct pb_record *record)
{
	const char *slash = strchr(record->key, '/');
	char svc_key[KEY_MAX];
	size_t len;

	slash = slash ? strchr(slash + 1, '/') : NULL;
	len = slash ? (size_t)(slash - record->key) : strlen(record->key);
	if (len >= sizeof(svc_key))
		return -EINVAL;
	memcpy(svc_key, record->key, len);
	svc_key[len] = '\0';
	if (record->kind == PB_RECORD_PUT)
		return slash ? part_put(m, svc_key, record->key, record->value)
			     : head_put(m, svc_key, record->value);
	if (slash)
		part_gone(m, svc_key, record->key);
	else
		head_gone(m, svc_key);
	return 0;
}

void kpr_model_unwanted(struct kpr_model *m, struct kpr_pool *pool)
{
	pool->port = NULL;
	LL_PREPEND(m->unwanted, pool);
}

static void sweep(struct kpr_model *m)
{
	struct kpr_front *front, *next;

	if (!m->adopted || !kpr_model_owners_known(m) || !m->backends_synced ||
	    !m->addresses_synced)
		return;
	HASH_ITER (hh, m->fronts, front, next)
		front_unclaimed(m, front);
}

static void all_dirty(struct kpr_model *m)
{
	for (struct kpr_svc *svc = m->svcs; svc; svc = svc->hh.next)
		if (svc->obj)
			kpr_model_dirty(m, svc);
}

static void part_synced(struct kpr_model *m, bool *synced, bool again)
{
	if (*synced)
		return;
	*synced = true;
	if (again)
		all_dirty(m);
	sweep(m);
}

void kpr_model_services_synced(struct kpr_model *m)
{
	part_synced(m, &m->services_synced, true);
}

void kpr_model_backends_synced(struct kpr_model *m)
{
	part_synced(m, &m->backends_synced, true);
}

void kpr_model_pods_synced(struct kpr_model *m)
{
	part_synced(m, &m->pods_synced, true);
}

void kpr_model_addresses_synced(struct kpr_model *m)
{
	part_synced(m, &m->addresses_synced, false);
}

int kpr_model_addresses(struct kpr_model *m, const struct kpr_address *list, uint32_t n)
{
	struct kpr_address *copy;

	if (n == m->n_addresses && (n == 0 || memcmp(list, m->addresses, n * sizeof(*list)) == 0))
		return 0;
	copy = calloc(n + 1, sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	if (n > 0)
		memcpy(copy, list, n * sizeof(*copy));
	free(m->addresses);
	m->addresses = copy;
	m->n_addresses = n;
	for (struct kpr_svc *svc = m->svcs; svc; svc = svc->hh.next) {
		if (!svc->obj || !(svc->at_node || svc->obj->type == KPR_TYPE_HOST_PORT))
			continue;
		svc->stale = true;
		kpr_model_dirty(m, svc);
	}
	return 0;
}

/* Everything that hints say is read anew. */
void kpr_model_zone(struct kpr_model *m, const char *zone)
{
	if (strncmp(m->zone, zone, sizeof(m->zone) - 1) == 0)
		return;
	snprintf(m->zone, sizeof(m->zone), "%s", zone);
	for (struct kpr_svc *svc = m->svcs; svc; svc = svc->hh.next) {
		kpr_changes_drop(svc);
		if (svc->obj)
			kpr_model_dirty(m, svc);
	}
}

void kpr_model_adopted(struct kpr_model *m)
{
	m->adopted = true;
	sweep(m);
}
