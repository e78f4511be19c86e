/* SPDX-License-Identifier: Apache-2.0 */
/* Objects as JSON, topics as text. */
#include "peers_harness.h"

struct harness h;

struct pb_kube_addr address(const char *text)
{
	struct pb_kube_addr addr = {.family = strchr(text, ':') ? 6 : 4};

	cr_assert_eq(inet_pton(addr.family == 6 ? AF_INET6 : AF_INET, text, addr.addr.bytes), 1,
		     "%s", text);
	return addr;
}

struct pb_cidr prefix(const char *text)
{
	struct pb_cidr cidr = {0};
	struct pb_kube_addr addr;
	unsigned bits = 0;
	char host[64];

	cr_assert_eq(sscanf(text, "%63[^/]/%u", host, &bits), 2, "%s", text);
	addr = address(host);
	cidr.addr = addr.addr;
	cidr.family = (uint8_t)addr.family;
	cidr.bits = (uint8_t)bits;
	return cidr;
}

/* ---- topics and listener ---- */

static bool published[PB_IDENTITY_LAST + 1];

static void note(const char *fmt, ...)
{
	size_t used = strlen(h.log);
	va_list ap;

	va_start(ap, fmt);
	if (h.log_on)
		vsnprintf(h.log + used, sizeof(h.log) - used, fmt, ap);
	va_end(ap);
}

static int publish(void *arg, const char *topic, uint32_t version, const char *key,
		   const void *value, size_t len)
{
	uint32_t number = (uint32_t)strtoul(key, NULL, 10);

	(void)arg;
	cr_assert_eq(version, 1);
	if (strcmp(topic, PB_TOPIC_IDENTITIES) == 0 && number >= PB_IDENTITY_FIRST) {
		/* No number may be in the ipcache that isn't published: at no moment. */
		cr_assert(value || !map_has_identity(number),
			  "%u is withdrawn while an address has it", number);
		if (number <= PB_IDENTITY_LAST)
			published[number] = value != NULL;
		note("%c%s ", value ? '+' : '-', key);
	} else if (strcmp(topic, PB_TOPIC_NODE_ADDRESSES) == 0) {
		const struct pb_node_address *a = value;

		cr_assert(!a || len == sizeof(*a));
		note(a ? "+%s=%s/%x " : "-%s ", key, a ? a->ifname : "", a ? a->flags : 0);
	} else if (strcmp(topic, PB_TOPIC_ENDPOINTS) == 0) {
		note("%c%s ", value ? '+' : '-', key);
	}
	return 0;
}

static void synced(void *arg, const char *topic)
{
	(void)arg;
	note("%s! ", topic);
}

static void told(void *arg, const char *ns, const char *name, uint32_t identity)
{
	(void)arg;
	note("%s/%s:%u ", ns, name, identity);
}

bool is_published(uint32_t identity)
{
	return published[identity];
}

const char *take_log(void)
{
	static char copy[sizeof(h.log)];

	memcpy(copy, h.log, sizeof(copy));
	h.log[0] = '\0';
	return copy;
}

/* ---- life ---- */

void harness_start(void)
{
	const struct pb_peers_topics topics = {.publish = publish, .synced = synced};
	struct pb_err err = {0};

	memset(published, 0, sizeof(published));
	h.log[0] = '\0';
	h.log_on = true;
	if (!h.config.node.name)
		h.config.node.name = (char *)"node-a";
	if (!h.config.cluster.name) {
		h.config.cluster.name = (char *)"default";
		h.config.identity.remote_node = 1;
	}
	pb_log_setup(PB_LOG_LOGFMT, PB_LOG_ERROR, 2);
	uv_loop_init(&h.loop);
	cr_assert_eq(pb_kube_new(&h.loop, &h.config, &h.kube, &err), 0);
	h.sink = (struct pb_sink *)h.kube;
	cr_assert_eq(pb_peers_new(&h.loop, &h.config, h.dp, h.kube, &h.peers, &err), 0, "%s",
		     err.text);
	pb_peers_publish_to(h.peers, &topics);
	pb_peers_listen(h.peers, told, NULL);
	pb_sink_list_begin(h.sink, PB_KUBE_NAMESPACE);
	pb_sink_list_begin(h.sink, PB_KUBE_NODE);
	pb_sink_list_begin(h.sink, PB_KUBE_POD);
}

static void set(void *arg)
{
	*(bool *)arg = true;
}

void harness_stop(void)
{
	bool closed = false;

	pb_peers_quiesce(h.peers);
	pb_peers_close(h.peers, set, &closed);
	while (!closed)
		uv_run(&h.loop, UV_RUN_ONCE);
	closed = false;
	pb_kube_close(h.kube, set, &closed);
	while (!closed)
		uv_run(&h.loop, UV_RUN_ONCE);
	cr_expect_eq(uv_loop_close(&h.loop), 0, "a handle is left on the loop");
}

void settle(void)
{
	/* Timers don't count: what waits for its time isn't due. */
	for (int i = 0; i < 1000; i++)
		uv_run(&h.loop, UV_RUN_NOWAIT);
}

/* ---- objects ---- */

static void add_labels(struct pb_buf *json, const char *labels)
{
	char text[1024];
	char *save = NULL;
	bool first = true;

	snprintf(text, sizeof(text), "%s", labels ? labels : "");
	pb_buf_printf(json, "\"labels\":{");
	for (char *p = strtok_r(text, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		char *value = strchr(p, '=');

		*value++ = '\0';
		pb_buf_printf(json, "%s\"%s\":\"%s\"", first ? "" : ",", p, value);
		first = false;
	}
	pb_buf_printf(json, "}");
}

static void add_each(struct pb_buf *json, const char *list, const char *fmt)
{
	char text[1024];
	char *save = NULL;
	bool first = true;

	snprintf(text, sizeof(text), "%s", list ? list : "");
	for (char *p = strtok_r(text, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		PB_FREE char *item = pb_sprintf(fmt, p);

		pb_buf_printf(json, "%s%s", first ? "" : ",", item);
		first = false;
	}
}

static void put(uint32_t kind, struct pb_buf *json)
{
	struct pb_err err = {0};

	cr_assert_eq(pb_sink_put(h.sink, kind, "v1", json->data, json->len, &err), 0, "%s: %s",
		     json->data, err.text);
}

void put_pod(const struct pod *pod)
{
	PB_BUF_FREE struct pb_buf json = {0};

	pb_buf_printf(&json, "{\"metadata\":{\"namespace\":\"%s\",\"name\":\"%s\",\"uid\":\"%s\",",
		      pod->ns, pod->name, pod->name);
	add_labels(&json, pod->labels);
	pb_buf_printf(&json,
		      "},\"spec\":{\"nodeName\":\"%s\",\"serviceAccountName\":\"%s\","
		      "\"hostNetwork\":%s},\"status\":{\"phase\":\"%s\",\"podIPs\":[",
		      pod->node ? pod->node : "", pod->account ? pod->account : "default",
		      pod->host_network ? "true" : "false", pod->phase ? pod->phase : "Running");
	add_each(&json, pod->ips, "{\"ip\":\"%s\"}");
	pb_buf_printf(&json, "]}}");
	put(PB_KUBE_POD, &json);
}

void put_namespace(const char *name, const char *labels)
{
	PB_BUF_FREE struct pb_buf json = {0};

	pb_buf_printf(&json, "{\"metadata\":{\"name\":\"%s\",\"uid\":\"%s\",", name, name);
	add_labels(&json, labels);
	pb_buf_printf(&json, "}}");
	put(PB_KUBE_NAMESPACE, &json);
}

void put_node(const char *name, const char *addrs)
{
	put_node_with(name, "InternalIP", addrs);
}

void put_node_with(const char *name, const char *type, const char *addrs)
{
	PB_BUF_FREE struct pb_buf json = {0};
	char fmt[64];

	pb_buf_printf(&json,
		      "{\"metadata\":{\"name\":\"%s\",\"uid\":\"%s\"},\"status\":{\"addresses\":[",
		      name, name);
	snprintf(fmt, sizeof(fmt), "{\"type\":\"%s\",\"address\":\"%%s\"}", type);
	add_each(&json, addrs, fmt);
	pb_buf_printf(&json, "]}}");
	put(PB_KUBE_NODE, &json);
}

void delete_object(uint32_t kind, const char *ns, const char *name)
{
	pb_sink_delete(h.sink, kind, ns, name, "");
}

void all_listed(void)
{
	pb_sink_list_end(h.sink, PB_KUBE_NAMESPACE);
	pb_sink_list_end(h.sink, PB_KUBE_NODE);
	pb_sink_list_end(h.sink, PB_KUBE_POD);
}
