/* SPDX-License-Identifier: Apache-2.0 */
/* `patchbay`: what is shown for an answer, which command words mean, completion. */
#include <criterion/criterion.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cli/cli.h>

struct shown {
	const char *given;
	const char *table;
};

Test(cli, answers_are_shown_as_tables_or_indented_lines)
{
	static const struct shown cases[] = {
		{"{\"columns\":[{\"title\":\"NAME\",\"field\":\"name\"},{\"title\":\"N\","
		 "\"field\":\"n\"}],\"items\":[{\"name\":\"a\",\"n\":1},{\"name\":\"long-one\","
		 "\"n\":2.5}]}",
		 "NAME      N\n"
		 "a         1\n"
		 "long-one  2.5\n"},
		{"{\"columns\":[{\"title\":\"A\",\"field\":\"a\"},{\"title\":\"B\",\"field\":\"b\"}"
		 "],\"items\":[{\"a\":null,\"b\":true},{\"b\":[\"x\",2]},{\"a\":\"\",\"b\":{\"k\":"
		 "[]}}]}",
		 "A  B\n"
		 "-  yes\n"
		 "-  x, 2\n"
		 "-  {\"k\":[]}\n"},
		{"{\"columns\":[{\"title\":\"NAME\",\"field\":\"n\"}],\"items\":[]}", "NAME\n"},
		{"{\"columns\":[{\"title\":\"N\",\"field\":\"n\"},{\"title\":\"X\",\"field\":\"x\"}"
		 "],\"items\":[{\"n\":\"Zürich\",\"x\":1},{\"n\":\"日本\",\"x\":2},{\"n\":"
		 "\"e\u0301\","
		 "\"x\":3}]}",
		 "N       X\n"
		 "Zürich  1\n"
		 "日本    2\n"
		 "e\u0301       3\n"},
		{"{\"state\":\"ready\",\"uptime_s\":12,\"loop\":{\"max_ms\":0.5},\"list\":[1,2]}",
		 "state     ready\n"
		 "uptime_s  12\n"
		 "loop\n"
		 "  max_ms  0.5\n"
		 "list      1, 2\n"},
		{"{\"devices\":[{\"name\":\"eth0\",\"how\":\"tcx\"},{\"name\":\"e1\",\"how\":"
		 "\"clsact\"}]}",
		 "devices\n"
		 "  name  how\n"
		 "  eth0  tcx\n"
		 "  e1    clsact\n"},
		{"{\"kinds\":[{\"kind\":\"Service\",\"healthy\":true,\"objects\":12,"
		 "\"missing_rights\":[],\"last_relist\":\"\",\"source\":\"watching\","
		 "\"last_error\":\"\"},{\"kind\":\"Pod\",\"healthy\":false,\"objects\":0,"
		 "\"missing_rights\":[\"list pods\"],\"last_relist\":\"\",\"source\":"
		 "\"retrying in 1.2 s\",\"last_error\":null},{\"kind\":\"Node\",\"healthy\":null,"
		 "\"objects\":0,\"missing_rights\":[],\"last_relist\":\"\",\"source\":\"\","
		 "\"last_error\":\"\"}]}",
		 "kinds\n"
		 "  kind     healthy  objects  missing_rights  source\n"
		 "  Service  yes      12       -               watching\n"
		 "  Pod      no       0        list pods       retrying in 1.2 s\n"
		 "  Node     -        0        -               -\n"},
		{"{\"bytes\":1099511627776,\"big\":1e300}", "bytes  1099511627776\n"
							    "big    1e+300\n"},
		{"\"just text\"", "just text\n"},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		PB_JSON_FREE cJSON *json = cJSON_Parse(cases[i].given);
		PB_BUF_FREE struct pb_buf out = {0};

		cr_assert_not_null(json, "%s", cases[i].given);
		cr_assert_eq(cli_render(json, false, &out), 0);
		cr_expect_str_eq(out.data, cases[i].table, "shown:\n%swanted:\n%s", out.data,
				 cases[i].table);
	}
}

Test(cli, pages_of_a_list_are_one_table_whose_columns_only_grow)
{
	static const char *const given[] = {
		"{\"columns\":[{\"title\":\"NAME\",\"field\":\"n\"},{\"title\":\"S\",\"field\":"
		"\"s\"}],\"items\":[{\"n\":\"a\",\"s\":1}]}",
		"{\"columns\":[{\"title\":\"NAME\",\"field\":\"n\"},{\"title\":\"S\",\"field\":"
		"\"s\"}],\"items\":[{\"n\":\"longer\",\"s\":2}]}",
		"{\"columns\":[{\"title\":\"NAME\",\"field\":\"n\"},{\"title\":\"S\",\"field\":"
		"\"s\"}],\"items\":[]}",
		"{\"columns\":[{\"title\":\"NAME\",\"field\":\"n\"},{\"title\":\"S\",\"field\":"
		"\"s\"}],\"items\":[{\"n\":\"b\",\"s\":3}]}",
	};
	PB_JSON_FREE cJSON *no_list = cJSON_Parse("{\"next\":\"x\"}");
	PB_BUF_FREE struct pb_buf out = {0};
	struct cli_page page = {0};

	for (size_t i = 0; i < PB_ARRAY_LEN(given); i++) {
		PB_JSON_FREE cJSON *json = cJSON_Parse(given[i]);

		cr_assert_eq(cli_render_page(&page, json, &out), 0);
	}
	cr_expect_str_eq(out.data, "NAME  S\na     1\nlonger  2\nb       3\n");
	cr_expect_eq(cli_render_page(&page, no_list, &out), -EPROTO);
}

Test(cli, a_terminal_obeys_nothing_in_an_answer)
{
	static const struct {
		const char *given, *shown;
		size_t width;
	} cases[] = {
		{"plain", "plain", 5},
		{"\033[31mred", "\\x1b[31mred", 11},
		{"a\nb\tc", "a\\x0ab\\x09c", 11},
		{"\x7f", "\\x7f", 4},
		{"\xc2\x9b"
		 "31m",
		 "\\u009b31m", 9},
		{"\x9b"
		 "31m",
		 "\\x9b31m", 7},
		{"\xe2\x80\xae"
		 "abc",
		 "\\u202eabc", 9},
		{"\xff\xfe", "\\xff\\xfe", 8},
		{"\xe2\x82", "\\xe2\\x82", 8},
		{"\xc0\xaf", "\\xc0\\xaf", 8},
		{"\xed\xa0\x80", "\\xed\\xa0\\x80", 12},
		{"é日", "é日", 3},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		PB_BUF_FREE struct pb_buf out = {0};

		cr_expect_eq(cli_escape(&out, cases[i].given), cases[i].width, "case %zu", i);
		cr_expect_str_eq(out.data, cases[i].shown);
	}
}

Test(cli, json_output_is_the_items_and_stays_json)
{
	PB_JSON_FREE cJSON *given =
		cJSON_Parse("{\"columns\":[],\"items\":[{\"n\":\"\x7f\xc2\x9b\xe2\x80\xae é\"}]}");
	PB_BUF_FREE struct pb_buf out = {0};
	PB_JSON_FREE cJSON *again = NULL;

	cr_assert_eq(cli_render(given, true, &out), 0);
	cr_assert_str_eq(out.data, "[{\n\t\t\"n\":\t\"\\u007f\\u009b\\u202e é\"\n\t}]\n");
	again = cJSON_Parse(out.data);
	cr_assert(cJSON_Compare(again, cJSON_GetObjectItem(given, "items"), true));
}

Test(cli, the_longest_known_command_is_taken)
{
	static const struct {
		const char *words[4];
		const char *command; /* NULL: the agent decides */
		size_t used;
	} cases[] = {
		{{"status"}, "status", 1},
		{{"plugin", "list"}, "plugin list", 2},
		{{"plugin", "load", "kpr", "x.so"}, "plugin load", 2},
		{{"map", "dump", "kpr/services"}, "map dump", 2},
		{{"plugin"}, NULL, 0},
		{{"plugin", "lis"}, NULL, 0},
		{{"hello", "world"}, NULL, 0},
		{{"statusx"}, NULL, 0},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		const struct cli_command *c;
		size_t n = 0, used = 99;

		while (n < 4 && cases[i].words[n])
			n++;
		c = cli_find(cases[i].words, n, &used);
		cr_expect_str_eq(c ? c->name : "none",
				 cases[i].command ? cases[i].command : "none");
		cr_expect_eq(used, cases[i].used);
	}
}

Test(cli, the_command_table_has_the_agents_commands_once)
{
	PB_JSON_FREE cJSON *agent =
		cJSON_Parse("{\"items\":[{\"command\":\"status\",\"usage\":\"\",\"help\":\"x\"},"
			    "{\"command\":\"hello count\",\"usage\":\"\",\"help\":\"y\"}]}");
	PB_JSON_FREE cJSON *table = cli_command_table(agent);
	const cJSON *item;
	unsigned status = 0, hello = 0;

	cJSON_ArrayForEach (item, cJSON_GetObjectItem(table, "items")) {
		status += strcmp(pb_json_str(item, "command", ""), "status") == 0;
		hello += strcmp(pb_json_str(item, "command", ""), "hello count") == 0;
	}
	cr_assert_eq(status, 1);
	cr_assert_eq(hello, 1);
}

/* What bash offers for a line, after sourcing the script. */
static void bash_offers(const char *script, const char *line, const char *want)
{
	PB_FREE char *command = NULL;
	char offered[512] = "", path[] = "/tmp/pb-completion-XXXXXX";
	int fd = mkstemp(path);
	FILE *p;

	cr_assert_eq(write(fd, script, strlen(script)), (ssize_t)strlen(script));
	close(fd);
	command = pb_sprintf("bash -c '. %s; COMP_WORDS=(%s); [[ \"%s\" == *\" \" ]] && "
			     "COMP_WORDS+=(\"\"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); "
			     "_patchbay; echo \"${COMPREPLY[*]}\"'",
			     path, line, line);
	p = popen(command, "r");
	cr_assert_not_null(p);
	cr_assert_not_null(fgets(offered, sizeof(offered), p));
	cr_expect_eq(pclose(p), 0);
	unlink(path);
	offered[strcspn(offered, "\n")] = '\0';
	cr_expect_str_eq(offered, want, "%s: offered \"%s\", wanted \"%s\"", line, offered, want);
}

Test(cli, bash_completes_commands_options_and_those_of_plugins)
{
	PB_JSON_FREE cJSON *agent = cJSON_Parse(
		"{\"items\":[{\"command\":\"hello count\",\"usage\":\"\",\"help\":\"\"},"
		"{\"command\":\"evil $(touch x)\",\"usage\":\"\",\"help\":\"\"}]}");
	PB_JSON_FREE cJSON *table = cli_command_table(agent);
	PB_FREE char *script = cli_completion_script("bash", table);

	cr_assert_null(strstr(script, "evil"));
	bash_offers(script, "patchbay st", "status");
	bash_offers(script, "patchbay plugin l", "list load");
	bash_offers(script, "patchbay map ", "list dump");
	bash_offers(script, "patchbay hello ", "count");
	bash_offers(script, "patchbay -o ", "table json");
	bash_offers(script, "patchbay -o json chain ", "show");
	bash_offers(script, "patchbay completion z", "zsh");
	bash_offers(script, "patchbay --so", "--socket");
}

Test(cli, there_is_a_script_for_each_shell_and_none_for_others)
{
	PB_JSON_FREE cJSON *table = cli_command_table(NULL);
	PB_FREE char *zsh = cli_completion_script("zsh", table);
	PB_FREE char *fish = cli_completion_script("fish", table);

	cr_assert_eq(strncmp(zsh, "#compdef patchbay\n", 18), 0);
	cr_assert_not_null(strstr(fish, "complete -c patchbay -n __fish_use_subcommand -a 'status "
					"plugin"));
	cr_assert_null(cli_completion_script("tcsh", table));
}

/* An agent that gives its first question this answer, or dies of it; then it is ready. */
static char last_request[256];
static unsigned times_asked(const char *first, const char *second, const char *first_answer,
			    const char *later, int *ret_exit)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "/tmp/pb-cli-XXXXXX"};
	PB_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	static const char ready[] = "{\"ok\":true,\"result\":{\"state\":\"ready\"}}\n";
	struct pollfd p = {.fd = fd, .events = POLLIN};
	unsigned asked = 0;
	int status = -1;
	pid_t pid;

	close(mkstemp(addr.sun_path));
	unlink(addr.sun_path);
	cr_assert_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_assert_eq(listen(fd, 8), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		execl("./patchbay", "patchbay", "--socket", addr.sun_path, first, second, NULL);
		_exit(127);
	}
	while (waitpid(pid, &status, WNOHANG) == 0) {
		const char *answer = !asked ? first_answer : later ? later : ready;
		int peer = poll(&p, 1, 20) > 0 ? accept(fd, NULL, NULL) : -1;

		if (peer < 0)
			continue;
		memset(last_request, 0, sizeof(last_request));
		cr_assert_gt(recv(peer, last_request, sizeof(last_request) - 1, 0), 0);
		asked++;
		if (answer)
			cr_assert_gt(send(peer, answer, strlen(answer), MSG_NOSIGNAL), 0);
		close(peer);
	}
	unlink(addr.sun_path);
	*ret_exit = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	return asked;
}

Test(cli, a_question_of_the_core_is_asked_again_when_the_agent_restarts)
{
	int code = -1;

	/* The chains, then whether it is ready, then the chains again. */
	cr_expect_eq(times_asked("chain", "show", NULL, NULL, &code), 3);
	cr_expect_eq(code, CLI_OK);
}

Test(cli, a_command_of_a_plugin_is_never_asked_again_because_it_may_be_what_ended_the_agent)
{
	int code = -1;

	cr_expect_eq(times_asked("hello", "count", NULL, NULL, &code), 1);
	cr_expect_eq(code, CLI_UNREACHABLE);
}

Test(cli, the_exit_code_tells_a_refusal_of_the_user_from_one_by_the_kernel)
{
	static const struct {
		const char *answer;
		int code;
	} cases[] = {
		{"{\"ok\":false,\"errno\":13,\"error\":\"user 5 may not use this socket\","
		 "\"refused\":true}\n",
		 CLI_UNREACHABLE},
		{"{\"ok\":false,\"errno\":13,\"error\":\"the kernel refused the program\"}\n",
		 CLI_FAILED},
		{"{\"ok\":false,\"errno\":111,\"error\":\"of a plugin's own\"}\n", CLI_FAILED},
		{"{\"ok\":false,\"errno\":38,\"error\":\"unknown command\"}\n", CLI_USAGE},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		int code = -1;

		cr_expect_eq(times_asked("hello", "count", cases[i].answer, NULL, &code), 1);
		cr_expect_eq(code, cases[i].code, "case %zu: exit code %d", i, code);
	}
}

Test(cli, a_list_with_more_behind_it_is_asked_for_again)
{
	static const char page[] = "{\"ok\":true,\"result\":{\"columns\":[],\"items\":[{\"n\":1}],"
				   "\"next\":\"ns/b\"}}\n";
	static const char rest[] =
		"{\"ok\":true,\"result\":{\"columns\":[],\"items\":[{\"n\":2}]}}\n";
	static const char none[] = "{\"ok\":true,\"result\":{\"state\":\"no list\"}}\n";
	int code = -1;

	cr_expect_eq(times_asked("lb", "maglev", page, rest, &code), 2);
	cr_expect_eq(code, CLI_OK);
	cr_expect_not_null(strstr(last_request, "\"--after=ns/b\""), "%s", last_request);
	/* The same page for ever, or something that isn't one. */
	cr_expect_eq(times_asked("lb", "maglev", page, page, &code), 2);
	cr_expect_eq(code, CLI_FAILED);
	cr_expect_eq(times_asked("lb", "maglev", page, none, &code), 2);
	cr_expect_eq(code, CLI_FAILED);
	cr_expect_eq(times_asked("lb", "maglev", rest, NULL, &code), 1);
	cr_expect_eq(code, CLI_OK);
}
