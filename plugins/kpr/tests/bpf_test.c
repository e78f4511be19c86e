/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kpr's programs in the kernel, without the agent: loaded as the core loads them, attached to a
 * cgroup of this test in a network namespace of its own, fed by hand-written map entries and
 * judged by real sockets.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <mntent.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include <plugins/kpr/kpr.skel.h>
#include <plugins/kpr/tests/exit.skel.h>

#include "../kpr_abi.h"
#include "../kpr_pools.h"

#define N_HOOKS (PB_HOOK_GETPEERNAME6 - PB_HOOK_CONNECT4 + 1)

static const char *const hook_names[N_HOOKS] = {"connect4",	"connect6",    "sendmsg4",
						"sendmsg6",	"recvmsg4",    "recvmsg6",
						"getpeername4", "getpeername6"};

static int services_fd = -1;
static int slots_fd = -1;
static int backends_fd = -1;
static int reverse_fd = -1;
static int drops_fd = -1;
static int cgroup_fd = -1;
static unsigned n_cases;
static unsigned n_failed;
static bool case_ok;

/* ---- judging ---- */

#define CHECK(cond_)                                                                               \
	do {                                                                                       \
		if (!(cond_)) {                                                                    \
			printf("# %s:%d: %s (errno %s)\n", __FILE__, __LINE__, #cond_,             \
			       strerror(errno));                                                   \
			case_ok = false;                                                           \
		}                                                                                  \
	} while (0)

static void check_text(const char *is, const char *should, int line)
{
	if (strcmp(is, should) == 0)
		return;
	printf("# %s:%d: is \"%s\", should be \"%s\"\n", __FILE__, line, is, should);
	case_ok = false;
}
#define CHECK_TEXT(is_, should_) check_text(is_, should_, __LINE__)

/* ---- loading ---- */

static int set_rodata(struct bpf_object *obj, const char *name, __u32 value)
{
	struct bpf_map *rodata = bpf_object__find_map_by_name(obj, ".rodata");
	struct btf *btf = bpf_object__btf(obj);
	int id = btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC);
	const struct btf_type *sec, *var;
	const void *initial;
	char data[256];
	size_t len;

	if (!rodata || id < 0)
		return -ENOENT;
	initial = bpf_map__initial_value(rodata, &len);
	if (!initial || len > sizeof(data))
		return -E2BIG;
	memcpy(data, initial, len);
	sec = btf__type_by_id(btf, (__u32)id);
	for (int i = 0; i < btf_vlen(sec); i++) {
		const struct btf_var_secinfo *info = btf_var_secinfos(sec) + i;

		var = btf__type_by_id(btf, info->type);
		if (strcmp(btf__name_by_offset(btf, var->name_off), name) != 0)
			continue;
		memcpy(data + info->offset, &value, sizeof(value));
		return bpf_map__set_initial_value(rodata, data, len);
	}
	return -ENOENT;
}

static void only_program(struct bpf_object *obj, const char *prefix, const char *hook)
{
	struct bpf_program *prog;
	char name[64];

	snprintf(name, sizeof(name), "%s_%s", prefix, hook);
	bpf_object__for_each_program(prog, obj)
		bpf_program__set_autoload(prog, strcmp(bpf_program__name(prog), name) == 0);
}

static int share_map(struct bpf_object *obj, const char *name, int *fd)
{
	struct bpf_map *map = bpf_object__find_map_by_name(obj, name);

	return *fd < 0 ? 0 : bpf_map__reuse_fd(map, *fd);
}

static void keep_map(struct bpf_object *obj, const char *name, int *fd)
{
	if (*fd < 0)
		*fd = dup(bpf_object__find_map_fd_by_name(obj, name));
}

static struct bpf_program *find(struct bpf_object *obj, const char *prefix, const char *hook)
{
	char name[64];

	snprintf(name, sizeof(name), "%s_%s", prefix, hook);
	return bpf_object__find_program_by_name(obj, name);
}

/* One generation of one hook: kpr in slot 0 of its chain, exit in slot 1. */
static int load_hook(uint32_t hook)
{
	const char *name = hook_names[hook - PB_HOOK_CONNECT4];
	struct bpf_object *kpr, *end;
	__u32 exit_slot = 1;
	const void *elf;
	size_t len;
	int exit_fd;

	elf = kpr_bpf__elf_bytes(&len);
	kpr = bpf_object__open_mem(elf, len, NULL);
	elf = exit_bpf__elf_bytes(&len);
	end = bpf_object__open_mem(elf, len, NULL);
	if (!kpr || !end)
		return -errno;
	only_program(kpr, "kpr", name);
	only_program(end, "exit", name);
	if (set_rodata(kpr, "pb_slot_next", 1) < 0 || set_rodata(kpr, "pb_slot_exit", 1) < 0 ||
	    set_rodata(kpr, "pb_hook_id", hook) < 0 ||
	    share_map(kpr, "kpr_services", &services_fd) < 0 ||
	    share_map(kpr, "kpr_slots", &slots_fd) < 0 ||
	    share_map(kpr, "kpr_backends", &backends_fd) < 0 ||
	    share_map(kpr, "kpr_reverse", &reverse_fd) < 0 ||
	    share_map(kpr, "pb_drops", &drops_fd) < 0 || bpf_object__load(kpr) < 0 ||
	    bpf_object__load(end) < 0)
		return -EINVAL;
	keep_map(kpr, "kpr_services", &services_fd);
	keep_map(kpr, "kpr_slots", &slots_fd);
	keep_map(kpr, "kpr_backends", &backends_fd);
	keep_map(kpr, "kpr_reverse", &reverse_fd);
	keep_map(kpr, "pb_drops", &drops_fd);
	exit_fd = bpf_program__fd(find(end, "exit", name));
	if (bpf_map_update_elem(bpf_object__find_map_fd_by_name(kpr, "pb_chain"), &exit_slot,
				&exit_fd, 0) < 0)
		return -errno;
	/* The objects stay open: a chain array empties when its last user goes. */
	return bpf_prog_attach(bpf_program__fd(find(kpr, "kpr", name)), cgroup_fd,
			       bpf_program__expected_attach_type(find(kpr, "kpr", name)), 0);
}

/* ---- map entries ---- */

struct addr {
	struct sockaddr_storage ss;
	socklen_t len;
};

/* "1.2.3.4:80" or "[::1]:80"; a mapped address in brackets is AF_INET6. */
static struct addr parse(const char *text)
{
	struct addr a = {0};
	char host[64];
	uint16_t port = (uint16_t)atoi(strrchr(text, ':') + 1);

	if (text[0] == '[') {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&a.ss;

		snprintf(host, sizeof(host), "%.*s", (int)strcspn(text + 1, "]"), text + 1);
		*in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
		inet_pton(AF_INET6, host, &in6->sin6_addr);
		a.len = sizeof(*in6);
	} else {
		struct sockaddr_in *in = (struct sockaddr_in *)&a.ss;

		snprintf(host, sizeof(host), "%.*s", (int)strcspn(text, ":"), text);
		*in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
		inet_pton(AF_INET, host, &in->sin_addr);
		a.len = sizeof(*in);
	}
	return a;
}

static const char *show(const struct sockaddr_storage *ss)
{
	static char text[128];
	char host[INET6_ADDRSTRLEN];

	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)ss;

		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(text, sizeof(text), "%s:%u", host, ntohs(in->sin_port));
	} else {
		const struct sockaddr_in6 *in6 = (const void *)ss;

		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(text, sizeof(text), "[%s]:%u", host, ntohs(in6->sin6_port));
	}
	return text;
}

static struct pb_svc_key key_of(const char *text, uint8_t protocol)
{
	struct addr a = parse(text);
	struct pb_svc_key key = {.protocol = protocol};

	if (a.ss.ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)&a.ss;

		key.family = 4;
		key.addr.v4 = in->sin_addr.s_addr;
		key.port = in->sin_port;
	} else {
		const struct sockaddr_in6 *in6 = (const void *)&a.ss;

		key.family = 6;
		memcpy(&key.addr, &in6->sin6_addr, 16);
		key.port = in6->sin6_port;
	}
	return key;
}

static uint32_t next_slot;
static uint32_t next_id = 1;

/* Slots from `base` on, each with the backend of its own number. */
static void set_backends(uint32_t pool, uint32_t base, const char *const *backends, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct pb_svc_key b = key_of(backends[i], 0);
		struct pb_svc_backend backend = {.addr = b.addr,
						 .port = b.port,
						 .family = b.family,
						 .pool = pool};
		struct pb_svc_slot slot = {.backend = base + i, .pool = pool};
		uint32_t at = base + i;

		bpf_map_update_elem(backends_fd, &at, &backend, 0);
		bpf_map_update_elem(slots_fd, &at, &slot, 0);
	}
}

/* Programs a frontend as kpr_maps.c does; returns its id, which is its pool's too. */
static uint32_t program(const char *frontend, uint8_t protocol, const char *const *backends)
{
	struct pb_svc_key key = key_of(frontend, protocol);
	struct pb_svc svc = {.id = next_id++, .base = next_slot};

	svc.tie = pb_svc_tie(&key, svc.id);
	while (backends[svc.count])
		svc.count++;
	set_backends(svc.id, svc.base, backends, svc.count);
	next_slot += svc.count;
	bpf_map_update_elem(services_fd, &key, &svc, 0);
	return svc.id;
}
#define PROGRAM(frontend_, protocol_, ...)                                                         \
	program(frontend_, protocol_, (const char *const[]){__VA_ARGS__, NULL})

static void set_flags(const char *frontend, uint8_t protocol, uint32_t flags)
{
	struct pb_svc_key key = key_of(frontend, protocol);
	struct pb_svc svc;

	CHECK(bpf_map_lookup_elem(services_fd, &key, &svc) == 0);
	svc.flags = flags;
	bpf_map_update_elem(services_fd, &key, &svc, 0);
}

static void unprogram(const char *frontend, uint8_t protocol)
{
	struct pb_svc_key key = key_of(frontend, protocol);

	CHECK(bpf_map_delete_elem(services_fd, &key) == 0);
}

static unsigned count_reverse(void)
{
	struct kpr_reverse_key key;
	void *at = NULL;
	unsigned n = 0;

	for (; bpf_map_get_next_key(reverse_fd, at, &key) == 0; at = &key)
		n++;
	return n;
}

static uint64_t refused(uint32_t hook)
{
	int cpus = libbpf_num_possible_cpus();
	__u32 key = hook * PB_REASON_COUNT + PB_REASON_NO_SERVICE;
	uint64_t values[256] = {0};
	uint64_t sum = 0;

	if (cpus > 256 || bpf_map_lookup_elem(drops_fd, &key, values) < 0)
		return 0;
	for (int i = 0; i < cpus; i++)
		sum += values[i];
	return sum;
}

/* ---- sockets ---- */

/* Backends: every address listens on TCP and UDP. */
static const char *const servers[] = {"127.0.0.1:8001", "127.0.0.1:8002", "[::1]:8001",
				      "[::1]:8002"};
#define N_SERVERS (sizeof(servers) / sizeof(servers[0]))
static int tcp_servers[N_SERVERS];
static int udp_servers[N_SERVERS];

static int serve(const char *at, int type)
{
	struct addr a = parse(at);
	int fd = socket(a.ss.ss_family, type, 0);
	int on = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&a.ss, a.len) < 0 ||
	    (type == SOCK_STREAM && listen(fd, 512) < 0)) {
		perror(at);
		exit(1);
	}
	return fd;
}

static int dial(const char *to, int type, int protocol)
{
	struct addr a = parse(to);
	int fd = socket(a.ss.ss_family, type, protocol);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&a.ss, a.len) < 0) {
		int err = errno;

		close(fd);
		errno = err;
		return -1;
	}
	return fd;
}

static const char *peer(int fd)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);

	return getpeername(fd, (struct sockaddr *)&ss, &len) == 0 ? show(&ss) : strerror(errno);
}

/* Which of the servers has something to read within 1 s; -1: none. */
static int who_was_asked(const int *fds)
{
	struct pollfd polls[N_SERVERS];

	for (size_t i = 0; i < N_SERVERS; i++)
		polls[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
	if (poll(polls, N_SERVERS, 1000) <= 0)
		return -1;
	for (size_t i = 0; i < N_SERVERS; i++)
		if (polls[i].revents)
			return (int)i;
	return -1;
}

/* The server that a connection to `to` reaches, by number; the peer's name goes to `name`. */
static int reach_tcp(const char *to, char *name)
{
	int fd = dial(to, SOCK_STREAM, 0);
	struct linger reset = {.l_onoff = 1};
	int who = -1;

	CHECK(fd >= 0);
	if (fd >= 0) {
		who = who_was_asked(tcp_servers);
		if (who >= 0)
			close(accept(tcp_servers[who], NULL, NULL));
		if (name)
			snprintf(name, 128, "%s", peer(fd));
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(fd);
	}
	return who;
}

/* Sends from `fd` to `to`, lets the server answer; from whom the answer seems to be. */
static const char *ask_udp(int fd, const char *to, int *ret_who)
{
	struct addr a = parse(to);
	struct sockaddr_storage from = {0};
	socklen_t len = sizeof(from);
	char byte = 'x';
	int who;

	if (sendto(fd, &byte, 1, 0, (struct sockaddr *)&a.ss, a.len) != 1)
		return strerror(errno);
	who = who_was_asked(udp_servers);
	if (ret_who)
		*ret_who = who;
	if (who < 0 || recvfrom(udp_servers[who], &byte, 1, 0, (struct sockaddr *)&from, &len) != 1)
		return "nobody was asked";
	sendto(udp_servers[who], &byte, 1, 0, (struct sockaddr *)&from, len);
	len = sizeof(from);
	if (recvfrom(fd, &byte, 1, 0, (struct sockaddr *)&from, &len) != 1)
		return strerror(errno);
	return show(&from);
}

static int udp_socket(int family)
{
	struct timeval second = {.tv_sec = 1};
	int fd = socket(family, SOCK_DGRAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	return fd;
}

/* ---- the cases ---- */

static void tcp4(void)
{
	char name[128] = "";

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[1]);
	CHECK(reach_tcp("10.96.0.1:80", name) == 1);
	CHECK_TEXT(name, "10.96.0.1:80");
}

static void tcp6(void)
{
	char name[128] = "";

	PROGRAM("[fd00::1]:80", IPPROTO_TCP, servers[3]);
	CHECK(reach_tcp("[fd00::1]:80", name) == 3);
	CHECK_TEXT(name, "[fd00::1]:80");
}

static void mapped_tcp(void)
{
	char name[128] = "";

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[0]);
	CHECK(reach_tcp("[::ffff:10.96.0.1]:80", name) == 0);
	CHECK_TEXT(name, "[::ffff:10.96.0.1]:80");
}

static void both_protocols(void)
{
	int fd = udp_socket(AF_INET);
	int who = -1;

	PROGRAM("10.96.0.10:53", IPPROTO_TCP, servers[0]);
	PROGRAM("10.96.0.10:53", IPPROTO_UDP, servers[1]);
	CHECK(reach_tcp("10.96.0.10:53", NULL) == 0);
	CHECK_TEXT(ask_udp(fd, "10.96.0.10:53", &who), "10.96.0.10:53");
	CHECK(who == 1);
	close(fd);
}

static void udp_unconnected(void)
{
	int fd4 = udp_socket(AF_INET);
	int fd6 = udp_socket(AF_INET6);

	PROGRAM("10.96.0.1:53", IPPROTO_UDP, servers[0]);
	PROGRAM("[fd00::1]:53", IPPROTO_UDP, servers[2]);
	CHECK_TEXT(ask_udp(fd4, "10.96.0.1:53", NULL), "10.96.0.1:53");
	CHECK_TEXT(ask_udp(fd6, "[fd00::1]:53", NULL), "[fd00::1]:53");
	CHECK_TEXT(ask_udp(fd6, "[::ffff:10.96.0.1]:53", NULL), "[::ffff:10.96.0.1]:53");
	close(fd4);
	close(fd6);
}

static void udp_connected(void)
{
	static const char *const frontends[] = {"10.96.0.1:53", "[fd00::1]:53",
						"[::ffff:10.96.0.1]:53"};

	PROGRAM("10.96.0.1:53", IPPROTO_UDP, servers[0]);
	PROGRAM("[fd00::1]:53", IPPROTO_UDP, servers[2]);
	for (size_t i = 0; i < 3; i++) {
		struct sockaddr_storage from = {0};
		socklen_t len = sizeof(from);
		char byte = 'x';
		int fd = dial(frontends[i], SOCK_DGRAM, 0);
		int who;

		CHECK(fd >= 0);
		CHECK_TEXT(peer(fd), frontends[i]);
		CHECK(send(fd, &byte, 1, 0) == 1);
		who = who_was_asked(udp_servers);
		CHECK(who >= 0 &&
		      recvfrom(udp_servers[who], &byte, 1, 0, (struct sockaddr *)&from, &len) == 1);
		CHECK(sendto(udp_servers[who], &byte, 1, 0, (struct sockaddr *)&from, len) == 1);
		len = sizeof(from);
		CHECK(recvfrom(fd, &byte, 1, 0, (struct sockaddr *)&from, &len) == 1);
		CHECK_TEXT(show(&from), frontends[i]);
		close(fd);
	}
}

/* Unconnected only: the kernel has no connect hook for UDP-Lite. */
static void udplite(void)
{
	struct addr frontend = parse("10.96.0.1:53");
	struct addr server = parse(servers[0]);
	struct sockaddr_storage from = {0};
	socklen_t len = sizeof(from);
	int at = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
	int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
	char byte = 'x';

	PROGRAM("10.96.0.1:53", IPPROTO_UDP, servers[0]);
	if (at < 0) {
		printf("# the kernel has no UDP-Lite\n");
		return;
	}
	CHECK(bind(at, (struct sockaddr *)&server.ss, server.len) == 0);
	CHECK(sendto(fd, &byte, 1, 0, (struct sockaddr *)&frontend.ss, frontend.len) == 1);
	CHECK(recvfrom(at, &byte, 1, MSG_DONTWAIT, (struct sockaddr *)&from, &len) == 1);
	CHECK(sendto(at, &byte, 1, 0, (struct sockaddr *)&from, len) == 1);
	len = sizeof(from);
	CHECK(recvfrom(fd, &byte, 1, MSG_DONTWAIT, (struct sockaddr *)&from, &len) == 1);
	CHECK_TEXT(show(&from), "10.96.0.1:53");
	close(fd);
	close(at);
}

static void no_backend(void)
{
	int fd = udp_socket(AF_INET);
	uint64_t before = refused(PB_HOOK_CONNECT4);

	program("10.96.0.1:80", IPPROTO_TCP, (const char *const[]){NULL});
	program("10.96.0.1:53", IPPROTO_UDP, (const char *const[]){NULL});
	program("[fd00::1]:80", IPPROTO_TCP, (const char *const[]){NULL});
	CHECK(dial("10.96.0.1:80", SOCK_STREAM, 0) < 0 && errno == ECONNREFUSED);
	CHECK(dial("[fd00::1]:80", SOCK_STREAM, 0) < 0 && errno == ECONNREFUSED);
	CHECK(dial("[::ffff:10.96.0.1]:80", SOCK_STREAM, 0) < 0 && errno == ECONNREFUSED);
	CHECK(dial("10.96.0.1:53", SOCK_DGRAM, 0) < 0 && errno == ECONNREFUSED);
	CHECK_TEXT(ask_udp(fd, "10.96.0.1:53", NULL), strerror(ECONNREFUSED));
	CHECK(refused(PB_HOOK_CONNECT4) == before + 2);
	/* K13: nothing remembers the refusal. */
	PROGRAM("10.96.0.1:53", IPPROTO_UDP, servers[1]);
	CHECK_TEXT(ask_udp(fd, "10.96.0.1:53", NULL), "10.96.0.1:53");
	close(fd);
}

static void fail_open(void)
{
	program("127.0.0.1:8001", IPPROTO_TCP, (const char *const[]){NULL});
	CHECK(dial("127.0.0.1:8001", SOCK_STREAM, 0) < 0 && errno == ECONNREFUSED);
	set_flags("127.0.0.1:8001", IPPROTO_TCP, PB_SVC_FAIL_OPEN);
	CHECK(reach_tcp("127.0.0.1:8001", NULL) == 0);
}

static void untouched(void)
{
	char name[128] = "";

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[1]);
	CHECK(reach_tcp(servers[0], name) == 0);
	CHECK_TEXT(name, servers[0]);
	CHECK(count_reverse() == 0);
	/* K56: port 0 means what it means to the kernel, even if a frontend were there. */
	PROGRAM("127.0.0.1:0", IPPROTO_TCP, servers[1]);
	CHECK(dial("127.0.0.1:0", SOCK_STREAM, 0) < 0);
	CHECK(count_reverse() == 0);
}

/* In this network namespace, which is the test's own. */
static bool allow_ping_sockets(void)
{
	FILE *f = fopen("/proc/sys/net/ipv4/ping_group_range", "w");

	if (!f)
		return false;
	fputs("0 2147483647", f);
	return fclose(f) == 0;
}

/* The address of a ping is a Service's, its "port" and its protocol are not. */
static void ping_is_no_service(void)
{
	int fd;

	PROGRAM("127.0.0.5:80", IPPROTO_TCP, servers[1]);
	PROGRAM("127.0.0.5:80", IPPROTO_UDP, servers[1]);
	CHECK(allow_ping_sockets());
	fd = dial("127.0.0.5:80", SOCK_DGRAM, IPPROTO_ICMP);
	CHECK(fd >= 0);
	CHECK_TEXT(peer(fd), "127.0.0.5:80");
	CHECK(count_reverse() == 0);
	close(fd);
}

static void spread(void)
{
	unsigned hits[2] = {0, 0};

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[0], servers[1]);
	for (int i = 0; i < 200; i++) {
		int who = reach_tcp("10.96.0.1:80", NULL);

		if (who == 0 || who == 1)
			hits[who]++;
	}
	/* 200 fair coins fall outside 50..150 once in 10^12 runs. */
	CHECK(hits[0] + hits[1] == 200 && hits[0] >= 50 && hits[1] >= 50);
}

static void udp_sticks(void)
{
	bool seen[2] = {false, false};

	PROGRAM("10.96.0.1:53", IPPROTO_UDP, servers[0], servers[1]);
	for (int s = 0; s < 40; s++) {
		int fd = udp_socket(AF_INET);
		int first = -1;

		ask_udp(fd, "10.96.0.1:53", &first);
		for (int i = 0; i < 5; i++) {
			int who = -1;

			CHECK_TEXT(ask_udp(fd, "10.96.0.1:53", &who), "10.96.0.1:53");
			CHECK(who == first);
		}
		if (first == 0 || first == 1)
			seen[first] = true;
		close(fd);
	}
	CHECK(seen[0] && seen[1]);
}

static void stale_reverse(void)
{
	int fd;

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[0]);
	fd = dial("10.96.0.1:80", SOCK_STREAM, 0);
	CHECK_TEXT(peer(fd), "10.96.0.1:80");
	CHECK(count_reverse() == 1);
	/* The frontend goes to another Service: a new id. */
	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[1]);
	CHECK_TEXT(peer(fd), servers[0]);
	CHECK(count_reverse() == 0);
	close(fd);
	close(accept(tcp_servers[0], NULL, NULL));

	fd = dial("10.96.0.1:80", SOCK_STREAM, 0);
	unprogram("10.96.0.1:80", IPPROTO_TCP);
	CHECK_TEXT(peer(fd), servers[1]);
	CHECK(count_reverse() == 0);
	close(fd);
	close(accept(tcp_servers[1], NULL, NULL));
}

static void connection_outlives_backend(void)
{
	char byte = 'x';
	int fd, server;

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[0]);
	fd = dial("10.96.0.1:80", SOCK_STREAM, 0);
	server = accept(tcp_servers[0], NULL, NULL);
	CHECK(fd >= 0 && server >= 0);
	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[1]);
	CHECK(send(fd, &byte, 1, 0) == 1 && recv(server, &byte, 1, 0) == 1);
	unprogram("10.96.0.1:80", IPPROTO_TCP);
	CHECK(send(server, &byte, 1, 0) == 1 && recv(fd, &byte, 1, 0) == 1);
	close(fd);
	close(server);
}

static void shared_backend(void)
{
	int fd = udp_socket(AF_INET);

	PROGRAM("10.96.0.1:53", IPPROTO_UDP, servers[0]);
	PROGRAM("10.96.0.2:53", IPPROTO_UDP, servers[0]);
	CHECK_TEXT(ask_udp(fd, "10.96.0.1:53", NULL), "10.96.0.1:53");
	CHECK_TEXT(ask_udp(fd, "10.96.0.2:53", NULL), "10.96.0.2:53");
	CHECK_TEXT(ask_udp(fd, "10.96.0.1:53", NULL), "10.96.0.1:53");
	CHECK(count_reverse() == 1);
	close(fd);
}

static void fast_open(void)
{
	struct addr to = parse("10.96.0.1:80");
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	int server = -1;
	char byte = 'x';

	PROGRAM("10.96.0.1:80", IPPROTO_TCP, servers[1]);
	if (sendto(fd, &byte, 1, MSG_FASTOPEN, (struct sockaddr *)&to.ss, to.len) < 0 &&
	    errno == EOPNOTSUPP) {
		printf("# net.ipv4.tcp_fastopen forbids it\n");
		close(fd);
		return;
	}
	CHECK(who_was_asked(tcp_servers) == 1);
	server = accept(tcp_servers[1], NULL, NULL);
	CHECK(recv(server, &byte, 1, 0) == 1);
	CHECK_TEXT(peer(fd), "10.96.0.1:80");
	close(fd);
	close(server);
}

/* Entry, slot and record have to agree on the pool, and the entry has to be the key's. */
static void foreign_slot(void)
{
	static const struct {
		const char *key; /* whose tie the entry has */
		uint32_t entry, slot, record;
	} wrong[] = {
		{"10.96.0.1:80", 1000, 999, 999},
		{"10.96.0.1:80", 1000, 1000, 999},
		{"10.96.0.99:80", 1000, 1000, 1000},
	};
	struct pb_svc_key key = key_of("10.96.0.1:80", IPPROTO_TCP);

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct pb_svc_key other = key_of(wrong[i].key, IPPROTO_TCP);
		struct pb_svc svc = {.id = 1000,
				     .base = next_slot,
				     .count = 1,
				     .tie = pb_svc_tie(&other, wrong[i].entry)};
		struct pb_svc_slot slot = {.backend = next_slot, .pool = wrong[i].slot};

		set_backends(wrong[i].record, next_slot, servers, 1);
		bpf_map_update_elem(slots_fd, &next_slot, &slot, 0);
		bpf_map_update_elem(services_fd, &key, &svc, 0);
		next_slot++;
		CHECK(dial("10.96.0.1:80", SOCK_STREAM, 0) < 0 && errno == ECONNREFUSED);
	}
}

/* ---- changes while programs run ---- */

/* The memory of an array, as host->map_memory() gives it. */
static void *memory_of(int fd, size_t *ret_len)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *memory;

	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return NULL;
	*ret_len =
		((info.value_size + 7) / 8 * 8 * (size_t)info.max_entries + page - 1) / page * page;
	memory = mmap(NULL, *ret_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

/* Slots and backends below are those of the other cases. */
#define CHURN_FIRST 65536
#define CHURN_MAX 64 /* backends that a pool can have */

/* A frontend whose backends come and go, written by the plugin's own code. */
struct churn {
	struct kpr_pool *pool;
	struct pb_svc_key key;
	struct pb_svc value;
	uint32_t net;	     /* its backends are 127.NET.0.n:7000; 0: the first two servers */
	uint32_t n_backends; /* that it can have */
	bool has[CHURN_MAX];
};

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int churn_open(struct kpr_store *st)
{
	size_t slots_len = 0, backends_len = 0;
	void *slots = memory_of(slots_fd, &slots_len);
	void *backends = memory_of(backends_fd, &backends_len);

	if (!slots || !backends ||
	    kpr_store_init(st, slots, (uint32_t)(slots_len / sizeof(struct pb_svc_slot)), backends,
			   (uint32_t)(backends_len / sizeof(struct pb_svc_backend))) < 0)
		return -1;
	return kpr_ranges_claim(&st->ranges, 0, CHURN_FIRST) < 0 ||
			       kpr_ranges_claim(&st->ids, 0, CHURN_FIRST) < 0
		       ? -1
		       : 0;
}

static struct pb_svc_backend churn_backend(const struct churn *c, uint32_t n)
{
	char text[32];
	struct pb_svc_key b;

	snprintf(text, sizeof(text), "127.%u.0.%u:7000", c->net, n);
	b = key_of(c->net ? text : servers[n], 0);
	return (struct pb_svc_backend){.addr = b.addr, .port = b.port, .family = b.family};
}

/* Some backends come, others go, one always stays; then the frontend is written. */
static void churn_once(struct kpr_store *st, struct churn *c, unsigned *seed)
{
	struct pb_svc_backend adds[CHURN_MAX];
	uint32_t removes[CHURN_MAX];
	struct kpr_update u = {.pool = c->pool, .add = adds, .remove = removes};
	uint32_t stays = (uint32_t)rand_r(seed) % c->n_backends;
	uint32_t base = c->value.base, n = (uint32_t)rand_r(seed) % 4;
	bool known = c->value.room > 0;

	for (uint32_t i = 0; i < c->n_backends; i++) {
		bool want = i == stays || (uint32_t)rand_r(seed) % 4 < n;

		if (want && !c->has[i])
			adds[u.n_add++] = churn_backend(c, i);
		c->has[i] = want;
	}
	for (uint32_t i = 0; i < c->pool->count; i++) {
		const struct pb_svc_backend *b = kpr_pool_at(st, c->pool, i);

		for (uint32_t k = 0; k < c->n_backends; k++) {
			struct pb_svc_backend other = churn_backend(c, k);

			if (!c->has[k] && other.addr.v4 == b->addr.v4 && other.port == b->port)
				removes[u.n_remove++] = i;
		}
	}
	kpr_store_release(st, monotonic_ns());
	kpr_pool_index(st, c->pool);
	if (kpr_update_plan(st, &u) < 0)
		_exit(1);
	kpr_update_apply(st, &u);
	c->value.tie = pb_svc_tie(&c->key, c->pool->id);
	c->value.base = c->pool->base;
	c->value.count = c->pool->count;
	c->value.room = c->pool->room;
	bpf_map_update_elem(services_fd, &c->key, &c->value, 0);
	kpr_pool_ref(c->pool);
	if (known)
		kpr_pool_unref(st, c->pool, base);
	kpr_store_unnamed(st, monotonic_ns());
}

/* Changes the frontends in turn, as fast as it can, until it is told to stop. */
static void churn_all(struct churn *c, unsigned n, int ready_fd, int stop_fd)
{
	struct pollfd stop = {.fd = stop_fd, .events = POLLIN};
	struct kpr_store st;
	unsigned seed = 1;

	if (churn_open(&st) < 0)
		_exit(1);
	for (unsigned i = 0; i < n; i++) {
		c[i].pool = kpr_pool_new(&st);
		if (!c[i].pool)
			_exit(1);
		/* Anything but NULL: it is wanted. */
		c[i].pool->port = (struct kpr_port *)(void *)&c[i];
		churn_once(&st, &c[i], &seed);
	}
	if (write(ready_fd, "x", 1) != 1)
		_exit(1);
	while (poll(&stop, 1, 0) == 0)
		for (unsigned i = 0; i < n; i++)
			churn_once(&st, &c[i], &seed);
	kpr_store_free(&st);
	_exit(0);
}

/* Runs fn while a child changes the frontends. */
static void while_churning(struct churn *c, unsigned n, void (*fn)(void))
{
	int stop_fds[2], ready_fds[2], status = -1;
	char byte;
	pid_t pid;

	CHECK(pipe(stop_fds) == 0 && pipe(ready_fds) == 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		close(stop_fds[1]);
		churn_all(c, n, ready_fds[1], stop_fds[0]);
	}
	close(stop_fds[0]);
	close(ready_fds[1]);
	if (read(ready_fds[0], &byte, 1) == 1)
		fn();
	close(stop_fds[1]);
	close(ready_fds[0]);
	waitpid(pid, &status, 0);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void connect_many(void)
{
	unsigned good = 0;

	for (int i = 0; i < 3000; i++) {
		int who = reach_tcp("10.96.0.1:80", NULL);

		good += who == 0 || who == 1;
	}
	CHECK(good == 3000);
}

static void changes_under_load(void)
{
	struct churn c = {.key = key_of("10.96.0.1:80", IPPROTO_TCP), .n_backends = 2};

	c.value.id = next_id++;
	while_churning(&c, 1, connect_many);
}

#define N_CHURNED 3
#define N_DIALS 100000

/*
 * connect() of a UDP socket runs the program and sends nothing. Without the hook of getpeername
 * the socket names the backend.
 */
static void dial_many(void)
{
	static const char *const frontends[N_CHURNED] = {"10.96.0.1:53", "10.96.0.2:53",
							 "10.96.0.3:53"};
	unsigned refused_calls = 0, wrong = 0;

	for (unsigned i = 0; i < N_DIALS; i++) {
		int fd = dial(frontends[i % N_CHURNED], SOCK_DGRAM, 0);
		struct sockaddr_in in = {0};
		socklen_t len = sizeof(in);

		if (fd < 0) {
			refused_calls++;
			continue;
		}
		if (getpeername(fd, (struct sockaddr *)&in, &len) < 0 ||
		    ntohl(in.sin_addr.s_addr) >> 16 != (127 << 8 | (1 + i % N_CHURNED)) ||
		    in.sin_port != htons(7000))
			wrong++;
		close(fd);
	}
	CHECK(refused_calls == 0);
	CHECK(wrong == 0);
}

static void no_wrong_backend(void)
{
	struct churn c[N_CHURNED] = {0};
	char text[32];

	for (uint32_t i = 0; i < N_CHURNED; i++) {
		snprintf(text, sizeof(text), "10.96.0.%u:53", i + 1);
		c[i] = (struct churn){.key = key_of(text, IPPROTO_UDP),
				      .value.id = next_id++,
				      .net = i + 1,
				      .n_backends = CHURN_MAX};
	}
	CHECK(bpf_prog_detach(cgroup_fd, BPF_CGROUP_INET4_GETPEERNAME) == 0);
	while_churning(c, N_CHURNED, dial_many);
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{"tcp4_reaches_the_backend_and_getpeername_names_the_frontend", tcp4},
	{"tcp6_reaches_the_backend_and_getpeername_names_the_frontend", tcp6},
	{"K16_a_mapped_address_is_translated_and_getpeername_stays_mapped", mapped_tcp},
	{"K1_tcp_and_udp_on_one_port_are_two_frontends", both_protocols},
	{"udp_answers_come_from_the_frontend_unconnected", udp_unconnected},
	{"udp_answers_come_from_the_frontend_connected", udp_connected},
	{"udplite_counts_as_udp", udplite},
	{"K12_K13_no_backend_is_refused_and_counted_and_the_next_one_used_at_once", no_backend},
	{"K62_a_service_that_fails_open_passes_untranslated", fail_open},
	{"K56_what_names_no_frontend_is_untouched", untouched},
	{"K44_a_ping_to_a_cluster_ip_is_untouched", ping_is_no_service},
	{"tcp_connections_are_spread_over_the_backends", spread},
	{"udp_datagrams_of_a_socket_stick_to_one_backend", udp_sticks},
	{"K39_a_stale_reverse_entry_is_dropped", stale_reverse},
	{"K10_a_connection_outlives_its_backend_and_its_service", connection_outlives_backend},
	{"K38_answers_of_a_shared_backend_are_named_after_the_service_sent_to_last",
	 shared_backend},
	{"K57_tcp_fast_open_is_translated", fast_open},
	{"a_slot_of_another_frontend_is_never_used", foreign_slot},
	{"K55_no_connection_fails_while_its_service_changes", changes_under_load},
	/* The last one: it takes a hook away. */
	{"no_call_goes_to_another_services_backend_while_all_change", no_wrong_backend},
};

/* ---- the sandbox ---- */

static void empty_maps(void)
{
	struct kpr_reverse_key reverse;
	struct pb_svc_key key;

	while (bpf_map_get_next_key(services_fd, NULL, &key) == 0)
		bpf_map_delete_elem(services_fd, &key);
	while (bpf_map_get_next_key(reverse_fd, NULL, &reverse) == 0)
		bpf_map_delete_elem(reverse_fd, &reverse);
}

static void run_cases(void)
{
	for (size_t i = 0; i < N_SERVERS; i++) {
		tcp_servers[i] = serve(servers[i], SOCK_STREAM);
		udp_servers[i] = serve(servers[i], SOCK_DGRAM);
	}
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		case_ok = true;
		empty_maps();
		cases[i].run();
		n_failed += !case_ok;
		printf("%s %u - %s\n", case_ok ? "ok" : "not ok", ++n_cases, cases[i].name);
		fflush(stdout);
	}
}

static int up_loopback(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int rc = ioctl(fd, SIOCSIFFLAGS, &ifr);

	close(fd);
	return rc;
}

/* A directory of our own below the cgroup2 mount. */
static bool make_cgroup(char *path, size_t len)
{
	FILE *mounts = setmntent("/proc/mounts", "r");
	struct mntent *m;
	bool made = false;

	while (mounts && !made && (m = getmntent(mounts))) {
		if (strcmp(m->mnt_type, "cgroup2") != 0)
			continue;
		snprintf(path, len, "%s/pb-kpr-bpf.%d", m->mnt_dir, getpid());
		made = mkdir(path, 0755) == 0;
	}
	if (mounts)
		endmntent(mounts);
	return made;
}

static bool enter_cgroup(const char *path)
{
	char procs[512];
	FILE *f;
	bool ok;

	snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
	f = fopen(procs, "w");
	ok = f && fprintf(f, "%d\n", getpid()) > 0;
	return f && fclose(f) == 0 && ok;
}

static int child(const char *cgroup)
{
	DIR *dir = opendir(cgroup);

	if (!dir || unshare(CLONE_NEWNET) < 0 || up_loopback() < 0 || !enter_cgroup(cgroup)) {
		printf("Bail out! sandbox: %s\n", strerror(errno));
		return 1;
	}
	cgroup_fd = dirfd(dir);
	for (uint32_t hook = PB_HOOK_CONNECT4; hook <= PB_HOOK_GETPEERNAME6; hook++) {
		int rc = load_hook(hook);

		if (rc < 0) {
			printf("Bail out! %s can't be loaded: %s\n",
			       hook_names[hook - PB_HOOK_CONNECT4], strerror(-rc));
			return 1;
		}
	}
	run_cases();
	return n_failed > 0;
}

int main(void)
{
	char cgroup[256];
	int status = 1;
	pid_t pid;

	if (geteuid() != 0) {
		printf("1..0 # SKIP needs root\n");
		return 0;
	}
	if (!make_cgroup(cgroup, sizeof(cgroup))) {
		printf("1..0 # SKIP no cgroup2 mount in which a directory can be made\n");
		return 0;
	}
	printf("1..%zu\n", sizeof(cases) / sizeof(cases[0]));
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		status = child(cgroup);
		fflush(stdout);
		_exit(status);
	}
	waitpid(pid, &status, 0);
	/* Its programs go with it. */
	rmdir(cgroup);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
