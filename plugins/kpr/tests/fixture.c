/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MADE 65536

struct pb_fake *fake;
static void *made[MAX_MADE]; /* objects and values, freed at the end */
static unsigned n_made;

void *make(size_t len)
{
	void *p = calloc(1, len);

	cr_assert(p && n_made < MAX_MADE);
	made[n_made++] = p;
	return p;
}

void load(void)
{
	cr_assert_eq(pb_fake_load(fake), 0, "%s", pb_fake_failure(fake));
}

static void define_array(const char *name, uint32_t value_size, uint32_t n)
{
	pb_fake_map_define(fake, name, BPF_MAP_TYPE_ARRAY, sizeof(__u32), value_size, n);
	pb_fake_map_mappable(fake, name);
}

void setup_sized(const char *text, uint32_t services_max)
{
	fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, text, "node-a");
	cr_assert_not_null(fake);
	pb_fake_map_define(fake, "kpr_services", BPF_MAP_TYPE_HASH, sizeof(struct pb_svc_key),
			   sizeof(struct pb_svc), services_max);
	define_array("kpr_slots", sizeof(struct pb_svc_slot), SLOTS_MAX);
	define_array("kpr_backends", sizeof(struct pb_svc_backend), BACKENDS_MAX);
	define_array("kpr_maglev", sizeof(struct pb_svc_slot), MAGLEV_TABLES * MAGLEV_SIZE);
	define_array("kpr_settings", sizeof(struct pb_svc_settings), 1);
	pb_fake_map_define(fake, "kpr_ranges4", BPF_MAP_TYPE_HASH, sizeof(struct pb_svc_range4), 1,
			   8);
	pb_fake_map_define(fake, "kpr_ranges6", BPF_MAP_TYPE_HASH, sizeof(struct pb_svc_range6), 1,
			   8);
	pb_fake_map_define(fake, "kpr_reverse", BPF_MAP_TYPE_LRU_HASH,
			   sizeof(struct kpr_reverse_key), sizeof(struct kpr_reverse), 64);
}

void setup_with(const char *text)
{
	setup_sized(text, SERVICES_MAX);
}

const char *const config = "{\"services_max\":16,\"backends_max\":256}";

void setup(void)
{
	setup_with(config);
}

void teardown(void)
{
	pb_fake_free(fake);
	while (n_made > 0)
		free(made[--n_made]);
}

/* ---- objects ---- */

struct pb_kube_addr addr_of(const char *ip)
{
	struct pb_kube_addr a = {.family = strchr(ip, ':') ? 6 : 4};

	cr_assert_eq(inet_pton(a.family == 6 ? AF_INET6 : AF_INET, ip, &a.addr), 1);
	return a;
}

void set_external(struct service *s, const char *ip)
{
	s->external[s->s.n_external_ips++] = addr_of(ip);
}

void set_ingress(struct service *s, const char *ip, bool proxied)
{
	s->s.type = PB_SERVICE_LOAD_BALANCER;
	s->ingress[s->s.n_ingress++] =
		(struct pb_service_ingress){.ip = addr_of(ip), .proxied = proxied};
}

void set_range(struct service *s, const char *ip, uint8_t bits)
{
	struct pb_kube_addr a = addr_of(ip);

	s->s.flags |= PB_SERVICE_SOURCE_RANGES_GIVEN;
	s->ranges[s->s.n_source_ranges++] =
		(struct pb_cidr){.addr = a.addr, .family = (uint8_t)a.family, .bits = bits};
}

void set_annotation(struct service *s, const char *key, const char *value)
{
	s->annotations[s->s.meta.n_annotations++] = (struct pb_kube_pair){key, value};
}

void set_ip(struct service *s, const char *ip)
{
	struct pb_kube_addr *a = &s->ips[s->s.n_cluster_ips++];

	*a = addr_of(ip);
}

void set_port(struct service *s, const char *name, uint8_t protocol, uint16_t port)
{
	s->ports[s->s.n_ports++] = (struct pb_service_port){.name = name,
							    .port = port,
							    .protocol = protocol,
							    .app_protocol = ""};
}

static void point(struct service *s)
{
	s->s.meta.labels = s->labels;
	s->s.meta.annotations = s->annotations;
	s->s.ports = s->ports;
	s->s.cluster_ips = s->ips;
	s->s.external_ips = s->external;
	s->s.ingress = s->ingress;
	s->s.source_ranges = s->ranges;
}

struct service *bare(const char *name)
{
	struct service *s = make(sizeof(*s));

	s->s.meta = (struct pb_kube_meta){.size = sizeof(s->s),
					  .kind = PB_KUBE_SERVICE,
					  .ns = "ns",
					  .name = name,
					  .uid = name,
					  .version = "1",
					  .labels = s->labels};
	s->s.type = PB_SERVICE_CLUSTER_IP;
	point(s);
	return s;
}

struct service *copy_of(const struct service *s)
{
	struct service *copy = make(sizeof(*copy));

	*copy = *s;
	point(copy);
	return copy;
}

/* ClusterIP Service with one unnamed TCP port. */
struct service *service(const char *name, const char *ip, uint16_t port)
{
	struct service *s = bare(name);

	set_ip(s, ip);
	set_port(s, "", IPPROTO_TCP, port);
	return s;
}

struct service *node_port(const char *name, const char *ip, uint16_t port, uint16_t node_port)
{
	struct service *s = service(name, ip, port);

	s->s.type = PB_SERVICE_NODE_PORT;
	s->ports[0].node_port = node_port;
	return s;
}

void put(struct service *s)
{
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &s->s.meta), 0);
	pb_fake_advance_ms(fake, 1);
}

void gone(struct service *s)
{
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_DELETE, &s->s.meta), 0);
	pb_fake_advance_ms(fake, 1);
}

struct pod *pod(const char *name, const char *ip, uint16_t container_port, uint16_t host_port)
{
	struct pod *p = make(sizeof(*p));

	p->p.meta = (struct pb_kube_meta){.size = sizeof(p->p),
					  .kind = PB_KUBE_POD,
					  .ns = "ns",
					  .name = name,
					  .uid = name,
					  .version = "1"};
	p->p.node = "node-a";
	p->p.service_account = "";
	p->p.phase = PB_POD_RUNNING;
	p->p.ips = p->ips;
	p->p.ports = p->ports;
	p->ips[p->p.n_ips++] = addr_of(ip);
	p->ports[p->p.n_ports++] = (struct pb_pod_port){.name = "",
							.container_port = container_port,
							.host_port = host_port,
							.protocol = IPPROTO_TCP};
	return p;
}

void put_pod(struct pod *p)
{
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &p->p.meta), 0);
	pb_fake_advance_ms(fake, 1);
}

void pod_gone(struct pod *p)
{
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_DELETE, &p->p.meta), 0);
	pb_fake_advance_ms(fake, 1);
}

void put_node(const char *name, const char *zone)
{
	struct pb_kube_node *node = make(sizeof(*node));

	node->meta = (struct pb_kube_meta){.size = sizeof(*node),
					   .kind = PB_KUBE_NODE,
					   .ns = "",
					   .name = name,
					   .uid = name,
					   .version = "1"};
	node->zone = zone;
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &node->meta), 0);
	pb_fake_advance_ms(fake, 1);
}

void put_address(const char *ip, uint32_t flags)
{
	struct pb_kube_addr a = addr_of(ip);
	struct pb_node_address value = {.size = sizeof(value),
					.flags = flags,
					.addr = a.addr,
					.family = (uint8_t)a.family,
					.bits = 24,
					.ifindex = 2,
					.ifname = "eth0"};

	cr_assert_eq(pb_fake_publish(fake, PB_TOPIC_NODE_ADDRESSES, PB_TOPIC_NODE_ADDRESSES_VERSION,
				     ip, &value, sizeof(value)),
		     0);
	pb_fake_advance_ms(fake, 1);
}

void address_gone(const char *ip)
{
	cr_assert_eq(pb_fake_withdraw(fake, PB_TOPIC_NODE_ADDRESSES, ip), 0);
	pb_fake_advance_ms(fake, 1);
}

void addresses_synced(void)
{
	pb_fake_synced(fake, PB_TOPIC_NODE_ADDRESSES);
	pb_fake_advance_ms(fake, 1);
}

/* A part as plugin endpointslice would make it: sorted by the caller. */
struct pb_backends *part_of(const struct backend *list, uint32_t n, size_t *ret_len)
{
	size_t head = sizeof(struct pb_backends) + n * sizeof(struct pb_backend);
	struct pb_backends *v = make(head + 64 + 16UL * n);
	char *strings = (char *)v + head;
	uint32_t len = 1;

	v->size = sizeof(*v);
	v->n = n;
	for (uint32_t i = 0; i < n; i++) {
		struct pb_backend *b = &v->backend[i];

		b->family = strchr(list[i].addr, ':') ? 6 : 4;
		inet_pton(b->family == 6 ? AF_INET6 : AF_INET, list[i].addr, &b->addr);
		b->port = list[i].port;
		b->protocol = list[i].protocol ? list[i].protocol : IPPROTO_TCP;
		b->state = list[i].state ? list[i].state : PB_BACKEND_ACTIVE;
		b->flags = list[i].flags;
		if (list[i].port_name && list[i].port_name[0]) {
			b->port_name = len;
			strcpy(strings + len, list[i].port_name);
			len += (uint32_t)strlen(list[i].port_name) + 1;
		}
		if (list[i].hints) {
			b->hints = len;
			strcpy(strings + len, list[i].hints);
			len += (uint32_t)strlen(list[i].hints) + 1;
		}
	}
	v->strings_len = len;
	*ret_len = head + len;
	return v;
}

/* Publishes a part, or withdraws it when it has no backends. Nothing is due before its head. */
void publish_part(const char *name, const char *part, const struct backend *list, uint32_t n)
{
	struct pb_backends *v;
	char key[128];
	size_t len;

	snprintf(key, sizeof(key), "ns/%s/%s", name, part);
	if (n == 0) {
		pb_fake_withdraw(fake, PB_TOPIC_BACKENDS, key);
		return;
	}
	v = part_of(list, n, &len);
	cr_assert_eq(pb_fake_publish(fake, PB_TOPIC_BACKENDS, PB_TOPIC_BACKENDS_VERSION, key, v,
				     len),
		     0);
}

void publish_head(const char *name, uint32_t n_parts)
{
	static uint64_t revision;
	struct pb_backends_head head = {.size = sizeof(head),
					.revision = ++revision,
					.n_parts = n_parts};
	char key[128];

	snprintf(key, sizeof(key), "ns/%s", name);
	cr_assert_eq(pb_fake_publish(fake, PB_TOPIC_BACKENDS, PB_TOPIC_BACKENDS_VERSION, key, &head,
				     sizeof(head)),
		     0);
	pb_fake_advance_ms(fake, 1);
}

/* All backends of a Service in one part. */
void publish_n(const char *name, const struct backend *list, uint32_t n)
{
	publish_part(name, "slice", list, n);
	publish_head(name, n > 0);
}

void synced(void)
{
	pb_fake_kube_synced(fake, PB_KUBE_SERVICE);
	pb_fake_kube_synced(fake, PB_KUBE_POD);
	pb_fake_synced(fake, PB_TOPIC_NODE_ADDRESSES);
	pb_fake_synced(fake, PB_TOPIC_BACKENDS);
	pb_fake_advance_ms(fake, 1);
}

/* ---- what is in the maps ---- */

struct pb_svc_key key_of(const char *ip, uint16_t port, uint8_t protocol)
{
	struct pb_svc_key key = {.port = htons(port), .protocol = protocol};

	key.family = strchr(ip, ':') ? 6 : 4;
	inet_pton(key.family == 6 ? AF_INET6 : AF_INET, ip, &key.addr);
	return key;
}

/* What a program finds at position i of a frontend's pool. */
struct pb_svc_backend backend_in(const struct pb_svc_key *key, const struct pb_svc *svc, uint32_t i)
{
	uint32_t pool = pb_svc_tie(key, svc->tie);
	uint32_t at = svc->base + i;
	struct pb_svc_backend b;
	struct pb_svc_slot slot;

	cr_assert_eq(pb_fake_map_get(fake, "kpr_slots", &at, &slot), 0);
	cr_assert_eq(slot.pool, pool, "slot of another pool");
	cr_assert_eq(pb_fake_map_get(fake, "kpr_backends", &slot.backend, &b), 0);
	cr_assert_eq(b.pool, pool, "backend of another pool");
	return b;
}

/* "ADDRESS:PORT ..." behind a frontend, "refused" for none, "absent" when it isn't programmed. */
const char *behind_key(const struct pb_svc_key *key)
{
	static char text[1024];
	struct pb_svc svc;
	char addr[INET6_ADDRSTRLEN];

	if (pb_fake_map_get(fake, "kpr_services", key, &svc) < 0)
		return "absent";
	if (svc.count == 0)
		return svc.flags & PB_SVC_FAIL_OPEN ? "open" : "refused";
	text[0] = '\0';
	for (uint32_t i = 0; i < svc.count; i++) {
		struct pb_svc_backend b = backend_in(key, &svc, i);

		inet_ntop(b.family == 4 ? AF_INET : AF_INET6, &b.addr, addr, sizeof(addr));
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s:%u", i ? " " : "",
			 addr, ntohs(b.port));
	}
	return text;
}

const char *behind_protocol(const char *ip, uint16_t port, uint8_t protocol)
{
	struct pb_svc_key key = key_of(ip, port, protocol);

	return behind_key(&key);
}

const char *behind_ext(const char *ip, uint16_t port)
{
	struct pb_svc_key key = key_of(ip, port, IPPROTO_TCP);

	key.scope = PB_SVC_SCOPE_EXT;
	return behind_key(&key);
}

const char *behind(const char *ip, uint16_t port)
{
	return behind_protocol(ip, port, IPPROTO_TCP);
}

uint64_t writes(void)
{
	return pb_fake_metric(fake, "map_writes");
}

struct pb_svc entry(const char *ip, uint16_t port)
{
	struct pb_svc_key key = key_of(ip, port, IPPROTO_TCP);
	struct pb_svc svc;

	cr_assert_eq(pb_fake_map_get(fake, "kpr_services", &key, &svc), 0);
	return svc;
}

struct pb_svc entry_ext(const char *ip, uint16_t port)
{
	struct pb_svc_key key = key_of(ip, port, IPPROTO_TCP);
	struct pb_svc svc;

	key.scope = PB_SVC_SCOPE_EXT;
	cr_assert_eq(pb_fake_map_get(fake, "kpr_services", &key, &svc), 0);
	return svc;
}

struct pb_svc_settings settings(void)
{
	struct pb_svc_settings s;
	__u32 at = 0;

	cr_assert_eq(pb_fake_map_get(fake, "kpr_settings", &at, &s), 0);
	return s;
}

/* The fake's map is a hash: prefix by prefix, as a trie would. */
bool let_in(const char *ip, uint16_t port, const char *source)
{
	struct pb_svc svc = entry(ip, port);
	struct pb_kube_addr a = addr_of(source);
	uint8_t value;

	cr_assert(svc.flags & PB_SVC_RANGES);
	for (uint32_t bits = 0; bits <= (a.family == 4 ? 32U : 128U); bits++) {
		struct pb_svc_range4 k4 = {.bits = 32 + bits, .ranges = svc.ranges};
		struct pb_svc_range6 k6 = {.bits = 32 + bits, .ranges = svc.ranges};
		uint8_t *to = a.family == 4 ? (uint8_t *)&k4.addr : (uint8_t *)k6.addr;

		for (uint32_t i = 0; i < bits; i++)
			to[i / 8] |= (uint8_t)(a.addr.bytes[i / 8] & 0x80 >> i % 8);
		if (pb_fake_map_get(fake, a.family == 4 ? "kpr_ranges4" : "kpr_ranges6",
				    a.family == 4 ? (void *)&k4 : (void *)&k6, &value) == 0)
			return true;
	}
	return false;
}

char *list_json(const char *const *args, uint32_t n)
{
	char *json = NULL;

	cr_assert_eq(pb_fake_command(fake, "service list", args, n, &json), 0, "%s",
		     pb_fake_failure(fake));
	return json;
}

bool logged(const char *part)
{
	return strstr(pb_fake_log(fake), part) != NULL;
}

unsigned times_logged(const char *part)
{
	unsigned n = 0;

	for (const char *at = pb_fake_log(fake); (at = strstr(at, part)); at++)
		n++;
	return n;
}

bool listed(const char *part)
{
	char *json = NULL;
	bool found;

	cr_assert_eq(pb_fake_command(fake, "service list", NULL, 0, &json), 0);
	found = strstr(json, part) != NULL;
	free(json);
	return found;
}

/* The error a command gives for one argument; 0 and its JSON in *ret_json when it gives none. */
int shown(const char *service, char **ret_json)
{
	const char *const args[] = {service};

	return pb_fake_command(fake, "service show", args, 1, ret_json);
}
