/* SPDX-License-Identifier: Apache-2.0 */
/* Programs on a map of another plugin (PB_MAP_BORROWED): found, compared, found again. */
#include "sandbox.h"

#include <tests/bpf/borrow.skel.h>
#include <tests/bpf/borrow_grown.skel.h>
#include <tests/bpf/layout_first.skel.h>
#include <tests/bpf/layout_grown.skel.h>

TestSuite(borrow, .init = sandbox_enter, .fini = sandbox_leave);

typedef const void *(*elf_fn)(size_t *len);

static int prepare(const char *plugin, elf_fn elf, const struct pb_map_opts *map,
		   struct pb_dp_object **ret_object)
{
	struct pb_bpf_object opts = {.size = sizeof(opts),
				     .name = "main",
				     .maps = map,
				     .n_maps = 1};
	int rc;

	opts.elf = elf(&opts.elf_len);
	rc = pb_dp_object_new(sandbox.dp, plugin, &opts, ret_object, &sandbox.err);
	cr_assert_eq(rc, 0, "%s", sandbox.err.text);
	return pb_dp_object_prepare(*ret_object, &sandbox.err);
}

static struct pb_dp_object *owner(elf_fn elf, uint32_t flags, uint32_t schema, uint32_t max)
{
	const struct pb_map_opts map = {.size = sizeof(map),
					.name = "flows",
					.flags = flags,
					.schema = schema,
					.max_entries = max};
	struct pb_dp_object *object = NULL;

	cr_assert_eq(prepare("p-a", elf, &map, &object), 0, "%s", sandbox.err.text);
	return object;
}

static int borrower(elf_fn elf, uint32_t schema, struct pb_dp_object **ret_object)
{
	const struct pb_map_opts map = {.size = sizeof(map),
					.name = "p_a__flows",
					.flags = PB_MAP_BORROWED,
					.schema = schema};

	return prepare("reader", elf, &map, ret_object);
}

static void write_entry(struct pb_dp_object *object, uint32_t key)
{
	uint8_t value[32] = {0};
	struct pb_map *map = NULL;

	cr_assert_eq(pb_dp_map_new(sandbox.dp, "p-a", "flows", &map), 0);
	cr_assert_eq(pb_dp_map_resolve(map, &object, 1, &sandbox.err), 0, "%s", sandbox.err.text);
	cr_assert_eq(pb_dp_map_update(map, &key, value, PB_MAP_ANY), 0);
	pb_dp_map_free(map);
}

/* The owner's program on one hook, the borrower's on another. */
static size_t plan(struct pb_dp_slot *ret_slots, struct pb_dp_object *own,
		   struct pb_dp_object *reader)
{
	size_t n = 0;

	if (own)
		ret_slots[n++] = sandbox_slot(PB_HOOK_POD_EGRESS, PB_BAND_POLICY, own, "own",
					      "layout_program");
	ret_slots[n++] =
		sandbox_slot(PB_HOOK_DEV_INGRESS, PB_BAND_POLICY, reader, "read", "borrow_program");
	return n;
}

static int build(struct pb_dp_object *own, struct pb_dp_object *reader)
{
	struct pb_dp_slot slots[2];
	struct pb_dp_build *b = NULL;
	size_t n = plan(slots, own, reader);
	uint32_t hooks = 1U << PB_HOOK_POD_EGRESS | 1U << PB_HOOK_DEV_INGRESS;
	int rc = pb_dp_build(sandbox.dp, slots, n, hooks, &b, &sandbox.err);

	if (rc < 0)
		return rc;
	cr_assert_eq(pb_dp_flip(b, &sandbox.err), 0, "%s", sandbox.err.text);
	cr_assert_eq(pb_dp_retire(b, &sandbox.err), 0, "%s", sandbox.err.text);
	pb_dp_build_free(b);
	return 0;
}

static bool dropped(void)
{
	static const unsigned char frame[64];

	return sandbox_run(PB_HOOK_DEV_INGRESS, frame, sizeof(frame)) == 2;
}

static bool owner_has_pins_of(const char *name)
{
	PB_FREE char *path = pb_sprintf("%s/plugins/%s", sandbox.config.datapath.bpffs, name);

	return access(path, F_OK) == 0;
}

Test(borrow, programs_read_the_owners_map_whatever_hook_they_are_on)
{
	struct pb_dp_object *own, *reader = NULL;

	sandbox_open();
	own = owner(layout_first_bpf__elf_bytes, PB_MAP_SHARED, 1, 0);
	cr_assert_eq(borrower(borrow_bpf__elf_bytes, 1, &reader), 0, "%s", sandbox.err.text);
	cr_assert_eq(build(own, reader), 0, "%s", sandbox.err.text);
	cr_expect_not(dropped());
	write_entry(own, 7);
	cr_expect(dropped());
	cr_expect_not(owner_has_pins_of("reader"), "a borrower pins nothing");
	pb_dp_object_free(reader);
	pb_dp_object_free(own);
}

Test(borrow, a_map_of_an_owner_without_programs_is_found_too)
{
	struct pb_dp_object *own, *reader = NULL;

	sandbox_open();
	own = owner(layout_first_bpf__elf_bytes, PB_MAP_SHARED, 1, 0);
	cr_assert_eq(borrower(borrow_bpf__elf_bytes, 0, &reader), 0, "%s", sandbox.err.text);
	cr_assert_eq(build(NULL, reader), 0, "%s", sandbox.err.text);
	write_entry(own, 7);
	cr_expect(dropped());
	pb_dp_object_free(reader);
	pb_dp_object_free(own);
}

Test(borrow, a_build_with_a_new_generation_of_the_owner_uses_its_new_map)
{
	static const uint32_t flags[] = {PB_MAP_SHARED | PB_MAP_EPHEMERAL, PB_MAP_SHARED};
	struct pb_dp_object *own, *now, *reader = NULL;

	for (size_t i = 0; i < PB_ARRAY_LEN(flags); i++) {
		/* given */
		sandbox_open();
		own = owner(layout_first_bpf__elf_bytes, flags[i], 1, 16);
		cr_assert_eq(borrower(borrow_bpf__elf_bytes, 1, &reader), 0, "%s",
			     sandbox.err.text);
		cr_assert_eq(build(own, reader), 0, "%s", sandbox.err.text);
		/* when: another map stands in the new generation, by its flags or its size */
		now = owner(layout_first_bpf__elf_bytes, flags[i], 1, 32);
		cr_assert_eq(build(now, reader), 0, "%s", sandbox.err.text);
		write_entry(own, 7);
		/* then */
		cr_expect_not(dropped(), "case %zu: the old generation's map", i);
		write_entry(now, 7);
		cr_expect(dropped(), "case %zu", i);
		reader = pb_dp_object_free(reader);
		pb_dp_object_free(now);
		pb_dp_object_free(own);
		sandbox_close();
	}
}

Test(borrow, both_move_to_another_schema_in_turn_and_a_lone_one_is_told)
{
	struct pb_dp_object *own, *now, *reader = NULL;

	sandbox_open();
	own = owner(layout_first_bpf__elf_bytes, PB_MAP_SHARED, 1, 0);
	cr_assert_eq(borrower(borrow_bpf__elf_bytes, 1, &reader), 0, "%s", sandbox.err.text);
	cr_assert_eq(build(own, reader), 0, "%s", sandbox.err.text);

	/* when: the owner alone */
	now = owner(layout_grown_bpf__elf_bytes, PB_MAP_SHARED, 2, 0);
	cr_expect_eq(build(now, reader), -EINVAL);
	cr_expect_not_null(
		strstr(sandbox.err.text,
		       "plugin reader, object main: map p_a__flows: was compiled for schema 1, but "
		       "map p-a/flows has schema 2: "),
		"%s", sandbox.err.text);

	/* when: the borrower is gone meanwhile */
	reader = pb_dp_object_free(reader);
	sandbox_chain(&(struct pb_dp_slot){0}, 0, PB_HOOK_DEV_INGRESS);
	cr_assert_eq(borrower(borrow_grown_bpf__elf_bytes, 2, &reader), 0, "%s", sandbox.err.text);
	cr_assert_eq(build(now, reader), 0, "%s", sandbox.err.text);
	write_entry(now, 7);
	cr_expect(dropped());
	pb_dp_object_free(reader);
	pb_dp_object_free(now);
	pb_dp_object_free(own);
}

Test(borrow, what_cannot_be_borrowed_is_said_in_one_error)
{
	struct pb_dp_object *own, *reader = NULL;

	/* no owner */
	sandbox_open();
	cr_expect_eq(borrower(borrow_bpf__elf_bytes, 1, &reader), -ENOENT);
	cr_expect_str_eq(sandbox.err.text,
			 "plugin reader, object main: map p_a__flows: there is no map flows of "
			 "plugin p_a to borrow; is the plugin loaded, in a version that has the "
			 "map?");
	reader = pb_dp_object_free(reader);

	/* not shared */
	own = owner(layout_first_bpf__elf_bytes, 0, 1, 0);
	cr_expect_eq(borrower(borrow_bpf__elf_bytes, 1, &reader), -EACCES);
	cr_expect_str_eq(sandbox.err.text,
			 "plugin reader, object main: map p_a__flows: plugin p-a doesn't share its "
			 "map flows (PB_MAP_SHARED)");
	reader = pb_dp_object_free(reader);
	pb_dp_object_free(own);

	/* another layout */
	own = owner(layout_first_bpf__elf_bytes, PB_MAP_SHARED, 1, 0);
	cr_expect_eq(borrower(borrow_grown_bpf__elf_bytes, 1, &reader), -EINVAL);
	cr_expect_not_null(strstr(sandbox.err.text,
				  "map p_a__flows: differs from map p-a/flows, which it borrows: "
				  "the layout of its value changed: member bytes is new: "),
			   "%s", sandbox.err.text);
	pb_dp_object_free(reader);
	pb_dp_object_free(own);
}

Test(borrow, an_owner_is_known_by_its_name_with_underscores)
{
	cr_expect(pb_borrow_from("p_a__flows", "p-a"));
	cr_expect(pb_borrow_from("kpr__a__b", "kpr"));
	cr_expect_not(pb_borrow_from("p_a__flows", "p"));
	cr_expect_not(pb_borrow_from("p_a__flows", "p-ab"));
	cr_expect_not(pb_borrow_from("flows", "flows"));
	cr_expect_not(pb_borrow_from("__flows", ""));
	cr_expect_not(pb_borrow_from("p__", "p"));
}
