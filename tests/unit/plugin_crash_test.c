/* SPDX-License-Identifier: Apache-2.0 */
/* Crash records: what one process leaves to the next. The restart is tests/plugins/crash_test.sh.
 */
#include <criterion/criterion.h>

#include <signal.h>

#include <plugin/crash.h>
#include <plugin/crash_page.h>

static char dir[] = "/tmp/pb-crash-XXXXXX";
static struct pb_crash_page page;
static struct pb_err err;

static void set_up(void)
{
	PB_FREE char *state = NULL;

	cr_assert_not_null(mkdtemp(dir));
	state = pb_sprintf("%s/state", dir);
	cr_assert_eq(pb_dir_make(state, 0700, &err), 0);
}

static void tear_down(void)
{
	PB_FREE char *command = pb_sprintf("rm -r %s", dir);

	cr_expect_eq(system(command), 0);
}

TestSuite(crash, .init = set_up, .fini = tear_down);

/* A page as a process leaves it that died of `cause` in a plugin's step. */
static void died(const char *plugin, uint64_t hash, enum pb_crash_step step, uint32_t cause)
{
	memcpy(page.magic, PB_CRASH_MAGIC, sizeof(page.magic));
	page.version = PB_CRASH_VERSION;
	page.culprits[4].hash = hash;
	snprintf(page.culprits[4].plugin, sizeof(page.culprits[4].plugin), "%s", plugin);
	page.culprit = 5;
	page.step = step;
	page.deadline_ms = 5000;
	atomic_store(&page.cause, cause);
	cr_assert_eq(pb_crash_page_take(&page, dir, &err), 0, "%s", err.text);
}

Test(crash, a_crash_is_counted_against_the_very_file)
{
	struct pb_crash_record *records = NULL;

	died("kpr", 0xabc, PB_STEP_PREPARE, SIGSEGV);
	died("kpr", 0xabc, PB_STEP_TIMER, PB_CRASH_HANG);
	died("kpr", 0xdef, PB_STEP_START, SIGABRT);
	cr_assert_eq(pb_crash_records_read(dir, &records, &err), 0);
	cr_expect_eq(pb_crash_count(records, "kpr", 0xabc), 2);
	cr_expect_eq(pb_crash_count(records, "kpr", 0xdef), 1);
	cr_expect_eq(pb_crash_count(records, "policy", 0xabc), 0);
	cr_expect_str_eq(pb_crash_find(records, "kpr", 0xabc)->text,
			 "a timer callback ran longer than 5000 ms");
	cr_expect_str_eq(pb_crash_find(records, "kpr", 0xdef)->text,
			 "start() crashed with signal 6 (Aborted)");
	pb_crash_records_free(records);
}

Test(crash, a_record_is_fresh_for_one_process_only)
{
	for (int process = 0; process < 2; process++) {
		struct pb_crash_record *records = NULL;

		if (process == 0)
			died("kpr", 1, PB_STEP_STOP, SIGBUS);
		cr_assert_eq(pb_crash_records_read(dir, &records, &err), 0);
		cr_assert_not_null(records);
		cr_expect_eq(records->fresh, process == 0);
		cr_expect_eq(records->count, 1);
		pb_crash_records_free(records);
	}
}

Test(crash, a_page_without_cause_or_with_nonsense_counts_nothing)
{
	struct pb_crash_record *records = NULL;

	died("kpr", 1, PB_STEP_STOP, 0);
	died("../etc", 1, PB_STEP_STOP, SIGSEGV);
	died("", 1, PB_STEP_STOP, SIGSEGV);
	memset(&page, 0xff, sizeof(page));
	cr_assert_eq(pb_crash_page_take(&page, dir, &err), 0);
	memset(&page, 0xff, sizeof(page));
	memcpy(page.magic, PB_CRASH_MAGIC, sizeof(page.magic));
	page.version = PB_CRASH_VERSION;
	cr_assert_eq(pb_crash_page_take(&page, dir, &err), 0);
	cr_assert_eq(pb_crash_records_read(dir, &records, &err), 0);
	cr_expect_null(records);
}

Test(crash, a_damaged_record_never_keeps_the_agent_from_starting)
{
	static const char *const texts[] = {"", "{", "[]", "{\"hash\":7}", "\xff\xfe"};
	PB_FREE char *path = pb_sprintf("%s/state/crash-kpr-0000000000000001.json", dir);
	struct pb_crash_record *records = NULL;

	for (size_t i = 0; i < PB_ARRAY_LEN(texts); i++) {
		cr_assert_eq(pb_file_write(path, texts[i], strlen(texts[i]), 0600, &err), 0);
		cr_assert_eq(pb_crash_records_read(dir, &records, &err), 0);
		cr_expect_null(records, "%s", texts[i]);
	}
	died("kpr", 1, PB_STEP_STOP, SIGSEGV);
	cr_assert_eq(pb_crash_records_read(dir, &records, &err), 0);
	cr_expect_eq(records->count, 1);
	pb_crash_records_free(records);
}

Test(crash, the_marker_knows_nested_calls)
{
	struct pb_crash_culprit *outer = pb_crash_culprit_new("outer", 1);
	struct pb_crash_culprit *inner = pb_crash_culprit_new("inner", 2);
	struct pb_crash_call first, second;

	cr_assert_not_null(outer);
	cr_assert_neq(outer, inner);
	pb_crash_enter(outer, PB_STEP_TIMER, 10, true, &first);
	pb_crash_enter(inner, PB_STEP_TOPIC, 20, true, &second);
	cr_expect_eq(second.step, PB_STEP_TIMER, "what ran outside is put back on leaving");
	cr_expect_eq(second.start_ns, 10);
	pb_crash_leave(&second);
	pb_crash_leave(&first);
	cr_expect_eq(first.culprit, 0);
	pb_crash_culprit_free(inner);
	pb_crash_culprit_free(outer);
}
