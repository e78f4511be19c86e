/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures from outside the agent when something has become true, to about a millisecond:
 *
 *   probe load PID BPFFS DIR STAGED SERVICES BACKENDS
 *       moves the files of STAGED into the manifest directory DIR and watches the agent PID read
 *       them (/proc/PID/io) and kpr's pinned map fill up
 *   probe change BPFFS FILE TEMPLATE ADDRESS PORT ROUNDS
 *       replaces FILE by TEMPLATE, a manifest whose endpoint port is %d, ROUNDS times with
 *       another port, and waits each time until the map has it
 *   probe connect ADDRESS PORT START_NS
 *       tries to connect until it works; START_NS is CLOCK_REALTIME of the agent's start
 *
 * Prints one JSON line. Owns no state; everything it waits for has a deadline.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include <base/base.h>
#include "../../plugins/kpr/kpr_abi.h"

#define DEADLINE_NS (60ULL * 1000000000ULL)
#define BATCH 16384
#define CHANGE_GAP_US 150000L

static int fail(const char *what)
{
	fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
	return 1;
}

static void pause_us(long us)
{
	struct timespec ts = {.tv_nsec = us * 1000};

	nanosleep(&ts, NULL);
}

static int map_open(const char *bpffs, const char *name)
{
	PB_FREE char *path = pb_sprintf("%s/plugins/kpr/%s_v3", bpffs, name);

	return path ? bpf_obj_get(path) : -1;
}

/* ---- load ------------------------------------------------------------------------------ */

/* Bytes that the process has read so far, by any read call. */
static uint64_t bytes_read(int fd)
{
	char text[512] = "";
	unsigned long long n = 0;

	if (pread(fd, text, sizeof(text) - 1, 0) > 0)
		sscanf(text, "rchar: %llu", &n);
	return n;
}

/* Frontends in the map with at least `backends` backends. */
static uint32_t programmed(int fd, uint32_t backends)
{
	static struct pb_svc_key keys[BATCH];
	static struct pb_svc values[BATCH];
	uint32_t found = 0, n, in = 0, out = 0;
	void *from = NULL;
	int err = 0;

	while (err == 0) {
		n = BATCH;
		err = bpf_map_lookup_batch(fd, from, &out, keys, values, &n, NULL);
		if (err < 0 && errno != ENOENT)
			return found;
		for (uint32_t i = 0; i < n; i++)
			found += values[i].count >= backends;
		in = out;
		from = &in;
	}
	return found;
}

static int move_all(const char *from, const char *to)
{
	DIR *dir = opendir(from);
	struct dirent *entry;
	int err = 0;

	if (!dir)
		return -1;
	while (err == 0 && (entry = readdir(dir))) {
		PB_FREE char *a = pb_sprintf("%s/%s", from, entry->d_name);
		PB_FREE char *b = pb_sprintf("%s/%s", to, entry->d_name);

		if (entry->d_name[0] != '.')
			err = a && b ? rename(a, b) : -1;
	}
	closedir(dir);
	return err;
}

static int run_load(char **args)
{
	uint32_t want = (uint32_t)strtoul(args[4], NULL, 10);
	uint32_t backends = (uint32_t)strtoul(args[5], NULL, 10);
	PB_FREE char *io_path = pb_sprintf("/proc/%s/io", args[0]);
	uint64_t start, now, last_read, bytes, seen;
	uint32_t found = 0;
	int io, map;

	io = open(io_path, O_RDONLY | O_CLOEXEC);
	if (io < 0)
		return fail(io_path);
	map = map_open(args[1], "kpr_services");
	if (map < 0)
		return fail("kpr_services");
	if (move_all(args[3], args[2]) < 0)
		return fail(args[3]);
	start = now = last_read = pb_now_ns();
	bytes = bytes_read(io);
	while (found < want && now - start < DEADLINE_NS) {
		pause_us(500);
		now = pb_now_ns();
		seen = bytes_read(io);
		/* A few bytes are wake-ups of the loop; a manifest is read in large pieces. */
		if (seen - bytes > 4096)
			last_read = now;
		bytes = seen;
		found = programmed(map, backends);
	}
	now = pb_now_ns();
	printf("{\"services\":%u,\"programmed\":%u,\"read_ms\":%.1f,\"after_read_ms\":%.1f,"
	       "\"total_ms\":%.1f}\n",
	       want, found, (double)(last_read - start) / 1e6, (double)(now - last_read) / 1e6,
	       (double)(now - start) / 1e6);
	return found < want;
}

/* ---- change ---------------------------------------------------------------------------- */

struct change {
	int services;
	int slots;
	int backends;
	struct pb_svc_key key;
	const char *file;
	char *template; /* text with a %d where the port goes */
};

static int write_port(const struct change *c, int port)
{
	PB_FREE char *hidden = NULL;
	const char *slash = strrchr(c->file, '/');
	FILE *f;

	hidden = pb_sprintf("%.*s/.%s.new", (int)(slash - c->file), c->file, slash + 1);
	f = hidden ? fopen(hidden, "w") : NULL;
	if (!f)
		return -1;
	for (const char *p = c->template; *p; p++) {
		if (p[0] == '%' && p[1] == 'd') {
			fprintf(f, "%d", port);
			p++;
		} else {
			fputc(*p, f);
		}
	}
	if (fclose(f) != 0)
		return -1;
	return rename(hidden, c->file);
}

/* The port of the frontend's first backend, as a connecting program would find it; 0: none. */
static int port_in_map(const struct change *c)
{
	struct pb_svc service;
	struct pb_svc_backend backend;
	struct pb_svc_slot slot;

	if (bpf_map_lookup_elem(c->services, &c->key, &service) < 0 || service.count == 0 ||
	    bpf_map_lookup_elem(c->slots, &service.base, &slot) < 0 ||
	    bpf_map_lookup_elem(c->backends, &slot.backend, &backend) < 0)
		return 0;
	return ntohs(backend.port);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static int change_once(const struct change *c, int port, double *ret_ms)
{
	uint64_t start;

	/* rename() is the event; what is measured ends when a connection would go elsewhere. */
	if (write_port(c, port) < 0)
		return fail(c->file);
	start = pb_now_ns();
	while (port_in_map(c) != port) {
		if (pb_now_ns() - start > DEADLINE_NS) {
			fprintf(stderr, "probe: port %d never reached the map\n", port);
			return 1;
		}
		pause_us(50);
	}
	*ret_ms = (double)(pb_now_ns() - start) / 1e6;
	return 0;
}

static int run_change(char **args)
{
	unsigned rounds = (unsigned)strtoul(args[5], NULL, 10);
	struct change c = {.file = args[1]};
	PB_BUF_FREE struct pb_buf text = {0};
	PB_FREE double *ms = calloc(rounds ? rounds : 1, sizeof(*ms));
	struct pb_err err;
	int rc = 0;

	c.services = map_open(args[0], "kpr_services");
	c.slots = map_open(args[0], "kpr_slots");
	c.backends = map_open(args[0], "kpr_backends");
	if (!ms || rounds == 0 || c.services < 0 || c.slots < 0 || c.backends < 0)
		return fail("maps");
	c.key.family = 4;
	c.key.protocol = IPPROTO_TCP;
	c.key.port = htons((uint16_t)strtoul(args[4], NULL, 10));
	if (inet_pton(AF_INET, args[3], &c.key.addr) != 1 ||
	    pb_file_read(args[2], 1 << 20, &text, &err) < 0)
		return fail(args[2]);
	c.template = text.data;
	for (unsigned i = 0; i < rounds && rc == 0; i++) {
		rc = change_once(&c, 20000 + (int)i, &ms[i]);
		/* Endpointslice merges what comes faster than this: one change is what is measured.
		 */
		pause_us(CHANGE_GAP_US);
	}
	if (rc != 0)
		return rc;
	qsort(ms, rounds, sizeof(*ms), by_value);
	printf("{\"rounds\":%u,\"p50_ms\":%.2f,\"p99_ms\":%.2f,\"max_ms\":%.2f}\n", rounds,
	       ms[(rounds - 1) / 2], ms[(rounds - 1) * 99 / 100], ms[rounds - 1]);
	return 0;
}

/* ---- connect --------------------------------------------------------------------------- */

static bool try_connect(const struct sockaddr_in *to)
{
	struct linger reset = {.l_onoff = 1};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), soerr = 0;
	struct pollfd ready = {.fd = fd, .events = POLLOUT};
	socklen_t len = sizeof(soerr);
	bool up = false;

	if (fd < 0)
		return false;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) == 0 || errno == EINPROGRESS)
		up = poll(&ready, 1, 2) == 1 &&
		     getsockopt(fd, SOL_SOCKET, SO_ERROR, &soerr, &len) == 0 && soerr == 0;
	close(fd);
	return up;
}

static int run_connect(char **args)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)strtoul(args[1], NULL, 10))};
	uint64_t start = strtoull(args[2], NULL, 10), begin = pb_now_ns();
	struct timespec ts;

	if (inet_pton(AF_INET, args[0], &to.sin_addr) != 1)
		return fail(args[0]);
	while (!try_connect(&to)) {
		if (pb_now_ns() - begin > DEADLINE_NS) {
			fputs("probe: no connection\n", stderr);
			return 1;
		}
		pause_us(500);
	}
	clock_gettime(CLOCK_REALTIME, &ts);
	printf("{\"ms\":%.1f}\n",
	       ((double)ts.tv_sec * 1e9 + (double)ts.tv_nsec - (double)start) / 1e6);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int n_args;
		int (*run)(char **args);
	} commands[] = {{"load", 6, run_load},
			{"change", 6, run_change},
			{"connect", 3, run_connect}};

	for (size_t i = 0; i < PB_ARRAY_LEN(commands); i++)
		if (argc == commands[i].n_args + 2 && strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argv + 2);
	fputs("usage: probe load|change|connect ARGS (see probe.c)\n", stderr);
	return 2;
}
