/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benchmark's cluster: Services and their EndpointSlices, as large and as wordy as real ones.
 *
 * Owns what the objects say and how one changes. Nothing is stored but what changed: an object is
 * written out whenever it is asked for.
 */
#ifndef BENCH_KUBE_OBJECTS_H
#define BENCH_KUBE_OBJECTS_H

#include <base/base.h>

#define CLUSTER_PORT 80

struct cluster {
	unsigned services;  /* of `endpoints` each, and one more with `big`, if that isn't 0 */
	unsigned endpoints; /* of a Service */
	unsigned big;
	unsigned slice;	   /* endpoints of a slice, at most */
	unsigned n_slices; /* of all Services */
	unsigned version;  /* the newest resourceVersion */
	unsigned *changes; /* by slice: how often it changed */
};

/* What one change replaces, as text. `service` is the Service's address; its port CLUSTER_PORT. */
struct cluster_change {
	char service[16];
	char old[16];
	char new[16];
};

/* The sizes are set; makes the rest. */
void cluster_init(struct cluster *c);
void cluster_free(struct cluster *c);
/* How many Services, the big one included. */
unsigned cluster_services(const struct cluster *c);
/* Objects of a list carry no kind. */
void cluster_print_service(const struct cluster *c, unsigned i, struct pb_buf *out);
void cluster_print_slice(const struct cluster *c, unsigned i, bool typed, struct pb_buf *out);
/* What the next change of slice i will be: one endpoint gets another address. */
void cluster_next(const struct cluster *c, unsigned i, struct cluster_change *ret_change);
void cluster_change(struct cluster *c, unsigned i);

#endif
