/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services in a hash; one that changed goes to the dirty list, as a frontend that lost its last
 * claim goes to the gone list. Who writes the maps empties both.
 */
#include "kpr_model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "kpr_claims.h"
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
	int rc = kpr_claims_take(m, svc, obj);

	if (rc < 0)
		return rc;
	m->n_services += !svc->obj && obj->type != KPR_TYPE_HOST_PORT;
	svc->obj = obj;
	svc->affinity_s = kpr_fronts_affinity(obj);
	svc->stale = false;
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
	kpr_claims_drop(m, svc);
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
	if (m->adopted && kpr_model_owners_known(m) && m->backends_synced && m->addresses_synced)
		kpr_claims_sweep(m);
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
