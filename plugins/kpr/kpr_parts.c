/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts and ports, each in a hash of the model. A port's backends are neighbours in a part, so
 * old and new part are compared side by side.
 */
#include "kpr_parts.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "kpr_model.h"

#define PORT_NAME_MAX 256
#define ACTIVE (1U << KPR_USE_OTHER_ZONE | 1U << KPR_USE_ACTIVE | 1U << KPR_USE_ZONE)

/* ---- ports ---- */

/* What opens a port's key. */
struct kpr_port_id {
	struct kpr_svc *svc;
	uint16_t number;
	uint8_t family;
	uint8_t protocol;
	uint8_t local;
	uint8_t zero[3];
};

static struct kpr_port_id id_of(const struct kpr_port *port)
{
	struct kpr_port_id id;

	memcpy(&id, port->key, sizeof(id));
	return id;
}

uint8_t kpr_port_family(const struct kpr_port *port)
{
	return id_of(port).family;
}

uint8_t kpr_port_protocol(const struct kpr_port *port)
{
	return id_of(port).protocol;
}

bool kpr_port_local(const struct kpr_port *port)
{
	return id_of(port).local;
}

uint16_t kpr_port_number(const struct kpr_port *port)
{
	return id_of(port).number;
}

struct kpr_svc *kpr_port_svc(const struct kpr_port *port)
{
	return id_of(port).svc;
}

const char *kpr_port_name(const struct kpr_port *port)
{
	return port->key + sizeof(struct kpr_port_id);
}

/*
 * Hints hold when every active backend has some and one of them speaks of this node's zone: else
 * the control plane is in the middle of something, or thought of nobody here.
 */
uint32_t kpr_port_mask(const struct kpr_port *port)
{
	const uint32_t *n = port->n;

	if (n[KPR_USE_ACTIVE] == 0 && n[KPR_USE_ZONE] > 0)
		return 1U << KPR_USE_ZONE;
	if (n[KPR_USE_ACTIVE] + n[KPR_USE_ZONE] + n[KPR_USE_OTHER_ZONE] > 0)
		return ACTIVE;
	return n[KPR_USE_TERMINATING] > 0 ? 1U << KPR_USE_TERMINATING : 0;
}

struct kpr_port *kpr_port_add(struct kpr_model *m, struct kpr_svc *svc,
			      const struct pb_svc_key *key, bool local, const char *name)
{
	struct kpr_port_id id = {.svc = svc,
				 .family = key->family,
				 .protocol = key->protocol,
				 .local = local};
	char text[sizeof(id) + PORT_NAME_MAX] = {0};
	size_t len = sizeof(id) + strnlen(name, PORT_NAME_MAX - 1);
	struct kpr_port *port;

	if (key->protocol == IPPROTO_SCTP)
		id.number = ntohs(key->port);
	memcpy(text, &id, sizeof(id));
	memcpy(text + sizeof(id), name, len - sizeof(id));
	HASH_FIND(hh, m->ports, text, len, port);
	if (port)
		return port;
	port = calloc(1, sizeof(*port) + len + 1);
	if (!port)
		return NULL;
	memcpy(port->key, text, len);
	port->key_len = (uint16_t)len;
	port->zone = m->zone;
	HASH_ADD_KEYPTR(hh, m->ports, port->key, len, port);
	LL_PREPEND(svc->ports, port);
	return port;
}

void kpr_port_free(struct kpr_model *m, struct kpr_port *port)
{
	if (port->pool)
		kpr_model_unwanted(m, port->pool);
	HASH_DEL(m->ports, port);
	free(port);
}

/* ---- the backends of a port in a part ---- */

/* Before 0, behind it > 0: where a backend stands as seen from those of a port. */
static int compare_place(const struct pb_backends *v, const struct pb_backend *b, uint8_t family,
			 uint8_t protocol, const char *name)
{
	int rc = (int)b->family - family;

	if (rc == 0)
		rc = (int)b->protocol - protocol;
	return rc ? rc : strcmp(pb_backends_string(v, b->port_name), name);
}

static int compare_port(const struct pb_backends *v, const struct pb_backend *b,
			const struct kpr_port *port)
{
	return compare_place(v, b, kpr_port_family(port), kpr_port_protocol(port),
			     kpr_port_name(port));
}

/* The part is sorted, and one of many ports must not cost a look at all the others' backends. */
static uint32_t first_at(const struct pb_backends *value, uint8_t family, uint8_t protocol,
			 const char *name)
{
	uint32_t from = 0;
	uint32_t to = value ? value->n : 0;

	while (from < to) {
		uint32_t mid = from + (to - from) / 2;

		if (compare_place(value, &value->backend[mid], family, protocol, name) < 0)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

uint32_t kpr_part_find(const struct pb_backends *value, uint8_t family, uint8_t protocol,
		       const char *name, uint32_t *ret_end)
{
	uint32_t from = first_at(value, family, protocol, name);
	uint32_t end = from;

	while (end < value->n &&
	       compare_place(value, &value->backend[end], family, protocol, name) == 0)
		end++;
	*ret_end = end;
	return from;
}

void kpr_run_begin(struct kpr_run *run, const struct pb_backends *value,
		   const struct kpr_port *port)
{
	*run = (struct kpr_run){.value = value,
				.port = port,
				.at = first_at(value, kpr_port_family(port),
					       kpr_port_protocol(port), kpr_port_name(port)),
				.name = UINT32_MAX};
}

/* The backend at which the run stands, NULL behind the port's last. */
static const struct pb_backend *run_here(struct kpr_run *run)
{
	const struct pb_backend *b;

	if (!run->value || run->at >= run->value->n)
		return NULL;
	b = &run->value->backend[run->at];
	if (b->port_name == run->name && b->family == kpr_port_family(run->port) &&
	    b->protocol == kpr_port_protocol(run->port))
		return b;
	if (compare_port(run->value, b, run->port) != 0)
		return NULL;
	run->name = b->port_name;
	return b;
}

/* Whether a comma separated list has the word. */
static bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = list; *at; at += strcspn(at, ","), at += *at == ',') {
		at += strspn(at, " ");
		if (strncmp(at, word, len) == 0 && strcspn(at, ", ") == len)
			return true;
	}
	return false;
}

/* Neighbours mostly have equal hints. */
static enum kpr_use use_by_hints(struct kpr_run *run, const struct pb_backend *b)
{
	const char *hints;

	if (b->hints == 0 || !*run->port->zone)
		return KPR_USE_ACTIVE;
	if (b->hints != run->hints) {
		hints = pb_backends_string(run->value, b->hints);
		run->hints = b->hints;
		run->hinted = has_word(hints, run->port->zone) ? KPR_USE_ZONE : KPR_USE_OTHER_ZONE;
		if (!*hints)
			run->hinted = KPR_USE_ACTIVE;
	}
	return run->hinted;
}

static enum kpr_use use_of(struct kpr_run *run, const struct pb_backend *b)
{
	uint16_t number = kpr_port_number(run->port);

	if ((b->state != PB_BACKEND_ACTIVE && b->state != PB_BACKEND_TERMINATING) ||
	    (number && b->port != number))
		return KPR_USE_NONE;
	if (kpr_port_local(run->port) && !(b->flags & PB_BACKEND_LOCAL))
		return KPR_USE_REMOTE;
	if (b->state == PB_BACKEND_TERMINATING)
		return KPR_USE_TERMINATING;
	return kpr_port_local(run->port) ? KPR_USE_ACTIVE : use_by_hints(run, b);
}

bool kpr_run_next(struct kpr_run *run, struct pb_svc_backend *ret_backend, enum kpr_use *ret_use)
{
	const struct pb_backend *first = run_here(run);
	const struct pb_backend *b = first;

	if (!first)
		return false;
	*ret_backend = (struct pb_svc_backend){.addr = b->addr,
					       .port = htons(b->port),
					       .family = b->family};
	*ret_use = KPR_USE_NONE;
	/* Sorted by address and port, so doubles are neighbours. */
	while (b && b->port == first->port &&
	       memcmp(&b->addr, &first->addr, sizeof(b->addr)) == 0) {
		enum kpr_use use = use_of(run, b);

		if (use > *ret_use)
			*ret_use = use;
		if (b->flags & PB_BACKEND_LOCAL)
			ret_backend->flags = PB_SVC_BACKEND_LOCAL;
		run->at++;
		b = run_here(run);
	}
	return true;
}

/* ---- changes ---- */

static int change_add(struct kpr_svc *svc, struct kpr_port *port,
		      const struct pb_svc_backend *backend, enum kpr_use was, enum kpr_use is)
{
	uint32_t cap = svc->cap_changes ? 2 * svc->cap_changes : 8;
	struct kpr_change *list = svc->changes;

	if (was == is)
		return 0;
	if (svc->n_changes == svc->cap_changes) {
		list = realloc(list, cap * sizeof(*list));
		if (!list)
			return -ENOMEM;
		svc->changes = list;
		svc->cap_changes = cap;
	}
	list[svc->n_changes++] = (struct kpr_change){.port = port,
						     .backend = *backend,
						     .was = (uint8_t)was,
						     .is = (uint8_t)is};
	return 0;
}

static int compare_backends(const struct pb_svc_backend *a, const struct pb_svc_backend *b)
{
	int rc = memcmp(&a->addr, &b->addr, sizeof(a->addr));

	if (rc == 0)
		rc = (int)ntohs(a->port) - ntohs(b->port);
	/* One that is on this node now is another one: a record never changes. */
	return rc ? rc : (int)a->flags - b->flags;
}

/* Side by side; what one of them lacks is of no use there. */
static int port_changed(struct kpr_svc *svc, struct kpr_port *port, const struct pb_backends *old,
			const struct pb_backends *value)
{
	struct pb_svc_backend was_b, is_b;
	enum kpr_use was, is;
	struct kpr_run was_run, is_run;
	bool has_was, has_is;
	int rc = 0;

	kpr_run_begin(&was_run, old, port);
	kpr_run_begin(&is_run, value, port);
	has_was = kpr_run_next(&was_run, &was_b, &was);
	has_is = kpr_run_next(&is_run, &is_b, &is);
	while (rc == 0 && (has_was || has_is)) {
		int order = !has_is ? -1 : !has_was ? 1 : compare_backends(&was_b, &is_b);

		rc = change_add(svc, port, order > 0 ? &is_b : &was_b,
				order > 0 ? KPR_USE_NONE : was, order < 0 ? KPR_USE_NONE : is);
		if (order <= 0)
			has_was = kpr_run_next(&was_run, &was_b, &was);
		if (order >= 0)
			has_is = kpr_run_next(&is_run, &is_b, &is);
	}
	return rc;
}

void kpr_changes_drop(struct kpr_svc *svc)
{
	struct kpr_port *port;

	LL_FOREACH (svc->ports, port)
		port->synced = false;
	free(svc->changes);
	svc->changes = NULL;
	svc->n_changes = 0;
	svc->cap_changes = 0;
}

static void part_changed(const struct kpr_model *m, struct kpr_svc *svc,
			 const struct pb_backends *old, const struct pb_backends *value)
{
	struct kpr_port *port;
	int rc = 0;

	if (old && m->opts.part_goes)
		m->opts.part_goes(m->opts.part_goes_arg, old, value);
	LL_FOREACH (svc->ports, port)
		if (port->synced && rc == 0)
			rc = port_changed(svc, port, old, value);
	/* Without memory for what changed, everything is compared. */
	if (rc < 0)
		kpr_changes_drop(svc);
}

/* ---- parts ---- */

int kpr_part_put(struct kpr_model *m, struct kpr_svc *svc, const char *key,
		 const struct pb_backends *value)
{
	size_t len = strlen(key);
	struct kpr_part *part;

	HASH_FIND(hh, m->parts, key, len, part);
	if (!part) {
		part = calloc(1, sizeof(*part) + len + 1);
		if (!part)
			return -ENOMEM;
		memcpy(part->key, key, len);
		part->svc = svc;
		HASH_ADD_KEYPTR(hh, m->parts, part->key, len, part);
		DL_APPEND(svc->parts, part);
		svc->n_parts++;
	}
	part_changed(m, svc, part->value, value);
	part->value = value;
	return 0;
}

void kpr_part_free(struct kpr_model *m, struct kpr_part *part)
{
	HASH_DEL(m->parts, part);
	DL_DELETE(part->svc->parts, part);
	part->svc->n_parts--;
	free(part);
}

void kpr_part_gone(struct kpr_model *m, const char *key)
{
	struct kpr_part *part;

	HASH_FIND_STR(m->parts, key, part);
	if (!part)
		return;
	part_changed(m, part->svc, part->value, NULL);
	kpr_part_free(m, part);
}
