/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the map of flows: in batches, or key by key where the kernel has no batches.
 *
 * A batch goes by the kernel's buckets: it ends, and shows every entry that was there all the time.
 * By keys neither is so: a key that was deleted sends the walk back to the start, and that is
 * followed for a bounded number of steps only.
 */
#include <bpf/bpf.h>

#include <datapath/ct_private.h>

#ifndef ENOTSUPP
#define ENOTSUPP 524 /* the kernel's own number for a map type without batches */
#endif

/* More keys than this for each that fits into the map: it changes too fast to be walked. */
#define LOOKS_PER_ENTRY 4

bool pb_ct_unsupported(int rc)
{
	return rc == -ENOTSUPP || rc == -EOPNOTSUPP || rc == -EINVAL;
}

static int read_batch(int fd, struct pb_ct_place *place, struct pb_ct_key *keys,
		      struct pb_ct *values, uint32_t max, uint32_t *ret_n)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	uint32_t next = 0, n = max;
	int rc = bpf_map_lookup_batch(fd, place->begun ? &place->bucket : NULL, &next, keys, values,
				      &n, &opts);

	if (rc < 0 && rc != -ENOENT)
		return rc;
	*ret_n = n;
	place->ended = rc == -ENOENT;
	place->begun = true;
	place->bucket = next;
	return 0;
}

static int read_keys(int fd, struct pb_ct_place *place, struct pb_ct_key *keys,
		     struct pb_ct *values, uint32_t max, uint32_t *ret_n)
{
	uint32_t n = 0, steps = 0;
	int rc = 0;

	/* A key may go between the two calls: then it is no entry, but a step. */
	while (n < max && steps++ < max) {
		struct pb_ct_key next;

		rc = bpf_map_get_next_key(fd, place->begun ? &place->key : NULL, &next);
		if (rc < 0)
			break;
		place->begun = true;
		place->key = next;
		keys[n] = next;
		if (bpf_map_lookup_elem(fd, &next, &values[n]) == 0)
			n++;
	}
	place->ended = rc == -ENOENT;
	*ret_n = n;
	return rc == -ENOENT ? 0 : rc;
}

int pb_ct_read(int fd, struct pb_ct_place *place, struct pb_ct_key *keys, struct pb_ct *values,
	       uint32_t max, uint32_t *ret_n)
{
	int rc;

	if (!place->by_key) {
		rc = read_batch(fd, place, keys, values, max, ret_n);
		if (rc == 0 || place->begun || !pb_ct_unsupported(rc))
			return rc;
		place->by_key = true;
	}
	return read_keys(fd, place, keys, values, max, ret_n);
}

/* ---- places as text ---- */

void pb_ct_place_text(const struct pb_ct_place *place, char *buf, size_t len)
{
	const unsigned char *bytes = (const void *)&place->key;
	size_t used;

	if (!place->by_key) {
		snprintf(buf, len, "b%u", place->bucket);
		return;
	}
	used = (size_t)snprintf(buf, len, "k");
	for (size_t i = 0; i < sizeof(place->key); i++)
		used += (size_t)snprintf(buf + used, len - used, "%02x", bytes[i]);
}

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

static int parse_key(const char *text, struct pb_ct_key *ret_key)
{
	unsigned char *bytes = (void *)ret_key;

	if (strlen(text) != 2 * sizeof(*ret_key))
		return -EINVAL;
	for (size_t i = 0; i < sizeof(*ret_key); i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		bytes[i] = (unsigned char)(high << 4 | low);
	}
	return 0;
}

int pb_ct_place_parse(const char *text, struct pb_ct_place *ret_place)
{
	unsigned long bucket;
	char *end = NULL;

	*ret_place = (struct pb_ct_place){0};
	if (!*text)
		return 0;
	ret_place->begun = true;
	ret_place->by_key = *text == 'k';
	if (ret_place->by_key)
		return parse_key(text + 1, &ret_place->key);
	if (*text != 'b' || text[1] < '0' || text[1] > '9')
		return -EINVAL;
	errno = 0;
	bucket = strtoul(text + 1, &end, 10);
	ret_place->bucket = (uint32_t)bucket;
	return *end || errno || bucket > UINT32_MAX ? -EINVAL : 0;
}

/* ---- all of it ---- */

struct chunk {
	struct pb_ct_key *keys;
	struct pb_ct *values;
	uint32_t max;
};

static void chunk_free(struct chunk *chunk)
{
	free(chunk->keys);
	free(chunk->values);
}

static int chunk_make(struct chunk *chunk, uint32_t max)
{
	chunk_free(chunk);
	chunk->max = max;
	chunk->keys = calloc(max, sizeof(*chunk->keys));
	chunk->values = calloc(max, sizeof(*chunk->values));
	return chunk->keys && chunk->values ? 0 : -ENOMEM;
}

static bool called_off(const struct pb_ct_walk *walk)
{
	return walk->cancel && atomic_load(walk->cancel);
}

static int walk_chunks(struct pb_ct_walk *walk, struct chunk *chunk, pb_ct_chunk_fn fn, void *arg)
{
	struct pb_ct_place place = {.by_key = walk->by_key};
	const uint64_t limit = (uint64_t)LOOKS_PER_ENTRY * walk->max_entries;
	uint64_t steps = 0;
	int rc = 0;

	while (rc == 0 && !place.ended) {
		uint32_t n = 0;

		if (called_off(walk))
			return -ECANCELED;
		rc = pb_ct_read(walk->fd, &place, chunk->keys, chunk->values, chunk->max, &n);
		if (rc == -ENOSPC && chunk->max < walk->max_entries) {
			rc = chunk_make(chunk, chunk->max * 2);
			continue;
		}
		/* Steps count, not entries: keys that went meanwhile are steps too. */
		steps += n ? n : chunk->max;
		walk->looks += n;
		if (rc == 0 && n > 0)
			rc = fn(arg, chunk->keys, chunk->values, n);
		if (rc == 0 && place.by_key && !place.ended && steps >= limit) {
			walk->incomplete = true;
			break;
		}
	}
	return rc;
}

int pb_ct_walk(struct pb_ct_walk *walk, pb_ct_chunk_fn fn, void *arg)
{
	struct chunk chunk = {0};
	int rc = chunk_make(&chunk, PB_CT_CHUNK);

	if (rc == 0)
		rc = walk_chunks(walk, &chunk, fn, arg);
	chunk_free(&chunk);
	return rc;
}

struct pb_ct_key pb_ct_pair(const struct pb_ct_key *key, const struct pb_ct *ct)
{
	return (struct pb_ct_key){.saddr = ct->daddr,
				  .daddr = ct->saddr,
				  .sport = ct->dport,
				  .dport = ct->sport,
				  .protocol = key->protocol,
				  .family = key->family,
				  .zone = key->zone};
}
