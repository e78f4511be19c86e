/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Topic "identities", version 1: what the numbers in the ipcache and in struct pb_endpoint stand
 * for. Published by the core.
 *
 * Key: the number in decimal. Value: struct pb_identity_record, the labels of the identity. The
 * labels of a number never change: other labels are another number. A record is there before any
 * address or endpoint has the number, and is withdrawn after the last one has lost it; the number
 * is not given to other labels for 30 s from then on, so that a subscriber can take it out of its
 * maps first. Numbers are of this node only and are the same after a restart of the agent.
 *
 * The reserved identities (enum pb_identity below 256) are published too, with the one label
 * "reserved:host" and so on. SYNCED follows once all pods, namespaces and nodes of the first full
 * lists have their identities.
 */
#ifndef PATCHBAY_TOPICS_IDENTITIES_H
#define PATCHBAY_TOPICS_IDENTITIES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <patchbay/abi.h>
#include <patchbay/kube.h>

#define PB_TOPIC_IDENTITIES "identities"
#define PB_TOPIC_IDENTITIES_VERSION 1

/*
 * Labels follow at byte `size` as pairs of strings, each with its NUL: a key with its source
 * ("k8s:app", "reserved:world", "cidr:10.0.0.0/8"), then the value ("" when it has none). They are
 * sorted by key in byte order.
 *
 * Pods have their own labels as identity.labels of the configuration chooses them, and always
 *   k8s:io.kubernetes.pod.namespace          their namespace
 *   k8s:io.cilium.k8s.policy.cluster         cluster.name of the configuration
 *   k8s:io.cilium.k8s.policy.serviceaccount  their service account
 *   k8s:io.cilium.k8s.namespace.labels.KEY   a label of their namespace
 * Ranges have "cidr:PREFIX" of the range itself only, and "reserved:world".
 */
struct pb_identity_record {
	uint32_t size; /* of this structure: where the labels begin */
	uint32_t identity;
	uint32_t n_labels;
	uint32_t labels_len; /* bytes, all NULs counted */
	struct pb_cidr cidr; /* of a range; family 0: not one */
	uint32_t reserved;
};

/* The first key; the value is behind its NUL. */
static inline const char *pb_identity_labels(const struct pb_identity_record *record)
{
	return (const char *)record + record->size;
}

/* The value that belongs to a key. */
static inline const char *pb_identity_value(const char *key)
{
	return key + strlen(key) + 1;
}

/* The key behind `key`, NULL at the end. */
static inline const char *pb_identity_next(const struct pb_identity_record *record, const char *key)
{
	const char *value = pb_identity_value(key);
	const char *next = value + strlen(value) + 1;

	return next < pb_identity_labels(record) + record->labels_len ? next : NULL;
}

/* The value of the label "SOURCE:KEY", NULL when the identity doesn't have it. */
static inline const char *pb_identity_label(const struct pb_identity_record *record,
					    const char *key)
{
	const char *at = record->n_labels ? pb_identity_labels(record) : NULL;

	while (at && strcmp(at, key) != 0)
		at = pb_identity_next(record, at);
	return at ? pb_identity_value(at) : NULL;
}

#endif
