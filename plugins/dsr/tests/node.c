/* SPDX-License-Identifier: Apache-2.0 */
/* Loads the chains of a node and fills its maps. */
#include "node.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>

#include <bpf/entry.skel.h>
#include <bpf/exit.skel.h>
#include <plugins/dsr/dsr.skel.h>
#include <plugins/kpr/kpr_ns.skel.h>

#define GATE_PLACES 2 /* of a hook, see bpf/include/pb_core.h */
#define SLOTS 32

/* ---- devices ---- */

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int rc = fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return rc;
}

/* All nodes are this one device: what goes to the neighbour comes in by it. */
int node_devices(void)
{
	static const char *const commands[] = {
		"ip link set lo up",
		"ip link add up0 address 02:00:00:00:00:01 type veth peer name up1",
		"ip link set up0 mtu 1500 up",
		"ip link set up1 up",
		"ip addr add 172.18.0.2/16 dev up0",
		"ip -6 addr add fd00:18::2/64 dev up0 nodad",
		"ip route add 10.244.0.0/16 via 172.18.0.3",
		"ip -6 route add fd00:244::/32 via fd00:18::3",
		"ip route add unreachable 203.0.113.0/24",
		"ip route add 192.0.2.0/24 via 172.18.0.3",
		"ip -6 route add 2001:db8::/64 via fd00:18::3",
		"ip neigh add 172.18.0.3 lladdr 02:00:00:00:00:01 dev up0",
		"ip -6 neigh add fd00:18::3 lladdr 02:00:00:00:00:01 dev up0",
	};

	if (unshare(CLONE_NEWNET) < 0)
		return -errno;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (system(commands[i]) != 0) {
			printf("# %s failed\n", commands[i]);
			return -EIO;
		}
	}
	if (write_file("/proc/sys/net/ipv4/conf/all/forwarding", "1") < 0)
		return -EIO;
	return write_file("/proc/sys/net/ipv6/conf/all/forwarding", "1");
}

uint32_t node_uplink(void)
{
	return if_nametoindex("up0");
}

/* ---- loading ---- */

static int set_constant(struct bpf_object *obj, const char *name, uint32_t value)
{
	struct bpf_map *rodata = bpf_object__find_map_by_name(obj, ".rodata");
	struct btf *btf = bpf_object__btf(obj);
	int id = btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC);
	const struct btf_type *sec;
	char data[512];
	const void *initial;
	size_t len;

	if (!rodata || id < 0)
		return -ENOENT;
	initial = bpf_map__initial_value(rodata, &len);
	if (!initial || len > sizeof(data))
		return -E2BIG;
	memcpy(data, initial, len);
	sec = btf__type_by_id(btf, (uint32_t)id);
	for (int i = 0; i < btf_vlen(sec); i++) {
		const struct btf_var_secinfo *info = btf_var_secinfos(sec) + i;
		const struct btf_type *var = btf__type_by_id(btf, info->type);

		if (strcmp(btf__name_by_offset(btf, var->name_off), name) != 0)
			continue;
		memcpy(data + info->offset, &value, sizeof(value));
		return bpf_map__set_initial_value(rodata, data, len);
	}
	return -ENOENT;
}

/* The name of a map for all nodes: a borrowed map is its owner's. */
static const char *plain(const char *name)
{
	const char *owner = strstr(name, "__");

	return owner && owner > name ? owner + 2 : name;
}

int node_map(const struct node *n, const char *name)
{
	for (size_t i = 0; i < n->n_maps; i++) {
		if (strcmp(n->maps[i].name, name) == 0)
			return n->maps[i].fd;
	}
	return -ENOENT;
}

static bool is_private(const struct bpf_map *map)
{
	return bpf_map__is_internal(map) || strcmp(bpf_map__name(map), "pb_chain") == 0;
}

static int share_maps(struct node *n, struct bpf_object *obj, int chain_fd)
{
	struct bpf_map *map;
	int rc = 0;

	bpf_object__for_each_map(map, obj)
	{
		int fd = node_map(n, plain(bpf_map__name(map)));

		if (strcmp(bpf_map__name(map), "pb_chain") == 0)
			fd = chain_fd;
		if (rc == 0 && fd >= 0 && !bpf_map__is_internal(map))
			rc = bpf_map__reuse_fd(map, fd);
	}
	return rc;
}

static int keep_maps(struct node *n, struct bpf_object *obj)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, obj)
	{
		const char *name = plain(bpf_map__name(map));

		if (is_private(map) || node_map(n, name) >= 0)
			continue;
		if (n->n_maps == NODE_MAPS)
			return -ENOSPC;
		snprintf(n->maps[n->n_maps].name, sizeof(n->maps[0].name), "%s", name);
		n->maps[n->n_maps++].fd = dup(bpf_map__fd(map));
	}
	return 0;
}

struct place {
	const char *program;
	uint32_t hook;
	uint32_t slot, end; /* the slot of exit */
	int chain_fd;
};

static void constants_of(const struct node *n, struct bpf_object *obj, const struct place *p)
{
	/* Not every object has all of them. */
	(void)set_constant(obj, "pb_slot_next", p->slot + 1);
	(void)set_constant(obj, "pb_slot_exit", p->end);
	(void)set_constant(obj, "pb_hook_id", p->hook);
	(void)set_constant(obj, "dsr_mode", n->config.mode);
	(void)set_constant(obj, "dsr_dispatch", n->config.dispatch);
	(void)set_constant(obj, "dsr_strip", !n->config.keep_option);
	(void)set_constant(obj, "dsr_any_address", n->config.any_address);
}

/* Loads one program and returns its fd; the object lives as long as the node. */
static int load(struct node *n, const void *elf, size_t len, const struct place *p)
{
	struct bpf_object *obj = bpf_object__open_mem(elf, len, NULL);
	struct bpf_program *prog;
	int rc;

	if (!obj || n->n_objects == NODE_OBJECTS)
		return -EINVAL;
	n->objects[n->n_objects++] = obj;
	bpf_object__for_each_program(prog, obj)
		bpf_program__set_autoload(prog, strcmp(bpf_program__name(prog), p->program) == 0);
	constants_of(n, obj, p);
	rc = share_maps(n, obj, p->chain_fd);
	if (rc == 0)
		rc = bpf_object__load(obj);
	if (rc == 0)
		rc = keep_maps(n, obj);
	prog = bpf_object__find_program_by_name(obj, p->program);
	return rc < 0 ? rc : bpf_program__fd(prog);
}

static const void *elf_of(const char *program, size_t *ret_len)
{
	if (strncmp(program, "dsr_", 4) == 0)
		return dsr_bpf__elf_bytes(ret_len);
	return strncmp(program, "kpr_", 4) == 0 ? kpr_ns_bpf__elf_bytes(ret_len)
						: exit_bpf__elf_bytes(ret_len);
}

static int chain(struct node *n, uint32_t hook, const char *entry, const char *const *programs)
{
	struct place p = {.hook = hook, .program = entry, .chain_fd = -1};
	uint32_t gate = hook * GATE_PLACES;
	const void *elf;
	size_t len;
	int fd;

	elf = entry_bpf__elf_bytes(&len);
	fd = n->entry[hook] = load(n, elf, len, &p);
	if (fd < 0)
		return fd;
	p.chain_fd = bpf_map_create(BPF_MAP_TYPE_PROG_ARRAY, "chain", 4, 4, SLOTS, NULL);
	while (programs[p.end])
		p.end++;
	for (p.slot = 0; fd >= 0 && p.slot <= p.end; p.slot++) {
		p.program = p.slot < p.end ? programs[p.slot] : "pb_exit_tc";
		elf = elf_of(p.program, &len);
		fd = load(n, elf, len, &p);
		if (fd >= 0 && bpf_map_update_elem(p.chain_fd, &p.slot, &fd, 0) < 0)
			fd = -errno;
		if (fd >= 0 && p.slot == 0 &&
		    bpf_map_update_elem(node_map(n, "pb_gate_tc"), &gate, &fd, 0) < 0)
			fd = -errno;
	}
	/* The programs hold it. */
	close(p.chain_fd);
	return fd < 0 ? fd : 0;
}

static void close_objects(struct node *n)
{
	while (n->n_objects > 0)
		bpf_object__close(n->objects[--n->n_objects]);
}

int node_rechain(struct node *n, const struct node_config *config)
{
	static const char *const dev[][5] = {
		{"dsr_in", "dsr_out", NULL},
		{"dsr_in", "kpr_dev_ingress", "dsr_out", "kpr_nat_dev_ingress", NULL},
		{"kpr_dev_ingress", "kpr_nat_dev_ingress", NULL},
	};
	static const char *const pod[][5] = {
		{"dsr_answer", NULL},
		{"kpr_pod_egress", "dsr_answer", "kpr_nat_pod_egress", NULL},
		{"kpr_pod_egress", "kpr_nat_pod_egress", NULL},
	};
	int which = config->no_dsr ? 2 : config->with_kpr;
	int rc;

	close_objects(n);
	n->config = *config;
	rc = chain(n, PB_HOOK_DEV_INGRESS, "pb_dev_ingress", dev[which]);
	return rc < 0 ? rc : chain(n, PB_HOOK_POD_EGRESS, "pb_pod_egress", pod[which]);
}

int node_open(struct node *n, const struct node_config *config)
{
	const struct pb_ct_settings times = {60, 21600, 10, 60};
	struct pb_svc_settings settings = {.flags = PB_SVC_SET_NODE_PORT,
					   .snat_min = 32768,
					   .snat_max = 65535};
	uint32_t zero = 0;
	int rc;

	memset(n, 0, sizeof(*n));
	rc = node_rechain(n, config);
	if (rc < 0)
		return rc;
	inet_pton(AF_INET, "172.18.0.2", &settings.node4);
	inet_pton(AF_INET6, "fd00:18::2", settings.node6);
	if (bpf_map_update_elem(node_map(n, "pb_ct_settings"), &zero, &times, 0) < 0 ||
	    bpf_map_update_elem(node_map(n, "kpr_settings"), &zero, &settings, 0) < 0)
		return -errno;
	node_flow_none(n);
	return 0;
}

void node_close(struct node *n)
{
	close_objects(n);
	while (n->n_maps > 0)
		close(n->maps[--n->n_maps].fd);
}

/* ---- maps ---- */

static void put(const struct node *n, const char *map, const void *key, const void *value)
{
	if (bpf_map_update_elem(node_map(n, map), key, value, BPF_ANY) < 0) {
		printf("Bail out! map %s: %s\n", map, strerror(errno));
		exit(1);
	}
}

/* A value for every CPU. */
static void put_all(const struct node *n, const char *map, uint32_t key, const void *value,
		    size_t size)
{
	int cpus = libbpf_num_possible_cpus();
	char *all = calloc((size_t)cpus, size);

	for (int i = 0; i < cpus; i++)
		memcpy(all + (size_t)i * size, value, size);
	put(n, map, &key, all);
	free(all);
}

union pb_addr node_addr(const char *text, uint8_t *ret_family)
{
	union pb_addr addr = {0};

	*ret_family = strchr(text, ':') ? 6 : 4;
	inet_pton(*ret_family == 6 ? AF_INET6 : AF_INET, text, &addr);
	return addr;
}

static struct pb_svc_key key_of(const struct node_service *s)
{
	struct pb_svc_key key = {.port = htons(s->port),
				 .protocol = s->protocol,
				 .family = s->family};

	if (s->addr)
		key.addr = node_addr(s->addr, &key.family);
	return key;
}

static void put_backend(const struct node *n, const struct node_service *s, uint32_t i,
			const char *addr)
{
	uint32_t at = s->base + i;
	struct pb_svc_slot slot = {.backend = at, .pool = s->base};
	struct pb_svc_backend backend = {.port = htons(s->backend_port), .pool = s->base};

	backend.addr = node_addr(addr, &backend.family);
	put(n, "kpr_slots", &at, &slot);
	put(n, "kpr_backends", &at, &backend);
}

void node_service(const struct node *n, const struct node_service *s)
{
	struct pb_svc_key key = key_of(s);
	struct pb_svc svc = {.id = s->base,
			     .base = s->base,
			     .flags = s->flags,
			     .tie = pb_svc_tie(&key, s->base)};

	for (; svc.count < s->fill; svc.count++)
		put_backend(n, s, svc.count, key.family == 6 ? "fd00:244:9::9" : "10.244.9.9");
	for (size_t i = 0; i < 4 && s->backends[i]; i++)
		put_backend(n, s, svc.count++, s->backends[i]);
	put(n, "kpr_services", &key, &svc);
}

void node_service_gone(const struct node *n, const struct node_service *s)
{
	struct pb_svc_key key = key_of(s);

	bpf_map_delete_elem(node_map(n, "kpr_services"), &key);
}

void node_flow(const struct node *n, const struct node_service *s, uint32_t state, uint8_t flags)
{
	struct pb_svc_flow flow = {.state = state,
				   .flags = s->flags,
				   .id = s->base,
				   .backend = s->base + s->fill,
				   .frontend = key_of(s)};

	flow.to.addr = node_addr(s->backends[0], &flow.to.family);
	flow.to.port = htons(s->backend_port);
	flow.to.flags = flags;
	flow.to.pool = s->base;
	for (uint32_t hook = 0; hook < PB_HOOK_TC_COUNT; hook++)
		put_all(n, "kpr_flow", hook, &flow, sizeof(flow));
}

void node_flow_none(const struct node *n)
{
	const struct pb_svc_flow flow = {.state = PB_SVC_FLOW_NONE};

	for (uint32_t hook = 0; hook < PB_HOOK_TC_COUNT; hook++)
		put_all(n, "kpr_flow", hook, &flow, sizeof(flow));
}

void node_identity(const struct node *n, const char *addr, uint32_t identity, const char *node4)
{
	struct pb_ipcache_value value = {.identity = identity, .source = PB_IP_POD};
	struct pb_ipcache_key4 key4 = {.bits = 32};
	struct pb_ipcache_key6 key6 = {.bits = 128};
	uint8_t family;
	union pb_addr a = node_addr(addr, &family);

	if (node4)
		inet_pton(AF_INET, node4, &value.node4);
	key4.addr = a.v4;
	memcpy(key6.addr, a.v6, sizeof(key6.addr));
	if (family == 4)
		put(n, "pb_ipcache4", &key4, &value);
	else
		put(n, "pb_ipcache6", &key6, &value);
}

/* ---- running and looking ---- */

int node_run(const struct node *n, uint32_t hook, const struct packet *in, struct packet *ret_out)
{
	struct packet_ctx ctx = {.ifindex = node_uplink()};
	int rc = packet_run(n->entry[hook], in, &ctx, ret_out);

	if (rc < 0) {
		printf("# test run: %s\n", strerror(-rc));
		return -1000;
	}
	return ctx.verdict;
}

struct dsr_stats node_stats(const struct node *n)
{
	int cpus = libbpf_num_possible_cpus();
	struct dsr_stats *all = calloc((size_t)cpus, sizeof(*all));
	struct dsr_stats sum = {0};
	uint32_t zero = 0;

	if (bpf_map_lookup_elem(node_map(n, "dsr_stats"), &zero, all) == 0) {
		for (size_t i = 0; i < (size_t)cpus * sizeof(sum) / 8; i++)
			((uint64_t *)&sum)[i % (sizeof(sum) / 8)] += ((uint64_t *)all)[i];
	}
	free(all);
	return sum;
}

uint64_t node_drops(const struct node *n, uint32_t hook, uint32_t reason)
{
	int cpus = libbpf_num_possible_cpus();
	uint64_t *all = calloc((size_t)cpus, sizeof(*all)), sum = 0;
	uint32_t key = hook * PB_REASON_COUNT + reason;

	if (bpf_map_lookup_elem(node_map(n, "pb_drops"), &key, all) == 0) {
		for (int i = 0; i < cpus; i++)
			sum += all[i];
	}
	free(all);
	return sum;
}

unsigned node_entries(const struct node *n)
{
	struct pb_ct_key key, next;
	unsigned count = 0;
	int fd = node_map(n, "pb_ct");

	for (int rc = bpf_map_get_next_key(fd, NULL, &next); rc == 0;
	     rc = bpf_map_get_next_key(fd, &key, &next)) {
		key = next;
		count++;
	}
	return count;
}
