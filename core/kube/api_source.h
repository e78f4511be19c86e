/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source "api" with its settings in hand: what pb_source_api_new() of source.h wraps, and
 * what tests start with hurried timing.
 */
#ifndef PB_KUBE_API_SOURCE_H
#define PB_KUBE_API_SOURCE_H

#include <kube/api_client.h>
#include <kube/source.h>

/* Takes the configuration, also when it fails. */
int pb_api_source_start(uv_loop_t *loop, struct pb_sink *sink, struct pb_api_config *config,
			const struct pb_api_timing *timing, struct pb_source **ret_source,
			struct pb_err *err);

#endif
