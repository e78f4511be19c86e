/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the store share: objects in, records out, time by hand.
 *
 * The subscriber here does what backends.h asks of one: it takes parts in as they come and acts
 * on the head; at every head it checks that the parts add up to it and that no backend is in two
 * of them.
 */
#ifndef ENDPOINTSLICE_TESTS_HARNESS_H
#define ENDPOINTSLICE_TESTS_HARNESS_H

#include <criterion/criterion.h>

#include <netinet/in.h>

#include <uthash.h>

#include "../store.h"

#define READY (PB_ENDPOINT_READY | PB_ENDPOINT_SERVING)
#define STOPPING (PB_ENDPOINT_SERVING | PB_ENDPOINT_TERMINATING)

/* A record as it was published last. */
struct record {
	UT_hash_handle hh;
	char key[128];
	char *value; /* NULL: withdrawn */
	size_t len;
	unsigned times;
};

struct slice {
	struct pb_kube_endpointslice s;
	struct pb_slice_port ports[4];
	struct pb_endpoint_entry *endpoints;
};

extern struct es_store *store;
extern struct record *records;
extern uint64_t now_ms;
extern uint64_t clock_step; /* ms that pass with every look at the clock */
extern bool check_heads;    /* off where it would cost too much */
extern unsigned truncations;
/* The publication with this number (1: the next one) fails; 0: none does. */
extern unsigned fail_at;

void harness_setup(void);
void harness_teardown(void);
uint64_t harness_clock(void *arg);
/* Memory until the end of the test. */
void *harness_make(size_t len);

/* A store of its own whose records are collected in *ret_records, for comparisons. */
struct es_store *harness_store(struct record **ret_records);
void harness_forget(struct record **list);
struct record *harness_record(struct record **list, const char *key);

/* Lets time pass and everything happen that is due until then. */
void pass(uint64_t ms);
void open_with(enum es_policy policy);
void open_store(void); /* ES_FROM_BOTH */

struct record *at(const char *key);
const struct pb_backends_head *head(const char *key);
const struct pb_backends *part(const char *key);
/*
 * "ADDRESS:PORT/NAME" of every backend of the Service, sorted, with * active, ~ terminating,
 * - draining, L local; "never published" or "withdrawn".
 */
const char *shown(const char *key);
/* The keys published and withdrawn ("-KEY") since the last call, in their order. */
const char *order(void);

/* ---- objects ---- */

#define ADDRS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define SLICE(...) slice_of("ns", "web", "", 80, ADDRS(__VA_ARGS__))

/*
 * A slice of Service `service` with one port and ready endpoints at the addresses; named s1, s2
 * and so on, in the order in which they are made.
 */
struct slice *slice_of(const char *ns, const char *service, const char *port_name, uint16_t port,
		       const char *const *addrs);
struct slice *named(const char *name, struct slice *s);
/* Another state of the same slice. */
struct slice *next_of(const struct slice *old, const char *const *addrs);
struct pb_endpoint_entry endpoint(const char *addr, uint32_t conditions, const char *node);

void put(struct slice *s);
void replace(struct slice *old, struct slice *s);
void gone(struct slice *s);

struct pb_endpoints_subset subset(const char *addr, uint16_t port);
struct pb_kube_endpoints *endpoints_of(const char *name, const struct pb_endpoints_subset *subsets,
				       uint32_t n);

#endif
