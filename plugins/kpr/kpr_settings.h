/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Map kpr_settings: what all programs have to know and no frontend says.
 *
 * Owns its one element, which is written by stores and only when something differs.
 */
#ifndef KPR_SETTINGS_H
#define KPR_SETTINGS_H

#include <patchbay/plugin.h>

#include "kpr_abi.h"

/* The cookie of this process's network namespace; 0: the kernel doesn't tell. */
uint64_t kpr_settings_netns_cookie(void);
/* Not before restore(). */
int kpr_settings_write(struct pb_ctx *ctx, struct pb_map *map,
		       const struct pb_svc_settings *settings);

#endif
