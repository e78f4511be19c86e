/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A turn of the loop is what lies between two waits in the kernel: libuv says how long it waited,
 * the clock how long it took in all; the difference is ours.
 */
#include <lag.h>

static unsigned lag_bucket(uint64_t us)
{
	unsigned shift = 0, index;

	while ((us >> shift) >= 2 * PB_LAG_STEPS)
		shift++;
	/* Values below 2 * PB_LAG_STEPS are exact; above, PB_LAG_STEPS buckets a power of two. */
	index = shift * PB_LAG_STEPS + (unsigned)(us >> shift);
	return index < PB_LAG_BUCKETS ? index : PB_LAG_BUCKETS - 1;
}

/* The largest value of a bucket. */
static uint64_t lag_bucket_us(unsigned index)
{
	unsigned shift = index < 2 * PB_LAG_STEPS ? 0 : index / PB_LAG_STEPS - 1;

	return (((uint64_t)index - shift * PB_LAG_STEPS + 1) << shift) - 1;
}

void pb_lag_record(struct pb_lag *lag, uint64_t busy_ns)
{
	lag->turns++;
	lag->buckets[lag_bucket(busy_ns / 1000)]++;
	if (busy_ns > lag->max_ns)
		lag->max_ns = busy_ns;
}

uint64_t pb_lag_quantile_ns(const struct pb_lag *lag, double quantile)
{
	uint64_t wanted = (uint64_t)((double)lag->turns * quantile), seen = 0;

	for (unsigned i = 0; i < PB_LAG_BUCKETS; i++) {
		uint64_t ns = (lag_bucket_us(i) + 1) * 1000;

		seen += lag->buckets[i];
		if (seen > wanted || (seen && seen == lag->turns))
			return ns < lag->max_ns ? ns : lag->max_ns;
	}
	return lag->max_ns;
}

/* Runs right before the loop waits: what it did since its last wait is over. */
static void lag_turn(uv_prepare_t *prepare)
{
	struct pb_lag *lag = prepare->data;
	uint64_t now = pb_now_ns();
	uint64_t idle = uv_metrics_idle_time(prepare->loop);
	uint64_t all = now - lag->last_ns, waited = idle - lag->idle_ns;

	pb_lag_record(lag, all > waited ? all - waited : 0);
	lag->last_ns = now;
	lag->idle_ns = idle;
	/* Or the loop would wait for a timer from the start of the turn that set it. */
	uv_update_time(prepare->loop);
}

void pb_lag_start(struct pb_lag *lag, uv_loop_t *loop)
{
	uv_prepare_init(loop, &lag->prepare);
	lag->prepare.data = lag;
	pb_lag_reset(lag);
	uv_prepare_start(&lag->prepare, lag_turn);
	uv_unref((uv_handle_t *)&lag->prepare);
}

void pb_lag_reset(struct pb_lag *lag)
{
	memset(lag->buckets, 0, sizeof(lag->buckets));
	lag->turns = 0;
	lag->max_ns = 0;
	lag->last_ns = pb_now_ns();
	lag->idle_ns = uv_metrics_idle_time(lag->prepare.loop);
}

void pb_lag_stop(struct pb_lag *lag)
{
	uv_close((uv_handle_t *)&lag->prepare, NULL);
}
