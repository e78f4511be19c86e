/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connected UDP sockets of this machine, in whatever network namespace, and their end.
 *
 * Owns netlink sockets of sock_diag in the namespaces that matter. Runs on the thread pool, for it
 * changes the thread's network namespace: always back before it returns, whatever went wrong.
 * Knows no Service; never destroys a socket that it wasn't told to.
 */
#ifndef KPR_SOCKDIAG_H
#define KPR_SOCKDIAG_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/inet_diag.h>

/* Namespaces that a scan keeps open because it found something in them. */
#define KPR_DIAG_KEPT_MAX 256

struct kpr_diag {
	int fds[KPR_DIAG_KEPT_MAX];
	uint32_t n;
	uint32_t n_namespaces; /* that were looked into */
	uint32_t n_closed;     /* that could not be entered */
};

/* True: the socket is of interest, its namespace (place in fds) is kept open. */
typedef bool (*kpr_diag_fn)(void *arg, uint32_t ns, const struct inet_diag_msg *sock);

/*
 * Tells fn of every connected UDP socket in the namespaces that processes run in. Stops early when
 * no more namespaces can be kept. Returns the first error; the others are looked into all the same.
 */
int kpr_diag_scan(struct kpr_diag *d, kpr_diag_fn fn, void *arg);
/*
 * The application's next call on the socket fails with ECONNABORTED. -ENOENT: it isn't there any
 * more, or is connected to another peer. -EOPNOTSUPP: the kernel can't.
 */
int kpr_diag_destroy(const struct kpr_diag *d, uint32_t ns, const struct inet_diag_msg *sock);
void kpr_diag_close(struct kpr_diag *d);

#endif
