/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The objects by kind and name, as the source reports them. Changes are noted for the watches,
 * never told from here: no callback of a watcher runs inside a call of the source.
 */
#include <kube/store.h>

#include <inttypes.h>

static struct pb_kube *kube_of(struct pb_sink *sink)
{
	return (struct pb_kube *)sink;
}

static struct pb_kube_store *store_of(struct pb_kube *kube, uint32_t kind)
{
	struct pb_kube_store *store;

	if (!pb_kube_type(kind) || kube->closing)
		return NULL;
	store = &kube->stores[kind];
	/* What the source sends late about a kind that nobody watches any more isn't kept. */
	return store->watches ? store : NULL;
}

static void set_text(char **slot, const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	free(*slot);
	*slot = copy;
}

static size_t entry_key(char *buf, size_t size, const char *ns, const char *name)
{
	int len = snprintf(buf, size, "%s/%s", ns, name);

	return len > 0 && (size_t)len < size ? (size_t)len : 0;
}

static struct pb_kube_entry *entry_find(struct pb_kube_store *store, const char *key, size_t len)
{
	struct pb_kube_entry *entry;

	HASH_FIND(hh, store->entries, key, len, entry);
	return entry;
}

static struct pb_kube_entry *entry_new(struct pb_kube_store *store, const char *key, size_t len)
{
	struct pb_kube_entry *entry = calloc(1, sizeof(*entry) + len + 1);

	if (!entry)
		return NULL;
	memcpy(entry->key, key, len);
	entry->seq = store->next_seq++;
	entry->listed = store->list;
	HASH_ADD_KEYPTR(hh, store->entries, entry->key, len, entry);
	if (entry->hh.tbl)
		return entry;
	free(entry);
	return NULL;
}

void pb_kube_store_settle(struct pb_kube_store *store, struct pb_kube_entry *entry)
{
	struct pb_kube_watch *watch;

	if (entry->object || entry->notes)
		return;
	DL_FOREACH (store->watches, watch)
		if (watch->cursor == entry)
			watch->cursor = entry->hh.next;
	HASH_DEL(store->entries, entry);
	free(entry);
}

static uint64_t cost_of(const struct pb_kube_object *object)
{
	return object ? sizeof(struct pb_kube_entry) + sizeof(*object) + object->len : 0;
}

/* The newest list, or an event since, names the entry. */
static void entry_named(struct pb_kube_store *store, struct pb_kube_entry *entry)
{
	uint64_t cost = cost_of(entry->object);

	if (entry->listed == store->list)
		return;
	entry->listed = store->list;
	store->old_bytes -= cost;
	store->bytes += cost;
}

/* Room for `object` in place of the entry's; NULL: for a new entry. */
static bool has_room(const struct pb_kube *kube, const struct pb_kube_store *store,
		     const struct pb_kube_entry *entry, const struct pb_kube_object *object)
{
	uint64_t bytes = store->bytes + cost_of(object);

	if (entry)
		bytes -= cost_of(entry->object);
	return bytes <= kube->bytes_max && bytes + store->old_bytes <= 2 * kube->bytes_max;
}

/* Said once a list: a kind that doesn't fit has many such objects. */
static void refuse_full(struct pb_kube *kube, struct pb_kube_object *object)
{
	const struct pb_kube_meta *meta = pb_kube_object_meta(object);
	struct pb_kube_store *store = &kube->stores[meta->kind];
	struct pb_err err;

	pb_err_set(&err, -ENOSPC,
		   "%s %s/%s: not kept: the objects of this kind would take more than %" PRIu64
		   " MiB",
		   pb_kube_type(meta->kind)->name, meta->ns, meta->name,
		   kube->bytes_max / (1024 * 1024));
	if (!store->full)
		pb_error("kube", "%s", err.text);
	store->full = true;
	pb_kube_store_refused(kube, meta->kind, err.text);
	pb_kube_object_unref(object);
}

/* Takes the reference. */
static void entry_set(struct pb_kube *kube, struct pb_kube_entry *entry,
		      struct pb_kube_object *object)
{
	uint32_t kind = pb_kube_object_meta(object)->kind;
	struct pb_kube_store *store = &kube->stores[kind];

	pb_kube_note_change(kube, kind, entry);
	store->bytes += cost_of(object) - cost_of(entry->object);
	store->objects += !entry->object;
	store->events++;
	pb_kube_object_unref(entry->object);
	entry->object = object;
}

void pb_kube_store_put(struct pb_kube *kube, struct pb_kube_object *object)
{
	const struct pb_kube_meta *meta = pb_kube_object_meta(object);
	struct pb_kube_store *store = store_of(kube, meta->kind);
	struct pb_kube_entry *entry;
	char key[512];
	size_t len = entry_key(key, sizeof(key), meta->ns, meta->name);

	if (!store || !len) {
		pb_kube_object_unref(object);
		return;
	}
	entry = entry_find(store, key, len);
	if (entry)
		entry_named(store, entry);
	if (entry && entry->object && pb_kube_object_same(entry->object, object)) {
		pb_kube_object_unref(object);
		return;
	}
	if (!has_room(kube, store, entry, object))
		refuse_full(kube, object);
	else if (entry || (entry = entry_new(store, key, len)))
		entry_set(kube, entry, object);
	else
		pb_kube_object_unref(object);
}

static void entry_delete(struct pb_kube *kube, uint32_t kind, struct pb_kube_entry *entry)
{
	struct pb_kube_store *store = &kube->stores[kind];

	if (!entry->object)
		return;
	pb_kube_note_change(kube, kind, entry);
	store->objects--;
	*(entry->listed == store->list ? &store->bytes : &store->old_bytes) -=
		cost_of(entry->object);
	store->events++;
	pb_kube_object_unref(entry->object);
	entry->object = NULL;
	pb_kube_store_settle(store, entry);
}

void pb_kube_store_clear(struct pb_kube *kube, uint32_t kind)
{
	struct pb_kube_entry *entry, *tmp;

	HASH_ITER (hh, kube->stores[kind].entries, entry, tmp)
		entry_delete(kube, kind, entry);
}

void pb_kube_store_refused(struct pb_kube *kube, uint32_t kind, const char *text)
{
	struct pb_kube_store *store = store_of(kube, kind);

	if (!store)
		return;
	store->refused++;
	set_text(&store->last_error, text);
}

void pb_sink_list_begin(struct pb_sink *sink, uint32_t kind)
{
	struct pb_kube_store *store = store_of(kube_of(sink), kind);

	if (!store)
		return;
	store->list++;
	store->listing = true;
	store->full = false;
	store->old_bytes += store->bytes;
	store->bytes = 0;
	store->next_version[0] = '\0';
}

static int decode(uint32_t kind, const char *api_version, const struct pb_scan_doc *doc,
		  struct pb_kube_object **ret_object, unsigned *ret_warns, struct pb_err *err)
{
	struct pb_kube_head head;

	if (pb_span_type(doc->root) != '{')
		return pb_err_set(err, -EINVAL, "%s: not a JSON object", pb_kube_type(kind)->name);
	pb_kube_head(doc, kind, api_version, &head);
	if (head.kind && head.kind != kind)
		return pb_err_set(err, -EINVAL, "%s %s/%s: where a %s was expected", head.kind_name,
				  head.ns, head.name, pb_kube_type(kind)->name);
	return pb_kube_decode_span(doc->root, &head, ret_object, ret_warns, err);
}

/* The object that can't be decoded is in the list all the same: its last good state stays. */
static void keep_listed(struct pb_kube_store *store, uint32_t kind, const struct pb_scan_doc *doc)
{
	struct pb_kube_entry *entry;
	struct pb_kube_head head;
	char key[512];

	pb_kube_head(doc, kind, NULL, &head);
	entry = entry_find(store, key, entry_key(key, sizeof(key), head.ns, head.name));
	if (entry)
		entry_named(store, entry);
}

int pb_sink_put_doc(struct pb_sink *sink, uint32_t kind, const char *api_version,
		    const struct pb_scan_doc *doc, struct pb_err *err)
{
	struct pb_kube *kube = kube_of(sink);
	struct pb_kube_store *store = store_of(kube, kind);
	struct pb_kube_object *object = NULL;
	struct pb_err local = {0};
	unsigned warns = 0;
	int rc;

	if (!store)
		return 0;
	rc = decode(kind, api_version, doc, &object, &warns, &local);
	if (rc < 0) {
		keep_listed(store, kind, doc);
		pb_kube_store_refused(kube, kind, local.text);
		return pb_err_set(err, rc, "%s", local.text);
	}
	if (warns) {
		set_text(&store->last_error, local.text);
		pb_warn("kube", "%s (%u left out in this object)", local.text, warns);
	}
	pb_kube_store_put(kube, object);
	return 0;
}

int pb_sink_put(struct pb_sink *sink, uint32_t kind, const char *api_version, const char *json,
		size_t len, struct pb_err *err)
{
	struct pb_err local = {0};
	struct pb_scan_doc doc;
	int rc;

	if (!store_of(kube_of(sink), kind))
		return 0;
	rc = pb_scan_check_doc(json, len, &doc, &local);
	if (rc == 0)
		return pb_sink_put_doc(sink, kind, api_version, &doc, err);
	pb_err_prefix(&local, "%s", pb_kube_type(kind)->name);
	pb_kube_store_refused(kube_of(sink), kind, local.text);
	return pb_err_set(err, rc, "%s", local.text);
}

/* Not the object that the deletion is about. */
static bool is_other(const struct pb_kube_entry *entry, const char *uid)
{
	const char *stored = pb_kube_object_meta(entry->object)->uid;

	return uid && *uid && *stored && strcmp(stored, uid) != 0;
}

int pb_sink_delete(struct pb_sink *sink, uint32_t kind, const char *ns, const char *name,
		   const char *uid)
{
	struct pb_kube *kube = kube_of(sink);
	struct pb_kube_store *store = store_of(kube, kind);
	struct pb_kube_entry *entry;
	char key[512];

	if (!store)
		return 0;
	if (!pb_kube_type(kind)->namespaced)
		ns = "";
	entry = entry_find(store, key, entry_key(key, sizeof(key), ns ? ns : "", name));
	if (!entry || !entry->object || is_other(entry, uid))
		return -ENOENT;
	entry_delete(kube, kind, entry);
	return 0;
}

void pb_sink_list_end(struct pb_sink *sink, uint32_t kind)
{
	struct pb_kube *kube = kube_of(sink);
	struct pb_kube_store *store = store_of(kube, kind);
	struct pb_kube_entry *entry, *tmp;

	if (!store || !store->listing)
		return;
	HASH_ITER (hh, store->entries, entry, tmp)
		if (entry->listed != store->list)
			entry_delete(kube, kind, entry);
	store->listing = false;
	store->lists++;
	pb_kube_known_set(kube, kind, PB_KNOWN_SYNCED);
}

void pb_sink_version(struct pb_sink *sink, uint32_t kind, const char *api_version)
{
	struct pb_kube_store *store = store_of(kube_of(sink), kind);

	if (store)
		snprintf(store->next_version, sizeof(store->next_version), "%s", api_version);
}

void pb_sink_list_abort(struct pb_sink *sink, uint32_t kind)
{
	struct pb_kube_store *store = store_of(kube_of(sink), kind);

	if (store)
		store->listing = false;
}

void pb_sink_absent(struct pb_sink *sink, uint32_t kind)
{
	struct pb_kube *kube = kube_of(sink);
	struct pb_kube_store *store = store_of(kube, kind);

	if (!store)
		return;
	pb_kube_store_clear(kube, kind);
	store->listing = false;
	pb_kube_known_set(kube, kind, PB_KNOWN_ABSENT);
}

void pb_kube_state_forget(struct pb_kube_store *store)
{
	set_text(&store->state, NULL);
	store->healthy = false;
}

void pb_sink_state(struct pb_sink *sink, uint32_t kind, bool healthy, const char *text)
{
	struct pb_kube_store *store = store_of(kube_of(sink), kind);

	if (!store)
		return;
	store->healthy = healthy;
	set_text(&store->state, text);
}

void pb_sink_error(struct pb_sink *sink, uint32_t kind, const char *text)
{
	struct pb_kube_store *store = store_of(kube_of(sink), kind);

	if (store)
		set_text(&store->last_error, text);
}
