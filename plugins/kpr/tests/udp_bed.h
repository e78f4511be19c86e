/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kpr_udp.c needs around it: a host whose clock only run() moves and which does the work at
 * once, and a model that is told of two Services.
 *
 * Owns both; maps, sockets and namespaces are those of sock_bed.h.
 */
#ifndef KPR_TESTS_UDP_BED_H
#define KPR_TESTS_UDP_BED_H

#include "../kpr.h"
#include "sock_bed.h"

#define DNS "10.96.0.53:53"
#define DNS6 "[fd00::53]:53"
#define MAPPED "[::ffff:10.96.0.53]:53"
#define OTHER "10.96.0.54:53"
#define MS 1000000ULL

extern const struct pb_host host;
extern struct kpr kpr;
extern struct pb_ctx bed_ctx;
extern uint64_t now_ns;
extern pb_timer_fn timer_fn; /* NULL: no timer runs */
extern uint64_t metrics[4];
extern uint32_t n_metrics;
extern unsigned lines[4];    /* in the log, by level */
extern pb_work_fn held_work; /* the last one */
extern bool hold;	     /* work behind the first is cancelled */

#define SCANS metrics[kpr.udp.metric_scans]
#define DESTROYED metrics[kpr.udp.metric_destroyed]

#define N_SERVICES 2
#define ENDPOINTS_MAX 2048

struct endpoint {
	const char *at;
	uint32_t state; /* enum pb_backend_state */
};

extern struct pb_kube_service services[N_SERVICES];

/* Two Services with endpoints, as kpr has programmed them; all of it is synced. */
void begin(void);
void end(void);
/* Lets `ms` pass. */
void run(uint64_t ms);
void tell(const struct pb_record *record);
/* All endpoints of Service `s`, and then its head. */
void publish(unsigned s, const struct endpoint *endpoints, uint32_t n);
#define PUBLISH(s_, ...)                                                                           \
	publish(s_, (const struct endpoint[]){__VA_ARGS__},                                        \
		sizeof((const struct endpoint[]){__VA_ARGS__}) / sizeof(struct endpoint))
#define ACTIVE(at_)                                                                                \
	{                                                                                          \
		at_, PB_BACKEND_ACTIVE                                                             \
	}
#define DRAINING(at_)                                                                              \
	{                                                                                          \
		at_, PB_BACKEND_DRAINING                                                           \
	}

#endif
