/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long the event loop was busy in each of its turns.
 *
 * Owns a histogram since the start of the process. A turn that takes long delays every timer and
 * every answer, so nothing here may cost more than two clock readings a turn.
 */
#ifndef PB_LAG_H
#define PB_LAG_H

#include <uv.h>

#include <base/base.h>

/* 16 steps for every power of two: 6 % resolution from 1 us to an hour. */
#define PB_LAG_STEPS 16
#define PB_LAG_BUCKETS (PB_LAG_STEPS * 29)

struct pb_lag {
	uv_prepare_t prepare;
	uint64_t last_ns; /* when the last turn ended */
	uint64_t idle_ns; /* what the loop had waited by then */
	uint64_t turns;
	uint64_t max_ns;
	uint64_t buckets[PB_LAG_BUCKETS];
};

/* Measures a loop that was made with UV_METRICS_IDLE_TIME. Doesn't keep it alive. */
void pb_lag_start(struct pb_lag *lag, uv_loop_t *loop);
/* Forgets what was measured; the turn that runs begins now. */
void pb_lag_reset(struct pb_lag *lag);
void pb_lag_stop(struct pb_lag *lag);
void pb_lag_record(struct pb_lag *lag, uint64_t busy_ns);
/* The time that a share of `quantile` (0 to 1) of all turns stayed below or at. */
uint64_t pb_lag_quantile_ns(const struct pb_lag *lag, double quantile);

#endif
