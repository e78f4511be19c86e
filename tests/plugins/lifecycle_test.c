/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plugin's life on a real datapath: what each failure says, and that the old generation goes
 * on serving. One broken plugin for each way to fail; see sample.c.
 */
#include "manager_sandbox.h"

#include <dirent.h>
#include <sys/stat.h>

TestSuite(lifecycle, .init = agent_start, .fini = agent_stop, .timeout = 120);

/* ---- going well ---- */

Test(lifecycle, a_loaded_plugin_is_in_its_chain_and_listed)
{
	cr_assert_eq(agent_load("sample", agent_file("good")), 0, "%s", agent.text);
	agent_expect_serves("1.0.0");
	{
		PB_JSON_FREE cJSON *row = agent_row("sample");

		cr_expect_str_eq(pb_json_str(row, "state", ""), "loaded");
		cr_expect_str_eq(pb_json_str(row, "version", ""), "1.0.0");
		cr_expect_str_eq(pb_json_str(row, "hooks", ""), "dev-ingress");
		cr_expect_str_eq(pb_json_str(row, "error", ""), "");
		cr_expect_eq(pb_json_num(row, "generation", 0), 1);
	}
}

Test(lifecycle, a_reload_takes_state_and_counts_along)
{
	cr_assert_eq(agent_load("sample", agent_file("good")), 0, "%s", agent.text);
	agent_expect_serves("1.0.0");
	cr_assert_eq(agent_command("plugin reload", "sample", agent_file("second")), 0, "%s",
		     agent.answer);
	cr_expect_not_null(strstr(agent.answer, "\"swap_us\":"), "%s", agent.answer);
	agent_expect_serves("2.0.0");
	cr_assert_eq(agent_command("sample info", NULL, NULL), 0);
	cr_expect_str_eq(agent.answer,
			 "{\"version\":\"2.0.0\",\"packets\":2,\"reloads\":1,\"resumes\":0}");
}

Test(lifecycle, an_unloaded_plugin_leaves_chain_and_commands)
{
	static const unsigned char frame[64];

	cr_assert_eq(agent_load("sample", agent_file("good")), 0, "%s", agent.text);
	cr_assert_eq(agent_unload("sample"), 0, "%s", agent.text);
	cr_expect_eq(agent_command("sample info", NULL, NULL), -ENOENT);
	cr_expect_null(agent_row("sample"));
	cr_expect_eq(sandbox_run(PB_HOOK_DEV_INGRESS, frame, sizeof(frame)), -1);
}

Test(lifecycle, a_status_command_answers_in_the_agents_verbose_status)
{
	PB_JSON_FREE cJSON *status = cJSON_CreateObject();
	PB_FREE char *text = NULL;

	pb_manager_details_json(agent.manager, status);
	cr_assert_null(status->child);
	cr_assert_eq(agent_load("sample", agent_file("good")), 0, "%s", agent.text);
	pb_manager_details_json(agent.manager, status);
	text = cJSON_PrintUnformatted(status);
	cr_assert_str_eq(text, "{\"sample\":{\"version\":\"1.0.0\",\"packets\":0,\"reloads\":0,"
			       "\"resumes\":0}}");
}

Test(lifecycle, a_configuration_loads_reconfigures_and_unloads)
{
	PB_FREE char *file = strdup(agent_file("good"));
	PB_FREE char *dependent = strdup(agent_file("dependent"));
	/* The one that requires the other comes first: order in the file means nothing. */
	const char *const both[] = {"dependent", dependent, "{}", "sample", file, "{}", NULL};
	const char *const changed[] = {"sample", file, "{\"x\":1}", NULL};
	const char *const none[] = {NULL};

	cr_expect_eq(agent_apply(both), 0, "%s", agent.text);
	agent_expect_serves("1.0.0");
	cr_expect_eq(agent_unload("sample"), -EBUSY);
	cr_expect_str_eq(agent.text, "plugin sample: can't be unloaded: required by dependent");
	cr_expect_eq(agent_apply(changed), 0, "%s", agent.text);
	{
		PB_JSON_FREE cJSON *row = agent_row("sample");

		cr_expect_eq(pb_json_num(row, "generation", 0), 2, "no reconfigure(): a reload");
		cr_expect_null(agent_row("dependent"));
	}
	cr_expect_eq(agent_apply(none), 0, "%s", agent.text);
	cr_expect_null(agent_row("sample"));
}

Test(lifecycle, a_missing_requirement_is_named)
{
	cr_expect_eq(agent_load("dependent", agent_file("dependent")), -ENOENT);
	cr_expect_str_eq(agent.text,
			 "plugin dependent: requires plugin sample, which is not loaded: add it to "
			 "`plugins` in the configuration, or load it first");
}

static double packets_of_one_frame(void)
{
	static const unsigned char frame[64];
	double packets[2];

	for (int i = 0; i < 2; i++) {
		PB_JSON_FREE cJSON *json = NULL;

		cr_assert_eq(agent_command("sample info", NULL, NULL), 0, "%s", agent.answer);
		json = cJSON_Parse(agent.answer);
		packets[i] = pb_json_num(json, "packets", -1);
		if (i == 0)
			sandbox_run(PB_HOOK_DEV_INGRESS, frame, sizeof(frame));
	}
	return packets[1] - packets[0];
}

Test(lifecycle, a_reconfiguration_reaches_the_programs_without_a_new_generation)
{
	PB_FREE char *file = strdup(agent_file("reconfigure"));
	const char *const one[] = {"sample", file, "{}", NULL};
	const char *const five[] = {"sample", file, "{\"step\":5}", NULL};
	const char *const other[] = {"sample", file, "{\"other\":1}", NULL};
	PB_JSON_FREE cJSON *row = NULL, *later = NULL;

	cr_assert_eq(agent_apply(one), 0, "%s", agent.text);
	cr_expect_eq(packets_of_one_frame(), 1);
	cr_assert_eq(agent_apply(five), 0, "%s", agent.text);
	cr_expect_eq(packets_of_one_frame(), 5);
	row = agent_row("sample");
	cr_expect_eq(pb_json_num(row, "generation", 0), 1);
	/* -ENOTSUP: what it can't change while it runs, a reload does */
	cr_assert_eq(agent_apply(other), 0, "%s", agent.text);
	later = agent_row("sample");
	cr_expect_eq(pb_json_num(later, "generation", 0), 2);
	cr_expect_eq(packets_of_one_frame(), 1);
}

Test(lifecycle, a_refused_reconfiguration_keeps_the_old_one_in_force)
{
	PB_FREE char *file = strdup(agent_file("fail_reconfigure"));
	const char *const one[] = {"sample", file, "{}", NULL};
	const char *const five[] = {"sample", file, "{\"step\":5}", NULL};

	cr_assert_eq(agent_apply(one), 0, "%s", agent.text);
	cr_expect_eq(agent_apply(five), -EIO);
	cr_expect_str_eq(agent.text, "plugin sample: reconfigure(): told to fail in reconfigure");
	cr_expect_eq(packets_of_one_frame(), 1);
}

/* A chain of another plugin's on the same hook must not bring in what was refused. */
Test(lifecycle, constants_of_a_reconfiguration_that_failed_never_reach_a_program)
{
	static const struct {
		const char *json, *text;
	} cases[] = {
		{"{\"step\":66}", "plugin sample: reconfigure(): 66 is too much"},
		{"{\"step\":77}", "plugin sample, object sample: the constant sample_step has 4 "
				  "bytes, 8 were given"},
	};
	PB_FREE char *file = strdup(agent_file("reconfigure"));
	const char *const five[] = {"sample", file, "{\"step\":5}", NULL};
	const char *const six[] = {"sample", file, "{\"step\":6}", NULL};
	const char *const one[] = {"sample", file, "{}", NULL};

	cr_assert_eq(agent_apply(one), 0, "%s", agent.text);
	cr_assert_eq(agent_apply(five), 0, "%s", agent.text);
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		const char *const bad[] = {"sample", file, cases[i].json, NULL};

		/* refused twice: the first refusal isn't taken for the running configuration */
		cr_expect_eq(agent_apply(bad), -EIO);
		cr_expect_str_eq(agent.text, cases[i].text);
		cr_expect_eq(agent_apply(bad), -EIO);
		cr_assert_eq(agent_load("dependent", agent_file("dependent")), 0, "%s", agent.text);
		cr_expect_eq(packets_of_one_frame(), 5);
		cr_assert_eq(agent_unload("dependent"), 0, "%s", agent.text);
	}
	cr_expect_eq(agent_apply(six), 0, "%s", agent.text);
	cr_expect_eq(packets_of_one_frame(), 6);
}

/* ---- the next process ---- */

/* ---- borrowed maps ---- */

static const char *borrower_file(const char *name)
{
	static char path[512];
	const char *top = getenv("PB_TOP_BUILDDIR");

	snprintf(path, sizeof(path), "%s/tests/plugins/.libs/%s.so", top ? top : ".", name);
	return path;
}

static double packets_counted(void)
{
	PB_JSON_FREE cJSON *json = NULL;

	cr_assert_eq(agent_command("sample info", NULL, NULL), 0, "%s", agent.answer);
	json = cJSON_Parse(agent.answer);
	return pb_json_num(json, "packets", -1);
}

Test(lifecycle, a_borrower_on_another_hook_follows_the_owner_to_its_new_map)
{
	static const unsigned char frame[64];

	cr_assert_eq(agent_load("sample", agent_file("shared")), 0, "%s", agent.text);
	cr_assert_eq(agent_load("borrower", borrower_file("borrower")), 0, "%s", agent.text);
	sandbox_run(PB_HOOK_DEV_EGRESS, frame, sizeof(frame));
	cr_expect_eq(packets_counted(), 100);
	/* when: a version whose map is made anew */
	cr_assert_eq(agent_reload("sample", agent_file("anew")), 0, "%s", agent.text);
	cr_expect_eq(packets_counted(), 0);
	sandbox_run(PB_HOOK_DEV_EGRESS, frame, sizeof(frame));
	cr_expect_eq(packets_counted(), 100, "the borrower's program has the new map");
	/* when: a version that no longer shares; then: it is refused, the other goes on */
	cr_expect_eq(agent_reload("sample", agent_file("good")), -EACCES);
	cr_expect_not_null(strstr(agent.text, "plugin borrower, object borrower: map "
					      "sample__sample_counts: plugin sample doesn't share "
					      "its map sample_counts (PB_MAP_SHARED)"),
			   "%s", agent.text);
	sandbox_run(PB_HOOK_DEV_EGRESS, frame, sizeof(frame));
	cr_expect_eq(packets_counted(), 200);
	cr_expect_eq(agent_unload("sample"), -EBUSY);
}

Test(lifecycle, a_borrower_must_require_the_owner_and_the_owner_must_share)
{
	cr_assert_eq(agent_load("sample", agent_file("good")), 0, "%s", agent.text);
	cr_expect_eq(agent_load("borrower", borrower_file("borrower_alone")), -EINVAL);
	cr_expect_str_eq(agent.text,
			 "plugin borrower: prepare(): bpf_object(): borrower: map "
			 "sample__sample_counts: a borrowed map is named PLUGIN__MAP, and the "
			 "manifest must require that plugin");
	cr_expect_eq(agent_load("borrower", borrower_file("borrower")), -EACCES);
	cr_expect_not_null(strstr(agent.text, "doesn't share its map sample_counts"), "%s",
			   agent.text);
}

/* ---- kept fds ---- */

static bool sample_found_its_file(unsigned times)
{
	PB_JSON_FREE cJSON *json = NULL;

	cr_assert_eq(agent_command("sample info", NULL, NULL), 0, "%s", agent.answer);
	json = cJSON_Parse(agent.answer);
	return pb_json_num(json, "resumes", -1) == times;
}

Test(lifecycle, a_kept_fd_stays_over_reloads_and_goes_with_the_plugin)
{
	cr_assert_eq(agent_load("sample", agent_file("keep_fd")), 0, "%s", agent.text);
	cr_expect(sample_found_its_file(0));
	cr_assert_eq(agent_reload("sample", agent_file("keep_fd")), 0, "%s", agent.text);
	cr_expect(sample_found_its_file(1), "%s", agent.answer);
	/* a load that is called off leaves it alone */
	cr_expect_eq(agent_reload("sample", agent_file("fail_restore")), -EINVAL);
	cr_assert_eq(agent_reload("sample", agent_file("keep_fd")), 0, "%s", agent.text);
	cr_expect_not(sample_found_its_file(0));
	cr_assert_eq(agent_unload("sample"), 0, "%s", agent.text);
	cr_assert_eq(agent_load("sample", agent_file("keep_fd")), 0, "%s", agent.text);
	cr_expect(sample_found_its_file(0), "%s", agent.answer);
}

Test(lifecycle, an_adopted_chain_serves_until_all_plugins_are_there)
{
	PB_FREE char *file = strdup(agent_file("good"));
	const char *const config[] = {"sample", file, "{}", NULL};
	double before;

	cr_assert_eq(agent_apply(config), 0, "%s", agent.text);
	cr_expect_eq(packets_of_one_frame(), 1);
	before = agent_frames_while_restarting(config);
	cr_expect_gt(before, 0);
	agent_expect_serves("1.0.0");
	{
		PB_JSON_FREE cJSON *json = NULL;

		cr_assert_eq(agent_command("sample info", NULL, NULL), 0);
		json = cJSON_Parse(agent.answer);
		cr_expect_eq(pb_json_num(json, "packets", -1), before + 2,
			     "every frame between the two managers was counted");
	}
}

Test(lifecycle, a_required_plugin_that_fails_leaves_the_adopted_chain)
{
	PB_FREE char *good = strdup(agent_file("good"));
	PB_FREE char *bad = strdup(agent_file("fail_prepare"));
	const char *const config[] = {"sample", good, "{}", NULL};
	const char *const broken_config[] = {"sample", bad, "{}", NULL};
	double frames;

	cr_assert_eq(agent_apply(config), 0, "%s", agent.text);
	agent_required = true;
	frames = agent_frames_while_restarting(broken_config);
	cr_expect_eq(agent.rc, -ENOENT);
	cr_expect_str_eq(agent.text, "plugin sample: prepare(): told to fail in prepare");
	cr_expect_gt(frames, 0);
	agent_required = false;
	cr_assert_eq(agent_load("sample", good), 0, "%s", agent.text);
	cr_expect_eq(packets_of_one_frame(), 1);
}

Test(lifecycle, a_close_in_the_middle_of_a_reload_ends_in_order)
{
	cr_assert_eq(agent_load("sample", agent_file("good")), 0, "%s", agent.text);
	pb_manager_reload(agent.manager, "sample", agent_file("second"), NULL, NULL);
	pb_manager_reload(agent.manager, "sample", agent_file("good"), NULL, NULL);
	uv_run(&sandbox.loop, UV_RUN_NOWAIT);
	/* then agent_stop() finds no handle left on the loop */
}

/* ---- files ---- */

static char *damaged(const char *name, void (*damage)(char *data, size_t *len))
{
	PB_BUF_FREE struct pb_buf file = {0};
	char *path = pb_sprintf("%s/%s.so", agent.dir, name);

	cr_assert_eq(pb_file_read(agent_file("good"), 1U << 24, &file, &sandbox.err), 0);
	damage(file.data, &file.len);
	cr_assert_eq(pb_file_write(path, file.data, file.len, 0644, &sandbox.err), 0);
	return path;
}

static void no_elf(char *data, size_t *len)
{
	(void)len;
	data[0] = 'X';
}

static void cut(char *data, size_t *len)
{
	(void)data;
	*len /= 2;
}

static void bad_magic(char *data, size_t *len)
{
	char *magic = memmem(data, *len, "PATCHBAY", 8);

	cr_assert_not_null(magic);
	memcpy(magic, "PATCHBOX", 8);
}

Test(lifecycle, a_damaged_file_is_refused_by_its_exact_damage)
{
	static const struct {
		const char *name;
		void (*damage)(char *data, size_t *len);
		const char *text;
	} cases[] = {
		{"no-elf", no_elf, "not an ELF file"},
		{"truncated", cut, "truncated: the section table lies behind the end of the file"},
		{"bad-magic", bad_magic,
		 "bad magic in section .pb_manifest: not made by PB_PLUGIN()"},
	};

	cr_assert_eq(agent_load("sample", agent_file("good")), 0, "%s", agent.text);
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		PB_FREE char *path = damaged(cases[i].name, cases[i].damage);
		PB_FREE char *text = pb_sprintf("plugin sample: %s: %s", path, cases[i].text);

		cr_expect_lt(agent_reload("sample", path), 0);
		cr_expect_str_eq(agent.text, text);
		agent_expect_serves("1.0.0");
	}
}

static void nothing(char *data, size_t *len)
{
	(void)data;
	(void)len;
}

Test(lifecycle, a_file_that_others_may_write_is_refused)
{
	PB_FREE char *path = damaged("writable", nothing);
	PB_FREE char *text = pb_sprintf("plugin sample: %s: writable by group or others (mode "
					"0664): whoever can write it is root (chmod go-w)",
					path);
	PB_FREE char *foreign = pb_sprintf("plugin sample: %s: owned by user 1: a plugin runs as "
					   "root, so its file must belong to root (chown root)",
					   path);

	cr_assert_eq(chmod(path, 0664), 0);
	cr_expect_eq(agent_load("sample", path), -EACCES);
	cr_expect_str_eq(agent.text, text);
	cr_assert_eq(chmod(path, 0644), 0);
	cr_assert_eq(chown(path, 1, 0), 0);
	cr_expect_eq(agent_load("sample", path), -EACCES);
	cr_expect_str_eq(agent.text, foreign);
}

/* ---- each step ---- */

/*
 * What follows "plugin sample". FILE stands for the file's path; at VERIFIER the kernel's own
 * words begin, which no two kernels share.
 */
static const struct broken {
	const char *variant;
	int rc;
	const char *text;
} broken[] = {
	{"abi_major", -EPROTO,
	 "FILE: built for plugin ABI 2.2. This agent offers 1.2. The major numbers must be equal: "
	 "rebuild the plugin with the SDK of this agent"},
	{"abi_minor", -EPROTO,
	 "FILE: built for plugin ABI 1.7. This agent offers 1.2. The plugin's minor number must "
	 "not be above the agent's: update the agent, or rebuild the plugin with its SDK"},
	{"unknown_symbol", -ENOEXEC,
	 "FILE: needs the function patchbay_function_that_does_not_exist, which nothing here "
	 "offers: a plugin calls the agent through struct pb_host only, and must be linked with "
	 "every library it uses"},
	{"flags", -EINVAL, "FILE: struct pb_plugin has flags 0x4, which this agent doesn't know"},
	{"newer_host", -ENOTSUP,
	 "prepare(): needs the host function from_the_future, which this agent (plugin ABI 1.2) "
	 "doesn't have: update the agent"},
	{"newer_state", -EPROTO,
	 "version 9.0.0 accepts saved state of versions 2 to 3, but the running version 1.0.0 "
	 "writes version 1: unload it first, which loses its state"},
	{"fail_prepare", -EINVAL, "prepare(): told to fail in prepare"},
	{"fail_restore", -EINVAL, "restore(): told to fail in restore"},
	{"cycle", -ELOOP,
	 "hook dev-ingress, band service: the order is a cycle: sample -> second -> sample; drop "
	 "one of these before or after"},
	{"bpf_refused", -EACCES,
	 ", object sample: program sample_count: the kernel refused it: VERIFIER"},
	{"bpf_layout", -EINVAL,
	 ", object sample: map sample/sample_counts: the layout of its value changed: member "
	 "packets had 8 bytes and has 4, but the pinned map "
	 "(/sys/fs/bpf/patchbay/plugins/sample/sample_counts_v1) keeps its entries over reloads; "
	 "give the map a schema above 1 in struct pb_map_opts, or remove the pin if its entries "
	 "may go"},
};

static void expect_text(const struct broken *b, const char *file)
{
	bool path = strncmp(b->text, "FILE", 4) == 0;
	PB_FREE char *expected = pb_sprintf("plugin sample%s%s%s", *b->text == ',' ? "" : ": ",
					    path ? file : "", b->text + (path ? 4 : 0));
	char *verifier = strstr(expected, "VERIFIER");

	if (verifier) {
		*verifier = '\0';
		agent.text[strnlen(agent.text, (size_t)(verifier - expected))] = '\0';
	}
	cr_expect_str_eq(agent.text, expected);
}

Test(lifecycle, a_reload_to_a_broken_plugin_says_why_and_the_old_generation_serves)
{
	cr_assert_eq(agent_load("sample", agent_file("good")), 0, "%s", agent.text);
	for (size_t i = 0; i < PB_ARRAY_LEN(broken); i++) {
		const char *file = agent_file(broken[i].variant);

		cr_expect_eq(agent_reload("sample", file), broken[i].rc, "%s: %d: %s",
			     broken[i].variant, agent.rc, agent.text);
		expect_text(&broken[i], file);
		agent_expect_serves("1.0.0");
	}
}

Test(lifecycle, a_first_load_of_a_broken_plugin_leaves_nothing)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(broken); i++) {
		const char *variant = broken[i].variant;

		/* Without an older generation there is no state to accept and none to restore. */
		if (!strcmp(variant, "newer_state") || !strcmp(variant, "fail_restore") ||
		    !strcmp(variant, "bpf_layout"))
			continue;
		cr_expect_eq(agent_load("sample", agent_file(variant)), broken[i].rc, "%s",
			     agent.text);
		cr_expect_eq(agent_command("sample info", NULL, NULL), -ENOENT);
		cr_expect_null(agent_row("sample"), "who loaded it by hand has been told");
	}
}

Test(lifecycle, a_plugin_counts_as_failed_while_the_configuration_names_it)
{
	const char *const misspelt[] = {"samlpe", "/nonexistent/samlpe.so", "{}", NULL};
	const char *const none[] = {NULL};

	cr_expect_eq(agent_apply(misspelt), -EIO);
	{
		PB_JSON_FREE cJSON *row = agent_row("samlpe");

		cr_expect_str_eq(pb_json_str(row, "state", ""), "failed");
		cr_expect_str_eq(pb_json_str(row, "error", ""), agent.text);
	}
	cr_expect_eq(agent_apply(none), 0, "%s", agent.text);
	cr_expect_null(agent_row("samlpe"));
}

Test(lifecycle, an_old_generation_that_refuses_to_leave_calls_the_reload_off)
{
	static const struct {
		const char *variant, *text;
		int resumes;
	} cases[] = {
		{"fail_quiesce", "plugin sample: quiesce(): told to fail in quiesce", 0},
		{"fail_save", "plugin sample: save(): told to fail in save", 1},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		PB_JSON_FREE cJSON *json = NULL;

		cr_assert_eq(agent_load("sample", agent_file(cases[i].variant)), 0, "%s",
			     agent.text);
		cr_expect_eq(agent_reload("sample", agent_file("good")), -EINVAL);
		cr_expect_str_eq(agent.text, cases[i].text);
		agent_expect_serves("9.0.0");
		cr_assert_eq(agent_command("sample info", NULL, NULL), 0);
		json = cJSON_Parse(agent.answer);
		cr_expect_eq(pb_json_num(json, "resumes", -1), cases[i].resumes);
		cr_assert_eq(agent_unload("sample"), 0, "%s", agent.text);
	}
}

Test(lifecycle, an_error_in_start_is_reported_and_the_generation_stays)
{
	PB_JSON_FREE cJSON *row = NULL;

	cr_assert_eq(agent_load("sample", agent_file("good")), 0, "%s", agent.text);
	cr_expect_eq(agent_reload("sample", agent_file("fail_start")), 0, "%s", agent.text);
	agent_expect_serves("9.0.0");
	row = agent_row("sample");
	cr_expect_str_eq(pb_json_str(row, "error", ""),
			 "plugin sample: start(): told to fail in start");
	cr_expect_str_eq(pb_json_str(row, "state", ""), "loaded");
}

Test(lifecycle, a_host_function_in_the_wrong_step_says_where_it_belongs)
{
	PB_JSON_FREE cJSON *row = NULL;

	cr_assert_eq(agent_load("sample", agent_file("late_subscribe")), 0, "%s", agent.text);
	row = agent_row("sample");
	cr_expect_str_eq(pb_json_str(row, "error", ""),
			 "plugin sample: start(): subscribe() may be called in prepare() only");
}

/* ---- what is left behind ---- */

Test(lifecycle, a_leaked_timer_is_taken_back_and_reported)
{
	PB_JSON_FREE cJSON *row = NULL;

	cr_assert_eq(agent_load("sample", agent_file("leak_timer")), 0, "%s", agent.text);
	cr_assert_eq(agent_reload("sample", agent_file("good")), 0, "%s", agent.text);
	agent_expect_serves("1.0.0");
	row = agent_row("sample");
	cr_expect_str_eq(pb_json_str(row, "leak", ""),
			 "generation 1 left 1 timer and 0 watched fds behind after stop()");
}

Test(lifecycle, a_slow_callback_is_counted)
{
	PB_BUF_FREE struct pb_buf metrics = {0};
	PB_JSON_FREE cJSON *row = NULL;

	cr_assert_eq(agent_load("sample", agent_file("slow")), 0, "%s", agent.text);
	for (double slow = 0; slow == 0;) {
		cJSON_Delete(row);
		uv_run(&sandbox.loop, UV_RUN_NOWAIT);
		row = agent_row("sample");
		slow = pb_json_num(row, "slow_callbacks", 0);
	}
	cr_assert_eq(pb_manager_metrics(agent.manager, &metrics), 0);
	cr_expect_not_null(
		strstr(metrics.data, "patchbay_plugin_slow_callbacks_total{plugin=\"sample\"} 1"));
}

static size_t lingering(void)
{
	PB_JSON_FREE cJSON *row = agent_row("sample");

	return (size_t)cJSON_GetArraySize(cJSON_GetObjectItem(row, "lingering"));
}

Test(lifecycle, generations_with_running_work_stay_mapped_and_are_capped)
{
	PB_FREE char *until = pb_sprintf("%s/until", agent.dir);
	PB_FREE char *json = pb_sprintf("{\"until\":\"%s\"}", until);
	PB_FREE char *file = strdup(agent_file("long_work"));
	const char *const config[] = {"sample", file, json, NULL};

	/* given four old generations whose work function hasn't returned */
	cr_assert_eq(agent_apply(config), 0, "%s", agent.text);
	for (size_t i = 0; i < 4; i++) {
		cr_expect_eq(lingering(), i);
		cr_assert_eq(agent_reload("sample", NULL), 0, "%s", agent.text);
	}
	/* then a fifth is refused and the last one serves */
	cr_expect_eq(agent_reload("sample", NULL), -EBUSY);
	cr_expect_str_eq(
		agent.text,
		"plugin sample: 4 old generations still run work functions (sample "
		"generation 4, sample generation 3, sample generation 2, sample generation "
		"1): wait until they end, or restart the agent, which leaves the datapath "
		"running");
	agent_expect_serves("9.0.0");
	/* when the work ends, then all are unmapped */
	cr_assert_eq(pb_file_write(until, "", 0, 0600, &sandbox.err), 0);
	agent_until(lingering() == 0);
	cr_expect_eq(agent_reload("sample", NULL), 0, "%s", agent.text);
}

/* ---- often ---- */

static unsigned count_dir(const char *path)
{
	DIR *dir = opendir(path);
	unsigned n = 0;

	cr_assert_not_null(dir, "%s", path);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static long rss_kib(void)
{
	PB_BUF_FREE struct pb_buf status = {0};
	long kib = 0;

	cr_assert_eq(pb_file_read("/proc/self/status", 1U << 16, &status, NULL), 0);
	sscanf(strstr(status.data, "VmRSS:"), "VmRSS: %ld", &kib);
	return kib;
}

struct footprint {
	unsigned fds, pins, chains, copies;
	long rss;
};

static struct footprint footprint(void)
{
	PB_FREE char *copies = pb_sprintf("%s/plugins", agent.dir);

	return (struct footprint){.fds = count_dir("/proc/self/fd"),
				  .pins = count_dir("/sys/fs/bpf/patchbay"),
				  .chains = count_dir("/sys/fs/bpf/patchbay/chains"),
				  .copies = count_dir(copies),
				  .rss = rss_kib()};
}

Test(lifecycle, a_thousand_reloads_leave_memory_fds_pins_and_copies_as_they_were)
{
	const char *env = getenv("PB_RELOADS");
	int n = env ? atoi(env) : 1000;
	struct footprint before, after;

	cr_assert_eq(agent_load("sample", agent_file("good")), 0, "%s", agent.text);
	for (int i = 0; i < 50; i++)
		cr_assert_eq(agent_reload("sample", agent_file(i % 2 ? "good" : "second")), 0);
	before = footprint();
	for (int i = 0; i < n; i++)
		cr_assert_eq(agent_reload("sample", agent_file(i % 2 ? "good" : "second")), 0, "%s",
			     agent.text);
	after = footprint();
	cr_expect_eq(after.fds, before.fds, "fds: %u, then %u", before.fds, after.fds);
	cr_expect_eq(after.pins, before.pins);
	cr_expect_eq(after.chains, before.chains);
	cr_expect_eq(after.copies, before.copies, "copies: %u, then %u", before.copies,
		     after.copies);
#ifndef __SANITIZE_ADDRESS__ /* which keeps freed memory for a while */
	cr_expect_lt(after.rss, before.rss + 2048, "RSS: %ld KiB, then %ld", before.rss, after.rss);
#endif
	agent_expect_serves(n % 2 ? "2.0.0" : "1.0.0");
}
