/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the plugin is on, by mode, configuration and what the machine has.
 *
 * Owns what goes without each feature of the kernel, and what strict, probe and disabled make of
 * it. Pure: what was found out is handed in, so a test can hand in any kernel.
 */
#ifndef KPR_MODE_H
#define KPR_MODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kpr_probe.h"
#include "kpr_reserve.h"

enum kpr_mode {
	KPR_MODE_PROBE = 0,    /* what the machine has not is off, with a warning each */
	KPR_MODE_STRICT = 1,   /* all of it, or the plugin isn't loaded */
	KPR_MODE_DISABLED = 2, /* ClusterIPs from sockets of this node, nothing else */
};

struct kpr_feature_info {
	const char *name;    /* one word, as `service status` shows it */
	const char *needs;   /* what the kernel must have */
	const char *without; /* what doesn't work without it */
	bool required;	     /* nothing works without it, whatever the mode */
};

/* What the configuration asks for. */
struct kpr_mode_wish {
	enum kpr_mode mode;
	bool node_ports;
	bool bind_protection;
	struct kpr_port_range range; /* of NodePorts */
};

struct kpr_findings {
	struct kpr_probe probe;
	bool kube_proxy; /* it is there: `trace` says how that shows */
	char trace[128];
	enum kpr_reserve reserve;
	char reserve_why[256];
};

/* What is on. */
struct kpr_abilities {
	bool others;	  /* frontends other than ClusterIPs */
	bool node_ports;  /* NodePorts, for whoever asks */
	bool north_south; /* packets from outside */
	bool bind_protection;
	bool loopback; /* host and pods can be told apart: NodePorts at 127.0.0.1 */
	bool getpeername;
	bool sock_release;
	bool udp_destroy;
	bool ipv6;
};

const char *kpr_mode_name(enum kpr_mode mode);
/* -EINVAL: no such mode. */
int kpr_mode_parse(const char *text, enum kpr_mode *ret_mode);
const struct kpr_feature_info *kpr_feature_info(enum kpr_feature feature);

/*
 * -EOPNOTSUPP: the plugin can't be loaded; `why` is one message with everything that is in the way
 * and what to do about it. Else `warn` is called once for each thing that is off.
 */
int kpr_mode_decide(const struct kpr_mode_wish *wish, const struct kpr_findings *found,
		    struct kpr_abilities *ret_abilities, void (*warn)(void *arg, const char *text),
		    void *arg, char *why, size_t why_len);

#endif
