/* SPDX-License-Identifier: Apache-2.0 */
/* `patchbay plugin new`: names, what the template becomes, and errors that leave nothing. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>

#include <dirent.h>
#include <sys/stat.h>

#include <cli/plugin_new.h>

static char work[] = "/tmp/pb-plugin-new-XXXXXX";

static void setup(void)
{
	cr_assert_not_null(mkdtemp(work));
	cr_assert_eq(chdir(work), 0);
}

static void teardown(void)
{
	PB_FREE char *command = pb_sprintf("rm -r %s", work);

	cr_assert_eq(system(command), 0);
}

TestSuite(plugin_new, .init = setup, .fini = teardown);

static char *template_dir(void)
{
	return strdup(PB_TOP_SRCDIR "/sdk/template");
}

static unsigned n_entries(const char *dir)
{
	DIR *d = opendir(dir);
	const struct dirent *entry;
	unsigned n = 0;

	cr_assert_not_null(d, "%s", dir);
	while ((entry = readdir(d)))
		n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	closedir(d);
	return n;
}

Test(plugin_new, a_name_is_lower_case_letters_digits_and_dashes)
{
	static const struct {
		const char *name;
		bool valid;
	} cases[] = {
		{"hello", true},
		{"rate-limit2", true},
		{"a", true},
		{"abcdefghijklmnopqrstuvwxyz01234", true},
		{"abcdefghijklmnopqrstuvwxyz012345", false},
		{"", false},
		{"Hello", false},
		{"2fast", false},
		{"-x", false},
		{"x-", false},
		{"under_score", false},
		{"a/b", false},
		{"..", false},
		{"caf\xc3\xa9", false},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++)
		cr_expect_eq(pb_plugin_name_is_valid(cases[i].name), cases[i].valid, "%s",
			     cases[i].name);
}

Test(plugin_new, the_template_becomes_sources_of_that_name)
{
	PB_FREE char *template = template_dir();
	PB_BUF_FREE struct pb_buf text = {0};
	struct pb_err err = {0};
	static const char *const files[] = {"my-count/my-count.c",	"my-count/my-count.bpf.c",
					    "my-count/my-count_test.c", "my-count/Makefile",
					    "my-count/README.md",	"my-count/.gitignore"};

	cr_assert_eq(pb_plugin_new(template, "my-count", "my-count", &err), 0, "%s", err.text);
	for (size_t i = 0; i < PB_ARRAY_LEN(files); i++) {
		pb_buf_reset(&text);
		cr_assert_eq(pb_file_read(files[i], 1 << 20, &text, &err), 0, "%s", err.text);
		cr_expect_null(strstr(text.data, "@NAME@"), "%s", files[i]);
		cr_expect_null(strstr(text.data, "@IDENT@"), "%s", files[i]);
	}
	cr_expect_eq(n_entries("my-count"), PB_ARRAY_LEN(files));
	pb_buf_reset(&text);
	cr_assert_eq(pb_file_read("my-count/my-count.c", 1 << 20, &text, &err), 0);
	cr_expect_not_null(strstr(text.data, "PB_PLUGIN(\"my-count\""));
	cr_expect_not_null(strstr(text.data, "static int my_count_prepare("));
}

Test(plugin_new, an_existing_directory_is_refused_and_untouched)
{
	PB_FREE char *template = template_dir();
	struct pb_err err = {0};

	cr_assert_eq(mkdir("taken", 0777), 0);
	cr_expect_eq(pb_plugin_new(template, "hello", "taken", &err), -EEXIST);
	cr_expect_str_eq(err.text, "taken: exists already; remove it or name another directory: "
				   "patchbay plugin new hello DIR");
	cr_expect_eq(n_entries("taken"), 0);
}

Test(plugin_new, a_bad_name_is_refused_with_the_rule)
{
	struct pb_err err = {0};

	cr_expect_eq(pb_plugin_new("/nowhere", "My_Plugin", "x", &err), -EINVAL);
	cr_expect_str_eq(
		err.text,
		"plugin name \"My_Plugin\": use lower case letters, digits and inner dashes, "
		"a letter first, at most 31 characters");
	cr_expect_eq(n_entries("."), 0);
}

Test(plugin_new, a_missing_template_leaves_no_directory)
{
	struct pb_err err = {0};

	cr_expect_eq(pb_plugin_new("/nowhere/template", "hello", "hello", &err), -ENOENT);
	cr_expect_str_eq(
		err.text,
		"template /nowhere/template: No such file or directory; install Patchbay's "
		"SDK (make install), or say where it is by PATCHBAY_SDK_DIR");
	cr_expect_eq(n_entries("."), 0);
}

Test(plugin_new, a_place_that_cant_be_written_is_named)
{
	PB_FREE char *template = template_dir();
	struct pb_err err = {0};

	cr_expect_eq(pb_plugin_new(template, "hello", "no/such/place", &err), -ENOENT);
	cr_expect_str_eq(err.text, "no/such/place: can't be made: No such file or directory");
}

Test(plugin_new, the_command_says_what_to_do_next)
{
	char *args[] = {"hello", NULL};

	cr_redirect_stdout();
	cr_redirect_stderr();
	setenv("PATCHBAY_SDK_DIR", PB_TOP_SRCDIR "/sdk", 1);
	cr_expect_eq(pb_cli_plugin_new(1, args), 0);
	cr_expect_eq(pb_cli_plugin_new(1, args), 1, "the second time it exists");
	cr_expect_eq(pb_cli_plugin_new(0, args), 2, "without a name");
	fflush(stdout);
	cr_assert_stdout_eq_str("made plugin hello in hello\n\n"
				"  cd hello\n"
				"  make\n"
				"  make check\n"
				"  sudo make install\n"
				"  sudo patchbay plugin load hello\n");
}
