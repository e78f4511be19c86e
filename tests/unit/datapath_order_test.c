/* SPDX-License-Identifier: Apache-2.0 */
/* The order of a hook's programs: bands first, then before and after, then names. */
#include <criterion/criterion.h>

#include <datapath/bpflog.h>
#include <datapath/datapath.h>

#define SLOTS_MAX 8

struct order_case {
	const char *given; /* what the row shows */
	struct {
		const char *name;
		uint32_t band;
		const char *before, *after;
	} slots[SLOTS_MAX];
	const char *order; /* names in the chain's order; NULL: a cycle */
	const char *error; /* a part of the text */
	int rc;
};

static const struct order_case cases[] = {
	{"no slots", {{0}}, "", NULL, 0},
	{"names decide when nothing else does",
	 {{"c", PB_BAND_POLICY, 0, 0}, {"a", PB_BAND_POLICY, 0, 0}, {"b", PB_BAND_POLICY, 0, 0}},
	 "a b c",
	 NULL,
	 0},
	{"bands beat names",
	 {{"a", PB_BAND_OBSERVE, 0, 0},
	  {"b", PB_BAND_FORWARD, 0, 0},
	  {"c", PB_BAND_L7, 0, 0},
	  {"d", PB_BAND_POLICY, 0, 0},
	  {"e", PB_BAND_SERVICE, 0, 0},
	  {"f", PB_BAND_DECAP, 0, 0}},
	 "f e d c b a",
	 NULL,
	 0},
	{"before moves a slot forward",
	 {{"a", PB_BAND_POLICY, 0, 0}, {"z", PB_BAND_POLICY, "a", 0}},
	 "z a",
	 NULL,
	 0},
	{"after moves a slot back",
	 {{"a", PB_BAND_POLICY, 0, "z"}, {"z", PB_BAND_POLICY, 0, 0}},
	 "z a",
	 NULL,
	 0},
	{"a list names several",
	 {{"a", PB_BAND_POLICY, 0, "x  y"},
	  {"x", PB_BAND_POLICY, 0, 0},
	  {"y", PB_BAND_POLICY, 0, 0}},
	 "x y a",
	 NULL,
	 0},
	{"a name that is a part of another doesn't match",
	 {{"ab", PB_BAND_POLICY, 0, 0}, {"b", PB_BAND_POLICY, "a", 0}},
	 "ab b",
	 NULL,
	 0},
	{"an unknown neighbour is ignored",
	 {{"b", PB_BAND_POLICY, "nobody", "nobody"}, {"a", PB_BAND_POLICY, 0, 0}},
	 "a b",
	 NULL,
	 0},
	{"a neighbour in another band is ignored",
	 {{"late", PB_BAND_FORWARD, "early", 0}, {"early", PB_BAND_POLICY, 0, 0}},
	 "early late",
	 NULL,
	 0},
	{"a slot that names itself waits for itself",
	 {{"a", PB_BAND_POLICY, "a", 0}},
	 NULL,
	 "hook pod-egress, band policy: the order is a cycle: a -> a;",
	 -ELOOP},
	{"two that want to be first",
	 {{"a", PB_BAND_POLICY, "b", 0}, {"b", PB_BAND_POLICY, "a", 0}},
	 NULL,
	 "the order is a cycle: a -> b -> a;",
	 -ELOOP},
	{"three in a ring, and one before them that isn't part of it",
	 {{"first", PB_BAND_DECAP, 0, 0},
	  {"c", PB_BAND_POLICY, "a", 0},
	  {"b", PB_BAND_POLICY, "c", 0},
	  {"a", PB_BAND_POLICY, "b", 0}},
	 NULL,
	 "the order is a cycle: a -> b -> c -> a;",
	 -ELOOP},
	{"one that waits for a ring isn't printed",
	 {{"a", PB_BAND_POLICY, 0, "b"},
	  {"b", PB_BAND_POLICY, "c", 0},
	  {"c", PB_BAND_POLICY, "b", 0}},
	 NULL,
	 "the order is a cycle: b -> c -> b;",
	 -ELOOP},
	{"two slots of one name",
	 {{"a", PB_BAND_POLICY, 0, 0}, {"a", PB_BAND_L7, 0, 0}},
	 NULL,
	 "plugins p and p both have a slot named a",
	 -EEXIST},
	{"a band that doesn't exist",
	 {{"a", 6, 0, 0}},
	 NULL,
	 "slot a of plugin p: no band has number 6",
	 -EINVAL},
};

static size_t fill(const struct order_case *c, struct pb_dp_slot *slots)
{
	size_t n = 0;

	for (; n < SLOTS_MAX && c->slots[n].name; n++)
		slots[n] = (struct pb_dp_slot){.hook = PB_HOOK_POD_EGRESS,
					       .plugin = "p",
					       .name = c->slots[n].name,
					       .band = c->slots[n].band,
					       .before = c->slots[n].before,
					       .after = c->slots[n].after};
	return n;
}

Test(datapath_order, bands_then_neighbours_then_names)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		PB_BUF_FREE struct pb_buf got = {0};
		struct pb_dp_slot slots[SLOTS_MAX];
		struct pb_err err = {0};
		size_t n = fill(&cases[i], slots);

		cr_expect_eq(pb_dp_order(slots, n, &err), cases[i].rc, "%s", cases[i].given);
		if (cases[i].error) {
			cr_expect_not_null(strstr(err.text, cases[i].error), "%s: %s",
					   cases[i].given, err.text);
			continue;
		}
		pb_buf_append(&got, "", 0);
		for (size_t k = 0; k < n; k++)
			pb_buf_printf(&got, "%s%s", k ? " " : "", slots[k].name);
		cr_expect_str_eq(got.data, cases[i].order, "%s", cases[i].given);
	}
}

Test(datapath_order, the_order_does_not_depend_on_who_was_loaded_first)
{
	/* given: every rotation of the same plan */
	const struct order_case *plan = &cases[2];

	for (size_t shift = 0; shift < 6; shift++) {
		struct pb_dp_slot slots[SLOTS_MAX], turned[SLOTS_MAX];
		size_t n = fill(plan, slots);

		for (size_t k = 0; k < n; k++)
			turned[k] = slots[(k + shift) % n];
		cr_assert_eq(pb_dp_order(turned, n, NULL), 0);
		cr_expect_str_eq(turned[0].name, "f");
		cr_expect_str_eq(turned[n - 1].name, "a");
	}
}

/* ---- what an admin is told of a refused program ---- */

Test(datapath_order, the_cause_is_the_end_of_the_verifiers_log)
{
	static const char log[] = "libbpf: prog 'kpr': BPF program load failed: Permission denied\n"
				  "libbpf: prog 'kpr': -- BEGIN PROG LOAD LOG --\n"
				  "0: R1=ctx(off=0,imm=0) R10=fp0\n"
				  "; int kpr(struct __sk_buff *ctx)\n"
				  "1: (61) r1 = *(u32 *)(r1 +76)\n"
				  "; return *p;\n"
				  "2: (71) r0 = *(u8 *)(r1 +0)\n"
				  "invalid access to packet, off=0 size=1, R1(id=0,off=0,r=0)\n"
				  "processed 3 insns (limit 1000000) max_states_per_insn 0\n"
				  "-- END PROG LOAD LOG --\n"
				  "libbpf: failed to load object 'kpr'\n";
	char cause[512];

	pb_bpflog_cause(log, cause, sizeof(cause));
	cr_expect_str_eq(cause, "1: (61) r1 = *(u32 *)(r1 +76); ; return *p;; "
				"2: (71) r0 = *(u8 *)(r1 +0); "
				"invalid access to packet, off=0 size=1, R1(id=0,off=0,r=0)");
}

Test(datapath_order, without_a_verifiers_log_the_cause_is_what_libbpf_said)
{
	char cause[512];

	pb_bpflog_cause("libbpf: elf: 'x' is not a valid ELF object\n", cause, sizeof(cause));
	cr_expect_str_eq(cause, "elf: 'x' is not a valid ELF object");
	pb_bpflog_cause("", cause, sizeof(cause));
	cr_expect_str_eq(cause, "");
}
