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

#define PORT_NAME (sizeof(struct kpr_svc *) + 2)
#define PORT_NAME_MAX 256

/* ---- ports ---- */

uint8_t kpr_port_family(const struct kpr_port *port)
{
	return (uint8_t)port->key[sizeof(struct kpr_svc *)];
}

uint8_t kpr_port_protocol(const struct kpr_port *port)
{
	return (uint8_t)port->key[sizeof(struct kpr_svc *) + 1];
}

const char *kpr_port_name(const struct kpr_port *port)
{
	return port->key + PORT_NAME;
}

enum kpr_use kpr_port_use(const struct kpr_port *port)
{
	if (port->n_active > 0)
		return KPR_USE_ACTIVE;
	return port->n_terminating > 0 ? KPR_USE_TERMINATING : KPR_USE_NONE;
}

struct kpr_port *kpr_port_add(struct kpr_model *m, struct kpr_svc *svc,
			      const struct pb_svc_key *key, const char *name)
{
	char text[PORT_NAME + PORT_NAME_MAX] = {0};
	size_t len = PORT_NAME + strnlen(name, PORT_NAME_MAX - 1);
	struct kpr_port *port;

	memcpy(text, &svc, sizeof(svc));
	text[sizeof(svc)] = (char)key->family;
	text[sizeof(svc) + 1] = (char)key->protocol;
	memcpy(text + PORT_NAME, name, len - PORT_NAME);
	HASH_FIND(hh, m->ports, text, len, port);
	if (port)
		return port;
	port = calloc(1, sizeof(*port) + len + 1);
	if (!port)
		return NULL;
	memcpy(port->key, text, len);
	port->key_len = (uint16_t)len;
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

static enum kpr_use use_of(const struct kpr_port *port, const struct pb_backend *b)
{
	if (port->local && !(b->flags & PB_BACKEND_LOCAL))
		return KPR_USE_NONE;
	if (b->state == PB_BACKEND_ACTIVE)
		return KPR_USE_ACTIVE;
	return b->state == PB_BACKEND_TERMINATING ? KPR_USE_TERMINATING : KPR_USE_NONE;
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
	/* Sorted by address and port, so doubles are neighbours; active is the better one. */
	while (b && b->port == first->port &&
	       memcmp(&b->addr, &first->addr, sizeof(b->addr)) == 0) {
		enum kpr_use use = use_of(run->port, b);

		if (use == KPR_USE_ACTIVE || *ret_use == KPR_USE_NONE)
			*ret_use = use;
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

	return rc ? rc : (int)ntohs(a->port) - ntohs(b->port);
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

static void part_changed(struct kpr_svc *svc, const struct pb_backends *old,
			 const struct pb_backends *value)
{
	struct kpr_port *port;
	int rc = 0;

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
	part_changed(svc, part->value, value);
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
	part_changed(part->svc, part->value, NULL);
	kpr_part_free(m, part);
}
