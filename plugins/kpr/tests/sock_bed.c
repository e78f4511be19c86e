/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading, map entries and the sandbox.
 */
#include "sock_bed.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <mntent.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include <plugins/kpr/kpr.skel.h>
#include <plugins/kpr/tests/exit.skel.h>

#define N_HOOKS (PB_HOOK_SOCK_RELEASE - PB_HOOK_CONNECT4 + 1)

/* Not in the C library's headers yet. */
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static const char *const hook_names[N_HOOKS] = {"connect4",	"connect6",	"sendmsg4",
						"sendmsg6",	"recvmsg4",	"recvmsg6",
						"getpeername4", "getpeername6", "bind4",
						"bind6",	"sock_release"};

static const char *const map_names[N_MAPS] = {
	[MAP_SERVICES] = "kpr_services", [MAP_SLOTS] = "kpr_slots",
	[MAP_BACKENDS] = "kpr_backends", [MAP_REVERSE] = "kpr_reverse",
	[MAP_SETTINGS] = "kpr_settings", [MAP_AFFINITY] = "kpr_affinity",
	[MAP_IPCACHE4] = "pb_ipcache4",	 [MAP_IPCACHE6] = "pb_ipcache6",
	[MAP_DROPS] = "pb_drops"};

int map_fds[N_MAPS] = {-1, -1, -1, -1, -1, -1, -1, -1, -1};
int cgroup_fd = -1;
bool case_ok;
static unsigned n_failed;
static int host_ns = -1;
static int pod_ns = -1;
static pid_t pod_pid;

/* ---- judging ---- */

void check_text(const char *is, const char *should, const char *file, int line)
{
	if (strcmp(is, should) == 0)
		return;
	printf("# %s:%d: is \"%s\", should be \"%s\"\n", file, line, is, should);
	case_ok = false;
}

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

static int share_maps(struct bpf_object *obj)
{
	int rc = 0;

	for (size_t i = 0; i < N_MAPS && rc == 0; i++)
		if (map_fds[i] >= 0)
			rc = bpf_map__reuse_fd(bpf_object__find_map_by_name(obj, map_names[i]),
					       map_fds[i]);
	return rc;
}

static void keep_maps(struct bpf_object *obj)
{
	for (size_t i = 0; i < N_MAPS; i++)
		if (map_fds[i] < 0)
			map_fds[i] = dup(bpf_object__find_map_fd_by_name(obj, map_names[i]));
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
	    set_rodata(kpr, "pb_hook_id", hook) < 0 || share_maps(kpr) < 0 ||
	    bpf_object__load(kpr) < 0 || bpf_object__load(end) < 0)
		return -EINVAL;
	keep_maps(kpr);
	exit_fd = bpf_program__fd(find(end, "exit", name));
	if (bpf_map_update_elem(bpf_object__find_map_fd_by_name(kpr, "pb_chain"), &exit_slot,
				&exit_fd, 0) < 0)
		return -errno;
	/* The objects stay open: a chain array empties when its last user goes. */
	return bpf_prog_attach(bpf_program__fd(find(kpr, "kpr", name)), cgroup_fd,
			       bpf_program__expected_attach_type(find(kpr, "kpr", name)), 0);
}

/* ---- map entries ---- */

struct pb_svc_key key_of(const char *text, uint8_t protocol)
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

uint32_t next_slot;
uint32_t next_id = 1;

/* Slots from `base` on, each with the backend of its own number. */
void set_backends(uint32_t pool, uint32_t base, const char *const *backends, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct pb_svc_key b = key_of(backends[i], 0);
		struct pb_svc_backend backend = {.addr = b.addr,
						 .port = b.port,
						 .family = b.family,
						 .pool = pool};
		struct pb_svc_slot slot = {.backend = base + i, .pool = pool};
		uint32_t at = base + i;

		bpf_map_update_elem(map_fds[MAP_BACKENDS], &at, &backend, 0);
		bpf_map_update_elem(map_fds[MAP_SLOTS], &at, &slot, 0);
	}
}

uint32_t program(const char *frontend, uint8_t protocol, const char *const *backends)
{
	struct pb_svc_key key = key_of(frontend, protocol);
	struct pb_svc svc = {.id = next_id++, .base = next_slot};

	svc.tie = pb_svc_tie(&key, svc.id);
	while (backends[svc.count])
		svc.count++;
	set_backends(svc.id, svc.base, backends, svc.count);
	next_slot += svc.count;
	bpf_map_update_elem(map_fds[MAP_SERVICES], &key, &svc, 0);
	return svc.id;
}

void set_flags(const char *frontend, uint8_t protocol, uint32_t flags)
{
	struct pb_svc_key key = key_of(frontend, protocol);
	struct pb_svc svc;

	CHECK(bpf_map_lookup_elem(map_fds[MAP_SERVICES], &key, &svc) == 0);
	svc.flags = flags;
	bpf_map_update_elem(map_fds[MAP_SERVICES], &key, &svc, 0);
}

void set_affinity(const char *frontend, uint8_t protocol, uint32_t seconds)
{
	struct pb_svc_key key = key_of(frontend, protocol);
	struct pb_svc svc;

	CHECK(bpf_map_lookup_elem(map_fds[MAP_SERVICES], &key, &svc) == 0);
	svc.affinity_id = seconds == 0 ? 0 : svc.affinity_s > 0 ? svc.affinity_id : next_id++;
	svc.affinity_s = seconds;
	bpf_map_update_elem(map_fds[MAP_SERVICES], &key, &svc, 0);
}

void unprogram(const char *frontend, uint8_t protocol)
{
	struct pb_svc_key key = key_of(frontend, protocol);

	CHECK(bpf_map_delete_elem(map_fds[MAP_SERVICES], &key) == 0);
}

unsigned count_reverse(void)
{
	struct kpr_reverse_key key;
	void *at = NULL;
	unsigned n = 0;

	for (; bpf_map_get_next_key(map_fds[MAP_REVERSE], at, &key) == 0; at = &key)
		n++;
	return n;
}

uint64_t refused(uint32_t hook)
{
	int cpus = libbpf_num_possible_cpus();
	__u32 key = hook * PB_REASON_COUNT + PB_REASON_NO_SERVICE;
	uint64_t values[256] = {0};
	uint64_t sum = 0;

	if (cpus > 256 || bpf_map_lookup_elem(map_fds[MAP_DROPS], &key, values) < 0)
		return 0;
	for (int i = 0; i < cpus; i++)
		sum += values[i];
	return sum;
}

void set_up(uint32_t flags)
{
	struct pb_svc_settings s = {.flags = flags | PB_SVC_SET_BIND_PROTECTION,
				    .node_port_min = 30000,
				    .node_port_max = 32767};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	socklen_t len = sizeof(s.host_netns);
	__u32 zero = 0;

	s.node4 = inet_addr(HOST_ADDR);
	CHECK(getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &s.host_netns, &len) == 0);
	close(fd);
	CHECK(bpf_map_update_elem(map_fds[MAP_SETTINGS], &zero, &s, 0) == 0);
}

void set_identity(const char *address, uint32_t identity)
{
	struct pb_ipcache_value value = {.identity = identity};
	struct pb_ipcache_key4 key4 = {.bits = 32};
	struct pb_ipcache_key6 key6 = {.bits = 128};

	if (inet_pton(AF_INET, address, &key4.addr) == 1)
		CHECK(bpf_map_update_elem(map_fds[MAP_IPCACHE4], &key4, &value, 0) == 0);
	else
		CHECK(inet_pton(AF_INET6, address, key6.addr) == 1 &&
		      bpf_map_update_elem(map_fds[MAP_IPCACHE6], &key6, &value, 0) == 0);
}

/* ---- the sandbox ---- */

static void empty_map(enum bed_map map)
{
	char key[64];

	while (bpf_map_get_next_key(map_fds[map], NULL, key) == 0)
		bpf_map_delete_elem(map_fds[map], key);
}

static void empty_maps(void)
{
	static const struct pb_svc_settings none;
	__u32 zero = 0;

	empty_map(MAP_SERVICES);
	empty_map(MAP_REVERSE);
	empty_map(MAP_AFFINITY);
	empty_map(MAP_IPCACHE4);
	empty_map(MAP_IPCACHE6);
	bpf_map_update_elem(map_fds[MAP_SETTINGS], &zero, &none, 0);
}

static void run_cases(const struct sock_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		case_ok = true;
		empty_maps();
		cases[i].run();
		n_failed += !case_ok;
		printf("%s %zu - %s\n", case_ok ? "ok" : "not ok", i + 1, cases[i].name);
		fflush(stdout);
	}
}

void in_pod(void (*fn)(void))
{
	CHECK(setns(pod_ns, CLONE_NEWNET) == 0);
	fn();
	/* What follows would be judged in the wrong place. */
	if (setns(host_ns, CLONE_NEWNET) < 0)
		_exit(1);
}

pid_t pod_process(void)
{
	return pod_pid;
}

/* A process in a namespace of its own, until this one ends. */
static int start_pod(void)
{
	int ready[2], alive[2];
	char path[64], byte;
	bool ok;

	if (pipe(ready) < 0 || pipe(alive) < 0)
		return -1;
	pod_pid = fork();
	if (pod_pid == 0) {
		close(alive[1]);
		if (unshare(CLONE_NEWNET) == 0 && write(ready[1], "x", 1) == 1)
			while (read(alive[0], &byte, 1) > 0)
				;
		_exit(0);
	}
	close(ready[1]);
	close(alive[0]);
	ok = pod_pid > 0 && read(ready[0], &byte, 1) == 1;
	close(ready[0]);
	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pod_pid);
	host_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	pod_ns = ok ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	return host_ns < 0 || pod_ns < 0 ? -1 : 0;
}

static void pod_addresses(void)
{
	CHECK(system("ip link set lo up && ip addr add " POD_ADDR
		     "/24 dev eth0 && ip link set eth0 up && ip route add default "
		     "via " HOST_ADDR) == 0);
}

static int build_net(void)
{
	char command[512];

	snprintf(command, sizeof(command),
		 "ip link set lo up && ip link add v0 type veth peer name eth0 netns %d && "
		 "ip addr add " HOST_ADDR "/24 dev v0 && ip link set v0 up && "
		 "ip route add default via " POD_ADDR,
		 (int)pod_pid);
	case_ok = true;
	if (system(command) != 0)
		return -1;
	in_pod(pod_addresses);
	return case_ok ? 0 : -1;
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

static int load_all(void)
{
	for (uint32_t hook = PB_HOOK_CONNECT4; hook <= PB_HOOK_SOCK_RELEASE; hook++) {
		int rc = load_hook(hook);

		if (rc < 0) {
			printf("Bail out! %s can't be loaded: %s\n",
			       hook_names[hook - PB_HOOK_CONNECT4], strerror(-rc));
			return -1;
		}
	}
	return 0;
}

static int child(const char *cgroup, const struct sock_case *cases, size_t n)
{
	DIR *dir = opendir(cgroup);

	if (!dir || unshare(CLONE_NEWNET) < 0 || start_pod() < 0 || build_net() < 0 ||
	    !enter_cgroup(cgroup)) {
		printf("Bail out! sandbox: %s\n", strerror(errno));
		return 1;
	}
	cgroup_fd = dirfd(dir);
	if (load_all() < 0)
		return 1;
	serve_all();
	run_cases(cases, n);
	return n_failed > 0;
}

int sock_bed_run(const struct sock_case *cases, size_t n)
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
	printf("1..%zu\n", n);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		status = child(cgroup, cases, n);
		fflush(stdout);
		_exit(status);
	}
	waitpid(pid, &status, 0);
	/* Its programs go with it. */
	rmdir(cgroup);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
