/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chains: built whole, made live by one gate write per hook, retired after a grace period.
 *
 * Owns <bpffs>/chains/<hook>_<generation>. A gate is only ever overwritten: deleting would wait
 * for RCU while packets fall through. The array of a live chain is never written to.
 */
#include <datapath/internal.h>

#include <dirent.h>

#include <base/log.h>

struct pb_dp_build {
	struct pb_dp *dp;
	const struct pb_dp_slot *plan; /* of all hooks; the caller's */
	size_t n_plan;
	struct pb_chain *chains[PB_HOOK_COUNT];
	struct pb_dp_object **objects; /* whose maps a flip commits */
	size_t n_objects;
	bool flipped;
};

/*
 * Consumers before producers: who reads what another hook's programs wrote must understand the
 * new records before they are written. Replies before requests, leaving before arriving.
 */
static const uint8_t flip_order[PB_HOOK_COUNT] = {
	PB_HOOK_SOCK_RELEASE, PB_HOOK_GETPEERNAME4, PB_HOOK_GETPEERNAME6, PB_HOOK_RECVMSG4,
	PB_HOOK_RECVMSG6,     PB_HOOK_POD_INGRESS,  PB_HOOK_DEV_EGRESS,	  PB_HOOK_DEV_INGRESS,
	PB_HOOK_POD_EGRESS,   PB_HOOK_SENDMSG4,	    PB_HOOK_SENDMSG6,	  PB_HOOK_CONNECT4,
	PB_HOOK_CONNECT6,     PB_HOOK_BIND4,	    PB_HOOK_BIND6,
};

/* ---- one chain ---- */

static void slots_free(struct pb_chain *c)
{
	for (size_t i = 0; c->slots && i < c->n_slots; i++) {
		free(c->slots[i].plugin);
		free(c->slots[i].name);
		free(c->slots[i].program);
	}
	free(c->slots);
}

/* Closes the fds; the pin stays unless `unpin`. */
static struct pb_chain *chain_free(struct pb_chain *c, bool unpin)
{
	if (!c)
		return NULL;
	if (unpin && c->pin && unlink(c->pin) < 0 && errno != ENOENT)
		pb_warn("datapath", "can't remove the pin %s: %s", c->pin, strerror(errno));
	if (c->array_fd >= 0)
		close(c->array_fd);
	if (c->first_fd >= 0)
		close(c->first_fd);
	slots_free(c);
	free(c->pin);
	free(c);
	return NULL;
}

static struct pb_chain *chain_alloc(const struct pb_dp *dp, uint32_t hook, uint32_t generation)
{
	struct pb_chain *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->hook = hook;
	c->generation = generation;
	c->array_fd = -1;
	c->first_fd = -1;
	c->pin = pb_sprintf("%s/chains/%s_%u", dp->bpffs, pb_hook_name(hook), generation);
	return c->pin ? c : chain_free(c, false);
}

static int chain_copy_slots(struct pb_chain *c, const struct pb_dp_slot *slots, size_t n)
{
	c->slots = calloc(n ? n : 1, sizeof(*c->slots));
	if (!c->slots)
		return -ENOMEM;
	c->n_slots = n;
	for (size_t i = 0; i < n; i++) {
		c->slots[i].plugin = strdup(slots[i].plugin);
		c->slots[i].name = strdup(slots[i].name);
		c->slots[i].program = strdup(slots[i].program);
		c->slots[i].band = slots[i].band;
		if (!c->slots[i].plugin || !c->slots[i].name || !c->slots[i].program)
			return -ENOMEM;
	}
	return 0;
}

static int chain_make_array(struct pb_chain *c, struct pb_err *err)
{
	int rc;

	c->array_fd = bpf_map_create(BPF_MAP_TYPE_PROG_ARRAY, "pb_chain", sizeof(uint32_t),
				     sizeof(uint32_t), 32, NULL);
	if (c->array_fd < 0)
		return pb_err_set(err, c->array_fd, "hook %s: can't make a program array: %s",
				  pb_hook_name(c->hook), strerror(-c->array_fd));
	/* Pinned before it is filled: an array empties when its last fd or pin goes. */
	rc = bpf_obj_pin(c->array_fd, c->pin);
	return rc < 0 ? pb_err_set(err, rc, "can't pin a chain at %s: %s", c->pin, strerror(-rc))
		      : 0;
}

static int chain_put(struct pb_chain *c, uint32_t slot, int prog_fd, struct pb_err *err)
{
	int rc = bpf_map_update_elem(c->array_fd, &slot, &prog_fd, BPF_ANY);

	if (rc < 0)
		return pb_err_set(err, rc, "hook %s: can't put a program into slot %u: %s",
				  pb_hook_name(c->hook), slot, strerror(-rc));
	if (slot == 0) {
		c->first_fd = prog_fd;
		return 0;
	}
	close(prog_fd);
	return 0;
}

static int chain_load(struct pb_chain *c, struct pb_dp_object *object, const char *program,
		      uint32_t slot, const struct pb_place *place, struct pb_err *err)
{
	PB_CLOSE int fd = -1;
	int rc = pb_object_load(object, &program, 1, place, &fd, err);

	if (rc == 0)
		rc = chain_put(c, slot, fd, err);
	if (rc == 0)
		fd = -1;
	return rc;
}

/* Slots 0 to n-1 hold the plan's programs, slot n holds exit. */
static int chain_load_all(const struct pb_dp_build *b, struct pb_chain *c,
			  const struct pb_dp_slot *slots, size_t n, struct pb_err *err)
{
	struct pb_place place = {.hook = c->hook,
				 .generation = c->generation,
				 .chain_fd = c->array_fd,
				 .plan = b->plan,
				 .n_plan = b->n_plan};
	uint32_t exit_slot = (uint32_t)n, observer = exit_slot;
	int rc = 0;

	while (observer > 0 && slots[observer - 1].band == PB_BAND_OBSERVE)
		observer--;
	place.observed = observer < exit_slot;
	place.slot_next = place.slot_exit = exit_slot;
	rc = chain_load(c, b->dp->exit, pb_hook_kinds[c->hook].exit, exit_slot, &place, err);
	for (uint32_t i = 0; rc == 0 && i < exit_slot; i++) {
		place.slot_next = i + 1;
		place.slot_exit = i < observer ? observer : exit_slot;
		rc = chain_load(c, slots[i].object, slots[i].program, i, &place, err);
	}
	return rc;
}

static int chain_build(const struct pb_dp_build *b, uint32_t hook, uint32_t generation,
		       struct pb_dp_slot *slots, size_t n, struct pb_chain **ret_chain,
		       struct pb_err *err)
{
	struct pb_chain *c;
	int rc;

	if (n + 1 > PB_CHAIN_MAX)
		return pb_err_set(
			err, -E2BIG,
			"hook %s: %zu programs and exit are more than the %d of a chain; the "
			"kernel allows 33 tail calls a packet",
			pb_hook_name(hook), n, PB_CHAIN_MAX);
	rc = pb_dp_order(slots, n, err);
	if (rc < 0)
		return rc;
	c = chain_alloc(b->dp, hook, generation);
	if (!c)
		return pb_err_set(err, -ENOMEM, "no memory");
	rc = chain_copy_slots(c, slots, n);
	if (rc < 0)
		pb_err_set(err, rc, "no memory");
	if (rc == 0)
		rc = chain_make_array(c, err);
	if (rc == 0)
		rc = chain_load_all(b, c, slots, n, err);
	if (rc < 0) {
		chain_free(c, true);
		return rc;
	}
	*ret_chain = c;
	return 0;
}

static int gate_write(struct pb_dp *dp, const struct pb_chain *c)
{
	const uint32_t index = pb_hook_kinds[c->hook].gate_index;

	return bpf_map_update_elem(dp->gate_fd[c->hook], &index, &c->first_fd, BPF_ANY);
}

/* ---- builds ---- */

static int build_objects(struct pb_dp_build *b, const struct pb_dp_slot *slots, size_t n)
{
	b->objects = calloc(n ? n : 1, sizeof(struct pb_dp_object *));
	if (!b->objects)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		b->objects[i] = slots[i].object;
	b->n_objects = n;
	return 0;
}

static int build_hook(struct pb_dp_build *b, const struct pb_dp_slot *slots, size_t n,
		      uint32_t hook, uint32_t generation, struct pb_err *err)
{
	PB_FREE struct pb_dp_slot *mine = calloc(n ? n : 1, sizeof(*mine));
	size_t n_mine = 0;

	if (!mine)
		return pb_err_set(err, -ENOMEM, "no memory");
	for (size_t i = 0; i < n; i++)
		if (slots[i].hook == hook)
			mine[n_mine++] = slots[i];
	return chain_build(b, hook, generation, mine, n_mine, &b->chains[hook], err);
}

int pb_dp_build(struct pb_dp *dp, const struct pb_dp_slot *slots, size_t n, uint32_t hooks,
		struct pb_dp_build **ret_build, struct pb_err *err)
{
	struct pb_dp_build *b = calloc(1, sizeof(*b));
	uint32_t generation;
	int rc;

	if (!b)
		return pb_err_set(err, -ENOMEM, "no memory");
	b->dp = dp;
	b->plan = slots;
	b->n_plan = n;
	uv_mutex_lock(&dp->lock);
	generation = ++dp->generation;
	uv_mutex_unlock(&dp->lock);
	rc = build_objects(b, slots, n);
	if (rc < 0)
		pb_err_set(err, rc, "no memory");
	for (uint32_t hook = 0; rc == 0 && hook < PB_HOOK_COUNT; hook++)
		if (hooks & (1U << hook))
			rc = build_hook(b, slots, n, hook, generation, err);
	if (rc < 0) {
		pb_dp_build_free(b);
		return rc;
	}
	*ret_build = b;
	return 0;
}

static void flip_back(struct pb_dp_build *b, size_t n_flipped)
{
	while (n_flipped-- > 0) {
		uint32_t hook = flip_order[n_flipped];
		const struct pb_chain *old = b->chains[hook] ? b->dp->live[hook] : NULL;
		int rc = old ? gate_write(b->dp, old) : 0;

		if (rc < 0)
			pb_error("datapath", "hook %s: can't flip back: %s", pb_hook_name(hook),
				 strerror(-rc));
	}
	/* The build is freed next, and packets may still be on their way through it. */
	pb_dp_rcu_wait(b->dp, NULL);
}

/* The new chains are live; the old ones wait for pb_dp_retire(). */
static void flip_done(struct pb_dp_build *b, uint64_t ns)
{
	struct pb_dp *dp = b->dp;

	uv_mutex_lock(&dp->lock);
	for (size_t hook = 0; hook < PB_HOOK_COUNT; hook++) {
		struct pb_chain *old = dp->live[hook];

		if (!b->chains[hook])
			continue;
		dp->live[hook] = PB_TAKE_PTR(b->chains[hook]);
		if (old) {
			old->next = dp->dead;
			dp->dead = old;
		}
	}
	dp->flip_ns = ns;
	uv_mutex_unlock(&dp->lock);
	b->flipped = true;
}

int pb_dp_flip(struct pb_dp_build *b, struct pb_err *err)
{
	uint64_t start = pb_now_ns();

	for (size_t i = 0; i < PB_HOOK_COUNT; i++) {
		struct pb_chain *c = b->chains[flip_order[i]];
		int rc = c ? gate_write(b->dp, c) : 0;

		if (rc < 0) {
			flip_back(b, i);
			return pb_err_set(
				err, rc,
				"hook %s: can't write the gate: %s; the chains before stay",
				pb_hook_name(c->hook), strerror(-rc));
		}
	}
	flip_done(b, pb_now_ns() - start);
	for (size_t i = 0; i < b->n_objects; i++)
		pb_object_commit(b->objects[i]);
	return 0;
}

/* The kernel lets an update of an array of maps return only after synchronize_rcu(). */
int pb_dp_rcu_wait(struct pb_dp *dp, struct pb_err *err)
{
	const uint32_t zero = 0;
	int rc = bpf_map_update_elem(dp->rcu_outer_fd, &zero, &dp->rcu_inner_fd, BPF_ANY);

	return rc < 0 ? pb_err_set(err, rc, "can't wait for RCU: %s", strerror(-rc)) : 0;
}

int pb_dp_retire(struct pb_dp_build *b, struct pb_err *err)
{
	struct pb_dp *dp = b->dp;
	struct pb_chain *dead;
	int rc = pb_dp_rcu_wait(dp, err);

	if (rc < 0)
		return rc;
	/* Flips and retirements run one at a time, so all of these were replaced before the wait.
	 */
	uv_mutex_lock(&dp->lock);
	dead = PB_TAKE_PTR(dp->dead);
	uv_mutex_unlock(&dp->lock);
	while (dead) {
		struct pb_chain *next = dead->next;

		chain_free(dead, true);
		dead = next;
	}
	return 0;
}

struct pb_dp_build *pb_dp_build_free(struct pb_dp_build *b)
{
	if (!b)
		return NULL;
	for (size_t hook = 0; hook < PB_HOOK_COUNT; hook++)
		chain_free(b->chains[hook], true);
	free(b->objects);
	free(b);
	return NULL;
}

uint64_t pb_dp_flip_ns(const struct pb_dp *dp)
{
	return dp->flip_ns;
}

/* ---- the chains that are there when the agent starts ---- */

static uint32_t slot_prog_id(int array_fd, uint32_t slot)
{
	uint32_t id = 0;

	return bpf_map_lookup_elem(array_fd, &slot, &id) < 0 ? 0 : id;
}

/* Takes over one pin if the hook's gate leads to it. */
static int adopt_pin(struct pb_dp *dp, uint32_t hook, uint32_t generation, struct pb_err *err)
{
	struct pb_chain *c = chain_alloc(dp, hook, generation);
	uint32_t live_id, id;

	if (!c)
		return pb_err_set(err, -ENOMEM, "no memory");
	live_id = slot_prog_id(dp->gate_fd[hook], pb_hook_kinds[hook].gate_index);
	c->array_fd = bpf_obj_get(c->pin);
	id = c->array_fd < 0 ? 0 : slot_prog_id(c->array_fd, 0);
	if (id == 0 || id != live_id || dp->live[hook]) {
		pb_debug("datapath", "no gate leads to %s: removed", c->pin);
		chain_free(c, true);
		return 0;
	}
	c->first_fd = bpf_prog_get_fd_by_id(id);
	if (c->first_fd < 0) {
		int rc = c->first_fd;

		pb_err_set(err, rc, "can't open program %u of %s: %s", id, c->pin, strerror(-rc));
		chain_free(c, false);
		return rc;
	}
	c->adopted = true;
	dp->live[hook] = c;
	return 0;
}

static int adopt_name(struct pb_dp *dp, const char *name, struct pb_err *err)
{
	const char *mark = strrchr(name, '_');
	unsigned generation;

	if (!mark || sscanf(mark, "_%u", &generation) != 1)
		return 0;
	if (generation > dp->generation)
		dp->generation = generation;
	for (uint32_t hook = 0; hook < PB_HOOK_COUNT; hook++) {
		const char *known = pb_hook_name(hook);

		if (strlen(known) == (size_t)(mark - name) &&
		    strncmp(known, name, (size_t)(mark - name)) == 0)
			return adopt_pin(dp, hook, generation, err);
	}
	return 0;
}

int pb_chain_adopt(struct pb_dp *dp, struct pb_err *err)
{
	PB_FREE char *path = pb_sprintf("%s/chains", dp->bpffs);
	struct dirent **names = NULL;
	int n, rc = 0;

	if (!path)
		return pb_err_set(err, -ENOMEM, "no memory");
	n = scandir(path, &names, NULL, NULL);
	if (n < 0)
		return pb_err_set(err, -errno, "can't list %s: %s", path, strerror(errno));
	for (int i = 0; i < n; i++) {
		if (rc == 0)
			rc = adopt_name(dp, names[i]->d_name, err);
		free(names[i]);
	}
	free(names);
	return rc;
}

int pb_chain_fill(struct pb_dp *dp, struct pb_err *err)
{
	struct pb_dp_build *build = NULL;
	uint32_t hooks = 0;
	int rc;

	for (uint32_t hook = 0; hook < PB_HOOK_COUNT; hook++) {
		if (dp->live[hook])
			continue;
		hooks |= 1U << hook;
		/* Somebody removed the array's pin: what the gate leads to has lost its slots. */
		if (slot_prog_id(dp->gate_fd[hook], pb_hook_kinds[hook].gate_index))
			pb_warn("datapath", "hook %s: its chain lost its pin; starting with none",
				pb_hook_name(hook));
	}
	if (!hooks)
		return 0;
	rc = pb_dp_build(dp, NULL, 0, hooks, &build, err);
	if (rc == 0)
		rc = pb_dp_flip(build, err);
	pb_dp_build_free(build);
	return rc;
}

void pb_chain_close_all(struct pb_dp *dp)
{
	for (size_t hook = 0; hook < PB_HOOK_COUNT; hook++)
		dp->live[hook] = chain_free(dp->live[hook], false);
	while (dp->dead) {
		struct pb_chain *next = dp->dead->next;

		chain_free(dp->dead, false);
		dp->dead = next;
	}
}
