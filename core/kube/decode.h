/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON text of one Kubernetes object -> the structure of its kind, in one pass and one
 * allocation.
 *
 * Owns what a field means and what is invalid. Pure: no log, no store, any thread. A bad entry
 * of a list is left out and counted, a bad object is refused with a text; nothing is guessed.
 */
#ifndef PB_KUBE_DECODE_H
#define PB_KUBE_DECODE_H

#include <kube/object.h>

/* The members of an object that any kind reads: one walk finds them all. */
struct pb_kube_members {
	struct pb_span metadata, kind, api_version, spec, status;
	struct pb_span address_type, endpoints, ports; /* of an EndpointSlice */
	struct pb_span subsets;			       /* of an Endpoints */
};

/* Strings of the text that were interned for this object; see pb_decode_intern(). */
#define PB_DECODE_SEEN 64

struct pb_decode_seen {
	const char *raw; /* in the text, between its quotes; NULL: free */
	size_t len;
	const char *interned;
	uint32_t more; /* references that were handed out and aren't counted yet */
};

/* What is on the way while one object is decoded. */
struct pb_decode {
	struct pb_kube_arena arena;
	const struct pb_kube_members *members;
	struct pb_span spec;
	struct pb_span status;
	struct pb_decode_seen seen[PB_DECODE_SEEN];
	const char *kind_name;
	bool v1beta1;
	unsigned warns;
	int rc; /* the first refusal; err says why */
	struct pb_err *err;
	char first_warning[256];
};

/* Everything the core knows about a kind. */
struct pb_kube_type {
	const char *name;
	const char *api_version;
	size_t size;	 /* of the kind's structure */
	bool namespaced; /* an object without a namespace is in "default" */
	void (*fill)(struct pb_decode *d, struct pb_kube_meta *object);
};

/* NULL: not a kind of enum pb_kube_kind. */
const struct pb_kube_type *pb_kube_type(uint32_t kind);
/* The kind of what calls itself so; 0: not decoded (v1alpha1 slices are such). */
uint32_t pb_kube_kind_find(const char *api_version, const char *kind);

/* What an object says about itself, before it is decoded. Strings are cut to fit. */
struct pb_kube_head {
	uint32_t kind; /* 0: not decoded */
	char kind_name[64];
	char api_version[64];
	char ns[254];
	char name[254];
	struct pb_kube_members members;
};

/* kind 0 and api_version NULL: as the object says, else as given. */
void pb_kube_head(const struct pb_scan_doc *doc, uint32_t kind, const char *api_version,
		  struct pb_kube_head *ret_head);

/*
 * Decodes a checked object. *ret_warns (may be NULL) counts entries left out; the first one's
 * reason is in err->text then, with err->code 0.
 */
int pb_kube_decode_span(struct pb_span root, const struct pb_kube_head *head,
			struct pb_kube_object **ret_object, unsigned *ret_warns,
			struct pb_err *err);

/* ---- for the kinds' own files ---- */

void pb_kube_fill_service(struct pb_decode *d, struct pb_kube_meta *object);
void pb_kube_fill_endpointslice(struct pb_decode *d, struct pb_kube_meta *object);
void pb_kube_fill_endpoints(struct pb_decode *d, struct pb_kube_meta *object);
void pb_kube_fill_pod(struct pb_decode *d, struct pb_kube_meta *object);
void pb_kube_fill_node(struct pb_decode *d, struct pb_kube_meta *object);
void pb_kube_fill_namespace(struct pb_decode *d, struct pb_kube_meta *object);

/* Counts something that is left out; the first reason is kept. */
void pb_decode_warn(struct pb_decode *d, const char *fmt, ...) PB_PRINTF(2, 3);
/* Refuses the object; the first reason counts. */
void pb_decode_fail(struct pb_decode *d, const char *fmt, ...) PB_PRINTF(2, 3);

/* A list: its walk. A value of another type refuses the object with `field`. */
struct pb_scan pb_decode_list(struct pb_decode *d, struct pb_span value, const char *field);
/* Elements of a list, at most. */
size_t pb_decode_count(struct pb_span list);
/* Zeroed memory for n elements and one more, to be freed; NULL refuses the object. */
void *pb_decode_room(struct pb_decode *d, size_t n, size_t size);
/* A string of the object: set in *slot, which is in the arena or in a temporary element. */
void pb_decode_text(struct pb_decode *d, struct pb_span value, const char *field,
		    const char **slot);
/*
 * A string of the object as an interned one with a reference; "" when it is missing. What was
 * seen in this object before is not looked up again.
 */
const char *pb_decode_intern(struct pb_decode *d, struct pb_span value, const char *field);
/* Counts the references that pb_decode_intern() handed out; before any of them is given back. */
void pb_decode_intern_settle(struct pb_decode *d);
bool pb_decode_bool(struct pb_decode *d, struct pb_span value, const char *field, bool fallback);
/* A number in [min, max]; false: missing, or out of range, which is a warning. */
bool pb_decode_number(struct pb_decode *d, struct pb_span value, const char *field, int64_t min,
		      int64_t max, int64_t *ret_number);
/* IPPROTO_*; TCP when missing; 0 for an unknown one. */
uint8_t pb_decode_protocol(struct pb_span value);

/*
 * An address in its one canonical spelling: no leading zeros, no prefix, no zone, no IPv4 in
 * IPv6 (such spellings mean different things to different programs). False: a warning.
 */
bool pb_decode_addr(struct pb_decode *d, struct pb_span value, const char *field,
		    struct pb_kube_addr *ret_addr);
/* ADDRESS/BITS; host bits are cleared. False: a warning. */
bool pb_decode_cidr(struct pb_decode *d, struct pb_span value, const char *field,
		    struct pb_cidr *ret_cidr);

/* The object's label, "" when missing. */
const char *pb_decode_label(const struct pb_kube_meta *meta, const char *key);
const char *pb_decode_annotation(const struct pb_kube_meta *meta, const char *key);

#endif
