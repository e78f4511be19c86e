/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces are found through the processes that run in them: a socket needs one. A netlink
 * socket belongs for good to the namespace that it was made in, so the thread is elsewhere only
 * while it makes one.
 */
#include "kpr_sockdiag.h"

#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <libmnl/libmnl.h>
#include <linux/sock_diag.h>

#define NAMESPACES_MAX 4096

struct scan {
	struct kpr_diag *diag;
	kpr_diag_fn fn;
	void *arg;
	int own; /* the thread's namespace */
	bool hit;
	int error; /* the first one */
	uint32_t n_seen;
	uint64_t seen[NAMESPACES_MAX]; /* inodes: all namespaces are on one device */
};

static void failed(struct scan *s, int rc)
{
	if (rc < 0 && s->error == 0)
		s->error = rc;
}

/* ---- netlink ---- */

static struct nlmsghdr *request(char *buf, uint16_t type, uint16_t flags,
				const struct inet_diag_req_v2 *req)
{
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);

	msg->nlmsg_type = type;
	msg->nlmsg_flags = NLM_F_REQUEST | flags;
	msg->nlmsg_seq = 1;
	*(struct inet_diag_req_v2 *)mnl_nlmsg_put_extra_header(msg, sizeof(*req)) = *req;
	return msg;
}

/* All answers to what was just sent; cb may be NULL. */
static int answers(int fd, mnl_cb_t cb, void *arg)
{
	char buf[16384];
	int rc = MNL_CB_OK;

	while (rc == MNL_CB_OK) {
		ssize_t len = recv(fd, buf, sizeof(buf), 0);

		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			return -errno;
		rc = mnl_cb_run(buf, (size_t)len, 1, 0, cb, arg);
	}
	return rc < 0 ? -errno : 0;
}

static int on_socket(const struct nlmsghdr *msg, void *arg)
{
	const struct inet_diag_msg *sock = mnl_nlmsg_get_payload(msg);
	struct scan *s = arg;

	if (mnl_nlmsg_get_payload_len(msg) >= sizeof(*sock) && s->fn(s->arg, s->diag->n, sock))
		s->hit = true;
	return MNL_CB_OK;
}

static int dump(struct scan *s, int fd, uint8_t family)
{
	struct inet_diag_req_v2 req = {.sdiag_family = family,
				       .sdiag_protocol = IPPROTO_UDP,
				       .idiag_states = 1U << TCP_ESTABLISHED};
	char buf[256];
	struct nlmsghdr *msg = request(buf, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &req);

	if (send(fd, msg, msg->nlmsg_len, 0) < 0)
		return -errno;
	return answers(fd, on_socket, s);
}

int kpr_diag_destroy(const struct kpr_diag *d, uint32_t ns, const struct inet_diag_msg *sock)
{
	struct inet_diag_req_v2 req = {.sdiag_family = sock->idiag_family,
				       .sdiag_protocol = IPPROTO_UDP,
				       .idiag_states = 1U << TCP_ESTABLISHED,
				       .id = sock->id};
	char buf[256];
	struct nlmsghdr *msg = request(buf, SOCK_DESTROY, NLM_F_ACK, &req);

	if (send(d->fds[ns], msg, msg->nlmsg_len, 0) < 0)
		return -errno;
	return answers(d->fds[ns], NULL, NULL);
}

/* ---- namespaces ---- */

static int diag_socket(void)
{
	const struct timeval second = {.tv_sec = 1};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	return fd < 0 ? -errno : fd;
}

static int diag_socket_in(int own, int ns)
{
	int fd;

	if (setns(ns, CLONE_NEWNET) < 0)
		return -errno;
	fd = diag_socket();
	/* Whatever else runs on this thread must not find itself in a pod. */
	if (setns(own, CLONE_NEWNET) < 0)
		abort();
	return fd;
}

static void look_into(struct scan *s, int fd)
{
	int rc = dump(s, fd, AF_INET);

	failed(s, rc);
	rc = dump(s, fd, AF_INET6);
	failed(s, rc);
	s->diag->n_namespaces++;
	if (s->hit)
		s->diag->fds[s->diag->n++] = fd;
	else
		close(fd);
	s->hit = false;
}

static bool seen(const struct scan *s, uint64_t inode)
{
	for (uint32_t i = 0; i < s->n_seen; i++)
		if (s->seen[i] == inode)
			return true;
	return false;
}

/*
 * A process that is gone meanwhile (the kernel says EACCES of it) has no sockets. Some machines
 * don't let anybody look at process 1, whose namespace others are in, too.
 */
static void unreadable(struct scan *s, int proc, const char *pid, int err)
{
	struct stat st;

	if (err == ENOENT || err == ESRCH || fstatat(proc, pid, &st, 0) < 0 ||
	    (err == EACCES && strcmp(pid, "1") == 0))
		return;
	failed(s, -err);
	s->diag->n_closed++;
}

/* The namespace of one process, unless it was another one's before. */
static void visit(struct scan *s, int proc, const char *pid)
{
	struct stat st;
	char path[64];
	int ns, fd;

	snprintf(path, sizeof(path), "%.20s/ns/net", pid);
	if (fstatat(proc, path, &st, 0) == 0 && seen(s, st.st_ino))
		return;
	ns = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (ns < 0 || fstat(ns, &st) < 0) {
		unreadable(s, proc, pid, errno);
		if (ns >= 0)
			close(ns);
		return;
	}
	s->seen[s->n_seen++] = st.st_ino;
	fd = diag_socket_in(s->own, ns);
	close(ns);
	if (fd >= 0)
		look_into(s, fd);
	else
		s->diag->n_closed++;
	failed(s, fd);
}

static void visit_all(struct scan *s, DIR *proc)
{
	const struct dirent *entry;

	while (s->diag->n < KPR_DIAG_KEPT_MAX && s->n_seen < NAMESPACES_MAX &&
	       (entry = readdir(proc)))
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
			visit(s, dirfd(proc), entry->d_name);
}

int kpr_diag_scan(struct kpr_diag *d, kpr_diag_fn fn, void *arg)
{
	struct scan *s = calloc(1, sizeof(*s));
	DIR *proc = opendir("/proc");
	int rc = -ENOMEM;

	*d = (struct kpr_diag){0};
	if (s) {
		*s = (struct scan){.diag = d, .fn = fn, .arg = arg};
		s->own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
		if (!proc || s->own < 0)
			failed(s, -errno);
		else
			visit_all(s, proc);
		if (s->own >= 0)
			close(s->own);
		rc = s->error;
	}
	if (proc)
		closedir(proc);
	free(s);
	return rc;
}

void kpr_diag_close(struct kpr_diag *d)
{
	while (d->n > 0)
		close(d->fds[--d->n]);
}
