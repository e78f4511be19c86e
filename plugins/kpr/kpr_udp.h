/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connected UDP sockets whose backend is gone: they would send into the void for ever, so they are
 * destroyed, and the application connects anew.
 *
 * Owns the rule which sockets those are: translated by us (kpr_reverse says so, by the socket's
 * cookie), to an endpoint that is in no part of the Service any more, in whatever condition. One
 * that drains keeps its sockets; one of which nothing certain is known keeps them for now; a
 * socket that names a pod itself is none of our business. What is gone is noted as parts change,
 * a scan looks for sockets that are connected to it, and the model is asked before anything is
 * destroyed.
 */
#ifndef KPR_UDP_H
#define KPR_UDP_H

#include <stdbool.h>
#include <stdint.h>

#include <patchbay/plugin.h>
#include <patchbay/topics/backends.h>

#include "kpr_abi.h"

/* The maps are written by then. */
#define KPR_UDP_DELAY_MS 100
/* From one scan to the next. */
#define KPR_UDP_PAUSE_MS 1000
/* Until what was uncertain is looked at again. */
#define KPR_UDP_RETRY_MS 5000
/* Endpoints that are looked for by address; with more every socket of ours is. */
#define KPR_UDP_GONE_MAX 1024
/* Sockets that one scan judges; it is followed by another when there are more. */
#define KPR_UDP_FOUND_MAX 512

struct kpr_model;

struct kpr_udp_peer {
	union pb_addr addr;
	__be16 port;
	uint8_t family;
	uint8_t reserved[5];
};

struct kpr_udp {
	struct pb_map *reverse;
	const struct kpr_model *model;
	struct kpr_udp_peer *gone; /* since the last scan */
	uint32_t n_gone;
	uint32_t cap_gone;
	uint32_t metric_scans;
	uint32_t metric_destroyed;
	uint32_t metric_failed;
	uint32_t timer;
	uint64_t next_ns; /* no scan before that */
	bool all;	  /* too many are gone, or some unseen: look at every socket */
	bool timer_runs;
	bool scanning;
	bool said;   /* in the log, once a generation */
	bool warned; /* likewise */
};

/* In prepare(): map handle and metrics. */
int kpr_udp_declare(struct pb_ctx *ctx, struct kpr_udp *u, const struct kpr_model *model);
/* In start(): endpoints may have gone while no agent, or the generation before, was watching. */
void kpr_udp_start(struct pb_ctx *ctx, struct kpr_udp *u);
/* In stop(). */
void kpr_udp_free(struct pb_ctx *ctx, struct kpr_udp *u);

/* A part goes, or is replaced by `value`: what does that take away? struct kpr_model_opts. */
void kpr_udp_note(struct pb_ctx *ctx, struct kpr_udp *u, const struct pb_backends *old,
		  const struct pb_backends *value);

#endif
