/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of patchbay.yaml: one table row each. Reading, defaults, messages and the comparison
 * of two configurations all follow the table; a key exists nowhere else.
 */
#include <config/private.h>

#include <config/listen.h>

/* A week: longer than any flow that says nothing. */
#define CONFIG_CT_MAX 604800
/* sizeof(sun_path) - 1 */
#define CONFIG_SOCKET_MAX 107

static const char *const source_words[] = {"none", "manifests", "api", NULL};
static const char *const attach_words[] = {"auto", "tcx", "clsact", NULL};
static const char *const format_words[] = {"logfmt", "json", NULL};
static const char *const level_words[] = {"error", "warn", "info", "debug", NULL};
static const char *const bool_words[] = {"false", "true", NULL};

static const char *check_node_name(const char *value)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-.";
	size_t len = strlen(value);

	if (len > 253)
		return "is longer than the 253 characters of a node's name";
	if (value[strspn(value, allowed)] || strchr("-.", value[0]) || strchr("-.", value[len - 1]))
		return "is no node name; use lower case letters, digits, '-' and '.'";
	return NULL;
}

static const char *check_device(const char *value)
{
	size_t len = strlen(value);

	if (len > 15 || strpbrk(value, "/ \t\n:"))
		return "is no device name; at most 15 characters without '/', ':' and blanks";
	if (memchr(value, '+', len - 1))
		return "has a '+' inside; it stands for \"anything\" at the end only";
	return NULL;
}

static const char *check_cluster(const char *value)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-.";
	size_t len = strlen(value);

	if (len > 63 || value[strspn(value, allowed)] || strchr("-.", value[0]) ||
	    strchr("-.", value[len - 1]))
		return "is no cluster name; use up to 63 lower case letters, digits, '-' and '.'";
	return NULL;
}

static const char *check_label(const char *value)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-_./";
	const bool out = *value == '!';
	const char *key = value + out;

	if (strncmp(key, "k8s:", 4) == 0 || strncmp(key, "any:", 4) == 0)
		key += 4;
	if (!*key)
		return "names no label; give the beginning of a label's key";
	if (strchr(key, ':'))
		return "has an unknown source; known are k8s and any";
	if (key[strspn(key, allowed)])
		return "is no beginning of a label's key; patterns are not understood";
	if (strlen(key) > 317)
		return "is longer than the 317 characters of a label's key";
	if (out && (strcmp(key, "io.kubernetes.pod.namespace") == 0 ||
		    strcmp(key, "io.cilium.k8s.policy.cluster") == 0 ||
		    strcmp(key, "io.cilium.k8s.policy.serviceaccount") == 0))
		return "can't be left out: policies depend on it";
	return NULL;
}

const char *config_check_socket(const char *value)
{
	if (strlen(value) > CONFIG_SOCKET_MAX)
		return "is too long for a socket's address; at most 107 bytes";
	return NULL;
}

static const char *check_listen(const char *value)
{
	struct pb_listen listen;

	return pb_listen_parse(value, &listen);
}

#define AT(member_) offsetof(struct pb_config, member_)

const struct config_key config_keys[] = {
	{"node.name", KEY_STRING, .fixed = true, .offset = AT(node.name), .check = check_node_name},
	{"kubernetes.source", KEY_WORD, .offset = AT(kubernetes.source), .words = source_words},
	{"kubernetes.manifests", KEY_PATH, .offset = AT(kubernetes.manifests)},
	{"kubernetes.kubeconfig", KEY_PATH, .offset = AT(kubernetes.kubeconfig)},
	{"datapath.devices", KEY_LIST, .offset = AT(datapath.devices), .check = check_device,
	 .example = "[eth0]"},
	{"datapath.cgroup", KEY_PATH, .fixed = true, .offset = AT(datapath.cgroup)},
	{"datapath.bpffs", KEY_PATH, .fixed = true, .offset = AT(datapath.bpffs),
	 .fallback = "/sys/fs/bpf/patchbay"},
	{"datapath.attach", KEY_WORD, .fixed = true, .offset = AT(datapath.attach),
	 .words = attach_words},
	{"datapath.conntrack.tcp_established", KEY_UINT, .offset = AT(datapath.ct_tcp_established),
	 .min = 1, .max = CONFIG_CT_MAX, .preset = 21600},
	{"datapath.conntrack.tcp_opening", KEY_UINT, .offset = AT(datapath.ct_tcp_opening),
	 .min = 1, .max = CONFIG_CT_MAX, .preset = 60},
	{"datapath.conntrack.tcp_closing", KEY_UINT, .offset = AT(datapath.ct_tcp_closing),
	 .min = 1, .max = CONFIG_CT_MAX, .preset = 10},
	{"datapath.conntrack.other", KEY_UINT, .offset = AT(datapath.ct_other), .min = 1,
	 .max = CONFIG_CT_MAX, .preset = 60},
	{"datapath.conntrack.gc_interval", KEY_UINT, .offset = AT(datapath.ct_gc_interval),
	 .min = 1, .max = 43200, .zero = "auto"},
	{"control.socket", KEY_PATH, .fixed = true, .offset = AT(control.socket),
	 .check = config_check_socket},
	{"control.group", KEY_STRING, .fixed = true, .offset = AT(control.group)},
	{"http.listen", KEY_STRING, .offset = AT(http.listen), .fallback = "127.0.0.1:9876",
	 .check = check_listen},
	{"agent.run_dir", KEY_PATH, .fixed = true, .offset = AT(agent.run_dir),
	 .fallback = "/run/patchbay"},
	{"agent.plugin_dir", KEY_PATH, .fixed = true, .offset = AT(agent.plugin_dir),
	 .fallback = PB_PLUGIN_DIR},
	{"agent.max_crashes", KEY_UINT, .fixed = true, .offset = AT(agent.max_crashes), .min = 1,
	 .max = 1000, .preset = 3},
	{"agent.callback_deadline_ms", KEY_UINT, .fixed = true,
	 .offset = AT(agent.callback_deadline_ms), .min = 100, .max = 600000, .preset = 5000},
	{"cluster.name", KEY_STRING, .offset = AT(cluster.name), .fallback = "default",
	 .check = check_cluster},
	{"identity.labels", KEY_LIST, .offset = AT(identity.labels), .check = check_label,
	 .example = "[k8s:app, \"!k8s:commit\"]"},
	{"identity.remote_node", KEY_WORD, .offset = AT(identity.remote_node), .words = bool_words,
	 .preset = 1},
	{"log.format", KEY_WORD, .offset = AT(log.format), .words = format_words},
	{"log.level", KEY_WORD, .offset = AT(log.level), .words = level_words,
	 .preset = PB_LOG_INFO},
};

_Static_assert(AT(datapath.n_devices) == AT(datapath.devices) + offsetof(struct config_list, n),
	       "a KEY_LIST is a pointer and its length");
_Static_assert(AT(identity.n_labels) == AT(identity.labels) + offsetof(struct config_list, n),
	       "a KEY_LIST is a pointer and its length");

void *config_field(const struct pb_config *config, const struct config_key *key)
{
	return (char *)config + key->offset;
}
