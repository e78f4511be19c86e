/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which labels of a pod make its identity, and their canonical form.
 *
 * Owns the rules of the label filter. The canonical form is injective: two label sets have the
 * same bytes only if they are the same set, whatever a pod's author writes into a label. No label
 * of a pod may ever stand for its namespace, cluster or service account.
 */
#ifndef PB_NODE_LABELS_H
#define PB_NODE_LABELS_H

#include <base/base.h>
#include <patchbay/kube.h>

#define PB_LABEL_NAMESPACE "io.kubernetes.pod.namespace"
#define PB_LABEL_CLUSTER "io.cilium.k8s.policy.cluster"
#define PB_LABEL_ACCOUNT "io.cilium.k8s.policy.serviceaccount"
#define PB_LABEL_OF_NAMESPACE "io.cilium.k8s.namespace.labels."

struct pb_label_filter;

/*
 * Entries of the key identity.labels: "[!][k8s:|any:]PREFIX", PREFIX the beginning of a label's
 * key, '!' for "not this". They come before the built-in ones of equal length; the longest match
 * decides. Labels that nothing matches count, unless an entry without '!' is given: then only what
 * such entries name does, and namespace, cluster, service account and the namespace's labels.
 * The configuration has checked them; they are copied. -ENOMEM.
 */
int pb_label_filter_new(char *const *entries, size_t n, struct pb_label_filter **ret_filter);
/* NULL is fine. Returns NULL. */
struct pb_label_filter *pb_label_filter_free(struct pb_label_filter *filter);
/* Does a label with this key (without "k8s:") make the identity? */
bool pb_label_filter_has(const struct pb_label_filter *filter, const char *key);

/*
 * The identity's labels of a pod in canonical form: "k8s:KEY" NUL VALUE NUL for each label, sorted
 * by key in byte order. `ns` NULL: a namespace without labels. *ret_n: how many. Replaces what is
 * in `out`. -ENOMEM.
 */
int pb_labels_of_pod(const struct pb_label_filter *filter, const char *cluster,
		     const struct pb_kube_pod *pod, const struct pb_kube_namespace *ns,
		     struct pb_buf *out, uint32_t *ret_n);
/* The same for a range: "cidr:10.0.0.0/8" and "reserved:world". */
int pb_labels_of_cidr(const struct pb_cidr *cidr, struct pb_buf *out, uint32_t *ret_n);

#endif
