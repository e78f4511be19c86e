/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NodePort range among the ports that the kernel gives to outgoing connections.
 *
 * Owns one sysctl of this network namespace, ip_local_reserved_ports, to which it only ever adds:
 * what others reserved stays, and nothing is taken back at the end, for the range may be in use.
 */
#ifndef KPR_RESERVE_H
#define KPR_RESERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KPR_RESERVE_DIR "/proc/sys/net/ipv4"

/* Host byte order, both ends belong to it. */
struct kpr_port_range {
	uint16_t min;
	uint16_t max;
};

enum kpr_reserve {
	KPR_RESERVE_NOT_NEEDED = 0, /* no outgoing connection gets such a port */
	KPR_RESERVE_THERE = 1,	    /* somebody reserved all of it before */
	KPR_RESERVE_DONE = 2,
	KPR_RESERVE_OFF = 3,	/* it overlaps, and nobody wants it reserved */
	KPR_RESERVE_FAILED = 4, /* it overlaps and can't be reserved */
};

/* Reads "MIN MAX" as in ip_local_port_range. -EINVAL. */
int kpr_reserve_parse_range(const char *text, struct kpr_port_range *ret_range);
/*
 * A range that overlaps with `local` has to be in the list of reserved ports, as far as it does.
 * *ret_text is the list with all of the range, sorted and without duplicates, to be freed; NULL
 * when the list needs no change. -EINVAL: the list isn't one. -ENOMEM.
 */
int kpr_reserve_add(const char *list, const struct kpr_port_range *local,
		    const struct kpr_port_range *range, char **ret_text);

/*
 * Does it, in the sysctls of directory `dir`. Says in `why` what failed. Returns enum kpr_reserve.
 */
enum kpr_reserve kpr_reserve_ports(const char *dir, const struct kpr_port_range *range, bool wanted,
				   char *why, size_t why_len);

#endif
