/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may have a frontend when several Services want it.
 *
 * Owns the frontends of the model and the queues of claims on them: the first Service has it, also
 * over a restart, the next takes over when it goes. Pure: no map, no clock, no host.
 */
#ifndef KPR_CLAIMS_H
#define KPR_CLAIMS_H

#include "kpr_model.h"

/* The Service claims what `obj` wants, and nothing else. -ENOMEM: it has the claims it had. */
int kpr_claims_take(struct kpr_model *m, struct kpr_svc *svc, const struct pb_kube_service *obj);
/* The Service claims nothing any more. */
void kpr_claims_drop(struct kpr_model *m, struct kpr_svc *svc);
/* Frontends that nobody claims go. */
void kpr_claims_sweep(struct kpr_model *m);

#endif
