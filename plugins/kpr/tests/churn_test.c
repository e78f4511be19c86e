/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls while the plugin's own code changes the pools that they choose from: none fails, none ends
 * at another Service's backend.
 */
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "../kpr_pools.h"
#include "sock_bed.h"

/* The memory of an array, as host->map_memory() gives it. */
static void *memory_of(int fd, size_t *ret_len)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *memory;

	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return NULL;
	*ret_len =
		((info.value_size + 7) / 8 * 8 * (size_t)info.max_entries + page - 1) / page * page;
	memory = mmap(NULL, *ret_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

/* Slots and backends below are those of the other cases. */
#define CHURN_FIRST 65536
#define CHURN_MAX 64 /* backends that a pool can have */

/* A frontend whose backends come and go, written by the plugin's own code. */
struct churn {
	struct kpr_pool *pool;
	struct pb_svc_key key;
	struct pb_svc value;
	uint32_t net;	     /* its backends are 127.NET.0.n:7000; 0: the first two servers */
	uint32_t n_backends; /* that it can have */
	bool has[CHURN_MAX];
};

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int churn_open(struct kpr_store *st)
{
	size_t slots_len = 0, backends_len = 0;
	void *slots = memory_of(map_fds[MAP_SLOTS], &slots_len);
	void *backends = memory_of(map_fds[MAP_BACKENDS], &backends_len);

	if (!slots || !backends ||
	    kpr_store_init(st, slots, (uint32_t)(slots_len / sizeof(struct pb_svc_slot)), backends,
			   (uint32_t)(backends_len / sizeof(struct pb_svc_backend))) < 0)
		return -1;
	return kpr_ranges_claim(&st->ranges, 0, CHURN_FIRST) < 0 ||
			       kpr_ranges_claim(&st->ids, 0, CHURN_FIRST) < 0
		       ? -1
		       : 0;
}

static struct pb_svc_backend churn_backend(const struct churn *c, uint32_t n)
{
	char text[32];
	struct pb_svc_key b;

	snprintf(text, sizeof(text), "127.%u.0.%u:7000", c->net, n);
	b = key_of(c->net ? text : servers[n], 0);
	return (struct pb_svc_backend){.addr = b.addr, .port = b.port, .family = b.family};
}

/* Some backends come, others go, one always stays; then the frontend is written. */
static void churn_once(struct kpr_store *st, struct churn *c, unsigned *seed)
{
	struct pb_svc_backend adds[CHURN_MAX];
	uint32_t removes[CHURN_MAX];
	struct kpr_update u = {.pool = c->pool, .add = adds, .remove = removes};
	uint32_t stays = (uint32_t)rand_r(seed) % c->n_backends;
	uint32_t base = c->value.base, n = (uint32_t)rand_r(seed) % 4;
	bool known = c->value.room > 0;

	for (uint32_t i = 0; i < c->n_backends; i++) {
		bool want = i == stays || (uint32_t)rand_r(seed) % 4 < n;

		if (want && !c->has[i])
			adds[u.n_add++] = churn_backend(c, i);
		c->has[i] = want;
	}
	for (uint32_t i = 0; i < c->pool->count; i++) {
		const struct pb_svc_backend *b = kpr_pool_at(st, c->pool, i);

		for (uint32_t k = 0; k < c->n_backends; k++) {
			struct pb_svc_backend other = churn_backend(c, k);

			if (!c->has[k] && other.addr.v4 == b->addr.v4 && other.port == b->port)
				removes[u.n_remove++] = i;
		}
	}
	kpr_store_release(st, monotonic_ns());
	kpr_pool_index(st, c->pool);
	if (kpr_update_plan(st, &u) < 0)
		_exit(1);
	kpr_update_apply(st, &u);
	c->value.tie = pb_svc_tie(&c->key, c->pool->id);
	c->value.base = c->pool->base;
	c->value.count = c->pool->count;
	c->value.room = c->pool->room;
	bpf_map_update_elem(map_fds[MAP_SERVICES], &c->key, &c->value, 0);
	kpr_pool_ref(c->pool);
	if (known)
		kpr_pool_unref(st, c->pool, base);
	kpr_store_unnamed(st, monotonic_ns());
}

/* Changes the frontends in turn, as fast as it can, until it is told to stop. */
static void churn_all(struct churn *c, unsigned n, int ready_fd, int stop_fd)
{
	struct pollfd stop = {.fd = stop_fd, .events = POLLIN};
	struct kpr_store st;
	unsigned seed = 1;

	if (churn_open(&st) < 0)
		_exit(1);
	for (unsigned i = 0; i < n; i++) {
		c[i].pool = kpr_pool_new(&st);
		if (!c[i].pool)
			_exit(1);
		/* Anything but NULL: it is wanted. */
		c[i].pool->port = (struct kpr_port *)(void *)&c[i];
		churn_once(&st, &c[i], &seed);
	}
	if (write(ready_fd, "x", 1) != 1)
		_exit(1);
	while (poll(&stop, 1, 0) == 0)
		for (unsigned i = 0; i < n; i++)
			churn_once(&st, &c[i], &seed);
	kpr_store_free(&st);
	_exit(0);
}

/* Runs fn while a child changes the frontends. */
static void while_churning(struct churn *c, unsigned n, void (*fn)(void))
{
	int stop_fds[2], ready_fds[2], status = -1;
	char byte;
	pid_t pid;

	CHECK(pipe(stop_fds) == 0 && pipe(ready_fds) == 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		close(stop_fds[1]);
		churn_all(c, n, ready_fds[1], stop_fds[0]);
	}
	close(stop_fds[0]);
	close(ready_fds[1]);
	if (read(ready_fds[0], &byte, 1) == 1)
		fn();
	close(stop_fds[1]);
	close(ready_fds[0]);
	waitpid(pid, &status, 0);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void connect_many(void)
{
	unsigned good = 0;

	for (int i = 0; i < 3000; i++) {
		int who = reach_tcp("10.96.0.1:80", NULL);

		good += who == 0 || who == 1;
	}
	CHECK(good == 3000);
}

static void changes_under_load(void)
{
	struct churn c = {.key = key_of("10.96.0.1:80", IPPROTO_TCP), .n_backends = 2};

	c.value.id = next_id++;
	while_churning(&c, 1, connect_many);
}

#define N_CHURNED 3
#define N_DIALS 100000

/*
 * connect() of a UDP socket runs the program and sends nothing. Without the hook of getpeername
 * the socket names the backend.
 */
static void dial_many(void)
{
	static const char *const frontends[N_CHURNED] = {"10.96.0.1:53", "10.96.0.2:53",
							 "10.96.0.3:53"};
	unsigned refused_calls = 0, wrong = 0;

	for (unsigned i = 0; i < N_DIALS; i++) {
		int fd = dial(frontends[i % N_CHURNED], SOCK_DGRAM, 0);
		struct sockaddr_in in = {0};
		socklen_t len = sizeof(in);

		if (fd < 0) {
			refused_calls++;
			continue;
		}
		if (getpeername(fd, (struct sockaddr *)&in, &len) < 0 ||
		    ntohl(in.sin_addr.s_addr) >> 16 != (127 << 8 | (1 + i % N_CHURNED)) ||
		    in.sin_port != htons(7000))
			wrong++;
		close(fd);
	}
	CHECK(refused_calls == 0);
	CHECK(wrong == 0);
}

static void no_wrong_backend(void)
{
	struct churn c[N_CHURNED] = {0};
	char text[32];

	for (uint32_t i = 0; i < N_CHURNED; i++) {
		snprintf(text, sizeof(text), "10.96.0.%u:53", i + 1);
		c[i] = (struct churn){.key = key_of(text, IPPROTO_UDP),
				      .value.id = next_id++,
				      .net = i + 1,
				      .n_backends = CHURN_MAX};
	}
	CHECK(bpf_prog_detach(cgroup_fd, BPF_CGROUP_INET4_GETPEERNAME) == 0);
	while_churning(c, N_CHURNED, dial_many);
}

static const struct sock_case cases[] = {
	{"K55_no_connection_fails_while_its_service_changes", changes_under_load},
	/* The last one: it takes a hook away. */
	{"no_call_goes_to_another_services_backend_while_all_change", no_wrong_backend},
};

int main(void)
{
	return sock_bed_run(cases, sizeof(cases) / sizeof(cases[0]));
}
