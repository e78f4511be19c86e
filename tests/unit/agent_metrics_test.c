/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /metrics, /healthz and /readyz say of what the rooms report: the text follows the format's
 * grammar, docs/admin.md names every metric, and each failure has its line.
 */
#include <criterion/criterion.h>

#include <ctype.h>

#include <agent_health.h>
#include <agent_metrics.h>
#include <base/prom.h>
#include <plugin/private.h>

static const char kubernetes[] =
	"{\"source_error\":\"\",\"kinds\":["
	"{\"kind\":\"Service\",\"state\":\"synced\",\"healthy\":true,\"objects\":3,\"events\":7,"
	"\"relists\":1,\"refused\":0,\"bytes\":1234,\"last_event_seconds\":5,\"source\":"
	"\"watching\"},"
	"{\"kind\":\"Pod\",\"state\":\"waiting for the first "
	"list\",\"healthy\":false,\"objects\":0,"
	"\"events\":0,\"relists\":0,\"refused\":0,\"bytes\":0,\"last_event_seconds\":null,"
	"\"source\":\"retrying in 3 s: connection refused\"},"
	"{\"kind\":\"Node\",\"state\":\"not watched\",\"healthy\":null,\"objects\":0,\"events\":0,"
	"\"relists\":0,\"refused\":0,\"bytes\":0,\"last_event_seconds\":null,\"source\":\"\"}]}";

static const char datapath[] =
	"{\"hooks\":[{\"hook\":\"pod-egress\",\"generation\":4,\"packets\":9007199254740991,"
	"\"bytes\":100,\"pass\":8,\"drop\":2,\"redirect\":0,\"missed\":0},"
	"{\"hook\":\"connect4\",\"packets\":1,\"bytes\":0,\"pass\":1,\"drop\":0,\"redirect\":0,"
	"\"missed\":0}],"
	"\"drops\":[{\"hook\":\"pod-egress\",\"reason\":\"a "
	"\\\"quoted\\\\\\nreason\",\"packets\":2}]}";

static const char links[] = "[{\"hook\":\"dev-ingress\",\"device\":\"eth0\",\"state\":\"ok\"}]";

static const char maps[] = "{\"items\":[{\"name\":\"kpr/services\",\"max_entries\":65536,"
			   "\"bytes\":1048576}]}";

static const char plugins[] =
	"{\"items\":[{\"name\":\"kpr\",\"state\":\"loaded\",\"error\":\"an old story\"}]}";

static struct pb_manager manager;

static void write_all(struct pb_buf *out)
{
	PB_JSON_FREE cJSON *k = cJSON_Parse(kubernetes), *d = cJSON_Parse(datapath);
	PB_JSON_FREE cJSON *t = cJSON_Parse(maps);
	struct pb_agent_metrics m = {.ready = true,
				     .uptime_s = 1.5,
				     .started_s = 1795421520.25,
				     .endpoints = 2,
				     .kubernetes = k,
				     .datapath = d,
				     .maps = t};
	struct pb_generation *gen = pb_gen_new(&manager, pb_plugin_get(&manager, "one-two"), "{}");
	uint32_t id;

	cr_assert(k && d && t);
	cr_assert_eq(gen->ctx.host->metric(&gen->ctx, PB_METRIC_COUNTER, "things_total",
					   "Things \\ with\na line.", &id),
		     0);
	gen->ctx.host->metric_add(&gen->ctx, id, 42);
	pb_gen_free(gen);
	cr_assert_eq(pb_agent_metrics_write(&m, out), 0);
	cr_assert_eq(pb_manager_metrics(&manager, out), 0);
}

/* ---- a parser that takes nothing but the format, version 0.0.4 ---- */

struct parsed {
	char family[128], type[16];
	char seen[64][128]; /* families that are over */
	size_t n_seen;
	char samples[256][256]; /* name and labels */
	size_t n_samples;
};

static size_t name_len(const char *p)
{
	size_t n = 0;

	if (!isalpha((unsigned char)*p) && *p != '_')
		return 0;
	while (isalnum((unsigned char)p[n]) || p[n] == '_')
		n++;
	return n;
}

static void parse_family(struct parsed *p, const char *line)
{
	size_t len = name_len(line);

	cr_assert_gt(len, 0, "%s", line);
	cr_assert_eq(line[len], ' ', "a help text follows: %s", line);
	for (const char *c = line + len; *c; c++) {
		if (*c == '\\') {
			c++;
			cr_assert(*c == '\\' || *c == 'n', "an escape of help texts: %s", line);
		}
	}
	if (p->family[0])
		strcpy(p->seen[p->n_seen++], p->family);
	snprintf(p->family, sizeof(p->family), "%.*s", (int)len, line);
	p->type[0] = '\0';
	for (size_t i = 0; i < p->n_seen; i++)
		cr_assert_str_neq(p->seen[i], p->family, "a family stands in one place");
}

static void parse_type(struct parsed *p, const char *line)
{
	size_t len = strlen(p->family);

	cr_assert_eq(strncmp(line, p->family, len), 0, "TYPE follows its HELP: %s", line);
	cr_assert_eq(line[len], ' ', "%s", line);
	snprintf(p->type, sizeof(p->type), "%s", line + len + 1);
	cr_assert(strcmp(p->type, "counter") == 0 || strcmp(p->type, "gauge") == 0, "%s", line);
	if (strcmp(p->type, "counter") == 0)
		cr_assert(len > 6 && strcmp(p->family + len - 6, "_total") == 0,
			  "counters are called so: %s", line);
}

/* Behind '{'; returns what follows '}'. */
static const char *parse_labels(const char *p, const char *line)
{
	for (;;) {
		size_t len = name_len(p);

		cr_assert_gt(len, 0, "a label's name: %s", line);
		p += len;
		cr_assert_eq(strncmp(p, "=\"", 2), 0, "%s", line);
		for (p += 2; *p != '"'; p++) {
			cr_assert_neq(*p, '\0', "the value ends: %s", line);
			if (*p != '\\')
				continue;
			p++;
			cr_assert(*p == '\\' || *p == '"' || *p == 'n', "an escape: %s", line);
		}
		p++;
		if (*p == '}')
			return p + 1;
		cr_assert_eq(*p++, ',', "%s", line);
	}
}

static void parse_sample(struct parsed *p, const char *line)
{
	size_t len = name_len(line);
	const char *at = line + len;
	char *end;

	cr_assert_eq(strlen(p->family), len, "%s belongs to %s", line, p->family);
	cr_assert_eq(strncmp(line, p->family, len), 0, "%s belongs to %s", line, p->family);
	cr_assert_neq(p->type[0], '\0', "TYPE comes first: %s", line);
	if (*at == '{')
		at = parse_labels(at + 1, line);
	snprintf(p->samples[p->n_samples], sizeof(p->samples[0]), "%.*s", (int)(at - line), line);
	for (size_t i = 0; i < p->n_samples; i++)
		cr_assert_str_neq(p->samples[i], p->samples[p->n_samples], "told twice");
	p->n_samples++;
	cr_assert_eq(*at++, ' ', "%s", line);
	strtod(at, &end);
	cr_assert(end > at && *end == '\0', "a number: %s", line);
}

static void parse(const char *text, struct parsed *p)
{
	memset(p, 0, sizeof(*p));
	while (*text) {
		size_t len = strcspn(text, "\n");
		char line[1024];

		cr_assert_eq(text[len], '\n', "the last line ends, too");
		cr_assert_lt(len, sizeof(line));
		snprintf(line, sizeof(line), "%.*s", (int)len, text);
		text += len + 1;
		if (strncmp(line, "# HELP ", 7) == 0)
			parse_family(p, line + 7);
		else if (strncmp(line, "# TYPE ", 7) == 0)
			parse_type(p, line + 7);
		else
			parse_sample(p, line);
	}
	strcpy(p->seen[p->n_seen++], p->family);
}

Test(agent_metrics, the_text_follows_the_grammar)
{
	PB_BUF_FREE struct pb_buf out = {0};
	static struct parsed p;

	write_all(&out);
	parse(out.data, &p);
	cr_expect_gt(p.n_samples, 40);
}

static const char *const lines[] = {
	"\npatchbay_ready 1\n",
	"\nprocess_start_time_seconds 1795421520.25\n",
	"\npatchbay_uptime_seconds 1.5\n",
	"\npatchbay_local_endpoints 2\n",
	"\npatchbay_kube_synced{kind=\"Service\"} 1\n",
	"\npatchbay_kube_synced{kind=\"Pod\"} 0\n",
	"\npatchbay_kube_healthy{kind=\"Pod\"} 0\n",
	"\npatchbay_kube_received_bytes_total{kind=\"Service\"} 1234\n",
	"\npatchbay_kube_last_event_age_seconds{kind=\"Service\"} 5\n",
	"\npatchbay_datapath_packets_total{hook=\"pod-egress\"} 9007199254740991\n",
	"\npatchbay_datapath_verdicts_total{hook=\"pod-egress\",verdict=\"drop\"} 2\n",
	("\npatchbay_datapath_drops_total{hook=\"pod-egress\",reason=\"a "
	 "\\\"quoted\\\\\\nreason\"} "
	 "2\n"),
	"\npatchbay_datapath_chain_generation{hook=\"pod-egress\"} 4\n",
	"\npatchbay_map_max_entries{name=\"kpr/services\"} 65536\n",
	"\npatchbay_plugin_loaded{plugin=\"one-two\"} 0\n",
	"\n# HELP patchbay_plugin_one_two_things_total Things \\\\ with\\na line.\n",
	"\npatchbay_plugin_one_two_things_total 42\n",
};

Test(agent_metrics, each_room_has_its_values)
{
	PB_BUF_FREE struct pb_buf out = {0};

	write_all(&out);
	for (size_t i = 0; i < PB_ARRAY_LEN(lines); i++)
		cr_expect_not_null(strstr(out.data, lines[i]), "%s", lines[i]);
	cr_expect_null(strstr(out.data, "patchbay_kube_healthy{kind=\"Node\"}"),
		       "nobody knows of a kind that isn't watched");
	cr_expect_null(strstr(out.data, "patchbay_datapath_chain_generation{hook=\"connect4\"}"));
}

/* ---- the table of docs/admin.md ---- */

static bool documented(const char *guide, const char *name)
{
	PB_FREE char *row = pb_sprintf("\n| `%s` |", name);

	return strstr(guide, row) != NULL;
}

static bool exported(const struct parsed *p, const char *row)
{
	for (size_t i = 0; i < p->n_seen; i++) {
		size_t len = strlen(p->seen[i]);

		if (strncmp(row, p->seen[i], len) == 0 && row[len] == '`')
			return true;
	}
	return false;
}

Test(agent_metrics, the_guide_names_every_metric_and_no_other)
{
	PB_BUF_FREE struct pb_buf out = {0}, guide = {0};
	const char *const starts[] = {"\n| `patchbay_", "\n| `process_"};
	static struct parsed p;
	struct pb_err err = {0};

	write_all(&out);
	parse(out.data, &p);
	cr_assert_eq(pb_file_read(PB_TOP_SRCDIR "/docs/admin.md", 1 << 20, &guide, &err), 0, "%s",
		     err.text);
	for (size_t i = 0; i < p.n_seen; i++) {
		if (strncmp(p.seen[i], "patchbay_plugin_one_two_", 24) != 0)
			cr_expect(documented(guide.data, p.seen[i]), "%s is not in the guide",
				  p.seen[i]);
	}
	for (size_t i = 0; i < PB_ARRAY_LEN(starts); i++) {
		for (const char *at = guide.data; (at = strstr(at, starts[i])); at++)
			cr_expect(exported(&p, at + 4), "the guide has %.60s", at + 4);
	}
}

/* ---- health ---- */

static const struct {
	const char *what, *state, *plugins, *kubernetes, *links;
	enum pb_health health;
	const char *lines;
	bool ready;
	const char *not_ready;
} cases[] = {
	{"all is well", "ready", plugins, NULL, links, PB_HEALTH_OK, "ok\n", true, "ok\n"},
	{"while it is reloading", "reloading", plugins, NULL, links, PB_HEALTH_OK, "ok\n", true,
	 "ok\n"},
	{"while it starts", "starting", NULL, NULL, NULL, PB_HEALTH_OK, "ok\n", false,
	 "agent: starting\n"},
	{"while it ends", "stopping", NULL, NULL, NULL, PB_HEALTH_FAILING, "agent: stopping\n",
	 false, "agent: stopping\n"},
	{"a list is awaited from a server that is away", "ready", NULL, kubernetes, NULL,
	 PB_HEALTH_FAILING, "kubernetes: Pod: retrying in 3 s: connection refused\n", false,
	 "kubernetes: Pod: waiting for the first list: retrying in 3 s: connection refused\n"},
	{"the server goes away later", "ready", NULL,
	 "{\"kinds\":[{\"kind\":\"Pod\",\"state\":\"synced\",\"healthy\":false,"
	 "\"source\":\"retrying\"}]}",
	 NULL, PB_HEALTH_FAILING, "kubernetes: Pod: retrying\n", true, "ok\n"},
	{"the source can't be read", "ready", NULL, "{\"source_error\":\"x.kubeconfig: gone\"}",
	 NULL, PB_HEALTH_FAILING, "kubernetes: x.kubeconfig: gone\n", true, "ok\n"},
	{"a plugin is left out", "ready",
	 "{\"items\":[{\"name\":\"kpr\",\"state\":\"left out\",\"error\":\"it\\ncrashed\"},"
	 "{\"name\":\"b\",\"state\":\"failed\",\"error\":\"no\"}]}",
	 NULL, NULL, PB_HEALTH_FAILED,
	 "plugins: kpr: left out: it crashed\nplugins: b: failed: no\n", false,
	 "plugins: kpr: left out: it crashed\nplugins: b: failed: no\n"},
	{"a hook is lost", "ready", NULL, NULL,
	 "[{\"hook\":\"dev-ingress\",\"device\":\"eth0\",\"state\":\"replaced\"}]",
	 PB_HEALTH_FAILING, "datapath: dev-ingress on eth0: replaced\n", false,
	 "datapath: dev-ingress on eth0: replaced\n"},
};

Test(agent_metrics, each_failure_has_its_line)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		PB_JSON_FREE cJSON *p = cases[i].plugins ? cJSON_Parse(cases[i].plugins) : NULL;
		PB_JSON_FREE cJSON *k =
			cases[i].kubernetes ? cJSON_Parse(cases[i].kubernetes) : NULL;
		PB_JSON_FREE cJSON *l = cases[i].links ? cJSON_Parse(cases[i].links) : NULL;
		const struct pb_health_in in = {.state = cases[i].state,
						.plugins = p,
						.kubernetes = k,
						.links = l};
		PB_BUF_FREE struct pb_buf health = {0}, ready = {0};

		cr_expect_eq(pb_agent_health(&in, &health), cases[i].health, "%s", cases[i].what);
		cr_expect_str_eq(health.data, cases[i].lines, "%s", cases[i].what);
		cr_expect_eq(pb_agent_ready(&in, &ready), cases[i].ready, "%s", cases[i].what);
		cr_expect_str_eq(ready.data, cases[i].not_ready, "%s", cases[i].what);
	}
}
