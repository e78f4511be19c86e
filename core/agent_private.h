/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by agent.c and the agent_*.c files beside it only.
 */
#ifndef PB_AGENT_PRIVATE_H
#define PB_AGENT_PRIVATE_H

#include <agent.h>
#include <lag.h>

#include <control/control.h>
#include <datapath/ct.h>
#include <datapath/datapath.h>
#include <http/http.h>
#include <kube/kube.h>
#include <node/node.h>
#include <node/peers.h>
#include <plugin/manager.h>

struct pb_agent {
	uv_loop_t loop;
	const struct pb_agent_options *options;
	struct pb_config *config;
	struct pb_config *next; /* being applied */
	struct pb_control *control;
	struct pb_dp *dp;
	struct pb_ct_table *ct;
	struct pb_kube *kube;
	struct pb_manager *manager;
	struct pb_node *node;
	struct pb_peers *peers;
	struct pb_httpd *http;
	struct pb_lag lag;
	uv_poll_t signals; /* of signal_fd */
	int signal_fd;
	uv_timer_t stop_timer;
	uint64_t started_ns;
	uint64_t start_max_ns; /* longest turn before ready; lag counts from then on */
	const char *state;     /* "starting", "ready", "reloading", "stopping" */
	char *config_error;    /* what of the last SIGHUP is not in force, and why */
	struct pb_buf metrics; /* the last answer, made at metrics_ns */
	uint64_t metrics_ns;
	bool applying;
	bool hup_waits; /* a SIGHUP came while one was being applied */
	int exit_code;
};

/* agent_commands.c: status, chain show, map list, map dump, endpoint list. */
int agent_commands_add(struct pb_agent *agent, struct pb_err *err);
/* For the files that have commands: answers instead of a command when the agent is ending. */
bool agent_refuse_while_ending(const struct pb_agent *agent, struct pb_request *req);
/* Gives commands to the control socket. */
int agent_commands_give(struct pb_agent *agent, const struct pb_control_command *commands, size_t n,
			struct pb_err *err);
double agent_rss_bytes(void);

/* agent_http.c: listens and answers /metrics, /healthz, /readyz. */
int agent_http_open(struct pb_agent *agent, struct pb_err *err);

/* agent_peers.c: what plugins hold, and where identities are published. */
struct pb_manager_cidr_ops agent_cidr_ops(struct pb_agent *agent);
void agent_publish_peers(struct pb_agent *agent);

/* agent_endpoint.c: endpoint add, endpoint delete, endpoint check. */
int agent_endpoint_commands_add(struct pb_agent *agent, struct pb_err *err);

/* agent_ct.c: ct list, ct flush, nat list. */
int agent_ct_commands_add(struct pb_agent *agent, struct pb_err *err);

/* agent_notify.c: tells systemd, when it asked to be told (NOTIFY_SOCKET). */
void agent_notify(const char *state);
/* agent_notify.c: as many files as allowed; failing is fine. */
void agent_raise_limits(void);

#endif
