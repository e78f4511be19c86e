/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `endpoint list` and `status` show of endpoints. Changes nothing.
 */
#include <node/internal.h>

#include <arpa/inet.h>

static char *addresses_str(const struct node_ep *ep)
{
	PB_BUF_FREE struct pb_buf buf = {0};

	for (uint32_t i = 0; i < ep->n_ips; i++) {
		char text[INET6_ADDRSTRLEN];

		node_addr_str(&ep->ips[i], text, sizeof(text));
		if (pb_buf_printf(&buf, "%s%s", i ? ", " : "", text) < 0)
			return NULL;
	}
	return PB_TAKE_PTR(buf.data);
}

static const char *state_of(const struct node_ep *ep)
{
	if (!ep->hooked)
		return "waiting";
	return node_ep_identified(ep) ? "hooked" : "init";
}

static const char *reason_of(const struct node_ep *ep)
{
	if (!ep->hooked)
		return ep->why[0]	   ? ep->why
		       : ep->iface.ifindex ? "the hooks are being attached"
					   : "its interface is being looked for";
	if (node_ep_identified(ep))
		return "";
	return ep->key ? "the labels of the pod are not known yet, or there is no number for them"
	       : ep->had_pod ? "the pod is gone, its interface is not"
			     : "no pod with this address is known yet";
}

static cJSON *ep_json(const struct node_ep *ep)
{
	PB_FREE char *addresses = addresses_str(ep);
	cJSON *item = cJSON_CreateObject();

	cJSON_AddStringToObject(item, "pod", ep->key ? ep->key : "");
	cJSON_AddNumberToObject(item, "endpoint", ep->rec.id);
	cJSON_AddNumberToObject(item, "identity", ep->rec.identity);
	cJSON_AddStringToObject(item, "interface", ep->hooked ? ep->iface.name : "");
	cJSON_AddNumberToObject(item, "ifindex", ep->hooked ? ep->iface.ifindex : 0);
	cJSON_AddStringToObject(item, "state", state_of(ep));
	cJSON_AddStringToObject(item, "reason", reason_of(ep));
	cJSON_AddStringToObject(item, "source", ep->claim ? "cni" : "netlink");
	cJSON_AddStringToObject(item, "addresses", addresses ? addresses : "");
	return item;
}

cJSON *pb_node_json(struct pb_node *node)
{
	static const struct pb_json_column columns[] = {
		{"POD", "pod"},
		{"ENDPOINT", "endpoint"},
		{"IDENTITY", "identity"},
		{"INTERFACE", "interface"},
		{"STATE", "state"},
		{"SOURCE", "source"},
		{"ADDRESSES", "addresses"},
		{"REASON", "reason"},
		{NULL, NULL},
	};
	cJSON *items;
	cJSON *table = pb_json_table(columns, &items);
	struct node_ep *ep, *next;

	if (!table)
		return NULL;
	HASH_ITER (hh_id, node->by_id, ep, next)
		cJSON_AddItemToArray(items, ep_json(ep));
	return table;
}

cJSON *pb_node_status_json(struct pb_node *node)
{
	unsigned hooked = 0, init = 0, waiting = 0, announced = 0;
	cJSON *o = cJSON_CreateObject();
	struct node_ep *ep, *next;

	HASH_ITER (hh_id, node->by_id, ep, next) {
		hooked += ep->hooked && node_ep_identified(ep);
		init += ep->hooked && !node_ep_identified(ep);
		waiting += !ep->hooked;
		announced += ep->claim != NULL;
	}
	cJSON_AddNumberToObject(o, "hooked", hooked);
	cJSON_AddNumberToObject(o, "init", init);
	cJSON_AddNumberToObject(o, "waiting", waiting);
	cJSON_AddNumberToObject(o, "announced", announced);
	cJSON_AddStringToObject(o, "early_attach",
				node->n_cidrs ? "on" : "off: this Node object names no pod CIDRs");
	return o;
}
