/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services and frontends, each in a hash; a Service that changed goes to the dirty list, a
 * frontend that lost its last claim to the gone list. Who writes the maps empties both.
 */
#include "kpr_model.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "kpr_pools.h"

#define KEY_MAX 512
#define FNV_BASIS 0xcbf29ce484222325ULL
#define FNV_PRIME 0x100000001b3ULL

/* ---- rules on single objects ---- */

static const char *label(const struct pb_kube_meta *meta, const char *key)
{
	for (uint32_t i = 0; i < meta->n_labels; i++)
		if (strcmp(meta->labels[i].key, key) == 0)
			return meta->labels[i].value;
	return NULL;
}

bool kpr_service_has_frontends(const struct pb_kube_service *obj, const char *proxy_name)
{
	const char *proxy = label(&obj->meta, "service.kubernetes.io/service-proxy-name");

	return obj->type != PB_SERVICE_EXTERNAL_NAME && !(obj->flags & PB_SERVICE_HEADLESS) &&
	       !label(&obj->meta, "service.kubernetes.io/headless") &&
	       (!proxy || strcmp(proxy, proxy_name) == 0);
}

bool kpr_frontend_key(const struct pb_kube_addr *ip, const struct pb_service_port *port,
		      struct pb_svc_key *ret_key)
{
	if ((ip->family != 4 && ip->family != 6) || port->port == 0 ||
	    (port->protocol != IPPROTO_TCP && port->protocol != IPPROTO_UDP))
		return false;
	memset(ret_key, 0, sizeof(*ret_key));
	ret_key->addr = ip->addr;
	ret_key->port = htons(port->port);
	ret_key->protocol = port->protocol;
	ret_key->family = (uint8_t)ip->family;
	return true;
}

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

static void svc_free(struct kpr_model *m, struct kpr_svc *svc)
{
	struct kpr_part *part, *next_part;
	struct kpr_port *port, *next_port;

	DL_FOREACH_SAFE(svc->parts, part, next_part)
	kpr_part_free(m, part);
	LL_FOREACH_SAFE(svc->ports, port, next_port)
	kpr_port_free(m, port);
	HASH_DEL(m->svcs, svc);
	free(svc->changes);
	free(svc->claims);
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
		free(svc);
	}
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

static void forget_unless_needed(struct kpr_model *m, struct kpr_svc *svc)
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
		forget_unless_needed(m, svc);
	}
	return NULL;
}

static struct kpr_svc *find_svc(const struct kpr_model *m, const char *key)
{
	struct kpr_svc *svc;

	HASH_FIND_STR(m->svcs, key, svc);
	return svc;
}

static struct kpr_svc *add_svc(struct kpr_model *m, const char *key)
{
	struct kpr_svc *svc = find_svc(m, key);
	size_t len = strlen(key);

	if (svc)
		return svc;
	svc = calloc(1, sizeof(*svc) + len + 1);
	if (!svc)
		return NULL;
	memcpy(svc->key, key, len);
	svc->hash = kpr_hash_name(key);
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
		DL_APPEND(m->gone, front);
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

static void claim_add(struct kpr_model *m, struct kpr_claim *claim)
{
	struct kpr_front *front = claim->front;

	if (front->gone)
		DL_DELETE(m->gone, front);
	front->gone = false;
	claim_insert(front, claim);
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
	if (had_it && front->claims)
		kpr_model_dirty(m, front->claims->svc);
	front_unclaimed(m, front);
}

bool kpr_claim_may_write(const struct kpr_model *m, const struct kpr_claim *claim)
{
	const struct kpr_front *front = claim->front;

	return front->claims == claim &&
	       (m->services_synced || !front->adopted || front->value.owner == claim->svc->hash);
}

/* The claims of `obj`; frontends are made as needed. Returns how many, or -ENOMEM. */
static int wanted_claims(struct kpr_model *m, struct kpr_svc *svc,
			 const struct pb_kube_service *obj, struct kpr_claim **ret_claims)
{
	uint32_t max = obj->n_cluster_ips * obj->n_ports;
	struct kpr_claim *claims = NULL;
	struct kpr_front *front;
	struct pb_svc_key key;
	uint32_t n = 0;

	*ret_claims = NULL;
	if (max == 0 || !kpr_service_has_frontends(obj, m->opts.proxy_name))
		return 0;
	claims = calloc(max, sizeof(*claims));
	if (!claims)
		return -ENOMEM;
	m->round++;
	for (uint32_t i = 0; i < max; i++) {
		const struct pb_service_port *p = &obj->ports[i % obj->n_ports];
		struct kpr_port *port;

		if (!kpr_frontend_key(&obj->cluster_ips[i / obj->n_ports], p, &key))
			continue;
		front = add_front(m, &key);
		if (!front)
			goto no_memory;
		if (front->round == m->round)
			continue;
		front->round = m->round;
		port = kpr_port_add(m, svc, &key, p->name);
		if (!port) {
			front_unclaimed(m, front);
			goto no_memory;
		}
		port->round = m->round;
		claims[n++] = (struct kpr_claim){.svc = svc, .front = front, .port = port};
	}
	*ret_claims = claims;
	return (int)n;
no_memory:
	while (n > 0)
		front_unclaimed(m, claims[--n].front);
	free(claims);
	return -ENOMEM;
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
static void swap_ports(struct kpr_model *m, struct kpr_svc *svc, bool local, uint32_t round)
{
	struct kpr_port *port, *next;

	LL_FOREACH_SAFE(svc->ports, port, next)
	{
		if (svc->n_claims > 0 && port->round == round) {
			port->synced = port->synced && port->local == local;
			port->local = local;
			continue;
		}
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

int kpr_model_service(struct kpr_model *m, const struct pb_kube_service *obj)
{
	struct kpr_claim *claims;
	struct kpr_svc *svc;
	char key[KEY_MAX];
	uint32_t round;
	int n;

	if (make_key(key, &obj->meta) < 0)
		return -EINVAL;
	svc = add_svc(m, key);
	if (!svc)
		return -ENOMEM;
	n = wanted_claims(m, svc, obj, &claims);
	if (n < 0) {
		forget_unless_needed(m, svc);
		return n;
	}
	m->n_services += !svc->obj;
	svc->obj = obj;
	round = m->round;
	swap_claims(m, svc, claims, (uint32_t)n);
	swap_ports(m, svc, obj->flags & PB_SERVICE_INTERNAL_LOCAL, round);
	kpr_model_dirty(m, svc);
	return 0;
}

void kpr_model_service_gone(struct kpr_model *m, const struct pb_kube_service *obj)
{
	struct kpr_svc *svc;
	char key[KEY_MAX];

	if (make_key(key, &obj->meta) < 0)
		return;
	svc = find_svc(m, key);
	if (!svc || !svc->obj)
		return;
	m->n_services--;
	svc->obj = NULL;
	svc->state = KPR_SVC_OK;
	swap_claims(m, svc, NULL, 0);
	swap_ports(m, svc, false, 0);
	forget_unless_needed(m, svc);
}

bool kpr_model_whole(const struct kpr_svc *svc)
{
	return !svc->open && (!svc->head || svc->n_parts >= svc->head->n_parts);
}

static int head_put(struct kpr_model *m, const char *key, const struct pb_backends_head *head)
{
	struct kpr_svc *svc = add_svc(m, key);

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
	struct kpr_svc *svc = find_svc(m, key);

	if (!svc)
		return;
	svc->withdrawn = svc->obj != NULL;
	svc->head = NULL;
	svc->open = svc->parts != NULL;
	kpr_changes_drop(svc);
	if (svc->obj)
		kpr_model_dirty(m, svc);
	forget_unless_needed(m, svc);
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
	struct kpr_svc *svc = add_svc(m, svc_key);
	int rc;

	if (!svc)
		return -ENOMEM;
	rc = kpr_part_put(m, svc, key, value);
	if (rc < 0) {
		forget_unless_needed(m, svc);
		return rc;
	}
	part_changed(svc);
	svc->open = true;
	return 0;
}

static void part_gone(struct kpr_model *m, const char *svc_key, const char *key)
{
	struct kpr_svc *svc = find_svc(m, svc_key);

	if (!svc)
		return;
	kpr_part_gone(m, key);
	part_changed(svc);
	/* One that was left behind: no head follows. */
	if (svc->surplus && svc->obj && !svc->open && kpr_model_whole(svc))
		kpr_model_dirty(m, svc);
	svc->open = svc->open && (svc->head || svc->parts);
	forget_unless_needed(m, svc);
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

	if (!m->adopted || !m->services_synced || !m->backends_synced)
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

void kpr_model_services_synced(struct kpr_model *m)
{
	if (m->services_synced)
		return;
	m->services_synced = true;
	all_dirty(m);
	sweep(m);
}

void kpr_model_backends_synced(struct kpr_model *m)
{
	if (m->backends_synced)
		return;
	m->backends_synced = true;
	all_dirty(m);
	sweep(m);
}

void kpr_model_adopted(struct kpr_model *m)
{
	m->adopted = true;
	sweep(m);
}
