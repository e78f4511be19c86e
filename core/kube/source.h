/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between a source of Kubernetes objects (manifest directory, API server) and the store.
 *
 * Owns the vocabulary of the two: a source says what it saw, kind by kind; the store decodes,
 * compares, and tells watchers. A source never decides that an object is gone because it could
 * not be read: only a delete, or a full list between begin and end, says so.
 */
#ifndef PB_KUBE_SOURCE_H
#define PB_KUBE_SOURCE_H

#include <uv.h>

#include <base/json.h>
#include <base/scan.h>
#include <config/config.h>

/* ---- the store's side, given to a source; loop thread only ---- */

struct pb_sink; /* struct pb_kube in disguise */

/* A full list of `kind` starts: put() calls follow, of the list and of changes meanwhile. */
void pb_sink_list_begin(struct pb_sink *sink, uint32_t kind);
/*
 * One object as JSON text (kind and apiVersion inside; for items of a list, which carry none,
 * api_version names it, else NULL). An object equal to the stored one is no event. Returns
 * -EINVAL with a text for an object that can't be decoded: the last good one stays.
 */
int pb_sink_put(struct pb_sink *sink, uint32_t kind, const char *api_version, const char *json,
		size_t len, struct pb_err *err);
/* The same for a text that pb_scan_check_doc() or pb_scan_check_front() has been through. */
int pb_sink_put_doc(struct pb_sink *sink, uint32_t kind, const char *api_version,
		    const struct pb_scan_doc *doc, struct pb_err *err);
/*
 * uid: of the object that is gone; NULL or "" when the source doesn't know. -ENOENT: no such
 * object, or the stored one has another uid: it came after the one that is gone.
 */
int pb_sink_delete(struct pb_sink *sink, uint32_t kind, const char *ns, const char *name,
		   const char *uid);
/* The list is complete: objects not put since begin are deleted; watchers get SYNCED. */
void pb_sink_list_end(struct pb_sink *sink, uint32_t kind);
/* The list broke off: forget that it began, delete nothing. */
void pb_sink_list_abort(struct pb_sink *sink, uint32_t kind);
/*
 * The version of the API that the list is read from ("discovery.k8s.io/v1beta1"), said before its
 * end; it counts from there. Copied. Watchers that are synced get SYNCED again when it differs
 * from the list before. A source without versions never calls this.
 */
void pb_sink_version(struct pb_sink *sink, uint32_t kind, const char *api_version);
/* The server doesn't serve this kind. */
void pb_sink_absent(struct pb_sink *sink, uint32_t kind);
/* For status: "listing", "watching", "retrying in 3 s: connection refused", ... Copied. */
void pb_sink_state(struct pb_sink *sink, uint32_t kind, bool healthy, const char *text);
/* For status: what went wrong, kept when it is over. Copied. */
void pb_sink_error(struct pb_sink *sink, uint32_t kind, const char *text);

/* ---- the source's side ---- */

struct pb_source {
	const struct pb_source_ops *ops;
	uint64_t digest; /* of what it was made from: equal ones would do the same */
};

/* What only the source knows of a kind. Strings live until it is asked again or closed. */
struct pb_source_kind {
	const char *mode;     /* "files", "list", "watch", "watch-list"; "" while not asked for */
	const char *resource; /* as the API names it, "" without one */
	const char *last_relist; /* why the last list that was not the first began; "" */
	uint64_t bytes;
	uint64_t last_event; /* uv_now() of it; 0: none, or the store knows as well */
	bool lacks_list;     /* the server refused the verb, and has not allowed it since */
	bool lacks_watch;
};

struct pb_source_ops {
	const char *name; /* "manifests", "api" */
	/* Starts or stops asking for a kind. Called before or after the source is connected. */
	void (*want)(struct pb_source *source, uint32_t kind, bool on);
	/* The result is zeroed, with "" for strings, before the call. */
	void (*describe)(struct pb_source *source, uint32_t kind, struct pb_source_kind *ret_kind);
	/* What status shows about the source as a whole; the caller owns the result. */
	cJSON *(*status)(struct pb_source *source);
	/*
	 * Closes all handles, then frees itself and calls closed. From the call on it says nothing
	 * to the sink any more: another source may already be feeding it.
	 */
	void (*close)(struct pb_source *source, void (*closed)(void *arg), void *arg);
};

/* directory: absolute path. Files that appear, change or vanish are followed by inotify. */
int pb_source_manifests_new(uv_loop_t *loop, struct pb_sink *sink, const char *directory,
			    struct pb_source **ret_source, struct pb_err *err);
/* kubeconfig NULL: in-cluster. Errors of the file are returned, errors of reach are retried. */
int pb_source_api_new(uv_loop_t *loop, struct pb_sink *sink, const char *kubeconfig,
		      struct pb_source **ret_source, struct pb_err *err);

#endif
