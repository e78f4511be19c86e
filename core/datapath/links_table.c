/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of what is wanted and what is attached where.
 *
 * Owns the rule that a place is never detached to be attached again, and never taken back from
 * somebody who took it.
 */
#include <datapath/links_table.h>

#include <base/log.h>

struct attachment *pb_links_find(struct pb_links *links, uint32_t hook, uint32_t ifindex)
{
	struct key key = {hook, ifindex};
	struct attachment *a;

	HASH_FIND(hh, links->attachments, &key, sizeof(key), a);
	return a;
}

bool pb_links_wanted(struct pb_links *links, uint32_t hook, uint32_t ifindex)
{
	const struct attachment *a = pb_links_find(links, hook, ifindex);

	return a && a->wanted;
}

static struct attachment *row_add(struct pb_links *links, const struct pb_place *place)
{
	struct attachment *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->key = (struct key){place->hook, place->ifindex};
	a->place = *place;
	a->wanted = true;
	HASH_ADD(hh, links->attachments, key, sizeof(a->key), a);
	return a;
}

void pb_links_forget(struct pb_links *links, struct attachment *a)
{
	if (links->check_next == a)
		links->check_next = a->hh.next;
	HASH_DEL(links->attachments, a);
	free(a);
}

/* ---- wishes ---- */

bool pb_links_due(const struct attachment *a)
{
	if (a->attaching || a->detaching || a->code < 0)
		return false;
	return a->wanted ? !a->attached || a->stale : a->touched;
}

int pb_links_want(struct pb_links *links, uint32_t hook, uint32_t ifindex, struct pb_err *err)
{
	struct pb_place place = {.dir = links->dir, .hook = hook, .ifindex = ifindex};
	struct attachment *a = pb_links_find(links, hook, ifindex);

	if (links->env.entry_fd[hook] < 0)
		return 0;
	if (!a)
		a = row_add(links, &place);
	if (!a)
		return pb_err_set(err, -ENOMEM, "out of memory");
	a->wanted = true;
	a->code = 0;
	a->stale |= a->state == -ENOENT;
	return 0;
}

void pb_links_unwant(struct pb_links *links, uint32_t hook, uint32_t ifindex)
{
	struct attachment *a = pb_links_find(links, hook, ifindex);

	if (!a)
		return;
	a->wanted = false;
	a->code = 0;
	if (!a->touched)
		pb_links_forget(links, a);
}

/* ---- what jobs found out ---- */

int pb_links_remember(struct pb_links *links, const struct pb_links_op *op, struct pb_err *err)
{
	struct attachment *a = pb_links_find(links, op->place.hook, op->place.ifindex);

	if (!a)
		a = row_add(links, &op->place);
	if (!a)
		return pb_err_set(err, -ENOMEM, "out of memory");
	a->place = op->place;
	a->prog_id = op->prog_id;
	a->attached = a->touched = a->adopted = true;
	return 0;
}

void pb_links_report(struct pb_links *links, int *last_code, int code, const struct pb_err *why)
{
	if (code < 0 && links->settled) {
		if (links->failures++ == 0)
			links->first = *why;
	} else if (code < 0 && code != *last_code) {
		pb_error("datapath", "%s", why->text);
	}
	*last_code = code;
}

static void apply(struct pb_links *links, const struct pb_links_op *op)
{
	struct attachment *a = pb_links_find(links, op->place.hook, op->place.ifindex);
	bool reversed = a->wanted != op->attach;

	a->attaching = a->detaching = false;
	a->place.how = op->place.how;
	if (op->detached)
		a->attached = false;
	if (op->attach && op->code == 0) {
		a->attached = true;
		a->adopted = false;
		a->prog_id = op->prog_id;
		a->state = 0;
	}
	/* What is wanted by now wasn't tried yet. */
	a->code = reversed ? 0 : op->code;
	if (!a->wanted && op->detached && !a->attached)
		pb_links_forget(links, a);
}

/* Returns true when its listener was told of a failure. */
static bool tell_of_pod(struct pb_links *links, const struct pb_links_job *job)
{
	const struct pb_links_env *env = &links->env;
	bool any = false, changed = false;
	int code = 0;

	for (size_t i = 0; i < job->n_ops; i++) {
		uint32_t hook = job->ops[i].place.hook;

		changed |= hook == PB_HOOK_POD_EGRESS || hook == PB_HOOK_POD_INGRESS;
	}
	for (uint32_t hook = PB_HOOK_POD_EGRESS; changed && hook <= PB_HOOK_POD_INGRESS; hook++) {
		const struct attachment *a = pb_links_find(links, hook, job->ifindex);

		if (!a)
			continue;
		/* On the way off, or not yet where it shall be. */
		if (!a->wanted || pb_links_due(a))
			return false;
		any = true;
		code = code ? code : a->code;
	}
	if (changed && !any && env->pod_detached)
		env->pod_detached(env->arg, job->ifindex);
	else if (any && env->pod_attached)
		env->pod_attached(env->arg, job->ifindex, code, code ? job->why.text : "");
	return code < 0 && env->pod_attached;
}

void pb_links_applied(struct pb_links_job *job)
{
	struct pb_links *links = job->links;
	int *last_code = &links->cgroup_code, unknown = 0, code = job->code;

	for (size_t i = 0; i < job->n_ops; i++)
		apply(links, &job->ops[i]);
	if (tell_of_pod(links, job))
		return;
	/* A device that went before it was attached; its message comes. */
	if (job->ifindex && (code == -ENODEV || code == -ENOLINK))
		return;
	if (job->ifindex) {
		struct device *dev;

		HASH_FIND(hh, links->devices, &job->ifindex, sizeof(job->ifindex), dev);
		last_code = dev ? &dev->last_code : &unknown;
	}
	pb_links_report(links, last_code, code, &job->why);
}

/* ---- is it still ours? ---- */

static void check_one(struct attachment *a, int state)
{
	char where[96];

	if (state == a->state)
		return;
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
}

void pb_links_checked(struct pb_links_job *job)
{
	for (size_t i = 0; i < job->n_ops; i++) {
		const struct pb_links_op *op = &job->ops[i];
		struct attachment *a = pb_links_find(job->links, op->place.hook, op->place.ifindex);

		/* A device on its way out takes the attachment along; nobody detached it. */
		if (a && a->attached && a->wanted && !a->stale)
			check_one(a, op->code);
	}
}

void pb_links_check(struct pb_links *links)
{
	links->check_next = NULL;
	links->checks = HASH_COUNT(links->attachments);
	pb_links_pump(links);
}
