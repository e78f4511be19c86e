/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What gate, chain and exit cost a packet: one JSON line a variant.
 *
 * Every round runs an empty program, the empty chain and chains of 1 to 8 pass-through programs
 * one after another; a variant's figure is the median over rounds of its difference to the
 * empty program of the same round, so that the machine's slow drift cancels out. Runs in its own
 * mounts and network.
 */
#include <datapath/internal.h>

#include <sched.h>
#include <sys/mount.h>

#include <tests/bpf/stages.skel.h>

#define REPEAT 1000000U
#define ROUNDS_MAX 64
#define PROGRAMS_MAX 8
#define VARIANTS (PROGRAMS_MAX + 2) /* empty program, empty chain, 1 to 8 programs */

struct bench {
	uv_loop_t loop;
	struct pb_config config;
	struct pb_dp *dp;
	struct pb_dp_object *object;
	struct pb_err err;
	int empty_fd;
	unsigned rounds;
	double ns[VARIANTS][ROUNDS_MAX];
};

static const unsigned char frame[64] = {
	2,    0,    0, 0,  0, 1, 2, 0, 0,  0, 0, 2, 8,	  0,			      /* Ethernet */
	0x45, 0,    0, 50, 0, 1, 0, 0, 64, 6, 0, 0, 10,	  0, 0,	   1,	 10, 0, 0, 2, /* IPv4 */
	0x30, 0x39, 0, 80, 0, 0, 0, 1, 0,  0, 0, 0, 0x50, 2, 0xff, 0xff,	      /* TCP */
};

static int enter_sandbox(struct bench *b)
{
	struct sched_param param = {.sched_priority = 5};
	cpu_set_t one;

	if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL) < 0)
		return pb_err_set(&b->err, -errno, "can't make a private place: %s; run it as root",
				  strerror(errno));
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	/* Without the right to it the figures are only noisier. */
	sched_setscheduler(0, SCHED_FIFO, &param);
	return 0;
}

static int open_datapath(struct bench *b)
{
	struct pb_bpf_object opts = {.size = sizeof(opts), .name = "stages"};
	const struct pb_place place = {.chain_fd = -1};
	const char *name = "stages_empty";
	int rc;

	b->config.datapath.bpffs = (char *)"/sys/fs/bpf/patchbay";
	uv_loop_init(&b->loop);
	rc = pb_dp_open(&b->loop, &b->config, &b->dp, &b->err);
	opts.elf = stages_bpf__elf_bytes(&opts.elf_len);
	if (rc == 0)
		rc = pb_dp_object_new(b->dp, "bench", &opts, &b->object, &b->err);
	if (rc == 0)
		rc = pb_dp_object_prepare(b->object, &b->err);
	if (rc == 0)
		rc = pb_object_load(b->object, &name, 1, &place, &b->empty_fd, &b->err);
	return rc;
}

static int run(struct bench *b, int fd, double *ret_ns)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof(frame),
		    .repeat = REPEAT);
	uint64_t start = pb_now_ns();
	int rc = bpf_prog_test_run_opts(fd, &opts);

	*ret_ns = (double)(pb_now_ns() - start) / REPEAT;
	return rc < 0 ? pb_err_set(&b->err, rc, "test run: %s", strerror(-rc)) : 0;
}

static int run_chain(struct bench *b, size_t n, double *ret_ns)
{
	static const char *const names[PROGRAMS_MAX] = {"a", "b", "c", "d", "e", "f", "g", "h"};
	struct pb_dp_slot slots[PROGRAMS_MAX];
	struct pb_dp_build *build = NULL;
	int rc;

	for (size_t i = 0; i < n; i++)
		slots[i] = (struct pb_dp_slot){.hook = PB_HOOK_DEV_INGRESS,
					       .band = PB_BAND_POLICY,
					       .plugin = "bench",
					       .name = names[i],
					       .program = "stages_next",
					       .object = b->object};
	rc = pb_dp_build(b->dp, slots, n, 1U << PB_HOOK_DEV_INGRESS, &build, &b->err);
	if (rc == 0)
		rc = pb_dp_flip(build, &b->err);
	if (rc == 0)
		rc = run(b, b->dp->entry_fd[PB_HOOK_DEV_INGRESS], ret_ns);
	if (rc == 0)
		rc = pb_dp_retire(build, &b->err);
	pb_dp_build_free(build);
	return rc;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median_over(const struct bench *b, size_t variant, size_t base)
{
	double delta[ROUNDS_MAX];

	for (unsigned r = 0; r < b->rounds; r++)
		delta[r] = b->ns[variant][r] - (base < VARIANTS ? b->ns[base][r] : 0);
	qsort(delta, b->rounds, sizeof(delta[0]), compare);
	return b->rounds % 2 ? delta[b->rounds / 2]
			     : (delta[b->rounds / 2 - 1] + delta[b->rounds / 2]) / 2;
}

static void print_results(const struct bench *b)
{
	for (size_t v = 0; v < VARIANTS; v++) {
		printf("{\"bench\":\"ns_per_packet\",\"variant\":\"");
		if (v == 0)
			printf("empty program");
		else
			printf("chain of %zu", v - 1);
		printf("\",\"rounds\":%u,\"ns\":%.1f", b->rounds, median_over(b, v, VARIANTS));
		if (v >= 1)
			printf(",\"ns_over_empty\":%.1f", median_over(b, v, 0));
		if (v >= 2)
			printf(",\"ns_per_program\":%.1f", median_over(b, v, 1) / (double)(v - 1));
		printf("}\n");
	}
}

static void closed(void *arg)
{
	*(bool *)arg = true;
}

static void close_datapath(struct bench *b)
{
	bool done = false;

	pb_dp_object_free(b->object);
	if (!b->dp)
		return;
	pb_dp_close(b->dp, closed, &done);
	while (!done)
		uv_run(&b->loop, UV_RUN_ONCE);
	uv_loop_close(&b->loop);
}

int main(int argc, char **argv)
{
	static struct bench b;
	int rc;

	b.rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 10;
	if (b.rounds < 1 || b.rounds > ROUNDS_MAX) {
		fprintf(stderr, "usage: ns_per_packet [ROUNDS, 1 to %d]\n", ROUNDS_MAX);
		return 2;
	}
	b.empty_fd = -1;
	rc = enter_sandbox(&b);
	if (rc == 0)
		rc = open_datapath(&b);
	for (unsigned r = 0; rc == 0 && r < b.rounds; r++) {
		rc = run(&b, b.empty_fd, &b.ns[0][r]);
		for (size_t n = 0; rc == 0 && n <= PROGRAMS_MAX; n++)
			rc = run_chain(&b, n, &b.ns[n + 1][r]);
	}
	if (rc == 0)
		print_results(&b);
	else
		fprintf(stderr, "ns_per_packet: %s\n", b.err.text);
	if (b.empty_fd >= 0)
		close(b.empty_fd);
	close_datapath(&b);
	return rc < 0;
}
