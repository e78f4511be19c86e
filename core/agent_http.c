/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /metrics, /healthz and /readyz: asks the rooms and answers. Changes nothing.
 */
#include <agent_private.h>

#include <sys/resource.h>

#include <agent_health.h>
#include <agent_metrics.h>

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"
/* Whoever asks more often gets the last answer again: asking must not be a way to hold the loop. */
#define METRICS_KEEP_NS 100000000ULL

static double cpu_seconds(void)
{
	struct rusage u = {0};

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double epoch_seconds(void)
{
	struct timespec ts = {0};

	clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- health ---- */

static bool ask_ready(struct pb_agent *agent, const cJSON *kube, struct pb_buf *lines)
{
	PB_JSON_FREE cJSON *links = pb_dp_links_json(agent->dp);
	PB_JSON_FREE cJSON *plugins = pb_manager_list_json(agent->manager);
	const struct pb_health_in in = {.state = agent->state,
					.plugins = plugins,
					.kubernetes = kube,
					.links = links};

	return pb_agent_ready(&in, lines);
}

static int on_readyz(void *arg, const struct pb_httpd_request *request,
		     struct pb_httpd_answer *answer)
{
	struct pb_agent *agent = arg;
	PB_JSON_FREE cJSON *kube = pb_kube_status_json(agent->kube);

	(void)request;
	answer->status = ask_ready(agent, kube, &answer->body) ? 200 : 503;
	return 0;
}

/*
 * A liveness probe asks with "brief: true". Restarting the agent mends nothing of what the rooms
 * report, so all that counts there is that the loop answers.
 */
static int on_healthz(void *arg, const struct pb_httpd_request *request,
		      struct pb_httpd_answer *answer)
{
	static const unsigned statuses[] = {
		[PB_HEALTH_OK] = 200, [PB_HEALTH_FAILING] = 503, [PB_HEALTH_FAILED] = 500};
	struct pb_agent *agent = arg;
	PB_JSON_FREE cJSON *plugins = NULL, *kube = NULL, *links = NULL;
	struct pb_health_in in = {.state = agent->state};

	if (!request->brief) {
		in.plugins = plugins = pb_manager_list_json(agent->manager);
		in.kubernetes = kube = pb_kube_status_json(agent->kube);
		in.links = links = pb_dp_links_json(agent->dp);
	}
	answer->status = statuses[pb_agent_health(&in, &answer->body)];
	return 0;
}

/* ---- metrics ---- */

static double count_endpoints(struct pb_agent *agent)
{
	PB_JSON_FREE cJSON *table = agent->node ? pb_node_json(agent->node) : NULL;

	return cJSON_GetArraySize(cJSON_GetObjectItem(table, "items"));
}

static int metrics_write(struct pb_agent *agent, struct pb_buf *out)
{
	PB_JSON_FREE cJSON *kube = pb_kube_status_json(agent->kube);
	PB_JSON_FREE cJSON *datapath = pb_dp_status_json(agent->dp);
	PB_JSON_FREE cJSON *maps = pb_dp_map_list_json(agent->dp);
	PB_BUF_FREE struct pb_buf reasons = {0};
	struct pb_control_counts counts;
	struct pb_agent_metrics m = {
		.ready = ask_ready(agent, kube, &reasons),
		.config_refused = agent->config_error != NULL,
		.uptime_s = (double)(pb_now_ns() - agent->started_ns) / 1e9,
		.started_s = epoch_seconds(),
		.cpu_s = cpu_seconds(),
		.rss_bytes = agent_rss_bytes(),
		.loop_turns = (double)agent->lag.turns,
		.loop_p99_s = (double)pb_lag_quantile_ns(&agent->lag, 0.99) / 1e9,
		.loop_max_s = (double)agent->lag.max_ns / 1e9,
		.endpoints = count_endpoints(agent),
		.kubernetes = kube,
		.datapath = datapath,
		.maps = maps,
	};
	int rc;

	m.started_s -= m.uptime_s;
	pb_control_count(agent->control, &counts);
	m.control_peers = counts.peers;
	m.control_requests = (double)counts.requests;
	pb_peers_count(agent->peers, &m.peers);
	if (agent->ct)
		pb_ct_count(agent->ct, &m.ct);
	rc = pb_agent_metrics_write(&m, out);
	return rc < 0 ? rc : pb_manager_metrics(agent->manager, out);
}

static int on_metrics(void *arg, const struct pb_httpd_request *request,
		      struct pb_httpd_answer *answer)
{
	struct pb_agent *agent = arg;
	int rc = 0;

	(void)request;
	answer->content_type = METRICS_TYPE;
	if (!agent->metrics.len || pb_now_ns() - agent->metrics_ns >= METRICS_KEEP_NS) {
		pb_buf_reset(&agent->metrics);
		rc = metrics_write(agent, &agent->metrics);
		agent->metrics_ns = pb_now_ns();
	}
	if (rc < 0)
		pb_buf_reset(&agent->metrics);
	return rc < 0 ? rc : pb_buf_append(&answer->body, agent->metrics.data, agent->metrics.len);
}

int agent_http_open(struct pb_agent *agent, struct pb_err *err)
{
	static const struct {
		const char *path;
		pb_httpd_fn fn;
	} paths[] = {{"/metrics", on_metrics}, {"/healthz", on_healthz}, {"/readyz", on_readyz}};
	int rc = pb_httpd_new(&agent->loop, agent->config, &agent->http, err);

	for (size_t i = 0; i < PB_ARRAY_LEN(paths) && rc == 0; i++) {
		rc = pb_httpd_add(agent->http, paths[i].path, paths[i].fn, agent);
		if (rc < 0)
			pb_err_set(err, rc, "http: %s: %s", paths[i].path, strerror(-rc));
	}
	return rc;
}
