/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ask [OPTIONS] PROTO ADDRESS PORT: asks a whoami server once and prints what became of it.
 * ask [OPTIONS] -             : the same for many at once, lines "ID PROTO ADDRESS PORT" of stdin.
 *
 * PROTO is tcp, udp (sendto) or udpc (a connected socket). Prints one word, with -v all of the
 * answer's line:
 *   NAME        the server that answered
 *   refused     ECONNREFUSED, by RST or ICMP
 *   timeout     nothing came
 *   no-route    the network or host can't be reached
 *   denied      EPERM
 *   other-source ADDRESS, wrong, or the number of another error
 * With `-` each line begins with its ID. All are asked in parallel and share one time limit, so a
 * thousand questions without an answer take as long as one.
 *
 * --timeout-ms N   1000 by default    --source-port N   bind to it     --from ADDRESS
 * --size N         bytes of the question; the answer has to be as long (udp)
 * --times N        asks N times, one after the other, one line each
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define QUESTIONS_MAX 1024
#define ANSWER_MAX 65536

enum proto { PROTO_TCP, PROTO_UDP, PROTO_UDPC };

struct question {
	char id[64];
	char line[192]; /* of the answer */
	struct sockaddr_storage to;
	socklen_t to_len;
	enum proto proto;
	int fd; /* -1: over */
	bool asked;
};

static struct {
	unsigned long timeout_ms, source_port, size, times;
	const char *from;
	bool verbose;
} opts = {.timeout_ms = 1000, .size = 2, .times = 1};

static char payload[ANSWER_MAX];

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void end(struct question *q, const char *what)
{
	if (what)
		snprintf(q->line, sizeof(q->line), "%.191s", what);
	if (q->fd >= 0)
		close(q->fd);
	q->fd = -1;
}

static void end_error(struct question *q, int err)
{
	char text[32];

	switch (err) {
	case ECONNREFUSED:
		end(q, "refused");
		break;
	case ENETUNREACH:
	case EHOSTUNREACH:
		end(q, "no-route");
		break;
	case ETIMEDOUT:
		end(q, "timeout");
		break;
	case EPERM:
		end(q, "denied");
		break;
	default:
		snprintf(text, sizeof(text), "errno-%d", err);
		end(q, text);
	}
}

static socklen_t address(const char *text, unsigned long port, struct sockaddr_storage *ret)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
	struct sockaddr_in *in4 = (struct sockaddr_in *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, text, &in4->sin_addr) == 1) {
		in4->sin_family = AF_INET;
		in4->sin_port = htons((uint16_t)port);
		return sizeof(*in4);
	}
	if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		return sizeof(*in6);
	}
	fprintf(stderr, "ask: %s is not an address\n", text);
	exit(2);
}

static int bind_source(const struct question *q)
{
	struct sockaddr_storage me = {0};
	socklen_t len;
	int on = 1;

	if (!opts.from && !opts.source_port)
		return 0;
	len = address(opts.from			    ? opts.from
		      : q->to.ss_family == AF_INET6 ? "::"
						    : "0.0.0.0",
		      opts.source_port, &me);
	/* One source port for many questions, and again right after the last. */
	if (setsockopt(q->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -1;
	return bind(q->fd, (struct sockaddr *)&me, len);
}

static void ask_datagram(struct question *q)
{
	int on = 1, rc;

	/* ICMP errors are told without being connected, too. */
	if (setsockopt(q->fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on)) < 0 &&
	    q->to.ss_family == AF_INET) {
		end_error(q, errno);
		return;
	}
	if (q->to.ss_family == AF_INET6)
		setsockopt(q->fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof(on));
	rc = q->proto == PROTO_UDPC ? connect(q->fd, (struct sockaddr *)&q->to, q->to_len) : 0;
	if (rc == 0)
		rc = q->proto == PROTO_UDPC ? (int)send(q->fd, payload, opts.size, 0)
					    : (int)sendto(q->fd, payload, opts.size, 0,
							  (struct sockaddr *)&q->to, q->to_len);
	if (rc < 0)
		end_error(q, errno);
	q->asked = true;
}

static void ask(struct question *q)
{
	struct linger reset = {.l_onoff = 1};
	int type = q->proto == PROTO_TCP ? SOCK_STREAM : SOCK_DGRAM;

	q->asked = false;
	q->fd = socket(q->to.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (q->fd < 0 || bind_source(q) < 0) {
		end_error(q, errno);
		return;
	}
	if (type == SOCK_DGRAM) {
		ask_datagram(q);
		return;
	}
	/* Leaves no TIME_WAIT, so that a source port can be used again at once. */
	setsockopt(q->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (connect(q->fd, (struct sockaddr *)&q->to, q->to_len) < 0 && errno != EINPROGRESS)
		end_error(q, errno);
}

/* Whether a datagram came from where the question went. */
static bool same_source(const struct question *q, const struct sockaddr_storage *from)
{
	const struct sockaddr_in6 *a6 = (const void *)&q->to, *b6 = (const void *)from;
	const struct sockaddr_in *a4 = (const void *)&q->to, *b4 = (const void *)from;

	if (q->to.ss_family == AF_INET6)
		return a6->sin6_port == b6->sin6_port &&
		       memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0;
	return a4->sin_port == b4->sin_port && a4->sin_addr.s_addr == b4->sin_addr.s_addr;
}

static void other_source(struct question *q, const struct sockaddr_storage *from)
{
	char host[INET6_ADDRSTRLEN] = "?", text[96];

	if (from->ss_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)from)->sin_addr, host,
			  sizeof(host));
	else
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)from)->sin6_addr, host,
			  sizeof(host));
	snprintf(text, sizeof(text), "other-source %s", host);
	end(q, text);
}

static void hear(struct question *q)
{
	static char answer[ANSWER_MAX + 1];
	struct sockaddr_storage from = {0};
	socklen_t from_len = sizeof(from);
	ssize_t n = recvfrom(q->fd, answer, ANSWER_MAX, 0, (struct sockaddr *)&from, &from_len);
	char *newline;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end_error(q, n < 0 ? errno : ECONNRESET);
		return;
	}
	if (q->proto == PROTO_UDP && !same_source(q, &from)) {
		other_source(q, &from);
		return;
	}
	answer[n] = 0;
	newline = strchr(answer, '\n');
	if (!newline || (q->proto != PROTO_TCP && (size_t)n < opts.size)) {
		end(q, "wrong");
		return;
	}
	*newline = 0;
	end(q, answer);
	if (!opts.verbose && strchr(q->line, ' '))
		*strchr(q->line, ' ') = 0;
}

static void ready(struct question *q, short events)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (q->proto == PROTO_TCP && !q->asked) {
		if (getsockopt(q->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 || err) {
			end_error(q, err ? err : errno);
			return;
		}
		if (!(events & POLLOUT))
			return;
		if (send(q->fd, payload, opts.size, MSG_NOSIGNAL) < 0)
			end_error(q, errno);
		q->asked = true;
		return;
	}
	hear(q);
}

/* One round: all at once. */
static void run(struct question *all, size_t n)
{
	static struct pollfd fds[QUESTIONS_MAX];
	uint64_t deadline = now_ms() + opts.timeout_ms, now;
	size_t open;

	for (size_t i = 0; i < n; i++)
		ask(&all[i]);
	for (;;) {
		open = 0;
		for (size_t i = 0; i < n; i++) {
			bool wants_out = all[i].proto == PROTO_TCP && !all[i].asked;

			fds[i] = (struct pollfd){.fd = all[i].fd,
						 .events = wants_out ? POLLOUT : POLLIN};
			open += all[i].fd >= 0;
		}
		now = now_ms();
		if (!open || now >= deadline || poll(fds, n, (int)(deadline - now)) <= 0)
			break;
		for (size_t i = 0; i < n; i++)
			if (all[i].fd >= 0 && fds[i].revents)
				ready(&all[i], fds[i].revents);
	}
	for (size_t i = 0; i < n; i++)
		if (all[i].fd >= 0)
			end(&all[i], "timeout");
}

static void question_set(struct question *q, const char *id, const char *proto, const char *to,
			 const char *port)
{
	unsigned long number = strtoul(port, NULL, 10);

	if (strcmp(proto, "tcp") == 0)
		q->proto = PROTO_TCP;
	else if (strcmp(proto, "udp") == 0)
		q->proto = PROTO_UDP;
	else if (strcmp(proto, "udpc") == 0)
		q->proto = PROTO_UDPC;
	else
		number = 0;
	if (number == 0 || number > 65535) {
		fprintf(stderr, "ask: %s %s: not tcp, udp or udpc, or not a port\n", proto, port);
		exit(2);
	}
	snprintf(q->id, sizeof(q->id), "%s", id);
	q->to_len = address(to, number, &q->to);
}

static size_t read_questions(struct question *all)
{
	char id[64], proto[8], to[64], port[8];
	size_t n = 0;

	while (n < QUESTIONS_MAX && scanf("%63s %7s %63s %7s", id, proto, to, port) == 4)
		question_set(&all[n++], id, proto, to, port);
	return n;
}

static unsigned long number_of(const char *option, const char *text)
{
	char *rest = NULL;
	unsigned long value = text ? strtoul(text, &rest, 10) : 0;

	if (!text || *rest || value == 0 || value >= ANSWER_MAX) {
		fprintf(stderr, "ask: %s: wants a number from 1 to %d\n", option, ANSWER_MAX - 1);
		exit(2);
	}
	return value;
}

static int parse_options(int argc, char **argv)
{
	int i = 1;

	for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
		if (strcmp(argv[i], "-v") == 0) {
			opts.verbose = true;
			continue;
		}
		if (strcmp(argv[i], "--timeout-ms") == 0)
			opts.timeout_ms = number_of(argv[i], argv[i + 1]);
		else if (strcmp(argv[i], "--source-port") == 0)
			opts.source_port = number_of(argv[i], argv[i + 1]);
		else if (strcmp(argv[i], "--size") == 0)
			opts.size = number_of(argv[i], argv[i + 1]);
		else if (strcmp(argv[i], "--times") == 0)
			opts.times = number_of(argv[i], argv[i + 1]);
		else if (strcmp(argv[i], "--from") == 0)
			opts.from = argv[i + 1];
		else
			return argc;
		i++;
	}
	return i;
}

int main(int argc, char **argv)
{
	static struct question all[QUESTIONS_MAX];
	int i = parse_options(argc, argv);
	bool many = argc - i == 1 && strcmp(argv[i], "-") == 0;
	size_t n = 1;

	if (!many && argc - i != 3) {
		fprintf(stderr,
			"usage: ask [-v] [--timeout-ms N] [--source-port N] [--from ADDRESS] "
			"[--size N] [--times N] PROTO ADDRESS PORT | -\n");
		return 2;
	}
	memset(payload, '?', sizeof(payload));
	payload[opts.size - 1] = '\n';
	if (many)
		n = read_questions(all);
	else
		question_set(&all[0], "", argv[i], argv[i + 1], argv[i + 2]);
	for (unsigned long time = 0; time < opts.times; time++) {
		run(all, n);
		for (size_t k = 0; k < n; k++)
			printf("%s%s%s\n", all[k].id, many ? " " : "", all[k].line);
		fflush(stdout);
	}
	return 0;
}
