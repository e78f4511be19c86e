/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Endpoints that a CNI plugin announced.
 *
 * Owns the promise behind an answer: both hooks are on, the record in the map has the pod's
 * identity, and the next agent will know of it. What can't be promised in time is taken back and
 * refused: a pod must not start with a network whose policy isn't known.
 */
#include <node/internal.h>

#include <base/log.h>

/* ---- answers ---- */

static void answer(struct node_ep *ep, int result, const char *text, cJSON *json)
{
	pb_node_reply_fn reply = ep->reply;

	ep->reply = NULL;
	ep->recording = false;
	if (reply)
		reply(ep->reply_arg, result, text, json);
	else
		cJSON_Delete(json);
}

static cJSON *ep_json(const struct node_ep *ep)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddNumberToObject(o, "endpoint", ep->rec.id);
	cJSON_AddNumberToObject(o, "identity", ep->rec.identity);
	cJSON_AddStringToObject(o, "interface", ep->iface.name);
	cJSON_AddNumberToObject(o, "ifindex", ep->iface.ifindex);
	return o;
}

void node_claim_fail(struct pb_node *node, struct node_ep *ep, int code, const char *text)
{
	(void)node;
	answer(ep, code, text, NULL);
}

void node_claim_drop(struct pb_node *node, struct node_ep *ep)
{
	if (!ep->claim)
		return;
	node_record_remove(node, ep->rec.id);
	free(ep->claim);
	free(ep->older_uid);
	ep->claim = NULL;
	ep->older_uid = NULL;
	ep->restored = false;
}

/* The pod list may still have the pod: then netlink says where it is, as without the plugin. */
static void take_back(struct pb_node *node, struct node_ep *ep)
{
	node_claim_drop(node, ep);
	if (!ep->in_kube) {
		node_leave_pod(node, ep);
		return;
	}
	ep->dirty = true;
	node_schedule(node, NODE_SETTLE_MS);
}

void node_claim_refuse(struct pb_node *node, struct node_ep *ep, int code, const char *text)
{
	node_claim_fail(node, ep, code, text);
	take_back(node, ep);
}

/* ---- both hooks and the identity ---- */

static void recorded(struct pb_node *node, uint64_t serial, int result, const char *text)
{
	struct node_ep *ep = node_ep_by_serial(node, serial);

	if (!ep || !ep->recording)
		return;
	if (result < 0) {
		node_claim_refuse(node, ep, result, text);
		return;
	}
	ep->recording = false;
	/* It may have lost its hooks meanwhile: then it goes on waiting. */
	if (ep->hooked)
		answer(ep, 0, "", ep_json(ep));
}

void node_claim_settle(struct pb_node *node, struct node_ep *ep)
{
	if (!ep->claim || !ep->reply || ep->recording || !ep->hooked || !node_ep_identified(ep))
		return;
	ep->recording = true;
	if (node_record_write(node, ep, recorded) < 0)
		node_claim_refuse(node, ep, -ENOMEM, "out of memory");
}

static void deadline_set(struct pb_node *node)
{
	struct node_ep *ep, *next;
	uint64_t first = UINT64_MAX, now = uv_now(node->loop);

	HASH_ITER (hh_id, node->by_id, ep, next) {
		if (ep->reply && ep->deadline_ms < first)
			first = ep->deadline_ms;
	}
	if (first == UINT64_MAX)
		uv_timer_stop(&node->deadlines);
	else
		uv_timer_start(&node->deadlines, node_on_deadline, first > now ? first - now : 0,
			       0);
}

static void expire(struct pb_node *node, struct node_ep *ep)
{
	PB_FREE char *text = NULL;

	if (ep->hooked)
		text = pb_sprintf("the labels of pod %s are not known yet, so neither is its "
				  "policy: is the agent connected to Kubernetes (patchbay status)?",
				  ep->key);
	else
		text = pb_sprintf("no hooks on interface %s of pod %s yet: %s",
				  ep->claim->interface, ep->key,
				  ep->why[0] ? ep->why : "the datapath is busy");
	pb_warn("node", "endpoint add: %s", text ? text : "out of memory");
	node_claim_refuse(node, ep, -ETIMEDOUT, text ? text : "out of memory");
}

void node_on_deadline(uv_timer_t *timer)
{
	struct pb_node *node = timer->data;
	struct node_ep *ep, *next;
	uint64_t now = uv_now(node->loop);
	uint64_t serials[32];
	size_t n = 0;

	HASH_ITER (hh_id, node->by_id, ep, next) {
		if (ep->reply && ep->deadline_ms <= now && n < PB_ARRAY_LEN(serials))
			serials[n++] = ep->serial;
	}
	/* Taking one back may free another, or move it in the table. */
	while (n > 0) {
		ep = node_ep_by_serial(node, serials[--n]);
		if (ep && ep->reply)
			expire(node, ep);
	}
	deadline_set(node);
}

/* ---- the commands ---- */

static char *key_of(const struct node_announce *a)
{
	return pb_sprintf("%s/%s", a->ns, a->name);
}

/*
 * Leaves the interface behind as nobody's, hooked until its device goes or an endpoint takes it
 * over: whatever becomes of the announcement, no packet passes it without a policy.
 */
static void leave_interface(struct pb_node *node, struct node_ep *ep)
{
	struct pb_iface iface = ep->iface;
	bool hooked = ep->hooked;
	struct node_ep *left = iface.ifindex ? node_ep_new(node, iface.name) : NULL;

	if (!left) {
		node_unhook(node, ep);
		return;
	}
	node_ep_set_iface(node, ep, &(struct pb_iface){0});
	node_ep_set_iface(node, left, &iface);
	left->had_pod = true;
	left->hooked = hooked;
	left->dirty = false;
	node_rewrite(node, left);
	node_tell(node, ep);
}

/*
 * The endpoint that the announcement is about. One of an earlier pod, or of an earlier sandbox of
 * this pod, is over.
 */
static struct node_ep *endpoint_for(struct pb_node *node, const struct node_announce *a,
				    const char *key, char **ret_older_uid)
{
	struct node_ep *ep = node_ep_by_key(node, key);

	if (ep && ep->uid[0] && a->uid[0] && strcmp(ep->uid, a->uid) != 0) {
		*ret_older_uid = strdup(ep->uid);
		leave_interface(node, ep);
		node_leave_pod(node, ep);
		ep = NULL;
	}
	if (!ep)
		ep = node_ep_early(node, a->ips, a->n_ips);
	if (!ep)
		ep = node_ep_new(node, a->uid[0] ? a->uid : key);
	if (!ep || ep->key)
		return ep;
	if (node_ep_set_pod(node, ep, a->ns, a->name, a->uid) == 0)
		return ep;
	node_unhook(node, ep);
	node_ep_free(node, ep);
	return NULL;
}

static int claim(struct pb_node *node, const struct node_announce *a, struct node_ep **ret_ep)
{
	PB_FREE struct node_announce *copy = malloc(sizeof(*copy));
	PB_FREE char *key = key_of(a);
	PB_FREE char *older_uid = NULL;
	struct node_ep *ep;

	if (!copy || !key)
		return -ENOMEM;
	*copy = *a;
	ep = endpoint_for(node, a, key, &older_uid);
	if (!ep)
		return -ENOMEM;
	if (node_ep_set_ips(ep, a->ips, a->n_ips) < 0) {
		if (!ep->claim && !ep->in_kube)
			node_leave_pod(node, ep);
		return -ENOMEM;
	}
	node_claim_fail(node, ep, -ECANCELED, "the pod was announced again");
	if (ep->claim)
		node_claim_drop(node, ep);
	if (ep->iface.ifindex && strcmp(ep->iface.name, a->interface) != 0)
		leave_interface(node, ep);
	ep->claim = PB_TAKE_PTR(copy);
	ep->older_uid = PB_TAKE_PTR(older_uid);
	ep->dirty = true;
	node_schedule(node, 0);
	*ret_ep = ep;
	return 0;
}

/* What can't succeed must not cost the pod the endpoint it has. Asks nothing that may block. */
static int check_interface(struct pb_node *node, const struct node_announce *a, struct pb_err *err)
{
	PB_FREE char *key = key_of(a);
	uint32_t ifindex = if_nametoindex(a->interface);
	const struct node_ep *owner = ifindex ? node_ep_by_ifindex(node, ifindex) : NULL;

	if (!key)
		return pb_err_set(err, -ENOMEM, "out of memory");
	if (!node_ep_by_key(node, key))
		return 0;
	if (!ifindex)
		return pb_err_set(err, -ENODEV,
				  "this node has no interface %s; pod %s keeps its endpoint",
				  a->interface, key);
	if (node_is_device(node, a->interface))
		return pb_err_set(err, -EBUSY,
				  "not hookable: datapath.devices names %s; pod %s keeps its "
				  "endpoint",
				  a->interface, key);
	if (owner && owner->key && strcmp(owner->key, key) != 0)
		return pb_err_set(err, -EAGAIN,
				  "interface %s still belongs to pod %s; pod %s keeps its endpoint",
				  a->interface, owner->key, key);
	return 0;
}

static bool too_many_wait(const struct pb_node *node)
{
	const struct node_ep *ep, *next;
	unsigned n = 0;

	HASH_ITER (hh_id, node->by_id, ep, next)
		n += ep->reply != NULL;
	return n >= NODE_WAITERS_MAX;
}

void pb_node_endpoint_add(struct pb_node *node, const char *json, pb_node_reply_fn reply, void *arg)
{
	struct node_announce a;
	struct pb_err err = {0};
	struct node_ep *ep = NULL;

	if (node_announce_parse(json, NODE_ANNOUNCE_ADD, &a, &err) < 0) {
		reply(arg, err.code, err.text, NULL);
		return;
	}
	if (!node->loaded) {
		reply(arg, -EAGAIN, "the agent is still starting; try again", NULL);
		return;
	}
	if (too_many_wait(node)) {
		reply(arg, -EAGAIN, "too many pods wait for their hooks or labels; try again",
		      NULL);
		return;
	}
	if (check_interface(node, &a, &err) < 0) {
		reply(arg, err.code, err.text, NULL);
		return;
	}
	if (claim(node, &a, &ep) < 0) {
		reply(arg, -ENOMEM, "out of memory", NULL);
		return;
	}
	ep->reply = reply;
	ep->reply_arg = arg;
	ep->deadline_ms = uv_now(node->loop) + a.timeout_ms;
	deadline_set(node);
	node_ep_identify(node, ep);
	node_tell(node, ep);
	node_rewrite(node, ep);
}

void pb_node_endpoint_delete(struct pb_node *node, const char *json, pb_node_reply_fn reply,
			     void *arg)
{
	struct node_announce a;
	struct pb_err err = {0};
	PB_FREE char *key = NULL;
	struct node_ep *ep;

	if (node_announce_parse(json, NODE_ANNOUNCE_DELETE, &a, &err) < 0) {
		reply(arg, err.code, err.text, NULL);
		return;
	}
	key = key_of(&a);
	ep = key ? node_ep_by_key(node, key) : NULL;
	/* The end of an earlier sandbox may come after the begin of the next. */
	if (ep && ep->claim && (!a.container[0] || strcmp(a.container, ep->claim->container) == 0))
		node_claim_refuse(node, ep, -ECANCELED, "the endpoint was deleted");
	reply(arg, 0, "", NULL);
}

static int check(struct pb_node *node, const struct node_announce *a, struct pb_err *err)
{
	PB_FREE char *key = key_of(a);
	const struct node_ep *ep = key ? node_ep_by_key(node, key) : NULL;

	if (!ep || !ep->claim ||
	    (a->container[0] && strcmp(a->container, ep->claim->container) != 0))
		return pb_err_set(err, -ENOENT, "pod %s/%s was not announced to this agent", a->ns,
				  a->name);
	if (!ep->hooked)
		return pb_err_set(err, -ENOLINK, "pod %s has no hooks: %s", ep->key,
				  ep->why[0] ? ep->why : "they are being attached");
	if (strcmp(a->interface, ep->iface.name) != 0)
		return pb_err_set(err, -ENODEV, "pod %s is on interface %s, not on %s", ep->key,
				  ep->iface.name, a->interface);
	if (!node_ep_same_ips(ep, a->ips, a->n_ips))
		return pb_err_set(err, -EADDRNOTAVAIL, "pod %s has other addresses by now",
				  ep->key);
	return 0;
}

void pb_node_endpoint_check(struct pb_node *node, const char *json, pb_node_reply_fn reply,
			    void *arg)
{
	struct node_announce a;
	struct pb_err err = {0};

	if (node_announce_parse(json, NODE_ANNOUNCE_ADD, &a, &err) == 0)
		check(node, &a, &err);
	reply(arg, err.code, err.text, NULL);
}

/* ---- an agent before this one ---- */

void node_claim_restore(struct pb_node *node, const struct node_announce *a)
{
	struct node_ep *ep = NULL;

	if (claim(node, a, &ep) < 0) {
		pb_error("node", "pod %s/%s: out of memory", a->ns, a->name);
		return;
	}
	ep->restored = true;
	if (node_ep_set_id(node, ep, a->id) < 0) {
		pb_warn("node", "pod %s: its endpoint id changed from %u to %u", ep->key, a->id,
			ep->rec.id);
		node_record_remove(node, a->id);
		node_record_write(node, ep, NULL);
	}
	node_ep_identify(node, ep);
}

void node_claims_reconcile(struct pb_node *node)
{
	struct node_ep *ep, *next;

	HASH_ITER (hh_id, node->by_id, ep, next) {
		if (ep->restored) {
			pb_info("node", "pod %s went while no agent ran", ep->key);
			node_leave_pod(node, ep);
		} else if (!ep->key && node_ep_identified(ep)) {
			/* The list has no pod for it; what an agent before knew is over. */
			ep->rec.identity = PB_IDENTITY_INIT;
			node_rewrite(node, ep);
		}
	}
}

void node_claims_close(struct pb_node *node)
{
	struct node_ep *ep, *next;

	HASH_ITER (hh_id, node->by_id, ep, next)
		node_claim_fail(node, ep, -ESHUTDOWN, "the agent is ending; try again");
}
