/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of what is attached where: filled by attaching and adopting, checked every few
 * seconds.
 *
 * Owns the rule that a place is never detached to be attached again, and never taken back from
 * somebody who took it.
 */
#include <datapath/links_table.h>

#include <dirent.h>

#include <base/log.h>
#include <datapath/datapath.h>

#define CHECKS_A_TURN 64

struct attachment *pb_links_find(struct pb_links *links, uint32_t hook, uint32_t ifindex)
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

void pb_links_forget(struct pb_links *links, struct attachment *a)
{
	if (links->check_next == a)
		links->check_next = a->hh.next;
	HASH_DEL(links->attachments, a);
	free(a);
}

static bool any_clsact_left(struct pb_links *links, uint32_t ifindex)
{
	for (uint32_t hook = 0; hook < PB_HOOK_TC_COUNT; hook++) {
		const struct attachment *a = pb_links_find(links, hook, ifindex);

		if (a && a->place.how == PB_HOW_CLSACT)
			return true;
	}
	return false;
}

int pb_links_detach(struct pb_links *links, uint32_t hook, uint32_t ifindex, struct pb_err *err)
{
	struct attachment *a = pb_links_find(links, hook, ifindex);
	bool clsact;
	int rc;

	if (!a)
		return 0;
	rc = pb_detach(&a->place, err);
	if (rc < 0)
		return rc;
	clsact = a->place.how == PB_HOW_CLSACT;
	pb_links_forget(links, a);
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

int pb_links_attach(struct pb_links *links, uint32_t hook, uint32_t ifindex, struct pb_err *err)
{
	int prog_fd = links->env.entry_fd[hook];
	struct pb_place place = {.dir = links->dir, .hook = hook, .ifindex = ifindex};
	struct attachment *a = pb_links_find(links, hook, ifindex);
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
		rc = pb_links_detach(links, hook, ifindex, err);
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
	if (pb_links_find(links, place->hook, place->ifindex))
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

int pb_links_adopt(struct pb_links *links, struct pb_err *err)
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

void pb_links_on_timer(uv_timer_t *timer)
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
