/* SPDX-License-Identifier: Apache-2.0 */
/* How long turns of the loop took: what the histogram of `status` says. */
#include <criterion/criterion.h>

#include <lag.h>

static bool near(uint64_t is, uint64_t wanted)
{
	return is >= wanted && is <= wanted + wanted / 15 + 1000;
}

Test(lag, quantiles_are_at_most_seven_percent_above_the_truth)
{
	static const struct {
		unsigned long long ns;
	} cases[] = {{0},      {1000},	   {31000},	{32000},      {33000},
		     {999000}, {10000000}, {123456000}, {5000000000}, {600000000000}};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_lag lag = {0};

		for (int n = 0; n < 100; n++)
			pb_lag_record(&lag, cases[i].ns);
		/* One longer turn, so that the bucket's end is told and not the maximum. */
		pb_lag_record(&lag, cases[i].ns * 2 + 10000);
		cr_expect(near(pb_lag_quantile_ns(&lag, 0.5), cases[i].ns), "%llu gives %llu",
			  cases[i].ns, (unsigned long long)pb_lag_quantile_ns(&lag, 0.5));
	}
}

Test(lag, p99_is_the_hundredth_part_from_above_and_the_maximum_is_exact)
{
	struct pb_lag lag = {0};

	for (unsigned i = 1; i <= 1000; i++)
		pb_lag_record(&lag, i * 1000ULL);
	cr_assert_eq(lag.max_ns, 1000000);
	cr_assert_eq(lag.turns, 1000);
	cr_assert(near(pb_lag_quantile_ns(&lag, 0.99), 990000));
	cr_assert_eq(pb_lag_quantile_ns(&lag, 1), 1000000);
}

Test(lag, an_empty_histogram_says_zero)
{
	struct pb_lag lag = {0};

	cr_assert_eq(pb_lag_quantile_ns(&lag, 0.99), 0);
}

static void spin(uv_timer_t *timer)
{
	uint64_t until = pb_now_ns() + 30000000;

	while (pb_now_ns() < until)
		;
	uv_close((uv_handle_t *)timer, NULL);
}

Test(lag, a_loop_that_waits_is_not_busy_and_one_that_works_is)
{
	struct pb_lag lag;
	uv_timer_t timer;
	uv_loop_t loop;

	cr_assert_eq(uv_loop_init(&loop), 0);
	cr_assert_eq(uv_loop_configure(&loop, UV_METRICS_IDLE_TIME), 0);
	uv_timer_init(&loop, &timer);
	pb_lag_start(&lag, &loop);
	/* Half a second of waiting, then 30 ms of work; a turn more ends the last one. */
	uv_timer_start(&timer, spin, 500, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_run(&loop, UV_RUN_NOWAIT);
	cr_assert_geq(lag.max_ns, 30000000);
	cr_assert_lt(lag.max_ns, 400000000, "the waiting was counted");
	pb_lag_stop(&lag);
	uv_run(&loop, UV_RUN_DEFAULT);
	cr_assert_eq(uv_loop_close(&loop), 0);
}
