/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For a program type, an attach type or a helper the smallest program that has it is loaded; for a
 * kind of map one is made; INET_DIAG_DESTROY is tried on a socket of our own.
 */
#include "kpr_probe.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Newer than the headers that it may be built with. */
#define FUNC_SET_RETVAL 187

#define INSN(code_, dst_, src_, off_, imm_)                                                        \
	{                                                                                          \
		.code = (code_), .dst_reg = (dst_), .src_reg = (src_), .off = (off_),              \
		.imm = (imm_)                                                                      \
	}
#define MOV_IMM(dst_, imm_) INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst_, 0, 0, imm_)
#define MOV_REG(dst_, src_) INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst_, src_, 0, 0)
#define ADD_IMM(dst_, imm_) INSN(BPF_ALU64 | BPF_ADD | BPF_K, dst_, 0, 0, imm_)
#define ZERO_AT(off_) INSN(BPF_ST | BPF_MEM | BPF_DW, BPF_REG_10, 0, off_, 0)
#define CALL(func_) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, func_)
#define EXIT() INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

#define INSNS_MAX 16

struct program {
	uint32_t type;
	uint32_t attach;
	struct bpf_insn insns[INSNS_MAX];
};

static int sys_bpf(int cmd, union bpf_attr *attr)
{
	long rc = syscall(__NR_bpf, cmd, attr, sizeof(*attr));

	return rc < 0 ? -errno : (int)rc;
}

/* ---- programs ---- */

static int try_program(const struct program *p)
{
	static const char license[] = "GPL";
	union bpf_attr attr;
	uint32_t n = INSNS_MAX;
	int fd;

	while (n > 0 && p->insns[n - 1].code == 0)
		n--;
	memset(&attr, 0, sizeof(attr));
	attr.prog_type = p->type;
	attr.expected_attach_type = p->attach;
	attr.insns = (uintptr_t)p->insns;
	attr.insn_cnt = n;
	attr.license = (uintptr_t)license;
	fd = sys_bpf(BPF_PROG_LOAD, &attr);
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

/* A hook exists when a program for it that does nothing loads. */
static int try_hooks(uint32_t type, uint32_t first, uint32_t second)
{
	struct program p = {.type = type,
			    .attach = first,
			    .insns = {MOV_IMM(BPF_REG_0, 1), EXIT()}};
	int rc = try_program(&p);

	p.attach = second;
	return rc < 0 ? rc : try_program(&p);
}

static int try_connect(void)
{
	int rc = try_hooks(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT,
			   BPF_CGROUP_INET6_CONNECT);

	return rc < 0 ? rc
		      : try_hooks(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_UDP4_SENDMSG,
				  BPF_CGROUP_UDP6_SENDMSG);
}

static int try_recvmsg(void)
{
	return try_hooks(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_UDP4_RECVMSG,
			 BPF_CGROUP_UDP6_RECVMSG);
}

static int try_getpeername(void)
{
	return try_hooks(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_GETPEERNAME,
			 BPF_CGROUP_INET6_GETPEERNAME);
}

static int try_bind(void)
{
	return try_hooks(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_BIND,
			 BPF_CGROUP_INET6_BIND);
}

static int try_sock_release(void)
{
	return try_hooks(BPF_PROG_TYPE_CGROUP_SOCK, BPF_CGROUP_INET_SOCK_RELEASE,
			 BPF_CGROUP_INET_SOCK_RELEASE);
}

static int try_set_retval(void)
{
	static const struct program p = {
		.type = BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
		.attach = BPF_CGROUP_INET4_CONNECT,
		.insns = {MOV_IMM(BPF_REG_1, -ECONNREFUSED), CALL(FUNC_SET_RETVAL),
			  MOV_IMM(BPF_REG_0, 1), EXIT()},
	};

	return try_program(&p);
}

static int try_netns_cookie(void)
{
	static const struct program p = {
		.type = BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
		.attach = BPF_CGROUP_INET4_CONNECT,
		.insns = {CALL(BPF_FUNC_get_netns_cookie), MOV_IMM(BPF_REG_0, 1), EXIT()},
	};

	return try_program(&p);
}

static int try_fib_lookup(void)
{
	static const struct program p = {
		.type = BPF_PROG_TYPE_SCHED_CLS,
		.insns = {ZERO_AT(-8), ZERO_AT(-16), ZERO_AT(-24), ZERO_AT(-32), ZERO_AT(-40),
			  ZERO_AT(-48), ZERO_AT(-56), ZERO_AT(-64), MOV_REG(BPF_REG_2, BPF_REG_10),
			  ADD_IMM(BPF_REG_2, -64), MOV_IMM(BPF_REG_3, 64), MOV_IMM(BPF_REG_4, 0),
			  CALL(BPF_FUNC_fib_lookup), MOV_IMM(BPF_REG_0, 0), EXIT()},
	};

	return try_program(&p);
}

static int try_redirect_neigh(void)
{
	static const struct program p = {
		.type = BPF_PROG_TYPE_SCHED_CLS,
		.insns = {MOV_IMM(BPF_REG_1, 1), MOV_IMM(BPF_REG_2, 0), MOV_IMM(BPF_REG_3, 0),
			  MOV_IMM(BPF_REG_4, 0), CALL(BPF_FUNC_redirect_neigh), EXIT()},
	};

	return try_program(&p);
}

/* ---- maps ---- */

static int make_map(uint32_t type, uint32_t key_size, uint32_t flags)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = type;
	attr.key_size = key_size;
	attr.value_size = 8;
	attr.max_entries = 1;
	attr.map_flags = flags;
	return sys_bpf(BPF_MAP_CREATE, &attr);
}

static int try_map(uint32_t type, uint32_t key_size, uint32_t flags)
{
	int fd = make_map(type, key_size, flags);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static int try_lru(void)
{
	return try_map(BPF_MAP_TYPE_LRU_HASH, 8, 0);
}

static int try_lpm(void)
{
	return try_map(BPF_MAP_TYPE_LPM_TRIE, 8, BPF_F_NO_PREALLOC);
}

static int try_map_memory(void)
{
	int fd = make_map(BPF_MAP_TYPE_ARRAY, 4, BPF_F_MMAPABLE);
	long len = sysconf(_SC_PAGESIZE);
	void *mem;
	int rc = 0;

	if (fd < 0)
		return fd;
	mem = mmap(NULL, (size_t)len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		rc = -errno;
	else
		munmap(mem, (size_t)len);
	close(fd);
	return rc;
}

static int try_batch(void)
{
	int fd = make_map(BPF_MAP_TYPE_HASH, 8, 0);
	uint64_t key = 1, value = 1;
	union bpf_attr attr;
	int rc;

	if (fd < 0)
		return fd;
	memset(&attr, 0, sizeof(attr));
	attr.batch.map_fd = (uint32_t)fd;
	attr.batch.keys = (uintptr_t)&key;
	attr.batch.values = (uintptr_t)&value;
	attr.batch.count = 1;
	rc = sys_bpf(BPF_MAP_UPDATE_BATCH, &attr);
	close(fd);
	return rc;
}

/* ---- sockets ---- */

struct destroy {
	struct nlmsghdr head;
	struct inet_diag_req_v2 req;
};

/* The answer to a request for acknowledgement: its errno. */
static int ask(int nl, const struct destroy *request)
{
	struct {
		struct nlmsghdr head;
		struct nlmsgerr err;
		char rest[256];
	} answer;
	ssize_t n;

	if (send(nl, request, sizeof(*request), 0) < 0)
		return -errno;
	n = recv(nl, &answer, sizeof(answer), 0);
	if (n < 0)
		return -errno;
	if ((size_t)n < sizeof(answer.head) + sizeof(answer.err) ||
	    answer.head.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return answer.err.error;
}

static int destroy_own(int nl, int fd)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t addr_len = sizeof(addr);
	uint64_t cookie = 0;
	socklen_t cookie_len = sizeof(cookie);
	struct destroy d = {
		.head = {.nlmsg_len = sizeof(d),
			 .nlmsg_type = SOCK_DESTROY,
			 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		.req = {.sdiag_family = AF_INET,
			.sdiag_protocol = IPPROTO_UDP,
			.idiag_states = ~0U},
	};

	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    getsockname(fd, (struct sockaddr *)&addr, &addr_len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &cookie_len) < 0)
		return -errno;
	d.req.id.idiag_sport = addr.sin_port;
	/* By its cookie it can be no other socket. */
	d.req.id.idiag_cookie[0] = (uint32_t)cookie;
	d.req.id.idiag_cookie[1] = (uint32_t)(cookie >> 32);
	return ask(nl, &d);
}

static int try_diag_destroy(void)
{
	int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int rc = nl < 0 || fd < 0 ? -errno : destroy_own(nl, fd);

	if (nl >= 0)
		close(nl);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int try_ipv6(void)
{
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

void kpr_probe_run(struct kpr_probe *ret_probe)
{
	static int (*const tries[KPR_FEATURE_COUNT])(void) = {
		[KPR_FEATURE_CONNECT] = try_connect,
		[KPR_FEATURE_RECVMSG] = try_recvmsg,
		[KPR_FEATURE_GETPEERNAME] = try_getpeername,
		[KPR_FEATURE_BIND] = try_bind,
		[KPR_FEATURE_SOCK_RELEASE] = try_sock_release,
		[KPR_FEATURE_SET_RETVAL] = try_set_retval,
		[KPR_FEATURE_NETNS_COOKIE] = try_netns_cookie,
		[KPR_FEATURE_LRU] = try_lru,
		[KPR_FEATURE_LPM] = try_lpm,
		[KPR_FEATURE_MAP_MEMORY] = try_map_memory,
		[KPR_FEATURE_BATCH] = try_batch,
		[KPR_FEATURE_FIB_LOOKUP] = try_fib_lookup,
		[KPR_FEATURE_REDIRECT_NEIGH] = try_redirect_neigh,
		[KPR_FEATURE_DIAG_DESTROY] = try_diag_destroy,
		[KPR_FEATURE_IPV6] = try_ipv6,
	};
	struct utsname names;

	memset(ret_probe, 0, sizeof(*ret_probe));
	if (uname(&names) == 0)
		memcpy(ret_probe->kernel, names.release, sizeof(ret_probe->kernel) - 1);
	for (int i = 0; i < KPR_FEATURE_COUNT; i++) {
		int rc = tries[i]();

		if (rc == -EPERM || rc == -EACCES || rc == -ENOMEM || rc == -EMFILE)
			ret_probe->unknown |= 1U << i;
		else if (rc < 0)
			ret_probe->missing |= 1U << i;
	}
}
