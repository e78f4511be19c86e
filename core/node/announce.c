/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads and writes announcements. Nothing of one is used before all of it was found right.
 */
#include <node/announce.h>

#include <arpa/inet.h>

bool node_addr_parse(const char *text, struct pb_kube_addr *ret_addr)
{
	bool v6 = strchr(text, ':') != NULL;

	*ret_addr = (struct pb_kube_addr){.family = v6 ? 6 : 4};
	return inet_pton(v6 ? AF_INET6 : AF_INET, text, ret_addr->addr.bytes) == 1;
}

const char *node_addr_str(const struct pb_kube_addr *addr, char *text, size_t len)
{
	if (!inet_ntop(addr->family == 6 ? AF_INET6 : AF_INET, addr->addr.bytes, text,
		       (socklen_t)len))
		text[0] = '\0';
	return text;
}

/* ---- members ---- */

enum kind {
	KIND_DNS,  /* a namespace, a pod's name */
	KIND_WORD, /* letters, digits and "-_.:" */
	KIND_IFACE,
	KIND_ADDRESSES,
	KIND_NUMBER,
};

#define IN(use_) (1U << NODE_ANNOUNCE_##use_)
#define EVERYWHERE (IN(ADD) | IN(DELETE) | IN(RECORD))

struct member {
	const char *name;
	enum kind kind;
	unsigned allowed, needed; /* IN() */
	size_t offset, size;
	double max; /* of a number; the least is 1 */
};

#define TEXT(field_)                                                                               \
	offsetof(struct node_announce, field_), sizeof(((struct node_announce *)NULL)->field_)
#define NUMBER(field_, max_) offsetof(struct node_announce, field_), 0, (max_)

static const struct member members[] = {
	{"namespace", KIND_DNS, EVERYWHERE, EVERYWHERE, TEXT(ns), 0},
	{"name", KIND_DNS, EVERYWHERE, EVERYWHERE, TEXT(name), 0},
	{"uid", KIND_WORD, IN(ADD) | IN(RECORD), 0, TEXT(uid), 0},
	{"container", KIND_WORD, EVERYWHERE, 0, TEXT(container), 0},
	{"interface", KIND_IFACE, IN(ADD) | IN(RECORD), IN(ADD) | IN(RECORD), TEXT(interface), 0},
	{"addresses", KIND_ADDRESSES, IN(ADD) | IN(RECORD), IN(ADD) | IN(RECORD), TEXT(ips), 0},
	{"timeout_ms", KIND_NUMBER, IN(ADD), 0, NUMBER(timeout_ms, 300000)},
	{"endpoint", KIND_NUMBER, IN(RECORD), IN(RECORD), NUMBER(id, 65535)},
	{"ifindex", KIND_NUMBER, IN(RECORD), IN(RECORD), NUMBER(ifindex, 0x7fffffff)},
};

static bool is_word(const char *text, const char *more)
{
	for (; *text; text++)
		if (!(*text >= 'a' && *text <= 'z') && !(*text >= '0' && *text <= '9') &&
		    !strchr(more, *text))
			return false;
	return true;
}

/* What the kernel takes as a device's name. */
static bool is_iface(const char *text)
{
	if (strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
		return false;
	for (; *text; text++)
		if (*text <= ' ' || *text > '~' || *text == '/' || *text == ':')
			return false;
	return true;
}

static int read_text(const struct member *m, const cJSON *value, void *at, struct pb_err *err)
{
	static const char upper[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_.:";
	const char *text = cJSON_IsString(value) ? value->valuestring : "";
	size_t len = strlen(text);
	bool right = m->kind == KIND_DNS     ? is_word(text, "-.")
		     : m->kind == KIND_IFACE ? is_iface(text)
					     : is_word(text, upper);

	if (len == 0 || len >= m->size || !right)
		return pb_err_set(err, -EINVAL,
				  "endpoint: %s: must be a string of 1 to %zu %s characters",
				  m->name, m->size - 1,
				  m->kind == KIND_DNS	  ? "lower case DNS"
				  : m->kind == KIND_IFACE ? "interface name"
							  : "word");
	memcpy(at, text, len + 1);
	return 0;
}

static int read_number(const struct member *m, const cJSON *value, void *at, struct pb_err *err)
{
	double d = cJSON_IsNumber(value) ? value->valuedouble : 0;
	uint32_t number;

	if (!(d >= 1 && d <= m->max) || d != (double)(uint32_t)d)
		return pb_err_set(err, -EINVAL,
				  "endpoint: %s: must be a whole number from 1 to %.0f", m->name,
				  m->max);
	number = (uint32_t)d;
	memcpy(at, &number, sizeof(number));
	return 0;
}

static int read_addresses(const cJSON *value, struct node_announce *a, struct pb_err *err)
{
	const cJSON *item;

	if (!cJSON_IsArray(value) || cJSON_GetArraySize(value) < 1 ||
	    cJSON_GetArraySize(value) > NODE_ANNOUNCE_ADDRS)
		return pb_err_set(err, -EINVAL,
				  "endpoint: addresses: must be a list of 1 to %d IP addresses",
				  NODE_ANNOUNCE_ADDRS);
	cJSON_ArrayForEach (item, value) {
		if (!cJSON_IsString(item) || !node_addr_parse(item->valuestring, &a->ips[a->n_ips]))
			return pb_err_set(err, -EINVAL,
					  "endpoint: addresses[%u]: must be an IP address, "
					  "without a prefix length",
					  a->n_ips);
		a->n_ips++;
	}
	return 0;
}

static int read_member(const struct member *m, const cJSON *value, struct node_announce *a,
		       struct pb_err *err)
{
	void *at = (char *)a + m->offset;

	if (m->kind == KIND_ADDRESSES)
		return read_addresses(value, a, err);
	if (m->kind == KIND_NUMBER)
		return read_number(m, value, at, err);
	return read_text(m, value, at, err);
}

static const struct member *member_find(const char *name, unsigned use)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(members); i++)
		if ((members[i].allowed & use) && strcmp(members[i].name, name) == 0)
			return &members[i];
	return NULL;
}

int node_announce_parse(const char *json, enum node_announce_use use,
			struct node_announce *ret_announce, struct pb_err *err)
{
	PB_JSON_FREE cJSON *object = cJSON_ParseWithOpts(json, NULL, true);
	struct node_announce a = {.timeout_ms = NODE_ANNOUNCE_TIMEOUT_MS};
	unsigned in = 1U << use, seen = 0;
	const cJSON *value;

	if (!cJSON_IsObject(object))
		return pb_err_set(err, -EINVAL, "endpoint: the argument must be one JSON object");
	cJSON_ArrayForEach (value, object) {
		const struct member *m = member_find(value->string, in);
		unsigned bit;
		int rc;

		if (!m)
			return pb_err_set(err, -EINVAL, "endpoint: \"%.40s\": unknown member",
					  value->string);
		bit = 1U << (m - members);
		if (seen & bit)
			return pb_err_set(err, -EINVAL, "endpoint: %s: given twice", m->name);
		seen |= bit;
		rc = read_member(m, value, &a, err);
		if (rc < 0)
			return rc;
	}
	for (size_t i = 0; i < PB_ARRAY_LEN(members); i++)
		if ((members[i].needed & in) && !(seen & 1U << i))
			return pb_err_set(err, -EINVAL, "endpoint: %s: missing", members[i].name);
	*ret_announce = a;
	return 0;
}

char *node_announce_record(const struct node_announce *a)
{
	PB_JSON_FREE cJSON *o = cJSON_CreateObject();
	cJSON *addresses;

	cJSON_AddStringToObject(o, "namespace", a->ns);
	cJSON_AddStringToObject(o, "name", a->name);
	if (a->uid[0])
		cJSON_AddStringToObject(o, "uid", a->uid);
	if (a->container[0])
		cJSON_AddStringToObject(o, "container", a->container);
	cJSON_AddStringToObject(o, "interface", a->interface);
	addresses = cJSON_AddArrayToObject(o, "addresses");
	for (uint32_t i = 0; i < a->n_ips; i++) {
		char text[INET6_ADDRSTRLEN];

		cJSON_AddItemToArray(addresses, cJSON_CreateString(node_addr_str(&a->ips[i], text,
										 sizeof(text))));
	}
	cJSON_AddNumberToObject(o, "endpoint", a->id);
	cJSON_AddNumberToObject(o, "ifindex", a->ifindex);
	return cJSON_PrintUnformatted(o);
}
