/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kpr's socket programs in the kernel, without the agent: loaded as the core loads them, attached
 * to a cgroup of the test, fed by hand-written map entries and judged by real sockets.
 *
 * Owns the sandbox: a "host" network namespace in which a test runs, a "pod" namespace beside it
 * with a process of its own, joined by a veth pair (10.1.0.1 and 10.1.0.2), and the cgroup.
 * Everything vanishes with the test's process but the cgroup, which sock_bed_run() removes.
 */
#ifndef KPR_TESTS_SOCK_BED_H
#define KPR_TESTS_SOCK_BED_H

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "../kpr_abi.h"

#define HOST_ADDR "10.1.0.1"
#define POD_ADDR "10.1.0.2"

/* ---- judging ---- */

extern bool case_ok;

#define CHECK(cond_)                                                                               \
	do {                                                                                       \
		if (!(cond_)) {                                                                    \
			printf("# %s:%d: %s (errno %s)\n", __FILE__, __LINE__, #cond_,             \
			       strerror(errno));                                                   \
			case_ok = false;                                                           \
		}                                                                                  \
	} while (0)

void check_text(const char *is, const char *should, const char *file, int line);
#define CHECK_TEXT(is_, should_) check_text(is_, should_, __FILE__, __LINE__)

/* ---- the sandbox ---- */

struct sock_case {
	const char *name;
	void (*run)(void);
};

/* The whole of main(): TAP of all cases, each with empty maps. */
int sock_bed_run(const struct sock_case *cases, size_t n);
/* Runs fn in the pod's network namespace; sockets that it makes stay there. */
void in_pod(void (*fn)(void));
/* The process that lives in it. */
pid_t pod_process(void);

/* ---- the maps ---- */

enum bed_map {
	MAP_SERVICES,
	MAP_SLOTS,
	MAP_BACKENDS,
	MAP_REVERSE,
	MAP_SETTINGS,
	MAP_AFFINITY,
	MAP_IPCACHE4,
	MAP_IPCACHE6,
	MAP_DROPS,
	N_MAPS,
};

extern int map_fds[N_MAPS];
extern int cgroup_fd;
extern uint32_t next_slot;
extern uint32_t next_id;

struct pb_svc_key key_of(const char *text, uint8_t protocol);
void set_backends(uint32_t pool, uint32_t base, const char *const *backends, uint32_t n);
/* Programs a frontend as kpr_maps.c does; returns its id, which is its pool's too. */
uint32_t program(const char *frontend, uint8_t protocol, const char *const *backends);
#define PROGRAM(frontend_, protocol_, ...)                                                         \
	program(frontend_, protocol_, (const char *const[]){__VA_ARGS__, NULL})
/* Changes flags, kind and affinity of a frontend that is there. */
void set_flags(const char *frontend, uint8_t protocol, uint32_t flags);
#define KIND(kind_) ((uint32_t)(kind_) << PB_SVC_KIND_SHIFT)
void set_affinity(const char *frontend, uint8_t protocol, uint32_t seconds);
void unprogram(const char *frontend, uint8_t protocol);
/* This namespace is the host's, NodePorts are 30000 to 32767, bind is protected, and `flags`. */
void set_up(uint32_t flags);
void set_identity(const char *address, uint32_t identity);
unsigned count_reverse(void);
/* Calls refused for want of a backend. */
uint64_t refused(uint32_t hook);

/* ---- sockets ---- */

struct addr {
	struct sockaddr_storage ss;
	socklen_t len;
};

/* Backends: every address listens on TCP and UDP. The last two can be reached from the pod. */
#define N_SERVERS 6
extern const char *const servers[N_SERVERS];
extern int tcp_servers[N_SERVERS];
extern int udp_servers[N_SERVERS];

/* "1.2.3.4:80" or "[::1]:80"; a mapped address in brackets is AF_INET6. */
struct addr parse(const char *text);
const char *show(const struct sockaddr_storage *ss);
int serve(const char *at, int type);
void serve_all(void);
/* -1 with errno when the connect fails. */
int dial(const char *to, int type, int protocol);
/* 0, or the errno of bind(). */
int try_bind(const char *at, int type, int protocol);
const char *peer(int fd);
/* Which of the servers has something to read within 1 s; -1: none. */
int who_was_asked(const int *fds);
/* The server that a connection to `to` reaches, by number; the peer's name goes to `name`. */
int reach_tcp(const char *to, char *name);
/* Sends from `fd` to `to`, lets the server answer; from whom the answer seems to be. */
const char *ask_udp(int fd, const char *to, int *ret_who);
int udp_socket(int family);

#endif
