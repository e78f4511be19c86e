/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes many changes at an API server, at a steady pace, over several connections.
 *
 *   kubeload OPTIONS services COUNT ENDPOINTS     Services with a slice each, as fast as it goes
 *   kubeload OPTIONS churn SERVICE CHANGES        one change after the other to one Service
 *
 * Every connection is a worker with objects of its own, so that the order of the changes to one
 * object is known. Each change is in the journal (mapcheck.h) before it is sent and after it was
 * acknowledged, and is sent again until it is. Prints one line of JSON: the rate really reached.
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ULL
#define WORKERS_MAX 64
#define BODY_MAX 65536
#define ANSWER_MAX 8192
#define CHURN_ENDPOINTS 10

struct load {
	const char *server;
	const char *ca;
	const char *token_file;
	const char *namespace;
	const char *discovery; /* v1 or v1beta1 */
	const char *vips;      /* first two numbers of the cluster addresses; NULL: as it gives */
	const char *service;
	int journal;
	unsigned workers;
	double rate; /* 0: as fast as it goes */
	uint64_t total;
	unsigned endpoints;
	uint64_t begun; /* changes handed out */
	uint64_t done;
	uint64_t repeated;
	uint64_t deadline;
	struct curl_slist *headers;
};

struct worker {
	struct load *load;
	CURL *curl;
	unsigned number;
	uint64_t step; /* of this worker's object */
	bool busy;
	bool on_service; /* the Service of a pair; its slice comes next */
	uint64_t item;
	uint64_t not_before;
	char name[128]; /* as the journal calls it */
	char *set;	/* the endpoints, as the journal writes them */
	char *body;
	char url[512];
	bool put;
	bool look_up; /* ask what an attempt has made whose answer was lost */
	char answer[ANSWER_MAX];
	size_t n_answer;
	char error[CURL_ERROR_SIZE];
};

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

static void __attribute__((noreturn)) die(const char *what, const char *why)
{
	fprintf(stderr, "kubeload: %s: %s\n", what, why);
	exit(1);
}

/* One write: lines of several writers must not mix. */
static void journal(struct worker *w, const char *kind, const char *phase, const char *set)
{
	static char line[BODY_MAX];
	int n = snprintf(line, sizeof(line), "%llu %s %s %s %s\n",
			 (unsigned long long)clock_ns(CLOCK_REALTIME), kind, w->name, phase, set);

	if (n >= (int)sizeof(line) || write(w->load->journal, line, (size_t)n) != n)
		die("journal", strerror(errno));
}

/* ---- what is sent ---- */

/* Addresses below 10.128/9: each worker and step has its own, and never two steps the same. */
static uint32_t address_of(const struct worker *w, uint64_t step)
{
	return 0x0a800000U + ((uint32_t)(w->number << 17 | (step & 0x1ffff)) & 0x7fffff);
}

static int put_address(char *out, size_t size, const char *format, uint32_t address)
{
	char text[32];

	snprintf(text, sizeof(text), "%u.%u.%u.%u", address >> 24, address >> 16 & 255,
		 address >> 8 & 255, address & 255);
	return snprintf(out, size, format, text);
}

/* The body and the journal's text of a slice with `n` endpoints. */
static void slice_body(struct worker *w, const char *slice, const char *service,
		       const uint32_t *addresses, unsigned n)
{
	size_t body = 0, set = 0;

	body += (size_t)snprintf(
		w->body, BODY_MAX,
		"{\"apiVersion\":\"discovery.k8s.io/%s\",\"kind\":\"EndpointSlice\",\"metadata\":"
		"{\"name\":\"%s\",\"labels\":{\"kubernetes.io/service-name\":\"%s\"}},"
		"\"addressType\":\"IPv4\",\"ports\":[{\"name\":\"http\",\"port\":8080,"
		"\"protocol\":\"TCP\"}],\"endpoints\":[",
		w->load->discovery, slice, service);
	w->set[0] = 0;
	for (unsigned i = 0; i < n; i++) {
		body += (size_t)
			put_address(w->body + body, BODY_MAX - body,
				    i ? ",{\"addresses\":[\"%s\"],\"conditions\":{\"ready\":true}}"
				      : "{\"addresses\":[\"%s\"],\"conditions\":{\"ready\":true}}",
				    addresses[i]);
		set += (size_t)put_address(w->set + set, BODY_MAX - set, i ? " %s:8080" : "%s:8080",
					   addresses[i]);
	}
	if (body + 3 > BODY_MAX)
		die("slice", "too many endpoints");
	memcpy(w->body + body, "]}", 3);
	snprintf(w->name, sizeof(w->name), "%s/%s", service, slice);
	snprintf(w->url, sizeof(w->url),
		 "%s/apis/discovery.k8s.io/%s/namespaces/%s/endpointslices%s%s", w->load->server,
		 w->load->discovery, w->load->namespace, w->put ? "/" : "", w->put ? slice : "");
}

static void service_vip(const struct worker *w, char *out, size_t size)
{
	uint64_t n = w->item + 1024;

	snprintf(out, size, "%s.%u.%u", w->load->vips, (unsigned)(n >> 8 & 255),
		 (unsigned)(n & 255));
}

static void service_body(struct worker *w)
{
	char vip[64] = "", fixed[96] = "";

	if (w->load->vips) {
		service_vip(w, vip, sizeof(vip));
		snprintf(fixed, sizeof(fixed), ",\"clusterIP\":\"%s\"", vip);
	}
	snprintf(w->name, sizeof(w->name), "svc-%05llu", (unsigned long long)w->item);
	snprintf(w->body, BODY_MAX,
		 "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"%s\"},"
		 "\"spec\":{\"ports\":[{\"name\":\"http\",\"port\":80,\"targetPort\":8080}]%s}}",
		 w->name, fixed);
	snprintf(w->url, sizeof(w->url), "%s/api/v1/namespaces/%s/services", w->load->server,
		 w->load->namespace);
}

/* The slice of a Service that was just made. */
static void pair_slice(struct worker *w)
{
	uint32_t addresses[256];
	char service[64], slice[80];

	for (unsigned i = 0; i < w->load->endpoints; i++)
		addresses[i] = 0x0a800000U + (uint32_t)(w->item * w->load->endpoints + i);
	snprintf(service, sizeof(service), "svc-%05llu", (unsigned long long)w->item);
	snprintf(slice, sizeof(slice), "%s-a", service);
	slice_body(w, slice, service, addresses, w->load->endpoints);
}

/* A window that moves on by one address with each step, and one that never changes. */
static void churn_slice(struct worker *w)
{
	uint32_t addresses[CHURN_ENDPOINTS];
	char slice[96];

	addresses[0] = address_of(w, 0);
	for (unsigned i = 1; i < CHURN_ENDPOINTS; i++)
		addresses[i] = address_of(w, w->step + i);
	w->put = w->step > 0;
	snprintf(slice, sizeof(slice), "%s-%02u", w->load->service, w->number);
	slice_body(w, slice, w->load->service, addresses, CHURN_ENDPOINTS);
}

/* ---- sending ---- */

static size_t on_answer(char *data, size_t size, size_t n, void *arg)
{
	struct worker *w = arg;
	size_t room = ANSWER_MAX - 1 - w->n_answer, take = n < room ? n : room;

	(void)size;
	memcpy(w->answer + w->n_answer, data, take);
	w->n_answer += take;
	w->answer[w->n_answer] = 0;
	return n;
}

static void send_request(struct worker *w, CURLM *multi)
{
	w->n_answer = 0;
	w->answer[0] = 0;
	w->busy = true;
	curl_easy_setopt(w->curl, CURLOPT_URL, w->url);
	if (w->look_up) {
		curl_easy_setopt(w->curl, CURLOPT_HTTPGET, 1L);
		curl_easy_setopt(w->curl, CURLOPT_CUSTOMREQUEST, NULL);
	} else {
		curl_easy_setopt(w->curl, CURLOPT_POSTFIELDS, w->body);
		curl_easy_setopt(w->curl, CURLOPT_CUSTOMREQUEST, w->put ? "PUT" : "POST");
	}
	curl_multi_add_handle(multi, w->curl);
}

static void begin_change(struct worker *w, CURLM *multi)
{
	struct load *load = w->load;

	w->item = load->begun++;
	w->on_service = !load->service;
	if (load->service) {
		churn_slice(w);
		journal(w, "slice", "sent", w->set);
	} else {
		w->put = false;
		service_body(w);
	}
	send_request(w, multi);
}

/* The address that the server chose. */
static void service_answered(struct worker *w)
{
	char frontend[96], *from = strstr(w->answer, "\"clusterIP\":\""), *to;

	if (!from || !(to = strchr(from + 13, '"')))
		die("answer without clusterIP", w->answer);
	*to = 0;
	snprintf(frontend, sizeof(frontend), strchr(from + 13, ':') ? "tcp/[%s]:80" : "tcp/%s:80",
		 from + 13);
	journal(w, "service", "done", frontend);
}

/* The change is complete, or its next request is on the way. */
static void request_done(struct worker *w, CURLM *multi)
{
	if (w->on_service) {
		service_answered(w);
		w->on_service = false;
		w->look_up = false;
		pair_slice(w);
		journal(w, "slice", "sent", w->set);
		send_request(w, multi);
		return;
	}
	journal(w, "slice", "done", w->set);
	w->step++;
	w->load->done++;
}

static void on_result(struct worker *w, CURLcode rc, CURLM *multi)
{
	long code = 0;

	curl_easy_getinfo(w->curl, CURLINFO_RESPONSE_CODE, &code);
	curl_multi_remove_handle(multi, w->curl);
	w->busy = false;
	/* 409 to a POST: an earlier attempt was carried out, its answer was lost. */
	if (rc == CURLE_OK && (code / 100 == 2 || (code == 409 && !w->put && !w->on_service))) {
		request_done(w, multi);
		return;
	}
	if (rc == CURLE_OK && code == 409 && w->on_service) {
		size_t len = strlen(w->url);

		snprintf(w->url + len, sizeof(w->url) - len, "/%s", w->name);
		w->look_up = true;
		send_request(w, multi);
		return;
	}
	if (rc == CURLE_OK && code != 429 && code < 500)
		die(w->url, w->answer);
	w->load->repeated++;
	w->not_before = clock_ns(CLOCK_MONOTONIC) + SECOND / 10;
}

static void take_results(CURLM *multi)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(multi, &left))) {
		struct worker *w;

		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &w);
		on_result(w, message->data.result, multi);
	}
}

/* Hands out what is due at `now`; how many milliseconds until there is more. */
static int hand_out(struct load *load, struct worker *workers, CURLM *multi, uint64_t start)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), due = load->total;

	if (load->rate > 0)
		due = (uint64_t)((double)(now - start) / (double)SECOND * load->rate) + 1;
	for (unsigned i = 0; i < load->workers; i++) {
		struct worker *w = &workers[i];

		if (w->busy)
			continue;
		if (w->not_before) {
			if (w->not_before > now)
				continue;
			w->not_before = 0;
			send_request(w, multi);
		} else if (load->begun < load->total && load->begun < due && now < load->deadline) {
			begin_change(w, multi);
		}
	}
	return load->rate > 0 ? 1 : 20;
}

static bool all_idle(const struct load *load, const struct worker *workers)
{
	for (unsigned i = 0; i < load->workers; i++)
		if (workers[i].busy || workers[i].not_before)
			return false;
	return true;
}

static void worker_init(struct worker *w, struct load *load, unsigned number)
{
	w->load = load;
	w->number = number;
	w->curl = curl_easy_init();
	w->body = malloc(BODY_MAX);
	w->set = malloc(BODY_MAX);
	if (!w->curl || !w->body || !w->set)
		die("start", "out of memory");
	curl_easy_setopt(w->curl, CURLOPT_PRIVATE, w);
	curl_easy_setopt(w->curl, CURLOPT_WRITEFUNCTION, on_answer);
	curl_easy_setopt(w->curl, CURLOPT_WRITEDATA, w);
	curl_easy_setopt(w->curl, CURLOPT_HTTPHEADER, load->headers);
	curl_easy_setopt(w->curl, CURLOPT_CAINFO, load->ca);
	/* One connection a worker: HTTP/2 would put all of them on one. */
	curl_easy_setopt(w->curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(w->curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(w->curl, CURLOPT_TIMEOUT_MS, 10000L);
}

static void run(struct load *load)
{
	struct worker *workers = calloc(load->workers, sizeof(*workers));
	CURLM *multi = curl_multi_init();
	uint64_t start = clock_ns(CLOCK_MONOTONIC);
	double seconds;
	int running;

	if (!workers || !multi)
		die("start", "out of memory");
	for (unsigned i = 0; i < load->workers; i++)
		worker_init(&workers[i], load, i);
	load->deadline += start;
	do {
		int wait = hand_out(load, workers, multi, start);

		curl_multi_perform(multi, &running);
		take_results(multi);
		curl_multi_poll(multi, NULL, 0, wait, NULL);
	} while (!all_idle(load, workers) ||
		 (load->begun < load->total && clock_ns(CLOCK_MONOTONIC) < load->deadline));
	seconds = (double)(clock_ns(CLOCK_MONOTONIC) - start) / (double)SECOND;
	printf("{\"changes\":%llu,\"repeated\":%llu,\"seconds\":%.1f,\"rate\":%.0f}\n",
	       (unsigned long long)load->done, (unsigned long long)load->repeated, seconds,
	       (double)load->done / seconds);
	for (unsigned i = 0; i < load->workers; i++) {
		curl_easy_cleanup(workers[i].curl);
		free(workers[i].body);
		free(workers[i].set);
	}
	curl_multi_cleanup(multi);
	free(workers);
}

/* ---- command line ---- */

static void read_token(struct load *load)
{
	char token[8192] = "", header[8300];
	FILE *f = fopen(load->token_file, "re");

	if (!f || !fgets(token, sizeof(token), f))
		die(load->token_file, "no token in it");
	fclose(f);
	token[strcspn(token, "\r\n")] = 0;
	snprintf(header, sizeof(header), "Authorization: Bearer %s", token);
	load->headers = curl_slist_append(NULL, "Content-Type: application/json");
	load->headers = curl_slist_append(load->headers, header);
}

static void set_option(struct load *load, int c, char *value)
{
	switch (c) {
	case 's':
		load->server = value;
		return;
	case 'c':
		load->ca = value;
		return;
	case 't':
		load->token_file = value;
		return;
	case 'n':
		load->namespace = value;
		return;
	case 'd':
		load->discovery = value;
		return;
	case 'v':
		load->vips = value;
		return;
	case 'w':
		load->workers = (unsigned)strtoul(value, NULL, 10);
		return;
	case 'r':
		load->rate = strtod(value, NULL);
		return;
	case 'm':
		load->deadline = strtoull(value, NULL, 10) * SECOND;
		return;
	case 'j':
		load->journal = open(value, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
		if (load->journal < 0)
			die(value, strerror(errno));
		return;
	}
	exit(2);
}

static bool set_command(struct load *load, int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[0], "services") == 0) {
		load->total = strtoull(argv[1], NULL, 10);
		load->endpoints = (unsigned)strtoul(argv[2], NULL, 10);
		return load->endpoints <= 256;
	}
	if (argc == 3 && strcmp(argv[0], "churn") == 0) {
		load->service = argv[1];
		load->total = strtoull(argv[2], NULL, 10);
		return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	static const struct option names[] = {
		{"server", required_argument, NULL, 's'},
		{"ca", required_argument, NULL, 'c'},
		{"token-file", required_argument, NULL, 't'},
		{"namespace", required_argument, NULL, 'n'},
		{"discovery", required_argument, NULL, 'd'},
		{"vips", required_argument, NULL, 'v'},
		{"connections", required_argument, NULL, 'w'},
		{"rate", required_argument, NULL, 'r'},
		{"max-seconds", required_argument, NULL, 'm'},
		{"journal", required_argument, NULL, 'j'},
		{NULL, 0, NULL, 0},
	};
	struct load load = {.workers = 8, .journal = -1, .deadline = 600 * SECOND};
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1)
		set_option(&load, c, optarg);
	if (!set_command(&load, argc - optind, argv + optind) || !load.server || !load.ca ||
	    !load.token_file || !load.namespace || !load.discovery || load.journal < 0 ||
	    load.workers < 1 || load.workers > WORKERS_MAX) {
		fprintf(stderr, "usage: kubeload --server URL --ca FILE --token-file FILE "
				"--namespace NAME\n"
				"       --discovery v1|v1beta1 --journal FILE [--connections N] "
				"[--rate N]\n"
				"       [--max-seconds N] [--vips A.B] services COUNT ENDPOINTS\n"
				"       or ... churn SERVICE CHANGES\n");
		return 2;
	}
	curl_global_init(CURL_GLOBAL_DEFAULT);
	read_token(&load);
	run(&load);
	curl_slist_free_all(load.headers);
	curl_global_cleanup();
	return load.done == load.total ? 0 : 1;
}
