/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of connection tracking: ct list, ct flush, nat list. Each is answered when the pool
 * has done its part.
 */
#include <agent_private.h>

static void reply(void *arg, cJSON *result, const struct pb_err *err)
{
	struct pb_request *req = arg;

	if (result)
		pb_request_reply(req, result);
	else
		pb_request_fail(req, err->code ? err->code : ENOMEM, "%s",
				err->text[0] ? err->text : "out of memory");
}

static void cmd_ct_list(void *arg, struct pb_request *req, const char *const *args, uint32_t n_args)
{
	struct pb_agent *agent = arg;

	if (!agent_refuse_while_ending(agent, req))
		pb_ct_list(agent->ct, n_args > 0 ? args[0] : "", n_args > 1 ? args[1] : "", false,
			   reply, req);
}

static void cmd_nat_list(void *arg, struct pb_request *req, const char *const *args,
			 uint32_t n_args)
{
	struct pb_agent *agent = arg;

	if (!agent_refuse_while_ending(agent, req))
		pb_ct_list(agent->ct, n_args > 0 ? args[0] : "", n_args > 1 ? args[1] : "", true,
			   reply, req);
}

static void cmd_ct_flush(void *arg, struct pb_request *req, const char *const *args,
			 uint32_t n_args)
{
	PB_BUF_FREE struct pb_buf filter = {0};
	struct pb_agent *agent = arg;
	int rc = pb_buf_append(&filter, "", 0);

	if (agent_refuse_while_ending(agent, req))
		return;
	for (uint32_t i = 0; i < n_args && rc == 0; i++)
		rc = pb_buf_printf(&filter, "%s ", args[i]);
	if (rc < 0)
		pb_request_fail(req, rc, "out of memory");
	else
		pb_ct_flush(agent->ct, filter.data, reply, req);
}

int agent_ct_commands_add(struct pb_agent *agent, struct pb_err *err)
{
	const struct pb_control_command commands[] = {
		{"ct list", "[FILTER] [AFTER]", "tracked flows, a page at a time", cmd_ct_list,
		 agent},
		{"ct flush", "[FILTER...]", "forget flows, both halves of each", cmd_ct_flush,
		 agent},
		{"nat list", "[FILTER] [AFTER]", "flows whose source is replaced, a page at a time",
		 cmd_nat_list, agent},
	};

	return agent_commands_give(agent, commands, PB_ARRAY_LEN(commands), err);
}
