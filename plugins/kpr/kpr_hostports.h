/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host ports of this node's pods, as Services: one per pod, with the pod as only backend.
 *
 * Owns what is made up for them. Their keys begin with "hostport:", which no namespace may have.
 */
#ifndef KPR_HOSTPORTS_H
#define KPR_HOSTPORTS_H

#include <patchbay/kube.h>

#include "kpr_model.h"

/* A pod came or changed; one of another node, or without host ports, is as one that went. */
int kpr_hostports_pod(struct kpr_model *m, const struct pb_kube_pod *pod);
void kpr_hostports_gone(struct kpr_model *m, const struct pb_kube_pod *pod);

#endif
