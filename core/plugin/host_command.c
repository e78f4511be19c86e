/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands of plugins in the `patchbay` tool.
 *
 * Owns the names given to the control socket. A name belongs to a plugin, not to a generation:
 * a request that arrives during a swap waits for whichever generation goes on serving.
 */
#include <base/scan.h>
#include <plugin/private.h>

/* Bytes of struct pb_command in ABI 1.0; never changes. */
#define COMMAND_SIZE_1_0 48

static_assert(sizeof(struct pb_command) >= COMMAND_SIZE_1_0, "options only grow");

static struct pb_host_command *command_find(struct pb_generation *gen, const char *name)
{
	struct pb_host_command *c;

	if (!gen)
		return NULL;
	LL_FOREACH (gen->commands, c) {
		if (strcmp(c->name, name) == 0)
			return c;
	}
	return NULL;
}

static struct pb_command_entry *entry_find(struct pb_manager *m, const char *name)
{
	struct pb_command_entry *e;

	LL_FOREACH (m->commands, e) {
		if (strcmp(e->name, name) == 0)
			return e;
	}
	return NULL;
}

static struct pb_command_entry *entry_free(struct pb_command_entry *e)
{
	if (e) {
		free(e->name);
		free(e->usage);
		free(e->help);
		free(e);
	}
	return NULL;
}

/*
 * A plugin's answer is checked and then passed on as the text it is: a tree of a long list would
 * take many times its memory and hold the loop while it is built.
 */
static int check_answer(struct pb_buf *out)
{
	struct pb_span root;
	struct pb_err err;

	if (pb_scan_check(out->data, out->len, &root, &err) < 0 || pb_span_type(root) != '{')
		return -EPROTO;
	/* Checked text has line ends between its tokens only; the socket's answers are lines. */
	if (memchr(out->data, '\n', out->len))
		cJSON_Minify(out->data);
	return 0;
}

static void answer(struct pb_request *req, struct pb_generation *gen, const char *name, int rc,
		   struct pb_buf *out)
{
	if (rc < 0)
		pb_request_fail(req, -rc, "%s: %s", name,
				gen->fail.text[0] ? gen->fail.text : strerror(-rc));
	else if (!out->len)
		pb_request_reply(req, NULL);
	else if (check_answer(out) < 0)
		pb_request_fail(req, EPROTO,
				"%s: plugin %s answered with something that is not JSON", name,
				gen->plugin->name);
	else
		pb_request_reply(req, cJSON_CreateRaw(out->data));
}

static int call(struct pb_generation *gen, const struct pb_host_command *c, const char *const *args,
		uint32_t n_args, struct pb_buf *out)
{
	struct pb_call call;
	int rc;

	gen->fail.text[0] = '\0';
	pb_call_enter(gen, PB_STEP_COMMAND, &call);
	rc = c->fn(&gen->ctx, c->arg, args, n_args, out);
	pb_call_leave(gen, PB_STEP_COMMAND, &call);
	return rc;
}

static void run(struct pb_command_entry *e, struct pb_request *req, const char *const *args,
		uint32_t n_args)
{
	struct pb_generation *gen = e->owner->live;
	struct pb_host_command *c = command_find(gen, e->name);
	PB_BUF_FREE struct pb_buf out = {0};

	if (!c) {
		pb_request_fail(req, EAGAIN, "%s: plugin %s is being loaded; try again", e->name,
				e->owner->name);
		return;
	}
	answer(req, gen, e->name, call(gen, c, args, n_args, &out), &out);
}

/* A plugin that is being swapped, or says nothing useful, is left out: it has a row of its own. */
static void add_details(const struct pb_command_entry *e, cJSON *status)
{
	struct pb_generation *gen = e->owner->live;
	struct pb_host_command *c = command_find(gen, e->name);
	PB_BUF_FREE struct pb_buf out = {0};
	char name[64];

	if (!c || gen->hold_events || call(gen, c, NULL, 0, &out) < 0)
		return;
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(e->name, " "), e->name);
	if (out.len && check_answer(&out) == 0 && !cJSON_GetObjectItemCaseSensitive(status, name))
		cJSON_AddRawToObject(status, name, out.data);
}

void pb_manager_details_json(struct pb_manager *m, cJSON *status)
{
	const struct pb_command_entry *e;

	LL_FOREACH (m->commands, e) {
		const char *second = strchr(e->name, ' ');

		if (second && strcmp(second, " status") == 0)
			add_details(e, status);
	}
}

static void on_command(void *arg, struct pb_request *req, const char *const *args, uint32_t n_args)
{
	struct pb_command_entry *e = arg;
	struct pb_command_request *r;

	if (!e->owner->live || !e->owner->live->hold_events) {
		run(e, req, args, n_args);
		return;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		pb_request_fail(req, ENOMEM, "%s: out of memory", e->name);
		return;
	}
	*r = (struct pb_command_request){.req = req, .entry = e, .args = args, .n_args = n_args};
	LL_APPEND(e->manager->requests, r);
}

void pb_host_commands_run(struct pb_manager *m)
{
	struct pb_command_request *r, *tmp;

	LL_FOREACH_SAFE(m->requests, r, tmp)
	{
		if (r->entry->owner->live && r->entry->owner->live->hold_events)
			continue;
		LL_DELETE(m->requests, r);
		run(r->entry, r->req, r->args, r->n_args);
		free(r);
	}
}

static int entry_register(struct pb_command_entry *e)
{
	struct pb_control_command command = {
		.name = e->name, .usage = e->usage, .help = e->help, .fn = on_command, .arg = e};

	return pb_control_add(e->manager->env.control, &command);
}

static int entry_new(struct pb_generation *gen, const struct pb_command *opts)
{
	struct pb_command_entry *e = calloc(1, sizeof(*e));
	int rc = -ENOMEM;

	if (!e)
		return rc;
	e->manager = gen->manager;
	e->owner = gen->plugin;
	e->name = strdup(opts->name);
	e->usage = strdup(opts->usage ? opts->usage : "");
	e->help = strdup(opts->help ? opts->help : "");
	if (e->name && e->usage && e->help)
		rc = entry_register(e);
	if (rc < 0) {
		entry_free(e);
		return rc;
	}
	LL_APPEND(gen->manager->commands, e);
	return 0;
}

static struct pb_host_command *command_free(struct pb_host_command *c)
{
	if (c) {
		free(c->name);
		free(c->usage);
		free(c->help);
		free(c);
	}
	return NULL;
}

static struct pb_host_command *command_new(const struct pb_command *opts)
{
	struct pb_host_command *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->name = strdup(opts->name);
	c->usage = strdup(opts->usage ? opts->usage : "");
	c->help = strdup(opts->help ? opts->help : "");
	c->fn = opts->fn;
	c->arg = opts->arg;
	return c->name && c->usage && c->help ? c : command_free(c);
}

int pb_host_command(struct pb_ctx *ctx, const struct pb_command *opts)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_command_entry *e;
	struct pb_host_command *c;
	struct pb_command command;
	int rc;

	if (gen->state != PB_GEN_PREPARING)
		return pb_host_wrong_step(gen, "command()", "in prepare() only");
	if (pb_host_opts(&command, sizeof(command), COMMAND_SIZE_1_0, opts) < 0 || !command.name ||
	    !*command.name || !command.fn || command.flags)
		return pb_err_set(&gen->fail, -EINVAL,
				  "command(): size, name and function must be given, flags be 0");
	e = entry_find(gen->manager, command.name);
	if ((e && e->owner != gen->plugin) || command_find(gen, command.name))
		return pb_err_set(&gen->fail, -EEXIST, "command(): \"%s\" belongs to plugin %s",
				  command.name, e->owner->name);
	c = command_new(&command);
	rc = !c ? -ENOMEM : e ? 0 : entry_new(gen, &command);
	if (rc < 0) {
		command_free(c);
		return pb_err_set(&gen->fail, rc, "command(): \"%s\": %s", command.name,
				  rc == -EEXIST ? "the agent has a command of this name"
						: strerror(-rc));
	}
	LL_APPEND(gen->commands, c);
	return 0;
}

static void entry_remove(struct pb_manager *m, struct pb_command_entry *e)
{
	struct pb_command_request *r, *tmp;

	LL_FOREACH_SAFE(m->requests, r, tmp)
	{
		if (r->entry != e)
			continue;
		LL_DELETE(m->requests, r);
		pb_request_fail(r->req, ENOENT, "%s: plugin %s was unloaded", e->name,
				e->owner->name);
		free(r);
	}
	pb_control_remove(m->env.control, e->name);
	LL_DELETE(m->commands, e);
	entry_free(e);
}

/* A new generation may word its usage differently. */
static void entry_update(struct pb_command_entry *e, const struct pb_host_command *c)
{
	char *usage, *help;

	if (strcmp(e->usage, c->usage) == 0 && strcmp(e->help, c->help) == 0)
		return;
	usage = strdup(c->usage);
	help = strdup(c->help);
	if (!usage || !help) {
		free(usage);
		free(help);
		return;
	}
	free(e->usage);
	free(e->help);
	e->usage = usage;
	e->help = help;
	pb_control_remove(e->manager->env.control, e->name);
	entry_register(e);
}

void pb_host_commands_commit(struct pb_plugin_entry *plugin, struct pb_manager *m)
{
	struct pb_command_entry *e, *tmp;

	LL_FOREACH_SAFE(m->commands, e, tmp)
	{
		struct pb_host_command *c;

		if (e->owner != plugin)
			continue;
		c = command_find(plugin->live, e->name);
		if (c)
			entry_update(e, c);
		else if (!command_find(plugin->next_gen, e->name))
			entry_remove(m, e);
	}
}

void pb_host_commands_free(struct pb_generation *gen)
{
	struct pb_host_command *c, *tmp;

	LL_FOREACH_SAFE(gen->commands, c, tmp)
	command_free(c);
	gen->commands = NULL;
}

void pb_host_commands_close(struct pb_manager *m)
{
	while (m->commands)
		entry_remove(m, m->commands);
}
