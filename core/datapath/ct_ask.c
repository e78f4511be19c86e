/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the commands ask of the map of flows: a page of it, or that flows go. On the pool: there may
 * be half a million.
 */
#include <bpf/bpf.h>

#include <datapath/ct_private.h>

#define PAGE_ROWS 128
#define PAGE_READ 256	 /* rows at a time: a place lies between two reads */
#define PAGE_LOOKS 65536 /* entries read for a page, whether the filter takes them or not */

/* ---- a page ---- */

struct page {
	struct pb_ct_filter filter;
	struct pb_ct_place place;
	struct pb_ct_key *keys;
	struct pb_ct *values;
	uint32_t max;
	cJSON *items;
	uint32_t rows, looks;
	uint32_t now_s;
	bool nat;
};

static void add_rows(struct page *p, uint32_t n)
{
	p->looks += n;
	for (uint32_t i = 0; i < n; i++) {
		if (!pb_ct_filter_passes(&p->filter, &p->keys[i], &p->values[i]) ||
		    (p->nat && !pb_ct_is_nat(&p->keys[i], &p->values[i])))
			continue;
		p->rows++;
		if (p->nat)
			pb_ct_nat_row(p->items, &p->keys[i], &p->values[i], p->now_s);
		else
			pb_ct_row(p->items, &p->keys[i], &p->values[i], p->now_s);
	}
}

static int room(struct page *p, uint32_t max)
{
	free(p->keys);
	free(p->values);
	p->max = max;
	p->keys = calloc(max, sizeof(*p->keys));
	p->values = calloc(max, sizeof(*p->values));
	return p->keys && p->values ? 0 : -ENOMEM;
}

static int read_rows(int fd, struct page *p)
{
	int rc = room(p, PAGE_READ);

	while (rc == 0 && !p->place.ended && p->rows < PAGE_ROWS && p->looks < PAGE_LOOKS) {
		uint32_t n = 0;

		rc = pb_ct_read(fd, &p->place, p->keys, p->values, p->max, &n);
		if (rc == -ENOSPC && p->max < PAGE_LOOKS)
			rc = room(p, p->max * 2);
		else if (rc == 0)
			add_rows(p, n);
	}
	free(p->keys);
	free(p->values);
	return rc;
}

cJSON *pb_ct_page(int fd, const char *filter, const char *after, bool nat, uint32_t now_s,
		  struct pb_err *err)
{
	struct page page = {.now_s = now_s, .nat = nat};
	PB_JSON_FREE cJSON *table = NULL;
	char next[PB_CT_PLACE_TEXT];
	int rc = pb_ct_filter_parse(filter, &page.filter, err);

	if (rc < 0)
		return NULL;
	if (pb_ct_place_parse(after, &page.place) < 0) {
		pb_err_set(err, -EINVAL, "\"%.60s\" is no place in the list; leave it out", after);
		return NULL;
	}
	/* The kernel would begin again: the list wouldn't end. */
	if (page.place.by_key && bpf_map_lookup_elem(fd, &page.place.key, &(struct pb_ct){0}) < 0) {
		pb_err_set(err, -EAGAIN, "flows went while they were listed; ask again");
		return NULL;
	}
	table = pb_ct_rows_new(nat, &page.items);
	rc = table ? read_rows(fd, &page) : -ENOMEM;
	if (rc < 0) {
		pb_err_set(err, rc, "the map pb_ct can't be read: %s", strerror(-rc));
		return NULL;
	}
	pb_ct_place_text(&page.place, next, sizeof(next));
	if (!page.place.ended)
		cJSON_AddStringToObject(table, "next", next);
	return PB_TAKE_PTR(table);
}

/* ---- flush ---- */

struct flush {
	struct pb_ct_doomed doomed;
	const struct pb_ct_filter *filter;
};

static int flush_chunk(void *arg, const struct pb_ct_key *keys, const struct pb_ct *values,
		       uint32_t n)
{
	struct flush *f = arg;
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < n; i++) {
		struct pb_ct_key pair = pb_ct_pair(&keys[i], &values[i]);
		const bool single = values[i].flags & PB_CT_SINGLE;

		if (pb_ct_filter_passes(f->filter, &keys[i], &values[i]))
			rc = pb_ct_doom(&f->doomed, &keys[i], &values[i], single ? NULL : &pair);
	}
	return rc < 0 ? rc : pb_ct_doomed_end(&f->doomed);
}

int64_t pb_ct_flush_run(struct pb_ct_walk *walk, const struct pb_ct_filter *filter)
{
	PB_FREE struct flush *f = calloc(1, sizeof(*f));
	int rc;

	if (!f)
		return -ENOMEM;
	f->doomed.fd = walk->fd;
	f->filter = filter;
	rc = pb_ct_walk(walk, flush_chunk, f);
	return rc < 0 ? rc : (int64_t)f->doomed.deleted;
}
