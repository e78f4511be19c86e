/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One run of the clean-up, and how soon the next one follows.
 *
 * An entry is judged by what the map says at that moment, not by what the walk has shown or not
 * shown. Between the judgement and the deletion lie at most a few hundred look-ups.
 */
#include <bpf/bpf.h>

#include <datapath/ct_private.h>

#define INTERVAL_MIN_S 10
#define INTERVAL_MAX_S (12 * 3600)

/* ---- deleting ---- */

static int delete_each(int fd, const struct pb_ct_key *keys, uint32_t n, uint64_t *deleted)
{
	for (uint32_t i = 0; i < n; i++) {
		int rc = bpf_map_delete_elem(fd, &keys[i]);

		if (rc < 0 && rc != -ENOENT)
			return rc;
		*deleted += rc == 0;
	}
	return 0;
}

/* A batch ends at a key that isn't there (any more): go on behind it. */
static int delete_keys(int fd, const struct pb_ct_key *keys, uint32_t n, uint64_t *deleted)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);

	while (n > 0) {
		uint32_t done = n;
		int rc = bpf_map_delete_batch(fd, keys, &done, &opts);

		if (pb_ct_unsupported(rc))
			return delete_each(fd, keys, n, deleted);
		if (rc < 0 && rc != -ENOENT)
			return rc;
		*deleted += done;
		if (rc == 0)
			return 0;
		done++;
		keys += done;
		n -= done < n ? done : n;
	}
	return 0;
}

int pb_ct_repair(int fd, const struct pb_ct_key *keys, uint32_t n)
{
	struct pb_ct ct, other;
	int rc = 0;

	for (uint32_t i = 0; i < n && (rc == 0 || rc == -ENOENT); i++) {
		struct pb_ct_key pair;

		rc = bpf_map_lookup_elem(fd, &keys[i], &ct);
		if (rc < 0 || ct.flags & PB_CT_SINGLE)
			continue;
		pair = pb_ct_pair(&keys[i], &ct);
		rc = bpf_map_lookup_elem(fd, &pair, &other);
		if (rc == -ENOENT)
			rc = bpf_map_delete_elem(fd, &keys[i]);
	}
	return rc == -ENOENT ? 0 : rc;
}

/* Kernels before 5.14 have it in two steps only. */
static int take(int fd, const struct pb_ct_key *key, struct pb_ct *ret_ct)
{
	int rc = bpf_map_lookup_and_delete_elem(fd, key, ret_ct);

	if (!pb_ct_unsupported(rc))
		return rc;
	rc = bpf_map_lookup_elem(fd, key, ret_ct);
	return rc < 0 ? rc : bpf_map_delete_elem(fd, key);
}

/*
 * The half of the answers may be another client's by now: its port was free to be taken. That one
 * is put back, or its flow goes as a whole when there is no place any more.
 */
static int delete_second(struct pb_ct_doomed *d, uint32_t i)
{
	struct pb_ct_key owner;
	struct pb_ct ct;
	int rc = take(d->fd, &d->second[i], &ct);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	owner = pb_ct_pair(&d->second[i], &ct);
	if (memcmp(&owner, &d->owner[i], sizeof(owner)) == 0) {
		d->deleted++;
		return 0;
	}
	rc = bpf_map_update_elem(d->fd, &d->second[i], &ct, BPF_NOEXIST);
	if (rc < 0)
		rc = bpf_map_delete_elem(d->fd, &owner);
	return rc == -ENOENT ? 0 : rc;
}

int pb_ct_doomed_end(struct pb_ct_doomed *d)
{
	int rc = delete_keys(d->fd, d->first, d->n_first, &d->deleted);

	for (uint32_t i = 0; rc == 0 && i < d->n_second; i++)
		rc = delete_second(d, i);
	/* A program takes the tuple of an expired flow over, whatever is left of it. */
	if (rc == 0)
		rc = pb_ct_repair(d->fd, d->first, d->n_first);
	d->n_first = d->n_second = 0;
	return rc;
}

int pb_ct_doom(struct pb_ct_doomed *d, const struct pb_ct_key *key, const struct pb_ct *ct,
	       const struct pb_ct_key *pair)
{
	const bool reply = ct->flags & PB_CT_REPLY;

	if (reply) {
		d->owner[d->n_second] = pb_ct_pair(key, ct);
		d->second[d->n_second++] = *key;
		if (pair)
			d->first[d->n_first++] = *pair;
	} else {
		d->first[d->n_first++] = *key;
		if (pair) {
			d->owner[d->n_second] = *key;
			d->second[d->n_second++] = *pair;
		}
	}
	if (d->n_first < PB_ARRAY_LEN(d->first) && d->n_second < PB_ARRAY_LEN(d->second))
		return 0;
	return pb_ct_doomed_end(d);
}

/* ---- a run ---- */

struct run {
	struct pb_ct_doomed doomed;
	struct pb_ct_gc *gc;
	uint32_t now_s;
};

static bool expired(const struct run *run, const struct pb_ct *ct)
{
	return ct->expires < run->now_s;
}

/* Looks again: the entry may have been used, or gone with its pair, since it was read. */
static int judge(struct run *run, const struct pb_ct_key *key)
{
	struct pb_ct_key pair;
	struct pb_ct ct, other;
	int rc = bpf_map_lookup_elem(run->doomed.fd, key, &ct);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	if (!expired(run, &ct)) {
		run->gc->kept++;
		return 0;
	}
	if (ct.flags & PB_CT_SINGLE)
		return pb_ct_doom(&run->doomed, key, &ct, NULL);
	pair = pb_ct_pair(key, &ct);
	rc = bpf_map_lookup_elem(run->doomed.fd, &pair, &other);
	if (rc == -ENOENT) {
		run->gc->orphans++;
		return pb_ct_doom(&run->doomed, key, &ct, NULL);
	}
	if (rc < 0)
		return rc;
	if (!expired(run, &other)) {
		run->gc->kept++;
		return 0;
	}
	return pb_ct_doom(&run->doomed, key, &ct, &pair);
}

static int on_chunk(void *arg, const struct pb_ct_key *keys, const struct pb_ct *values, uint32_t n)
{
	struct run *run = arg;
	int rc = 0;

	run->gc->seen += n;
	for (uint32_t i = 0; rc == 0 && i < n; i++) {
		if (expired(run, &values[i]))
			rc = judge(run, &keys[i]);
		else
			run->gc->kept++;
	}
	/* What is doomed doesn't wait for the next chunk: it might be used again meanwhile. */
	return rc < 0 ? rc : pb_ct_doomed_end(&run->doomed);
}

int pb_ct_gc_run(struct pb_ct_walk *walk, uint32_t now_s, struct pb_ct_gc *ret_gc)
{
	PB_FREE struct run *run = calloc(1, sizeof(*run));
	int rc;

	*ret_gc = (struct pb_ct_gc){0};
	if (!run)
		return -ENOMEM;
	run->doomed.fd = walk->fd;
	run->gc = ret_gc;
	run->now_s = now_s;
	rc = pb_ct_walk(walk, on_chunk, run);
	ret_gc->deleted = run->doomed.deleted;
	ret_gc->incomplete = walk->incomplete;
	return rc;
}

/* ---- how soon again ---- */

static uint32_t limit(uint32_t s, uint32_t max)
{
	return s > max ? max : s < INTERVAL_MIN_S ? INTERVAL_MIN_S : s;
}

uint32_t pb_ct_gc_interval(uint32_t last_s, const struct pb_ct_gc *gc, uint32_t max_entries)
{
	const uint64_t fill = max_entries ? gc->kept * 100 / max_entries : 0;
	const uint32_t max = fill >= 75	  ? INTERVAL_MIN_S
			     : fill >= 50 ? 60
			     : fill >= 25 ? 300
					  : INTERVAL_MAX_S;

	/* A quarter of the map had expired: it was left for too long. */
	if (gc->deleted * 4 > max_entries)
		return limit(last_s / 4, max);
	if (gc->deleted * 20 > max_entries)
		return limit(last_s / 2, max);
	/* Hardly anything had. */
	if (gc->deleted * 100 < max_entries)
		return limit(last_s + last_s / 2, max);
	return limit(last_s, max);
}
