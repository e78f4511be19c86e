/* SPDX-License-Identifier: Apache-2.0 */
/* Maps over generations and agents: pins, layouts, sharing, handles. Objects that are refused. */
#include "sandbox.h"

#include <tests/bpf/globals.skel.h>
#include <tests/bpf/layout_first.skel.h>
#include <tests/bpf/layout_grown.skel.h>
#include <tests/bpf/layout_smaller.skel.h>
#include <tests/bpf/layout_split.skel.h>
#include <tests/bpf/layout_swapped.skel.h>
#include <tests/bpf/refused.skel.h>

TestSuite(registry, .init = sandbox_enter, .fini = sandbox_leave);

struct flow {
	uint32_t address, packets;
	uint16_t a, b, ports[2];
};

/* Registers and prepares; returns what pb_dp_object_prepare() returned. */
static int prepare(const char *plugin, const void *elf, size_t len, const struct pb_map_opts *maps,
		   struct pb_dp_object **ret_object)
{
	struct pb_bpf_object opts = {.size = sizeof(opts),
				     .name = "main",
				     .elf = elf,
				     .elf_len = len,
				     .maps = maps,
				     .n_maps = maps != NULL};
	int rc = pb_dp_object_new(sandbox.dp, plugin, &opts, ret_object, &sandbox.err);

	return rc < 0 ? rc : pb_dp_object_prepare(*ret_object, &sandbox.err);
}

static struct pb_dp_object *first(const char *plugin, const struct pb_map_opts *maps)
{
	struct pb_dp_object *object = NULL;
	size_t len;
	const void *elf = layout_first_bpf__elf_bytes(&len);

	cr_assert_eq(prepare(plugin, elf, len, maps, &object), 0, "%s", sandbox.err.text);
	return object;
}

static void go_live(struct pb_dp_object *object)
{
	struct pb_dp_slot slot =
		sandbox_slot(PB_HOOK_POD_EGRESS, PB_BAND_POLICY, object, "s", "layout_program");

	sandbox_chain(&slot, 1, PB_HOOK_POD_EGRESS);
}

static struct pb_map *handle(const char *plugin, const char *name, struct pb_dp_object *object)
{
	struct pb_map *map = NULL;

	cr_assert_eq(pb_dp_map_new(sandbox.dp, plugin, name, &map), 0);
	cr_assert_eq(pb_dp_map_resolve(map, &object, object != NULL, &sandbox.err), 0, "%s",
		     sandbox.err.text);
	return map;
}

static bool pinned(const char *rest)
{
	PB_FREE char *path = pb_sprintf("%s/%s", sandbox.config.datapath.bpffs, rest);

	return access(path, F_OK) == 0;
}

/* ---- layouts ---- */

Test(registry, a_changed_layout_without_a_new_schema_is_refused_and_the_member_is_named)
{
	static const struct {
		const void *(*elf)(size_t *len);
		const char *text;
	} cases[] = {
		{layout_swapped_bpf__elf_bytes,
		 "plugin p, object main: map p/flows: the layout of its value changed: member "
		 "address at offset 0 is now named packets"},
		{layout_grown_bpf__elf_bytes, "member bytes is new"},
		{layout_split_bpf__elf_bytes, "member ports had 2 elements and has 4"},
		{layout_smaller_bpf__elf_bytes, "it holds 16 entries at most and would hold 8"},
	};
	struct pb_dp_object *was;

	/* given: a live generation whose map has an entry */
	sandbox_open();
	was = first("p", NULL);
	go_live(was);

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_dp_object *now = NULL;
		size_t len;
		const void *elf = cases[i].elf(&len);

		/* when */
		cr_expect_eq(prepare("p", elf, len, NULL, &now), -EINVAL, "case %zu", i);
		/* then */
		cr_expect_not_null(strstr(sandbox.err.text, cases[i].text), "case %zu: %s", i,
				   sandbox.err.text);
		cr_expect_not_null(strstr(sandbox.err.text, "schema above 1"), "%s",
				   sandbox.err.text);
		pb_dp_object_free(now);
	}
	pb_dp_object_free(was);
}

Test(registry, a_changed_layout_with_a_new_schema_gets_a_map_of_its_own)
{
	const struct pb_map_opts opts = {.size = sizeof(opts), .name = "flows", .schema = 2};
	struct pb_dp_object *was, *now = NULL;
	size_t len;
	const void *elf = layout_swapped_bpf__elf_bytes(&len);

	sandbox_open();
	was = first("p", NULL);
	go_live(was);
	cr_assert_eq(prepare("p", elf, len, &opts, &now), 0, "%s", sandbox.err.text);
	go_live(now);
	/* then: the old one's pin stays as long as somebody has its map */
	cr_expect(pinned("plugins/p/flows_v1"));
	cr_expect(pinned("plugins/p/flows_v2"));
	pb_dp_object_free(was);
	cr_expect_not(pinned("plugins/p/flows_v1"));
	cr_expect(pinned("plugins/p/flows_v2"));
	pb_dp_object_free(now);
	cr_expect(pinned("plugins/p/flows_v2"));
}

Test(registry, a_pin_of_an_older_schema_goes_with_the_first_generation_of_the_newer_one)
{
	const struct pb_map_opts opts = {.size = sizeof(opts), .name = "flows", .schema = 2};
	struct pb_dp_object *was, *now = NULL;
	size_t len;
	const void *elf = layout_swapped_bpf__elf_bytes(&len);

	/* given: the pin that an earlier agent left */
	sandbox_open();
	was = first("p", NULL);
	go_live(was);
	pb_dp_object_free(was);
	sandbox_close();
	sandbox_open();
	cr_assert(pinned("plugins/p/flows_v1"));
	/* when: a generation is tried, and one goes live */
	cr_assert_eq(prepare("p", elf, len, &opts, &now), 0, "%s", sandbox.err.text);
	pb_dp_object_free(now);
	cr_expect(pinned("plugins/p/flows_v1"));
	cr_assert_eq(prepare("p", elf, len, &opts, &now), 0, "%s", sandbox.err.text);
	go_live(now);
	cr_expect_not(pinned("plugins/p/flows_v1"));
	cr_expect(pinned("plugins/p/flows_v2"));
	pb_dp_object_free(now);
}

Test(registry, after_a_way_back_the_pin_of_the_newer_schema_goes_too)
{
	const struct pb_map_opts opts = {.size = sizeof(opts), .name = "flows", .schema = 2};
	struct pb_dp_object *now = NULL, *back;
	size_t len;
	const void *elf = layout_swapped_bpf__elf_bytes(&len);

	/* given: the pin of the newer schema, left by the agent that was tried */
	sandbox_open();
	cr_assert_eq(prepare("p", elf, len, &opts, &now), 0, "%s", sandbox.err.text);
	go_live(now);
	pb_dp_object_free(now);
	sandbox_close();
	sandbox_open();
	cr_assert(pinned("plugins/p/flows_v2"));
	/* when: the older one is live again */
	back = first("p", NULL);
	go_live(back);
	/* then: the next upgrade doesn't find entries of long ago */
	cr_expect(pinned("plugins/p/flows_v1"));
	cr_expect_not(pinned("plugins/p/flows_v2"));
	pb_dp_object_free(back);
}

Test(registry, a_layout_that_was_only_tried_does_not_stand_in_the_way_of_its_correction)
{
	struct pb_dp_object *object;
	size_t len;
	const void *elf = layout_swapped_bpf__elf_bytes(&len);

	/* given: a first load that failed before its flip */
	sandbox_open();
	pb_dp_object_free(first("p", NULL));
	cr_expect_not(pinned("plugins/p/flows_v1"));
	/* then: another layout is free to take the name */
	cr_expect_eq(prepare("p", elf, len, NULL, &object), 0, "%s", sandbox.err.text);
	pb_dp_object_free(object);
}

/* ---- life of entries ---- */

Test(registry, entries_survive_a_reload_and_an_agents_restart)
{
	const struct flow flow = {.address = 1, .packets = 2};
	struct pb_dp_object *was, *now;
	struct pb_map_info info = {.size = sizeof(info)};
	struct flow got = {0};
	struct pb_map *map;
	uint32_t key = 7;

	sandbox_open();
	was = first("p", NULL);
	map = handle("p", "flows", was);
	cr_assert_eq(pb_dp_map_update(map, &key, &flow, PB_MAP_ANY), 0);
	cr_assert_eq(pb_dp_map_info(map, &info), 0);
	cr_expect_eq(info.adopted, 0);
	pb_dp_map_free(map);

	/* when: reloaded */
	now = first("p", NULL);
	pb_dp_object_free(was);
	map = handle("p", "flows", now);
	cr_expect_eq(pb_dp_map_lookup(map, &key, &got), 0);
	cr_expect_eq(got.packets, 2);
	pb_dp_map_free(map);
	pb_dp_object_free(now);

	/* when: restarted */
	sandbox_close();
	sandbox_open();
	now = first("p", NULL);
	map = handle("p", "flows", now);
	cr_expect_eq(pb_dp_map_lookup(map, &key, &got), 0);
	cr_expect_eq(pb_dp_map_info(map, &info), 0);
	cr_expect_eq(info.adopted, 1);
	pb_dp_map_free(map);
	pb_dp_object_free(now);
}

Test(registry, an_ephemeral_map_is_new_in_every_generation_and_has_no_pin)
{
	const struct pb_map_opts opts = {.size = sizeof(opts),
					 .name = "flows",
					 .flags = PB_MAP_EPHEMERAL};
	const struct flow flow = {0};
	struct pb_dp_object *was, *now;
	struct pb_map *map;
	struct flow got;
	uint32_t key = 7;

	sandbox_open();
	was = first("p", &opts);
	map = handle("p", "flows", was);
	cr_assert_eq(pb_dp_map_update(map, &key, &flow, PB_MAP_ANY), 0);
	pb_dp_map_free(map);
	now = first("p", &opts);
	map = handle("p", "flows", now);
	cr_expect_eq(pb_dp_map_lookup(map, &key, &got), -ENOENT);
	cr_expect_not(pinned("plugins/p/flows_v1"));
	pb_dp_map_free(map);
	pb_dp_object_free(was);
	pb_dp_object_free(now);
}

Test(registry, max_entries_of_the_options_replaces_the_compiled_number)
{
	const struct pb_map_opts opts = {.size = sizeof(opts), .name = "flows", .max_entries = 3};
	struct pb_dp_object *object;
	struct pb_map_info info = {.size = sizeof(info)};
	struct pb_map *map;

	sandbox_open();
	object = first("p", &opts);
	map = handle("p", "flows", object);
	cr_assert_eq(pb_dp_map_info(map, &info), 0);
	cr_expect_eq(info.max_entries, 3);
	cr_expect_eq(info.key_size, 4);
	cr_expect_eq(info.value_size, sizeof(struct flow));
	cr_expect_eq(info.n_cpus, 1);
	pb_dp_map_free(map);
	pb_dp_object_free(object);
}

static struct pb_dp_object *sized(uint32_t max_entries)
{
	const struct pb_map_opts opts = {.size = sizeof(opts),
					 .name = "flows",
					 .max_entries = max_entries};

	return first("p", &opts);
}

static uint32_t pinned_max(const char *rest)
{
	PB_FREE char *path = pb_sprintf("%s/%s", sandbox.config.datapath.bpffs, rest);
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	PB_CLOSE int fd = bpf_obj_get(path);

	return fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0 ? info.max_entries : 0;
}

Test(registry, a_map_of_the_admins_size_grows_with_its_entries_when_its_generation_goes_live)
{
	const uint32_t key = 7;
	struct flow value = {0}, got = {0};
	struct pb_dp_object *was, *tried, *now;
	struct pb_map *map;

	/* given: a live map with an entry */
	sandbox_open();
	was = sized(3);
	go_live(was);
	map = handle("p", "flows", was);
	memset(&value, 0x5a, sizeof(value));
	cr_assert_eq(pb_dp_map_update(map, &key, &value, BPF_ANY), 0);
	pb_dp_map_free(map);

	/* when: a larger one is tried and given up; then: nothing happened */
	tried = sized(5);
	cr_expect_eq(pinned_max("plugins/p/flows_v1"), 3);
	pb_dp_object_free(tried);
	cr_expect_eq(pinned_max("plugins/p/flows_v1"), 3);
	cr_expect_not(pinned("plugins/p/flows_v1_grown"));

	/* when: a larger one goes live; then: it has the entry and the pin */
	now = sized(5);
	go_live(now);
	pb_dp_object_free(was);
	cr_expect_eq(pinned_max("plugins/p/flows_v1"), 5);
	cr_expect_not(pinned("plugins/p/flows_v1_grown"));
	map = handle("p", "flows", now);
	cr_assert_eq(pb_dp_map_lookup(map, &key, &got), 0);
	cr_expect_arr_eq(&got, &value, sizeof(got));
	pb_dp_map_free(map);

	/* when: less is asked for; then: the map stays */
	tried = sized(2);
	go_live(tried);
	cr_expect_eq(pinned_max("plugins/p/flows_v1"), 5);
	pb_dp_object_free(tried);
	pb_dp_object_free(now);
}

/* ---- handles ---- */

Test(registry, a_plugin_gets_as_much_of_a_maps_properties_as_it_knows)
{
	struct pb_map_info info = {.size = sizeof(info)};
	struct {
		struct pb_map_info info;
		uint32_t newer;
	} large = {.info.size = sizeof(large), .newer = 42};
	struct pb_dp_object *object;
	struct pb_map *map;

	sandbox_open();
	object = first("p", NULL);
	map = handle("p", "flows", object);
	cr_expect_eq(pb_dp_map_info(map, &large.info), 0);
	cr_expect_eq(large.info.size, sizeof(info), "what the host knows");
	cr_expect_eq(large.newer, 42, "a member that the host doesn't know is left alone");
	info.size = 8;
	info.max_entries = 42;
	cr_expect_eq(pb_dp_map_info(map, &info), -EINVAL);
	cr_expect_eq(info.max_entries, 42);
	pb_dp_map_free(map);
	pb_dp_object_free(object);
}

/* A flip commits the objects of its slots; the layout objects have no program. */
Test(registry, a_reload_that_is_called_off_does_not_stop_sharing)
{
	const struct pb_map_opts shared = {.size = sizeof(shared),
					   .name = "flows",
					   .flags = PB_MAP_SHARED};
	struct pb_dp_object *live, *tried;
	struct pb_map *map = NULL;

	/* given */
	sandbox_open();
	live = first("p", &shared);
	pb_object_commit(live);

	/* when: a version that doesn't share is tried */
	tried = first("p", NULL);
	cr_assert_eq(pb_dp_map_new(sandbox.dp, "q", "p/flows", &map), 0);
	cr_expect_eq(pb_dp_map_resolve(map, NULL, 0, &sandbox.err), 0, "%s", sandbox.err.text);
	map = pb_dp_map_free(map);

	/* when: it goes live */
	pb_object_commit(tried);
	cr_assert_eq(pb_dp_map_new(sandbox.dp, "q", "p/flows", &map), 0);
	cr_expect_eq(pb_dp_map_resolve(map, NULL, 0, &sandbox.err), -EACCES);
	pb_dp_map_free(map);
	pb_dp_object_free(tried);
	pb_dp_object_free(live);
}

Test(registry, another_plugins_map_is_found_only_if_it_is_shared)
{
	const struct pb_map_opts shared = {.size = sizeof(shared),
					   .name = "flows",
					   .flags = PB_MAP_SHARED};
	struct pb_dp_object *one, *two;
	struct pb_map *map = NULL;

	sandbox_open();
	one = first("one", &shared);
	two = first("two", NULL);
	map = handle("reader", "one/flows", NULL);
	pb_dp_map_free(map);

	cr_assert_eq(pb_dp_map_new(sandbox.dp, "reader", "two/flows", &map), 0);
	cr_expect_eq(pb_dp_map_resolve(map, NULL, 0, &sandbox.err), -EACCES);
	cr_expect_not_null(strstr(sandbox.err.text, "plugin two doesn't share its map flows"));
	pb_dp_map_free(map);

	cr_assert_eq(pb_dp_map_new(sandbox.dp, "reader", "three/flows", &map), 0);
	cr_expect_eq(pb_dp_map_resolve(map, NULL, 0, &sandbox.err), -ENOENT);
	cr_expect_not_null(strstr(sandbox.err.text, "is plugin three loaded?"));
	cr_expect_eq(pb_dp_map_lookup(map, NULL, NULL), -ENXIO, "not resolved");
	pb_dp_map_free(map);
	pb_dp_object_free(one);
	pb_dp_object_free(two);
}

Test(registry, a_batch_says_how_many_entries_were_done_also_after_an_error)
{
	struct flow flows[20] = {0};
	struct pb_dp_object *object;
	struct pb_map *map;
	uint32_t keys[20], done = 99;

	sandbox_open();
	object = first("p", NULL);
	map = handle("p", "flows", object);
	for (uint32_t i = 0; i < 20; i++)
		keys[i] = i;
	cr_expect_eq(pb_dp_map_update_batch(map, keys, flows, 10, PB_MAP_ANY, &done), 0);
	cr_expect_eq(done, 10);
	cr_expect_eq(pb_dp_map_update_batch(map, keys, flows, 20, PB_MAP_ANY, &done), -E2BIG,
		     "the map holds 16");
	cr_expect_eq(done, 16);
	cr_expect_eq(pb_dp_map_update_batch(map, keys, flows, 1, PB_MAP_NOEXIST, &done), -EEXIST);
	cr_expect_eq(done, 0);
	cr_expect_eq(pb_dp_map_delete_batch(map, keys, 10, &done), 0);
	cr_expect_eq(done, 10);
	cr_expect_eq(pb_dp_map_delete_batch(map, keys, 1, &done), -ENOENT);
	cr_expect_eq(done, 0);
	cr_expect_eq(pb_dp_map_update_batch(map, keys, flows, 0, PB_MAP_ANY, &done), 0);
	pb_dp_map_free(map);
	pb_dp_object_free(object);
}

Test(registry, a_dump_shows_members_by_name)
{
	const struct flow flow = {.address = 9, .packets = 2, .b = 3, .ports = {80, 443}};
	PB_JSON_FREE cJSON *table = NULL;
	PB_JSON_FREE cJSON *list = NULL;
	PB_FREE char *text = NULL;
	struct pb_dp_object *object;
	struct pb_map *map;
	uint32_t key = 7;

	sandbox_open();
	object = first("p", NULL);
	map = handle("p", "flows", object);
	cr_assert_eq(pb_dp_map_update(map, &key, &flow, PB_MAP_ANY), 0);
	cr_assert_eq(pb_dp_map_dump_json(sandbox.dp, "p/flows", &table, &sandbox.err), 0, "%s",
		     sandbox.err.text);
	text = cJSON_PrintUnformatted(pb_json_path(table, "items"));
	cr_expect_str_eq(text, "[{\"key\":7,\"value\":{\"address\":9,\"packets\":2,"
			       "\"inner\":{\"a\":0,\"b\":3},\"ports\":[80,443]}}]");
	list = pb_dp_map_list_json(sandbox.dp);
	cr_expect_gt(cJSON_GetArraySize(pb_json_path(list, "items")), 10,
		     "core maps are listed too");
	cr_expect_eq(pb_dp_map_dump_json(sandbox.dp, "p/nothing", &table, &sandbox.err), -ENOENT);
	cr_expect_eq(pb_dp_map_dump_json(sandbox.dp, "core/pb_events", &table, &sandbox.err),
		     -ENOTSUP);
	pb_dp_map_free(map);
	pb_dp_object_free(object);

	/* then: entries of a plugin that is unloaded can still be looked at */
	cJSON_Delete(table);
	table = NULL;
	cr_expect_eq(pb_dp_map_dump_json(sandbox.dp, "p/flows", &table, &sandbox.err), 0);
	cr_expect_eq(cJSON_GetArraySize(pb_json_path(table, "items")), 1);
}

Test(registry, a_pods_endpoint_record_reads_as_an_admin_writes_addresses)
{
	const struct pb_endpoint ep = {.id = 5, .addr4.v4 = htonl(0x0a000102)};
	PB_JSON_FREE cJSON *table = NULL;
	const cJSON *value;

	sandbox_open();
	cr_assert_eq(pb_dp_pod_add(sandbox.dp, 1, &ep, &sandbox.err), 1, "nothing to attach");
	cr_assert_eq(pb_dp_map_dump_json(sandbox.dp, "core/pb_endpoints", &table, NULL), 0);
	value = cJSON_GetObjectItem(cJSON_GetArrayItem(pb_json_path(table, "items"), 0), "value");
	cr_expect_str_eq(pb_json_str(value, "addr4", ""), "10.0.1.2");
	cr_expect_eq(pb_dp_pod_remove(sandbox.dp, 1), 0);
	cr_expect_eq(pb_dp_pod_remove(sandbox.dp, 1), -ENOENT);
}

/* ---- objects that are refused ---- */

Test(registry, writable_globals_are_refused_and_the_variable_is_named)
{
	struct pb_dp_object *object = NULL;
	size_t len;
	const void *elf = globals_bpf__elf_bytes(&len);

	sandbox_open();
	cr_expect_eq(prepare("p", elf, len, NULL, &object), -EINVAL);
	cr_expect_not_null(strstr(sandbox.err.text,
				  "plugin p, object main: the variable globals_packets (.bss) is "
				  "writable global data"),
			   "%s", sandbox.err.text);
	pb_dp_object_free(object);
}

Test(registry, bytes_that_are_no_elf_are_refused)
{
	struct pb_dp_object *object = NULL;

	sandbox_open();
	cr_expect_lt(prepare("p", "not an ELF file at all", 22, NULL, &object), 0);
	cr_expect_not_null(strstr(sandbox.err.text, "not a BPF object that libbpf can open"), "%s",
			   sandbox.err.text);
	pb_dp_object_free(object);
}

Test(registry, a_program_that_the_verifier_refuses_is_reported_with_the_verifiers_words)
{
	struct pb_dp_object *object = NULL;
	struct pb_dp_build *build = NULL;
	struct pb_dp_slot slot;
	size_t len;
	const void *elf = refused_bpf__elf_bytes(&len);

	sandbox_open();
	cr_assert_eq(prepare("p", elf, len, NULL, &object), 0, "%s", sandbox.err.text);
	slot = sandbox_slot(PB_HOOK_POD_EGRESS, PB_BAND_POLICY, object, "s", "refused_read");
	cr_expect_lt(pb_dp_build(sandbox.dp, &slot, 1, 1U << PB_HOOK_POD_EGRESS, &build,
				 &sandbox.err),
		     0);
	cr_expect_not_null(strstr(sandbox.err.text, "plugin p, object main: program refused_read: "
						    "the kernel refused it: "),
			   "%s", sandbox.err.text);
	cr_expect_not_null(strstr(sandbox.err.text, "invalid access to packet"), "%s",
			   sandbox.err.text);
	pb_dp_object_free(object);
}

Test(registry, options_and_constants_for_what_the_object_does_not_have_are_refused)
{
	const struct pb_map_opts opts = {.size = sizeof(opts), .name = "flow", .schema = 1};
	struct pb_dp_object *object = NULL;
	uint32_t value = 1;
	size_t len;
	const void *elf = layout_first_bpf__elf_bytes(&len);

	sandbox_open();
	cr_expect_eq(prepare("p", elf, len, &opts, &object), -ENOENT);
	cr_expect_not_null(strstr(sandbox.err.text, "options are given for map flow"), "%s",
			   sandbox.err.text);
	object = pb_dp_object_free(object);

	object = sandbox_stages("p");
	cr_assert_eq(pb_dp_object_const(object, "stages_knid", &value, 4, NULL), 0);
	cr_expect_eq(pb_dp_object_prepare(object, &sandbox.err), -ENOENT);
	cr_expect_not_null(strstr(sandbox.err.text, "the object has no constant stages_knid"));
	object = pb_dp_object_free(object);

	object = sandbox_stages("p");
	cr_assert_eq(pb_dp_object_const(object, "stages_kind", &value, 2, NULL), 0);
	cr_expect_eq(pb_dp_object_prepare(object, &sandbox.err), -EINVAL);
	cr_expect_not_null(strstr(sandbox.err.text, "stages_kind has 4 bytes, 2 were given"));
	pb_dp_object_free(object);
}
