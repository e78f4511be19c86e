/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What topic "backends" says of a Service: its parts, and what changed in them.
 *
 * Owns how a part is read: which of its backends stand behind a port, and whether they are of
 * use. Pure: no map, no clock, no host. Keeps the publisher's pointers, copies no part; what a
 * part that is replaced differs in is noted at once, for then it goes.
 */
#ifndef KPR_PARTS_H
#define KPR_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uthash.h>

#include <patchbay/topics/backends.h>

#include "kpr_abi.h"

struct kpr_model;
struct kpr_pool;
struct kpr_svc;

struct kpr_part {
	UT_hash_handle hh; /* in kpr_model.parts */
	struct kpr_svc *svc;
	struct kpr_part *prev; /* in kpr_svc.parts */
	struct kpr_part *next;
	const struct pb_backends *value;
	char key[];
};

/* What one backend is to a port. Of a backend that is given twice the last of these counts. */
enum kpr_use {
	KPR_USE_NONE = 0,
	KPR_USE_REMOTE = 1,	 /* usable, but on another node, and the port is local */
	KPR_USE_TERMINATING = 2, /* when no active one is left */
	KPR_USE_OTHER_ZONE = 3,	 /* active; hints speak of other zones than this node's */
	KPR_USE_ACTIVE = 4,
	KPR_USE_ZONE = 5, /* active; hints speak of this node's zone */
	KPR_USE_COUNT = 6,
};

/*
 * The backends of one family, protocol, traffic policy and port name of a Service: they share a
 * pool. SCTP has its ports under a checksum, so there the backend's must be the frontend's.
 */
struct kpr_port {
	UT_hash_handle hh;     /* in kpr_model.ports */
	struct kpr_port *next; /* in kpr_svc.ports */
	struct kpr_pool *pool; /* what is in the maps; NULL: nothing */
	const char *zone;      /* this node's, "" when it has none; of the model */
	uint32_t n[KPR_USE_COUNT];
	uint32_t round;
	uint16_t key_len;
	bool outside; /* packets from outside of the node reach it */
	bool maglev;  /* some of its frontends are to have a table */
	bool synced;  /* the pool is what the parts say, but for the changes noted since */
	char key[];   /* struct kpr_port_id and the port name */
};

/* One backend of a port that is used otherwise than before. */
struct kpr_change {
	struct kpr_port *port;
	struct pb_svc_backend backend;
	uint8_t was; /* enum kpr_use */
	uint8_t is;
};

/* The backends of a port in one part, one after the other. */
struct kpr_run {
	const struct pb_backends *value;
	const struct kpr_port *port;
	uint32_t at;
	uint32_t name;	/* offset of the port's name in the part's strings */
	uint32_t hints; /* offset of hints that were looked at, and what they say */
	uint8_t hinted; /* enum kpr_use */
};

uint8_t kpr_port_family(const struct kpr_port *port);
uint8_t kpr_port_protocol(const struct kpr_port *port);
/* Backends of this node only. */
bool kpr_port_local(const struct kpr_port *port);
/* SCTP: the only port that a backend may have. 0: any. */
uint16_t kpr_port_number(const struct kpr_port *port);
const char *kpr_port_name(const struct kpr_port *port);
struct kpr_svc *kpr_port_svc(const struct kpr_port *port);
/* Which of its backends are to be used now: a bit for each enum kpr_use. */
uint32_t kpr_port_mask(const struct kpr_port *port);
/* The port of a Service, made if there is none. NULL without memory. */
struct kpr_port *kpr_port_add(struct kpr_model *m, struct kpr_svc *svc,
			      const struct pb_svc_key *key, bool local, const char *name);
/* What is in the maps for it goes to kpr_model.unwanted. */
void kpr_port_free(struct kpr_model *m, struct kpr_port *port);

/* Where a port's backends stand in a part: from the place returned up to *ret_end. */
uint32_t kpr_part_find(const struct pb_backends *value, uint8_t family, uint8_t protocol,
		       const char *name, uint32_t *ret_end);

/* `value` may be NULL. */
void kpr_run_begin(struct kpr_run *run, const struct pb_backends *value,
		   const struct kpr_port *port);
/* The next backend, each address and port once. False at the end. */
bool kpr_run_next(struct kpr_run *run, struct pb_svc_backend *ret_backend, enum kpr_use *ret_use);

/* A part came, changed, or went. -ENOMEM: it was not taken in. */
int kpr_part_put(struct kpr_model *m, struct kpr_svc *svc, const char *key,
		 const struct pb_backends *value);
void kpr_part_gone(struct kpr_model *m, const char *key);
void kpr_part_free(struct kpr_model *m, struct kpr_part *part);

/* Forgets the changes noted: every pool is to be compared with all parts again. */
void kpr_changes_drop(struct kpr_svc *svc);

#endif
