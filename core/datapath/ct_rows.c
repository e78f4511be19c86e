/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of `ct list` and `nat list`. */
#include <arpa/inet.h>

#include <datapath/ct_private.h>

#define END_TEXT (INET6_ADDRSTRLEN + 8)

cJSON *pb_ct_rows_new(bool nat, cJSON **ret_items)
{
	static const struct pb_json_column ct[] = {
		{"ZONE", "zone"},	    {"PROTOCOL", "protocol"},
		{"SOURCE", "source"},	    {"DESTINATION", "destination"},
		{"TO SOURCE", "to_source"}, {"TO DESTINATION", "to_destination"},
		{"STATE", "state"},	    {"FLAGS", "flags"},
		{"EXPIRES", "expires_s"},   {"FRONTEND", "frontend"},
		{"BACKEND", "backend"},	    {NULL, NULL}};
	static const struct pb_json_column translations[] = {
		{"PROTOCOL", "protocol"}, {"CLIENT", "client"},	    {"FRONTEND", "frontend"},
		{"NODE", "node"},	  {"BACKEND", "backend"},   {"STATE", "state"},
		{"FLAGS", "flags"},	  {"EXPIRES", "expires_s"}, {NULL, NULL}};

	return pb_json_table(nat ? translations : ct, ret_items);
}

/* "10.0.0.1:80", "[fd00::1]:80"; without a port for ICMP's id 0 it is ":0" all the same. */
static void add_end(cJSON *item, const char *name, uint8_t family, const union pb_addr *addr,
		    __be16 port)
{
	char text[END_TEXT], host[INET6_ADDRSTRLEN] = "?";

	inet_ntop(family == 6 ? AF_INET6 : AF_INET, addr, host, sizeof(host));
	snprintf(text, sizeof(text), family == 6 ? "[%s]:%u" : "%s:%u", host, ntohs(port));
	cJSON_AddStringToObject(item, name, text);
}

static void add_state(cJSON *item, const struct pb_ct *ct, uint32_t now_s)
{
	char text[96];

	pb_ct_flags_text(ct->flags, text, sizeof(text));
	cJSON_AddStringToObject(item, "state", pb_ct_state_name(ct->state));
	cJSON_AddStringToObject(item, "flags", text);
	/* One that has expired stays until the clean-up has seen it. */
	cJSON_AddNumberToObject(item, "expires_s", ct->expires > now_s ? ct->expires - now_s : 0);
}

void pb_ct_row(cJSON *items, const struct pb_ct_key *key, const struct pb_ct *ct, uint32_t now_s)
{
	cJSON *item = cJSON_CreateObject();
	char buf[8];

	cJSON_AddStringToObject(item, "zone", pb_ct_zone_name(key->zone));
	cJSON_AddStringToObject(item, "protocol",
				pb_ct_protocol_name(key->protocol, buf, sizeof(buf)));
	add_end(item, "source", key->family, &key->saddr, key->sport);
	add_end(item, "destination", key->family, &key->daddr, key->dport);
	add_end(item, "to_source", key->family, &ct->saddr, ct->sport);
	add_end(item, "to_destination", key->family, &ct->daddr, ct->dport);
	add_state(item, ct, now_s);
	cJSON_AddNumberToObject(item, "frontend", ct->frontend);
	cJSON_AddNumberToObject(item, "backend", ct->backend);
	cJSON_AddNumberToObject(item, "identity", ct->identity);
	cJSON_AddNumberToObject(item, "policy", ct->policy);
	cJSON_AddNumberToObject(item, "ifindex", ct->ifindex);
	cJSON_AddItemToArray(items, item);
}

bool pb_ct_is_nat(const struct pb_ct_key *key, const struct pb_ct *ct)
{
	return key->zone == PB_CT_ZONE_SERVICE && !(ct->flags & PB_CT_REPLY) &&
	       ((ct->flags & PB_CT_SNAT) || ct->sport != key->sport);
}

void pb_ct_nat_row(cJSON *items, const struct pb_ct_key *key, const struct pb_ct *ct,
		   uint32_t now_s)
{
	cJSON *item = cJSON_CreateObject();
	char buf[8];

	cJSON_AddStringToObject(item, "protocol",
				pb_ct_protocol_name(key->protocol, buf, sizeof(buf)));
	add_end(item, "client", key->family, &key->saddr, key->sport);
	add_end(item, "frontend", key->family, &key->daddr, key->dport);
	add_end(item, "node", key->family, &ct->saddr, ct->sport);
	add_end(item, "backend", key->family, &ct->daddr, ct->dport);
	add_state(item, ct, now_s);
	cJSON_AddItemToArray(items, item);
}
