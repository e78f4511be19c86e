/* SPDX-License-Identifier: Apache-2.0 */
/* Units of core/base: what a caller may rely on. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/stat.h>

#include <base/json.h>
#include <base/log.h>

Test(base, suggest_finds_the_nearest_word)
{
	static const char *const words[] = {"devices", "cgroup", "bpffs", NULL};

	cr_assert_str_eq(pb_suggest("device", words), "devices");
	cr_assert_str_eq(pb_suggest("cgruop", words), "cgroup");
	cr_assert_null(pb_suggest("kubernetes", words));
}

Test(base, an_error_text_keeps_its_prefixes_in_order)
{
	struct pb_err err;

	cr_assert_eq(pb_err_set(&err, -EINVAL, "port %d: out of range", 70000), -EINVAL);
	cr_assert_eq(pb_err_prefix(&err, "service %s", "a/b"), -EINVAL);
	cr_assert_str_eq(err.text, "service a/b: port 70000: out of range");
}

Test(base, a_log_line_cannot_be_forged_by_its_message)
{
	char line[512] = "";
	int pipe_fds[2];

	cr_assert_eq(pipe(pipe_fds), 0);
	pb_log_setup(PB_LOG_LOGFMT, PB_LOG_INFO, pipe_fds[1]);
	pb_info("core", "name \"x\"\ntime=0 level=error \033[31m\xc2\x9b\xe2\x80\xae\xe2\x81\xa6 "
			"é€\xe2\x80");
	pb_debug("core", "not shown at level info");
	pb_log_setup(PB_LOG_LOGFMT, PB_LOG_INFO, 2);
	close(pipe_fds[1]);
	cr_assert_gt(read(pipe_fds[0], line, sizeof(line) - 1), 0);
	cr_assert_not_null(strstr(line, "msg=\"name \\\"x\\\"\\ntime=0 level=error "
					"\\u001b[31m\\u009b\\u202e\\u2066 é€\xe2\x80\"\n"));
	cr_assert_eq(strchr(line, '\n'), line + strlen(line) - 1);
}

Test(base, a_buffer_grows_and_stays_terminated)
{
	PB_BUF_FREE struct pb_buf buf = {0};

	for (int i = 0; i < 1000; i++)
		cr_assert_eq(pb_buf_printf(&buf, "%d,", i), 0);
	cr_assert_eq(strlen(buf.data), buf.len);
	cr_assert_eq(memcmp(buf.data, "0,1,2,", 6), 0);
}

Test(base, a_written_file_reads_back_and_a_limit_holds)
{
	char dir[] = "/tmp/pb-base-XXXXXX";
	PB_BUF_FREE struct pb_buf buf = {0};
	PB_FREE char *path = NULL;
	PB_FREE char *deep = NULL;
	struct pb_err err;

	cr_assert_not_null(mkdtemp(dir));
	deep = pb_sprintf("%s/a/b", dir);
	path = pb_sprintf("%s/f", deep);
	cr_assert_eq(pb_dir_make(deep, 0700, &err), 0);
	cr_assert_eq(pb_file_write(path, "hello", 5, 0600, &err), 0);
	cr_assert_eq(pb_file_read(path, 5, &buf, &err), 0);
	cr_assert_str_eq(buf.data, "hello");
	pb_buf_reset(&buf);
	cr_assert_eq(pb_file_read(path, 4, &buf, &err), -EFBIG);
	unlink(path);
	cr_assert_eq(mkfifo(path, 0600), 0);
	cr_assert_eq(pb_file_read(path, 4, &buf, &err), -EINVAL);
	unlink(path);
	rmdir(deep);
	*strrchr(deep, '/') = '\0';
	rmdir(deep);
	rmdir(dir);
}

Test(base, a_directory_that_others_could_change_is_not_ones_own)
{
	char dir[] = "/tmp/pb-base-XXXXXX";
	PB_FREE char *sub = NULL;
	PB_FREE char *link = NULL;
	PB_FREE char *text = NULL;
	struct pb_err err;

	cr_assert_not_null(mkdtemp(dir));
	sub = pb_sprintf("%s/own", dir);
	link = pb_sprintf("%s/link", dir);
	text = pb_sprintf("%s: writable by group or others (mode 0770), who could exchange what "
			  "the agent keeps there: chmod go-w",
			  sub);
	cr_expect_eq(pb_dir_make_own(sub, 0700, &err), 0);
	cr_expect_eq(pb_dir_make_own(sub, 0700, &err), 0, "an existing one is fine");
	cr_assert_eq(symlink(sub, link), 0);
	cr_expect_lt(pb_dir_make_own(link, 0700, &err), 0);
	cr_assert_eq(chmod(sub, 0770), 0);
	cr_expect_eq(pb_dir_make_own(sub, 0700, &err), -EACCES);
	cr_expect_str_eq(err.text, text);
	if (geteuid() == 0) {
		cr_assert_eq(chmod(sub, 0700), 0);
		cr_assert_eq(chown(sub, 1, 0), 0);
		cr_expect_eq(pb_dir_make_own(sub, 0700, &err), -EACCES, "another user's");
	}
	unlink(link);
	rmdir(sub);
	rmdir(dir);
}

Test(base, a_json_path_that_breaks_off_is_null)
{
	PB_JSON_FREE cJSON *json = cJSON_Parse("{\"a\":{\"b\":{\"c\":7}}}");

	cr_assert_eq(pb_json_path(json, "a.b.c")->valueint, 7);
	cr_assert_null(pb_json_path(json, "a.x.c"));
}
