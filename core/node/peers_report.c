/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `identity list`, `ip list`, `status` and the metrics show. Lists are made a page at a time:
 * there may be a hundred thousand rows, and the loop has other things to do.
 */
#include <node/peers_private.h>

#include <arpa/inet.h>

#define PAGE_ROWS 128
#define PAGE_LOOKS 1024 /* entries looked at for a page, whether the filter takes them or not */

/* ---- texts ---- */

static void prefix_text(const struct pb_cidr *prefix, char *buf, size_t len)
{
	char addr[INET6_ADDRSTRLEN] = "";

	inet_ntop(prefix->family == 6 ? AF_INET6 : AF_INET, prefix->addr.bytes, addr, sizeof(addr));
	snprintf(buf, len, "%s/%u", addr, prefix->bits);
}

/* "ADDRESS" or "ADDRESS/BITS"; bits outside of the prefix don't matter to a question. */
static bool parse_prefix(const char *text, struct pb_cidr *ret_prefix)
{
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	unsigned width = strchr(text, ':') ? 128 : 32;
	unsigned long bits = width;
	char addr[INET6_ADDRSTRLEN];
	char *end = NULL;

	*ret_prefix = (struct pb_cidr){.family = width == 128 ? 6 : 4};
	if (len >= sizeof(addr))
		return false;
	memcpy(addr, text, len);
	addr[len] = '\0';
	if (inet_pton(width == 128 ? AF_INET6 : AF_INET, addr, ret_prefix->addr.bytes) != 1)
		return false;
	if (slash) {
		bits = strtoul(slash + 1, &end, 10);
		if (slash[1] < '0' || slash[1] > '9' || *end || bits > width)
			return false;
	}
	ret_prefix->bits = (uint8_t)bits;
	return true;
}

static bool parse_number(const char *text, uint32_t *ret_number)
{
	char *end = NULL;
	unsigned long number = strtoul(text, &end, 10);

	*ret_number = (uint32_t)number;
	return *text >= '0' && *text <= '9' && !*end && number <= UINT32_MAX;
}

/* ---- identities ---- */

static int labels_text(const struct pb_ident *ident, struct pb_buf *out)
{
	const char *key = ident->labels;
	int rc = 0;

	pb_buf_reset(out);
	for (uint32_t i = 0; rc == 0 && i < ident->n_labels; i++) {
		const char *value = key + strlen(key) + 1;

		rc = pb_buf_printf(out, "%s%s%s%s", i ? "," : "", key, *value ? "=" : "", value);
		key = value + strlen(value) + 1;
	}
	return rc;
}

static void identity_row(cJSON *items, const struct pb_ident *ident, const char *labels)
{
	cJSON *item = cJSON_CreateObject();

	cJSON_AddNumberToObject(item, "identity", ident->number);
	cJSON_AddStringToObject(item, "labels", labels);
	cJSON_AddNumberToObject(item, "users", ident->refs);
	cJSON_AddItemToArray(items, item);
}

static cJSON *identities_page(struct pb_peers *peers, const char *filter, uint32_t after)
{
	static const struct pb_json_column columns[] = {{"IDENTITY", "identity"},
							{"USERS", "users"},
							{"LABELS", "labels"},
							{NULL, NULL}};
	PB_BUF_FREE struct pb_buf text = {0};
	unsigned rows = 0, looks = 0;
	struct pb_ident *ident;
	uint32_t number = 0;
	cJSON *items, *table = pb_json_table(columns, &items);
	bool by_number = parse_number(filter, &number);
	char next[16];

	if (!table)
		return NULL;
	ident = pb_idents_next(peers->idents, after);
	for (; ident && rows < PAGE_ROWS && looks < PAGE_LOOKS; looks++) {
		if (labels_text(ident, &text) == 0 &&
		    (by_number ? ident->number == number : strstr(text.data, filter) != NULL)) {
			identity_row(items, ident, text.data);
			rows++;
		}
		after = ident->number;
		ident = pb_idents_next(peers->idents, after);
	}
	snprintf(next, sizeof(next), "%u", after);
	if (ident)
		cJSON_AddStringToObject(table, "next", next);
	return table;
}

cJSON *pb_peers_identities_json(struct pb_peers *peers, const char *filter, const char *after,
				struct pb_err *err)
{
	uint32_t number = 0;
	cJSON *table;

	if (after && *after && !parse_number(after, &number)) {
		pb_err_set(err, -EINVAL, "\"%.60s\" is no place in the list; leave it out", after);
		return NULL;
	}
	table = identities_page(peers, filter ? filter : "", number);
	if (!table)
		pb_err_set(err, -ENOMEM, "out of memory");
	return table;
}

/* ---- addresses ---- */

struct ip_filter {
	enum { ALL, BY_IDENTITY, BY_PREFIX } by;
	uint32_t identity;
	struct pb_cidr prefix;
};

static int parse_filter(const char *text, struct ip_filter *ret_filter, struct pb_err *err)
{
	*ret_filter = (struct ip_filter){.by = ALL};
	if (!text || !*text)
		return 0;
	if (parse_number(text, &ret_filter->identity))
		ret_filter->by = BY_IDENTITY;
	else if (parse_prefix(text, &ret_filter->prefix))
		ret_filter->by = BY_PREFIX;
	else
		return pb_err_set(err, -EINVAL,
				  "\"%.60s\" is neither an address or prefix nor the number of an "
				  "identity",
				  text);
	return 0;
}

/* True when one of the two lies in the other. */
static bool overlap(const struct pb_cidr *a, const struct pb_cidr *b)
{
	unsigned bits = a->bits < b->bits ? a->bits : b->bits;

	if (a->family != b->family || memcmp(a->addr.bytes, b->addr.bytes, bits / 8) != 0)
		return false;
	return bits % 8 == 0 || ((a->addr.bytes[bits / 8] ^ b->addr.bytes[bits / 8]) &
				 (0xff00 >> bits % 8) & 0xff) == 0;
}

static bool passes(const struct ip_filter *filter, const struct pb_ip_row *row)
{
	if (filter->by == BY_IDENTITY)
		return row->value.identity == filter->identity;
	return filter->by == ALL || overlap(&filter->prefix, &row->prefix);
}

static const char *source_name(uint8_t source)
{
	static const char *const names[] = {
		[PB_IP_CIDR] = "range",	      [PB_IP_POD] = "pod",   [PB_IP_LOCAL_POD] = "endpoint",
		[PB_IP_REMOTE_NODE] = "node", [PB_IP_HOST] = "host",
	};

	return source < PB_ARRAY_LEN(names) && names[source] ? names[source] : "unknown";
}

static void ip_row(cJSON *items, const struct pb_ip_row *row)
{
	cJSON *item = cJSON_CreateObject();
	char text[INET6_ADDRSTRLEN + 8];

	prefix_text(&row->prefix, text, sizeof(text));
	cJSON_AddStringToObject(item, "prefix", text);
	cJSON_AddNumberToObject(item, "identity", row->value.identity);
	cJSON_AddStringToObject(item, "source", source_name(row->value.source));
	cJSON_AddStringToObject(item, "of", row->who);
	text[0] = '\0';
	if (row->value.node4)
		inet_ntop(AF_INET, &row->value.node4, text, sizeof(text));
	cJSON_AddStringToObject(item, "node", text);
	cJSON_AddNumberToObject(item, "claims", row->n_claims);
	cJSON_AddBoolToObject(item, "adopted", row->adopted);
	cJSON_AddItemToArray(items, item);
}

/* A place is "SEQ@PREFIX" of the last row looked at. */
static bool parse_place(const char *text, uint64_t *ret_seq, struct pb_cidr *ret_prefix)
{
	char *end = NULL;

	*ret_seq = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && *end == '@' && parse_prefix(end + 1, ret_prefix);
}

static void add_next(cJSON *table, const struct pb_ip_row *row)
{
	char prefix[INET6_ADDRSTRLEN + 8], text[sizeof(prefix) + 24];

	prefix_text(&row->prefix, prefix, sizeof(prefix));
	snprintf(text, sizeof(text), "%llu@%s", (unsigned long long)row->seq, prefix);
	cJSON_AddStringToObject(table, "next", text);
}

static cJSON *ips_page(struct pb_peers *peers, const struct ip_filter *filter,
		       const struct pb_cidr *after, uint64_t seq)
{
	static const struct pb_json_column columns[] = {
		{"PREFIX", "prefix"}, {"IDENTITY", "identity"}, {"SOURCE", "source"},
		{"OF", "of"},	      {"NODE", "node"},		{NULL, NULL}};
	cJSON *items, *table = pb_json_table(columns, &items);
	unsigned rows = 0, looks = 0;
	struct pb_ip_row row, last = {0};
	bool more;

	if (!table)
		return NULL;
	more = pb_ipcache_next(peers->ipcache, after, seq, &row);
	for (; more && rows < PAGE_ROWS && looks < PAGE_LOOKS; looks++) {
		if (passes(filter, &row)) {
			ip_row(items, &row);
			rows++;
		}
		last = row;
		more = pb_ipcache_next(peers->ipcache, &last.prefix, last.seq, &row);
	}
	if (more)
		add_next(table, &last);
	return table;
}

cJSON *pb_peers_ips_json(struct pb_peers *peers, const char *filter, const char *after,
			 struct pb_err *err)
{
	const bool behind = after && *after;
	struct ip_filter parsed;
	struct pb_cidr prefix;
	uint64_t seq = 0;
	cJSON *table;

	if (parse_filter(filter, &parsed, err) < 0)
		return NULL;
	if (behind && !parse_place(after, &seq, &prefix)) {
		pb_err_set(err, -EINVAL, "\"%.60s\" is no place in the list; leave it out", after);
		return NULL;
	}
	table = ips_page(peers, &parsed, behind ? &prefix : NULL, seq);
	if (!table)
		pb_err_set(err, -ENOMEM, "out of memory");
	return table;
}

/* ---- counts ---- */

void pb_peers_count(struct pb_peers *peers, struct pb_peers_counts *ret_counts)
{
	struct pb_ident_counts pods = pb_idents_count(peers->idents, PB_IDENT_POD);
	struct pb_ident_counts ranges = pb_idents_count(peers->idents, PB_IDENT_CIDR);
	struct pb_ipcache_counts ips = pb_ipcache_count(peers->ipcache);

	*ret_counts = (struct pb_peers_counts){
		.pods = peers->n_pods,
		.pods_without_identity = peers->n_starved,
		.nodes = peers->n_nodes,
		.identities = pods.held,
		.identities_kept = pods.kept,
		.identities_max = pods.room,
		.ranges = ranges.held,
		.ranges_max = ranges.room,
		.ipcache4 = ips.entries[0],
		.ipcache6 = ips.entries[1],
		.ipcache_max = ips.max[0],
		.ipcache_waiting = ips.waiting,
		.synced = peers->announced,
	};
}

cJSON *pb_peers_status_json(struct pb_peers *peers)
{
	struct pb_peers_counts counts;
	cJSON *o = cJSON_CreateObject();

	pb_peers_count(peers, &counts);
	cJSON_AddBoolToObject(o, "synced", counts.synced);
	cJSON_AddNumberToObject(o, "pods", counts.pods);
	cJSON_AddNumberToObject(o, "pods_without_identity", counts.pods_without_identity);
	cJSON_AddNumberToObject(o, "nodes", counts.nodes);
	cJSON_AddNumberToObject(o, "identities", counts.identities);
	cJSON_AddNumberToObject(o, "identities_kept", counts.identities_kept);
	cJSON_AddNumberToObject(o, "identities_max", counts.identities_max);
	cJSON_AddNumberToObject(o, "ranges", counts.ranges);
	cJSON_AddNumberToObject(o, "ipcache4", counts.ipcache4);
	cJSON_AddNumberToObject(o, "ipcache6", counts.ipcache6);
	cJSON_AddNumberToObject(o, "ipcache_max", counts.ipcache_max);
	cJSON_AddNumberToObject(o, "ipcache_waiting", counts.ipcache_waiting);
	return o;
}
