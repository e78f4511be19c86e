/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NodePort range in ip_local_reserved_ports: what becomes of the list, on text, on files, and
 * in a network namespace of the test's own.
 */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../kpr_reserve.h"

static const struct kpr_port_range linux_default = {32768, 60999};
static const struct kpr_port_range node_ports = {30000, 32767};
static char dir[] = "/tmp/kpr_reserve_XXXXXX";

static void put(const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	cr_assert_not_null(f);
	cr_assert_geq(fputs(text, f), 0);
	cr_assert_eq(fclose(f), 0);
}

/* With one read(): the kernel gives a list of ports to the first one only. */
static const char *get(const char *from, const char *name)
{
	static char text[262144];
	char path[128];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", from, name);
	fd = open(path, O_RDONLY);
	cr_assert_geq(fd, 0);
	n = read(fd, text, sizeof(text) - 1);
	cr_assert_geq(n, 0);
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	close(fd);
	return text;
}

static void setup(void)
{
	cr_assert_not_null(mkdtemp(dir));
}

static void teardown(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/ip_local_port_range", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/ip_local_reserved_ports", dir);
	unlink(path);
	rmdir(dir);
}

TestSuite(reserve, .init = setup, .fini = teardown);

Test(reserve, a_range_of_ports_is_two_numbers)
{
	static const struct {
		const char *text;
		int rc;
		uint16_t min, max;
	} cases[] = {
		{"32768\t60999\n", 0, 32768, 60999},
		{"1 65535", 0, 1, 65535},
		{"7 7\n", 0, 7, 7},
		{"", -EINVAL, 0, 0},
		{"32768", -EINVAL, 0, 0},
		{"60999 32768", -EINVAL, 0, 0},
		{"1 65536", -EINVAL, 0, 0},
		{"1 2 3", -EINVAL, 0, 0},
		{"a b", -EINVAL, 0, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kpr_port_range range = {0, 0};

		cr_assert_eq(kpr_reserve_parse_range(cases[i].text, &range), cases[i].rc, "\"%s\"",
			     cases[i].text);
		cr_assert_eq(range.min, cases[i].min);
		cr_assert_eq(range.max, cases[i].max);
	}
}

Test(reserve, the_list_keeps_what_it_has_and_gains_what_overlaps)
{
	static const struct {
		const char *list;
		struct kpr_port_range local, range;
		int rc;
		const char *result; /* NULL: no change */
	} cases[] = {
		/* No overlap. */
		{"", {32768, 60999}, {30000, 32767}, 0, NULL},
		{"8080\n", {32768, 60999}, {30000, 32767}, 0, NULL},
		{"", {1024, 29999}, {30000, 32767}, 0, NULL},
		/* At one port, on either side, within, around. */
		{"\n", {32767, 60999}, {30000, 32767}, 0, "30000-32767"},
		{"", {1024, 30000}, {30000, 32767}, 0, "30000-32767"},
		{"", {1024, 65535}, {30000, 32767}, 0, "30000-32767"},
		{"", {31000, 31010}, {30000, 32767}, 0, "30000-32767"},
		/* What is there stays; neighbours and overlaps become one. */
		{"8080,9148-9200\n",
		 {15000, 60999},
		 {30000, 32767},
		 0,
		 "8080,9148-9200,30000-32767"},
		{"29999", {15000, 60999}, {30000, 32767}, 0, "29999-32767"},
		{"32768,40000", {15000, 60999}, {30000, 32767}, 0, "30000-32768,40000"},
		{"31000-40000", {15000, 60999}, {30000, 32767}, 0, "30000-40000"},
		{"31000,31000,31000-31001", {15000, 60999}, {30000, 32767}, 0, "30000-32767"},
		{"60000,8080", {15000, 60999}, {30000, 32767}, 0, "8080,30000-32767,60000"},
		/* There already, all of it or what counts. */
		{"30000-32767", {15000, 60999}, {30000, 32767}, 0, NULL},
		{"1-65535", {15000, 60999}, {30000, 32767}, 0, NULL},
		{"32000-32767", {32000, 60999}, {30000, 32767}, 0, NULL},
		{"", {1, 65535}, {1, 65535}, 0, "1-65535"},
		{"", {15000, 60999}, {30000, 30000}, 0, "30000"},
		/* No list. */
		{"8080,", {15000, 60999}, {30000, 30000}, 0, "8080,30000"},
		{"8080-", {15000, 60999}, {30000, 30000}, -EINVAL, NULL},
		{"9-8", {15000, 60999}, {30000, 30000}, -EINVAL, NULL},
		{"http", {15000, 60999}, {30000, 30000}, -EINVAL, NULL},
		{"65536", {15000, 60999}, {30000, 30000}, -EINVAL, NULL},
		{"1 2", {15000, 60999}, {30000, 30000}, -EINVAL, NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *text = NULL;
		int rc = kpr_reserve_add(cases[i].list, &cases[i].local, &cases[i].range, &text);

		cr_assert_eq(rc, cases[i].rc, "case %zu", i);
		if (cases[i].result)
			cr_assert_str_eq(text, cases[i].result, "case %zu", i);
		else
			cr_assert_null(text, "case %zu: %s", i, text);
		free(text);
	}
}

Test(reserve, every_other_port_fits)
{
	static char list[200000];
	size_t len = 0;
	char *text = NULL;

	for (unsigned port = 1; port < 65536; port += 2)
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%u", len ? "," : "",
					port);
	cr_assert_eq(kpr_reserve_add(list, &linux_default, &(struct kpr_port_range){60000, 60000},
				     &text),
		     0);
	cr_assert_not_null(strstr(text, "59997,59999-60001,60003"));
	free(text);
}

static enum kpr_reserve in_dir(const struct kpr_port_range *range, bool wanted, char why[256])
{
	why[0] = '\0';
	return kpr_reserve_ports(dir, range, wanted, why, 256);
}

Test(reserve, says_what_became_of_it)
{
	char why[256];

	put("ip_local_port_range", "32768\t60999\n");
	put("ip_local_reserved_ports", "\n");
	cr_assert_eq(in_dir(&node_ports, true, why), KPR_RESERVE_NOT_NEEDED);
	put("ip_local_port_range", "15000\t60999\n");
	cr_assert_eq(in_dir(&node_ports, false, why), KPR_RESERVE_OFF);
	cr_assert_str_eq(why, "ports 30000-32767 are given to outgoing connections");
	cr_assert_eq(in_dir(&node_ports, true, why), KPR_RESERVE_DONE);
	put("ip_local_reserved_ports", "30000-32767\n");
	cr_assert_eq(in_dir(&node_ports, true, why), KPR_RESERVE_THERE);
	cr_assert_eq(in_dir(&node_ports, false, why), KPR_RESERVE_THERE);
	cr_assert_str_eq(why, "");
}

Test(reserve, says_what_failed_and_leaves_the_list)
{
	char why[256];

	cr_assert_eq(in_dir(&node_ports, true, why), KPR_RESERVE_FAILED);
	cr_assert_not_null(strstr(why, "ip_local_port_range can't be read"), "%s", why);
	put("ip_local_port_range", "15000\t60999\n");
	cr_assert_eq(in_dir(&node_ports, true, why), KPR_RESERVE_FAILED);
	cr_assert_not_null(strstr(why, "ip_local_reserved_ports can't be read"), "%s", why);
	put("ip_local_reserved_ports", "what?\n");
	cr_assert_eq(in_dir(&node_ports, true, why), KPR_RESERVE_FAILED);
	cr_assert_not_null(strstr(why, "can't be understood"), "%s", why);
	cr_assert_str_eq(get(dir, "ip_local_reserved_ports"), "what?");
	put("ip_local_port_range", "odd\n");
	cr_assert_eq(in_dir(&node_ports, true, why), KPR_RESERVE_FAILED);
	cr_assert_not_null(strstr(why, "ip_local_port_range can't be understood"), "%s", why);
}

/* ---- in a namespace ---- */

static void enter_namespace(void)
{
	if (unshare(CLONE_NEWNET) < 0)
		cr_skip_test("unshare: %s", strerror(errno));
}

static void sysctl_put(const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", KPR_RESERVE_DIR, name);
	f = fopen(path, "w");
	cr_assert_not_null(f);
	cr_assert_geq(fputs(text, f), 0);
	cr_assert_eq(fclose(f), 0, "%s: %s", name, strerror(errno));
}

/* The port that the kernel gives to a socket; 0: it has none left. */
static unsigned port_given(void)
{
	struct sockaddr_in6 addr = {.sin6_family = AF_INET6};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	unsigned port = 0;

	if (bind(fd, (struct sockaddr *)&addr, len) == 0 &&
	    getsockname(fd, (struct sockaddr *)&addr, &len) == 0)
		port = ntohs(addr.sin6_port);
	close(fd);
	return port;
}

Test(reserve, in_a_namespace_no_connection_gets_a_node_port_any_more)
{
	struct kpr_port_range range = {30000, 30007};
	char why[256] = "";

	enter_namespace();
	sysctl_put("ip_local_port_range", "30000 30009");
	sysctl_put("ip_local_reserved_ports", "8080,9148-9200");
	cr_assert_eq(kpr_reserve_ports(KPR_RESERVE_DIR, &range, true, why, sizeof(why)),
		     KPR_RESERVE_DONE, "%s", why);
	cr_assert_str_eq(get(KPR_RESERVE_DIR, "ip_local_reserved_ports"),
			 "8080,9148-9200,30000-30007");
	for (int i = 0; i < 100; i++)
		cr_assert_geq(port_given(), 30008);
	cr_assert_eq(kpr_reserve_ports(KPR_RESERVE_DIR, &range, true, why, sizeof(why)),
		     KPR_RESERVE_THERE);
}

Test(reserve, in_a_namespace_a_list_of_many_pages_stays_whole)
{
	static char list[65536];
	struct kpr_port_range range = {30000, 32767};
	char why[256] = "";
	size_t len = 0;

	enter_namespace();
	for (unsigned port = 1025; port < 20000; port += 2)
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%u", len ? "," : "",
					port);
	sysctl_put("ip_local_port_range", "15000 60999");
	sysctl_put("ip_local_reserved_ports", list);
	cr_assert(strcmp(get(KPR_RESERVE_DIR, "ip_local_reserved_ports"), list) == 0);
	cr_assert_eq(kpr_reserve_ports(KPR_RESERVE_DIR, &range, true, why, sizeof(why)),
		     KPR_RESERVE_DONE, "%s", why);
	snprintf(list + len, sizeof(list) - len, ",30000-32767");
	cr_assert(strcmp(get(KPR_RESERVE_DIR, "ip_local_reserved_ports"), list) == 0);
}
