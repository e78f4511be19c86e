/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which devices exist, and which of them carry the device hooks.
 *
 * Owns the patterns of datapath.devices and the list of devices, kept by netlink. A failure at
 * one device never keeps another from being attached.
 */
#include <datapath/links_table.h>

#include <base/log.h>
#include <datapath/datapath.h>

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

static int device_apply(struct pb_links *links, struct device *dev, struct pb_err *err)
{
	bool wanted = pb_links_match(links->patterns, links->n_patterns, dev->name);
	bool is_pod = pb_links_find(links, PB_HOOK_POD_EGRESS, dev->ifindex) != NULL;
	int first = 0;

	for (size_t i = 0; i < PB_ARRAY_LEN(dev_hooks); i++) {
		struct pb_err why = {0};
		int rc = wanted && !is_pod
				 ? pb_links_attach(links, dev_hooks[i], dev->ifindex, &why)
				 : pb_links_detach(links, dev_hooks[i], dev->ifindex, &why);

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
		if (pb_links_detach(links, hook, dev->ifindex, &err) < 0)
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

void pb_links_on_link(void *arg, const struct nlmsghdr *msg)
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
		if (pb_links_attach(links, hook, 0, &why) < 0)
			keep_first(&first, &failures, &why);
	HASH_ITER (hh, links->devices, dev, next) {
		dev->last_code = device_apply(links, dev, &why);
		if (dev->last_code < 0)
			keep_first(&first, &failures, &why);
	}
	warn_of_absent_devices(links);
	if (failures > 1)
		return pb_err_set(err, first.code, "%s (and %u more errors)", first.text, failures - 1);
	if (failures)
		return pb_err_set(err, first.code, "%s", first.text);
	return 0;
}
