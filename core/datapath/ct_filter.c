/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which flows are meant: "address=10.0.0.1 port=80", and the names that rows and filters share.
 */
#include <arpa/inet.h>

#include <datapath/ct_private.h>

/* ---- names ---- */

static const struct {
	uint8_t number;
	const char *name;
} protocols[] = {
	{IPPROTO_TCP, "tcp"},	{IPPROTO_UDP, "udp"},	    {IPPROTO_SCTP, "sctp"},
	{IPPROTO_ICMP, "icmp"}, {IPPROTO_ICMPV6, "icmpv6"},
};

static const char *const zones[] = {
	[PB_CT_ZONE_SERVICE] = "service",
	[PB_CT_ZONE_EGRESS] = "egress",
	[PB_CT_ZONE_INGRESS] = "ingress",
};

static const char *const states[] = {
	[PB_CT_OPENING] = "opening",
	[PB_CT_ESTABLISHED] = "established",
	[PB_CT_CLOSING] = "closing",
};

/* By bit. */
static const char *const flags[] = {"reply",	   "single",  "snat", "local", "dsr",
				    "dsr-backend", "hairpin", "host", "pod"};

const char *pb_ct_protocol_name(uint8_t protocol, char *buf, size_t len)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(protocols); i++)
		if (protocols[i].number == protocol)
			return protocols[i].name;
	snprintf(buf, len, "%u", protocol);
	return buf;
}

const char *pb_ct_zone_name(uint8_t zone)
{
	return zone < PB_ARRAY_LEN(zones) ? zones[zone] : "unknown";
}

const char *pb_ct_state_name(uint8_t state)
{
	return state < PB_ARRAY_LEN(states) ? states[state] : "unknown";
}

void pb_ct_flags_text(uint16_t set, char *buf, size_t len)
{
	size_t used = 0;

	*buf = '\0';
	for (size_t i = 0; i < PB_ARRAY_LEN(flags) && used < len; i++)
		if (set & (1U << i))
			used += (size_t)snprintf(buf + used, len - used, "%s%s", used ? "," : "",
						 flags[i]);
}

/* ---- parsing ---- */

static bool parse_number(const char *text, uint32_t max, uint32_t *ret_number)
{
	char *end = NULL;
	unsigned long number = strtoul(text, &end, 10);

	*ret_number = (uint32_t)number;
	return *text >= '0' && *text <= '9' && !*end && number <= max;
}

static bool parse_name(const char *text, const char *const *names, size_t n, uint8_t *ret_index)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(names[i], text) == 0) {
			*ret_index = (uint8_t)i;
			return true;
		}
	return false;
}

static bool parse_address(const char *text, struct pb_ct_filter *f)
{
	f->has_address = true;
	f->address_family = strchr(text, ':') ? 6 : 4;
	return inet_pton(f->address_family == 6 ? AF_INET6 : AF_INET, text, &f->address) == 1;
}

static bool parse_port(const char *text, struct pb_ct_filter *f)
{
	uint32_t number = 0;
	bool ok = parse_number(text, UINT16_MAX, &number);

	f->has_port = true;
	f->port = htons((uint16_t)number);
	return ok;
}

static bool parse_protocol(const char *text, struct pb_ct_filter *f)
{
	uint32_t number = 0;

	f->has_protocol = true;
	for (size_t i = 0; i < PB_ARRAY_LEN(protocols); i++)
		if (strcmp(protocols[i].name, text) == 0) {
			f->protocol = protocols[i].number;
			return true;
		}
	if (!parse_number(text, UINT8_MAX, &number))
		return false;
	f->protocol = (uint8_t)number;
	return true;
}

static bool parse_family(const char *text, struct pb_ct_filter *f)
{
	f->has_family = true;
	f->family = strcmp(text, "6") == 0 ? 6 : 4;
	return strcmp(text, "4") == 0 || strcmp(text, "6") == 0;
}

static bool parse_zone(const char *text, struct pb_ct_filter *f)
{
	f->has_zone = true;
	return parse_name(text, zones, PB_ARRAY_LEN(zones), &f->zone);
}

static bool parse_state(const char *text, struct pb_ct_filter *f)
{
	f->has_state = true;
	return parse_name(text, states, PB_ARRAY_LEN(states), &f->state);
}

static bool parse_flag(const char *text, struct pb_ct_filter *f)
{
	uint8_t bit = 0;
	bool ok = parse_name(text, flags, PB_ARRAY_LEN(flags), &bit);

	f->flags |= ok ? (uint16_t)(1U << bit) : 0;
	return ok;
}

static bool parse_frontend(const char *text, struct pb_ct_filter *f)
{
	f->has_frontend = true;
	return parse_number(text, UINT32_MAX, &f->frontend);
}

static bool parse_backend(const char *text, struct pb_ct_filter *f)
{
	f->has_backend = true;
	return parse_number(text, UINT32_MAX, &f->backend);
}

static const struct {
	const char *key;
	bool (*parse)(const char *text, struct pb_ct_filter *f);
	const char *want;
} words[] = {
	{"address", parse_address, "an IPv4 or IPv6 address"},
	{"port", parse_port, "a number up to 65535"},
	{"protocol", parse_protocol, "tcp, udp, sctp, icmp, icmpv6 or a number up to 255"},
	{"family", parse_family, "4 or 6"},
	{"zone", parse_zone, "service, egress or ingress"},
	{"state", parse_state, "opening, established or closing"},
	{"flag", parse_flag, "reply, single, snat, local, dsr, dsr-backend, hairpin, host or pod"},
	{"frontend", parse_frontend, "the number of a frontend"},
	{"backend", parse_backend, "the number of a backend"},
};

/* `*given`: a bit for each key that there was; a second value would replace the first. */
static int parse_word(const char *word, struct pb_ct_filter *f, uint32_t *given, struct pb_err *err)
{
	const char *equals = strchr(word, '=');
	size_t len = equals ? (size_t)(equals - word) : 0;

	for (size_t i = 0; equals && i < PB_ARRAY_LEN(words); i++) {
		if (strlen(words[i].key) != len || strncmp(words[i].key, word, len) != 0)
			continue;
		if (*given & (1U << i) && words[i].parse != parse_flag)
			return pb_err_set(err, -EINVAL, "%s: is given twice; give it once",
					  words[i].key);
		*given |= 1U << i;
		if (words[i].parse(equals + 1, f))
			return 0;
		return pb_err_set(err, -EINVAL, "%s: \"%.60s\" isn't %s", words[i].key, equals + 1,
				  words[i].want);
	}
	return pb_err_set(err, -EINVAL,
			  "\"%.60s\" is no filter; known are address=, port=, protocol=, family=, "
			  "zone=, state=, flag=, frontend= and backend=",
			  word);
}

int pb_ct_filter_parse(const char *text, struct pb_ct_filter *ret_filter, struct pb_err *err)
{
	PB_FREE char *copy = strdup(text);
	uint32_t given = 0;
	char *save = NULL;
	int rc = copy ? 0 : pb_err_set(err, -ENOMEM, "out of memory");

	*ret_filter = (struct pb_ct_filter){0};
	for (char *w = copy ? strtok_r(copy, " ", &save) : NULL; w && rc == 0;
	     w = strtok_r(NULL, " ", &save))
		rc = parse_word(w, ret_filter, &given, err);
	return rc;
}

/* ---- matching ---- */

static bool has_address(const struct pb_ct_filter *f, const struct pb_ct_key *key,
			const struct pb_ct *ct)
{
	const union pb_addr *all[] = {&key->saddr, &key->daddr, &ct->saddr, &ct->daddr};

	for (size_t i = 0; key->family == f->address_family && i < PB_ARRAY_LEN(all); i++)
		if (memcmp(all[i], &f->address, sizeof(f->address)) == 0)
			return true;
	return false;
}

bool pb_ct_filter_passes(const struct pb_ct_filter *f, const struct pb_ct_key *key,
			 const struct pb_ct *ct)
{
	if (f->has_address && !has_address(f, key, ct))
		return false;
	if (f->has_port && key->sport != f->port && key->dport != f->port && ct->sport != f->port &&
	    ct->dport != f->port)
		return false;
	return (!f->has_protocol || key->protocol == f->protocol) &&
	       (!f->has_family || key->family == f->family) &&
	       (!f->has_zone || key->zone == f->zone) && (!f->has_state || ct->state == f->state) &&
	       (!f->has_frontend || ct->frontend == f->frontend) &&
	       (!f->has_backend || ct->backend == f->backend) && (ct->flags & f->flags) == f->flags;
}
