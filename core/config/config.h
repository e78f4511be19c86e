/* SPDX-License-Identifier: Apache-2.0 */
/*
 * patchbay.yaml: read, checked, defaulted.
 *
 * Owns the configuration of one moment as an immutable structure. Strict: an unknown key, a
 * wrong type, a duplicate key or a value out of range is an error that names file, line, key
 * and remedy. Knows plugins only as names with a JSON section each.
 */
#ifndef PB_CONFIG_H
#define PB_CONFIG_H

#include <base/base.h>
#include <base/log.h>

enum pb_kube_source_kind {
	PB_SOURCE_NONE = 0,
	PB_SOURCE_MANIFESTS = 1,
	PB_SOURCE_API = 2,
};

enum pb_attach_mode {
	PB_ATTACH_AUTO = 0, /* TCX where the kernel has it, clsact otherwise */
	PB_ATTACH_TCX = 1,
	PB_ATTACH_CLSACT = 2,
};

struct pb_config_plugin {
	char *name;
	char *path;    /* from the reserved key "path" of the section, else NULL: the plugin dir */
	char *json;    /* the section without the reserved keys, as JSON; "{}" when empty */
	bool required; /* reserved key "required: always": the agent won't run without it */
	unsigned line;
};

struct pb_config {
	char *file;
	struct {
		char *name; /* default: the host name */
	} node;
	struct {
		enum pb_kube_source_kind source;
		char *manifests;  /* absolute, or relative to the config file's directory */
		char *kubeconfig; /* NULL with source api: in-cluster */
	} kubernetes;
	struct {
		char **devices; /* names, "eth+" matches every name that starts with eth */
		size_t n_devices;
		char *cgroup; /* NULL: no socket hooks */
		char *bpffs;
		enum pb_attach_mode attach;
		/* Seconds that a flow is kept for, by what was last seen of it. */
		unsigned ct_tcp_established, ct_tcp_opening, ct_tcp_closing, ct_other;
		unsigned ct_gc_interval; /* seconds; 0: as the map needs it */
	} datapath;
	struct {
		char *socket;
		char *group; /* NULL: root only */
	} control;
	struct {
		char *listen; /* an address of config/listen.h */
	} http;
	struct {
		char *run_dir;		       /* /run/patchbay */
		char *plugin_dir;	       /* where NAME.so is looked for */
		unsigned max_crashes;	       /* 3: then a plugin is left out */
		unsigned callback_deadline_ms; /* 5000: a callback that takes longer has crashed */
	} agent;
	struct {
		char *name; /* a label of every pod: policies of several clusters tell them apart */
	} cluster;
	struct {
		char **labels; /* which labels make identities; core/node/labels.h */
		size_t n_labels;
		unsigned remote_node; /* 1: other nodes are remote-node, 0: they are host */
	} identity;
	struct {
		enum pb_log_format format;
		uint32_t level;
	} log;
	struct pb_config_plugin *plugins; /* in the file's order */
	size_t n_plugins;
};

/* Reads and checks a file. On error *ret_config is untouched and nothing leaks. */
int pb_config_load(const char *path, struct pb_config **ret_config, struct pb_err *err);
/* The same from memory; `name` stands for the file in messages. The fuzz target's entry. */
int pb_config_parse(const char *name, const char *text, size_t len, struct pb_config **ret_config,
		    struct pb_err *err);
struct pb_config *pb_config_free(struct pb_config *config); /* returns NULL */

/*
 * Which keys outside `plugins` differ between two configurations and can't be applied to a
 * running agent (node.name, datapath.bpffs, ...): the first one's name, or NULL.
 */
const char *pb_config_fixed_change(const struct pb_config *a, const struct pb_config *b);

#endif
