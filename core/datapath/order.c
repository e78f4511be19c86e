/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of the programs on one hook, solved from bands, `before` and `after`, and names.
 *
 * Pure: looks at nothing but its arguments, so the same plan always gives the same chain. Names
 * that no slot of the band has are ignored; a contradiction is an error that shows the cycle.
 */
#include <datapath/datapath.h>

/* True when the blank separated list names `word`. */
static bool list_has(const char *list, const char *word)
{
	size_t len = strlen(word);

	while (list && *list) {
		size_t n;

		list += strspn(list, " \t");
		n = strcspn(list, " \t");
		if (n == len && n > 0 && memcmp(list, word, n) == 0)
			return true;
		list += n;
	}
	return false;
}

/* True when a must come somewhere before b. */
static bool must_precede(const struct pb_dp_slot *a, const struct pb_dp_slot *b)
{
	if (a->band != b->band)
		return a->band < b->band;
	return list_has(a->before, b->name) || list_has(b->after, a->name);
}

/* Some slot from `from` on that must precede `slot`, the smallest name first; NULL when none. */
static struct pb_dp_slot *find_blocker(struct pb_dp_slot *from, struct pb_dp_slot *end,
				       const struct pb_dp_slot *slot)
{
	struct pb_dp_slot *found = NULL;

	for (struct pb_dp_slot *s = from; s < end; s++) {
		if (!must_precede(s, slot))
			continue;
		if (!found || strcmp(s->name, found->name) < 0)
			found = s;
	}
	return found;
}

/*
 * Every slot in [from, end) waits for another one of them. Walks from blocker to blocker until
 * one comes twice, then prints the cycle in the order of the chain, smallest name first.
 */
static int report_cycle(struct pb_dp_slot *from, struct pb_dp_slot *end, struct pb_err *err)
{
	size_t n = (size_t)(end - from), len = 0, first = 0, smallest;
	PB_FREE struct pb_dp_slot **path = calloc(n + 1, sizeof(*path));
	PB_BUF_FREE struct pb_buf text = {0};
	struct pb_dp_slot *s = from;

	if (!path)
		return pb_err_set(err, -ENOMEM, "no memory");
	for (;;) {
		for (first = 0; first < len && path[first] != s; first++)
			;
		if (first < len)
			break;
		path[len++] = s;
		s = find_blocker(from, end, s);
	}
	smallest = first;
	for (size_t i = first; i < len; i++)
		if (strcmp(path[i]->name, path[smallest]->name) < 0)
			smallest = i;
	/* path[i + 1] precedes path[i]: going down gives the order of the chain. */
	for (size_t i = 0, at = smallest; i < len - first; i++) {
		pb_buf_printf(&text, "%s -> ", path[at]->name);
		at = at == first ? len - 1 : at - 1;
	}
	return pb_err_set(
		err, -ELOOP,
		"hook %s, band %s: the order is a cycle: %s%s; drop one of these before or "
		"after",
		pb_hook_name(from->hook), pb_band_name(path[smallest]->band),
		text.data ? text.data : "", path[smallest]->name);
}

static int check_slots(const struct pb_dp_slot *slots, size_t n, struct pb_err *err)
{
	for (size_t i = 0; i < n; i++) {
		if (slots[i].band >= PB_BAND_COUNT)
			return pb_err_set(err, -EINVAL,
					  "slot %s of plugin %s: no band has number %u",
					  slots[i].name, slots[i].plugin, slots[i].band);
		for (size_t j = 0; j < i; j++)
			if (strcmp(slots[i].name, slots[j].name) == 0)
				return pb_err_set(
					err, -EEXIST,
					"hook %s: plugins %s and %s both have a slot named "
					"%s; rename one",
					pb_hook_name(slots[i].hook), slots[j].plugin,
					slots[i].plugin, slots[i].name);
	}
	return 0;
}

int pb_dp_order(struct pb_dp_slot *slots, size_t n, struct pb_err *err)
{
	struct pb_dp_slot *end = slots + n;
	int rc = check_slots(slots, n, err);

	for (struct pb_dp_slot *at = slots; rc == 0 && at < end; at++) {
		struct pb_dp_slot *next = NULL;
		struct pb_dp_slot taken;

		for (struct pb_dp_slot *s = at; s < end; s++) {
			if (find_blocker(at, end, s))
				continue;
			if (!next || strcmp(s->name, next->name) < 0)
				next = s;
		}
		if (!next)
			return report_cycle(at, end, err);
		taken = *next;
		memmove(at + 1, at, (size_t)(next - at) * sizeof(*at));
		*at = taken;
	}
	return rc;
}
