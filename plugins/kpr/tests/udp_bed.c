/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One part and one head a Service; timers and work of one caller.
 */
#include "udp_bed.h"

#include <stdarg.h>

/* ---- a host ---- */

uint64_t now_ns;
pb_timer_fn timer_fn;
static void *timer_arg;
static uint64_t timer_ns;
uint64_t metrics[4];
uint32_t n_metrics;
unsigned lines[4];
pb_work_fn held_work;
bool hold;

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

const struct pb_host host = {.size = sizeof(host),
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

struct kpr kpr;
struct pb_ctx bed_ctx = {.host = &host, .self = &kpr};

void run(uint64_t ms)
{
	uint64_t until = now_ns + ms * MS;

	while (timer_fn && timer_ns <= until) {
		pb_timer_fn fn = timer_fn;

		now_ns = timer_ns;
		timer_fn = NULL;
		fn(&bed_ctx, timer_arg);
	}
	now_ns = until;
}

/* ---- Services and endpoints ---- */

static const struct pb_service_port ports[] = {{.name = "", .port = 53, .protocol = IPPROTO_UDP}};
static struct pb_kube_addr addresses[N_SERVICES][2];
struct pb_kube_service services[N_SERVICES];
static const char *const names[N_SERVICES] = {"dns", "other"};

/* Of the latest two publications: the old one is read when the new one comes. */
static struct {
	struct pb_backends_head head;
	char part[sizeof(struct pb_backends) + ENDPOINTS_MAX * sizeof(struct pb_backend) + 1];
	uint32_t n;
} published[N_SERVICES][2];
static unsigned latest[N_SERVICES];

void tell(const struct pb_record *record)
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

void publish(unsigned s, const struct endpoint *endpoints, uint32_t n)
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
	kpr_udp_note(&bed_ctx, &kpr.udp, old, value);
}

void begin(void)
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
	CHECK(kpr_udp_declare(&bed_ctx, &kpr.udp, &kpr.model) == 0);
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

void end(void)
{
	kpr_udp_free(&bed_ctx, &kpr.udp);
	kpr_model_free(&kpr.model);
}
