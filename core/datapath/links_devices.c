/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which devices exist, and which of them carry the device hooks.
 *
 * Owns the patterns of datapath.devices and the list of devices, kept by netlink. Only wishes are
 * changed here; a failure at one device never keeps another from being attached.
 */
#include <datapath/links_table.h>

#include <base/log.h>

static const uint32_t dev_hooks[] = {PB_HOOK_DEV_INGRESS, PB_HOOK_DEV_EGRESS};

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

/* Wishes only: the pump makes them come true. */
static void device_apply(struct pb_links *links, struct device *dev)
{
	bool wanted = pb_links_match(links->patterns, links->n_patterns, dev->name) &&
		      !pb_links_wanted(links, PB_HOOK_POD_EGRESS, dev->ifindex);
	struct pb_err err = {0};

	if (!links->configured || dev->gone)
		return;
	for (size_t i = 0; i < PB_ARRAY_LEN(dev_hooks); i++) {
		if (!wanted)
			pb_links_unwant(links, dev_hooks[i], dev->ifindex);
		else if (pb_links_want(links, dev_hooks[i], dev->ifindex, &err) < 0)
			pb_links_report(links, &dev->last_code, err.code, &err);
	}
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
	dev->gone = false;
	return dev;
}

static void device_forget(struct pb_links *links, struct device *dev)
{
	HASH_DEL(links->devices, dev);
	free(dev);
}

/* Our pins are left to remove; the kernel has let go of the rest. */
static void device_gone(struct pb_links *links, struct device *dev)
{
	for (uint32_t hook = 0; hook < PB_HOOK_TC_COUNT; hook++) {
		struct attachment *a = pb_links_find(links, hook, dev->ifindex);

		if (a)
			a->stale = true;
		pb_links_unwant(links, hook, dev->ifindex);
	}
	dev->gone = dev->seen = true;
	if (!links->scanning)
		device_forget(links, dev);
}

/* ---- the list of all devices: at start, and when the kernel dropped messages ---- */

void pb_links_scan_begin(struct pb_links *links)
{
	struct device *dev, *next;

	links->scan = false;
	links->scanning = true;
	HASH_ITER (hh, links->devices, dev, next)
		dev->seen = false;
}

static void warn_of_absent_devices(struct pb_links *links)
{
	links->warn_absent = false;
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

static void scan_merge(struct pb_links *links, const struct pb_links_job *job)
{
	struct device *dev, *next;

	for (size_t i = 0; i < job->n_found; i++) {
		const struct pb_nl_link *link = &job->found[i];

		HASH_FIND(hh, links->devices, &link->ifindex, sizeof(link->ifindex), dev);
		if (!dev || !dev->seen)
			device_put(links, link);
	}
	HASH_ITER (hh, links->devices, dev, next) {
		if (!dev->seen)
			device_gone(links, dev);
		else if (dev->gone)
			device_forget(links, dev);
		else
			device_apply(links, dev);
	}
}

void pb_links_scanned(struct pb_links_job *job)
{
	struct pb_links *links = job->links;
	struct device *dev, *next;
	int last_code = 0;

	links->scanning = false;
	pb_links_report(links, &last_code, job->code, &job->why);
	if (job->code == 0) {
		scan_merge(links, job);
	} else {
		HASH_ITER (hh, links->devices, dev, next) {
			if (dev->gone)
				device_forget(links, dev);
		}
	}
	if (links->warn_absent && job->code == 0)
		warn_of_absent_devices(links);
}

/* ---- events ---- */

static void link_event(struct pb_links *links, const struct nlmsghdr *msg)
{
	struct pb_nl_link link;
	struct device *dev;

	if (!pb_nl_link_parse(msg, &link))
		return;
	if (msg->nlmsg_type != RTM_DELLINK) {
		dev = device_put(links, &link);
		if (dev)
			device_apply(links, dev);
		return;
	}
	HASH_FIND(hh, links->devices, &link.ifindex, sizeof(link.ifindex), dev);
	/* The scan under way may list it still. */
	if (!dev && links->scanning)
		dev = device_put(links, &link);
	if (dev)
		device_gone(links, dev);
}

void pb_links_on_link(void *arg, const struct nlmsghdr *msg)
{
	struct pb_links *links = arg;

	if (msg)
		link_event(links, msg);
	else
		links->scan = true;
	pb_links_pump(links);
}

void pb_links_patterns_free(struct pb_links *links)
{
	for (size_t i = 0; i < links->n_patterns; i++)
		free(links->patterns[i]);
	free(links->patterns);
	links->patterns = NULL;
	links->n_patterns = 0;
}

static int patterns_set(struct pb_links *links, char *const *patterns, size_t n, struct pb_err *err)
{
	pb_links_patterns_free(links);
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

int pb_links_devices(struct pb_links *links, char *const *patterns, size_t n, pb_links_done_fn done,
		     void *arg, struct pb_err *err)
{
	struct device *dev, *next;
	int rc;

	if (done && links->settled)
		return pb_err_set(err, -EBUSY, "datapath.devices: still being applied");
	rc = patterns_set(links, patterns, n, err);
	for (uint32_t hook = PB_HOOK_TC_COUNT; links->cgroup && hook < PB_HOOK_COUNT; hook++)
		if (rc == 0)
			rc = pb_links_want(links, hook, 0, err);
	if (rc < 0)
		return rc;
	/* What failed before is worth a line again. */
	links->cgroup_code = 0;
	HASH_ITER (hh, links->devices, dev, next)
		dev->last_code = 0;
	links->configured = links->warn_absent = links->scan = true;
	if (done) {
		links->settled = done;
		links->settled_arg = arg;
		links->failures = 0;
		links->first = (struct pb_err){0};
	}
	/* First of all: what somebody detached is attached again. */
	pb_links_check(links);
	return 0;
}
