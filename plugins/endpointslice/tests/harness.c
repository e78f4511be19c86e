/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tests' subscriber, clock and objects.
 */
#include "harness.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct es_store *store;
struct record *records;
uint64_t now_ms;
uint64_t clock_step;
bool check_heads;
unsigned truncations;
unsigned fail_at;

static void **made; /* objects, freed at the end */
static size_t n_made;
static unsigned n_slices;
static char order_text[8192];

void *harness_make(size_t len)
{
	void *p = calloc(1, len);

	made = realloc(made, (n_made + 1) * sizeof(*made));
	cr_assert(p && made);
	made[n_made++] = p;
	return p;
}

/* ---- records ---- */

struct record *harness_record(struct record **list, const char *key)
{
	struct record *r;

	HASH_FIND_STR(*list, key, r);
	if (r)
		return r;
	r = calloc(1, sizeof(*r));
	cr_assert(r && strlen(key) < sizeof(r->key));
	strcpy(r->key, key);
	HASH_ADD_STR(*list, key, r);
	return r;
}

void harness_forget(struct record **list)
{
	struct record *r, *tmp;

	HASH_ITER (hh, *list, r, tmp) {
		HASH_DEL(*list, r);
		free(r->value);
		free(r);
	}
}

static bool is_part_of(const char *part_key, const char *key)
{
	size_t len = strlen(key);

	return strncmp(part_key, key, len) == 0 && part_key[len] == '/' &&
	       !strchr(part_key + len + 1, '/');
}

/* A backend with its strings resolved. */
struct seen {
	const struct pb_backend *b;
	const char *port_name;
};

static int compare_seen(const void *pa, const void *pb)
{
	const struct seen *a = pa;
	const struct seen *b = pb;
	int rc = (int)a->b->family - b->b->family;

	if (rc == 0)
		rc = (int)a->b->protocol - b->b->protocol;
	if (rc == 0)
		rc = strcmp(a->port_name, b->port_name);
	if (rc == 0)
		rc = memcmp(&a->b->addr, &b->b->addr, sizeof(a->b->addr));
	return rc ? rc : (int)a->b->port - b->b->port;
}

/* All backends of the Service in the order of backends.h; the caller frees. */
static struct seen *collect(struct record *list, const char *key, uint32_t *ret_n,
			    uint32_t *ret_parts)
{
	struct seen *all = NULL;
	struct record *r;
	uint32_t n = 0;

	*ret_parts = 0;
	for (r = list; r; r = r->hh.next) {
		const struct pb_backends *v = (const void *)r->value;

		if (!v || !is_part_of(r->key, key))
			continue;
		++*ret_parts;
		all = realloc(all, (n + v->n) * sizeof(*all));
		for (uint32_t i = 0; i < v->n; i++)
			all[n++] = (struct seen){&v->backend[i],
						 pb_backends_string(v, v->backend[i].port_name)};
	}
	if (n > 0)
		qsort(all, n, sizeof(*all), compare_seen);
	*ret_n = n;
	return all;
}

static void check_head(struct record *list, const struct record *r)
{
	const struct pb_backends_head *h = (const void *)r->value;
	uint32_t n, n_parts, n_usable = 0;
	struct seen *all = collect(list, r->key, &n, &n_parts);

	for (uint32_t i = 0; i < n; i++) {
		n_usable += all[i].b->state != PB_BACKEND_DRAINING;
		if (i > 0)
			cr_assert(compare_seen(&all[i - 1], &all[i]) != 0,
				  "%s: a backend is in two parts", r->key);
	}
	if (h) {
		cr_assert_eq(h->size, sizeof(*h));
		cr_assert_eq(h->n_parts, n_parts, "%s: parts %u %u", r->key, h->n_parts, n_parts);
		cr_assert_eq(h->n_backends, n);
		cr_assert_eq(h->n_usable, n_usable);
	} else {
		cr_assert_eq(n_parts, 0, "%s: withdrawn before its parts", r->key);
	}
	free(all);
}

static bool is_head(const char *key)
{
	return !strchr(strchr(key, '/') + 1, '/');
}

static int on_publish(void *arg, const char *key, const void *value, size_t len)
{
	struct record **list = arg;
	struct record *r = harness_record(list, key);
	size_t room;

	if (fail_at > 0 && --fail_at == 0)
		return -12;
	free(r->value);
	r->value = NULL;
	r->len = len;
	if (value) {
		r->value = malloc(len);
		memcpy(r->value, value, len);
	}
	r->times++;
	room = sizeof(order_text) - strlen(order_text);
	snprintf(order_text + strlen(order_text), room, "%s%s%s", order_text[0] ? " " : "",
		 value ? "" : "-", key);
	if (check_heads && is_head(key))
		check_head(*list, r);
	return 0;
}

static void on_truncated(void *arg, const char *key)
{
	(void)arg;
	(void)key;
	truncations++;
}

struct es_store *harness_store(struct record **ret_records)
{
	struct es_store_ops ops = {.publish = on_publish,
				   .truncated = on_truncated,
				   .arg = ret_records,
				   .node = "node-a",
				   .seed = 42};

	*ret_records = NULL;
	return es_store_new(&ops);
}

/* ---- life and time ---- */

uint64_t harness_clock(void *arg)
{
	(void)arg;
	now_ms += clock_step;
	return now_ms;
}

void harness_setup(void)
{
	now_ms = 1000;
	clock_step = 0;
	check_heads = true;
	order_text[0] = '\0';
	store = harness_store(&records);
}

void harness_teardown(void)
{
	es_store_free(store);
	harness_forget(&records);
	while (n_made > 0)
		free(made[--n_made]);
	free(made);
	made = NULL;
}

void pass(uint64_t ms)
{
	uint64_t end = now_ms + ms;

	while (es_store_due(store) <= end) {
		if (es_store_due(store) > now_ms)
			now_ms = es_store_due(store);
		es_store_run(store, harness_clock, NULL, UINT64_MAX);
	}
	now_ms = end;
}

void open_with(enum es_policy policy)
{
	es_store_open(store, policy, now_ms);
	pass(0);
}

void open_store(void)
{
	open_with(ES_FROM_BOTH);
}

/* ---- what is there ---- */

struct record *at(const char *key)
{
	return harness_record(&records, key);
}

const struct pb_backends_head *head(const char *key)
{
	return (const void *)at(key)->value;
}

const struct pb_backends *part(const char *key)
{
	return (const void *)at(key)->value;
}

const char *shown(const char *key)
{
	static char text[4096];
	char addr[INET6_ADDRSTRLEN];
	uint32_t n, n_parts;
	struct seen *all;

	if (!at(key)->value)
		return at(key)->times ? "withdrawn" : "never published";
	all = collect(records, key, &n, &n_parts);
	text[0] = '\0';
	for (uint32_t i = 0; i < n; i++) {
		const struct pb_backend *b = all[i].b;
		size_t len = strlen(text);

		inet_ntop(b->family == 4 ? AF_INET : AF_INET6, &b->addr, addr, sizeof(addr));
		snprintf(text + len, sizeof(text) - len, "%s%c%s%s:%u/%s", i ? " " : "",
			 "?*~-"[b->state], b -> flags &PB_BACKEND_LOCAL ? "L" : "", addr, b->port,
			 all[i].port_name);
	}
	free(all);
	return text;
}

const char *order(void)
{
	static char text[sizeof(order_text)];

	strcpy(text, order_text);
	order_text[0] = '\0';
	return text;
}

/* ---- objects ---- */

struct pb_endpoint_entry endpoint(const char *addr, uint32_t conditions, const char *node)
{
	struct pb_endpoint_entry e = {.node = node,
				      .zone = "",
				      .hints = "",
				      .conditions = conditions};

	cr_assert_eq(inet_pton(strchr(addr, ':') ? AF_INET6 : AF_INET, addr, &e.addr), 1);
	return e;
}

static void fill(struct slice *s, const char *const *addrs)
{
	uint32_t n = 0;

	while (addrs && addrs[n])
		n++;
	s->endpoints = harness_make((n + 1) * sizeof(*s->endpoints));
	s->s.ports = s->ports;
	s->s.endpoints = s->endpoints;
	s->s.n_endpoints = n;
	s->s.family = n && strchr(addrs[0], ':') ? 6 : 4;
	for (uint32_t i = 0; i < n; i++)
		s->endpoints[i] = endpoint(addrs[i], READY, "");
}

struct slice *slice_of(const char *ns, const char *service, const char *port_name, uint16_t port,
		       const char *const *addrs)
{
	struct slice *s = harness_make(sizeof(*s));
	char *name = harness_make(16);

	snprintf(name, 16, "s%u", ++n_slices);
	s->s.meta.ns = ns;
	s->s.meta.name = name;
	s->s.service = service;
	s->s.n_ports = 1;
	s->ports[0] =
		(struct pb_slice_port){.name = port_name, .port = port, .protocol = IPPROTO_TCP};
	fill(s, addrs);
	return s;
}

struct slice *named(const char *name, struct slice *s)
{
	s->s.meta.name = name;
	return s;
}

struct slice *next_of(const struct slice *old, const char *const *addrs)
{
	struct slice *s = harness_make(sizeof(*s));

	*s = *old;
	fill(s, addrs);
	return s;
}

void put(struct slice *s)
{
	cr_assert_eq(es_store_slice(store, NULL, &s->s, now_ms), 0);
}

void replace(struct slice *old, struct slice *s)
{
	cr_assert_eq(es_store_slice(store, &old->s, &s->s, now_ms), 0);
}

void gone(struct slice *s)
{
	cr_assert_eq(es_store_slice(store, &s->s, NULL, now_ms), 0);
}

struct pb_endpoints_subset subset(const char *addr, uint16_t port)
{
	struct slice *s = slice_of("ns", "", "", port, ADDRS(addr));
	static const uint8_t families[] = {4};

	return (struct pb_endpoints_subset){.n_ports = 1,
					    .n_endpoints = 1,
					    .ports = s->ports,
					    .endpoints = s->endpoints,
					    .families = families};
}

struct pb_kube_endpoints *endpoints_of(const char *name, const struct pb_endpoints_subset *subsets,
				       uint32_t n)
{
	struct pb_kube_endpoints *ep = harness_make(sizeof(*ep));

	ep->meta.ns = "ns";
	ep->meta.name = name;
	ep->subsets = subsets;
	ep->n_subsets = n;
	return ep;
}
