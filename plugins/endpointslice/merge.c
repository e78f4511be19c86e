/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collects (address, port) pairs, sorts them, and folds doubles into one.
 */
#include "merge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct es_string {
	const char *string;
	uint32_t offset;
	uint32_t round;
};

#define TABLE_FIRST 64U
#define FNV_BASIS 0xcbf29ce484222325ULL
#define FNV_PRIME 0x100000001b3ULL

static struct pb_backends *header(const struct es_merge *m)
{
	return (struct pb_backends *)(void *)m->value;
}

static int grow(char **mem, size_t *cap, size_t need)
{
	size_t size = *cap ? *cap : 1024;
	char *p;

	if (need <= *cap)
		return 0;
	while (size < need)
		size *= 2;
	p = realloc(*mem, size);
	if (!p)
		return -ENOMEM;
	*mem = p;
	*cap = size;
	return 0;
}

void es_merge_begin(struct es_merge *m)
{
	m->n = 0;
	m->table_used = 0;
	m->round++;
	m->strings_len = 1;
	m->error = grow(&m->value, &m->value_cap, sizeof(struct pb_backends));
	if (m->error == 0)
		m->error = grow(&m->strings, &m->strings_cap, 1);
	if (m->error == 0)
		m->strings[0] = '\0';
}

static uint32_t table_place(const struct es_merge *m, const char *s)
{
	uint32_t i = (uint32_t)(((uintptr_t)s * 0x9e3779b97f4a7c15ULL) >> 32) & (m->table_len - 1);

	while (m->table[i].round == m->round && m->table[i].string != s)
		i = (i + 1) & (m->table_len - 1);
	return i;
}

static int table_grow(struct es_merge *m)
{
	struct es_merge old = *m;

	m->table_len = old.table_len ? 2 * old.table_len : TABLE_FIRST;
	m->table = calloc(m->table_len, sizeof(*m->table));
	if (!m->table) {
		m->table = old.table;
		m->table_len = old.table_len;
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < old.table_len; i++)
		if (old.table[i].round == m->round)
			m->table[table_place(m, old.table[i].string)] = old.table[i];
	free(old.table);
	return 0;
}

/* The core interns the strings, so that equal ones are stored once without comparing bytes. */
static uint32_t put_string(struct es_merge *m, const char *s)
{
	size_t len = strlen(s) + 1;
	uint32_t i;

	if (len == 1 || m->error < 0)
		return 0;
	if (2 * (m->table_used + 1) > m->table_len)
		m->error = table_grow(m);
	if (m->error < 0)
		return 0;
	i = table_place(m, s);
	if (m->table[i].round == m->round)
		return m->table[i].offset;
	m->error = grow(&m->strings, &m->strings_cap, m->strings_len + len);
	if (m->error < 0)
		return 0;
	memcpy(m->strings + m->strings_len, s, len);
	m->table[i] = (struct es_string){s, (uint32_t)m->strings_len, m->round};
	m->table_used++;
	m->strings_len += len;
	return m->table[i].offset;
}

static void put(struct es_merge *m, const struct pb_endpoint_entry *e, const union pb_addr *addr,
		uint32_t family, const struct pb_slice_port *port, uint32_t port_name)
{
	uint8_t state = es_state(e->conditions);
	struct pb_backend *b;

	m->work++;
	if (state == 0 || m->error < 0)
		return;
	m->error = grow(&m->value, &m->value_cap,
			sizeof(struct pb_backends) + (m->n + 1) * sizeof(*b));
	if (m->error < 0)
		return;
	b = &header(m)->backend[m->n++];
	memset(b, 0, sizeof(*b));
	b->addr = *addr;
	b->port = port->port;
	b->family = (uint8_t)family;
	b->protocol = port->protocol;
	b->state = state;
	b->port_name = port_name;
	b->node = put_string(m, e->node);
	b->zone = put_string(m, e->zone);
	b->hints = put_string(m, e->hints);
	if (e->node[0] && m->node && strcmp(e->node, m->node) == 0)
		b->flags |= PB_BACKEND_LOCAL;
	if (e->conditions & PB_ENDPOINT_READY)
		b->flags |= PB_BACKEND_READY;
}

void es_merge_slice(struct es_merge *m, const struct pb_kube_endpointslice *slice,
		    struct es_index *ix, uint32_t number)
{
	uint32_t width = es_slice_width(slice, m->all);
	uint32_t left = es_slice_places(slice, m->all);

	for (uint32_t p = 0; p < slice->n_ports && left > 0; p++) {
		const struct pb_slice_port *port = &slice->ports[p];
		uint32_t n = width < left ? width : left;
		uint32_t name = put_string(m, port->name);

		left -= n;
		for (uint32_t i = 0; i < n && es_port_usable(port); i++) {
			const union pb_addr *addr;
			const struct pb_endpoint_entry *e = es_slice_entry(slice, i, &addr);

			if (!ix || es_index_owns(ix, number, p, i))
				put(m, e, addr, slice->family, port, name);
		}
	}
}

uint32_t es_endpoints_places(const struct pb_kube_endpoints *ep)
{
	uint64_t n = 0;

	for (uint32_t s = 0; s < ep->n_subsets && n < ES_PLACES_MAX; s++)
		n += (uint64_t)ep->subsets[s].n_ports * ep->subsets[s].n_endpoints;
	return n < ES_PLACES_MAX ? (uint32_t)n : ES_PLACES_MAX;
}

static uint32_t put_subset_port(struct es_merge *m, const struct pb_endpoints_subset *subset,
				const struct pb_slice_port *port, uint32_t left)
{
	uint32_t n = subset->n_endpoints < left ? subset->n_endpoints : left;
	uint32_t name = put_string(m, port->name);

	for (uint32_t i = 0; i < n && es_port_usable(port); i++)
		put(m, &subset->endpoints[i], &subset->endpoints[i].addr, subset->families[i], port,
		    name);
	return left - n;
}

void es_merge_endpoints(struct es_merge *m, const struct pb_kube_endpoints *ep)
{
	uint32_t left = es_endpoints_places(ep);

	for (uint32_t s = 0; s < ep->n_subsets; s++)
		for (uint32_t p = 0; p < ep->subsets[s].n_ports && left > 0; p++)
			left = put_subset_port(m, &ep->subsets[s], &ep->subsets[s].ports[p], left);
}

static int compare_identity(const struct pb_backend *a, const struct pb_backend *b,
			    const char *strings)
{
	int rc = (int)a->family - b->family;

	if (rc == 0)
		rc = (int)a->protocol - b->protocol;
	if (rc == 0 && a->port_name != b->port_name)
		rc = strcmp(strings + a->port_name, strings + b->port_name);
	if (rc == 0)
		rc = memcmp(&a->addr, &b->addr, sizeof(a->addr));
	return rc ? rc : (int)a->port - b->port;
}

/* The better state of a double comes first; the strings make the choice among equals stable. */
static int compare(const void *pa, const void *pb, void *strings)
{
	const struct pb_backend *a = pa;
	const struct pb_backend *b = pb;
	const char *s = strings;
	int rc = compare_identity(a, b, s);

	if (rc == 0)
		rc = (int)a->state - b->state;
	if (rc == 0)
		rc = (int)b->flags - a->flags;
	if (rc == 0 && a->node != b->node)
		rc = strcmp(s + a->node, s + b->node);
	return rc;
}

static void fold_doubles(struct es_merge *m)
{
	struct pb_backend *b = header(m)->backend;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < m->n; i++)
		if (kept == 0 || compare_identity(&b[kept - 1], &b[i], m->strings) != 0)
			b[kept++] = b[i];
	m->n = kept;
}

static uint64_t digest(const char *data, size_t len)
{
	uint64_t hash = FNV_BASIS ^ len;
	uint64_t word;
	size_t i = 0;

	for (; i + sizeof(word) <= len; i += sizeof(word)) {
		memcpy(&word, data + i, sizeof(word));
		hash = (hash ^ word) * FNV_PRIME;
		hash ^= hash >> 29;
	}
	for (; i < len; i++)
		hash = (hash ^ (unsigned char)data[i]) * FNV_PRIME;
	return hash;
}

/*
 * The strings in the order of the sorted backends: where they went while merging depends on the
 * order of the objects, the value must not.
 */
static int restring(struct es_merge *m, char *old)
{
	struct pb_backend *b = header(m)->backend;

	m->strings = NULL;
	m->strings_cap = 0;
	m->strings_len = 1;
	m->table_used = 0;
	m->round++;
	m->error = grow(&m->strings, &m->strings_cap, 1);
	if (m->error == 0)
		m->strings[0] = '\0';
	for (uint32_t i = 0; i < m->n && m->error == 0; i++) {
		b[i].port_name = put_string(m, old + b[i].port_name);
		b[i].node = put_string(m, old + b[i].node);
		b[i].zone = put_string(m, old + b[i].zone);
		b[i].hints = put_string(m, old + b[i].hints);
	}
	free(old);
	return m->error;
}

int es_merge_finish(struct es_merge *m, struct es_merged *ret_merged)
{
	size_t head;

	if (m->error < 0)
		return m->error;
	qsort_r(header(m)->backend, m->n, sizeof(struct pb_backend), compare, m->strings);
	fold_doubles(m);
	if (restring(m, m->strings) < 0)
		return m->error;
	head = sizeof(struct pb_backends) + m->n * sizeof(struct pb_backend);
	m->error = grow(&m->value, &m->value_cap, head + m->strings_len);
	if (m->error < 0)
		return m->error;
	memcpy(m->value + head, m->strings, m->strings_len);
	*header(m) = (struct pb_backends){.size = sizeof(struct pb_backends),
					  .n = m->n,
					  .strings_len = (uint32_t)m->strings_len};
	*ret_merged = (struct es_merged){.value = header(m), .len = head + m->strings_len};
	for (uint32_t i = 0; i < m->n; i++)
		ret_merged->n_usable += header(m)->backend[i].state != PB_BACKEND_DRAINING;
	ret_merged->digest = digest(m->value, ret_merged->len);
	return 0;
}

void es_merge_free(struct es_merge *m)
{
	free(m->value);
	free(m->strings);
	free(m->table);
	memset(m, 0, sizeof(*m));
}
