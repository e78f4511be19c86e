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

const char *pb_reason_name(uint32_t reason, char *buf, size_t len)
{
	switch (reason) {
	case PB_REASON_NONE:
		return "none";
	case PB_REASON_PLUGIN:
		return "plugin";
	case PB_REASON_INVALID_REDIRECT:
		return "invalid redirect";
	case PB_REASON_POLICY_DENIED:
		return "policy denied";
	case PB_REASON_INVALID_PACKET:
		return "invalid packet";
	case PB_REASON_MISSED_TAIL_CALL:
		return "missed tail call";
	case PB_REASON_NO_SERVICE:
		return "no service backend";
	default:
		snprintf(buf, len, "reason %u", reason);
		return buf;
	}
}
