/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The datapath's life: open or adopt, attach, close, clean up.
 *
 * Owns struct pb_dp and the entry programs. Opening is safe beside a running datapath: nothing
 * that forwards packets is touched until a complete chain stands beside it.
 */
#include <datapath/internal.h>
#include <datapath/bpflog.h>

#include <net/if.h>

#include <base/log.h>

#include <bpf/entry.skel.h>
#include <bpf/exit.skel.h>

#define SOCK_KIND(hook_, attach_, name_)                                                           \
	[PB_HOOK_##hook_] = {BPF_PROG_TYPE_CGROUP_SOCK_ADDR,                                       \
			     BPF_CGROUP_##attach_,                                                 \
			     "cgroup/" #name_,                                                     \
			     "pb_" #name_,                                                         \
			     "pb_exit_" #name_,                                                    \
			     "pb_gate_" #name_,                                                    \
			     0}
#define TC_KIND(hook_, name_)                                                                      \
	[PB_HOOK_##hook_] = {                                                                      \
		BPF_PROG_TYPE_SCHED_CLS, 0, "tc", "pb_" #name_, "pb_exit_tc", "pb_gate_tc",        \
		PB_HOOK_##hook_ * 2}

const struct pb_hook_kind pb_hook_kinds[PB_HOOK_COUNT] = {
	TC_KIND(POD_EGRESS, pod_egress),
	TC_KIND(POD_INGRESS, pod_ingress),
	TC_KIND(DEV_INGRESS, dev_ingress),
	TC_KIND(DEV_EGRESS, dev_egress),
	SOCK_KIND(CONNECT4, INET4_CONNECT, connect4),
	SOCK_KIND(CONNECT6, INET6_CONNECT, connect6),
	SOCK_KIND(SENDMSG4, UDP4_SENDMSG, sendmsg4),
	SOCK_KIND(SENDMSG6, UDP6_SENDMSG, sendmsg6),
	SOCK_KIND(RECVMSG4, UDP4_RECVMSG, recvmsg4),
	SOCK_KIND(RECVMSG6, UDP6_RECVMSG, recvmsg6),
	SOCK_KIND(GETPEERNAME4, INET4_GETPEERNAME, getpeername4),
	SOCK_KIND(GETPEERNAME6, INET6_GETPEERNAME, getpeername6),
	SOCK_KIND(BIND4, INET4_BIND, bind4),
	SOCK_KIND(BIND6, INET6_BIND, bind6),
	[PB_HOOK_SOCK_RELEASE] = {BPF_PROG_TYPE_CGROUP_SOCK, BPF_CGROUP_INET_SOCK_RELEASE,
				  "cgroup/sock_release", "pb_sock_release", "pb_exit_sock_release",
				  "pb_gate_sock_release", 0},
};

int pb_dp_core_fd(struct pb_dp *dp, const char *name)
{
	struct pb_reg_map *map = dp->entry ? pb_object_map(dp->entry, name) : NULL;

	return map ? map->fd : -1;
}

/* ---- opening ---- */

static int copy_config(struct pb_dp *dp, const struct pb_config *config)
{
	dp->bpffs = strdup(config->datapath.bpffs);
	dp->cgroup = config->datapath.cgroup ? strdup(config->datapath.cgroup) : NULL;
	dp->attach = config->datapath.attach;
	dp->devices = calloc(config->datapath.n_devices + 1, sizeof(*dp->devices));
	if (!dp->bpffs || !dp->devices || (config->datapath.cgroup && !dp->cgroup))
		return -ENOMEM;
	for (size_t i = 0; i < config->datapath.n_devices; i++) {
		dp->devices[i] = strdup(config->datapath.devices[i]);
		if (!dp->devices[i])
			return -ENOMEM;
		dp->n_devices++;
	}
	return 0;
}

static int open_rcu_maps(struct pb_dp *dp, struct pb_err *err)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);

	dp->rcu_inner_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "pb_rcu_inner", 4, 4, 1, NULL);
	if (dp->rcu_inner_fd < 0)
		return pb_err_set(err, dp->rcu_inner_fd,
				  "can't create a BPF map: %s; the agent needs CAP_BPF, "
				  "CAP_NET_ADMIN and CAP_PERFMON, or root",
				  strerror(-dp->rcu_inner_fd));
	opts.inner_map_fd = (uint32_t)dp->rcu_inner_fd;
	dp->rcu_outer_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "pb_rcu", 4, 4, 1, &opts);
	if (dp->rcu_outer_fd < 0)
		return pb_err_set(err, dp->rcu_outer_fd, "can't create an array of maps: %s",
				  strerror(-dp->rcu_outer_fd));
	return 0;
}

/* The core's own objects: maps first, then the entry programs in one load. */
static int open_objects(struct pb_dp *dp, struct pb_err *err)
{
	const struct pb_place place = {.chain_fd = -1};
	const char *names[PB_HOOK_COUNT];
	const void *elf;
	size_t len = 0;
	int rc;

	elf = entry_bpf__elf_bytes(&len);
	rc = pb_object_new_core(dp, "entry", elf, len, &dp->entry, err);
	if (rc == 0)
		rc = pb_dp_object_prepare(dp->entry, err);
	if (rc < 0)
		return rc;
	pb_object_commit(dp->entry);
	elf = exit_bpf__elf_bytes(&len);
	rc = pb_object_new_core(dp, "exit", elf, len, &dp->exit, err);
	if (rc == 0)
		rc = pb_dp_object_prepare(dp->exit, err);
	if (rc < 0)
		return rc;
	for (size_t hook = 0; hook < PB_HOOK_COUNT; hook++) {
		names[hook] = pb_hook_kinds[hook].entry;
		dp->gate_fd[hook] = pb_dp_core_fd(dp, pb_hook_kinds[hook].gate);
	}
	return pb_object_load(dp->entry, names, PB_HOOK_COUNT, &place, dp->entry_fd, err);
}

/* An interface may have gone while no agent ran, and its number may come again. */
static void sweep_endpoints(struct pb_dp *dp)
{
	int fd = pb_dp_core_fd(dp, "pb_endpoints");
	uint32_t key, next;
	char name[IF_NAMESIZE];
	int rc = bpf_map_get_next_key(fd, NULL, &next);

	while (rc == 0) {
		key = next;
		rc = bpf_map_get_next_key(fd, &key, &next);
		if (!if_indextoname(key, name))
			bpf_map_delete_elem(fd, &key);
	}
}

static int dp_open(struct pb_dp *dp, struct pb_err *err)
{
	int rc = pb_bpffs_make(dp->bpffs, err);

	if (rc == 0)
		rc = pb_bpffs_lock(dp->bpffs, &dp->lock_fd, err);
	if (rc == 0)
		rc = open_rcu_maps(dp, err);
	if (rc == 0)
		rc = open_objects(dp, err);
	if (rc == 0)
		rc = pb_chain_adopt(dp, err);
	if (rc == 0)
		rc = pb_chain_fill(dp, err);
	if (rc < 0)
		return rc;
	sweep_endpoints(dp);
	/* Whoever listened to drops was of the process before. */
	rc = pb_dp_observe_drops(dp, false);
	if (rc < 0)
		return pb_err_set(err, rc, "can't write pb_switches: %s", strerror(-rc));
	/* Last: a handle can't be taken back without running the loop. */
	return pb_ring_new(dp->loop, pb_dp_core_fd(dp, "pb_events"), &dp->ring, err);
}

int pb_dp_open(uv_loop_t *loop, const struct pb_config *config, struct pb_dp **ret_dp,
	       struct pb_err *err)
{
	struct pb_dp *dp = calloc(1, sizeof(*dp));
	int rc;

	if (!dp)
		return pb_err_set(err, -ENOMEM, "no memory");
	pb_bpflog_setup();
	dp->loop = loop;
	dp->lock_fd = dp->rcu_inner_fd = dp->rcu_outer_fd = -1;
	for (size_t hook = 0; hook < PB_HOOK_COUNT; hook++)
		dp->entry_fd[hook] = -1;
	uv_mutex_init(&dp->lock);
	rc = copy_config(dp, config);
	rc = rc < 0 ? pb_err_set(err, rc, "no memory") : dp_open(dp, err);
	if (rc < 0) {
		pb_dp_destroy(dp);
		return rc;
	}
	*ret_dp = dp;
	return 0;
}

/* ---- closing ---- */

static void free_devices(char **devices, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(devices[i]);
	free(devices);
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void pb_dp_destroy(struct pb_dp *dp)
{
	if (!dp)
		return;
	pb_chain_close_all(dp);
	for (size_t hook = 0; hook < PB_HOOK_COUNT; hook++)
		close_fd(dp->entry_fd[hook]);
	dp->exit = pb_dp_object_free(dp->exit);
	dp->entry = pb_dp_object_free(dp->entry);
	pb_reg_close_all(dp);
	close_fd(dp->rcu_outer_fd);
	close_fd(dp->rcu_inner_fd);
	/* The lock goes last: whoever waits for it finds everything in order. */
	close_fd(dp->lock_fd);
	uv_mutex_destroy(&dp->lock);
	free_devices(dp->devices, dp->n_devices);
	free(dp->cgroup);
	free(dp->bpffs);
	free(dp);
}

static void ring_closed(void *arg)
{
	struct pb_dp *dp = arg;
	void (*closed)(void *) = dp->closed;
	void *closed_arg = dp->closed_arg;

	pb_dp_destroy(dp);
	if (closed)
		closed(closed_arg);
}

static void links_closed(void *arg)
{
	struct pb_dp *dp = arg;

	pb_ring_close(PB_TAKE_PTR(dp->ring), ring_closed, dp);
}

void pb_dp_close(struct pb_dp *dp, void (*closed)(void *arg), void *arg)
{
	dp->closed = closed;
	dp->closed_arg = arg;
	if (dp->links)
		pb_links_close(PB_TAKE_PTR(dp->links), links_closed, dp);
	else
		links_closed(dp);
}

/* ---- attaching ---- */

static void pod_attached(void *arg, uint32_t ifindex, int result, const char *text)
{
	struct pb_dp *dp = arg;

	if (dp->pod_fn)
		dp->pod_fn(dp->pod_arg, ifindex, result, text);
}

static void pod_detached(void *arg, uint32_t ifindex)
{
	bpf_map_delete_elem(pb_dp_core_fd(arg, "pb_endpoints"), &ifindex);
}

int pb_dp_attach(struct pb_dp *dp, pb_dp_done_fn done, void *arg, struct pb_err *err)
{
	struct pb_links_env env = {.loop = dp->loop,
				   .bpffs = dp->bpffs,
				   .cgroup = dp->cgroup,
				   .mode = dp->attach,
				   .pod_attached = pod_attached,
				   .pod_detached = pod_detached,
				   .arg = dp};
	int rc;

	memcpy(env.entry_fd, dp->entry_fd, sizeof(env.entry_fd));
	rc = pb_links_new(&env, &dp->links, err);
	return rc < 0 ? rc
		      : pb_links_devices(dp->links, dp->devices, dp->n_devices, done, arg, err);
}

static int pin_again(int fd, const char *path, struct pb_err *err)
{
	int rc;

	if (fd < 0 || !path || access(path, F_OK) == 0)
		return 0;
	rc = bpf_obj_pin(fd, path);
	return rc < 0 ? pb_err_set(err, rc, "can't pin %s again: %s", path, strerror(-rc)) : 0;
}

/*
 * Somebody may have removed directories and pins. What is attached must lead to gates and chains
 * that are pinned: others would be empty, and drop everything, when this process ends.
 */
static int restore_pins(struct pb_dp *dp, struct pb_err *err)
{
	int rc = pb_bpffs_make(dp->bpffs, err);

	uv_mutex_lock(&dp->lock);
	for (struct pb_reg_map *map = dp->maps; rc == 0 && map; map = map->next) {
		PB_FREE char *dir =
			map->pin && !map->fresh && !map->outgrown ? strdup(map->pin) : NULL;

		if (!dir)
			continue;
		*strrchr(dir, '/') = '\0';
		rc = pb_dir_make(dir, 0700, err);
		if (rc == 0)
			rc = pin_again(map->fd, map->pin, err);
	}
	for (size_t hook = 0; rc == 0 && hook < PB_HOOK_COUNT; hook++)
		if (dp->live[hook])
			rc = pin_again(dp->live[hook]->array_fd, dp->live[hook]->pin, err);
	uv_mutex_unlock(&dp->lock);
	return rc;
}

int pb_dp_reconfigure(struct pb_dp *dp, const struct pb_config *config, struct pb_err *err)
{
	char **devices = calloc(config->datapath.n_devices + 1, sizeof(*devices));
	int rc = devices ? 0 : pb_err_set(err, -ENOMEM, "no memory");
	size_t n = 0;

	if (rc == 0)
		rc = restore_pins(dp, err);
	for (; rc == 0 && n < config->datapath.n_devices; n++) {
		devices[n] = strdup(config->datapath.devices[n]);
		if (!devices[n])
			rc = pb_err_set(err, -ENOMEM, "no memory");
	}
	if (rc == 0 && dp->links)
		rc = pb_links_devices(dp->links, devices, n, NULL, NULL, err);
	if (rc < 0) {
		free_devices(devices, n);
		return rc;
	}
	free_devices(dp->devices, dp->n_devices);
	dp->devices = devices;
	dp->n_devices = n;
	return 0;
}

int pb_dp_pod_add(struct pb_dp *dp, uint32_t ifindex, const struct pb_endpoint *ep,
		  struct pb_err *err)
{
	/* The record first: a packet must not find the hook without it. */
	int rc = bpf_map_update_elem(pb_dp_core_fd(dp, "pb_endpoints"), &ifindex, ep, BPF_ANY);

	if (rc < 0)
		return pb_err_set(err, rc, "interface %u: can't write its endpoint record: %s",
				  ifindex, strerror(-rc));
	return dp->links ? pb_links_pod_add(dp->links, ifindex, err) : 1;
}

int pb_dp_pod_remove(struct pb_dp *dp, uint32_t ifindex)
{
	/* The record last, for the same reason. */
	if (dp->links && pb_links_pod_remove(dp->links, ifindex))
		return 0;
	return bpf_map_delete_elem(pb_dp_core_fd(dp, "pb_endpoints"), &ifindex);
}

int pb_dp_pod_get(struct pb_dp *dp, uint32_t ifindex, struct pb_endpoint *ret_ep)
{
	return bpf_map_lookup_elem(pb_dp_core_fd(dp, "pb_endpoints"), &ifindex, ret_ep);
}

void pb_dp_pod_listen(struct pb_dp *dp, pb_dp_pod_fn fn, void *arg)
{
	dp->pod_fn = fn;
	dp->pod_arg = arg;
}

size_t pb_dp_pods(struct pb_dp *dp, uint32_t *ret_ifindexes, size_t max)
{
	return dp->links ? pb_links_pods(dp->links, ret_ifindexes, max) : 0;
}

int pb_dp_cleanup(const struct pb_config *config, struct pb_err *err)
{
	const char *dir = config->datapath.bpffs;
	PB_CLOSE int lock_fd = -1;
	int rc = 0;

	if (access(dir, F_OK) == 0)
		rc = pb_bpffs_lock(dir, &lock_fd, err);
	if (rc == 0)
		rc = pb_links_cleanup(config, err);
	return rc < 0 ? rc : pb_bpffs_remove(dir, err);
}

/* ---- events ---- */

void pb_dp_events(struct pb_dp *dp, pb_dp_event_fn fn, void *arg)
{
	pb_ring_listen(dp->ring, fn, arg);
}

int pb_dp_observe_drops(struct pb_dp *dp, bool on)
{
	/* struct pb_switches of bpf/include/pb_core.h, which only BPF sources can include. */
	const uint32_t zero = 0, observe_drops = on;

	return bpf_map_update_elem(pb_dp_core_fd(dp, "pb_switches"), &zero, &observe_drops,
				   BPF_ANY);
}
