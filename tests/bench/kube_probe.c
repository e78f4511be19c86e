/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures the agent against tests/bench/kube_server, from outside:
 *
 *   kube_probe sync PID BPFFS SERVICES BACKENDS
 *       waits until kpr's map has SERVICES frontends with BACKENDS each; what that took of time,
 *       CPU (of the whole process since its start) and memory
 *   kube_probe event IN OUT BPFFS FIRST STEP ROUNDS
 *       changes slices FIRST, FIRST + STEP, ... one at a time through the server's pipes IN and
 *       OUT and waits each time until the map has the new address
 *   kube_probe rate IN OUT BPFFS PID EVENTS SECONDS
 *       lets the server change EVENTS slices a second and measures the agent's CPU time meanwhile
 *
 * Prints one JSON line. Everything it waits for has a deadline.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <time.h>

#include <base/base.h>
#include "../../plugins/kpr/kpr_abi.h"
#include "kube_objects.h"

#define DEADLINE_NS (120ULL * 1000000000ULL)
#define LOOK_NS (50ULL * 1000000ULL)
#define BATCH 16384
/* What comes faster than this is merged by endpointslice: one change is what is measured. */
#define GAP_US 150000L

static int fail(const char *what)
{
	fprintf(stderr, "kube_probe: %s: %s\n", what, strerror(errno));
	return 1;
}

static void pause_us(long us)
{
	struct timespec ts = {.tv_nsec = us * 1000};

	nanosleep(&ts, NULL);
}

/* ---- the process ---- */

/* CPU time of all threads, also of those that have ended, in milliseconds. */
static double cpu_ms(const char *pid)
{
	PB_FREE char *path = pb_sprintf("/proc/%s/stat", pid);
	PB_BUF_FREE struct pb_buf text = {0};
	unsigned long user, system;
	struct pb_err err;
	const char *p;

	if (pb_file_read(path, 4096, &text, &err) < 0)
		return 0;
	p = strrchr(text.data, ')');
	if (!p || sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
			 &system) != 2)
		return 0;
	return (double)(user + system) * 1000.0 / (double)sysconf(_SC_CLK_TCK);
}

static double memory_mib(const char *pid, const char *field)
{
	PB_FREE char *path = pb_sprintf("/proc/%s/status", pid);
	PB_BUF_FREE struct pb_buf text = {0};
	struct pb_err err;
	const char *p;

	if (pb_file_read(path, 16384, &text, &err) < 0)
		return 0;
	p = strstr(text.data, field);
	return p ? strtod(p + strlen(field), NULL) / 1024 : 0;
}

/* ---- the maps ---- */

struct maps {
	int services;
	int slots;
	int backends;
};

static int map_open(const char *bpffs, const char *name)
{
	PB_FREE char *path = pb_sprintf("%s/plugins/kpr/%s_v3", bpffs, name);

	return path ? bpf_obj_get(path) : -1;
}

static int maps_open(const char *bpffs, struct maps *m)
{
	m->services = map_open(bpffs, "kpr_services");
	m->slots = map_open(bpffs, "kpr_slots");
	m->backends = map_open(bpffs, "kpr_backends");
	return m->services < 0 || m->slots < 0 || m->backends < 0 ? -1 : 0;
}

/* Frontends in the map with at least `backends` backends. */
static unsigned programmed(const struct maps *m, uint32_t backends)
{
	static struct pb_svc_key keys[BATCH];
	static struct pb_svc values[BATCH];
	uint32_t found = 0, n, in = 0, out = 0;
	void *from = NULL;
	int err = 0;

	while (err == 0) {
		n = BATCH;
		err = bpf_map_lookup_batch(m->services, from, &out, keys, values, &n, NULL);
		if (err < 0 && errno != ENOENT)
			return found;
		for (uint32_t i = 0; i < n; i++)
			found += values[i].count >= backends;
		in = out;
		from = &in;
	}
	return found;
}

static bool service_of(const struct maps *m, const char *address, struct pb_svc *ret_service)
{
	struct pb_svc_key key = {.family = 4, .protocol = IPPROTO_TCP, .port = htons(CLUSTER_PORT)};

	return inet_pton(AF_INET, address, &key.addr) == 1 &&
	       bpf_map_lookup_elem(m->services, &key, ret_service) == 0;
}

/* The address in one slot of the Service; 0: none. */
static uint32_t slot_at(const struct maps *m, const struct pb_svc *service, uint32_t i)
{
	uint32_t at = service->base + i;
	struct pb_svc_backend backend;
	struct pb_svc_slot slot;

	if (i >= service->count || bpf_map_lookup_elem(m->slots, &at, &slot) < 0 ||
	    bpf_map_lookup_elem(m->backends, &slot.backend, &backend) < 0)
		return 0;
	return backend.addr.v4;
}

/* Where the Service has the address; -1: nowhere. */
static int64_t slot_find(const struct maps *m, const struct cluster_change *change,
			 const char *address)
{
	struct pb_svc s;
	struct in_addr addr;

	if (!service_of(m, change->service, &s) || inet_pton(AF_INET, address, &addr) != 1)
		return -1;
	for (uint32_t i = 0; i < s.count; i++)
		if (slot_at(m, &s, i) == addr.s_addr)
			return i;
	return -1;
}

/* True once the Service has the new address in the old one's place. */
static bool slot_took(const struct maps *m, const struct cluster_change *change, int64_t slot)
{
	struct pb_svc s;
	struct in_addr addr;

	return service_of(m, change->service, &s) && inet_pton(AF_INET, change->new, &addr) == 1 &&
	       slot_at(m, &s, (uint32_t)slot) == addr.s_addr;
}

/* ---- the server's pipes ---- */

struct pipes {
	FILE *in;  /* the server's input */
	FILE *out; /* what it says */
};

static int pipes_open(char **paths, struct pipes *p)
{
	p->in = fopen(paths[0], "we");
	p->out = p->in ? fopen(paths[1], "re") : NULL;
	if (!p->out)
		return -1;
	setvbuf(p->in, NULL, _IOLBF, 0);
	return 0;
}

struct told {
	unsigned events;
	unsigned long long bytes;
	unsigned long long ns;
	struct cluster_change change;
};

static int read_told(struct pipes *p, struct told *t)
{
	char line[256];

	if (!fgets(line, sizeof(line), p->out))
		return -1;
	*t = (struct told){.events = 1};
	if (sscanf(line, "sent %u %llu %llu %15s %15s %15s", &t->events, &t->bytes, &t->ns,
		   t->change.service, t->change.old, t->change.new) == 6)
		return 0;
	return sscanf(line, "%*s %llu %15s %15s %15s", &t->ns, t->change.service, t->change.old,
		      t->change.new) == 4
		       ? 0
		       : -1;
}

/*
 * Waits until the map has what the server sent; the time since then, negative when it never came.
 * `slot` is where it is expected. It may come elsewhere, so all are looked through now and then.
 */
static double await_change(const struct maps *m, const struct told *t, int64_t slot)
{
	uint64_t now = pb_now_ns(), looked = now;

	while (now - t->ns < DEADLINE_NS) {
		if (slot >= 0 && slot_took(m, &t->change, slot))
			return (double)(pb_now_ns() - t->ns) / 1e6;
		if (slot < 0 || now - looked > LOOK_NS) {
			if (slot_find(m, &t->change, t->change.new) >= 0)
				return (double)(pb_now_ns() - t->ns) / 1e6;
			looked = pb_now_ns();
		}
		pause_us(50);
		now = pb_now_ns();
	}
	return -1;
}

/* ---- commands ---- */

static int run_sync(char **args)
{
	unsigned want = (unsigned)strtoul(args[2], NULL, 10), found = 0;
	uint32_t backends = (uint32_t)strtoul(args[3], NULL, 10);
	uint64_t start = pb_now_ns(), now = start;
	struct maps m = {-1, -1, -1};

	while (found < want && now - start < DEADLINE_NS) {
		pause_us(20000);
		now = pb_now_ns();
		if (m.services >= 0 || maps_open(args[1], &m) == 0)
			found = programmed(&m, backends);
	}
	printf("{\"programmed\":%u,\"ms\":%.0f,\"cpu_ms\":%.0f,\"peak_mib\":%.1f}\n", found,
	       (double)(now - start) / 1e6, cpu_ms(args[0]), memory_mib(args[0], "VmHWM:"));
	return found < want;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static int run_event(char **args)
{
	unsigned first = (unsigned)strtoul(args[3], NULL, 10);
	unsigned step = (unsigned)strtoul(args[4], NULL, 10);
	unsigned rounds = (unsigned)strtoul(args[5], NULL, 10);
	PB_FREE double *ms = calloc(rounds + 1, sizeof(*ms));
	struct pipes p;
	struct told t;
	struct maps m;

	if (!ms || !rounds || pipes_open(args, &p) < 0 || maps_open(args[2], &m) < 0)
		return fail("pipes or maps");
	for (unsigned i = 0; i < rounds; i++) {
		int64_t slot;

		pause_us(GAP_US);
		fprintf(p.in, "show %u\n", first + i * step);
		if (read_told(&p, &t) < 0)
			return fail("the server's answer");
		slot = slot_find(&m, &t.change, t.change.old);
		fprintf(p.in, "touch %u\n", first + i * step);
		if (read_told(&p, &t) < 0)
			return fail("the server's answer");
		ms[i] = await_change(&m, &t, slot);
		if (ms[i] < 0) {
			fprintf(stderr, "kube_probe: %s never got %s\n", t.change.service,
				t.change.new);
			return 1;
		}
	}
	qsort(ms, rounds, sizeof(*ms), by_value);
	printf("{\"rounds\":%u,\"p50_ms\":%.2f,\"p99_ms\":%.2f,\"max_ms\":%.2f}\n", rounds,
	       ms[(rounds - 1) / 2], ms[(rounds - 1) * 99 / 100], ms[rounds - 1]);
	return 0;
}

static int run_rate(char **args)
{
	double cpu = cpu_ms(args[3]), late;
	uint64_t start = pb_now_ns();
	struct pipes p;
	struct told t;
	struct maps m;

	if (pipes_open(args, &p) < 0 || maps_open(args[2], &m) < 0)
		return fail("pipes or maps");
	fprintf(p.in, "rate %s %s\n", args[4], args[5]);
	if (read_told(&p, &t) < 0)
		return fail("the server's answer");
	late = await_change(&m, &t, -1);
	cpu = cpu_ms(args[3]) - cpu;
	printf("{\"events\":%u,\"bytes\":%llu,\"seconds\":%.2f,\"cpu_ms\":%.0f,"
	       "\"cpu_percent\":%.1f,\"last_event_ms\":%.1f}\n",
	       t.events, t.bytes, (double)(t.ns - start) / 1e9, cpu,
	       cpu * 1e8 / (double)(t.ns - start), late);
	return late < 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int n_args;
		int (*run)(char **args);
	} commands[] = {{"sync", 4, run_sync}, {"event", 6, run_event}, {"rate", 6, run_rate}};

	for (size_t i = 0; i < PB_ARRAY_LEN(commands); i++)
		if (argc == commands[i].n_args + 2 && strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argv + 2);
	fputs("usage: kube_probe sync|event|rate ARGS (see kube_probe.c)\n", stderr);
	return 2;
}
