/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that is in the way is collected as text: strict makes one message of it, probe a
 * warning of each.
 */
#include "kpr_mode.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct kpr_feature_info infos[KPR_FEATURE_COUNT] = {
	[KPR_FEATURE_CONNECT] = {"socket-connect",
				 "cgroup hooks connect4/6 and sendmsg4/6 (Linux 4.18, "
				 "CONFIG_CGROUP_BPF)",
				 "sockets of this node reach no Service", true},
	[KPR_FEATURE_RECVMSG] = {"socket-recvmsg", "cgroup hooks recvmsg4/6 (Linux 5.2)",
				 "UDP answers don't come from the Service's address", true},
	[KPR_FEATURE_GETPEERNAME] = {"socket-getpeername",
				     "cgroup hooks getpeername4/6 (Linux 5.8)",
				     "getpeername() shows the backend", false},
	[KPR_FEATURE_BIND] = {"socket-bind", "cgroup hooks bind4/6 (Linux 4.17)",
			      "NodePorts can be bound by processes of the host", false},
	[KPR_FEATURE_SOCK_RELEASE] =
		{"socket-release", "cgroup hook sock_release (Linux 5.9)",
		 "what a socket left in the reverse map stays until it is full", false},
	[KPR_FEATURE_SET_RETVAL] = {"set-retval", "helper bpf_set_retval (Linux 5.18)",
				    "no call can be refused with an errno", true},
	[KPR_FEATURE_NETNS_COOKIE] = {"netns-cookie",
				      "helper bpf_get_netns_cookie in socket hooks (Linux 5.7)",
				      "no NodePort at 127.0.0.1, no bind protection, and all local "
				      "clients share one session affinity",
				      false},
	[KPR_FEATURE_LRU] = {"lru-maps", "LRU hash maps (Linux 4.10)",
			     "no connection is remembered", true},
	[KPR_FEATURE_LPM] = {"lpm-maps", "LPM trie maps (Linux 4.11)",
			     "no loadBalancerSourceRanges can be kept", true},
	[KPR_FEATURE_MAP_MEMORY] = {"map-memory", "arrays that can be mapped (Linux 5.5)",
				    "backends can't be written", true},
	[KPR_FEATURE_BATCH] = {"batch-maps", "batch updates of maps (Linux 5.6)",
			       "frontends are written one by one, which takes longer", false},
	[KPR_FEATURE_FIB_LOOKUP] = {"fib-lookup", "helper bpf_fib_lookup (Linux 4.18)",
				    "no NodePort, externalIP or LoadBalancer for packets from "
				    "outside",
				    false},
	[KPR_FEATURE_REDIRECT_NEIGH] = {"redirect-neigh", "helper bpf_redirect_neigh (Linux 5.10)",
					"no NodePort, externalIP or LoadBalancer for packets from "
					"outside",
					false},
	[KPR_FEATURE_DIAG_DESTROY] = {"udp-destroy",
				      "SOCK_DESTROY of sockets (CONFIG_INET_DIAG_DESTROY, "
				      "CONFIG_INET_UDP_DIAG)",
				      "connected UDP sockets stay with a backend that is gone",
				      false},
	[KPR_FEATURE_IPV6] = {"ipv6", "IPv6 sockets (ipv6.disable=0)", "no IPv6 frontend", false},
};

const struct kpr_feature_info *kpr_feature_info(enum kpr_feature feature)
{
	return &infos[feature];
}

static const char *const mode_names[] = {
	[KPR_MODE_PROBE] = "probe",
	[KPR_MODE_STRICT] = "strict",
	[KPR_MODE_DISABLED] = "disabled",
};

const char *kpr_mode_name(enum kpr_mode mode)
{
	return mode_names[mode];
}

int kpr_mode_parse(const char *text, enum kpr_mode *ret_mode)
{
	for (size_t i = 0; i < sizeof(mode_names) / sizeof(mode_names[0]); i++)
		if (strcmp(text, mode_names[i]) == 0) {
			*ret_mode = (enum kpr_mode)i;
			return 0;
		}
	return -EINVAL;
}

/* Where what is missing goes. */
struct verdict {
	const struct kpr_findings *found;
	void (*warn)(void *arg, const char *text); /* NULL: `text` collects it */
	void *arg;
	char *text;
	size_t len;
	uint32_t n;
};

__attribute__((format(printf, 2, 3))) static void say(struct verdict *v, const char *fmt, ...)
{
	char line[512];
	size_t used = strlen(v->text);
	va_list args;

	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	v->n++;
	if (v->warn)
		v->warn(v->arg, line);
	else
		snprintf(v->text + used, v->len - used, "%s%s", used ? "; " : "", line);
}

static bool has(const struct verdict *v, enum kpr_feature feature)
{
	return !(v->found->probe.missing >> feature & 1);
}

/* True when it is there; else says so and what doesn't work. */
static bool need(struct verdict *v, enum kpr_feature feature)
{
	if (!has(v, feature))
		say(v, "Linux %s has no %s, needs %s: %s", v->found->probe.kernel,
		    infos[feature].name, infos[feature].needs, infos[feature].without);
	return has(v, feature);
}

static void decide_required(struct verdict *v)
{
	for (int i = 0; i < KPR_FEATURE_COUNT; i++)
		if (infos[i].required)
			need(v, (enum kpr_feature)i);
}

static void decide_kernel(struct verdict *v, struct kpr_abilities *a)
{
	bool fib, neigh;

	need(v, KPR_FEATURE_BATCH);
	a->getpeername = need(v, KPR_FEATURE_GETPEERNAME);
	a->sock_release = need(v, KPR_FEATURE_SOCK_RELEASE);
	a->udp_destroy = need(v, KPR_FEATURE_DIAG_DESTROY);
	/* A node without it has no address of its own that would need it. */
	a->ipv6 = has(v, KPR_FEATURE_IPV6);
	a->loopback = need(v, KPR_FEATURE_NETNS_COOKIE);
	if (!a->others)
		return;
	fib = need(v, KPR_FEATURE_FIB_LOOKUP);
	neigh = need(v, KPR_FEATURE_REDIRECT_NEIGH);
	a->north_south = fib && neigh;
}

static void decide_node_ports(struct verdict *v, const struct kpr_mode_wish *wish,
			      struct kpr_abilities *a)
{
	const struct kpr_findings *found = v->found;

	a->node_ports = a->others && wish->node_ports;
	if (!a->node_ports)
		return;
	if (found->reserve == KPR_RESERVE_OFF || found->reserve == KPR_RESERVE_FAILED) {
		say(v,
		    "NodePort range %u-%u: %s; NodePorts are off until it is in "
		    "net.ipv4.ip_local_reserved_ports (%s)",
		    wish->range.min, wish->range.max, found->reserve_why,
		    found->reserve == KPR_RESERVE_OFF ? "node_port.reserve: true does that"
						      : "write it there by hand, or use a range "
							"outside of net.ipv4.ip_local_port_range");
		a->node_ports = false;
	}
}

static void decide_protection(struct verdict *v, const struct kpr_mode_wish *wish,
			      struct kpr_abilities *a)
{
	if (!a->others)
		return;
	a->bind_protection = wish->bind_protection && need(v, KPR_FEATURE_BIND) &&
			     has(v, KPR_FEATURE_NETNS_COOKIE);
	if (!v->found->kube_proxy)
		return;
	say(v,
	    "kube-proxy is here too (%s): NodePorts are not protected from being bound, for it "
	    "binds "
	    "them; stop it and clean up behind it (kube-proxy --cleanup)",
	    v->found->trace);
	a->bind_protection = false;
}

int kpr_mode_decide(const struct kpr_mode_wish *wish, const struct kpr_findings *found,
		    struct kpr_abilities *ret_abilities, void (*warn)(void *arg, const char *text),
		    void *arg, char *why, size_t why_len)
{
	struct verdict v = {.found = found, .text = why, .len = why_len, .arg = arg};
	bool strict = wish->mode == KPR_MODE_STRICT;
	size_t used;

	why[0] = '\0';
	memset(ret_abilities, 0, sizeof(*ret_abilities));
	ret_abilities->others = wish->mode != KPR_MODE_DISABLED;
	decide_required(&v);
	/* Without those nothing else is worth a word of its own, but strict names all. */
	if (v.n > 0 && !strict)
		return -EOPNOTSUPP;
	v.warn = strict ? NULL : warn;
	decide_kernel(&v, ret_abilities);
	decide_node_ports(&v, wish, ret_abilities);
	decide_protection(&v, wish, ret_abilities);
	if (!strict || v.n == 0)
		return 0;
	used = strlen(why);
	snprintf(why + used, why_len - used,
		 ". Mode strict takes all or nothing: remedy this, or "
		 "mode: probe goes without");
	return -EOPNOTSUPP;
}
