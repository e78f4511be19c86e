/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plugins: which are loaded, in which generation, and how one becomes another.
 *
 * Owns the steps of docs/design/reload-protocol.md, the host function table that plugins call,
 * the topics and the crash marker. One operation runs at a time; the next waits. Before commit
 * every failure leaves the old generation serving, untouched.
 */
#ifndef PB_MANAGER_H
#define PB_MANAGER_H

#include <uv.h>

#include <base/json.h>
#include <config/config.h>
#include <control/control.h>
#include <datapath/datapath.h>
#include <kube/kube.h>

struct pb_manager;

/* Whose the core's own topics are; no plugin may be called so. */
#define PB_CORE_NAME "core"

/* result 0 or negative errno; `text` is the reason of a failure; valid during the call. */
typedef void (*pb_manager_done_fn)(void *arg, int result, const char *text);

/*
 * Who keeps identities of ranges for plugins: as pb_peers_cidr_*() of node/peers.h, with `arg`
 * first. All NULL: the agent has none.
 */
struct pb_manager_cidr_ops {
	int (*hold)(void *arg, const void *owner, const struct pb_cidr *cidr,
		    uint32_t *ret_identity);
	int (*release)(void *arg, const void *owner, const struct pb_cidr *cidr);
	void (*release_all)(void *arg, const void *owner);
	void *arg;
};

struct pb_manager_env {
	uv_loop_t *loop;
	const struct pb_config *config;
	struct pb_dp *dp;
	struct pb_kube *kube;
	struct pb_control *control; /* plugins' commands are registered here */
	struct pb_manager_cidr_ops cidrs;
};

/*
 * Reads the crash records of the run directory and starts the watchdog. Configurations given here
 * and to pb_manager_apply() must stay valid until the next apply is done, or until close.
 */
int pb_manager_new(const struct pb_manager_env *env, struct pb_manager **ret_manager,
		   struct pb_err *err);
/*
 * Brings what runs in line with the configuration: loads what is new, unloads what is gone,
 * reconfigures (or reloads) what changed. `done` is called once after the last operation; the
 * text names every plugin that failed. The first apply puts all plugins into the chains at once,
 * so that a datapath adopted from an earlier process never runs with a part of them; when a plugin
 * marked `required: always` failed, it leaves the adopted chains untouched.
 */
void pb_manager_apply(struct pb_manager *m, const struct pb_config *config, pb_manager_done_fn done,
		      void *arg);
/* path NULL: NAME.so in the plugin directory. */
void pb_manager_load(struct pb_manager *m, const char *name, const char *path,
		     pb_manager_done_fn done, void *arg);
void pb_manager_reload(struct pb_manager *m, const char *name, const char *path,
		       pb_manager_done_fn done, void *arg);
void pb_manager_unload(struct pb_manager *m, const char *name, pb_manager_done_fn done, void *arg);
/*
 * Ends all plugins without touching the datapath (the agent stops, chains keep running).
 * `done` is called when no handle of ours is left on the loop.
 */
void pb_manager_close(struct pb_manager *m, pb_manager_done_fn done, void *arg);

/*
 * Publishes for the core itself, owner "core": as host->publish(), value NULL: withdraw. Not before
 * pb_manager_new(), not after pb_manager_close(). What isn't published is logged, with the reason.
 */
int pb_manager_publish(struct pb_manager *m, const char *topic, uint32_t version, const char *key,
		       const void *value, size_t len);
void pb_manager_synced(struct pb_manager *m, const char *topic);

cJSON *pb_manager_list_json(struct pb_manager *m);   /* table for `plugin list` */
cJSON *pb_manager_status_json(struct pb_manager *m); /* summary for `status` */
/*
 * For `status --verbose`: adds what each command of a plugin that is called "NAME status" answers,
 * under NAME.
 */
void pb_manager_details_json(struct pb_manager *m, cJSON *status);
/* Every metric of plugins and of this room, as Prometheus text. */
int pb_manager_metrics(struct pb_manager *m, struct pb_buf *out);

/* Reads a plugin file's manifest with libelf, running none of its code. */
int pb_manifest_read(const char *path, struct pb_manifest *ret_manifest, struct pb_err *err);
/* The same from memory; `file` stands for it in messages. The fuzz target's entry. */
int pb_manifest_parse(const char *file, void *data, size_t len, struct pb_manifest *ret_manifest,
		      struct pb_err *err);
cJSON *pb_manifest_json(const struct pb_manifest *manifest, const char *path);

/*
 * For main(), before threads and signal set-up: the handlers that turn a plugin's crash or hang
 * into a restart of the agent by execve() of the same arguments.
 */
int pb_crash_setup(int argc, char **argv, const char *run_dir, struct pb_err *err);

#endif
