/* SPDX-License-Identifier: Apache-2.0 */
/*
 * httpd NAME PORT...: an HTTP server that says who answered.
 *
 * Answers every GET with "NAME PATH\n" on IPv4 and IPv6, so that a client sees which backend a
 * service chose and that the answer belongs to its request. Ends at SIGTERM.
 */
#include <errno.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PORTS 8

static enum MHD_Result answer(void *arg, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *upload,
			      size_t *upload_len, void **state)
{
	struct MHD_Response *response;
	enum MHD_Result result;
	char body[512];
	int n;

	(void)version;
	(void)upload;
	(void)upload_len;
	(void)state;
	if (strcmp(method, "GET") != 0)
		return MHD_NO;
	n = snprintf(body, sizeof(body), "%s %s\n", (const char *)arg, url);
	if (n >= (int)sizeof(body))
		return MHD_NO;
	response = MHD_create_response_from_buffer((size_t)n, body, MHD_RESPMEM_MUST_COPY);
	if (!response)
		return MHD_NO;
	result = MHD_queue_response(connection, MHD_HTTP_OK, response);
	MHD_destroy_response(response);
	return result;
}

static struct MHD_Daemon *serve(char *name, const char *text)
{
	char *end = NULL;
	unsigned long port = strtoul(text, &end, 10);

	if (*end || port == 0 || port > 65535) {
		fprintf(stderr, "httpd: %s is not a port\n", text);
		return NULL;
	}
	return MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_DUAL_STACK, (uint16_t)port,
				NULL, NULL, answer, name, MHD_OPTION_CONNECTION_TIMEOUT, 30u,
				MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
}

int main(int argc, char **argv)
{
	struct MHD_Daemon *daemons[MAX_PORTS] = {NULL};
	int n = argc - 2, sig, rc = 1;
	sigset_t set;

	if (n < 1 || n > MAX_PORTS) {
		fprintf(stderr, "usage: httpd NAME PORT...\n");
		return 2;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < n; i++) {
		daemons[i] = serve(argv[1], argv[i + 2]);
		if (!daemons[i]) {
			fprintf(stderr, "httpd: can't listen on port %s: %s\n", argv[i + 2],
				strerror(errno));
			goto out;
		}
	}
	sigwait(&set, &sig);
	rc = 0;
out:
	for (int i = 0; i < n; i++)
		if (daemons[i])
			MHD_stop_daemon(daemons[i]);
	return rc;
}
