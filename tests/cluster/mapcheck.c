/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The independent reader: compares kpr's maps with the journal at a steady pace until it is ended.
 *
 *   mapcheck --bpffs DIR show
 *   mapcheck --bpffs DIR spoil FRONTEND ENDPOINT     replaces a backend, prints the one before
 *   mapcheck --bpffs DIR drop FRONTEND               removes a frontend
 *   mapcheck --bpffs DIR --journal FILE --log FILE [--grace MS] [--every MS] [--others] watch
 *
 * `watch` ends on SIGTERM with one line of JSON: how often it read, how much was wrong. Must never
 * pass over a reading that it could not make: what it didn't see it doesn't call right.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mapcheck.h"

struct options {
	const char *bpffs;
	const char *journal;
	const char *log;
	uint64_t grace;
	uint64_t every;
	bool others;
};

struct tally {
	unsigned reads;
	unsigned failed; /* readings that could not be made */
	unsigned wrong;
	unsigned unsettled;
	uint32_t most_frontends;
	uint64_t most_backends;
	uint64_t slowest;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * MC_SECOND + (uint64_t)ts.tv_nsec;
}

static int by_text(const void *a, const void *b)
{
	char x[MC_ENDPOINT_TEXT], y[MC_ENDPOINT_TEXT];

	return strcmp(mc_endpoint_text(a, x), mc_endpoint_text(b, y));
}

static int show(const struct options *options)
{
	struct mc_maps *maps = mc_maps_open(options->bpffs);
	struct mc_picture picture;
	char text[MC_ENDPOINT_TEXT];
	int rc;

	if (!maps)
		return 1;
	rc = mc_maps_read(maps, &picture);
	mc_maps_close(maps);
	if (rc < 0) {
		fprintf(stderr, "mapcheck: %s\n", strerror(-rc));
		return 1;
	}
	for (uint32_t i = 0; i < picture.n_frontends; i++) {
		struct mc_frontend *frontend = &picture.frontends[i];

		qsort(frontend->backends, frontend->n_backends, sizeof(*frontend->backends),
		      by_text);
		printf("%s", mc_endpoint_text(&frontend->at, text));
		for (uint32_t j = 0; j < frontend->n_backends; j++)
			printf(" %s", mc_endpoint_text(&frontend->backends[j], text));
		printf("\n");
	}
	mc_picture_free(&picture);
	return 0;
}

/* What an agent must never do, so that the reader can be seen to notice. */
static int damage(const struct options *options, int argc, char **argv)
{
	struct mc_endpoint at, put = {0}, before;
	char text[MC_ENDPOINT_TEXT];
	struct mc_maps *maps;
	int rc;

	if (!mc_endpoint_parse(argv[1], &at) || (argc == 3 && !mc_endpoint_parse(argv[2], &put)))
		return 2;
	maps = mc_maps_open(options->bpffs);
	if (!maps)
		return 1;
	rc = argc == 3 ? mc_maps_spoil(maps, &at, &put, &before) : mc_maps_drop(maps, &at);
	mc_maps_close(maps);
	if (rc < 0)
		fprintf(stderr, "mapcheck: %s: %s\n", argv[1], strerror(-rc));
	else if (argc == 3)
		printf("%s\n", mc_endpoint_text(&before, text));
	return rc < 0;
}

static void count(const struct mc_picture *picture, struct tally *tally)
{
	uint64_t backends = 0;

	for (uint32_t i = 0; i < picture->n_frontends; i++) {
		backends += picture->frontends[i].n_backends;
		tally->unsettled += picture->frontends[i].unsettled;
	}
	if (picture->n_frontends > tally->most_frontends)
		tally->most_frontends = picture->n_frontends;
	if (backends > tally->most_backends)
		tally->most_backends = backends;
}

/* Opened anew each time: an agent may have replaced a map by a larger one. */
static bool look(const struct options *options, struct mc_truth *truth, struct tally *tally,
		 FILE *log)
{
	struct mc_maps *maps = mc_maps_open(options->bpffs);
	uint64_t began = now_ns(), ended;
	struct mc_picture picture;
	int rc = maps ? mc_maps_read(maps, &picture) : -ENOENT;
	unsigned wrong;

	mc_maps_close(maps);
	ended = now_ns();
	if (rc < 0) {
		tally->failed++;
		fprintf(log, "failed %llu %s\n", (unsigned long long)began, strerror(-rc));
		return mc_truth_follow(truth);
	}
	if (ended - began > tally->slowest)
		tally->slowest = ended - began;
	tally->reads++;
	count(&picture, tally);
	if (!mc_truth_follow(truth)) {
		mc_picture_free(&picture);
		return false;
	}
	wrong = mc_truth_judge(truth, &picture, began, options->grace, options->others, log);
	tally->wrong += wrong;
	fprintf(log, "read %llu frontends %u wrong %u\n", (unsigned long long)began,
		picture.n_frontends, wrong);
	fflush(log);
	mc_picture_free(&picture);
	return true;
}

static int watch(const struct options *options)
{
	struct mc_truth *truth = mc_truth_open(options->journal);
	FILE *log = fopen(options->log, "we");
	struct tally tally = {0};
	struct timespec pause;
	sigset_t ends;
	bool sane = true;
	int sig = -1;

	if (!truth || !log) {
		fprintf(stderr, "mapcheck: can't open %s or %s\n", options->journal, options->log);
		mc_truth_close(truth);
		return 1;
	}
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	while (sig < 0 && sane) {
		uint64_t next = now_ns() + options->every, now;

		sane = look(options, truth, &tally, log);
		now = now_ns();
		next = next > now ? next - now : 0;
		pause.tv_sec = (time_t)(next / MC_SECOND);
		pause.tv_nsec = (long)(next % MC_SECOND);
		sig = sigtimedwait(&ends, NULL, &pause);
	}
	printf("{\"reads\":%u,\"failed\":%u,\"wrong\":%u,\"unsettled\":%u,\"frontends\":%u,"
	       "\"backends\":%llu,\"slowest_ms\":%llu}\n",
	       tally.reads, tally.failed, tally.wrong, tally.unsettled, tally.most_frontends,
	       (unsigned long long)tally.most_backends,
	       (unsigned long long)(tally.slowest / 1000000));
	mc_truth_close(truth);
	fclose(log);
	return sane ? 0 : 1;
}

int main(int argc, char **argv)
{
	static const struct option names[] = {
		{"bpffs", required_argument, NULL, 'b'},
		{"journal", required_argument, NULL, 'j'},
		{"log", required_argument, NULL, 'l'},
		{"grace", required_argument, NULL, 'g'},
		{"every", required_argument, NULL, 'e'},
		{"others", no_argument, NULL, 'o'},
		{NULL, 0, NULL, 0},
	};
	struct options options = {.grace = 5 * MC_SECOND, .every = MC_SECOND};
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (c) {
		case 'b':
			options.bpffs = optarg;
			break;
		case 'j':
			options.journal = optarg;
			break;
		case 'l':
			options.log = optarg;
			break;
		case 'g':
			options.grace = strtoull(optarg, NULL, 10) * 1000000;
			break;
		case 'e':
			options.every = strtoull(optarg, NULL, 10) * 1000000;
			break;
		case 'o':
			options.others = true;
			break;
		default:
			return 2;
		}
	}
	argc -= optind;
	argv += optind;
	if (options.bpffs && argc == 1 && strcmp(argv[0], "show") == 0)
		return show(&options);
	if (options.bpffs && ((argc == 3 && strcmp(argv[0], "spoil") == 0) ||
			      (argc == 2 && strcmp(argv[0], "drop") == 0)))
		return damage(&options, argc, argv);
	if (options.bpffs && options.journal && options.log && argc == 1 &&
	    strcmp(argv[0], "watch") == 0)
		return watch(&options);
	fprintf(stderr, "usage: mapcheck --bpffs DIR show\n"
			"       mapcheck --bpffs DIR spoil FRONTEND ENDPOINT | drop FRONTEND\n"
			"       mapcheck --bpffs DIR --journal FILE --log FILE [--grace MS] "
			"[--every MS] [--others] watch\n");
	return 2;
}
