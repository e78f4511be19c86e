/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's own metrics, made of what the rooms report for `status`.
 *
 * Owns their names: every one is in the table of docs/admin.md, which a test compares. Looks into
 * no room itself.
 */
#ifndef PB_AGENT_METRICS_H
#define PB_AGENT_METRICS_H

#include <base/json.h>
#include <datapath/ct.h>
#include <node/peers.h>

struct pb_agent_metrics {
	bool ready;
	bool config_refused; /* the last SIGHUP, or part of it */
	double uptime_s;
	double started_s; /* since the epoch */
	double cpu_s;	  /* of the process, user and system */
	double rss_bytes;
	double loop_turns, loop_p99_s, loop_max_s;
	double control_peers, control_requests;
	double endpoints;
	struct pb_peers_counts peers;
	struct pb_ct_counts ct;
	const cJSON *kubernetes; /* pb_kube_status_json() */
	const cJSON *datapath;	 /* pb_dp_status_json() */
	const cJSON *maps;	 /* pb_dp_map_list_json() */
};

int pb_agent_metrics_write(const struct pb_agent_metrics *m, struct pb_buf *out);

#endif
