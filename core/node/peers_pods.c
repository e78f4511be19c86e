/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pods and their namespaces: who has which identity and which addresses.
 *
 * A pod's objects are the store's own; labels are read from them when an identity is computed, and
 * not copied. What is not yet known of a pod makes it PB_IDENTITY_INIT, which no rule takes for
 * somebody else.
 */
#include <node/peers_private.h>

/* ---- the tables ---- */

static struct peer_ns *ns_find(struct pb_peers *peers, const char *name, size_t len)
{
	struct peer_ns *ns;

	HASH_FIND(hh, peers->namespaces, name, len, ns);
	return ns;
}

static struct peer_ns *ns_get(struct pb_peers *peers, const char *name)
{
	size_t len = strlen(name);
	struct peer_ns *ns = ns_find(peers, name, len);

	if (ns)
		return ns;
	ns = calloc(1, sizeof(*ns) + len + 1);
	if (!ns)
		return NULL;
	memcpy(ns->name, name, len + 1);
	HASH_ADD_KEYPTR(hh, peers->namespaces, ns->name, len, ns);
	if (!ns->hh.tbl) {
		free(ns);
		return NULL;
	}
	return ns;
}

static void ns_found(struct pb_peers *peers, struct peer_ns *ns)
{
	if (ns->missing_until)
		DL_DELETE2(peers->missing, ns, miss_prev, miss_next);
	ns->missing_until = 0;
}

/* A source without any namespace, such as a directory of manifests, has none to wait for. */
static void ns_missed(struct pb_peers *peers, struct peer_ns *ns)
{
	if (ns->obj || ns->missing_until || !peers->ns_synced || !peers->n_namespaces)
		return;
	ns->missing_until = pb_now_ns() + PEERS_NS_WAIT_NS;
	DL_APPEND2(peers->missing, ns, miss_prev, miss_next);
	peers_arm(peers);
}

void peers_ns_expire(struct pb_peers *peers)
{
	while (peers->missing && peers->missing->missing_until <= pb_now_ns()) {
		struct peer_ns *ns = peers->missing;

		ns_found(peers, ns);
		peers_queue(peers, &ns->group);
	}
}

static void ns_settle(struct pb_peers *peers, struct peer_ns *ns)
{
	if (ns->obj || ns->group.pods)
		return;
	ns_found(peers, ns);
	if (ns->group.queued)
		DL_DELETE(peers->queue, &ns->group);
	HASH_DEL(peers->namespaces, ns);
	free(ns);
}

static struct peer_pod *pod_find(struct pb_peers *peers, const char *ns, const char *name)
{
	size_t ns_len = strlen(ns), name_len = strlen(name);
	char few[512];
	PB_FREE char *many = NULL;
	char *key = few;
	struct peer_pod *pod;

	if (ns_len + name_len + 2 > sizeof(few)) {
		many = malloc(ns_len + name_len + 2);
		key = many;
	}
	if (!key)
		return NULL;
	memcpy(key, ns, ns_len);
	key[ns_len] = '/';
	memcpy(key + ns_len + 1, name, name_len + 1);
	HASH_FIND(hh, peers->pods, key, ns_len + 1 + name_len, pod);
	return pod;
}

static struct peer_pod *pod_new(struct pb_peers *peers, const char *ns, const char *name)
{
	size_t len = strlen(ns) + 1 + strlen(name);
	struct peer_pod *pod = calloc(1, sizeof(*pod) + len + 1);

	if (!pod)
		return NULL;
	snprintf(pod->key, len + 1, "%s/%s", ns, name);
	pod->number = PB_IDENTITY_INIT;
	pod->ns = ns_get(peers, ns);
	if (!pod->ns) {
		free(pod);
		return NULL;
	}
	HASH_ADD_KEYPTR(hh, peers->pods, pod->key, len, pod);
	if (!pod->hh.tbl) {
		ns_settle(peers, pod->ns);
		free(pod);
		return NULL;
	}
	if (!pod->ns->group.pods)
		ns_missed(peers, pod->ns);
	peers_group_add(&pod->ns->group, pod);
	return pod;
}

struct peer_pod *peers_pod_get(struct pb_peers *peers, const char *ns, const char *name)
{
	struct peer_pod *pod = pod_find(peers, ns, name);

	return pod ? pod : pod_new(peers, ns, name);
}

static int pod_on_node(struct pb_peers *peers, struct peer_pod *pod, const char *name)
{
	struct peer_node *old = pod->node, *node = NULL;

	if (old && strcmp(old->name, name) == 0)
		return 0;
	if (*name) {
		node = peers_node_get(peers, name);
		if (!node)
			return -ENOMEM;
	}
	if (old)
		peers_group_remove(&old->group, pod);
	pod->node = node;
	if (node)
		peers_group_add(&node->group, pod);
	if (old)
		peers_node_settle(peers, old);
	return 0;
}

static void pod_free(struct pb_peers *peers, struct peer_pod *pod)
{
	struct peer_ns *ns = pod->ns;

	pod_on_node(peers, pod, "");
	peers_group_remove(&ns->group, pod);
	HASH_DEL(peers->pods, pod);
	ns_settle(peers, ns);
	peers->n_starved -= pod->starved;
	free(pod->claims);
	free(pod->local_ips);
	free(pod);
}

void peers_pod_settle(struct pb_peers *peers, struct peer_pod *pod)
{
	if (!pod->obj && !pod->n_local && !pod->is_published)
		pod_free(peers, pod);
}

void peers_pods_free(struct pb_peers *peers)
{
	struct peer_pod *pod, *next;
	struct peer_ns *ns, *next_ns;

	HASH_ITER (hh, peers->pods, pod, next)
		pod_free(peers, pod);
	HASH_ITER (hh, peers->namespaces, ns, next_ns) {
		ns->obj = NULL;
		ns_settle(peers, ns);
	}
}

/* ---- what a pod is ---- */

static bool is_finished(const struct pb_kube_pod *obj)
{
	return obj->phase == PB_POD_SUCCEEDED || obj->phase == PB_POD_FAILED;
}

static bool is_local(const struct pb_peers *peers, const struct peer_pod *pod)
{
	return pod->n_local > 0 || (pod->obj && strcmp(pod->obj->node, peers->node_name) == 0);
}

/* Reports the first pod without a number, and that all have one again. */
static void note_starved(struct pb_peers *peers, struct peer_pod *pod, int rc)
{
	bool starved = rc < 0;
	uint32_t before = peers->n_starved;

	peers->n_starved += (uint32_t)starved - (uint32_t)pod->starved;
	pod->starved = starved;
	if (starved)
		peers_arm(peers);
	if (before == 0 && starved)
		pb_error("node",
			 "pod %s: no identity: %s; it counts as \"init\" until a number is free; "
			 "leave labels that differ from pod to pod out with identity.labels",
			 pod->key, rc == -ENOSPC ? "all numbers are in use" : strerror(-rc));
	else if (before > 0 && peers->n_starved == 0)
		pb_info("node", "all pods have identities again");
}

static int compute_ident(struct pb_peers *peers, const struct peer_pod *pod,
			 struct pb_ident **ret_ident)
{
	uint32_t n = 0;
	int rc = pb_labels_of_pod(peers->filter, peers->cluster, pod->obj, pod->ns->obj,
				  &peers->labels, &n);

	return rc < 0 ? rc
		      : pb_idents_get(peers->idents, PB_IDENT_POD, peers->labels.data,
				      peers->labels.len, n, ret_ident);
}

/* Takes a reference; NULL: none (yet). */
static struct pb_ident *wanted_ident(struct pb_peers *peers, struct peer_pod *pod)
{
	const struct pb_kube_pod *obj = pod->obj;
	struct pb_ident *ident = NULL;
	bool keeps = false;
	int rc = 0;

	if (!obj)
		keeps = pod->n_local > 0; /* its endpoint is still there */
	else if (obj->flags & PB_POD_HOST_NETWORK || (is_finished(obj) && !pod->n_local))
		keeps = false;
	else if (!pod->ns->obj && (!peers->ns_synced || pod->ns->missing_until))
		keeps = true;
	else
		rc = compute_ident(peers, pod, &ident);
	note_starved(peers, pod, rc);
	return keeps && pod->ident ? pb_idents_ref(pod->ident) : ident;
}

static uint32_t number_of(const struct peer_pod *pod, const struct pb_ident *ident)
{
	if (pod->obj && pod->obj->flags & PB_POD_HOST_NETWORK)
		return PB_IDENTITY_HOST;
	return ident ? ident->number : PB_IDENTITY_INIT;
}

/* An address of a pod on another node is worth nothing before that node's own addresses are in. */
static bool waits_for_node(const struct pb_peers *peers, const struct peer_pod *pod)
{
	return pod->node && !pod->node->local && !pod->node->obj && !peers->nodes_synced;
}

static void claim_addresses(struct pb_peers *peers, struct peer_pod *pod, uint32_t number)
{
	const struct pb_kube_pod *obj = pod->obj;
	struct pb_ip_says says = {.identity = number,
				  .node4 = pod->node ? pod->node->node4 : 0,
				  .who = pod->key};
	const struct pb_kube_addr *ips = pod->local_ips;
	uint32_t n = pod->n_local;

	if (n > 0) {
		says.source = PB_IP_LOCAL_POD;
	} else if (obj && !(obj->flags & PB_POD_HOST_NETWORK) && !is_finished(obj)) {
		says.source = PB_IP_POD;
		says.rank = obj->phase == PB_POD_RUNNING;
		ips = obj->ips;
		n = obj->n_ips;
		if (waits_for_node(peers, pod))
			says.identity = PB_IDENTITY_INIT;
	}
	if (peers_claim(peers, &pod->claims, &pod->n_claims, ips, n, &says) < 0)
		pb_error("node", "pod %s: out of memory: its addresses may have no identity",
			 pod->key);
}

static void tell_listener(struct pb_peers *peers, const struct peer_pod *pod)
{
	size_t len = strlen(pod->ns->name);

	if (peers->listener && is_local(peers, pod))
		peers->listener(peers->listener_arg, pod->ns->name, pod->key + len + 1,
				pod->number);
}

void peers_pod_update(struct pb_peers *peers, struct peer_pod *pod)
{
	struct pb_ident *old = pod->ident;
	uint32_t before = pod->number;
	bool was_starved = pod->starved;

	pod->ident = wanted_ident(peers, pod);
	pod->number = number_of(pod, pod->ident);
	claim_addresses(peers, pod, pod->number);
	/* After a restart an endpoint may still have the number of labels before. */
	if (pod->number != before || (pod->starved && !was_starved))
		tell_listener(peers, pod);
	pb_idents_put(peers->idents, old);
	if (old)
		peers_arm(peers);
}

/* ---- events ---- */

static void pod_put(struct pb_peers *peers, const struct pb_kube_pod *obj)
{
	struct peer_pod *pod = peers_pod_get(peers, obj->meta.ns, obj->meta.name);

	if (!pod || pod_on_node(peers, pod, obj->node) < 0) {
		pb_error("node", "pod %s/%s: out of memory: it has no identity", obj->meta.ns,
			 obj->meta.name);
		if (!pod)
			return;
	}
	peers->n_pods += !pod->obj;
	pod->obj = obj;
	peers_pod_update(peers, pod);
}

static void pod_delete(struct pb_peers *peers, const struct pb_kube_pod *obj)
{
	struct peer_pod *pod = pod_find(peers, obj->meta.ns, obj->meta.name);

	if (!pod || !pod->obj)
		return;
	peers->n_pods--;
	pod->obj = NULL;
	peers_pod_update(peers, pod);
	peers_pod_settle(peers, pod);
}

void peers_on_pod(void *arg, const struct pb_kube_event *event)
{
	struct pb_peers *peers = arg;

	if (event->kind == PB_KUBE_PUT) {
		pod_put(peers, event->object);
	} else if (event->kind == PB_KUBE_DELETE) {
		pod_delete(peers, event->object);
	} else if (!peers->pods_synced) {
		peers->pods_synced = true;
		peers_wake(peers);
	}
	peers_check_room(peers);
}

static bool same_labels(const struct pb_kube_meta *a, const struct pb_kube_meta *b)
{
	if (a->n_labels != b->n_labels)
		return false;
	for (uint32_t i = 0; i < a->n_labels; i++)
		if (strcmp(a->labels[i].key, b->labels[i].key) != 0 ||
		    strcmp(a->labels[i].value, b->labels[i].value) != 0)
			return false;
	return true;
}

static void ns_put(struct pb_peers *peers, const struct pb_kube_namespace *obj)
{
	struct peer_ns *ns = ns_get(peers, obj->meta.name);
	bool same;

	if (!ns) {
		pb_error("node", "namespace %s: out of memory: its pods stay without its labels",
			 obj->meta.name);
		return;
	}
	same = ns->obj && same_labels(&ns->obj->meta, &obj->meta);
	peers->n_namespaces += !ns->obj;
	ns->obj = obj;
	ns_found(peers, ns);
	if (!same)
		peers_queue(peers, &ns->group);
}

static void ns_delete(struct pb_peers *peers, const struct pb_kube_namespace *obj)
{
	struct peer_ns *ns = ns_find(peers, obj->meta.name, strlen(obj->meta.name));

	if (!ns || !ns->obj)
		return;
	ns->obj = NULL;
	/* Its pods are gone before it, whatever their watch has said so far. */
	ns_missed(peers, ns);
	peers->n_namespaces--;
	peers_queue(peers, &ns->group);
	ns_settle(peers, ns);
}

void peers_on_namespace(void *arg, const struct pb_kube_event *event)
{
	struct pb_peers *peers = arg;

	if (event->kind == PB_KUBE_PUT) {
		ns_put(peers, event->object);
	} else if (event->kind == PB_KUBE_DELETE) {
		ns_delete(peers, event->object);
	} else if (!peers->ns_synced) {
		/* Pods whose namespace isn't there are in one without labels. */
		peers->ns_synced = true;
		peers_queue_all(peers);
	}
}

/* ---- what node.c asks and tells ---- */

uint32_t pb_peers_pod(struct pb_peers *peers, const char *ns, const char *name)
{
	const struct peer_pod *pod = pod_find(peers, ns, name);

	if (!pod || (pod->number == PB_IDENTITY_INIT && !pod->starved))
		return PB_IDENTITY_UNKNOWN;
	return pod->number;
}

void pb_peers_listen(struct pb_peers *peers, pb_peers_fn fn, void *arg)
{
	peers->listener = fn;
	peers->listener_arg = arg;
}

/* An endpoint went. Nobody has to be told: it was the one who would be. */
static void endpoint_gone(struct pb_peers *peers, struct peer_pod *pod)
{
	if (!pod->obj || is_finished(pod->obj)) {
		pod->ident = pb_idents_put(peers->idents, pod->ident);
		pod->number = number_of(pod, NULL);
		peers_arm(peers);
	}
	peers_pod_settle(peers, pod);
}

static int set_local_ips(struct peer_pod *pod, const struct pb_kube_addr *ips, uint32_t n_ips)
{
	struct pb_kube_addr *copy = n_ips ? calloc(n_ips, sizeof(*copy)) : NULL;

	if (n_ips && !copy)
		return -ENOMEM;
	if (n_ips)
		memcpy(copy, ips, n_ips * sizeof(*copy));
	free(pod->local_ips);
	pod->local_ips = copy;
	pod->n_local = n_ips;
	return 0;
}

int pb_peers_local_pod(struct pb_peers *peers, const char *ns, const char *name,
		       const struct pb_kube_addr *ips, uint32_t n_ips)
{
	struct peer_pod *pod = pod_find(peers, ns, name);
	int rc;

	if (peers->quiet || (!pod && n_ips == 0))
		return 0;
	if (!pod)
		pod = pod_new(peers, ns, name);
	rc = pod ? set_local_ips(pod, ips, n_ips) : -ENOMEM;
	if (rc < 0)
		return rc;
	claim_addresses(peers, pod, pod->number);
	if (n_ips == 0)
		endpoint_gone(peers, pod);
	peers_check_room(peers);
	return 0;
}
