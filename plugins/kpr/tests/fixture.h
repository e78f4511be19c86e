/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin on the fake host, for tests that need no kernel: Services, backends, pods and node
 * addresses in, contents of the maps out. Everything lives until teardown().
 */
#ifndef KPR_TESTS_FIXTURE_H
#define KPR_TESTS_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>

#include <patchbay/testing.h>
#include <patchbay/topics/backends.h>
#include <patchbay/topics/node_addresses.h>

#include "../kpr_abi.h"

#define SERVICES_MAX 16
#define BACKENDS_MAX 256
#define SLOTS_MAX 512
/* What tests of tables configure: maglev.table_size. */
#define MAGLEV_SIZE 251
#define MAGLEV_TABLES 3

struct service {
	struct pb_kube_service s;
	struct pb_kube_addr ips[2];
	struct pb_kube_addr external[2];
	struct pb_service_ingress ingress[2];
	struct pb_cidr ranges[4];
	struct pb_service_port ports[3];
	struct pb_kube_pair labels[1];
	struct pb_kube_pair annotations[2];
};

struct backend {
	const char *addr;
	uint16_t port;
	const char *port_name;
	uint8_t protocol;
	uint8_t state;
	uint8_t flags;
	const char *hints;
};

struct pod {
	struct pb_kube_pod p;
	struct pb_kube_addr ips[2];
	struct pb_pod_port ports[2];
};

extern struct pb_fake *fake;
extern const char *const config;

/* Memory until teardown(). */
void *make(size_t len);
void setup_with(const char *config);
/* As big as `config` says. */
void setup(void);
/* The maps with room for so many frontends. */
void setup_sized(const char *config, uint32_t services_max);
void teardown(void);
void load(void);

/* ---- objects ---- */

struct pb_kube_addr addr_of(const char *ip);
struct service *bare(const char *name);
/* ClusterIP Service with one unnamed TCP port. */
struct service *service(const char *name, const char *ip, uint16_t port);
/* The same with a nodePort. */
struct service *node_port(const char *name, const char *ip, uint16_t port, uint16_t node_port);
void set_ip(struct service *s, const char *ip);
void set_port(struct service *s, const char *name, uint8_t protocol, uint16_t port);
void set_external(struct service *s, const char *ip);
void set_ingress(struct service *s, const char *ip, bool proxied);
void set_range(struct service *s, const char *ip, uint8_t bits);
void set_annotation(struct service *s, const char *key, const char *value);
/* Another object that says the same. */
struct service *copy_of(const struct service *s);
void put(struct service *s);
void gone(struct service *s);
/* A running pod of node-a with one host port. */
struct pod *pod(const char *name, const char *ip, uint16_t container_port, uint16_t host_port);
void put_pod(struct pod *p);
void pod_gone(struct pod *p);
void put_node(const char *name, const char *zone);
/* `flags` PB_NODE_ADDR_*. */
void put_address(const char *ip, uint32_t flags);
void address_gone(const char *ip);
void addresses_synced(void);

/* ---- backends ---- */

/* A part as plugin endpointslice would make it: sorted by the caller. */
struct pb_backends *part_of(const struct backend *list, uint32_t n, size_t *ret_len);
/* Publishes a part, or withdraws it when it has no backends. Nothing is due before its head. */
void publish_part(const char *name, const char *part, const struct backend *list, uint32_t n);
void publish_head(const char *name, uint32_t n_parts);
/* All backends of a Service in one part. */
void publish_n(const char *name, const struct backend *list, uint32_t n);
/* Everything of the first full view is there. */
void synced(void);

#define PART(name_, part_, ...)                                                                    \
	publish_part(name_, part_, (const struct backend[]){__VA_ARGS__},                          \
		     sizeof((const struct backend[]){__VA_ARGS__}) / sizeof(struct backend))
#define PUBLISH(name_, ...)                                                                        \
	publish_n(name_, (const struct backend[]){__VA_ARGS__},                                    \
		  sizeof((const struct backend[]){__VA_ARGS__}) / sizeof(struct backend))

/* ---- what is in the maps ---- */

struct pb_svc_key key_of(const char *ip, uint16_t port, uint8_t protocol);
/* What a program finds at position i of a frontend's pool. */
struct pb_svc_backend backend_in(const struct pb_svc_key *key, const struct pb_svc *svc,
				 uint32_t i);
/* "ADDRESS:PORT ..." behind a frontend, "refused" for none, "absent" when it isn't programmed. */
const char *behind_key(const struct pb_svc_key *key);
const char *behind_protocol(const char *ip, uint16_t port, uint8_t protocol);
const char *behind(const char *ip, uint16_t port);
/* The entry for packets from outside. */
const char *behind_ext(const char *ip, uint16_t port);
struct pb_svc entry(const char *ip, uint16_t port);
struct pb_svc entry_ext(const char *ip, uint16_t port);
struct pb_svc_settings settings(void);
/* Whether a source is let in by the ranges that the frontend names. */
bool let_in(const char *ip, uint16_t port, const char *source);
uint64_t writes(void);

/* ---- what is said ---- */

bool listed(const char *part);
/* The answer to `service list ARGS`, to be freed. */
char *list_json(const char *const *args, uint32_t n);
/* The error a command gives for one argument; 0 and its JSON in *ret_json when it gives none. */
int shown(const char *service, char **ret_json);
bool logged(const char *part);
/* How often the log has it. */
unsigned times_logged(const char *part);

#endif
