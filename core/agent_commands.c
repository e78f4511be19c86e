/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of the core. Each answers at once from what the rooms report; none changes
 * anything, and none looks into a room once the agent began to end.
 */
#include <agent_private.h>

static void reply(struct pb_request *req, cJSON *result)
{
	if (result)
		pb_request_reply(req, result);
	else
		pb_request_fail(req, ENOMEM, "out of memory");
}

/* The rooms go one after the other, the control socket last. */
bool agent_refuse_while_ending(const struct pb_agent *agent, struct pb_request *req)
{
	if (strcmp(agent->state, "stopping") != 0)
		return false;
	pb_request_fail(req, ESHUTDOWN, "the agent is ending; start it again, then ask");
	return true;
}

double agent_rss_bytes(void)
{
	PB_FCLOSE FILE *f = fopen("/proc/self/statm", "re");
	unsigned long long total = 0, resident = 0;

	if (!f || fscanf(f, "%llu %llu", &total, &resident) != 2)
		return 0;
	return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static double milliseconds(uint64_t ns)
{
	uint64_t us = ns / 1000;

	return (double)us / 1000.0;
}

static void add(cJSON *object, const char *name, cJSON *value)
{
	cJSON_AddItemToObject(object, name, value ? value : cJSON_CreateNull());
}

static cJSON *loop_json(const struct pb_agent *agent)
{
	const struct pb_lag *lag = &agent->lag;
	cJSON *o = cJSON_CreateObject();

	cJSON_AddNumberToObject(o, "turns", (double)lag->turns);
	cJSON_AddNumberToObject(o, "p99_ms", milliseconds(pb_lag_quantile_ns(lag, 0.99)));
	cJSON_AddNumberToObject(o, "max_ms", milliseconds(lag->max_ns));
	cJSON_AddNumberToObject(o, "start_max_ms", milliseconds(agent->start_max_ns));
	return o;
}

static void cmd_status(void *arg, struct pb_request *req, const char *const *args, uint32_t n_args)
{
	struct pb_agent *agent = arg;
	uint64_t uptime_s = (pb_now_ns() - agent->started_ns) / 1000000000;
	cJSON *o;

	if (agent_refuse_while_ending(agent, req))
		return;
	if (n_args > 1 || (n_args == 1 && strcmp(args[0], "--verbose") != 0)) {
		pb_request_fail(req, EINVAL, "status: \"%s\" makes no sense; it takes --verbose",
				args[n_args - 1]);
		return;
	}
	o = cJSON_CreateObject();
	cJSON_AddStringToObject(o, "version", PACKAGE_VERSION);
	cJSON_AddStringToObject(o, "state", agent->state);
	cJSON_AddStringToObject(o, "node", agent->config->node.name);
	cJSON_AddNumberToObject(o, "pid", getpid());
	cJSON_AddNumberToObject(o, "uptime_s", (double)uptime_s);
	cJSON_AddNumberToObject(o, "rss_bytes", agent_rss_bytes());
	cJSON_AddStringToObject(o, "config_file", agent->config->file);
	if (agent->config_error)
		cJSON_AddStringToObject(o, "config_error", agent->config_error);
	add(o, "loop", loop_json(agent));
	add(o, "plugins", pb_manager_status_json(agent->manager));
	add(o, "kubernetes", pb_kube_status_json(agent->kube));
	if (agent->node)
		add(o, "endpoints", pb_node_status_json(agent->node));
	add(o, "identities", pb_peers_status_json(agent->peers));
	add(o, "datapath", pb_dp_status_json(agent->dp));
	if (agent->ct)
		add(o, "conntrack", pb_ct_status_json(agent->ct));
	add(o, "http", pb_httpd_status_json(agent->http));
	if (n_args == 1)
		pb_manager_details_json(agent->manager, o);
	reply(req, o);
}

static void cmd_chain_show(void *arg, struct pb_request *req, const char *const *args,
			   uint32_t n_args)
{
	struct pb_agent *agent = arg;

	(void)args;
	(void)n_args;
	if (!agent_refuse_while_ending(agent, req))
		reply(req, pb_dp_chain_json(agent->dp));
}

static void cmd_map_list(void *arg, struct pb_request *req, const char *const *args,
			 uint32_t n_args)
{
	struct pb_agent *agent = arg;

	(void)args;
	(void)n_args;
	if (!agent_refuse_while_ending(agent, req))
		reply(req, pb_dp_map_list_json(agent->dp));
}

static void cmd_map_dump(void *arg, struct pb_request *req, const char *const *args,
			 uint32_t n_args)
{
	struct pb_agent *agent = arg;
	struct pb_err err = {0};
	cJSON *table = NULL;
	int rc;

	if (agent_refuse_while_ending(agent, req))
		return;
	if (n_args != 1) {
		pb_request_fail(req, EINVAL, "usage: map dump NAME; \"map list\" shows the names");
		return;
	}
	rc = pb_dp_map_dump_json(agent->dp, args[0], &table, &err);
	if (rc < 0)
		pb_request_fail(req, rc, "%s", err.text);
	else
		reply(req, table);
}

static void cmd_endpoint_list(void *arg, struct pb_request *req, const char *const *args,
			      uint32_t n_args)
{
	struct pb_agent *agent = arg;

	(void)args;
	(void)n_args;
	if (agent_refuse_while_ending(agent, req))
		return;
	if (agent->node)
		reply(req, pb_node_json(agent->node));
	else
		pb_request_fail(req, EAGAIN, "the agent is still starting; ask again");
}

typedef cJSON *(*list_fn)(struct pb_peers *peers, const char *filter, const char *after,
			  struct pb_err *err);

static void list_peers(const struct pb_agent *agent, struct pb_request *req,
		       const char *const *args, uint32_t n_args, list_fn list)
{
	struct pb_err err = {0};
	cJSON *page;

	if (agent_refuse_while_ending(agent, req))
		return;
	page = list(agent->peers, n_args > 0 ? args[0] : "", n_args > 1 ? args[1] : "", &err);
	if (page)
		pb_request_reply(req, page);
	else
		pb_request_fail(req, err.code, "%s", err.text);
}

static void cmd_identity_list(void *arg, struct pb_request *req, const char *const *args,
			      uint32_t n_args)
{
	list_peers(arg, req, args, n_args, pb_peers_identities_json);
}

static void cmd_ip_list(void *arg, struct pb_request *req, const char *const *args, uint32_t n_args)
{
	list_peers(arg, req, args, n_args, pb_peers_ips_json);
}

int agent_commands_give(struct pb_agent *agent, const struct pb_control_command *commands, size_t n,
			struct pb_err *err)
{
	for (size_t i = 0; i < n; i++) {
		int rc = pb_control_add(agent->control, &commands[i]);

		if (rc < 0)
			return pb_err_set(err, rc, "command \"%s\": %s", commands[i].name,
					  strerror(-rc));
	}
	return 0;
}

int agent_commands_add(struct pb_agent *agent, struct pb_err *err)
{
	const struct pb_control_command commands[] = {
		{"status", "[--verbose]", "health of agent, datapath, Kubernetes input and plugins",
		 cmd_status, agent},
		{"chain show", "", "programs of every hook in their order", cmd_chain_show, agent},
		{"map list", "", "maps, their types and sizes", cmd_map_list, agent},
		{"map dump", "NAME", "entries of a map", cmd_map_dump, agent},
		{"endpoint list", "", "pods of this node and their interfaces", cmd_endpoint_list,
		 agent},
		{"identity list", "[FILTER] [AFTER]",
		 "identities and their labels, a page at a time", cmd_identity_list, agent},
		{"ip list", "[FILTER] [AFTER]", "addresses and their identities, a page at a time",
		 cmd_ip_list, agent},
	};

	return agent_commands_give(agent, commands, PB_ARRAY_LEN(commands), err);
}
