/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load: sends numbered requests and says as JSON what became of each.
 *
 * Owns options, workers and the sum. Always bounded, by a number of requests and by time; ends
 * earlier at SIGTERM, with the result so far.
 */
#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "load.h"

#define MAX_WORKERS 64
#define MAX_SECONDS 3600.0

static struct load the_load;

struct worker {
	pthread_t thread;
	struct load_stats stats;
};

static const char *const mode_names[] = {"http", "crr", "rr", "stream", "udp"};

uint64_t load_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

bool load_next(struct load *load, uint64_t *ret_seq)
{
	struct timespec pause = {.tv_nsec = load->rate ? 1000000000 / load->rate : 0};

	if (load->rate)
		nanosleep(&pause, NULL);
	if (atomic_load_explicit(&load->stop, memory_order_relaxed) ||
	    load_now_ns() >= load->deadline_ns)
		return false;
	*ret_seq = atomic_fetch_add(&load->next, 1);
	return load->count == 0 || *ret_seq < load->count;
}

void load_answered(struct load_stats *stats, uint64_t start_ns)
{
	uint64_t ns = load_now_ns() - start_ns;
	size_t cap = stats->cap_latencies ? stats->cap_latencies * 2 : 65536;
	uint32_t *more;

	stats->answered++;
	if (stats->n_latencies == stats->cap_latencies) {
		more = realloc(stats->latencies_ns, cap * sizeof(*more));
		if (!more)
			return;
		stats->latencies_ns = more;
		stats->cap_latencies = cap;
	}
	stats->latencies_ns[stats->n_latencies++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

void load_failed(struct load_stats *stats, int err)
{
	/* Our own end cut the request off: it is nobody's failure. */
	if (err == -EINTR && atomic_load(&the_load.stop)) {
		stats->sent--;
		return;
	}
	if (err == -ETIMEDOUT) {
		stats->lost++;
		return;
	}
	stats->failed++;
	if (-err < LOAD_ERRORS)
		stats->errors[-err]++;
}

void load_backend(struct load_stats *stats, const char *name, uint64_t n)
{
	for (size_t i = 0; i < LOAD_BACKENDS; i++) {
		if (stats->backends[i].name[0] == '\0')
			snprintf(stats->backends[i].name, LOAD_NAME, "%s", name);
		if (strcmp(stats->backends[i].name, name) == 0) {
			stats->backends[i].answers += n;
			return;
		}
	}
}

static void *worker_run(void *arg)
{
	struct load_stats *stats = &((struct worker *)arg)->stats;

	if (the_load.mode == LOAD_UDP)
		load_datagrams(&the_load, stats);
	else if (the_load.mode == LOAD_RR || the_load.mode == LOAD_STREAM)
		load_connection(&the_load, stats);
	else
		load_requests(&the_load, stats);
	return NULL;
}

static void stats_add(struct load_stats *sum, const struct load_stats *part)
{
	uint32_t *all = realloc(sum->latencies_ns,
				(sum->n_latencies + part->n_latencies + 1) * sizeof(*all));

	sum->sent += part->sent;
	sum->answered += part->answered;
	sum->failed += part->failed;
	sum->wrong += part->wrong;
	sum->lost += part->lost;
	sum->bytes += part->bytes;
	for (size_t i = 0; i < LOAD_ERRORS; i++)
		sum->errors[i] += part->errors[i];
	for (size_t i = 0; i < LOAD_BACKENDS && part->backends[i].name[0]; i++)
		load_backend(sum, part->backends[i].name, part->backends[i].answers);
	if (!all)
		return;
	if (part->n_latencies)
		memcpy(all + sum->n_latencies, part->latencies_ns,
		       part->n_latencies * sizeof(*all));
	sum->n_latencies += part->n_latencies;
	sum->latencies_ns = all;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static double percentile_us(const struct load_stats *sum, unsigned percent)
{
	if (sum->n_latencies == 0)
		return 0;
	return sum->latencies_ns[(sum->n_latencies - 1) * percent / 100] / 1000.0;
}

static void print_result(struct load_stats *sum, double seconds)
{
	cJSON *out = cJSON_CreateObject();
	cJSON *errors = cJSON_AddObjectToObject(out, "errors");
	cJSON *backends = cJSON_AddObjectToObject(out, "backends");
	char *text;

	qsort(sum->latencies_ns, sum->n_latencies, sizeof(*sum->latencies_ns), by_value);
	cJSON_AddStringToObject(out, "mode", mode_names[the_load.mode]);
	cJSON_AddNumberToObject(out, "sent", (double)sum->sent);
	cJSON_AddNumberToObject(out, "answered", (double)sum->answered);
	cJSON_AddNumberToObject(out, "failed", (double)sum->failed);
	cJSON_AddNumberToObject(out, "wrong", (double)sum->wrong);
	cJSON_AddNumberToObject(out, "lost", (double)sum->lost);
	cJSON_AddNumberToObject(out, "seconds", seconds);
	cJSON_AddNumberToObject(out, "rate", (double)sum->answered / seconds);
	cJSON_AddNumberToObject(out, "bytes_per_second", (double)sum->bytes / seconds);
	cJSON_AddNumberToObject(out, "p50_us", percentile_us(sum, 50));
	cJSON_AddNumberToObject(out, "p99_us", percentile_us(sum, 99));
	cJSON_AddNumberToObject(out, "max_us", percentile_us(sum, 100));
	for (int i = 1; i < LOAD_ERRORS; i++)
		if (sum->errors[i])
			cJSON_AddNumberToObject(errors, strerrorname_np(i), (double)sum->errors[i]);
	for (size_t i = 0; i < LOAD_BACKENDS && sum->backends[i].name[0]; i++)
		cJSON_AddNumberToObject(backends, sum->backends[i].name,
					(double)sum->backends[i].answers);
	text = cJSON_PrintUnformatted(out);
	puts(text ? text : "{}");
	free(text);
	cJSON_Delete(out);
}

static void on_signal(int sig)
{
	(void)sig;
	atomic_store(&the_load.stop, true);
}

static int usage(void)
{
	fputs("usage: load [OPTIONS] http|crr|rr|stream|udp ADDRESS PORT\n"
	      "  --workers N     parallel workers (1)\n"
	      "  --count N       requests in all (as many as the time allows)\n"
	      "  --seconds S     time, at most 3600 (10)\n"
	      "  --timeout-ms N  when an answer counts as lost (2000)\n"
	      "  --rate N        requests a second and worker (as fast as answers come)\n"
	      "  --connected     udp: connect the socket, so that only connect is translated\n",
	      stderr);
	return 2;
}

static bool address_parse(const char *address, const char *port_text)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&the_load.to;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&the_load.to;
	unsigned long port = strtoul(port_text, NULL, 10);

	if (port == 0 || port > 65535)
		return false;
	if (inet_pton(AF_INET, address, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		the_load.to_len = sizeof(*in);
		return true;
	}
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons((uint16_t)port);
	the_load.to_len = sizeof(*in6);
	return inet_pton(AF_INET6, address, &in6->sin6_addr) == 1;
}

static bool mode_parse(const char *word)
{
	for (size_t i = 0; i < sizeof(mode_names) / sizeof(mode_names[0]); i++)
		if (strcmp(mode_names[i], word) == 0) {
			the_load.mode = (enum load_mode)i;
			return true;
		}
	return false;
}

static bool options_parse(int argc, char **argv, unsigned *ret_workers, double *ret_seconds)
{
	static const struct option options[] = {
		{"workers", required_argument, NULL, 'w'},
		{"count", required_argument, NULL, 'c'},
		{"seconds", required_argument, NULL, 's'},
		{"rate", required_argument, NULL, 'r'},
		{"connected", no_argument, NULL, 'C'},
		{"timeout-ms", required_argument, NULL, 't'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'w')
			*ret_workers = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 'c')
			the_load.count = strtoull(optarg, NULL, 10);
		else if (c == 's')
			*ret_seconds = strtod(optarg, NULL);
		else if (c == 'r')
			the_load.rate = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 'C')
			the_load.connected = true;
		else if (c == 't')
			the_load.timeout_ms = (unsigned)strtoul(optarg, NULL, 10);
		else
			return false;
	}
	return optind + 3 == argc && *ret_workers >= 1 && *ret_workers <= MAX_WORKERS &&
	       *ret_seconds > 0 && *ret_seconds <= MAX_SECONDS && mode_parse(argv[optind]) &&
	       address_parse(argv[optind + 1], argv[optind + 2]);
}

static void workers_run(struct worker *workers, unsigned n, struct load_stats *sum)
{
	unsigned started = 0;

	/* A single worker runs here: pinned benchmarks want one thread. */
	if (n == 1) {
		worker_run(&workers[0]);
		stats_add(sum, &workers[0].stats);
		return;
	}
	while (started < n &&
	       pthread_create(&workers[started].thread, NULL, worker_run, &workers[started]) == 0)
		started++;
	for (unsigned i = 0; i < started; i++) {
		pthread_join(workers[i].thread, NULL);
		stats_add(sum, &workers[i].stats);
	}
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct load_stats sum = {0};
	struct worker *workers;
	unsigned n = 1;
	double seconds = 10;
	uint64_t start;

	the_load.timeout_ms = 2000;
	if (!options_parse(argc, argv, &n, &seconds))
		return usage();
	workers = calloc(n, sizeof(*workers));
	if (!workers)
		return 1;
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	start = load_now_ns();
	the_load.deadline_ns = start + (uint64_t)(seconds * 1e9);
	workers_run(workers, n, &sum);
	print_result(&sum, (double)(load_now_ns() - start) / 1e9);
	for (unsigned i = 0; i < n; i++)
		free(workers[i].stats.latencies_ns);
	free(workers);
	free(sum.latencies_ns);
	return sum.failed + sum.wrong + sum.lost > 0 ? 1 : 0;
}
