/* SPDX-License-Identifier: Apache-2.0 */
/* host->map_memory(): the memory of an array, over generations, agents and growth. */
#include "sandbox.h"

#include <tests/bpf/memory.skel.h>

TestSuite(memory, .init = sandbox_enter, .fini = sandbox_leave);

struct value {
	uint32_t a, b, c;
};

/* An element as it lies in memory: its size rounded up to 8 bytes. */
struct element {
	struct value value;
	uint32_t pad;
};

static struct pb_dp_object *load(uint32_t max_entries)
{
	const struct pb_map_opts sized = {.size = sizeof(sized),
					  .name = "words",
					  .max_entries = max_entries};
	struct pb_bpf_object opts = {.size = sizeof(opts),
				     .name = "main",
				     .maps = &sized,
				     .n_maps = max_entries != 0};
	struct pb_dp_object *object = NULL;

	opts.elf = memory_bpf__elf_bytes(&opts.elf_len);
	cr_assert_eq(pb_dp_object_new(sandbox.dp, "p", &opts, &object, &sandbox.err), 0);
	cr_assert_eq(pb_dp_object_prepare(object, &sandbox.err), 0, "%s", sandbox.err.text);
	return object;
}

static void go_live(struct pb_dp_object *object)
{
	struct pb_dp_slot slot =
		sandbox_slot(PB_HOOK_POD_EGRESS, PB_BAND_POLICY, object, "s", "memory_program");

	sandbox_chain(&slot, 1, PB_HOOK_POD_EGRESS);
}

static struct pb_map *handle(const char *name, struct pb_dp_object *object)
{
	struct pb_map *map = NULL;

	cr_assert_eq(pb_dp_map_new(sandbox.dp, "p", name, &map), 0);
	cr_assert_eq(pb_dp_map_resolve(map, &object, 1, &sandbox.err), 0, "%s", sandbox.err.text);
	return map;
}

static struct element *memory(struct pb_map *map, size_t *ret_len)
{
	void *at = NULL;

	cr_assert_eq(pb_dp_map_memory(map, &at, ret_len), 0);
	return at;
}

static uint32_t look(struct pb_map *map, uint32_t key)
{
	struct value value = {0};

	cr_assert_eq(pb_dp_map_lookup(map, &key, &value), 0);
	return value.c;
}

Test(memory, a_store_is_what_a_lookup_finds_and_the_other_way_round)
{
	const struct value value = {1, 2, 3};
	const uint32_t key = 5;
	struct pb_dp_object *object;
	struct element *at;
	struct pb_map *map;
	size_t len;

	sandbox_open();
	object = load(0);
	map = handle("words", object);
	at = memory(map, &len);
	cr_expect_eq(len, 100 * sizeof(struct element));
	at[99].value.c = 7;
	cr_expect_eq(look(map, 99), 7);
	cr_assert_eq(pb_dp_map_update(map, &key, &value, PB_MAP_ANY), 0);
	cr_expect_eq(at[5].value.c, 3);
	pb_dp_map_free(map);
	pb_dp_object_free(object);
}

Test(memory, other_maps_and_maps_that_do_not_exist_yet_are_refused)
{
	struct pb_dp_object *object;
	struct pb_map *map = NULL;
	void *at = NULL;
	size_t len = 0;

	sandbox_open();
	cr_assert_eq(pb_dp_map_new(sandbox.dp, "p", "words", &map), 0);
	cr_expect_eq(pb_dp_map_memory(map, &at, &len), -ENXIO);
	pb_dp_map_free(map);
	object = load(0);
	map = handle("plain", object);
	cr_expect_eq(pb_dp_map_memory(map, &at, &len), -EOPNOTSUPP, "an array without the flag");
	pb_dp_map_free(map);
	map = handle("hash", object);
	cr_expect_eq(pb_dp_map_memory(map, &at, &len), -EOPNOTSUPP, "a hash");
	pb_dp_map_free(map);
	cr_expect_null(at);
	pb_dp_object_free(object);
}

Test(memory, generations_share_one_mapping_which_outlives_the_older_one)
{
	struct pb_dp_object *was, *now;
	struct element *at;
	struct pb_map *old, *new;
	size_t len;

	/* given a live generation that uses the memory */
	sandbox_open();
	was = load(0);
	go_live(was);
	old = handle("words", was);
	at = memory(old, &len);
	at[1].value.c = 11;
	/* when another one takes over, then it has the same memory */
	now = load(0);
	new = handle("words", now);
	cr_expect_eq(memory(new, &len), at);
	go_live(now);
	pb_dp_map_free(old);
	pb_dp_object_free(was);
	at[2].value.c = 22;
	cr_expect_eq(look(new, 1), 11);
	cr_expect_eq(look(new, 2), 22);
	pb_dp_map_free(new);
	pb_dp_object_free(now);
}

Test(memory, what_was_stored_survives_the_agent)
{
	struct pb_dp_object *object;
	struct pb_map *map;
	size_t len;

	sandbox_open();
	object = load(0);
	map = handle("words", object);
	memory(map, &len)[3].value.c = 33;
	pb_dp_map_free(map);
	pb_dp_object_free(object);
	/* when the agent starts again */
	sandbox_close();
	sandbox_open();
	object = load(0);
	map = handle("words", object);
	cr_expect_eq(memory(map, &len)[3].value.c, 33);
	pb_dp_map_free(map);
	pb_dp_object_free(object);
}

Test(memory, a_map_that_grew_has_memory_of_its_own_with_the_old_content)
{
	struct pb_dp_object *was, *now;
	struct element *small, *large;
	struct pb_map *old, *new;
	size_t len;

	/* given a live map whose size is the admin's */
	sandbox_open();
	was = load(10);
	go_live(was);
	old = handle("words", was);
	small = memory(old, &len);
	cr_expect_eq(len, 10 * sizeof(struct element));
	small[9].value.c = 9;
	/* when a larger one takes over */
	now = load(1000);
	new = handle("words", now);
	large = memory(new, &len);
	go_live(now);
	/* then it has what the old one had, and the old one its own memory as long as it is held */
	cr_expect_eq(len, 1000 * sizeof(struct element));
	cr_expect_neq(large, small);
	cr_expect_eq(large[9].value.c, 9);
	large[999].value.c = 10;
	cr_expect_eq(look(new, 999), 10);
	small[9].value.c = 1;
	cr_expect_eq(look(old, 9), 1);
	cr_expect_eq(look(new, 9), 9);
	pb_dp_map_free(old);
	pb_dp_object_free(was);
	pb_dp_map_free(new);
	pb_dp_object_free(now);
}
