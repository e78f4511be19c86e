/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether kube-proxy works in this network namespace too.
 *
 * Owns how its traces are recognised: its nftables tables, its chains in iptables of either kind,
 * its ports. Only looks: never changes a rule, loads no kernel module, runs no tool.
 */
#ifndef KPR_COEXIST_H
#define KPR_COEXIST_H

#include <stdbool.h>
#include <stddef.h>

/*
 * True when there is a trace; `ret_what` says which, for a message. What can't be asked (rights,
 * a kernel without netfilter) is no trace.
 */
bool kpr_coexist_find(char *ret_what, size_t len);

/* Whether the entries of an iptables table, as the kernel gives them, open the chain `name`. */
bool kpr_coexist_has_chain(const void *entries, size_t len, const char *name, bool ipv6);

#endif
