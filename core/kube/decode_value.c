/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single values: strings, numbers, protocols, addresses. Strict on purpose: an address that two
 * programs could read differently is no address.
 */
#include <kube/decode.h>

#include <arpa/inet.h>
#include <netinet/in.h>

struct pb_scan pb_decode_list(struct pb_decode *d, struct pb_span value, const char *field)
{
	if (pb_span_type(value) && pb_span_type(value) != '[')
		pb_decode_fail(d, "%s is not a list", field);
	return pb_scan_list(value);
}

size_t pb_decode_count(struct pb_span list)
{
	struct pb_scan scan = pb_scan_list(list);
	struct pb_span value;
	size_t n = 0;

	while (pb_scan_element(&scan, &value))
		n++;
	return n;
}

void *pb_decode_room(struct pb_decode *d, size_t n, size_t size)
{
	void *room = calloc(n + 1, size);

	if (!room)
		d->arena.rc = -ENOMEM;
	return room;
}

void pb_decode_text(struct pb_decode *d, struct pb_span value, const char *field, const char **slot)
{
	if (pb_span_type(value) && pb_span_type(value) != '"')
		pb_decode_fail(d, "%s is not a string: put it in double quotes", field);
	*slot = pb_kube_arena_text(&d->arena, value);
	if ((char *)slot >= d->arena.base && (char *)slot < d->arena.base + d->arena.len)
		pb_kube_arena_slot(&d->arena, slot);
}

/* Where a text would be among those seen: names that differ, differ at their ends. */
static struct pb_decode_seen *seen_at(struct pb_decode *d, const char *raw, size_t len)
{
	uint64_t tail = len;

	memcpy(&tail, len < 8 ? raw : raw + len - 8, len < 8 ? len : 8);
	return &d->seen[((tail ^ len) * 0x9e3779b97f4a7c15ULL >> 32) % PB_DECODE_SEEN];
}

static void seen_settle(struct pb_decode_seen *seen)
{
	if (seen->more)
		pb_kube_intern_ref(seen->interned, seen->more);
	seen->more = 0;
}

void pb_decode_intern_settle(struct pb_decode *d)
{
	for (size_t i = 0; i < PB_DECODE_SEEN; i++)
		seen_settle(&d->seen[i]);
}

static const char *intern_new(struct pb_decode *d, struct pb_span value)
{
	PB_FREE char *large = NULL;
	const char *interned;
	char small[256], *text = small;

	if (pb_span_room(value) > sizeof(small))
		text = large = malloc(pb_span_room(value));
	interned = text ? pb_kube_intern(text, pb_span_text(value, text)) : NULL;
	if (!interned)
		d->arena.rc = -ENOMEM;
	return interned ? interned : "";
}

const char *pb_decode_intern(struct pb_decode *d, struct pb_span value, const char *field)
{
	struct pb_decode_seen *seen;
	const char *raw;
	size_t len;

	if (pb_span_type(value) && pb_span_type(value) != '"')
		pb_decode_fail(d, "%s is not a string: put it in double quotes", field);
	if (pb_span_type(value) != '"')
		return "";
	raw = value.p + 1;
	len = pb_span_room(value) - 1;
	seen = seen_at(d, raw, len);
	if (seen->raw && seen->len == len && memcmp(seen->raw, raw, len) == 0) {
		seen->more++;
		return seen->interned;
	}
	seen_settle(seen);
	*seen = (struct pb_decode_seen){raw, len, intern_new(d, value), 0};
	return seen->interned;
}

bool pb_decode_bool(struct pb_decode *d, struct pb_span value, const char *field, bool fallback)
{
	char type = pb_span_type(value);

	if (type == '\0')
		return fallback;
	if (type != 't' && type != 'f')
		pb_decode_fail(d, "%s is neither true nor false", field);
	return type == 't';
}

bool pb_decode_number(struct pb_decode *d, struct pb_span value, const char *field, int64_t min,
		      int64_t max, int64_t *ret_number)
{
	int64_t number;

	if (pb_span_type(value) == '\0')
		return false;
	if (pb_span_int(value, &number) == 0 && number >= min && number <= max) {
		*ret_number = number;
		return true;
	}
	pb_decode_warn(d, "%s: %.*s is not a number from %lld to %lld", field,
		       value.end - value.p > 40 ? 40 : (int)(value.end - value.p), value.p,
		       (long long)min, (long long)max);
	return false;
}

uint8_t pb_decode_protocol(struct pb_span value)
{
	if (pb_span_type(value) == '\0' || pb_span_is(value, "TCP") || pb_span_is(value, ""))
		return IPPROTO_TCP;
	if (pb_span_is(value, "UDP"))
		return IPPROTO_UDP;
	return pb_span_is(value, "SCTP") ? IPPROTO_SCTP : 0;
}

/* Why the text is no address in canonical spelling, or NULL. */
static const char *addr_parse(const char *text, struct pb_kube_addr *ret_addr)
{
	struct in6_addr v6;

	*ret_addr = (struct pb_kube_addr){0};
	if (inet_pton(AF_INET, text, &ret_addr->addr.v4) == 1) {
		ret_addr->family = 4;
		return NULL;
	}
	if (inet_pton(AF_INET6, text, &v6) == 1) {
		if (IN6_IS_ADDR_V4MAPPED(&v6))
			return "is an IPv4 address in IPv6 form: write it as IPv4";
		memcpy(ret_addr->addr.bytes, &v6, sizeof(v6));
		ret_addr->family = 6;
		return NULL;
	}
	if (strchr(text, '/'))
		return "has a prefix length: only an address may stand here";
	if (strspn(text, "0123456789.") == strlen(text) && (text[0] == '0' || strstr(text, ".0")))
		return "is not an IP address (leading zeros are ambiguous)";
	return "is not an IP address";
}

/* The string in buf; false with a warning when it can't be an address. */
static bool short_text(struct pb_decode *d, struct pb_span value, const char *field, char *buf,
		       size_t size)
{
	if (pb_span_type(value) == '"' && pb_span_room(value) <= size) {
		pb_span_text(value, buf);
		return true;
	}
	pb_decode_warn(d, "%s: an IP address as a string was expected", field);
	return false;
}

/*
 * What most addresses are: four numbers without leading zeros. Takes exactly what inet_pton()
 * takes; anything else goes the long way and gets its reason there.
 */
static bool is_plain_ipv4(struct pb_span value, struct pb_kube_addr *ret_addr)
{
	const char *p, *end;

	if (pb_span_type(value) != '"')
		return false;
	p = value.p + 1;
	end = value.end - 1;
	*ret_addr = (struct pb_kube_addr){.family = 4};
	for (unsigned i = 0; i < 4; i++) {
		const char *from = p;
		unsigned number = 0;

		for (; p < end && *p >= '0' && *p <= '9' && p - from < 3; p++)
			number = number * 10 + (unsigned)(*p - '0');
		if (p == from || number > 255 || (*from == '0' && p - from > 1))
			return false;
		ret_addr->addr.bytes[i] = (unsigned char)number;
		if (i < 3 && (p == end || *p++ != '.'))
			return false;
	}
	return p == end;
}

bool pb_decode_addr(struct pb_decode *d, struct pb_span value, const char *field,
		    struct pb_kube_addr *ret_addr)
{
	const char *why;
	char text[64];

	if (is_plain_ipv4(value, ret_addr))
		return true;
	if (!short_text(d, value, field, text, sizeof(text)))
		return false;
	why = addr_parse(text, ret_addr);
	if (why)
		pb_decode_warn(d, "%s: \"%s\" %s", field, text, why);
	return !why;
}

static void clear_host_bits(union pb_addr *addr, unsigned bits)
{
	for (unsigned i = 0; i < sizeof(addr->bytes); i++) {
		unsigned keep = bits > i * 8 ? bits - i * 8 : 0;

		if (keep < 8)
			addr->bytes[i] &= (unsigned char)(0xff00U >> keep);
	}
}

/* Kubernetes trims blanks around a range. */
static char *trim(char *text)
{
	size_t len;

	text += strspn(text, " \t\n\r");
	len = strlen(text);
	while (len && strchr(" \t\n\r", text[len - 1]))
		text[--len] = '\0';
	return text;
}

bool pb_decode_cidr(struct pb_decode *d, struct pb_span value, const char *field,
		    struct pb_cidr *ret_cidr)
{
	struct pb_kube_addr addr;
	char buf[64], shown[64], *text, *slash, *end;
	unsigned long bits;

	if (!short_text(d, value, field, buf, sizeof(buf)))
		return false;
	text = trim(buf);
	memcpy(shown, text, strlen(text) + 1);
	slash = strchr(text, '/');
	if (!slash || slash[1] < '0' || slash[1] > '9' || (slash[1] == '0' && slash[2])) {
		pb_decode_warn(d, "%s: \"%s\" is not of the form ADDRESS/BITS", field, shown);
		return false;
	}
	*slash = '\0';
	bits = strtoul(slash + 1, &end, 10);
	if (*end || addr_parse(text, &addr) || bits > (addr.family == 4 ? 32 : 128)) {
		pb_decode_warn(d, "%s: \"%s\" is not an IP range", field, shown);
		return false;
	}
	*ret_cidr = (struct pb_cidr){.addr = addr.addr,
				     .family = (uint8_t)addr.family,
				     .bits = (uint8_t)bits};
	clear_host_bits(&ret_cidr->addr, (unsigned)bits);
	return true;
}

static const char *pairs_find(const struct pb_kube_pair *pairs, uint32_t n, const char *key)
{
	for (uint32_t i = 0; i < n; i++)
		if (strcmp(pairs[i].key, key) == 0)
			return pairs[i].value;
	return "";
}

const char *pb_decode_label(const struct pb_kube_meta *meta, const char *key)
{
	return pairs_find(meta->labels, meta->n_labels, key);
}

const char *pb_decode_annotation(const struct pb_kube_meta *meta, const char *key)
{
	return pairs_find(meta->annotations, meta->n_annotations, key);
}
