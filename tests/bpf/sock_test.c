/* SPDX-License-Identifier: Apache-2.0 */
/* Socket hooks on a cgroup of our own: what an application sees of a chain's verdict. */
#include "sandbox.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <mntent.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

static struct {
	char mount[256]; /* of cgroup2 */
	char dir[300];	 /* ours */
	char home[512];	 /* where this process was */
} cg;

static void find_cgroups(void)
{
	FILE *f = setmntent("/proc/mounts", "re");
	struct mntent *m;
	char line[256];

	while (f && (m = getmntent(f)))
		if (strcmp(m->mnt_type, "cgroup2") == 0)
			snprintf(cg.mount, sizeof(cg.mount), "%s", m->mnt_dir);
	if (f)
		endmntent(f);
	if (!cg.mount[0])
		cr_skip_test("no cgroup2 is mounted");
	f = fopen("/proc/self/cgroup", "re");
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "0::", 3) == 0)
			snprintf(cg.home, sizeof(cg.home), "%s%.*s", cg.mount,
				 (int)strcspn(line + 3, "\n"), line + 3);
	if (f)
		fclose(f);
}

static void move_to(const char *dir)
{
	PB_FREE char *path = pb_sprintf("%s/cgroup.procs", dir);
	PB_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	cr_assert(fd >= 0 && write(fd, "0", 1) == 1, "%s: %s", path, strerror(errno));
}

static void loopback_up(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	PB_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	cr_assert_eq(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
}

static void enter(void)
{
	sandbox_enter();
	find_cgroups();
	snprintf(cg.dir, sizeof(cg.dir), "%s/pb-sock-test-%d", cg.mount, getpid());
	if (mkdir(cg.dir, 0755) < 0) {
		cg.dir[0] = '\0';
		cr_skip_test("can't make a cgroup here");
	}
	move_to(cg.dir);
	loopback_up();
}

static void leave(void)
{
	sandbox_leave();
	if (!cg.dir[0])
		return;
	move_to(cg.home);
	cr_expect_eq(rmdir(cg.dir), 0, "%s: %s", cg.dir, strerror(errno));
}

TestSuite(sock, .init = enter, .fini = leave);

static int attach(uint32_t hook)
{
	PB_CLOSE int dir = open(cg.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int link = bpf_link_create(sandbox.dp->entry_fd[hook], dir, pb_hook_kinds[hook].attach_type,
				   NULL);

	cr_assert_geq(link, 0, "%s: %s", pb_hook_name(hook), strerror(-link));
	return link;
}

static struct sockaddr_in local(uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_port = htons(port),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int listen_on(uint16_t port)
{
	struct sockaddr_in addr = local(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_assert_eq(listen(fd, 8), 0);
	return fd;
}

/* 0 or a negative errno. */
static int connect_to(uint16_t port)
{
	struct sockaddr_in addr = local(port);
	PB_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
}

Test(sock, a_denied_connect_fails_with_the_plugins_errno_and_others_go_on)
{
	struct pb_dp_object *object;
	struct pb_dp_slot slot;
	struct pb_counters c;
	int link, denied, allowed;

	/* given: listeners on both ports, a chain that refuses port 81 */
	sandbox_open();
	denied = listen_on(81);
	allowed = listen_on(82);
	object = sandbox_stages("stages");
	slot = sandbox_slot(PB_HOOK_CONNECT4, PB_BAND_SERVICE, object, "deny", "stages_connect4");
	sandbox_chain(&slot, 1, PB_HOOK_CONNECT4);
	link = attach(PB_HOOK_CONNECT4);

	cr_expect_eq(connect_to(81), -ECONNREFUSED);
	cr_expect_eq(connect_to(82), 0);

	c = sandbox_counters(PB_HOOK_CONNECT4);
	cr_expect_eq(c.packets, 2);
	cr_expect_eq(c.verdicts[PB_VERDICT_DROP], 1);
	cr_expect_eq(c.verdicts[PB_VERDICT_PASS], 1);
	cr_expect_eq(c.missed, 0);
	cr_expect_eq(sandbox_drops(PB_HOOK_CONNECT4, PB_REASON_NO_SERVICE), 1);
	close(link);
	close(denied);
	close(allowed);
	pb_dp_object_free(object);
}

Test(sock, empty_chains_let_every_call_pass)
{
	static const uint32_t hooks[] = {PB_HOOK_CONNECT4, PB_HOOK_SENDMSG4,
					 PB_HOOK_RECVMSG4, PB_HOOK_GETPEERNAME4,
					 PB_HOOK_BIND4,	   PB_HOOK_SOCK_RELEASE};
	int links[PB_ARRAY_LEN(hooks)];
	struct sockaddr_in addr = local(4000), from;
	socklen_t len = sizeof(from);
	char byte;
	int tcp, udp, fd;

	/* given */
	sandbox_open();
	for (size_t i = 0; i < PB_ARRAY_LEN(hooks); i++)
		links[i] = attach(hooks[i]);

	/* when: each of the calls is made once or more */
	tcp = listen_on(4000);
	udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	cr_expect_eq(bind(udp, (struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_expect_eq(sendto(udp, "x", 1, 0, (struct sockaddr *)&addr, sizeof(addr)), 1);
	cr_expect_eq(recvfrom(udp, &byte, 1, 0, (struct sockaddr *)&from, &len), 1);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_expect_eq(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_expect_eq(getpeername(fd, (struct sockaddr *)&from, &len), 0);
	cr_expect_eq(ntohs(from.sin_port), 4000);
	close(fd);
	close(udp);
	close(tcp);

	/* then */
	for (size_t i = 0; i < PB_ARRAY_LEN(hooks); i++) {
		struct pb_counters c = sandbox_counters(hooks[i]);

		cr_expect_gt(c.packets, 0, "%s", pb_hook_name(hooks[i]));
		cr_expect_eq(c.verdicts[PB_VERDICT_PASS], c.packets, "%s", pb_hook_name(hooks[i]));
		cr_expect_eq(c.missed, 0, "%s", pb_hook_name(hooks[i]));
		close(links[i]);
	}
}

static struct pb_sock seen(const struct pb_dp_object *object)
{
	const uint32_t zero = 0;
	struct pb_sock sock = {0};

	cr_assert_eq(bpf_map_lookup_elem(pb_object_map(object, "seen")->fd, &zero, &sock), 0);
	return sock;
}

Test(sock, an_observer_sees_both_addresses_the_verdict_and_the_reason)
{
	static const struct {
		uint16_t port, translated;
		int rc;
		uint8_t verdict;
		uint16_t reason;
	} cases[] = {
		{83, 82, 0, PB_VERDICT_PASS, PB_REASON_NONE},
		{81, 81, -ECONNREFUSED, PB_VERDICT_DROP, PB_REASON_NO_SERVICE},
		/* nothing of the call before is left in the record */
		{82, 82, 0, PB_VERDICT_PASS, PB_REASON_NONE},
	};
	struct pb_dp_object *object;
	struct pb_dp_slot slots[3];
	const uint32_t hook = PB_HOOK_CONNECT4;
	int link, listener;

	/* given: a chain that translates, refuses, and is observed */
	sandbox_open();
	listener = listen_on(82);
	object = sandbox_stages("stages");
	slots[0] = sandbox_slot(hook, PB_BAND_SERVICE, object, "a", "stages_translate4");
	slots[1] = sandbox_slot(hook, PB_BAND_POLICY, object, "b", "stages_connect4");
	slots[2] = sandbox_slot(hook, PB_BAND_OBSERVE, object, "c", "stages_see_connect4");
	sandbox_chain(slots, 3, hook);
	link = attach(hook);

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_sock s;

		cr_expect_eq(connect_to(cases[i].port), cases[i].rc, "port %u", cases[i].port);
		s = seen(object);
		cr_expect_eq(s.size, sizeof(s));
		cr_expect_eq(s.hook, hook);
		cr_expect_eq(s.family, 4);
		cr_expect_eq(s.protocol, IPPROTO_TCP);
		cr_expect_eq(s.task >> 32, (uint64_t)getpid());
		cr_expect_neq(s.cookie, 0);
		cr_expect_eq(s.addr.v4, htonl(INADDR_LOOPBACK));
		cr_expect_eq(s.translated.v4, htonl(INADDR_LOOPBACK));
		cr_expect_eq(ntohs(s.port), cases[i].port);
		cr_expect_eq(ntohs(s.translated_port), cases[i].translated);
		cr_expect_eq(s.verdict, cases[i].verdict, "port %u", cases[i].port);
		cr_expect_eq(s.reason, cases[i].reason, "port %u", cases[i].port);
	}
	close(link);
	close(listener);
	pb_dp_object_free(object);
}

/* Each has its own rules about fields of the context and helpers: the verifier is the judge. */
Test(sock, every_sock_addr_hook_takes_an_observer)
{
	struct pb_dp_object *object;

	sandbox_open();
	object = sandbox_stages("stages");
	for (uint32_t hook = PB_HOOK_CONNECT4; hook <= PB_HOOK_BIND6; hook++) {
		PB_FREE char *program = pb_sprintf("stages_see_%s", pb_hook_name(hook));
		struct pb_dp_slot slot =
			sandbox_slot(hook, PB_BAND_OBSERVE, object, "see", program);

		sandbox_chain(&slot, 1, hook);
	}
	pb_dp_object_free(object);
}
