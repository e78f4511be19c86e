/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of what is attached where, and how it follows configuration and devices.
 *
 * Owns the decisions; attach.c and clsact.c do the kernel's part. Nothing here may detach a
 * place to attach it again, or take back a place that somebody else took.
 */
#include <datapath/links.h>

#include <dirent.h>
#include <uthash.h>

#include <base/log.h>
#include <datapath/attach.h>
#include <datapath/datapath.h>
#include <datapath/netlink.h>

#define CHECK_INTERVAL_MS 5000
#define CHECKS_A_TURN 64

struct key {
	uint32_t hook;
	uint32_t ifindex;
};

struct attachment {
	struct key key;
	struct pb_place place;
	uint32_t prog_id;
	bool adopted;
	int state; /* 0, -EBUSY: replaced, -ENOENT: detached, by somebody else */
	UT_hash_handle hh;
};

struct device {
	uint32_t ifindex;
	char name[IF_NAMESIZE];
	bool seen;     /* during a rescan */
	int last_code; /* of the last failure to attach, so that it is logged once */
	UT_hash_handle hh;
};

struct pb_links {
	struct pb_links_env env;
	char *dir;
	char *cgroup;
	char **patterns;
	size_t n_patterns;
	bool configured;
	bool probed;
	bool tcx;
	struct attachment *attachments;
	struct attachment *check_next;
	struct device *devices;
	struct mnl_socket *nl;
	struct pb_nl_monitor *monitor;
	uv_timer_t timer;
	void (*closed)(void *arg);
	void *closed_arg;
};

static const uint32_t dev_hooks[] = {PB_HOOK_DEV_INGRESS, PB_HOOK_DEV_EGRESS};
static const uint32_t pod_hooks[] = {PB_HOOK_POD_EGRESS, PB_HOOK_POD_INGRESS};

bool pb_links_match(char *const *patterns, size_t n, const char *device)
{
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(patterns[i]);

		if (len && patterns[i][len - 1] == '+') {
			if (strncmp(patterns[i], device, len - 1) == 0)
				return true;
		} else if (strcmp(patterns[i], device) == 0) {
			return true;
		}
	}
	return false;
}

/* ---- the table ---- */

static struct attachment *find(struct pb_links *links, uint32_t hook, uint32_t ifindex)
{
	struct key key = {hook, ifindex};
	struct attachment *a;

	HASH_FIND(hh, links->attachments, &key, sizeof(key), a);
	return a;
}

static int remember(struct pb_links *links, const struct pb_place *place, bool adopted,
		    struct pb_err *err)
{
	struct attachment *a = calloc(1, sizeof(*a));

	if (!a)
		return pb_err_set(err, -ENOMEM, "out of memory");
	a->key = (struct key){place->hook, place->ifindex};
	a->place = *place;
	a->prog_id = pb_prog_id(links->env.entry_fd[place->hook]);
	a->adopted = adopted;
	HASH_ADD(hh, links->attachments, key, sizeof(a->key), a);
	return 0;
}

static void forget(struct pb_links *links, struct attachment *a)
{
	if (links->check_next == a)
		links->check_next = a->hh.next;
	HASH_DEL(links->attachments, a);
	free(a);
}

static bool any_clsact_left(struct pb_links *links, uint32_t ifindex)
{
	for (uint32_t hook = 0; hook < PB_HOOK_TC_COUNT; hook++) {
		const struct attachment *a = find(links, hook, ifindex);

		if (a && a->place.how == PB_HOW_CLSACT)
			return true;
	}
	return false;
}

static int detach(struct pb_links *links, uint32_t hook, uint32_t ifindex, struct pb_err *err)
{
	struct attachment *a = find(links, hook, ifindex);
	bool clsact;
	int rc;

	if (!a)
		return 0;
	rc = pb_detach(&a->place, err);
	if (rc < 0)
		return rc;
	clsact = a->place.how == PB_HOW_CLSACT;
	forget(links, a);
	if (clsact && !any_clsact_left(links, ifindex))
		pb_clsact_release(links->dir, ifindex);
	return 0;
}

static bool use_tcx(struct pb_links *links, int prog_fd)
{
	if (links->env.mode != PB_ATTACH_AUTO)
		return links->env.mode == PB_ATTACH_TCX;
	if (!links->probed) {
		links->tcx = pb_tcx_supported(prog_fd);
		links->probed = true;
		pb_info("datapath", "attaching to devices by %s", links->tcx ? "TCX" : "clsact");
	}
	return links->tcx;
}

/* What somebody replaced stays theirs; what somebody detached is attached again. */
static int attach(struct pb_links *links, uint32_t hook, uint32_t ifindex, struct pb_err *err)
{
	int prog_fd = links->env.entry_fd[hook];
	struct pb_place place = {.dir = links->dir, .hook = hook, .ifindex = ifindex};
	struct attachment *a = find(links, hook, ifindex);
	int rc;

	if (prog_fd < 0 || (a && a->state != -ENOENT))
		return 0;
	if (hook >= PB_HOOK_TC_COUNT)
		place.how = PB_HOW_CGROUP;
	else if (a)
		place.how = a->place.how;
	else
		place.how = use_tcx(links, prog_fd) ? PB_HOW_TCX : PB_HOW_CLSACT;
	if (a) {
		rc = detach(links, hook, ifindex, err);
		if (rc < 0)
			return rc;
	}
	rc = pb_attach(&place, links->cgroup, prog_fd, err);
	return rc < 0 ? rc : remember(links, &place, false, err);
}

/* ---- adoption ---- */

static int adopt(struct pb_links *links, const struct pb_place *place, struct pb_err *err)
{
	int prog_fd = links->env.entry_fd[place->hook];
	struct pb_err why = {0};
	int rc;

	/* A clsact place has up to two pins. */
	if (find(links, place->hook, place->ifindex))
		return 0;
	if (place->how == PB_HOW_CGROUP && !pb_attach_is_on_cgroup(place, links->cgroup))
		return pb_detach(place, err);
	if (prog_fd < 0)
		return pb_detach(place, err);
	rc = pb_attach(place, links->cgroup, prog_fd, &why);
	if (rc == -ENOLINK || rc == -ENODEV) {
		rc = pb_detach(place, err);
		pb_clsact_release(links->dir, place->ifindex);
		return rc;
	}
	if (rc < 0)
		return pb_err_set(err, rc, "%s", why.text);
	return remember(links, place, true, err);
}

static int adopt_all(struct pb_links *links, struct pb_err *err)
{
	DIR *dir = opendir(links->dir);
	const struct dirent *entry;
	int first = 0;

	if (!dir)
		return pb_err_set(err, -errno, "%s: %s", links->dir, strerror(errno));
	while ((entry = readdir(dir))) {
		struct pb_place place;
		struct pb_err why = {0};
		int rc = 0;

		if (pb_place_parse(entry->d_name, links->dir, &place))
			rc = adopt(links, &place, &why);
		if (rc < 0 && first == 0)
			first = pb_err_set(err, rc, "%s", why.text);
	}
	closedir(dir);
	return first;
}

/* ---- devices ---- */

static int device_apply(struct pb_links *links, struct device *dev, struct pb_err *err)
{
	bool wanted = pb_links_match(links->patterns, links->n_patterns, dev->name);
	bool is_pod = find(links, PB_HOOK_POD_EGRESS, dev->ifindex) != NULL;
	int first = 0;

	for (size_t i = 0; i < PB_ARRAY_LEN(dev_hooks); i++) {
		struct pb_err why = {0};
		int rc = wanted && !is_pod ? attach(links, dev_hooks[i], dev->ifindex, &why)
					   : detach(links, dev_hooks[i], dev->ifindex, &why);

		if (rc < 0 && first == 0)
			first = pb_err_set(err, rc, "%s", why.text);
	}
	return first;
}

static struct device *device_put(struct pb_links *links, const struct pb_nl_link *link)
{
	struct device *dev;

	HASH_FIND(hh, links->devices, &link->ifindex, sizeof(link->ifindex), dev);
	if (!dev) {
		dev = calloc(1, sizeof(*dev));
		if (!dev)
			return NULL;
		dev->ifindex = link->ifindex;
		HASH_ADD(hh, links->devices, ifindex, sizeof(dev->ifindex), dev);
	}
	snprintf(dev->name, sizeof(dev->name), "%s", link->name);
	dev->seen = true;
	return dev;
}

static void device_gone(struct pb_links *links, struct device *dev)
{
	struct pb_err err = {0};

	for (uint32_t hook = 0; hook < PB_HOOK_TC_COUNT; hook++)
		if (detach(links, hook, dev->ifindex, &err) < 0)
			pb_warn("datapath", "%s", err.text);
	HASH_DEL(links->devices, dev);
	free(dev);
}

static void device_seen(void *arg, const struct pb_nl_link *link)
{
	device_put(arg, link);
}

/* Brings the list of devices up to date from a full dump. */
static int rescan(struct pb_links *links, struct pb_err *err)
{
	struct device *dev, *next;
	int rc;

	HASH_ITER (hh, links->devices, dev, next)
		dev->seen = false;
	rc = pb_nl_link_dump(links->nl, device_seen, links, err);
	if (rc < 0)
		return rc;
	HASH_ITER (hh, links->devices, dev, next) {
		if (!dev->seen)
			device_gone(links, dev);
	}
	return 0;
}

/* On the loop: nobody else could act on the failure, so it is reported here. */
static void device_follow(struct pb_links *links, struct device *dev)
{
	struct pb_err err = {0};
	int rc = links->configured ? device_apply(links, dev, &err) : 0;

	/* The device was gone before its message was read; the next message says so. */
	if (rc == -ENODEV || rc == -ENOLINK)
		return;
	if (rc < 0 && rc != dev->last_code)
		pb_error("datapath", "%s", err.text);
	dev->last_code = rc;
}

static void on_link(void *arg, const struct nlmsghdr *msg)
{
	struct pb_links *links = arg;
	struct device *dev, *next;
	struct pb_nl_link link;
	struct pb_err err = {0};

	if (!msg) {
		if (rescan(links, &err) < 0)
			pb_error("datapath", "%s", err.text);
		HASH_ITER (hh, links->devices, dev, next)
			device_follow(links, dev);
		return;
	}
	if (!pb_nl_link_parse(msg, &link))
		return;
	if (msg->nlmsg_type == RTM_DELLINK) {
		HASH_FIND(hh, links->devices, &link.ifindex, sizeof(link.ifindex), dev);
		if (dev)
			device_gone(links, dev);
		return;
	}
	dev = device_put(links, &link);
	if (dev)
		device_follow(links, dev);
}

static void patterns_free(struct pb_links *links)
{
	for (size_t i = 0; i < links->n_patterns; i++)
		free(links->patterns[i]);
	free(links->patterns);
	links->patterns = NULL;
	links->n_patterns = 0;
}

static int patterns_set(struct pb_links *links, char *const *patterns, size_t n, struct pb_err *err)
{
	patterns_free(links);
	links->patterns = calloc(n + 1, sizeof(*links->patterns));
	if (!links->patterns)
		return pb_err_set(err, -ENOMEM, "out of memory");
	for (; links->n_patterns < n; links->n_patterns++) {
		links->patterns[links->n_patterns] = strdup(patterns[links->n_patterns]);
		if (!links->patterns[links->n_patterns])
			return pb_err_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

static void warn_of_absent_devices(struct pb_links *links)
{
	for (size_t i = 0; i < links->n_patterns; i++) {
		struct device *dev, *next;
		bool found = false;

		HASH_ITER (hh, links->devices, dev, next)
			found |= pb_links_match(&links->patterns[i], 1, dev->name);
		if (!found)
			pb_warn("datapath",
				"datapath.devices: no device %s now; it is attached when it "
				"appears",
				links->patterns[i]);
	}
}

static void keep_first(struct pb_err *first, unsigned *failures, const struct pb_err *why)
{
	if ((*failures)++ == 0)
		*first = *why;
}

int pb_links_devices(struct pb_links *links, char *const *patterns, size_t n, struct pb_err *err)
{
	struct pb_err first = {0}, why = {0};
	struct device *dev, *next;
	unsigned failures = 0;
	int rc;

	pb_links_check(links);
	rc = patterns_set(links, patterns, n, err);
	if (rc == 0)
		rc = rescan(links, err);
	if (rc < 0)
		return rc;
	links->configured = true;
	for (uint32_t hook = PB_HOOK_TC_COUNT; links->cgroup && hook < PB_HOOK_COUNT; hook++)
		if (attach(links, hook, 0, &why) < 0)
			keep_first(&first, &failures, &why);
	HASH_ITER (hh, links->devices, dev, next) {
		dev->last_code = device_apply(links, dev, &why);
		if (dev->last_code < 0)
			keep_first(&first, &failures, &why);
	}
	warn_of_absent_devices(links);
	if (failures > 1)
		return pb_err_set(err, first.code, "%s (and %u more)", first.text, failures - 1);
	if (failures)
		return pb_err_set(err, first.code, "%s", first.text);
	return 0;
}

int pb_links_pod_add(struct pb_links *links, uint32_t ifindex, struct pb_err *err)
{
	if (find(links, PB_HOOK_DEV_INGRESS, ifindex) || find(links, PB_HOOK_DEV_EGRESS, ifindex))
		return pb_err_set(err, -EBUSY,
				  "device number %u: a pod's interface, but datapath.devices names "
				  "it too; take it out of datapath.devices",
				  ifindex);
	for (size_t i = 0; i < PB_ARRAY_LEN(pod_hooks); i++) {
		int rc = attach(links, pod_hooks[i], ifindex, err);

		if (rc < 0)
			return rc;
	}
	return 0;
}

int pb_links_pod_remove(struct pb_links *links, uint32_t ifindex)
{
	int first = 0;

	for (size_t i = 0; i < PB_ARRAY_LEN(pod_hooks); i++) {
		int rc = detach(links, pod_hooks[i], ifindex, NULL);

		first = first ? first : rc;
	}
	return first;
}

/* ---- is it still ours? ---- */

static bool check_one(struct attachment *a)
{
	int state = pb_attach_check(&a->place, a->prog_id);
	char where[96];

	if (state == a->state)
		return state == 0;
	a->state = state;
	pb_place_str(&a->place, where, sizeof(where));
	if (state == -EBUSY)
		pb_error("datapath",
			 "%s: another process replaced the agent's entry program; is a second "
			 "agent running? This one doesn't take it back: stop the other, then "
			 "restart this one",
			 where);
	else if (state < 0)
		pb_error("datapath",
			 "%s: another process detached the agent's entry program; SIGHUP or a "
			 "restart attaches it again",
			 where);
	return state == 0;
}

unsigned pb_links_check(struct pb_links *links)
{
	struct attachment *a, *next;
	unsigned bad = 0;

	HASH_ITER (hh, links->attachments, a, next)
		bad += !check_one(a);
	return bad;
}

static void on_timer(uv_timer_t *timer)
{
	struct pb_links *links = timer->data;

	for (int i = 0; i < CHECKS_A_TURN; i++) {
		struct attachment *a = links->check_next;

		if (!a)
			a = links->attachments;
		if (!a)
			return;
		check_one(a);
		links->check_next = a->hh.next;
		if (!links->check_next)
			return;
	}
}

/* ---- life ---- */

static void links_free(struct pb_links *links)
{
	struct attachment *a, *a_next;
	struct device *dev, *dev_next;

	HASH_ITER (hh, links->attachments, a, a_next)
		forget(links, a);
	HASH_ITER (hh, links->devices, dev, dev_next) {
		HASH_DEL(links->devices, dev);
		free(dev);
	}
	patterns_free(links);
	pb_cleanup_nl(&links->nl);
	free(links->dir);
	free(links->cgroup);
	free(links);
}

static void cleanup_links(struct pb_links **links)
{
	if (*links)
		links_free(*links);
}

int pb_links_new(const struct pb_links_env *env, struct pb_links **ret_links, struct pb_err *err)
{
	__attribute__((cleanup(cleanup_links))) struct pb_links *links = calloc(1, sizeof(*links));
	int rc;

	if (!links)
		return pb_err_set(err, -ENOMEM, "out of memory");
	links->env = *env;
	links->dir = pb_sprintf("%s/links", env->bpffs);
	links->cgroup = env->cgroup ? strdup(env->cgroup) : NULL;
	if (!links->dir || (env->cgroup && !links->cgroup))
		return pb_err_set(err, -ENOMEM, "out of memory");
	rc = pb_dir_make(links->dir, 0700, err);
	if (rc == 0)
		rc = pb_nl_open(&links->nl, err);
	if (rc == 0)
		rc = adopt_all(links, err);
	/* Last: from here on only the loop may free what it knows. */
	if (rc == 0)
		rc = pb_nl_monitor_new(env->loop, RTMGRP_LINK, on_link, links, &links->monitor,
				       err);
	if (rc < 0)
		return rc;
	uv_timer_init(env->loop, &links->timer);
	links->timer.data = links;
	uv_timer_start(&links->timer, on_timer, CHECK_INTERVAL_MS, CHECK_INTERVAL_MS);
	*ret_links = PB_TAKE_PTR(links);
	return 0;
}

static void monitor_closed(void *arg)
{
	struct pb_links *links = arg;
	void (*closed)(void *) = links->closed;
	void *closed_arg = links->closed_arg;

	links_free(links);
	if (closed)
		closed(closed_arg);
}

static void timer_closed(uv_handle_t *handle)
{
	struct pb_links *links = handle->data;

	pb_nl_monitor_close(links->monitor, monitor_closed, links);
}

void pb_links_close(struct pb_links *links, void (*closed)(void *arg), void *arg)
{
	links->closed = closed;
	links->closed_arg = arg;
	uv_close((uv_handle_t *)&links->timer, timer_closed);
}

/* ---- reports and the end ---- */

static const char *state_name(int state)
{
	return state == 0 ? "ok" : state == -EBUSY ? "replaced" : "detached";
}

cJSON *pb_links_json(struct pb_links *links)
{
	cJSON *items = cJSON_CreateArray();
	struct attachment *a, *next;

	HASH_ITER (hh, links->attachments, a, next) {
		cJSON *item = cJSON_CreateObject();
		struct device *dev;

		HASH_FIND(hh, links->devices, &a->key.ifindex, sizeof(a->key.ifindex), dev);
		cJSON_AddStringToObject(item, "hook", pb_hook_name(a->key.hook));
		cJSON_AddStringToObject(item, "device", dev ? dev->name : "");
		cJSON_AddNumberToObject(item, "ifindex", a->key.ifindex);
		cJSON_AddStringToObject(item, "how", pb_how_name(a->place.how));
		cJSON_AddBoolToObject(item, "adopted", a->adopted);
		cJSON_AddStringToObject(item, "state", state_name(a->state));
		cJSON_AddItemToArray(items, item);
	}
	return items;
}

static int cleanup_pass(const char *path, bool marks, struct pb_err *err)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;
	int first = 0;

	if (!dir)
		return errno == ENOENT ? 0
				       : pb_err_set(err, -errno, "%s: %s", path, strerror(errno));
	while ((entry = readdir(dir))) {
		struct pb_place place;
		int rc = 0;

		if (marks && strncmp(entry->d_name, "qdisc_", 6) == 0)
			pb_clsact_release(path, (uint32_t)strtoul(entry->d_name + 6, NULL, 10));
		else if (!marks && pb_place_parse(entry->d_name, path, &place))
			rc = pb_detach(&place, first ? NULL : err);
		first = first ? first : rc;
	}
	closedir(dir);
	return first;
}

int pb_links_cleanup(const struct pb_config *config, struct pb_err *err)
{
	PB_FREE char *path = pb_sprintf("%s/links", config->datapath.bpffs);
	int rc;

	if (!path)
		return pb_err_set(err, -ENOMEM, "out of memory");
	rc = cleanup_pass(path, false, err);
	if (rc == 0)
		rc = cleanup_pass(path, true, err);
	if (rc == 0 && rmdir(path) < 0 && errno != ENOENT)
		rc = pb_err_set(err, -errno, "%s: %s; something in it isn't Patchbay's", path,
				strerror(errno));
	return rc;
}
