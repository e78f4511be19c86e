/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges that plugins hold. What nobody holds any more is let go of later, from the loop: a
 * plugin's reload takes everything anew, and would else withdraw and publish thousands of numbers.
 */
#include <node/peers_private.h>

static struct peer_cidr *cidr_find(struct pb_peers *peers, const struct pb_cidr *prefix)
{
	struct peer_cidr *cidr;

	HASH_FIND(hh, peers->cidrs, prefix, sizeof(*prefix), cidr);
	return cidr;
}

static void cidr_free(struct pb_peers *peers, struct peer_cidr *cidr)
{
	pb_ipcache_unclaim(peers->ipcache, &cidr->claim);
	pb_idents_put(peers->idents, cidr->ident);
	free(cidr);
}

static int cidr_publish(struct pb_peers *peers, struct peer_cidr *cidr)
{
	struct pb_ip_says says = {.source = PB_IP_CIDR, .who = ""};
	uint32_t n = 0;
	int rc = pb_labels_of_cidr(&cidr->prefix, &peers->labels, &n);

	if (rc == 0)
		rc = pb_idents_get(peers->idents, PB_IDENT_CIDR, peers->labels.data,
				   peers->labels.len, n, &cidr->ident);
	if (rc < 0)
		return rc;
	says.identity = cidr->ident->number;
	rc = pb_ipcache_claim(peers->ipcache, &cidr->claim, &cidr->prefix, &says);
	return rc == 0 && !pb_ipcache_written(&cidr->claim) ? -ENOSPC : rc;
}

static int cidr_new(struct pb_peers *peers, const struct pb_cidr *prefix,
		    struct peer_cidr **ret_cidr)
{
	struct peer_cidr *cidr = calloc(1, sizeof(*cidr));
	int rc = cidr ? 0 : -ENOMEM;

	if (rc < 0)
		return rc;
	cidr->prefix = *prefix;
	rc = cidr_publish(peers, cidr);
	if (rc == 0) {
		HASH_ADD(hh, peers->cidrs, prefix, sizeof(cidr->prefix), cidr);
		rc = cidr->hh.tbl ? 0 : -ENOMEM;
	}
	if (rc < 0) {
		cidr_free(peers, cidr);
		peers_arm(peers);
		return rc;
	}
	*ret_cidr = cidr;
	return 0;
}

static void set_unheld(struct pb_peers *peers, struct peer_cidr *cidr, bool unheld)
{
	if (cidr->unheld == unheld)
		return;
	cidr->unheld = unheld;
	if (unheld) {
		DL_APPEND(peers->unheld, cidr);
		peers_wake(peers);
	} else {
		DL_DELETE(peers->unheld, cidr);
	}
}

static struct peer_hold **hold_of(struct peer_cidr *cidr, const void *owner)
{
	struct peer_hold **p = &cidr->holds;

	while (*p && (*p)->owner != owner)
		p = &(*p)->next;
	return p;
}

static int hold(struct peer_cidr *cidr, const void *owner)
{
	struct peer_hold **p = hold_of(cidr, owner);

	if (!*p) {
		*p = calloc(1, sizeof(**p));
		if (!*p)
			return -ENOMEM;
		(*p)->owner = owner;
	}
	(*p)->count++;
	return 0;
}

static void unhold(struct pb_peers *peers, struct peer_cidr *cidr, struct peer_hold **p)
{
	struct peer_hold *gone = *p;

	*p = gone->next;
	free(gone);
	set_unheld(peers, cidr, !cidr->holds);
}

/* The reserved bytes are the caller's, the table compares all of them. */
static struct pb_cidr plain(const struct pb_cidr *cidr)
{
	return (struct pb_cidr){.addr = cidr->addr, .family = cidr->family, .bits = cidr->bits};
}

int pb_peers_cidr_hold(struct pb_peers *peers, const void *owner, const struct pb_cidr *cidr,
		       uint32_t *ret_identity)
{
	const struct pb_cidr prefix = plain(cidr);
	struct peer_cidr *found;
	int rc = 0;

	if (peers->quiet)
		return -ESHUTDOWN;
	if (!pb_cidr_valid(&prefix))
		return -EINVAL;
	found = cidr_find(peers, &prefix);
	if (!found)
		rc = cidr_new(peers, &prefix, &found);
	if (rc == 0)
		rc = hold(found, owner);
	if (found)
		set_unheld(peers, found, !found->holds);
	peers_check_room(peers);
	if (rc < 0)
		return rc;
	*ret_identity = found->ident->number;
	return 0;
}

int pb_peers_cidr_release(struct pb_peers *peers, const void *owner, const struct pb_cidr *cidr)
{
	const struct pb_cidr prefix = plain(cidr);
	struct peer_cidr *found;
	struct peer_hold **p;

	if (peers->quiet)
		return 0;
	found = cidr_find(peers, &prefix);
	p = found ? hold_of(found, owner) : NULL;
	if (!p || !*p)
		return -ENOENT;
	if (--(*p)->count == 0)
		unhold(peers, found, p);
	return 0;
}

void pb_peers_cidr_release_all(struct pb_peers *peers, const void *owner)
{
	struct peer_cidr *cidr, *next;

	if (peers->quiet)
		return;
	HASH_ITER (hh, peers->cidrs, cidr, next) {
		struct peer_hold **p = hold_of(cidr, owner);

		if (*p)
			unhold(peers, cidr, p);
	}
}

bool peers_cidr_drop(struct pb_peers *peers, unsigned max)
{
	for (; peers->unheld && max > 0; max--) {
		struct peer_cidr *cidr = peers->unheld;

		DL_DELETE(peers->unheld, cidr);
		HASH_DEL(peers->cidrs, cidr);
		cidr_free(peers, cidr);
		peers_arm(peers);
	}
	return peers->unheld != NULL;
}

void peers_cidr_free(struct pb_peers *peers)
{
	struct peer_cidr *cidr, *next;

	HASH_ITER (hh, peers->cidrs, cidr, next) {
		HASH_DEL(peers->cidrs, cidr);
		while (cidr->holds) {
			struct peer_hold *gone = cidr->holds;

			cidr->holds = gone->next;
			free(gone);
		}
		free(cidr);
	}
}
