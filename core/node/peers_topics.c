/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The topics "identities" and "endpoints": records built and handed on. Who publishes reports
 * what it can't; the identity is used nevertheless, and whoever doesn't know it has no rule
 * for it.
 */
#include <node/peers_private.h>

#include <arpa/inet.h>

#include <patchbay/topics/identities.h>

static const struct {
	uint32_t identity;
	const char *name;
} reserved[] = {
	{PB_IDENTITY_HOST, "reserved:host"},
	{PB_IDENTITY_WORLD, "reserved:world"},
	{PB_IDENTITY_UNMANAGED, "reserved:unmanaged"},
	{PB_IDENTITY_HEALTH, "reserved:health"},
	{PB_IDENTITY_INIT, "reserved:init"},
	{PB_IDENTITY_REMOTE_NODE, "reserved:remote-node"},
	{PB_IDENTITY_KUBE_APISERVER, "reserved:kube-apiserver"},
};

struct pb_cidr peers_cidr_of(const struct pb_ident *ident)
{
	struct pb_cidr cidr = {0};
	char addr[INET6_ADDRSTRLEN] = "";
	unsigned bits = 0;

	if (ident->range != PB_IDENT_CIDR ||
	    sscanf(ident->labels, "cidr:%45[^/]/%u", addr, &bits) != 2)
		return cidr;
	cidr.family = strchr(addr, ':') ? 6 : 4;
	cidr.bits = (uint8_t)bits;
	inet_pton(cidr.family == 6 ? AF_INET6 : AF_INET, addr, cidr.addr.bytes);
	return cidr;
}

static void publish_labels(struct pb_peers *peers, const struct pb_identity_record *head,
			   const char *labels)
{
	char key[16];
	int rc;

	snprintf(key, sizeof(key), "%u", head->identity);
	pb_buf_reset(&peers->record);
	rc = pb_buf_append(&peers->record, head, sizeof(*head));
	if (rc == 0)
		rc = pb_buf_append(&peers->record, labels, head->labels_len);
	if (rc < 0)
		pb_error("node", "identity %s: out of memory: no plugin learns of it", key);
	else
		peers->topics.publish(peers->topics.arg, PB_TOPIC_IDENTITIES,
				      PB_TOPIC_IDENTITIES_VERSION, key, peers->record.data,
				      peers->record.len);
}

void peers_publish_identity(void *arg, const struct pb_ident *ident)
{
	struct pb_peers *peers = arg;
	const struct pb_identity_record head = {
		.size = sizeof(head),
		.identity = ident->number,
		.n_labels = ident->n_labels,
		.labels_len = (uint32_t)ident->labels_len,
		.cidr = peers_cidr_of(ident),
	};

	if (peers->topics.publish)
		publish_labels(peers, &head, ident->labels);
}

void peers_withdraw_identity(void *arg, const struct pb_ident *ident)
{
	struct pb_peers *peers = arg;
	char key[16];

	if (!peers->topics.publish)
		return;
	snprintf(key, sizeof(key), "%u", ident->number);
	peers->topics.publish(peers->topics.arg, PB_TOPIC_IDENTITIES, PB_TOPIC_IDENTITIES_VERSION,
			      key, NULL, 0);
}

static void publish_reserved(struct pb_peers *peers)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(reserved); i++) {
		char labels[32] = "";
		const size_t len = strlen(reserved[i].name) + 2;
		const struct pb_identity_record head = {
			.size = sizeof(head),
			.identity = reserved[i].identity,
			.n_labels = 1,
			.labels_len = (uint32_t)len,
		};

		memcpy(labels, reserved[i].name, len - 2);
		publish_labels(peers, &head, labels);
	}
}

/* ---- synced ---- */

static void tell_synced(struct pb_peers *peers)
{
	if (!peers->topics.synced || !peers->announced)
		return;
	peers->topics.synced(peers->topics.arg, PB_TOPIC_IDENTITIES);
	if (peers->endpoints_synced)
		peers->topics.synced(peers->topics.arg, PB_TOPIC_ENDPOINTS);
}

void peers_announce(struct pb_peers *peers)
{
	peers->announced = true;
	tell_synced(peers);
}

void pb_peers_publish_to(struct pb_peers *peers, const struct pb_peers_topics *topics)
{
	peers->topics = *topics;
	publish_reserved(peers);
	pb_idents_publish_all(peers->idents);
	peers_publish_addresses(peers);
	tell_synced(peers);
}

void pb_peers_endpoints_synced(struct pb_peers *peers)
{
	if (peers->endpoints_synced)
		return;
	peers->endpoints_synced = true;
	if (peers->announced && peers->topics.synced)
		peers->topics.synced(peers->topics.arg, PB_TOPIC_ENDPOINTS);
}

/* ---- endpoints ---- */

/* Takes a reference to what a record names. */
static int hold_identity(struct pb_peers *peers, const struct pb_endpoint_record *record,
			 struct pb_ident **ret_ident)
{
	struct pb_ident *ident = NULL;

	if (record && record->identity >= PB_IDENTITY_FIRST) {
		ident = pb_idents_find(peers->idents, record->identity);
		if (!ident)
			return -ENOENT;
		pb_idents_ref(ident);
	}
	*ret_ident = ident;
	return 0;
}

int pb_peers_publish_endpoint(struct pb_peers *peers, const char *ns, const char *name,
			      const struct pb_endpoint_record *record)
{
	struct pb_ident *ident = NULL;
	struct peer_pod *pod;
	int rc;

	if (peers->quiet)
		return 0;
	pod = peers_pod_get(peers, ns, name);
	if (!pod)
		return -ENOMEM;
	rc = record || pod->is_published ? hold_identity(peers, record, &ident) : -ENOENT;
	if (rc == 0) {
		if (peers->topics.publish)
			peers->topics.publish(peers->topics.arg, PB_TOPIC_ENDPOINTS,
					      PB_TOPIC_ENDPOINTS_VERSION, pod->key, record,
					      record ? sizeof(*record) : 0);
		/* After it: the record that had the old identity is replaced or gone. */
		pb_idents_put(peers->idents, pod->published);
		pod->published = ident;
		pod->is_published = record != NULL;
		peers_arm(peers);
	}
	peers_pod_settle(peers, pod);
	return rc;
}
