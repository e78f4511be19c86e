/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest directory: files come, change, break and go while the store follows. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

#include <kube/manifests.h>
#include <kube/store.h>
#include <kube/yaml.h>

/* ---- YAML -> JSON ---- */

static int append_document(void *arg, const char *json, size_t len, unsigned line,
			   struct pb_err *err)
{
	(void)line;
	(void)err;
	pb_buf_append(arg, json, len);
	return pb_buf_append(arg, ";", 1);
}

static int convert(const char *yaml, struct pb_buf *out, struct pb_err *err)
{
	FILE *in = fmemopen((void *)(uintptr_t)yaml, strlen(yaml), "r");
	int rc;

	cr_assert_not_null(in);
	rc = pb_yaml_documents(in, append_document, out, err);
	fclose(in);
	return rc;
}

Test(kube_yaml, scalars_mean_what_kubernetes_takes_them_for)
{
	static const struct {
		const char *yaml;
		const char *json;
	} cases[] = {
		{"a: text", "{\"a\":\"text\"};"},
		{"a: 80", "{\"a\":80};"},
		{"a: '80'", "{\"a\":\"80\"};"},
		{"a: \"80\"", "{\"a\":\"80\"};"},
		{"a: !!str 80", "{\"a\":\"80\"};"},
		{"a: !!int \"80\"", "{\"a\":80};"},
		{"a: |\n  80\n", "{\"a\":\"80\\u000a\"};"},
		{"a: yes", "{\"a\":true};"},
		{"a: Off", "{\"a\":false};"},
		{"a: y", "{\"a\":true};"},
		{"a: oN", "{\"a\":\"oN\"};"},
		{"a: ~", "{\"a\":null};"},
		{"a:", "{\"a\":null};"},
		{"a: 0x1F", "{\"a\":31};"},
		{"a: 0o17", "{\"a\":15};"},
		{"a: 017", "{\"a\":15};"},
		{"a: 0b101", "{\"a\":5};"},
		{"a: 1_000", "{\"a\":1000};"},
		{"a: -5", "{\"a\":-5};"},
		{"a: +5", "{\"a\":5};"},
		{"a: 1.50", "{\"a\":1.5};"},
		{"a: 1e3", "{\"a\":1000};"},
		{"a: 08", "{\"a\":8};"},
		{"a: 10.0.0.1", "{\"a\":\"10.0.0.1\"};"},
		{"a: 2001:db8::1", "{\"a\":\"2001:db8::1\"};"},
		{"a: 2001-01-01", "{\"a\":\"2001-01-01\"};"},
		{"a: 1.2.3", "{\"a\":\"1.2.3\"};"},
		{"on: 1", "{\"true\":1};"},
		{"1: b", "{\"1\":\"b\"};"},
		{"a: \"\\\"\\\\\\t\"", "{\"a\":\"\\\"\\\\\\u0009\"};"},
		{"- 1\n- [a, {b: c}]\n- []\n- {}", "[1,[\"a\",{\"b\":\"c\"}],[],{}];"},
		{"a: 1\n---\nb: 2\n---\n", "{\"a\":1};{\"b\":2};null;"},
		{"", ""},
		{"# only a comment\n", ""},
		{"{\"a\": [1, true, null, \"x\"]}", "{\"a\":[1,true,null,\"x\"]};"},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		PB_BUF_FREE struct pb_buf out = {0};
		struct pb_err err = {0};

		cr_assert_eq(convert(cases[i].yaml, &out, &err), 0, "%s: %s", cases[i].yaml,
			     err.text);
		cr_assert_str_eq(out.data ? out.data : "", cases[i].json, "%s", cases[i].yaml);
	}
}

Test(kube_yaml, anchors_aliases_and_merge_keys_are_expanded)
{
	static const struct {
		const char *yaml;
		const char *json;
	} cases[] = {
		{"a: &x {p: 1}\nb: *x", "{\"a\":{\"p\":1},\"b\":{\"p\":1}};"},
		{"a: &x 7\nb: [*x, *x]", "{\"a\":7,\"b\":[7,7]};"},
		{"a: &x 1\nb: &x 2\nc: *x", "{\"a\":1,\"b\":2,\"c\":2};"},
		{"a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3",
		 "{\"a\":{\"p\":1,\"q\":2},\"b\":{\"q\":3,\"p\":1}};"},
		{"b:\n  q: 3\n  <<: [{p: 1}, {p: 2, r: 4}]", "{\"b\":{\"q\":3,\"p\":1,\"r\":4}};"},
		{"b:\n  <<: {p: 1}\n", "{\"b\":{\"p\":1}};"},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		PB_BUF_FREE struct pb_buf out = {0};
		struct pb_err err = {0};

		cr_assert_eq(convert(cases[i].yaml, &out, &err), 0, "%s: %s", cases[i].yaml,
			     err.text);
		cr_assert_str_eq(out.data, cases[i].json);
	}
}

Test(kube_yaml, what_is_refused_names_the_line)
{
	static const struct {
		const char *yaml;
		const char *text;
	} cases[] = {
		{"a: 1\nb: 2\na: 3", "line 3: the key \"a\" is given twice, first in line 1"},
		{"a: 1\nb: [}", "line 2: not valid YAML"},
		{"a:\n\tb: 1", "indent with blanks, not tabs"},
		{"a: *x", "line 1: no anchor is named \"x\""},
		{"a: &x [*x]", "line 1: no anchor is named \"x\""},
		{"a: 1\nb:\n  <<: &y {p: 1}\nc: *y", "line 4: no anchor is named \"y\""},
		{"a: 1\nb: .inf", "line 2: a number that JSON can't hold"},
		{"a: !odd x", "line 1: a tag"},
		{"? [a]\n: b", "line 1: a key that is a mapping or a list"},
		{"a:\n  <<: 5", "line 2: the value of << is neither"},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		PB_BUF_FREE struct pb_buf out = {0};
		struct pb_err err = {0};

		cr_assert_eq(convert(cases[i].yaml, &out, &err), -EINVAL, "%s", cases[i].yaml);
		cr_assert_not_null(strstr(err.text, cases[i].text), "%s: %s", cases[i].yaml,
				   err.text);
	}
}

Test(kube_yaml, an_alias_bomb_ends_at_the_budget)
{
	PB_BUF_FREE struct pb_buf yaml = {0};
	PB_BUF_FREE struct pb_buf out = {0};
	struct pb_err err = {0};

	pb_buf_printf(&yaml, "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
	for (int i = 1; i < 12; i++) {
		pb_buf_printf(&yaml, "a%d: &a%d [", i, i);
		for (int j = 0; j < 10; j++)
			pb_buf_printf(&yaml, "%s*a%d", j ? "," : "", i - 1);
		pb_buf_printf(&yaml, "]\n");
	}
	cr_assert_eq(convert(yaml.data, &out, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "aliases expand to too much text"), "%s", err.text);
}

Test(kube_yaml, nesting_is_bounded)
{
	PB_BUF_FREE struct pb_buf out = {0};
	struct pb_err err = {0};
	char yaml[400];

	memset(yaml, '[', sizeof(yaml) - 1);
	yaml[sizeof(yaml) - 1] = '\0';
	cr_assert_eq(convert(yaml, &out, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "nested too deeply"), "%s", err.text);
}

/* ---- the directory ---- */

/* Long enough for a slow machine; nothing waits for it unless it fails. */
#define DEADLINE_MS 10000

struct watcher {
	char log[8192];
	unsigned n;
	struct pb_kube_watch *watch;
};

static uv_loop_t loop;
static struct pb_kube *kube;
static struct watcher services;
static char dir[64];
static bool is_closed;

static void on_event(void *arg, const struct pb_kube_event *event)
{
	static const char marks[] = "?+-.!";
	const struct pb_kube_meta *meta = event->object;
	struct watcher *w = arg;
	char *end = w->log + strlen(w->log);
	char mark = event->old ? '~' : marks[event->kind];
	size_t room = sizeof(w->log) - (size_t)(end - w->log);

	w->n++;
	if (meta)
		snprintf(end, room, "%c%s=%s ", mark, meta->name,
			 meta->n_labels ? meta->labels[0].value : "");
	else
		snprintf(end, room, "%c ", mark);
}

static void write_file(const char *name, const char *text)
{
	PB_FREE char *path = pb_sprintf("%s/%s", dir, name);
	FILE *out = fopen(path, "w");

	cr_assert_not_null(out, "%s", path);
	fputs(text, out);
	fclose(out);
}

static char *service(const char *name, const char *value)
{
	return pb_sprintf("apiVersion: v1\nkind: Service\nmetadata:\n  name: %s\n  labels: {v: "
			  "\"%s\"}\nspec: {clusterIP: 10.96.0.1}\n---\n",
			  name, value);
}

static void write_service(const char *file, const char *name, const char *value)
{
	PB_FREE char *text = service(name, value);

	write_file(file, text);
}

static void remove_file(const char *name)
{
	PB_FREE char *path = pb_sprintf("%s/%s", dir, name);

	cr_assert_eq(unlink(path), 0);
}

static void on_timer(uv_timer_t *timer)
{
	*(bool *)timer->data = true;
}

static void on_handle_closed(uv_handle_t *handle)
{
	*(bool *)handle->data = true;
}

/* Runs the loop until the condition holds; false: not in time. */
static bool run_until(bool (*holds)(const void *arg), const void *arg, unsigned deadline_ms)
{
	bool late = false, closed = false, ok;
	uv_timer_t timer;

	uv_timer_init(&loop, &timer);
	timer.data = &late;
	uv_timer_start(&timer, on_timer, deadline_ms, 0);
	while (!(ok = holds(arg)) && !late)
		uv_run(&loop, UV_RUN_ONCE);
	timer.data = &closed;
	uv_close((uv_handle_t *)&timer, on_handle_closed);
	while (!closed)
		uv_run(&loop, UV_RUN_NOWAIT);
	return ok;
}

static bool log_is(const void *arg)
{
	return strcmp(services.log, arg) == 0;
}

static void expect(const char *log)
{
	cr_assert(run_until(log_is, log, DEADLINE_MS), "expected \"%s\", got \"%s\"", log,
		  services.log);
	services.log[0] = '\0';
}

static bool state_has(const void *arg)
{
	const char *state = kube->stores[PB_KUBE_SERVICE].state;

	return state && strstr(state, arg);
}

static void expect_state(const char *text)
{
	cr_assert(run_until(state_has, text, DEADLINE_MS), "expected \"%s\" in \"%s\"", text,
		  kube->stores[PB_KUBE_SERVICE].state);
}

static void start(void)
{
	struct pb_source *source;
	struct pb_err err;

	cr_assert_eq(pb_source_manifests_new(&loop, (struct pb_sink *)kube, dir, &source, &err), 0);
	kube->source = source;
	kube->started = true;
	memset(&services, 0, sizeof(services));
	cr_assert_eq(pb_kube_watch(kube, PB_KUBE_SERVICE, on_event, &services, &services.watch), 0);
}

static void setup(void)
{
	struct pb_config config = {0};
	struct pb_err err;

	snprintf(dir, sizeof(dir), "/tmp/pb-manifests-XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
	uv_loop_init(&loop);
	cr_assert_eq(pb_kube_new(&loop, &config, &kube, &err), 0);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void teardown(void)
{
	is_closed = false;
	pb_kube_close(kube, on_closed, &is_closed);
	while (!is_closed)
		uv_run(&loop, UV_RUN_ONCE);
	cr_assert_eq(uv_loop_close(&loop), 0, "a handle was left");
	cr_assert_eq(pb_kube_intern_count(), 0);
	nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

TestSuite(kube_manifests, .init = setup, .fini = teardown, .timeout = 60);

Test(kube_manifests, yaml_yml_and_json_are_read_and_nothing_else)
{
	write_service("a.yaml", "a", "1");
	write_service("b.yml", "b", "1");
	write_file("c.json", "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":"
			     "\"c\"}}");
	write_service("d.txt", "d", "1");
	write_service(".e.yaml", "e", "1");
	write_service("f.yaml~", "f", "1");
	write_service("#g.yaml", "g", "1");
	write_file("deployment.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: "
				      "x}\n");
	start();
	cr_assert(run_until(state_has, "watching", DEADLINE_MS));
	run_until(log_is, "never", 50);
	cr_assert_eq(services.n, 4, "%s", services.log);
	cr_assert_not_null(strstr(services.log, "+a=1"));
	cr_assert_not_null(strstr(services.log, "+b=1"));
	cr_assert_not_null(strstr(services.log, "+c="));
	cr_assert_str_eq(services.log + strlen(services.log) - 2, ". ", "synced comes last");
}

Test(kube_manifests, an_empty_directory_is_a_complete_list)
{
	start();
	expect(". ");
}

Test(kube_manifests, a_file_that_changes_is_told_by_difference)
{
	PB_FREE char *a1 = service("a", "1"), *b1 = service("b", "1"), *b2 = service("b", "2"),
		     *c1 = service("c", "1");
	PB_FREE char *before = pb_sprintf("%s%s", a1, b1), *after = pb_sprintf("%s%s", b2, c1);

	write_file("all.yaml", before);
	start();
	expect("+a=1 +b=1 . ");
	write_file("all.yaml", after);
	expect("~b=2 +c=1 -a=1 ");
}

Test(kube_manifests, a_file_that_is_removed_takes_its_objects_with_it)
{
	write_service("a.yaml", "a", "1");
	start();
	expect("+a=1 . ");
	remove_file("a.yaml");
	expect("-a=1 ");
}

Test(kube_manifests, lists_of_both_kinds)
{
	write_file("l.yaml", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: "
			     "Service\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Secret\n"
			     "  metadata: {name: x}\n");
	write_file("m.json", "{\"apiVersion\":\"v1\",\"kind\":\"ServiceList\",\"items\":[{"
			     "\"metadata\":{\"name\":\"b\"}}]}");
	start();
	run_until(log_is, "+a= +b= . ", 2000);
	cr_assert_eq(services.n, 3, "%s", services.log);
}

Test(kube_manifests, a_broken_file_keeps_its_last_good_objects)
{
	write_service("a.yaml", "a", "1");
	start();
	expect("+a=1 . ");
	write_file("a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: [\n");
	expect_state("1 of 1 files have errors; a.yaml: line 4: not valid YAML");
	expect("");
	write_service("a.yaml", "a", "2");
	expect("~a=2 ");
	expect_state("watching");
}

Test(kube_manifests, a_bad_object_keeps_its_last_good_state_and_others_go_on)
{
	PB_FREE char *a1 = service("a", "1"), *b1 = service("b", "1"), *b2 = service("b", "2");
	PB_FREE char *before = pb_sprintf("%s%s", a1, b1);
	PB_FREE char *after =
		pb_sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: X}\n"
			   "---\n%s",
			   b2);

	write_file("a.yaml", before);
	start();
	expect("+a=1 +b=1 . ");
	write_file("a.yaml", after);
	expect("~b=2 ");
	expect_state("a.yaml: line 1: Service default/a: spec.type");
}

Test(kube_manifests, a_file_in_the_middle_of_a_write_is_not_read)
{
	PB_FREE char *path = pb_sprintf("%s/a.yaml", dir);
	PB_FREE char *text = service("a", "2");
	int fd;

	write_service("a.yaml", "a", "1");
	start();
	expect("+a=1 . ");
	fd = open(path, O_WRONLY | O_TRUNC);
	cr_assert_geq(fd, 0);
	cr_assert(!run_until(log_is, "-a=1 ", 300), "an empty file was believed");
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	expect("~a=2 ");
}

Test(kube_manifests, an_editor_that_moves_the_old_file_away_causes_no_flap)
{
	PB_FREE char *path = pb_sprintf("%s/a.yaml", dir), *old = pb_sprintf("%s/a.yaml~", dir);

	write_service("a.yaml", "a", "1");
	start();
	expect("+a=1 . ");
	cr_assert_eq(rename(path, old), 0);
	write_service("a.yaml", "a", "2");
	expect("~a=2 ");
}

Test(kube_manifests, a_file_moved_into_place_is_read_at_once)
{
	PB_FREE char *path = pb_sprintf("%s/a.yaml", dir), *tmp = pb_sprintf("%s/a.yaml.new", dir);

	write_service("a.yaml", "a", "1");
	start();
	expect("+a=1 . ");
	write_service("a.yaml.new", "a", "2");
	cr_assert_eq(rename(tmp, path), 0);
	expect("~a=2 ");
}

Test(kube_manifests, of_two_files_with_one_object_the_first_by_name_counts)
{
	write_service("2.yaml", "a", "second");
	start();
	expect("+a=second . ");
	write_service("1.yaml", "a", "first");
	expect("~a=first ");
	write_service("3.yaml", "a", "third");
	write_service("2.yaml", "a", "second-new");
	cr_assert(!run_until(log_is, "~a=second-new ", 200));
	remove_file("1.yaml");
	expect("~a=second-new ");
	remove_file("2.yaml");
	expect("~a=third ");
	remove_file("3.yaml");
	expect("-a=third ");
}

Test(kube_manifests, subdirectories_are_followed_too)
{
	PB_FREE char *sub = pb_sprintf("%s/sub", dir), *moved = pb_sprintf("%s/.off", dir);

	start();
	expect(". ");
	cr_assert_eq(mkdir(sub, 0755), 0);
	write_service("sub/a.yaml", "a", "1");
	expect("+a=1 ");
	write_service("sub/a.yaml", "a", "2");
	expect("~a=2 ");
	cr_assert_eq(rename(sub, moved), 0);
	expect("-a=2 ");
}

Test(kube_manifests, a_mounted_config_map_is_swapped_by_its_link)
{
	PB_FREE char *one = pb_sprintf("%s/..1", dir), *two = pb_sprintf("%s/..2", dir);
	PB_FREE char *data = pb_sprintf("%s/..data", dir), *tmp = pb_sprintf("%s/..tmp", dir);
	PB_FREE char *file = pb_sprintf("%s/a.yaml", dir);

	cr_assert_eq(mkdir(one, 0755) | mkdir(two, 0755), 0);
	write_service("..1/a.yaml", "a", "1");
	write_service("..2/a.yaml", "a", "2");
	cr_assert_eq(symlink("..1", data) | symlink("..data/a.yaml", file), 0);
	start();
	expect("+a=1 . ");
	cr_assert_eq(symlink("..2", tmp) | rename(tmp, data), 0);
	expect("~a=2 ");
}

Test(kube_manifests, a_directory_that_vanishes_deletes_nothing_and_is_found_again)
{
	PB_FREE char *away = pb_sprintf("%s.away", dir);

	write_service("a.yaml", "a", "1");
	write_service("b.yaml", "b", "1");
	start();
	run_until(log_is, "+a=1 +b=1 . ", 2000);
	cr_assert_eq(services.n, 3, "%s", services.log);
	services.log[0] = '\0';
	cr_assert_eq(rename(dir, away), 0);
	expect_state("No such file or directory (what was read before stays; trying again)");
	expect("");
	cr_assert_eq(rename(away, dir), 0);
	remove_file("b.yaml");
	expect("-b=1 ");
	expect_state("watching");
}

Test(kube_manifests, a_directory_that_comes_late_is_read)
{
	cr_assert_eq(rmdir(dir), 0);
	start();
	expect_state("No such file or directory");
	cr_assert_str_eq(services.log, "", "no list was complete yet");
	cr_assert_eq(mkdir(dir, 0755), 0);
	write_service("a.yaml", "a", "1");
	run_until(log_is, "+a=1 . ", DEADLINE_MS);
	cr_assert_not_null(strstr(services.log, "+a=1 "));
}

Test(kube_manifests, a_kind_that_is_wanted_later_is_read_then)
{
	struct watcher nodes = {0};

	write_service("a.yaml", "a", "1");
	write_file("n.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: node-a}\n");
	start();
	expect("+a=1 . ");
	cr_assert_eq(pb_kube_watch(kube, PB_KUBE_NODE, on_event, &nodes, &nodes.watch), 0);
	while (nodes.n < 2)
		uv_run(&loop, UV_RUN_ONCE);
	cr_assert_str_eq(nodes.log, "+node-a= . ");
	cr_assert_str_eq(services.log, "", "what is known is not told again");
}

Test(kube_manifests, status_names_files_and_errors)
{
	cJSON *status, *errors;

	write_service("a.yaml", "a", "1");
	write_file("bad.json", "{\"a\":\n}");
	start();
	expect("+a=1 . ");
	expect_state("bad.json: line 2, column 1: not valid JSON");
	status = pb_kube_status_json(kube);
	cr_assert_str_eq(pb_json_str(status, "source", ""), "manifests");
	errors = cJSON_GetObjectItem(cJSON_GetObjectItem(status, "detail"), "errors");
	cr_assert_eq(cJSON_GetArraySize(errors), 1);
	cr_assert_str_eq(pb_json_str(cJSON_GetArrayItem(errors, 0), "file", ""), "bad.json");
	cJSON_Delete(status);
}

Test(kube_manifests, closing_in_the_middle_of_a_job_leaves_nothing)
{
	for (int i = 0; i < 200; i++) {
		PB_FREE char *name = pb_sprintf("s%d", i), *file = pb_sprintf("s%d.yaml", i);

		write_service(file, name, "1");
	}
	start();
	for (int i = 0; i < 2; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
}

Test(kube_manifests, a_large_directory_never_holds_the_loop)
{
	PB_BUF_FREE struct pb_buf text = {0};
	uint64_t longest = 0;

	for (int i = 0; i < 5000; i++) {
		PB_FREE char *name = pb_sprintf("s%d", i), *one = service(name, "1");

		pb_buf_append(&text, one, strlen(one));
	}
	write_file("all.yaml", text.data);
	start();
	while (services.n < 5001) {
		uint64_t begin, took;
		struct timespec ts;

		services.log[0] = '\0';
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
		begin = (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
		uv_run(&loop, UV_RUN_ONCE);
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
		took = (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec - begin;
		longest = took > longest ? took : longest;
	}
	cr_assert_lt(longest, 10 * 1000 * 1000ULL, "a turn took %lu us", longest / 1000);
}

static void start_config(enum pb_kube_source_kind source, char *directory)
{
	struct pb_config config = {.kubernetes = {.source = source, .manifests = directory}};
	struct pb_err err = {0};

	cr_assert_eq(pb_kube_start(kube, &config, &err), 0, "%s", err.text);
}

Test(kube_manifests, another_source_takes_over_by_difference)
{
	char other[] = "/tmp/pb-manifests-XXXXXX";
	PB_FREE char *moved = NULL, *b1 = NULL;

	cr_assert_not_null(mkdtemp(other));
	moved = pb_sprintf("%s/b.yaml", other);
	b1 = pb_sprintf("%s/b.yaml", dir);
	write_service("b.yaml", "b", "2");
	cr_assert_eq(rename(b1, moved), 0);
	write_service("b.yaml", "b", "1");
	start_config(PB_SOURCE_MANIFESTS, dir);
	cr_assert_eq(pb_kube_watch(kube, PB_KUBE_SERVICE, on_event, &services, &services.watch), 0);
	expect("+b=1 . ");
	start_config(PB_SOURCE_MANIFESTS, dir);
	cr_assert(!run_until(log_is, "+b=1 . ", 50), "the same source again is no change");
	start_config(PB_SOURCE_MANIFESTS, other);
	expect("~b=2 ");
	start_config(PB_SOURCE_NONE, NULL);
	expect("! -b=2 ");
	nftw(other, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

Test(kube_manifests, a_source_that_cannot_be_made_leaves_the_old_one)
{
	struct pb_config config = {
		.kubernetes = {.source = PB_SOURCE_API, .kubeconfig = "/nonexistent/kubeconfig"}};
	struct pb_err err = {0};

	write_service("a.yaml", "a", "1");
	start();
	expect("+a=1 . ");
	cr_assert_lt(pb_kube_start(kube, &config, &err), 0);
	cr_assert_not_null(strstr(err.text, "/nonexistent/kubeconfig"), "%s", err.text);
	write_service("a.yaml", "a", "2");
	expect("~a=2 ");
}
