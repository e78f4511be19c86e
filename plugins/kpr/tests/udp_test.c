/* SPDX-License-Identifier: Apache-2.0 */
/*
 * K11: connected UDP sockets whose backend goes. Real sockets in two network namespaces, the real
 * reverse map and sock_diag; the plugin's own model is told of Services and endpoints. A host of
 * this test's own has a clock that only run() moves and does the work at once.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "../kpr.h"
#include "sock_bed.h"

#define DNS "10.96.0.53:53"
#define DNS6 "[fd00::53]:53"
#define MAPPED "[::ffff:10.96.0.53]:53"
#define OTHER "10.96.0.54:53"
#define MS 1000000ULL

/* ---- a host ---- */

static uint64_t now_ns;
static pb_timer_fn timer_fn;
static void *timer_arg;
static uint64_t timer_ns;
static uint64_t metrics[4];
static uint32_t n_metrics;
static unsigned lines[4];
static pb_work_fn held_work;
static bool hold;

static int host_map(struct pb_ctx *ctx, const char *name, struct pb_map **ret_map)
{
	(void)ctx;
	CHECK_TEXT(name, "kpr_reverse");
	*ret_map = (struct pb_map *)(void *)&map_fds[MAP_REVERSE];
	return 0;
}

static int fd_of(const struct pb_map *map)
{
	return *(const int *)(const void *)map;
}

static int host_map_lookup(struct pb_map *map, const void *key, void *ret_value)
{
	return bpf_map_lookup_elem(fd_of(map), key, ret_value) < 0 ? -errno : 0;
}

static int host_map_delete(struct pb_map *map, const void *key)
{
	return bpf_map_delete_elem(fd_of(map), key) < 0 ? -errno : 0;
}

static int host_map_next(struct pb_map *map, const void *key, void *ret_key)
{
	return bpf_map_get_next_key(fd_of(map), key, ret_key) < 0 ? -errno : 0;
}

static int host_metric(struct pb_ctx *ctx, uint32_t kind, const char *name, const char *help,
		       uint32_t *ret_id)
{
	(void)ctx, (void)kind, (void)name, (void)help;
	*ret_id = ++n_metrics;
	return 0;
}

static void host_metric_add(struct pb_ctx *ctx, uint32_t id, uint64_t n)
{
	(void)ctx;
	metrics[id] += n;
}

PB_PRINTF(3, 4) static void host_log(struct pb_ctx *ctx, uint32_t level, const char *fmt, ...)
{
	va_list ap;

	(void)ctx;
	lines[level]++;
	va_start(ap, fmt);
	printf("# ");
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
}

static uint64_t host_now_ns(void)
{
	return now_ns;
}

static int host_timer_start(struct pb_ctx *ctx, uint64_t delay_ms, uint64_t repeat_ms,
			    pb_timer_fn fn, void *arg, uint32_t *ret_id)
{
	(void)ctx, (void)repeat_ms, (void)ret_id;
	CHECK(!timer_fn);
	timer_fn = fn;
	timer_arg = arg;
	timer_ns = now_ns + delay_ms * MS;
	return 0;
}

static int host_timer_stop(struct pb_ctx *ctx, uint32_t id)
{
	(void)ctx, (void)id;
	timer_fn = NULL;
	return 0;
}

static int host_work(struct pb_ctx *ctx, pb_work_fn fn, pb_done_fn done, void *arg)
{
	bool cancel = hold && held_work;

	held_work = fn;
	done(ctx, arg, cancel ? -ECANCELED : fn(arg));
	return 0;
}

static const struct pb_host host = {.size = sizeof(host),
				    .map = host_map,
				    .map_lookup = host_map_lookup,
				    .map_delete = host_map_delete,
				    .map_next = host_map_next,
				    .metric = host_metric,
				    .metric_add = host_metric_add,
				    .log = host_log,
				    .now_ns = host_now_ns,
				    .timer_start = host_timer_start,
				    .timer_stop = host_timer_stop,
				    .work = host_work};

static struct kpr kpr;
static struct pb_ctx ctx = {.host = &host, .self = &kpr};

#define SCANS metrics[kpr.udp.metric_scans]
#define DESTROYED metrics[kpr.udp.metric_destroyed]

/* Lets `ms` pass. */
static void run(uint64_t ms)
{
	uint64_t until = now_ns + ms * MS;

	while (timer_fn && timer_ns <= until) {
		pb_timer_fn fn = timer_fn;

		now_ns = timer_ns;
		timer_fn = NULL;
		fn(&ctx, timer_arg);
	}
	now_ns = until;
}

/* ---- Services and endpoints ---- */

#define N_SERVICES 2
#define ENDPOINTS_MAX 2048

struct endpoint {
	const char *at;
	uint32_t state; /* enum pb_backend_state */
};

static const struct pb_service_port ports[] = {{.name = "", .port = 53, .protocol = IPPROTO_UDP}};
static struct pb_kube_addr addresses[N_SERVICES][2];
static struct pb_kube_service services[N_SERVICES];
static const char *const names[N_SERVICES] = {"dns", "other"};

/* Of the latest two publications: the old one is read when the new one comes. */
static struct {
	struct pb_backends_head head;
	char part[sizeof(struct pb_backends) + ENDPOINTS_MAX * sizeof(struct pb_backend) + 1];
	uint32_t n;
} published[N_SERVICES][2];
static unsigned latest[N_SERVICES];

static void tell(const struct pb_record *record)
{
	CHECK(kpr_model_record(&kpr.model, record) == 0);
}

static int by_place(const void *a, const void *b)
{
	const struct pb_backend *x = a, *y = b;
	int rc = (int)x->family - y->family;

	if (rc == 0)
		rc = memcmp(&x->addr, &y->addr, sizeof(x->addr));
	return rc ? rc : (int)x->port - y->port;
}

static void publish(unsigned s, const struct endpoint *endpoints, uint32_t n)
{
	unsigned which = latest[s] = !latest[s];
	struct pb_backends *part = (void *)published[s][which].part;
	struct pb_backends_head *head = &published[s][which].head;
	struct pb_record record = {.size = sizeof(record), .kind = PB_RECORD_PUT};
	char key[64];

	memset(&published[s][which], 0, sizeof(published[s][which]));
	*part = (struct pb_backends){.size = sizeof(*part), .n = n, .strings_len = 1};
	for (uint32_t i = 0; i < n; i++) {
		struct pb_svc_key k = key_of(endpoints[i].at, 0);

		part->backend[i] = (struct pb_backend){.addr = k.addr,
						       .port = ntohs(k.port),
						       .family = k.family,
						       .protocol = IPPROTO_UDP,
						       .state = (uint8_t)endpoints[i].state};
	}
	qsort(part->backend, n, sizeof(part->backend[0]), by_place);
	*head = (struct pb_backends_head){.size = sizeof(*head), .n_parts = n > 0};
	snprintf(key, sizeof(key), "default/%s/slice", names[s]);
	record.key = key;
	record.value = part;
	if (n == 0)
		record.kind = PB_RECORD_DELETE;
	tell(&record);
	snprintf(key, sizeof(key), "default/%s", names[s]);
	record.kind = PB_RECORD_PUT;
	record.value = head;
	tell(&record);
}
#define PUBLISH(s_, ...)                                                                           \
	publish(s_, (const struct endpoint[]){__VA_ARGS__},                                        \
		sizeof((const struct endpoint[]){__VA_ARGS__}) / sizeof(struct endpoint))
#define ACTIVE(at_)                                                                                \
	{                                                                                          \
		at_, PB_BACKEND_ACTIVE                                                             \
	}
#define DRAINING(at_)                                                                              \
	{                                                                                          \
		at_, PB_BACKEND_DRAINING                                                           \
	}

/* As kpr_maps.c: what the model wants is in the map, and the model knows what is there. */
static void serve_at(unsigned s, const char *frontend, const char *backend)
{
	struct pb_svc_key key = key_of(frontend, IPPROTO_UDP);
	struct kpr_front *front = kpr_model_front(&kpr.model, &key);

	CHECK(front != NULL);
	if (!front)
		return;
	front->value.id = PROGRAM(frontend, IPPROTO_UDP, backend);
	front->value.owner = kpr_hash_name(names[s]);
	front->programmed = true;
}

static void part_goes(void *arg, const struct pb_backends *old, const struct pb_backends *value)
{
	(void)arg;
	kpr_udp_note(&ctx, &kpr.udp, old, value);
}

static void begin(void)
{
	const struct kpr_model_opts opts = {.proxy_name = "", .part_goes = part_goes};
	const char *const vips[N_SERVICES][2] = {{DNS, DNS6}, {OTHER, NULL}};

	memset(&kpr, 0, sizeof(kpr));
	memset(metrics, 0, sizeof(metrics));
	memset(lines, 0, sizeof(lines));
	n_metrics = 0;
	timer_fn = NULL;
	held_work = NULL;
	hold = false;
	set_up(0);
	kpr_model_init(&kpr.model, &opts);
	CHECK(kpr_udp_declare(&ctx, &kpr.udp, &kpr.model) == 0);
	for (unsigned s = 0; s < N_SERVICES; s++) {
		uint32_t n = 0;

		for (; n < 2 && vips[s][n]; n++) {
			struct pb_svc_key key = key_of(vips[s][n], 0);

			addresses[s][n] =
				(struct pb_kube_addr){.addr = key.addr, .family = key.family};
		}
		services[s] = (struct pb_kube_service){.meta = {.size = sizeof(services[s]),
								.ns = "default",
								.name = names[s]},
						       .type = PB_SERVICE_CLUSTER_IP,
						       .n_ports = 1,
						       .ports = ports,
						       .n_cluster_ips = n,
						       .cluster_ips = addresses[s]};
		CHECK(kpr_model_service(&kpr.model, &services[s]) == 0);
	}
	kpr_model_services_synced(&kpr.model);
	kpr_model_pods_synced(&kpr.model);
	kpr_model_addresses_synced(&kpr.model);
	kpr_model_backends_synced(&kpr.model);
	kpr_model_adopted(&kpr.model);
	serve_at(0, DNS, servers[4]);
	serve_at(0, DNS6, servers[2]);
	serve_at(1, OTHER, servers[4]);
	PUBLISH(0, ACTIVE(servers[4]), ACTIVE(servers[2]));
	PUBLISH(1, ACTIVE(servers[4]));
}

static void end(void)
{
	kpr_udp_free(&ctx, &kpr.udp);
	kpr_model_free(&kpr.model);
}

/* ---- judging ---- */

static bool answers(int fd, int server)
{
	struct sockaddr_storage from = {0};
	socklen_t len = sizeof(from);
	char byte = 'x';

	return send(fd, &byte, 1, 0) == 1 && who_was_asked(udp_servers) == server &&
	       recvfrom(udp_servers[server], &byte, 1, 0, (struct sockaddr *)&from, &len) == 1;
}

/* The application is told, once; then the same socket can be connected anew. */
static void check_destroyed(int fd, const char *to)
{
	struct addr a = parse(to);
	char byte = 'x';

	CHECK(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) == 1);
	CHECK(recv(fd, &byte, 1, 0) < 0 && errno == ECONNABORTED);
	CHECK(send(fd, &byte, 1, 0) < 0 && errno == EDESTADDRREQ);
	CHECK(connect(fd, (struct sockaddr *)&a.ss, a.len) == 0);
}

static bool destroyed(int fd)
{
	int err = 0;
	socklen_t len = sizeof(err);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err == ECONNABORTED;
}

static uint64_t namespace_now(void)
{
	struct stat st = {0};

	CHECK(stat("/proc/thread-self/ns/net", &st) == 0);
	return st.st_ino;
}

/* ---- the cases ---- */

static void of_the_host(void)
{
	uint64_t before = namespace_now();
	int fd;

	begin();
	fd = dial(DNS, SOCK_DGRAM, 0);
	CHECK(answers(fd, 4));
	PUBLISH(0, ACTIVE(servers[5]), ACTIVE(servers[2]));
	PROGRAM(DNS, IPPROTO_UDP, servers[5]);
	run(KPR_UDP_DELAY_MS);
	CHECK(DESTROYED == 1);
	CHECK(namespace_now() == before);
	/* Its entry went with it. */
	CHECK(count_reverse() == 0);
	check_destroyed(fd, DNS);
	CHECK(answers(fd, 5));
	CHECK(lines[PB_LOG_INFO] == 1 && lines[PB_LOG_WARN] == 0);
	close(fd);
	end();
}

static int pod_fds[3];

static void dial_from_pod(void)
{
	pod_fds[0] = dial(DNS, SOCK_DGRAM, 0);
	pod_fds[1] = dial(MAPPED, SOCK_DGRAM, 0);
	pod_fds[2] = dial(servers[4], SOCK_DGRAM, 0);
}

/* Also that one which talks to the backend itself is left alone. */
static void of_a_pod(void)
{
	uint64_t before = namespace_now();

	begin();
	in_pod(dial_from_pod);
	CHECK(answers(pod_fds[0], 4) && answers(pod_fds[1], 4) && answers(pod_fds[2], 4));
	PUBLISH(0, ACTIVE(servers[5]), ACTIVE(servers[2]));
	run(KPR_UDP_DELAY_MS);
	CHECK(DESTROYED == 2);
	CHECK(namespace_now() == before);
	check_destroyed(pod_fds[0], DNS);
	check_destroyed(pod_fds[1], MAPPED);
	CHECK(answers(pod_fds[2], 4));
	for (size_t i = 0; i < 3; i++)
		close(pod_fds[i]);
	end();
}

static void six(void)
{
	int fd;

	begin();
	fd = dial(DNS6, SOCK_DGRAM, 0);
	CHECK(answers(fd, 2));
	PUBLISH(0, ACTIVE(servers[4]));
	run(KPR_UDP_DELAY_MS);
	CHECK(DESTROYED == 1);
	check_destroyed(fd, DNS6);
	close(fd);
	end();
}

static void at_a_node_port(void)
{
	struct pb_svc_key key = key_of("0.0.0.0:30053", IPPROTO_UDP);
	struct kpr_front *dns;
	int fd;

	begin();
	set_identity("10.1.0.9", PB_IDENTITY_REMOTE_NODE);
	key = key_of(DNS, IPPROTO_UDP);
	dns = kpr_model_front(&kpr.model, &key);
	/* The frontend of the model stands in the map as address zero. */
	HASH_DEL(kpr.model.fronts, dns);
	dns->key = key_of("0.0.0.0:30053", IPPROTO_UDP);
	HASH_ADD(hh, kpr.model.fronts, key, sizeof(dns->key), dns);
	dns->value.id = PROGRAM("0.0.0.0:30053", IPPROTO_UDP, servers[4]);
	set_flags("0.0.0.0:30053", IPPROTO_UDP, KIND(PB_SVC_NODE_PORT));
	fd = dial("10.1.0.9:30053", SOCK_DGRAM, 0);
	CHECK(answers(fd, 4));
	kpr.udp.all = true;
	PUBLISH(0, ACTIVE(servers[4]));
	run(KPR_UDP_DELAY_MS);
	CHECK(SCANS == 1 && !destroyed(fd));
	PUBLISH(0, ACTIVE(servers[5]));
	run(KPR_UDP_PAUSE_MS);
	CHECK(SCANS == 2 && destroyed(fd));
	close(fd);
	end();
}

static void still_known(void)
{
	int drains, other;

	begin();
	drains = dial(DNS, SOCK_DGRAM, 0);
	other = dial(OTHER, SOCK_DGRAM, 0);
	PUBLISH(0, DRAINING(servers[4]), ACTIVE(servers[2]));
	run(KPR_UDP_RETRY_MS);
	CHECK(SCANS == 0);
	PUBLISH(0, ACTIVE(servers[2]));
	run(KPR_UDP_RETRY_MS);
	CHECK(SCANS == 1 && DESTROYED == 1);
	CHECK(destroyed(drains));
	CHECK(answers(other, 4));
	close(drains);
	close(other);
	end();
}

static void unknown(void)
{
	struct pb_record record = {.size = sizeof(record), .kind = PB_RECORD_DELETE};
	int stays, goes;

	begin();
	stays = dial(DNS6, SOCK_DGRAM, 0);
	goes = dial(DNS, SOCK_DGRAM, 0);
	record.key = "default/dns";
	tell(&record);
	record.key = "default/dns/slice";
	tell(&record);
	run(2 * KPR_UDP_RETRY_MS);
	CHECK(SCANS >= 2 && DESTROYED == 0);
	PUBLISH(0, ACTIVE(servers[2]), ACTIVE(servers[5]));
	run(KPR_UDP_RETRY_MS);
	CHECK(DESTROYED == 1 && destroyed(goes) && !destroyed(stays));
	/* Nothing is left to look at. */
	CHECK(!timer_fn);
	close(stays);
	close(goes);
	end();
}

static void service_gone(void)
{
	int fd;

	begin();
	fd = dial(OTHER, SOCK_DGRAM, 0);
	kpr_model_service_gone(&kpr.model, &services[1]);
	publish(1, NULL, 0);
	run(KPR_UDP_DELAY_MS);
	CHECK(destroyed(fd));
	close(fd);
	end();
}

static void missed_while_away(void)
{
	int goes, stays;

	begin();
	goes = dial(DNS, SOCK_DGRAM, 0);
	stays = dial(OTHER, SOCK_DGRAM, 0);
	PUBLISH(0, ACTIVE(servers[5]));
	/* Another generation, which didn't hear of it. */
	kpr_udp_free(&ctx, &kpr.udp);
	n_metrics = 0;
	CHECK(kpr_udp_declare(&ctx, &kpr.udp, &kpr.model) == 0);
	kpr.model.services_synced = false;
	kpr_udp_start(&ctx, &kpr.udp);
	run(KPR_UDP_RETRY_MS);
	CHECK(SCANS == 0);
	kpr.model.services_synced = true;
	run(KPR_UDP_RETRY_MS);
	CHECK(SCANS == 1 && destroyed(goes) && !destroyed(stays));
	close(goes);
	close(stays);
	end();
}

static void one_scan_for_many(void)
{
	static struct endpoint many[KPR_UDP_GONE_MAX + 3];
	static char text[KPR_UDP_GONE_MAX + 2][32];
	uint32_t n = KPR_UDP_GONE_MAX + 1;
	int fd;

	begin();
	fd = dial(DNS, SOCK_DGRAM, 0);
	for (uint32_t i = 0; i < n; i++) {
		snprintf(text[i], sizeof(text[i]), "10.2.%u.%u:8001", i / 250, i % 250);
		many[i] = (struct endpoint)ACTIVE(text[i]);
	}
	many[n] = (struct endpoint)ACTIVE(servers[4]);
	many[n + 1] = (struct endpoint)ACTIVE(servers[2]);
	publish(0, many, n + 2);
	CHECK(!timer_fn);
	/* One by one, then all that are left: more than are noted by address. */
	for (uint32_t i = 1; i <= 10; i++)
		publish(0, many + i, n + 2 - i);
	PUBLISH(0, ACTIVE(servers[5]));
	CHECK(kpr.udp.all);
	run(KPR_UDP_DELAY_MS);
	CHECK(SCANS == 1 && destroyed(fd));
	run(KPR_UDP_PAUSE_MS);
	CHECK(SCANS == 1);
	close(fd);
	/* The next one isn't before the pause is over. */
	fd = dial(OTHER, SOCK_DGRAM, 0);
	now_ns -= KPR_UDP_PAUSE_MS / 2 * MS;
	publish(1, NULL, 0);
	run(KPR_UDP_DELAY_MS);
	CHECK(SCANS == 1);
	run(KPR_UDP_PAUSE_MS);
	CHECK(SCANS == 2 && destroyed(fd));
	close(fd);
	end();
}

static void many_sockets(void)
{
	static int fds[KPR_UDP_FOUND_MAX + 10];
	const uint32_t n = KPR_UDP_FOUND_MAX + 10;
	uint32_t gone = 0;

	begin();
	for (uint32_t i = 0; i < n; i++)
		fds[i] = dial(DNS, SOCK_DGRAM, 0);
	PUBLISH(0, ACTIVE(servers[5]));
	run(KPR_UDP_DELAY_MS);
	CHECK(SCANS == 1 && DESTROYED == KPR_UDP_FOUND_MAX);
	run(KPR_UDP_PAUSE_MS);
	CHECK(SCANS == 2 && DESTROYED == n);
	for (uint32_t i = 0; i < n; i++) {
		gone += destroyed(fds[i]);
		close(fds[i]);
	}
	CHECK(gone == n);
	CHECK(lines[PB_LOG_INFO] == 1);
	end();
}

/* Closed by its application between the two halves of a round. */
static int closed_meanwhile;

static int close_first(struct pb_ctx *c, pb_work_fn fn, pb_done_fn done, void *arg)
{
	int rc;

	if (held_work)
		close(closed_meanwhile);
	held_work = fn;
	rc = fn(arg);
	done(c, arg, rc);
	return 0;
}

static void closed_in_between(void)
{
	struct pb_host racing = host;

	begin();
	racing.work = close_first;
	ctx.host = &racing;
	closed_meanwhile = dial(DNS, SOCK_DGRAM, 0);
	PUBLISH(0, ACTIVE(servers[5]));
	run(KPR_UDP_DELAY_MS);
	CHECK(SCANS == 1 && DESTROYED == 0);
	CHECK(metrics[kpr.udp.metric_failed] == 0 && lines[PB_LOG_WARN] == 0);
	ctx.host = &host;
	end();
}

static void cancelled(void)
{
	int fd;

	begin();
	hold = true;
	fd = dial(DNS, SOCK_DGRAM, 0);
	PUBLISH(0, ACTIVE(servers[5]));
	run(KPR_UDP_DELAY_MS);
	CHECK(SCANS == 1 && !destroyed(fd));
	close(fd);
	end();
}

static void nothing_translated(void)
{
	begin();
	kpr_udp_start(&ctx, &kpr.udp);
	PUBLISH(0, ACTIVE(servers[5]));
	run(10 * KPR_UDP_RETRY_MS);
	CHECK(SCANS == 0 && !timer_fn);
	end();
}

static const struct sock_case cases[] = {
	{"K11_a_socket_of_the_host_sees_ECONNABORTED_and_connects_anew", of_the_host},
	{"K11_sockets_of_a_pod_too_but_not_one_that_names_the_backend_itself", of_a_pod},
	{"K11_IPv6", six},
	{"K11_through_a_node_port", at_a_node_port},
	{"K11_draining_keeps_them_and_another_service_that_has_the_backend_too", still_known},
	{"K11_nothing_is_destroyed_while_the_backends_are_unknown", unknown},
	{"K11_the_service_is_gone_too", service_gone},
	{"K11_what_went_while_nobody_watched_is_found_at_the_start", missed_while_away},
	{"K11_many_changes_are_one_search_and_a_pause_follows", one_scan_for_many},
	{"K11_more_sockets_than_a_round_takes", many_sockets},
	{"K11_a_socket_that_is_closed_meanwhile_is_no_failure", closed_in_between},
	{"K11_a_round_that_is_cancelled_destroys_nothing", cancelled},
	{"K11_nothing_is_searched_when_nothing_was_translated", nothing_translated},
};

int main(void)
{
	return sock_bed_run(cases, sizeof(cases) / sizeof(cases[0]));
}
