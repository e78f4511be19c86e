/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The three pinned maps: opened, read once, written. What an earlier process left in them is
 * adopted; an entry that makes no sense is deleted, so that the maps hold only what is known.
 */
#include <node/peers_private.h>

static const char *const map_names[PEER_MAPS] = {
	[PEER_IPCACHE4] = "core/pb_ipcache4",
	[PEER_IPCACHE6] = "core/pb_ipcache6",
	[PEER_IDENTITIES] = "core/pb_identities",
};

/* struct pb_identity_digest of bpf/include/pb_core.h, which only BPF sources can include. */
struct digest {
	uint8_t sha256[PB_IDENT_DIGEST];
};

union ip_key {
	struct pb_ipcache_key4 v4;
	struct pb_ipcache_key6 v6;
};

/* ---- writing ---- */

static union ip_key key_of(const struct pb_cidr *prefix)
{
	union ip_key key = {0};

	if (prefix->family == 4) {
		key.v4.bits = prefix->bits;
		key.v4.addr = prefix->addr.v4;
	} else {
		key.v6.bits = prefix->bits;
		memcpy(key.v6.addr, prefix->addr.v6, sizeof(key.v6.addr));
	}
	return key;
}

static struct pb_map *map_of(const struct pb_peers *peers, const struct pb_cidr *prefix)
{
	return peers->maps[prefix->family == 4 ? PEER_IPCACHE4 : PEER_IPCACHE6];
}

static int ip_put(void *arg, const struct pb_cidr *prefix, const struct pb_ipcache_value *value)
{
	const union ip_key key = key_of(prefix);

	return pb_dp_map_update(map_of(arg, prefix), &key, value, 0);
}

static int ip_del(void *arg, const struct pb_cidr *prefix)
{
	const union ip_key key = key_of(prefix);

	return pb_dp_map_delete(map_of(arg, prefix), &key);
}

static int ident_put(void *arg, uint32_t number, const uint8_t *digest)
{
	const struct pb_peers *peers = arg;

	return pb_dp_map_update(peers->maps[PEER_IDENTITIES], &number, digest, 0);
}

static void ident_del(void *arg, uint32_t number)
{
	const struct pb_peers *peers = arg;
	int rc = pb_dp_map_delete(peers->maps[PEER_IDENTITIES], &number);

	/* Harmless: the next process finds it, and nobody who claims it. */
	if (rc < 0 && rc != -ENOENT)
		pb_warn("node", "identity %u: can't be freed in its map: %s", number,
			strerror(-rc));
}

/* ---- adopting ---- */

static struct pb_cidr prefix_of(uint32_t family, const union ip_key *key)
{
	struct pb_cidr prefix = {.family = (uint8_t)family};

	if (family == 4) {
		prefix.bits = (uint8_t)key->v4.bits;
		prefix.addr.v4 = key->v4.addr;
	} else {
		prefix.bits = (uint8_t)key->v6.bits;
		memcpy(prefix.addr.v6, key->v6.addr, sizeof(key->v6.addr));
	}
	return prefix;
}

/* One entry; negative only when memory ran out. *ret_bad: it makes no sense. */
static int adopt_ip(struct pb_peers *peers, enum peer_map which, const void *key, bool *ret_bad)
{
	struct pb_cidr prefix = prefix_of(which == PEER_IPCACHE4 ? 4 : 6, key);
	struct pb_ipcache_value value;

	if (pb_dp_map_lookup(peers->maps[which], key, &value) < 0)
		return 0;
	*ret_bad = !pb_cidr_valid(&prefix);
	return *ret_bad ? 0 : pb_ipcache_adopt(peers->ipcache, &prefix, &value);
}

static int adopt_ident(struct pb_peers *peers, const uint32_t *number, bool *ret_bad)
{
	struct digest digest;
	int rc;

	if (pb_dp_map_lookup(peers->maps[PEER_IDENTITIES], number, &digest) < 0)
		return 0;
	rc = pb_idents_adopt(peers->idents, *number, digest.sha256);
	*ret_bad = rc == -EINVAL;
	return *ret_bad ? 0 : rc;
}

static int adopt_map(struct pb_peers *peers, enum peer_map which)
{
	struct pb_map *map = peers->maps[which];
	union {
		union ip_key ip;
		uint32_t number;
	} key, next;
	int rc = 0, found = pb_dp_map_next(map, NULL, &next);

	while (rc == 0 && found == 0) {
		bool bad = false;

		key = next;
		rc = which == PEER_IDENTITIES ? adopt_ident(peers, &key.number, &bad)
					      : adopt_ip(peers, which, &key, &bad);
		/* The one behind it first: a search from a key that is gone begins anew. */
		found = pb_dp_map_next(map, &key, &next);
		if (bad)
			pb_dp_map_delete(map, &key);
	}
	return rc < 0 || found == -ENOENT ? rc : found;
}

/* ---- life ---- */

static int open_map(struct pb_peers *peers, struct pb_dp *dp, enum peer_map which,
		    struct pb_map_info *ret_info, struct pb_err *err)
{
	int rc = pb_dp_map_new(dp, "core", map_names[which], &peers->maps[which]);

	if (rc < 0)
		return pb_err_set(err, rc, "out of memory");
	rc = pb_dp_map_resolve(peers->maps[which], NULL, 0, err);
	if (rc < 0)
		return rc;
	*ret_info = (struct pb_map_info){.size = sizeof(*ret_info)};
	return pb_dp_map_info(peers->maps[which], ret_info);
}

static int make_tables(struct pb_peers *peers, const struct pb_map_info *infos)
{
	const struct pb_ident_env ident_env = {
		.put = ident_put,
		.del = ident_del,
		.publish = peers_publish_identity,
		.withdraw = peers_withdraw_identity,
		.now_ns = pb_now_ns,
		.arg = peers,
	};
	const struct pb_ipcache_env ip_env = {
		.put = ip_put,
		.del = ip_del,
		.arg = peers,
		.max = {infos[PEER_IPCACHE4].max_entries, infos[PEER_IPCACHE6].max_entries},
	};
	int rc = pb_idents_new(&ident_env, &peers->idents);

	return rc < 0 ? rc : pb_ipcache_new(&ip_env, &peers->ipcache);
}

int peers_maps_open(struct pb_peers *peers, struct pb_dp *dp, struct pb_err *err)
{
	struct pb_map_info infos[PEER_MAPS];
	int rc = 0;

	for (size_t i = 0; i < PEER_MAPS; i++) {
		rc = open_map(peers, dp, (enum peer_map)i, &infos[i], err);
		if (rc < 0)
			return pb_err_prefix(err, "map %s", map_names[i]);
	}
	rc = make_tables(peers, infos);
	for (size_t i = 0; rc == 0 && i < PEER_MAPS; i++)
		rc = adopt_map(peers, (enum peer_map)i);
	return rc < 0 ? pb_err_set(err, rc, "can't read the identities of an earlier agent: %s",
				   strerror(-rc))
		      : 0;
}

void peers_maps_close(struct pb_peers *peers)
{
	for (size_t i = 0; i < PEER_MAPS; i++)
		peers->maps[i] = pb_dp_map_free(peers->maps[i]);
}
