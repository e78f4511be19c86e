/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of the links, pods, reports and the final cleanup.
 *
 * links_table.c and links_devices.c keep what is wanted, links_jobs.c brings the kernel along,
 * which attach.c and clsact.c talk to.
 */
#include <datapath/links.h>

#include <dirent.h>

#include <base/log.h>
#include <datapath/datapath.h>
#include <datapath/links_table.h>

#define CHECK_INTERVAL_MS 5000
#define CHECKS_A_TURN 64

static const uint32_t pod_hooks[] = {PB_HOOK_POD_EGRESS, PB_HOOK_POD_INGRESS};

int pb_links_pod_add(struct pb_links *links, uint32_t ifindex, struct pb_err *err)
{
	bool on = true;

	if (pb_links_wanted(links, PB_HOOK_DEV_INGRESS, ifindex) ||
	    pb_links_wanted(links, PB_HOOK_DEV_EGRESS, ifindex))
		return pb_err_set(err, -EBUSY,
				  "device number %u: a pod's interface, but datapath.devices names "
				  "it too; take it out of datapath.devices",
				  ifindex);
	for (size_t i = 0; i < PB_ARRAY_LEN(pod_hooks); i++) {
		const struct attachment *a;
		int rc = pb_links_want(links, pod_hooks[i], ifindex, err);

		if (rc < 0)
			return rc;
		a = pb_links_find(links, pod_hooks[i], ifindex);
		on &= !a || (!pb_links_due(a) && !a->attaching && !a->detaching);
	}
	pb_links_pump(links);
	return on;
}

int pb_links_pod_remove(struct pb_links *links, uint32_t ifindex)
{
	bool any = false;

	for (size_t i = 0; i < PB_ARRAY_LEN(pod_hooks); i++) {
		pb_links_unwant(links, pod_hooks[i], ifindex);
		any |= pb_links_find(links, pod_hooks[i], ifindex) != NULL;
	}
	pb_links_pump(links);
	return any;
}

size_t pb_links_pods(struct pb_links *links, uint32_t *ret_ifindexes, size_t max)
{
	struct attachment *a, *next;
	size_t n = 0;

	HASH_ITER (hh, links->attachments, a, next) {
		bool egress = a->key.hook == PB_HOOK_POD_EGRESS;

		/* Half an attachment, as a crash may leave it, counts too, but once. */
		if (!a->wanted ||
		    (!egress && (a->key.hook != PB_HOOK_POD_INGRESS ||
				 pb_links_wanted(links, PB_HOOK_POD_EGRESS, a->key.ifindex))))
			continue;
		if (n < max)
			ret_ifindexes[n] = a->key.ifindex;
		n++;
	}
	return n;
}

/* ---- life ---- */

static void links_free(struct pb_links *links)
{
	struct attachment *a, *a_next;
	struct device *dev, *dev_next;

	HASH_ITER (hh, links->attachments, a, a_next)
		pb_links_forget(links, a);
	HASH_ITER (hh, links->devices, dev, dev_next) {
		HASH_DEL(links->devices, dev);
		free(dev);
	}
	pb_links_patterns_free(links);
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

static void on_timer(uv_timer_t *timer)
{
	struct pb_links *links = timer->data;
	size_t n = HASH_COUNT(links->attachments);

	if (links->checks == 0)
		links->checks = n < CHECKS_A_TURN ? n : CHECKS_A_TURN;
	pb_links_pump(links);
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
	/* Last: from here on only the loop may free what it knows. */
	if (rc == 0)
		rc = pb_nl_monitor_new(env->loop, RTMGRP_LINK, pb_links_on_link, links,
				       &links->monitor, err);
	if (rc < 0)
		return rc;
	uv_timer_init(env->loop, &links->timer);
	links->timer.data = links;
	uv_timer_start(&links->timer, on_timer, CHECK_INTERVAL_MS, CHECK_INTERVAL_MS);
	pb_links_pump(links);
	*ret_links = PB_TAKE_PTR(links);
	return 0;
}

void pb_links_finish(struct pb_links *links)
{
	void (*closed)(void *) = links->closed;
	void *closed_arg = links->closed_arg;

	if (links->job || !links->handles_closed)
		return;
	links_free(links);
	if (closed)
		closed(closed_arg);
}

static void monitor_closed(void *arg)
{
	struct pb_links *links = arg;

	links->handles_closed = true;
	pb_links_finish(links);
}

static void timer_closed(uv_handle_t *handle)
{
	struct pb_links *links = handle->data;

	pb_nl_monitor_close(links->monitor, monitor_closed, links);
}

void pb_links_close(struct pb_links *links, void (*closed)(void *arg), void *arg)
{
	links->closing = true;
	links->closed = closed;
	links->closed_arg = arg;
	uv_close((uv_handle_t *)&links->timer, timer_closed);
}

/* ---- reports and the end ---- */

static const char *state_name(const struct attachment *a)
{
	if (a->attaching || a->detaching)
		return a->attaching != a->wanted ? "reversing"
		       : a->attaching		 ? "attaching"
						 : "detaching";
	if (a->code < 0)
		return "failed";
	if (pb_links_due(a))
		return a->wanted ? "attaching" : "detaching";
	return a->state == 0 ? "ok" : a->state == -EBUSY ? "replaced" : "detached";
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
		cJSON_AddStringToObject(item, "how", a->place.how ? pb_how_name(a->place.how) : "");
		cJSON_AddBoolToObject(item, "adopted", a->adopted);
		cJSON_AddStringToObject(item, "state", state_name(a));
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
