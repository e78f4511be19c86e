/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the admin is told about plugins, and the commands that ask for it.
 */
#include <plugin/report.h>

#include <time.h>

#include <plugin/op.h>

static const char *state_name(const struct pb_plugin_entry *p)
{
	if (p->next_gen)
		return p->live ? "reloading" : "loading";
	if (p->live)
		return p->live->state == PB_GEN_QUIESCED ? "unloading" : "loaded";
	if (p->left_out)
		return "left out";
	return p->failed ? "failed" : "unloaded";
}

/* True for a hook of IPv4 whose twin of IPv6, the next number, is there too. */
static bool both_families(uint32_t hooks, uint32_t h)
{
	const char *name = pb_hook_name(h);

	return name[strlen(name) - 1] == '4' && (hooks & (2U << h));
}

/* "connect" stands for connect4 and connect6: a table has no room for both. */
static void add_hooks(cJSON *item, const struct pb_plugin_entry *p)
{
	uint32_t hooks = pb_gen_hooks(p->live);
	PB_BUF_FREE struct pb_buf text = {0};

	pb_buf_append(&text, "", 0);
	for (uint32_t h = 0; h < PB_HOOK_COUNT; h++) {
		const char *name = pb_hook_name(h);
		bool both = both_families(hooks, h);

		if (!(hooks & (1U << h)))
			continue;
		pb_buf_printf(&text, "%s%.*s", text.len ? "," : "", (int)(strlen(name) - both),
			      name);
		h += both;
	}
	cJSON_AddStringToObject(item, "hooks", text.data ? text.data : "");
}

static void add_since(cJSON *item, const struct pb_plugin_entry *p)
{
	time_t s = (time_t)(p->since_ms / 1000);
	char text[32] = "";
	struct tm tm;

	if (s && gmtime_r(&s, &tm))
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	cJSON_AddStringToObject(item, "since", text);
}

static unsigned crashes_of(struct pb_manager *m, const char *name)
{
	const struct pb_crash_record *r;
	unsigned n = 0;

	LL_FOREACH (m->crashes, r)
		n += strcmp(r->plugin, name) == 0 ? r->count : 0;
	return n;
}

static void add_lingering(cJSON *item, struct pb_manager *m, const struct pb_plugin_entry *p)
{
	cJSON *list = cJSON_AddArrayToObject(item, "lingering");
	struct pb_generation *gen;

	LL_FOREACH2(m->lingering, gen, next_lingering)
	{
		if (gen->plugin == p)
			cJSON_AddItemToArray(list, cJSON_CreateNumber(gen->number));
	}
}

static cJSON *plugin_json(struct pb_manager *m, const struct pb_plugin_entry *p)
{
	const struct pb_generation *gen = p->live;
	cJSON *o = cJSON_CreateObject();

	cJSON_AddStringToObject(o, "name", p->name);
	cJSON_AddStringToObject(o, "version", gen ? gen->manifest.version : "");
	cJSON_AddNumberToObject(o, "generation", gen ? gen->number : 0);
	cJSON_AddStringToObject(o, "state", state_name(p));
	add_since(o, p);
	add_hooks(o, p);
	cJSON_AddNumberToObject(o, "crashes", crashes_of(m, p->name));
	cJSON_AddNumberToObject(o, "slow_callbacks", (double)p->slow_calls);
	cJSON_AddNumberToObject(o, "swap_us", (double)p->swap_ns / 1000);
	cJSON_AddNumberToObject(o, "flip_ns", (double)p->flip_ns);
	cJSON_AddStringToObject(o, "file", gen ? gen->source : "");
	cJSON_AddStringToObject(o, "leak", p->leak);
	add_lingering(o, m, p);
	cJSON_AddStringToObject(o, "error", p->last_error);
	return o;
}

static bool worth_showing(const struct pb_plugin_entry *p)
{
	return p->live || p->next_gen || p->failed || p->left_out;
}

cJSON *pb_manager_list_json(struct pb_manager *m)
{
	static const struct pb_json_column columns[] = {
		{"NAME", "name"},	{"VERSION", "version"}, {"GEN", "generation"},
		{"STATE", "state"},	{"SINCE", "since"},	{"HOOKS", "hooks"},
		{"CRASHES", "crashes"}, {"LEAK", "leak"},	{"LAST ERROR", "error"},
		{NULL, NULL},
	};
	struct pb_plugin_entry *p;
	cJSON *items, *table = pb_json_table(columns, &items);

	if (!table)
		return NULL;
	LL_FOREACH (m->plugins, p) {
		if (worth_showing(p))
			cJSON_AddItemToArray(items, plugin_json(m, p));
	}
	return table;
}

cJSON *pb_manager_status_json(struct pb_manager *m)
{
	cJSON *o = cJSON_CreateObject(), *failed = cJSON_AddArrayToObject(o, "failed");
	struct pb_plugin_entry *p;
	unsigned loaded = 0;
	uint64_t slow = 0;

	LL_FOREACH (m->plugins, p) {
		loaded += p->live != NULL;
		slow += p->slow_calls;
		if (!p->live && (p->failed || p->left_out))
			cJSON_AddItemToArray(failed, cJSON_CreateString(p->name));
	}
	cJSON_AddNumberToObject(o, "loaded", loaded);
	cJSON_AddNumberToObject(o, "lingering_generations", m->n_lingering);
	cJSON_AddNumberToObject(o, "slow_callbacks", (double)slow);
	cJSON_AddBoolToObject(o, "operation_running", m->op_running);
	return o;
}

/* ---- commands ---- */

struct answer {
	struct pb_manager *m;
	struct pb_request *req;
	char name[PB_NAME_MAX];
};

static void on_done(void *arg, int result, const char *text)
{
	struct answer *a = arg;
	struct pb_plugin_entry *p = pb_plugin_find(a->m, a->name);
	cJSON *o;

	if (result < 0) {
		pb_request_fail(a->req, -result, "%s", text);
	} else {
		o = cJSON_CreateObject();
		cJSON_AddStringToObject(o, "plugin", a->name);
		cJSON_AddStringToObject(o, "state", p ? state_name(p) : "unloaded");
		if (p && p->live) {
			cJSON_AddStringToObject(o, "version", p->live->manifest.version);
			cJSON_AddNumberToObject(o, "generation", p->live->number);
			cJSON_AddNumberToObject(o, "swap_us", (double)p->swap_ns / 1000);
			cJSON_AddNumberToObject(o, "flip_us", (double)p->flip_ns / 1000);
		}
		if (p && p->last_error[0])
			cJSON_AddStringToObject(o, "warning", p->last_error);
		pb_request_reply(a->req, o);
	}
	free(a);
}

static void on_list(void *arg, struct pb_request *req, const char *const *args, uint32_t n_args)
{
	(void)args;
	if (n_args)
		pb_request_fail(req, EINVAL, "plugin list: takes no argument");
	else
		pb_request_reply(req, pb_manager_list_json(arg));
}

static struct answer *answer_new(struct pb_manager *m, struct pb_request *req, const char *name,
				 const char *command)
{
	struct answer *a;

	if (!pb_name_valid(name)) {
		pb_request_fail(req, EINVAL,
				"%s: \"%.60s\" is no name of a plugin: lower case letters, digits "
				"and dashes",
				command, name);
		return NULL;
	}
	a = calloc(1, sizeof(*a));
	if (!a) {
		pb_request_fail(req, ENOMEM, "%s: out of memory", command);
		return NULL;
	}
	a->m = m;
	a->req = req;
	snprintf(a->name, sizeof(a->name), "%s", name);
	return a;
}

static void load_or_reload(struct pb_manager *m, struct pb_request *req, const char *const *args,
			   uint32_t n_args, bool reload)
{
	const char *command = reload ? "plugin reload" : "plugin load";
	struct answer *a;

	if (n_args < 1 || n_args > 2) {
		pb_request_fail(req, EINVAL, "%s: usage: %s NAME [FILE]", command, command);
		return;
	}
	if (n_args == 2 && args[1][0] != '/') {
		pb_request_fail(req, EINVAL, "%s: %s: give the file with its whole path", command,
				args[1]);
		return;
	}
	a = answer_new(m, req, args[0], command);
	if (!a)
		return;
	if (reload)
		pb_manager_reload(m, a->name, n_args == 2 ? args[1] : NULL, on_done, a);
	else
		pb_manager_load(m, a->name, n_args == 2 ? args[1] : NULL, on_done, a);
}

static void on_load(void *arg, struct pb_request *req, const char *const *args, uint32_t n_args)
{
	load_or_reload(arg, req, args, n_args, false);
}

static void on_reload(void *arg, struct pb_request *req, const char *const *args, uint32_t n_args)
{
	load_or_reload(arg, req, args, n_args, true);
}

static void on_unload(void *arg, struct pb_request *req, const char *const *args, uint32_t n_args)
{
	struct answer *a;

	if (n_args != 1) {
		pb_request_fail(req, EINVAL, "plugin unload: usage: plugin unload NAME");
		return;
	}
	a = answer_new(arg, req, args[0], "plugin unload");
	if (a)
		pb_manager_unload(arg, a->name, on_done, a);
}

static const struct pb_control_command commands[] = {
	{.name = "plugin list", .usage = "", .help = "plugins and their state", .fn = on_list},
	{.name = "plugin load", .usage = "NAME [FILE]", .help = "load a plugin", .fn = on_load},
	{.name = "plugin unload", .usage = "NAME", .help = "unload a plugin", .fn = on_unload},
	{.name = "plugin reload",
	 .usage = "NAME [FILE]",
	 .help = "replace a plugin by a new generation, losing no packet",
	 .fn = on_reload},
};

void pb_report_commands_add(struct pb_manager *m)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(commands); i++) {
		struct pb_control_command c = commands[i];

		c.arg = m;
		if (m->env.control && pb_control_add(m->env.control, &c) < 0)
			pb_error("plugin", "command \"%s\" can't be registered", c.name);
	}
}

void pb_report_commands_remove(struct pb_manager *m)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(commands) && m->env.control; i++)
		pb_control_remove(m->env.control, commands[i].name);
}
