/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of an agent around a manager under test. */
#include "manager_sandbox.h"

#include <dirent.h>

struct agent agent;
bool agent_required;

/* ---- a control socket without a socket ---- */

struct pb_control {
	struct pb_control_command commands[32];
	unsigned n;
};

struct pb_request {
	bool answered;
};

static struct pb_control control;

int pb_control_add(struct pb_control *c, const struct pb_control_command *command)
{
	struct pb_control_command *copy;

	for (unsigned i = 0; i < c->n; i++) {
		if (strcmp(c->commands[i].name, command->name) == 0)
			return -EEXIST;
	}
	cr_assert_lt(c->n, PB_ARRAY_LEN(c->commands));
	copy = &c->commands[c->n++];
	*copy = *command;
	copy->name = strdup(command->name);
	return 0;
}

void pb_control_remove(struct pb_control *c, const char *name)
{
	for (unsigned i = 0; i < c->n; i++) {
		if (strcmp(c->commands[i].name, name) != 0)
			continue;
		free((char *)c->commands[i].name);
		c->commands[i] = c->commands[--c->n];
		return;
	}
}

void pb_request_reply(struct pb_request *req, cJSON *result)
{
	PB_FREE char *text = result ? cJSON_PrintUnformatted(result) : NULL;

	agent.rc = 0;
	snprintf(agent.answer, sizeof(agent.answer), "%s", text ? text : "{}");
	cJSON_Delete(result);
	req->answered = true;
}

void pb_request_fail(struct pb_request *req, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(agent.answer, sizeof(agent.answer), fmt, ap);
	va_end(ap);
	agent.rc = -err;
	req->answered = true;
}

static const struct pb_control_command *command_find(const char *name)
{
	for (unsigned i = 0; i < control.n; i++) {
		if (strcmp(control.commands[i].name, name) == 0)
			return &control.commands[i];
	}
	return NULL;
}

int agent_command(const char *name, const char *arg1, const char *arg2)
{
	const struct pb_control_command *c = command_find(name);
	const char *args[] = {arg1, arg2};
	struct pb_request req = {0};

	if (!c)
		return -ENOENT;
	c->fn(c->arg, &req, args, (arg1 != NULL) + (arg2 != NULL));
	agent_until(req.answered);
	return agent.rc;
}

/* ---- life ---- */

static bool done;

static void on_done(void *arg, int result, const char *text)
{
	(void)arg;
	agent.rc = result;
	snprintf(agent.text, sizeof(agent.text), "%s", text);
	done = true;
}

static int wait_done(void)
{
	agent_until(done);
	done = false;
	return agent.rc;
}

static void manager_new(void)
{
	struct pb_manager_env env = {.loop = &sandbox.loop,
				     .config = &sandbox.config,
				     .dp = sandbox.dp,
				     .kube = agent.kube,
				     .control = &control};
	int rc = pb_manager_new(&env, &agent.manager, &sandbox.err);

	cr_assert_eq(rc, 0, "%s", sandbox.err.text);
}

static void manager_close(void)
{
	pb_manager_close(PB_TAKE_PTR(agent.manager), on_done, NULL);
	wait_done();
}

void agent_start(void)
{
	static const char *const nothing[] = {NULL};

	sandbox_enter();
	strcpy(agent.dir, "/tmp/pb-manager-XXXXXX");
	cr_assert_not_null(mkdtemp(agent.dir));
	sandbox.config.agent.run_dir = agent.dir;
	sandbox.config.agent.plugin_dir = (char *)"/nowhere";
	sandbox.config.agent.max_crashes = 3;
	sandbox.config.agent.callback_deadline_ms = 5000;
	sandbox.config.node.name = (char *)"node-a";
	sandbox_open();
	cr_assert_eq(pb_kube_new(&sandbox.loop, &sandbox.config, &agent.kube, &sandbox.err), 0);
	manager_new();
	cr_assert_eq(agent_apply(nothing), 0, "%s", agent.text);
}

static void remove_tree(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *d;

	while (dir && (d = readdir(dir))) {
		PB_FREE char *sub = pb_sprintf("%s/%s", path, d->d_name);

		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		if (unlink(sub) < 0)
			remove_tree(sub);
	}
	if (dir)
		closedir(dir);
	rmdir(path);
}

static void kube_closed(void *arg)
{
	*(bool *)arg = true;
}

void agent_stop(void)
{
	bool closed = false;

	if (!agent.dir[0])
		return;
	if (agent.manager)
		manager_close();
	cr_expect_eq(control.n, 0, "a command is left");
	pb_kube_close(PB_TAKE_PTR(agent.kube), kube_closed, &closed);
	agent_until(closed);
	sandbox_leave();
	remove_tree(agent.dir);
}

static double frames;

static void send_frame(uv_prepare_t *prepare)
{
	static const unsigned char frame[64];

	(void)prepare;
	sandbox_run(PB_HOOK_DEV_INGRESS, frame, sizeof(frame));
	frames++;
}

double agent_frames_while_restarting(const char *const *triples)
{
	static uv_prepare_t prepare;

	frames = 0;
	uv_prepare_init(&sandbox.loop, &prepare);
	uv_prepare_start(&prepare, send_frame);
	manager_close();
	manager_new();
	agent_apply(triples);
	uv_close((uv_handle_t *)&prepare, NULL);
	cr_expect_eq(sandbox_counters(PB_HOOK_DEV_INGRESS).missed, 0);
	return frames;
}

const char *agent_file(const char *variant)
{
	static char path[512];
	const char *top = getenv("PB_TOP_BUILDDIR");

	snprintf(path, sizeof(path), "%s/tests/plugins/.libs/sample_%s.so", top ? top : ".",
		 variant);
	return path;
}

int agent_load(const char *name, const char *file)
{
	pb_manager_load(agent.manager, name, file, on_done, NULL);
	return wait_done();
}

int agent_reload(const char *name, const char *file)
{
	pb_manager_reload(agent.manager, name, file, on_done, NULL);
	return wait_done();
}

int agent_unload(const char *name)
{
	pb_manager_unload(agent.manager, name, on_done, NULL);
	return wait_done();
}

/* The configuration before the last one may still be looked at while the last one is applied. */
int agent_apply(const char *const *triples)
{
	static struct pb_config_plugin plugins[2][8];
	static struct pb_config configs[2];
	static unsigned turn;
	struct pb_config *c = &configs[turn];
	struct pb_config_plugin *p = plugins[turn];

	turn = !turn;
	*c = sandbox.config;
	c->plugins = p;
	c->n_plugins = 0;
	for (; *triples; triples += 3)
		p[c->n_plugins++] = (struct pb_config_plugin){.name = (char *)triples[0],
							      .path = (char *)triples[1],
							      .json = (char *)triples[2],
							      .required = agent_required};
	pb_manager_apply(agent.manager, c, on_done, NULL);
	return wait_done();
}

cJSON *agent_row(const char *name)
{
	PB_JSON_FREE cJSON *table = pb_manager_list_json(agent.manager);
	cJSON *items = cJSON_GetObjectItem(table, "items"), *row;

	cJSON_ArrayForEach (row, items) {
		if (strcmp(pb_json_str(row, "name", ""), name) == 0)
			return cJSON_DetachItemViaPointer(items, row);
	}
	return NULL;
}

static double info(const char *version)
{
	PB_JSON_FREE cJSON *json = NULL;

	cr_assert_eq(agent_command("sample info", NULL, NULL), 0, "%s", agent.answer);
	json = cJSON_Parse(agent.answer);
	cr_expect_str_eq(pb_json_str(json, "version", ""), version);
	return pb_json_num(json, "packets", -1);
}

void agent_expect_serves(const char *version)
{
	static const unsigned char frame[64] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5};
	double before = info(version);

	cr_expect_eq(sandbox_run(PB_HOOK_DEV_INGRESS, frame, sizeof(frame)), -1);
	cr_expect_eq(info(version), before + 1, "the chain doesn't lead through %s", version);
	cr_expect_eq(sandbox_counters(PB_HOOK_DEV_INGRESS).missed, 0);
}
