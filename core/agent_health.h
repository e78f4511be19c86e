/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is the agent well, is it ready: what the rooms report, as lines for /healthz and /readyz.
 *
 * Owns what counts as failing. What heals by itself or is tried again is failing; what waits for
 * somebody is failed. Looks into no room itself.
 */
#ifndef PB_AGENT_HEALTH_H
#define PB_AGENT_HEALTH_H

#include <base/json.h>

enum pb_health {
	PB_HEALTH_OK = 0,
	PB_HEALTH_FAILING = 1,
	PB_HEALTH_FAILED = 2,
};

struct pb_health_in {
	const char *state;	 /* of the agent: "starting", "ready", "reloading", "stopping" */
	const cJSON *plugins;	 /* pb_manager_list_json() */
	const cJSON *kubernetes; /* pb_kube_status_json() */
	const cJSON *links;	 /* pb_dp_links_json() */
};

/* A line for each thing that is wrong; "ok" when nothing is. */
enum pb_health pb_agent_health(const struct pb_health_in *in, struct pb_buf *lines);
/* True once plugins, chains and the first lists are there; else a line for each that isn't. */
bool pb_agent_ready(const struct pb_health_in *in, struct pb_buf *lines);

#endif
