/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Follows one kind of object at an API server: discovery, list, watch, and what goes wrong.
 *
 * Owns the resource version and the pauses of one kind. Holds no object: what arrives goes to
 * the sink at once. Never tells the sink of a deletion that neither an event nor a complete list
 * showed. The state machine is drawn in docs/design/reflector.md.
 */
#ifndef PB_KUBE_REFLECTOR_H
#define PB_KUBE_REFLECTOR_H

#include <kube/api_client.h>
#include <kube/source.h>

struct pb_reflector;

/* A kind as the API names it. */
struct pb_api_resource {
	const char *group; /* "" for the core group */
	const char *plural;
	const char *versions[3]; /* best first, ended by NULL; more than one: discovery decides */
	const char *selector;	 /* labelSelector as the query has it, or NULL */
	uint32_t kind;		 /* enum pb_kube_kind */
	/* Somebody can do without: a refusal to list counts as absent until it is lifted. */
	bool has_substitute;
	bool cluster_scoped; /* its objects are in no namespace */
};

/* What is known of the server; shared by the reflectors of a source, which owns it. */
struct pb_api_server_facts {
	char version[64]; /* gitVersion, "" while it is not known */
	/* It may have WatchList: its version does, and it has not refused yet. */
	bool may_watch_list;
};

struct pb_reflector_options {
	uv_loop_t *loop;
	struct pb_sink *sink;
	struct pb_api_client *client;
	const struct pb_api_resource *resource;
	const struct pb_api_timing *timing;
	struct pb_api_server_facts *server;
	/* A watch over HTTP/2 is silent: find out whether its connection lives. */
	void (*doubt)(void *arg);
	void *arg;
};

int pb_reflector_new(const struct pb_reflector_options *options,
		     struct pb_reflector **ret_reflector);
/* Both may be called from inside a call of the sink. Stopping forgets the resource version. */
void pb_reflector_start(struct pb_reflector *reflector);
void pb_reflector_stop(struct pb_reflector *reflector);
/* Stops, closes, frees, then calls `closed`. */
void pb_reflector_close(struct pb_reflector *reflector, void (*closed)(void *arg), void *arg);
/* For status. */
void pb_reflector_describe(struct pb_reflector *reflector, struct pb_source_kind *ret_kind);

#endif
