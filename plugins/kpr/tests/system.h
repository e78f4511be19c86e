/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the plugin finds out about the machine, as a test wants it: in place of kpr_probe.c,
 * kpr_coexist.c and kpr_reserve.c, so that no unit test depends on the machine or changes it.
 */
#ifndef KPR_TESTS_SYSTEM_H
#define KPR_TESTS_SYSTEM_H

#include "../kpr_coexist.h"
#include "../kpr_probe.h"
#include "../kpr_reserve.h"

extern struct kpr_probe system_probe;
extern const char *system_kube_proxy; /* its trace; NULL: it isn't here */
extern enum kpr_reserve system_reserve;
extern unsigned system_asked; /* how often the plugin has looked */

#endif
