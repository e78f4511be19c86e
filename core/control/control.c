/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands: their table, "help", and how the words of a request find one.
 */
#include <control/internal.h>

#include <grp.h>
#include <sys/stat.h>

#include <base/log.h>

#define WORDS_MAX 3 /* of a command's name */

static void on_connection(uv_stream_t *server, int status)
{
	if (status < 0)
		pb_warn("control", "accept: %s", uv_strerror(status));
	else
		control_peer_accept(server->data);
}

static void command_free(struct control_command *c)
{
	free(c->name);
	free(c->usage);
	free(c->help);
}

static struct control_command *command_find(struct pb_control *control, const char *name)
{
	for (size_t i = 0; i < control->n_commands; i++) {
		if (strcmp(control->commands[i].name, name) == 0)
			return &control->commands[i];
	}
	return NULL;
}

int pb_control_add(struct pb_control *control, const struct pb_control_command *command)
{
	struct control_command c = {.fn = command->fn, .arg = command->arg}, *grown;
	size_t at = 0;

	if (command_find(control, command->name))
		return -EEXIST;
	grown = reallocarray(control->commands, control->n_commands + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	control->commands = grown;
	c.name = strdup(command->name);
	c.usage = strdup(command->usage ? command->usage : "");
	c.help = strdup(command->help ? command->help : "");
	if (!c.name || !c.usage || !c.help) {
		command_free(&c);
		return -ENOMEM;
	}
	while (at < control->n_commands && strcmp(grown[at].name, c.name) < 0)
		at++;
	memmove(&grown[at + 1], &grown[at], (control->n_commands - at) * sizeof(c));
	grown[at] = c;
	control->n_commands++;
	return 0;
}

void pb_control_remove(struct pb_control *control, const char *name)
{
	struct control_command *c = command_find(control, name);
	size_t after;

	if (!c)
		return;
	after = (size_t)(control->commands + control->n_commands - (c + 1));
	command_free(c);
	memmove(c, c + 1, after * sizeof(*c));
	control->n_commands--;
}

static void help(void *arg, struct pb_request *req, const char *const *args, uint32_t n_args)
{
	static const struct pb_json_column columns[] = {{"COMMAND", "command"},
							{"ARGUMENTS", "usage"},
							{"HELP", "help"},
							{NULL, NULL}};
	struct pb_control *control = arg;
	cJSON *items, *table = pb_json_table(columns, &items);

	(void)args;
	(void)n_args;
	for (size_t i = 0; table && i < control->n_commands; i++) {
		cJSON *item = cJSON_CreateObject();

		cJSON_AddStringToObject(item, "command", control->commands[i].name);
		cJSON_AddStringToObject(item, "usage", control->commands[i].usage);
		cJSON_AddStringToObject(item, "help", control->commands[i].help);
		cJSON_AddItemToArray(items, item);
	}
	if (table)
		pb_request_reply(req, table);
	else
		pb_request_fail(req, ENOMEM, "out of memory");
}

/* ---- from a request's words to a command ---- */

static void join_words(const char *const *words, uint32_t n, char *out, size_t size)
{
	size_t used = 0;

	*out = '\0';
	for (uint32_t i = 0; i < n && used < size; i++)
		used += (size_t)snprintf(out + used, size - used, "%s%.60s", i ? " " : "",
					 words[i]);
}

/* Names of the commands that start with `group` and a blank, for a message. */
static bool list_group(struct pb_control *control, const char *group, char *out, size_t size)
{
	size_t len = strlen(group), used = 0;

	*out = '\0';
	for (size_t i = 0; i < control->n_commands; i++) {
		const char *name = control->commands[i].name;

		if (strncmp(name, group, len) != 0 || name[len] != ' ' || used >= size)
			continue;
		used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "", name);
	}
	return used > 0;
}

static void unknown_command(struct pb_control *control, struct pb_request *req)
{
	PB_FREE const char **names = calloc(control->n_commands + 1, sizeof(*names));
	uint32_t n = req->n_args < WORDS_MAX ? req->n_args : WORDS_MAX;
	const char *near = NULL;
	char given[256], group[512];

	join_words(req->args, n, given, sizeof(given));
	for (size_t i = 0; names && i < control->n_commands; i++)
		names[i] = control->commands[i].name;
	for (; names && n > 0 && !near; n--) {
		char words[256];

		join_words(req->args, n, words, sizeof(words));
		near = n > 1 || req->n_args == 1 ? pb_suggest(words, names) : NULL;
	}
	if (near)
		pb_request_fail(req, ENOSYS, "unknown command \"%s\"; did you mean \"%s\"?", given,
				near);
	else if (req->n_args && list_group(control, req->args[0], group, sizeof(group)))
		pb_request_fail(req, ENOSYS, "unknown command \"%s\"; known are %s", given, group);
	else
		pb_request_fail(req, ENOSYS,
				"unknown command \"%s\"; \"patchbay help\" lists all commands, a "
				"plugin's only while it is loaded",
				given);
}

/* Fills req->args with the strings of an array; -EINVAL when it isn't one of strings. */
static int take_args(struct pb_request *req, const cJSON *list)
{
	const cJSON *item;

	if (!list)
		return 0;
	if (!cJSON_IsArray(list))
		return -EINVAL;
	req->args = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(*req->args));
	if (!req->args)
		return -ENOMEM;
	cJSON_ArrayForEach (item, list) {
		if (!cJSON_IsString(item))
			return -EINVAL;
		req->args[req->n_args++] = item->valuestring;
	}
	return 0;
}

/* The command with the most words that the request begins with. */
static struct control_command *match_words(struct pb_control *control, struct pb_request *req,
					   uint32_t *ret_used)
{
	uint32_t n = req->n_args < WORDS_MAX ? req->n_args : WORDS_MAX;

	for (; n > 0; n--) {
		struct control_command *c;
		char name[256];

		join_words(req->args, n, name, sizeof(name));
		c = command_find(control, name);
		if (c) {
			*ret_used = n;
			return c;
		}
	}
	return NULL;
}

void control_dispatch(struct pb_control *control, struct pb_request *req)
{
	const char *name = pb_json_str(req->body, "command", NULL);
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(req->body, name ? "args" : "words");
	struct control_command *c;
	uint32_t used = 0;

	control->n_requests++;
	if ((!name && !list) || take_args(req, list) < 0) {
		pb_request_fail(req, EINVAL,
				"a request needs \"command\" and \"args\", or \"words\"; both "
				"lists hold strings");
		return;
	}
	c = name ? command_find(control, name) : match_words(control, req, &used);
	if (c) {
		c->fn(c->arg, req, req->args ? req->args + used : NULL, req->n_args - used);
		return;
	}
	if (name) {
		free(req->args);
		req->args = calloc(1, sizeof(*req->args));
		req->n_args = req->args ? 1 : 0;
		if (req->args)
			req->args[0] = name;
	}
	unknown_command(control, req);
}

/* ---- life ---- */

static void control_free(struct pb_control *control)
{
	for (size_t i = 0; i < control->n_commands; i++)
		command_free(&control->commands[i]);
	free(control->commands);
	free(control->path);
	free(control);
}

static int find_group(struct pb_control *control, const char *name, struct pb_err *err)
{
	const struct group *group;

	if (!name)
		return 0;
	errno = 0;
	group = getgrnam(name);
	if (!group)
		return pb_err_set(err, errno ? -errno : -ENOENT,
				  "control.group: no group \"%s\" on this machine; create it with "
				  "groupadd, or remove the key",
				  name);
	control->group = group->gr_gid;
	control->has_group = true;
	return 0;
}

int pb_control_new(uv_loop_t *loop, const struct pb_config *config, struct pb_control **ret_control,
		   struct pb_err *err)
{
	struct pb_control *control = calloc(1, sizeof(*control));
	struct pb_control_command help_command = {"help", "", "list all commands", help, control};
	PB_CLOSE int fd = -1;
	int rc;

	if (!control)
		return pb_err_set(err, -ENOMEM, "out of memory");
	control->path = strdup(config->control.socket);
	rc = control->path ? pb_control_add(control, &help_command) : -ENOMEM;
	if (rc < 0)
		pb_err_set(err, rc, "out of memory");
	if (rc == 0)
		rc = find_group(control, config->control.group, err);
	if (rc == 0)
		rc = control_listen(control, &fd, err);
	if (rc < 0) {
		control_free(control);
		return rc;
	}
	uv_pipe_init(loop, &control->pipe, 0);
	control->pipe.data = control;
	/* Neither fails with a fresh listening socket. */
	uv_pipe_open(&control->pipe, PB_TAKE_FD(fd));
	uv_listen((uv_stream_t *)&control->pipe, CONTROL_PEERS_MAX, on_connection);
	*ret_control = control;
	return 0;
}

void control_maybe_closed(struct pb_control *control)
{
	void (*closed)(void *arg) = control->closed;
	void *arg = control->closed_arg;

	if (!control->closing || control->n_peers)
		return;
	control_free(control);
	if (closed)
		closed(arg);
}

static void listener_closed(uv_handle_t *handle)
{
	struct pb_control *control = handle->data;

	control->n_peers--;
	control_maybe_closed(control);
}

void pb_control_count(const struct pb_control *control, struct pb_control_counts *ret_counts)
{
	*ret_counts = (struct pb_control_counts){.peers = control->n_peers,
						 .requests = control->n_requests};
}

void pb_control_close(struct pb_control *control, void (*closed)(void *arg), void *arg)
{
	struct control_peer *peer;

	control->closing = true;
	control->closed = closed;
	control->closed_arg = arg;
	pb_unix_remove(control->path, &control->file);
	for (peer = control->peers; peer; peer = peer->next)
		control_peer_close(peer);
	/* Counted like a peer, so that the last of all handles ends the object. */
	control->n_peers++;
	uv_close((uv_handle_t *)&control->pipe, listener_closed);
}
