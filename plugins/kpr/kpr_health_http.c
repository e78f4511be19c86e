/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health checks: what is answered.
 *
 * libmicrohttpd speaks HTTP on connections that kpr_listen.c accepts; its epoll descriptor and its
 * next deadline hang on the agent's loop. Every answer ends its connection: nothing is held for
 * strangers longer than it must be, and a reload finds no connection to cut.
 */
#include "kpr_health.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cjson/cJSON.h>
#include <microhttpd.h>
#include <utlist.h>

/* What strangers may hold. */
#define CONNECTIONS_MAX 128
#define CONNECTIONS_MAX_PER_IP 32
#define CONNECTION_MEMORY 4096
#define CONNECTION_TIMEOUT_S 5
#define UPLOAD_MAX 65536
/* Of the library in one turn of the loop. */
#define RUNS_MAX 16

/* As kube-proxy: this long behind, the node is told to be unhealthy. */
#define BEHIND_NS 60000000000ULL

/* ---- answers ---- */

static bool is_behind(const struct kpr_health *health)
{
	return health->behind_since_ns &&
	       health->ctx->host->now_ns() - health->behind_since_ns > BEHIND_NS;
}

static struct kpr_health_svc *svc_of(struct kpr_health *health, struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct sockaddr_storage at = {0};
	socklen_t len = sizeof(at);
	struct kpr_health_svc *svc = NULL;
	uint16_t port;

	if (!info || getsockname(info->connect_fd, (struct sockaddr *)&at, &len) < 0)
		return NULL;
	/* The port has the same place in both families. */
	port = ntohs(((const struct sockaddr_in *)&at)->sin_port);
	HASH_FIND(hh_port, health->ports, &port, sizeof(port), svc);
	return svc;
}

static cJSON *service_body(const struct kpr_health_svc *svc, bool healthy)
{
	cJSON *body = cJSON_CreateObject();
	cJSON *service = cJSON_AddObjectToObject(body, "service");
	const char *slash = strchr(svc->key, '/');
	char ns[256];

	snprintf(ns, sizeof(ns), "%.*s", (int)(slash - svc->key), svc->key);
	cJSON_AddStringToObject(service, "namespace", ns);
	cJSON_AddStringToObject(service, "name", slash + 1);
	cJSON_AddNumberToObject(body, "localEndpoints", svc->n_local);
	cJSON_AddBoolToObject(body, "serviceProxyHealthy", healthy);
	return body;
}

static void add_time(cJSON *body, const char *name, time_t when)
{
	char text[32] = "";
	struct tm tm;

	if (gmtime_r(&when, &tm))
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	cJSON_AddStringToObject(body, name, text);
}

static cJSON *healthz_body(const struct kpr_health *health)
{
	cJSON *body = cJSON_CreateObject();
	time_t now = time(NULL);

	/* Up to date is up to date now, as kube-proxy has it. */
	add_time(body, "lastUpdated", health->behind_since_ns ? health->updated : now);
	add_time(body, "currentTime", now);
	return body;
}

static enum MHD_Result respond(struct MHD_Connection *connection, unsigned status, cJSON *body,
			       const char *weight)
{
	char *text = body ? cJSON_PrintUnformatted(body) : strdup("");
	struct MHD_Response *response;
	enum MHD_Result result;

	cJSON_Delete(body);
	if (!text)
		return MHD_NO;
	response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	if (weight)
		MHD_add_response_header(response, "X-Load-Balancing-Endpoint-Weight", weight);
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result answer(void *arg, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *upload,
			      size_t *upload_len, void **state)
{
	struct kpr_health *health = arg;
	struct kpr_health_svc *svc = svc_of(health, connection);
	bool healthy = !is_behind(health);
	uintptr_t seen = (uintptr_t)*state;
	char weight[16];

	(void)method;
	(void)version;
	(void)upload;
	/* A body is read and thrown away, or its sender would see a reset and no answer. */
	if (seen == 0 || *upload_len) {
		*state = (void *)(seen + *upload_len + 1);
		*upload_len = 0;
		return seen > UPLOAD_MAX ? MHD_NO : MHD_YES;
	}
	if (!svc || (svc->is_healthz && strcmp(url, "/healthz") != 0))
		return respond(connection, MHD_HTTP_NOT_FOUND, NULL, NULL);
	if (svc->is_healthz)
		return respond(connection, healthy ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
			       healthz_body(health), NULL);
	snprintf(weight, sizeof(weight), "%u", svc->n_local);
	return respond(connection,
		       svc->n_local && healthy ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
		       service_body(svc, healthy), weight);
}

/* ---- the library on the agent's loop ---- */

static void work(struct kpr_health *health);

static void on_deadline(struct pb_ctx *ctx, void *arg)
{
	struct kpr_health *health = arg;

	(void)ctx;
	health->timer_runs = false;
	work(health);
}

static void on_ready(struct pb_ctx *ctx, void *arg, int fd, uint32_t events)
{
	(void)ctx;
	(void)fd;
	(void)events;
	work(arg);
}

static void work(struct kpr_health *health)
{
	struct pb_ctx *ctx = health->ctx;
	MHD_UNSIGNED_LONG_LONG ms = 0;
	bool waits = true;

	/* One run reads what fits into a connection's memory; 0: more is there already. */
	for (int i = 0; i < RUNS_MAX && waits && ms == 0; i++) {
		MHD_run(health->mhd);
		waits = MHD_get_timeout(health->mhd, &ms) == MHD_YES;
	}
	if (health->timer_runs)
		ctx->host->timer_stop(ctx, health->timer);
	health->timer_runs = waits && ctx->host->timer_start(ctx, ms ? ms : 1, 0, on_deadline,
							     health, &health->timer) == 0;
}

/* It ends, or is about to. */
static void forget(struct kpr_health *health, struct kpr_health_conn *conn)
{
	DL_DELETE(health->conns, conn);
	health->n_conns--;
	conn->fd = -1;
}

/* Keeps count of the connections, the oldest first. */
static void notify(void *arg, struct MHD_Connection *connection, void **context,
		   enum MHD_ConnectionNotificationCode code)
{
	struct kpr_health *health = arg;
	struct kpr_health_conn *conn = *context;
	const union MHD_ConnectionInfo *info;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (conn && conn->fd >= 0)
			forget(health, conn);
		free(conn);
		*context = NULL;
		return;
	}
	info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	conn = info ? calloc(1, sizeof(*conn)) : NULL;
	*context = conn;
	if (!conn)
		return;
	conn->fd = info->connect_fd;
	DL_APPEND(health->conns, conn);
	health->n_conns++;
}

/*
 * The one that has taken the longest makes room. A health check takes a moment; who sends a byte
 * now and then would keep the node from being asked at all.
 */
static void make_room(struct kpr_health *health)
{
	struct kpr_health_conn *oldest = health->conns;

	if (health->n_conns < CONNECTIONS_MAX)
		return;
	shutdown(oldest->fd, SHUT_RDWR);
	forget(health, oldest);
	MHD_run(health->mhd);
}

/* The library closes the descriptor when it has no room for it. */
void kpr_health_http_accept(void *arg, int fd, const struct sockaddr *peer, socklen_t len)
{
	struct kpr_health *health = arg;

	make_room(health);
	MHD_add_connection(health->mhd, fd, peer, len);
}

void kpr_health_http_accepted(void *arg)
{
	work(arg);
}

int kpr_health_http_start(struct kpr_health *health)
{
	struct pb_ctx *ctx = health->ctx;
	const union MHD_DaemonInfo *info;
	int rc;

	if (health->mhd)
		return 0;
	health->mhd =
		MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, answer,
				 health, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
				 MHD_OPTION_PER_IP_CONNECTION_LIMIT,
				 (unsigned)CONNECTIONS_MAX_PER_IP,
				 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
				 MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CONNECTION_TIMEOUT_S,
				 MHD_OPTION_NOTIFY_CONNECTION, notify, health, MHD_OPTION_END);
	if (!health->mhd)
		return -ENOMEM;
	info = MHD_get_daemon_info(health->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	health->mhd_fd = info ? info->epoll_fd : -1;
	rc = ctx->host->fd_watch(ctx, health->mhd_fd, PB_FD_READ, on_ready, health);
	if (rc < 0) {
		MHD_stop_daemon(health->mhd);
		health->mhd = NULL;
		health->mhd_fd = -1;
	}
	return rc;
}

void kpr_health_http_run(struct kpr_health *health)
{
	if (health->mhd)
		MHD_run(health->mhd);
}

void kpr_health_http_stop(struct kpr_health *health)
{
	struct pb_ctx *ctx = health->ctx;

	if (!health->mhd)
		return;
	if (health->timer_runs)
		ctx->host->timer_stop(ctx, health->timer);
	health->timer_runs = false;
	ctx->host->fd_unwatch(ctx, health->mhd_fd);
	MHD_run(health->mhd);
	MHD_stop_daemon(health->mhd);
	health->mhd = NULL;
	health->mhd_fd = -1;
}
