/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kubernetes objects on this node: a source, one reflector a kind, a store, watchers.
 *
 * Owns the decoded objects. A kind is asked of the source only while somebody watches it.
 * Memory follows the decoded objects, never the size of a list. A source that fails or goes
 * away deletes nothing: the last good state stays until a newer full list says otherwise. No
 * watcher is ever called from inside a call into this header. The pool of interned strings
 * (node and zone names) is the only process-wide state.
 */
#ifndef PB_KUBE_STORE_H
#define PB_KUBE_STORE_H

#include <uv.h>

#include <base/json.h>
#include <config/config.h>
#include <patchbay/kube.h>

struct pb_kube;
struct pb_kube_watch;

typedef void (*pb_kube_watch_fn)(void *arg, const struct pb_kube_event *event);

/* No I/O yet. */
int pb_kube_new(uv_loop_t *loop, const struct pb_config *config, struct pb_kube **ret_kube,
		struct pb_err *err);
/* Starts or switches the source of the configuration. Errors of reach are retried, not returned. */
int pb_kube_start(struct pb_kube *kube, const struct pb_config *config, struct pb_err *err);
/*
 * Closes all handles, frees everything, watches included; `closed` is called when the loop has
 * none of ours left.
 */
void pb_kube_close(struct pb_kube *kube, void (*closed)(void *arg), void *arg);

/*
 * Watches a kind. What the store holds is replayed from the loop, in slices of bounded time,
 * never from inside this call; SYNCED ends the replay once the first full list is in.
 */
int pb_kube_watch(struct pb_kube *kube, uint32_t kind, pb_kube_watch_fn fn, void *arg,
		  struct pb_kube_watch **ret_watch);
void pb_kube_unwatch(struct pb_kube_watch *watch);
/* While held, events of the watch are kept back (coalesced per object); resume delivers them. */
void pb_kube_hold(struct pb_kube_watch *watch);
void pb_kube_resume(struct pb_kube_watch *watch);
/* True once everything known so far has been delivered to the watch. */
bool pb_kube_replayed(const struct pb_kube_watch *watch);

/* What docs/admin.md describes as `kubernetes` of status; the caller owns it. */
cJSON *pb_kube_status_json(struct pb_kube *kube);

/* ---- decoding: pure, also the fuzz targets' entry ---- */

/*
 * One Kubernetes object as JSON text into the structure of its kind (found by kind and
 * apiVersion). Free with pb_kube_object_free(). -ENOTSUP: a kind the core doesn't decode;
 * -EINVAL: names object and field. Invalid list entries are left out and counted in *ret_warns;
 * the first one's reason is then in err->text, with err->code 0.
 */
int pb_kube_decode(const char *json, size_t len, struct pb_kube_meta **ret_object,
		   unsigned *ret_warns, struct pb_err *err);
struct pb_kube_meta *pb_kube_object_free(struct pb_kube_meta *object);

#endif
