/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts the rooms in the order of their dependence, ends them in the reverse one, and between
 * the two waits for signals. What a room reports as failed at start ends the agent; later it
 * never does.
 */
#include <agent_private.h>

#include <signal.h>
#include <sys/signalfd.h>

/* A room that doesn't let go in this time is left behind: the process ends anyway. */
#define STOP_DEADLINE_MS 15000

static void agent_reload(struct pb_agent *agent);
static void agent_stop(struct pb_agent *agent, int exit_code);

static void agent_log_setup(const struct pb_agent *agent, const struct pb_config *config)
{
	int level = agent->options->log_level;

	pb_log_setup(config->log.format, level >= 0 ? (uint32_t)level : config->log.level, 2);
}

static bool agent_stopping(const struct pb_agent *agent)
{
	return strcmp(agent->state, "stopping") == 0;
}

/* ---- stop: HTTP, node, plugins, peers, Kubernetes, flows, datapath, control, one by one ---- */

static void stop_expired(uv_timer_t *timer)
{
	(void)timer;
	pb_error("core", "not everything ended within %d s; leaving anyway, the datapath goes on",
		 STOP_DEADLINE_MS / 1000);
	_exit(1);
}

static void control_closed(void *arg)
{
	struct pb_agent *agent = arg;

	agent->control = NULL;
	pb_lag_stop(&agent->lag);
	uv_close((uv_handle_t *)&agent->stop_timer, NULL);
	if (agent->signal_fd >= 0)
		uv_close((uv_handle_t *)&agent->signals, NULL);
}

static void dp_closed(void *arg)
{
	struct pb_agent *agent = arg;

	agent->dp = NULL;
	if (agent->control)
		pb_control_close(agent->control, control_closed, agent);
	else
		control_closed(agent);
}

static void ct_closed(void *arg)
{
	struct pb_agent *agent = arg;

	agent->ct = NULL;
	if (agent->dp)
		pb_dp_close(agent->dp, dp_closed, agent);
	else
		dp_closed(agent);
}

static void kube_closed(void *arg)
{
	struct pb_agent *agent = arg;

	agent->kube = NULL;
	if (agent->ct)
		pb_ct_close(agent->ct, ct_closed, agent);
	else
		ct_closed(agent);
}

static void peers_closed(void *arg)
{
	struct pb_agent *agent = arg;

	agent->peers = NULL;
	if (agent->kube)
		pb_kube_close(agent->kube, kube_closed, agent);
	else
		kube_closed(agent);
}

static void manager_closed(void *arg, int result, const char *text)
{
	struct pb_agent *agent = arg;

	if (result < 0)
		pb_warn("core", "plugins did not end in order: %s", text);
	agent->manager = NULL;
	if (agent->peers)
		pb_peers_close(agent->peers, peers_closed, agent);
	else
		peers_closed(agent);
}

static void node_closed(void *arg)
{
	struct pb_agent *agent = arg;

	agent->node = NULL;
	if (agent->manager)
		pb_manager_close(agent->manager, manager_closed, agent);
	else
		manager_closed(agent, 0, "");
}

/* First of all, for its answers look into every room. */
static void http_closed(void *arg)
{
	struct pb_agent *agent = arg;

	agent->http = NULL;
	if (agent->node)
		pb_node_close(agent->node, node_closed, agent);
	else
		node_closed(agent);
}

static void agent_stop(struct pb_agent *agent, int exit_code)
{
	if (agent_stopping(agent))
		return;
	agent->state = "stopping";
	agent->exit_code = exit_code;
	agent_notify("STOPPING=1");
	uv_timer_start(&agent->stop_timer, stop_expired, STOP_DEADLINE_MS, 0);
	uv_unref((uv_handle_t *)&agent->stop_timer);
	/* What the others let go of from here on stays in the maps: the datapath goes on. */
	if (agent->peers)
		pb_peers_quiesce(agent->peers);
	if (agent->http)
		pb_httpd_close(agent->http, http_closed, agent);
	else
		http_closed(agent);
}

/* ---- reload ---- */

static void set_config_error(struct pb_agent *agent, const char *text)
{
	free(agent->config_error);
	agent->config_error = text ? strdup(text) : NULL;
}

static void reload_refused(struct pb_agent *agent, const char *text)
{
	pb_error("core", "SIGHUP: %s; the running configuration stays in force", text);
	set_config_error(agent, text);
	agent_notify("READY=1");
}

static void reload_done(void *arg, int result, const char *text)
{
	struct pb_agent *agent = arg;

	agent->applying = false;
	pb_config_free(agent->config);
	agent->config = PB_TAKE_PTR(agent->next);
	if (agent_stopping(agent))
		return;
	if (result < 0) {
		/* Each plugin's failure is in the log already. */
		pb_warn("core",
			"SIGHUP: %s is in force in part: config_error in `patchbay status` says "
			"what is not",
			agent->config->file);
		set_config_error(agent, text);
	} else {
		pb_info("core", "SIGHUP: %s is in force", agent->config->file);
	}
	agent->state = "ready";
	agent_notify("READY=1");
	if (agent->hup_waits)
		agent_reload(agent);
}

static int reload_read(struct pb_agent *agent, struct pb_config **ret_config, struct pb_err *err)
{
	struct pb_config *config = NULL;
	const char *fixed;
	int rc = pb_config_load(agent->options->config_file, &config, err);

	if (rc < 0)
		return rc;
	fixed = pb_config_fixed_change(agent->config, config);
	if (!fixed) {
		*ret_config = config;
		return 0;
	}
	pb_config_free(config);
	return pb_err_set(err, -EBUSY,
			  "%s: %s can't change while the agent runs; restart patchbayd",
			  agent->options->config_file, fixed);
}

static void agent_reload(struct pb_agent *agent)
{
	struct pb_err err = {0};

	agent->hup_waits = agent->applying;
	if (agent->applying || agent_stopping(agent))
		return;
	agent_notify("RELOADING=1");
	if (reload_read(agent, &agent->next, &err) < 0) {
		reload_refused(agent, err.text);
		return;
	}
	set_config_error(agent, NULL);
	agent->applying = true;
	agent->state = "reloading";
	agent_log_setup(agent, agent->next);
	if (pb_peers_reconfigure(agent->peers, agent->next, &err) < 0)
		pb_error("core", "SIGHUP: identity: %s", err.text);
	if (pb_httpd_reconfigure(agent->http, agent->next, &err) < 0)
		pb_error("core", "SIGHUP: http.listen: %s", err.text);
	if (agent->node && pb_node_reconfigure(agent->node, agent->next, &err) < 0)
		pb_error("core", "SIGHUP: datapath.devices: %s", err.text);
	if (pb_dp_reconfigure(agent->dp, agent->next, &err) < 0)
		pb_error("core", "SIGHUP: datapath.devices: %s", err.text);
	if (pb_ct_reconfigure(agent->ct, agent->next, &err) < 0)
		pb_error("core", "SIGHUP: datapath.conntrack: %s", err.text);
	if (pb_kube_start(agent->kube, agent->next, &err) < 0)
		pb_error("core", "SIGHUP: kubernetes: %s", err.text);
	pb_manager_apply(agent->manager, agent->next, reload_done, agent);
}

/* ---- start ---- */

static void signal_came(struct pb_agent *agent, uint32_t number)
{
	if (number == SIGHUP) {
		agent_reload(agent);
		return;
	}
	pb_info("core", "%s: ending; the datapath goes on",
		number == SIGTERM ? "SIGTERM" : "SIGINT");
	agent_stop(agent, 0);
}

static void on_signals(uv_poll_t *handle, int status, int events)
{
	struct pb_agent *agent = handle->data;
	struct signalfd_siginfo info;

	(void)events;
	while (status == 0 && read(agent->signal_fd, &info, sizeof(info)) == sizeof(info))
		signal_came(agent, info.ssi_signo);
}

/*
 * By a file descriptor, for a handler would interrupt the loop's wait: libuv then forgets how
 * long it had waited, and the lag would count it as work.
 */
static int watch_signals(struct pb_agent *agent)
{
	sigset_t set;
	int rc;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	/* Before there is any other thread, so that all have them blocked. */
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	agent->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (agent->signal_fd < 0)
		return -errno;
	agent->signals.data = agent;
	rc = uv_poll_init(&agent->loop, &agent->signals, agent->signal_fd);
	if (rc < 0) {
		close(agent->signal_fd);
		agent->signal_fd = -1;
		return rc;
	}
	return uv_poll_start(&agent->signals, UV_READABLE, on_signals);
}

static void start_failed(struct pb_agent *agent, const char *room, const char *text)
{
	pb_error("core", "%s: %s", room, text);
	agent_stop(agent, 1);
}

static void attached(void *arg, int result, const char *text)
{
	struct pb_agent *agent = arg;
	struct pb_err err = {0};

	agent->applying = false;
	if (agent_stopping(agent))
		return;
	if (result < 0) {
		start_failed(agent, "datapath", text);
		return;
	}
	if (pb_node_new(&agent->loop, agent->config, agent->dp, agent->kube, agent->peers,
			&agent->node, &err) < 0) {
		start_failed(agent, "node", err.text);
		return;
	}
	agent->state = "ready";
	agent->start_max_ns = agent->lag.max_ns;
	pb_lag_reset(&agent->lag);
	pb_info("core", "ready after %llu ms%s",
		(unsigned long long)((pb_now_ns() - agent->started_ns) / 1000000),
		result < 0 ? ", without the plugins that failed" : "");
	agent_notify("READY=1");
	if (agent->hup_waits)
		agent_reload(agent);
}

/* The first chains are complete, with or without plugins that failed: packets may come. */
static void started(void *arg, int result, const char *text)
{
	struct pb_agent *agent = arg;
	struct pb_err err = {0};

	if (agent_stopping(agent))
		return;
	/* Each failure was reported when it happened. */
	if (result == -ENOENT)
		start_failed(agent, "a plugin that is \"required: always\" is missing", text);
	else if (pb_dp_attach(agent->dp, attached, agent, &err) < 0)
		start_failed(agent, "datapath", err.text);
}

static int open_rooms(struct pb_agent *agent, struct pb_err *err)
{
	struct pb_manager_env env = {.loop = &agent->loop, .config = agent->config};
	int rc = pb_control_new(&agent->loop, agent->config, &agent->control, err);

	if (rc < 0)
		return rc;
	rc = pb_dp_open(&agent->loop, agent->config, &agent->dp, err);
	/* Before any program that makes flows runs: without timeouts they would expire at once. */
	if (rc == 0)
		rc = pb_ct_new(&agent->loop, agent->config, agent->dp, &agent->ct, err);
	if (rc == 0)
		rc = pb_kube_new(&agent->loop, agent->config, &agent->kube, err);
	if (rc == 0)
		rc = pb_peers_new(&agent->loop, agent->config, agent->dp, agent->kube,
				  &agent->peers, err);
	if (rc < 0)
		return rc;
	env.dp = agent->dp;
	env.kube = agent->kube;
	env.control = agent->control;
	env.cidrs = agent_cidr_ops(agent);
	rc = pb_manager_new(&env, &agent->manager, err);
	if (rc == 0)
		agent_publish_peers(agent);
	if (rc == 0)
		rc = agent_commands_add(agent, err);
	if (rc == 0)
		rc = agent_http_open(agent, err);
	if (rc == 0)
		rc = agent_endpoint_commands_add(agent, err);
	if (rc == 0)
		rc = agent_ct_commands_add(agent, err);
	if (rc == 0)
		rc = pb_kube_start(agent->kube, agent->config, err);
	return rc;
}

static int agent_start(struct pb_agent *agent)
{
	struct pb_err err = {0};

	uv_timer_init(&agent->loop, &agent->stop_timer);
	if (watch_signals(agent) < 0) {
		pb_error("core", "signals can't be watched");
		return -EINVAL;
	}
	if (open_rooms(agent, &err) < 0) {
		pb_error("core", "%s", err.text);
		return err.code;
	}
	agent->applying = true;
	pb_manager_apply(agent->manager, agent->config, started, agent);
	return 0;
}

static void agent_free(struct pb_agent *agent)
{
	int rc = uv_loop_close(&agent->loop);

	if (rc < 0)
		pb_warn("core", "the loop ended with open handles: %s", uv_strerror(rc));
	pb_config_free(agent->config);
	pb_config_free(agent->next);
	free(agent->config_error);
	pb_buf_free(&agent->metrics);
	if (agent->signal_fd >= 0)
		close(agent->signal_fd);
	free(agent);
}

int pb_agent_run(const struct pb_agent_options *options, struct pb_config *config)
{
	struct pb_agent *agent = calloc(1, sizeof(*agent));
	int exit_code;

	if (!agent || uv_loop_init(&agent->loop) < 0) {
		pb_error("core", "no event loop: %s", strerror(errno));
		free(agent);
		pb_config_free(config);
		return 1;
	}
	uv_loop_configure(&agent->loop, UV_METRICS_IDLE_TIME);
	agent->signal_fd = -1;
	agent->options = options;
	agent->config = config;
	agent->state = "starting";
	agent->started_ns = pb_now_ns();
	agent_log_setup(agent, config);
	agent_raise_limits();
	pb_info("core", "patchbayd %s, node %s, configuration %s", PACKAGE_VERSION,
		config->node.name, config->file);
	pb_lag_start(&agent->lag, &agent->loop);
	if (agent_start(agent) < 0)
		agent_stop(agent, 1);
	/* Opening the rooms took long, but was no turn of the loop. */
	pb_lag_reset(&agent->lag);
	uv_run(&agent->loop, UV_RUN_DEFAULT);
	exit_code = agent->exit_code;
	agent_free(agent);
	return exit_code;
}
