/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The health check ports of Services: how a load balancer learns which nodes have backends.
 *
 * Owns HTTP servers on healthCheckNodePort, one port for each Service of type LoadBalancer with
 * externalTrafficPolicy Local, and /healthz of the plugin. A port that can't be had never concerns
 * the Service itself: one line in the log, tried again. Whoever asks is a stranger: what strangers
 * may hold of the agent is bounded. Nothing here may wait, there is no thread.
 */
#ifndef KPR_HEALTH_H
#define KPR_HEALTH_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <uthash.h>

#include <patchbay/kube.h>
#include <patchbay/plugin.h>
#include <patchbay/topics/backends.h>

#include "kpr_listen.h"

#define KPR_HEALTH_ADDRESSES_MAX 16

struct cJSON;

/* From the plugin's configuration; see kpr_health_config_parse(). */
struct kpr_health_config {
	bool enabled;
	uint32_t n_addresses; /* 0: all addresses */
	struct pb_kube_addr addresses[KPR_HEALTH_ADDRESSES_MAX];
	struct pb_kube_addr healthz; /* family 0: all addresses */
	uint16_t healthz_port;	     /* 0: no /healthz */
};

/* A Service that has a port, or /healthz. */
struct kpr_health_svc {
	UT_hash_handle hh;
	UT_hash_handle hh_port;
	char *key;
	uint16_t port;
	bool has_port; /* in kpr_health.ports */
	bool told;     /* that the port can't be had */
	bool is_healthz;
	uint32_t n_local;
	uint32_t n_listeners;
	struct kpr_listener *listeners[]; /* one for each address of the configuration */
};

/* A connection that is being answered. */
struct kpr_health_conn {
	struct kpr_health_conn *prev, *next;
	int fd; /* -1: it has been told to end */
};

struct kpr_health {
	struct pb_ctx *ctx;
	struct kpr_health_config config;
	struct kpr_health_svc *svcs;  /* by "NAMESPACE/NAME" */
	struct kpr_health_svc *ports; /* by port: who has it; the others wait */
	struct kpr_listeners listeners;
	struct MHD_Daemon *mhd;	       /* made with the first port */
	int mhd_fd;		       /* its epoll descriptor, -1: none */
	struct kpr_health_conn *conns; /* the oldest first */
	uint32_t n_conns;
	uint32_t timer;
	uint32_t retry_timer;
	uint64_t retry_ms;
	uint64_t behind_since_ns; /* 0: the maps are what they should be */
	time_t updated;
	bool timer_runs;
	bool retry_runs;
	bool started;
};

/* Copies the configuration. Ports are opened from kpr_health_start() on. */
void kpr_health_init(struct kpr_health *health, struct pb_ctx *ctx,
		     const struct kpr_health_config *config);
/*
 * To be called in start(), after the replay: takes over the sockets of the generation before with
 * the connections that wait in them, opens what is new, closes what nobody wants any more.
 */
void kpr_health_start(struct kpr_health *health);
/* The last chance to answer before the successor takes over; in quiesce(). */
void kpr_health_quiesce(struct kpr_health *health);
/* Closes everything of this generation; a successor goes on with the sockets. */
void kpr_health_free(struct kpr_health *health);

/*
 * A Service came or changed: its port is opened, moved or closed as the object says. The count of
 * its endpoints stays. -ENOMEM.
 */
int kpr_health_put(struct kpr_health *health, const struct pb_kube_service *obj);
/* The Service is gone or not ours any more; its port is closed at once. */
void kpr_health_remove(struct kpr_health *health, const struct pb_kube_service *obj);
/* How many ready endpoints of a Service this node has. Others than known Services are ignored. */
void kpr_health_count(struct kpr_health *health, const char *ns, const char *name, uint32_t n);
/* Whether the Service has a port here, so that counting is worth it. */
bool kpr_health_wants(const struct kpr_health *health, const char *ns, const char *name);
/* Whether the maps are what Kubernetes says; false for a minute: the node is not healthy. */
void kpr_health_written(struct kpr_health *health, bool all);

/*
 * The ready endpoints of this node in all parts: addresses, of the family that has more of them, so
 * that a pod with several ports or both families counts once. -ENOMEM.
 */
int kpr_health_local(const struct pb_backends *const *parts, uint32_t n, uint32_t *ret_n);

/* `health_check_node_port` and `healthz_bind`. On error host->fail() has said why. */
int kpr_health_config_ports(struct pb_ctx *ctx, const struct cJSON *item,
			    struct kpr_health_config *config);
int kpr_health_config_healthz(struct pb_ctx *ctx, const struct cJSON *item,
			      struct kpr_health_config *config);

/* ---- kpr_health_http.c ---- */

/* Begins to speak HTTP on connections of `listeners`; 0 when it does already. */
int kpr_health_http_start(struct kpr_health *health);
/* Answers what has arrived. */
void kpr_health_http_run(struct kpr_health *health);
void kpr_health_http_stop(struct kpr_health *health);
/* What struct kpr_listeners calls; arg is the struct kpr_health. */
void kpr_health_http_accept(void *arg, int fd, const struct sockaddr *peer, socklen_t len);
void kpr_health_http_accepted(void *arg);

#endif
