/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a network configuration with prevResult, and as an announcement: what is accepted
 * keeps its bounds, prevResult is a part of the input, and a record that the agent writes is one
 * that it reads.
 */
#include <cni/cni.h>
#include <node/announce.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_conf(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct cni_conf conf;
	struct cni_err err = {0};

	if (cni_conf_parse(text, size, &conf, &err) != 0) {
		if (!err.code || !err.msg[0])
			abort();
		return;
	}
	if (conf.prev.p && (conf.prev.p < text || conf.prev.end > text + size))
		abort();
	if (!conf.version[0] || conf.socket[0] != '/' || conf.timeout_s == 0 ||
	    conf.n_interfaces > CNI_INTERFACES_MAX || conf.n_addresses > CNI_ADDRESSES_MAX)
		abort();
}

static void check_announcement(const char *text)
{
	struct node_announce a, again;
	PB_FREE char *record = NULL;

	if (node_announce_parse(text, NODE_ANNOUNCE_RECORD, &a, NULL) < 0)
		return;
	record = node_announce_record(&a);
	if (!record || node_announce_parse(record, NODE_ANNOUNCE_RECORD, &again, NULL) < 0 ||
	    strcmp(a.name, again.name) != 0 || a.n_ips != again.n_ips || a.id != again.id)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	PB_FREE char *text = strndup((const char *)data, size);
	struct node_announce a;

	check_conf(data, size);
	if (!text)
		return 0;
	check_announcement(text);
	for (int use = NODE_ANNOUNCE_ADD; use <= NODE_ANNOUNCE_DELETE; use++)
		node_announce_parse(text, use, &a, NULL);
	return 0;
}
