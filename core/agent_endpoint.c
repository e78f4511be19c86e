/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands that a CNI plugin gives: endpoint add, delete and check. Between the control socket
 * and the node room, which answers when it can keep its word.
 */
#include <agent_private.h>

static void reply(void *arg, int result, const char *text, cJSON *json)
{
	struct pb_request *req = arg;

	if (result < 0)
		pb_request_fail(req, result, "%s", text);
	else
		pb_request_reply(req, json);
}

typedef void (*endpoint_fn)(struct pb_node *node, const char *json, pb_node_reply_fn reply,
			    void *arg);

static void ask_node(const struct pb_agent *agent, struct pb_request *req, const char *const *args,
		     uint32_t n_args, endpoint_fn fn)
{
	if (n_args != 1)
		pb_request_fail(req, EINVAL, "the argument is one JSON object, as a string");
	else if (strcmp(agent->state, "stopping") == 0)
		pb_request_fail(req, ESHUTDOWN, "the agent is ending; try again");
	else if (!agent->node)
		pb_request_fail(req, EAGAIN, "the agent is still starting; try again");
	else
		fn(agent->node, args[0], reply, req);
}

static void cmd_add(void *arg, struct pb_request *req, const char *const *args, uint32_t n_args)
{
	ask_node(arg, req, args, n_args, pb_node_endpoint_add);
}

static void cmd_delete(void *arg, struct pb_request *req, const char *const *args, uint32_t n_args)
{
	ask_node(arg, req, args, n_args, pb_node_endpoint_delete);
}

static void cmd_check(void *arg, struct pb_request *req, const char *const *args, uint32_t n_args)
{
	ask_node(arg, req, args, n_args, pb_node_endpoint_check);
}

int agent_endpoint_commands_add(struct pb_agent *agent, struct pb_err *err)
{
	const struct pb_control_command commands[] = {
		{"endpoint add", "JSON", "announce a pod's interface (for CNI plugins)", cmd_add,
		 agent},
		{"endpoint delete", "JSON", "take that back", cmd_delete, agent},
		{"endpoint check", "JSON", "is it still as announced?", cmd_check, agent},
	};

	return agent_commands_give(agent, commands, PB_ARRAY_LEN(commands), err);
}
