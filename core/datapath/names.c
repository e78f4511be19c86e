/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of hooks, bands and drop reasons, as admins read and write them.
 *
 * Owns the words only. A name is part of pins, metrics and the tool's output: never change one.
 */
#include <datapath/datapath.h>

static const char *const hook_names[PB_HOOK_COUNT] = {
	[PB_HOOK_POD_EGRESS] = "pod-egress",
	[PB_HOOK_POD_INGRESS] = "pod-ingress",
	[PB_HOOK_DEV_INGRESS] = "dev-ingress",
	[PB_HOOK_DEV_EGRESS] = "dev-egress",
	[PB_HOOK_CONNECT4] = "connect4",
	[PB_HOOK_CONNECT6] = "connect6",
	[PB_HOOK_SENDMSG4] = "sendmsg4",
	[PB_HOOK_SENDMSG6] = "sendmsg6",
	[PB_HOOK_RECVMSG4] = "recvmsg4",
	[PB_HOOK_RECVMSG6] = "recvmsg6",
	[PB_HOOK_GETPEERNAME4] = "getpeername4",
	[PB_HOOK_GETPEERNAME6] = "getpeername6",
	[PB_HOOK_BIND4] = "bind4",
	[PB_HOOK_BIND6] = "bind6",
	[PB_HOOK_SOCK_RELEASE] = "sock-release",
};

static const char *const band_names[PB_BAND_COUNT] = {
	[PB_BAND_DECAP] = "decap", [PB_BAND_SERVICE] = "service", [PB_BAND_POLICY] = "policy",
	[PB_BAND_L7] = "l7",	   [PB_BAND_FORWARD] = "forward", [PB_BAND_OBSERVE] = "observe",
};

const char *pb_hook_name(uint32_t hook)
{
	return hook < PB_HOOK_COUNT ? hook_names[hook] : NULL;
}

const char *pb_band_name(uint32_t band)
{
	return band < PB_BAND_COUNT ? band_names[band] : NULL;
}

static const char *const reason_names[PB_REASON_COUNT] = {
	[PB_REASON_NONE] = "none",
	[PB_REASON_PLUGIN] = "plugin",
	[PB_REASON_INVALID_REDIRECT] = "invalid redirect",
	[PB_REASON_POLICY_DENIED] = "policy denied",
	[PB_REASON_INVALID_PACKET] = "invalid packet",
	[PB_REASON_INVALID_HEADER] = "no room in header",
	[PB_REASON_FRAG_NEEDED] = "fragmentation needed",
	[PB_REASON_MISSED_TAIL_CALL] = "missed tail call",
	[PB_REASON_WRITE_ERROR] = "write error",
	[PB_REASON_CT_FULL] = "conntrack full",
	[PB_REASON_EXT_HEADER] = "extension header",
	[PB_REASON_FRAGMENT] = "fragment",
	[PB_REASON_NO_SERVICE] = "no service backend",
	[PB_REASON_NO_TUNNEL] = "no tunnel endpoint",
	[PB_REASON_UNKNOWN_FLOW] = "unknown flow",
	[PB_REASON_NAT_NO_PORT] = "no free source port",
	[PB_REASON_NAT_PROTOCOL] = "untranslatable protocol",
	[PB_REASON_NO_FIB] = "no route",
	[PB_REASON_CLUSTER_IP] = "ClusterIP from outside",
	[PB_REASON_FRAG_UNKNOWN] = "unknown fragment",
	[PB_REASON_SOURCE_RANGE] = "not in source ranges",
	[PB_REASON_DSR_PROTOCOL] = "protocol without DSR",
	[PB_REASON_TTL_EXCEEDED] = "TTL exceeded",
};

const char *pb_reason_name(uint32_t reason, char *buf, size_t len)
{
	if (reason < PB_REASON_COUNT && reason_names[reason])
		return reason_names[reason];
	snprintf(buf, len, "reason %u", reason);
	return buf;
}
