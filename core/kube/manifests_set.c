/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Applies what was read to what is in force. An object given by several files is the one of the
 * first file by name; when that file lets go of it, the next one's counts.
 */
#include <kube/manifests_set.h>

/* Deletes are sent before the item's own reference goes: names are the object's. */
static void tell_delete(struct pb_manifest_set *set, const struct pb_manifest_item *item)
{
	const struct pb_kube_meta *meta = pb_kube_object_meta(item->object);

	pb_sink_delete((struct pb_sink *)set->kube, item->kind, meta->ns, meta->name, NULL);
}

static void tell_put(struct pb_manifest_set *set, const struct pb_manifest_item *item)
{
	pb_kube_store_put(set->kube, pb_kube_object_ref(item->object));
}

static struct pb_manifest_item *find_head(struct pb_manifest_set *set, uint64_t key)
{
	struct pb_manifest_item *head;

	HASH_FIND(hh, set->index, &key, sizeof(key), head);
	return head;
}

static void set_head(struct pb_manifest_set *set, struct pb_manifest_item *old,
		     struct pb_manifest_item *head)
{
	if (old)
		HASH_DEL(set->index, old);
	if (head)
		HASH_ADD(hh, set->index, key, sizeof(head->key), head);
}

static void warn_twice(const struct pb_manifest_item *wins, const char *other)
{
	const struct pb_kube_meta *meta = pb_kube_object_meta(wins->object);

	pb_warn("kube", "%s %s/%s is in two places, in %s and in %s: the first counts; remove one",
		pb_kube_type(wins->kind)->name, meta->ns, meta->name, wins->file->path, other);
}

static void item_insert(struct pb_manifest_set *set, struct pb_manifest_item *item)
{
	struct pb_manifest_item *head = find_head(set, item->key), **at = &head;

	while (*at && strcmp((*at)->file->path, item->file->path) < 0)
		at = &(*at)->next;
	item->next = *at;
	if (at == &head) {
		set_head(set, head, item);
		tell_put(set, item);
		if (head)
			warn_twice(item, head->file->path);
		return;
	}
	*at = item;
	warn_twice(head, item->file->path);
}

static void item_remove(struct pb_manifest_set *set, struct pb_manifest_item *item)
{
	struct pb_manifest_item *head = find_head(set, item->key), **at = &head;

	if (head == item) {
		set_head(set, item, item->next);
		if (item->next)
			tell_put(set, item->next);
		else
			tell_delete(set, item);
	} else {
		while (*at != item)
			at = &(*at)->next;
		*at = item->next;
	}
	item->file->n--;
	pb_kube_object_unref(item->object);
	free(item);
}

static struct pb_manifest_item *find_item(struct pb_manifest_set *set, uint64_t key,
					  const struct pb_manifest_held *file)
{
	struct pb_manifest_item *item = find_head(set, key);

	while (item && item->file != file)
		item = item->next;
	return item;
}

static void item_new(struct pb_manifest_set *set, struct pb_manifest_held *file,
		     struct pb_manifest_object *object)
{
	struct pb_manifest_item *item = calloc(1, sizeof(*item));

	if (!item) {
		pb_error("kube", "%s: out of memory", file->path);
		return;
	}
	item->file = file;
	item->key = object->key;
	item->kind = object->kind;
	item->round = file->round;
	item->object = PB_TAKE_PTR(object->object);
	item->in_file = file->items;
	file->items = item;
	file->n++;
	item_insert(set, item);
}

static bool is_same(const struct pb_kube_object *a, const struct pb_kube_object *b)
{
	return a->digest == b->digest && a->len == b->len;
}

static void item_replace(struct pb_manifest_set *set, struct pb_manifest_item *item,
			 struct pb_manifest_object *object)
{
	/* The old one stays if it says the same, so that the store and this item share one. */
	if (is_same(item->object, object->object))
		return;
	pb_kube_object_unref(item->object);
	item->object = PB_TAKE_PTR(object->object);
	if (find_head(set, item->key) == item)
		tell_put(set, item);
}

static void note_error(struct pb_manifest_held *file, const char *text)
{
	if (!file->error && text)
		file->error = strdup(text);
}

static void apply_object(struct pb_manifest_set *set, struct pb_manifest_held *file,
			 struct pb_manifest_object *object)
{
	struct pb_manifest_item *item;

	if (!(set->kinds & 1U << object->kind))
		return;
	item = find_item(set, object->key, file);
	if (object->text) {
		pb_warn("kube", "%s: %s%s", file->path, object->text,
			object->object ? ""
			: item	       ? " (its last good state stays)"
				       : " (left out)");
		note_error(file, object->text);
	}
	if (!object->object) {
		pb_kube_store_refused(set->kube, object->kind, object->text);
		if (item)
			item->round = file->round;
		return;
	}
	if (!item) {
		item_new(set, file, object);
		return;
	}
	if (item->round == file->round) {
		warn_twice(item, file->path);
		return;
	}
	item->round = file->round;
	item_replace(set, item, object);
}

static struct pb_manifest_held *held_find(struct pb_manifest_set *set, const char *path, bool make)
{
	struct pb_manifest_held *held;
	size_t len = strlen(path);

	HASH_FIND_STR(set->files, path, held);
	if (held || !make)
		return held;
	held = calloc(1, sizeof(*held) + len + 1);
	if (!held)
		return NULL;
	memcpy(held->path, path, len);
	HASH_ADD_STR(set->files, path, held);
	return held;
}

/* A file that fails again for the same reason isn't reported again. */
static void file_failed(struct pb_manifest_held *held, const char *why)
{
	if (!held->is_broken || !held->error || !why || strcmp(held->error, why) != 0)
		pb_warn("kube", "%s: %s (its %u objects of before stay)", held->path,
			why ? why : "can't be read", held->n);
	free(held->error);
	held->error = strdup(why ? why : "can't be read");
	held->is_broken = true;
}

/* False: nothing of this file is to be applied. */
static bool start_file(struct pb_manifest_set *set, struct pb_manifest_file *result)
{
	bool is_gone = result->outcome == PB_MANIFEST_GONE;

	set->held = held_find(set, result->path, !is_gone);
	if (!set->held || result->outcome == PB_MANIFEST_SAME)
		return false;
	set->held->mark = result->mark;
	if (result->outcome == PB_MANIFEST_FAILED) {
		file_failed(set->held, result->error);
		return false;
	}
	free(set->held->error);
	set->held->error = NULL;
	set->held->is_broken = false;
	set->held->round++;
	set->at = 0;
	set->sweep = &set->held->items;
	return true;
}

static void end_file(struct pb_manifest_set *set)
{
	struct pb_manifest_file *result = set->result;

	if (set->held && result->outcome == PB_MANIFEST_GONE) {
		HASH_DEL(set->files, set->held);
		free(set->held->error);
		free(set->held);
	}
	set->held = NULL;
	set->sweep = NULL;
	set->result = result->next;
}

/* One object put, or one that the file no longer holds removed. False: the file is done. */
static bool step_file(struct pb_manifest_set *set)
{
	struct pb_manifest_item *item;

	if (set->at < set->result->n_objects) {
		apply_object(set, set->held, &set->result->objects[set->at++]);
		return true;
	}
	item = *set->sweep;
	if (!item)
		return false;
	if (item->round == set->held->round) {
		set->sweep = &item->in_file;
		return true;
	}
	*set->sweep = item->in_file;
	item_remove(set, item);
	return true;
}

void pb_manifest_set_start(struct pb_manifest_set *set, struct pb_manifest_file *files)
{
	set->result = files;
	set->held = NULL;
	set->sweep = NULL;
}

bool pb_manifest_set_step(struct pb_manifest_set *set, uint64_t until)
{
	for (unsigned n = 1; set->result; n++) {
		/* Reading the clock costs more than a step that finds nothing to do. */
		if (n % 16 == 0 && uv_hrtime() >= until)
			return true;
		if ((!set->sweep && !start_file(set, set->result)) || !step_file(set))
			end_file(set);
	}
	return false;
}

void pb_manifest_set_forget(struct pb_manifest_set *set, uint32_t kind)
{
	struct pb_manifest_held *held, *tmp;

	HASH_ITER (hh, set->files, held, tmp) {
		struct pb_manifest_item **at = &held->items;

		while (*at) {
			struct pb_manifest_item *item = *at;

			if (item->kind != kind) {
				at = &item->in_file;
				continue;
			}
			*at = item->in_file;
			item_remove(set, item);
		}
	}
	/* It may have pointed to an item that is gone; the next full reading sweeps again. */
	if (set->sweep)
		set->sweep = &set->held->items;
}

void pb_manifest_set_free(struct pb_manifest_set *set)
{
	struct pb_manifest_held *held, *tmp;
	struct pb_manifest_item *head, *next_head;

	HASH_ITER (hh, set->index, head, next_head)
		HASH_DEL(set->index, head);
	HASH_ITER (hh, set->files, held, tmp) {
		HASH_DEL(set->files, held);
		while (held->items) {
			struct pb_manifest_item *item = held->items;

			held->items = item->in_file;
			pb_kube_object_unref(item->object);
			free(item);
		}
		free(held->error);
		free(held);
	}
}
