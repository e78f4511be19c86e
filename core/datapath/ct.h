/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connection tracking, the agent's side: what programs are told of timeouts, what has expired is
 * deleted, flows are listed and flushed.
 *
 * Owns no entry: programs of plugins make and use them (patchbay/conntrack.h has the rules). Both
 * halves of a flow are deleted together, the one found by the client's packets first: what a packet
 * meets in between is a flow that isn't there, never half of one. Everything that reads or deletes
 * more than one entry runs on the thread pool.
 */
#ifndef PB_CT_H
#define PB_CT_H

#include <uv.h>

#include <base/json.h>
#include <config/config.h>
#include <datapath/datapath.h>
#include <patchbay/conntrack.h>

struct pb_ct_table;

/* Writes the timeouts and begins to clean up. The datapath must outlive it. */
int pb_ct_new(uv_loop_t *loop, const struct pb_config *config, struct pb_dp *dp,
	      struct pb_ct_table **ret_table, struct pb_err *err);
int pb_ct_reconfigure(struct pb_ct_table *table, const struct pb_config *config,
		      struct pb_err *err);
/* What is under way on the pool is called off; entries and timeouts stay. */
void pb_ct_close(struct pb_ct_table *table, void (*closed)(void *arg), void *arg);

/* On the loop, exactly once. result NULL: err says why. */
typedef void (*pb_ct_reply_fn)(void *arg, cJSON *result, const struct pb_err *err);
/*
 * A page of flows behind the place `after` ("": from the start); the member "next" is where it
 * ended, without it there is no more. `nat`: only flows whose source is replaced, a row each.
 */
void pb_ct_list(struct pb_ct_table *table, const char *filter, const char *after, bool nat,
		pb_ct_reply_fn reply, void *arg);
/* Deletes flows of which a half passes the filter; says how many entries that were. */
void pb_ct_flush(struct pb_ct_table *table, const char *filter, pb_ct_reply_fn reply, void *arg);

struct pb_ct_counts {
	uint32_t entries; /* as the last run left them */
	uint32_t max_entries;
	struct pb_ct_stats flows; /* of programs, since the map was made */
	uint64_t runs, deleted, orphans, incomplete;
	uint64_t last_run_ns; /* how long it took */
	uint32_t interval_s;  /* until the next run */
};
void pb_ct_count(const struct pb_ct_table *table, struct pb_ct_counts *ret_counts);
/* The same for `status`. */
cJSON *pb_ct_status_json(const struct pb_ct_table *table);

#endif
