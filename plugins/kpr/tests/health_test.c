/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health check ports: real sockets and real HTTP in a network of the test's own, the fake host's
 * loop and clock. The plugin here is nothing but a kpr_health that watches Services.
 */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <patchbay/testing.h>

#include "../kpr_health.h"

#define PORT 30100

/* ---- the plugin ---- */

static void on_service(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event)
{
	(void)arg;
	if (event->kind == PB_KUBE_PUT)
		cr_assert_eq(kpr_health_put(ctx->self, event->object), 0);
	else if (event->kind == PB_KUBE_DELETE)
		kpr_health_remove(ctx->self, event->object);
}

static struct kpr_health *health;

static int test_prepare(struct pb_ctx *ctx)
{
	struct kpr_health_config config = {.enabled = true};
	cJSON *json = cJSON_Parse(ctx->host->config(ctx));
	const cJSON *item;
	int rc = 0;

	cJSON_ArrayForEach (item, json)
		if (rc == 0)
			rc = strcmp(item->string, "healthz_bind") == 0
				     ? kpr_health_config_healthz(ctx, item, &config)
				     : kpr_health_config_ports(ctx, item, &config);
	cJSON_Delete(json);
	if (rc < 0)
		return rc;
	ctx->self = calloc(1, sizeof(struct kpr_health));
	kpr_health_init(ctx->self, ctx, &config);
	return ctx->host->kube_watch(ctx, PB_KUBE_SERVICE, on_service, NULL);
}

static int test_start(struct pb_ctx *ctx)
{
	health = ctx->self;
	kpr_health_start(ctx->self);
	return 0;
}

static int test_quiesce(struct pb_ctx *ctx)
{
	kpr_health_quiesce(ctx->self);
	return 0;
}

static void test_stop(struct pb_ctx *ctx)
{
	kpr_health_free(ctx->self);
	free(ctx->self);
	ctx->self = NULL;
}

PB_PLUGIN("health-test", "1", .prepare = test_prepare, .start = test_start, .quiesce = test_quiesce,
	  .stop = test_stop);

static struct pb_fake *fake;

static void load(const char *config)
{
	fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, config, "node-a");
	cr_assert_not_null(fake);
	cr_assert_eq(pb_fake_load(fake), 0, "%s", pb_fake_failure(fake));
}

static void set_up(void)
{
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd;

	if (unshare(CLONE_NEWNET) < 0)
		cr_skip_test("needs root for a network of its own");
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	cr_assert_eq(ioctl(fd, SIOCSIFFLAGS, &lo), 0);
	close(fd);
}

static void tear_down(void)
{
	pb_fake_free(fake);
}

TestSuite(health, .init = set_up, .fini = tear_down);

static struct pb_kube_service web = {
	.meta = {.size = sizeof(web),
		 .kind = PB_KUBE_SERVICE,
		 .ns = "shop",
		 .name = "web",
		 .uid = "1",
		 .version = "1"},
	.type = PB_SERVICE_LOAD_BALANCER,
	.flags = PB_SERVICE_EXTERNAL_LOCAL,
	.health_check_node_port = PORT,
};

static const struct pb_kube_service *put(const char *name, uint32_t type, uint32_t flags,
					 uint16_t port)
{
	static struct pb_kube_service objects[64];
	static uint32_t n;
	struct pb_kube_service *svc = &objects[n++ % 64];

	*svc = web;
	svc->meta.name = name;
	svc->type = type;
	svc->flags = flags;
	svc->health_check_node_port = port;
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &svc->meta), 0);
	return svc;
}

/* ---- a client ---- */

static int dial_from(const char *from, const char *to, uint16_t port)
{
	struct sockaddr_in me = {.sin_family = AF_INET}, it = me;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

	cr_assert_eq(inet_pton(AF_INET, from, &me.sin_addr), 1);
	cr_assert_eq(inet_pton(AF_INET, to, &it.sin_addr), 1);
	cr_assert_eq(bind(fd, (struct sockaddr *)&me, sizeof(me)), 0);
	it.sin_port = htons(port);
	rc = connect(fd, (struct sockaddr *)&it, sizeof(it)) < 0 ? -errno : 0;
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

static int dial(uint16_t port)
{
	return dial_from("127.0.0.1", "127.0.0.1", port);
}

static void say(int fd, const char *text)
{
	cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* What comes until the other side closes. */
static const char *hear(int fd)
{
	static char text[8192];
	size_t len = 0;
	ssize_t n;

	for (int turn = 0; turn < 500; turn++) {
		pb_fake_poll(fake, 10);
		n = recv(fd, text + len, sizeof(text) - 1 - len, MSG_DONTWAIT);
		if (n == 0)
			break;
		if (n < 0 && errno != EAGAIN)
			break;
		len += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	text[len] = 0;
	return text;
}

static const char *ask(uint16_t port, const char *request)
{
	int fd = dial(port);

	cr_assert_geq(fd, 0, "port %u: %s", port, strerror(-fd));
	say(fd, request);
	return hear(fd);
}

#define GET "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

static unsigned status(const char *answer)
{
	unsigned code = 0;

	sscanf(answer, "HTTP/1.1 %u", &code);
	return code;
}

static void has(const char *answer, const char *text)
{
	cr_assert_not_null(strstr(answer, text), "no \"%s\" in:\n%s", text, answer);
}

/* ---- tests ---- */

Test(health, only_load_balancers_with_local_traffic_and_a_port_are_served)
{
	load("{}");
	put("a", PB_SERVICE_NODE_PORT, PB_SERVICE_EXTERNAL_LOCAL, PORT);
	cr_assert_eq(dial(PORT), -ECONNREFUSED);
	put("b", PB_SERVICE_LOAD_BALANCER, 0, PORT);
	cr_assert_eq(dial(PORT), -ECONNREFUSED);
	put("c", PB_SERVICE_LOAD_BALANCER, PB_SERVICE_EXTERNAL_LOCAL, 0);
	cr_assert_eq(health->listeners.n, 0);
	put("d", PB_SERVICE_LOAD_BALANCER, PB_SERVICE_EXTERNAL_LOCAL, PORT);
	cr_assert_eq(status(ask(PORT, GET)), 503);
	cr_assert(kpr_health_wants(health, "shop", "d"));
	cr_assert_not(kpr_health_wants(health, "shop", "b"));
}

Test(health, answers_as_kube_proxy_does)
{
	const char *answer;

	load("{}");
	put("web", web.type, web.flags, PORT);
	kpr_health_count(health, "shop", "web", 2);
	answer = ask(PORT, GET);
	cr_assert_eq(status(answer), 200);
	has(answer, "Content-Type: application/json\r\n");
	has(answer, "X-Content-Type-Options: nosniff\r\n");
	has(answer, "X-Load-Balancing-Endpoint-Weight: 2\r\n");
	has(answer, "\r\n\r\n{\"service\":{\"namespace\":\"shop\",\"name\":\"web\"},"
		    "\"localEndpoints\":2,\"serviceProxyHealthy\":true}");
	kpr_health_count(health, "shop", "web", 0);
	answer = ask(PORT, GET);
	cr_assert_eq(status(answer), 503);
	has(answer, "X-Load-Balancing-Endpoint-Weight: 0\r\n");
	has(answer, "\"localEndpoints\":0");
}

Test(health, any_path_and_any_method)
{
	char post[20000];

	load("{}");
	put("web", web.type, web.flags, PORT);
	kpr_health_count(health, "shop", "web", 1);
	cr_assert_eq(status(ask(PORT, "GET /a/b?c HTTP/1.1\r\nHost: x\r\n\r\n")), 200);
	cr_assert_eq(status(ask(PORT, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")), 200);
	cr_assert_eq(status(ask(PORT, "BREW / HTTP/1.0\r\n\r\n")), 200);
	snprintf(post, sizeof(post),
		 "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n%010000d", 0);
	cr_assert_eq(status(ask(PORT, post)), 200);
}

Test(health, both_families)
{
	struct sockaddr_in6 to = {.sin6_family = AF_INET6,
				  .sin6_port = htons(PORT),
				  .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	load("{}");
	put("web", web.type, web.flags, PORT);
	cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	say(fd, GET);
	cr_assert_eq(status(hear(fd)), 503);
}

Test(health, a_port_moves_and_closes_with_its_service)
{
	const struct pb_kube_service *svc;

	load("{}");
	put("web", web.type, web.flags, PORT);
	kpr_health_count(health, "shop", "web", 3);
	put("web", web.type, web.flags, PORT + 1);
	cr_assert_eq(dial(PORT), -ECONNREFUSED);
	has(ask(PORT + 1, GET), "\"localEndpoints\":3");
	svc = put("web", web.type, 0, 0);
	cr_assert_eq(dial(PORT + 1), -ECONNREFUSED, "traffic policy Cluster");
	svc = put("web", web.type, web.flags, PORT);
	cr_assert_eq(status(ask(PORT, GET)), 503, "what was counted before isn't known any more");
	pb_fake_kube(fake, PB_KUBE_DELETE, &svc->meta);
	cr_assert_eq(dial(PORT), -ECONNREFUSED);
	cr_assert_eq(pb_fake_kept(fake), 0);
}

Test(health, a_service_whose_port_is_open_goes_while_somebody_is_connected)
{
	const struct pb_kube_service *svc;
	int fd;

	load("{}");
	svc = put("web", web.type, web.flags, PORT);
	fd = dial(PORT);
	say(fd, "GET / HTTP/1.1\r\n");
	while (pb_fake_poll(fake, 10))
		;
	pb_fake_kube(fake, PB_KUBE_DELETE, &svc->meta);
	say(fd, "Host: x\r\n\r\n");
	cr_assert_eq(status(hear(fd)), 404);
}

static int occupy(uint16_t port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	cr_assert_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	cr_assert_eq(listen(fd, 1), 0);
	return fd;
}

static int count(const char *text, const char *what)
{
	int n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

Test(health, K31_a_port_that_is_taken_is_told_once_and_tried_again)
{
	int fd = occupy(PORT);

	load("{}");
	put("web", web.type, web.flags, PORT);
	has(pb_fake_log(fake),
	    "error: shop/web: healthCheckNodePort 30100: Address already in use");
	/* 1 + 2 + 4 + 8 + 16 + 32 s: every try of the back-off. */
	pb_fake_advance_ms(fake, 63000);
	cr_assert_eq(count(pb_fake_log(fake), "30100: Address already in use"), 1);
	cr_assert_eq(health->retry_ms, 60000);
	close(fd);
	pb_fake_advance_ms(fake, 59000);
	cr_assert_eq(dial(PORT), -ECONNREFUSED, "not before its time");
	pb_fake_advance_ms(fake, 1000);
	cr_assert_eq(status(ask(PORT, GET)), 503);
	has(pb_fake_log(fake), "info: shop/web: port 30100 is served now");
	cr_assert_eq(health->retry_ms, 1000);
}

Test(health, K31_two_services_with_one_port)
{
	const struct pb_kube_service *first;

	load("{}");
	first = put("first", web.type, web.flags, PORT);
	put("second", web.type, web.flags, PORT);
	has(ask(PORT, GET), "\"name\":\"first\"");
	has(pb_fake_log(fake), "error: shop/second: healthCheckNodePort 30100");
	pb_fake_kube(fake, PB_KUBE_DELETE, &first->meta);
	has(ask(PORT, GET), "\"name\":\"second\"");
	cr_assert_eq(health->listeners.n, 1);
}

Test(health, a_reload_loses_no_connection)
{
	int waiting, halfway;

	load("{}");
	put("other", web.type, web.flags, PORT + 1);
	put("web", web.type, web.flags, PORT);
	halfway = dial(PORT);
	say(halfway, GET);
	waiting = dial(PORT + 1);
	cr_assert_eq(pb_fake_prepare(fake), 0);
	cr_assert_eq(pb_fake_quiesce(fake), 0);
	/* Nobody accepts now. */
	say(waiting, GET);
	cr_assert_eq(pb_fake_save(fake), 0);
	cr_assert_eq(pb_fake_restore(fake), 0);
	cr_assert_eq(pb_fake_start(fake), 0);
	kpr_health_count(health, "shop", "other", 1);
	cr_assert_eq(status(hear(waiting)), 200);
	cr_assert_eq(status(hear(halfway)), 503);
	cr_assert_eq(pb_fake_kept(fake), 2);
	cr_assert_null(strstr(pb_fake_log(fake), "left"));
}

Test(health, after_a_reload_nobody_listens_for_what_is_gone)
{
	const struct pb_kube_service *a, *b;

	load("{}");
	a = put("a", web.type, web.flags, PORT);
	b = put("b", web.type, web.flags, PORT + 1);
	put("c", web.type, web.flags, PORT + 2);
	cr_assert_eq(pb_fake_prepare(fake), 0);
	cr_assert_eq(pb_fake_quiesce(fake), 0);
	pb_fake_kube(fake, PB_KUBE_DELETE, &a->meta);
	pb_fake_kube(fake, PB_KUBE_DELETE, &b->meta);
	cr_assert_eq(pb_fake_start(fake), 0);
	cr_assert_eq(pb_fake_stop(fake), 0);
	cr_assert_eq(dial(PORT), -ECONNREFUSED);
	cr_assert_eq(dial(PORT + 1), -ECONNREFUSED);
	has(ask(PORT + 2, GET), "\"name\":\"c\"");
	cr_assert_eq(pb_fake_kept(fake), 1);
	cr_assert_eq(health->listeners.all[0]->slot, 0, "no gap");
}

Test(health, addresses_of_the_configuration)
{
	load("{\"health_check_node_port\":{\"addresses\":[\"127.0.0.2\",\"127.0.0.3\"]}}");
	put("web", web.type, web.flags, PORT);
	cr_assert_eq(dial(PORT), -ECONNREFUSED);
	cr_assert_geq(dial_from("127.0.0.1", "127.0.0.2", PORT), 0);
	cr_assert_geq(dial_from("127.0.0.1", "127.0.0.3", PORT), 0);
	cr_assert_eq(pb_fake_config(fake, "{\"health_check_node_port\":{\"addresses\":[]}}"), 0);
	cr_assert_eq(pb_fake_reload(fake), 0);
	/* The old sockets held the port while the new one was opened. */
	pb_fake_advance_ms(fake, 1000);
	cr_assert_eq(status(ask(PORT, GET)), 503);
	cr_assert_eq(pb_fake_kept(fake), 1);
}

Test(health, switched_off)
{
	load("{\"health_check_node_port\":{\"enabled\":false}}");
	put("web", web.type, web.flags, PORT);
	cr_assert_eq(dial(PORT), -ECONNREFUSED);
	cr_assert_null(health->mhd);
}

Test(health, strangers_that_send_nothing_cost_nothing)
{
	load("{}");
	put("web", web.type, web.flags, PORT);
	for (int i = 0; i < 100; i++)
		cr_assert_geq(dial(PORT), 0);
	cr_assert_eq(status(ask(PORT, GET)), 503);
}

Test(health, one_stranger_cant_keep_the_others_out)
{
	int fd;

	load("{}");
	put("web", web.type, web.flags, PORT);
	for (int i = 0; i < 100; i++) {
		fd = dial(PORT);
		cr_assert_geq(fd, 0);
		/* It may be closed already: more than the limit. */
		send(fd, "GET / HT", 8, MSG_NOSIGNAL);
		pb_fake_poll(fake, 10);
	}
	fd = dial_from("127.0.0.9", "127.0.0.1", PORT);
	say(fd, GET);
	cr_assert_eq(status(hear(fd)), 503);
	/* A deadline is set: what they hold comes back. */
	cr_assert(health->timer_runs);
}

Test(health, many_strangers_that_are_slow_cant_keep_the_others_out)
{
	char from[16];
	int fds[160], fd;

	load("{}");
	put("web", web.type, web.flags, PORT);
	for (int i = 0; i < 160; i++) {
		snprintf(from, sizeof(from), "127.0.0.%d", 20 + i / 32);
		fds[i] = dial_from(from, "127.0.0.1", PORT);
		cr_assert_geq(fds[i], 0);
		send(fds[i], "GET / HT", 8, MSG_NOSIGNAL);
		pb_fake_poll(fake, 10);
	}
	cr_assert_eq(health->n_conns, 128);
	cr_assert_eq(recv(fds[0], from, 1, MSG_DONTWAIT), 0, "the oldest made room");
	for (int i = 0; i < 3; i++) {
		fd = dial_from("127.0.0.9", "127.0.0.1", PORT);
		say(fd, GET);
		cr_assert_eq(status(hear(fd)), 503);
	}
	/* Who has still time is answered, too. */
	say(fds[159], "TP/1.1\r\nHost: a\r\n\r\n");
	cr_assert_eq(status(hear(fds[159])), 503);
}

Test(health, healthz_of_the_plugin)
{
	const char *answer;

	load("{\"healthz_bind\":\"127.0.0.1:10256\"}");
	answer = ask(10256, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
	cr_assert_eq(status(answer), 200);
	has(answer, "{\"lastUpdated\":\"");
	has(answer, "\"currentTime\":\"");
	cr_assert_eq(status(ask(10256, GET)), 404);
	put("web", web.type, web.flags, PORT);
	kpr_health_count(health, "shop", "web", 1);
	kpr_health_written(health, false);
	pb_fake_advance_ms(fake, 59000);
	kpr_health_written(health, false);
	cr_assert_eq(status(ask(PORT, GET)), 200, "a minute is granted");
	pb_fake_advance_ms(fake, 2000);
	cr_assert_eq(status(ask(10256, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")), 503);
	answer = ask(PORT, GET);
	cr_assert_eq(status(answer), 503);
	has(answer, "\"serviceProxyHealthy\":false");
	kpr_health_written(health, true);
	cr_assert_eq(status(ask(PORT, GET)), 200);
}

Test(health, healthz_is_off_by_default_and_not_had_when_kube_proxy_has_it)
{
	occupy(10256);
	load("{\"healthz_bind\":\"0.0.0.0:10256\"}");
	has(pb_fake_log(fake), "healthz_bind 10256: Address already in use");
	pb_fake_free(fake);
	load("{}");
	cr_assert_eq(health->listeners.n, 0);
}

static void refused(const char *config, const char *why)
{
	fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, config, "node-a");
	cr_assert_eq(pb_fake_load(fake), -EINVAL, "%s", config);
	has(pb_fake_failure(fake), why);
	pb_fake_free(fake);
	fake = NULL;
}

Test(health, configuration_that_is_refused)
{
	refused("{\"health_check_node_port\":3}", "must be a mapping");
	refused("{\"health_check_node_port\":{\"enabled\":\"yes\"}}", "must be true or false");
	refused("{\"health_check_node_port\":{\"port\":1}}",
		"health_check_node_port.port: no such");
	refused("{\"health_check_node_port\":{\"addresses\":[\"10.0.0.0/8\"]}}", "entry 1");
	refused("{\"healthz_bind\":\"10256\"}", "healthz_bind: must be ADDRESS:PORT");
	refused("{\"healthz_bind\":\"::1:10256\"}", "healthz_bind: must be ADDRESS:PORT");
	refused("{\"healthz_bind\":\"1.2.3.4:70000\"}", "healthz_bind: must be ADDRESS:PORT");
	load("{\"healthz_bind\":\"[::1]:10256\"}");
	cr_assert_eq(health->config.healthz.family, 6);
}

/* ---- counting ---- */

static struct pb_backends *part(const struct pb_backend *backends, uint32_t n)
{
	struct pb_backends *v = calloc(1, sizeof(*v) + n * sizeof(*backends) + 1);

	v->size = sizeof(*v);
	v->n = n;
	memcpy(v->backend, backends, n * sizeof(*backends));
	return v;
}

#define HERE (PB_BACKEND_LOCAL | PB_BACKEND_READY)

Test(count, K32_ready_endpoints_of_this_node_and_no_others)
{
	const struct pb_backend all[] = {
		{.addr.v4 = 1, .family = 4, .state = PB_BACKEND_ACTIVE, .flags = HERE, .port = 80},
		{.addr.v4 = 1, .family = 4, .state = PB_BACKEND_ACTIVE, .flags = HERE, .port = 81},
		{.addr.v4 = 2, .family = 4, .state = PB_BACKEND_ACTIVE, .flags = PB_BACKEND_READY},
		{.addr.v4 = 3,
		 .family = 4,
		 .state = PB_BACKEND_TERMINATING,
		 .flags = PB_BACKEND_LOCAL},
		{.addr.v4 = 4, .family = 4, .state = PB_BACKEND_DRAINING, .flags = HERE},
	};
	const struct pb_backend more[] = {
		{.addr.v4 = 1,
		 .family = 4,
		 .state = PB_BACKEND_ACTIVE,
		 .flags = HERE,
		 .protocol = 17},
		{.addr.v4 = 5, .family = 4, .state = PB_BACKEND_ACTIVE, .flags = HERE},
		{.addr.v6 = {1}, .family = 6, .state = PB_BACKEND_ACTIVE, .flags = HERE},
	};
	const struct pb_backends *parts[] = {part(all, 5), part(more, 3)};
	uint32_t n = 99;

	cr_assert_eq(kpr_health_local(parts, 2, &n), 0);
	cr_assert_eq(n, 2, "is %u", n);
	cr_assert_eq(kpr_health_local(parts, 0, &n), 0);
	cr_assert_eq(n, 0);
	free((void *)parts[0]);
	free((void *)parts[1]);
}
