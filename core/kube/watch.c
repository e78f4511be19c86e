/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling watchers: replay, notes, holding back. All of it happens in the idle callback, in
 * slices of bounded time; a watcher may watch and unwatch from inside its callback.
 */
#include <kube/store.h>

/* How long watchers are told in one turn of the loop. */
#define SLICE_NS (1000 * 1000ULL)
/* Events of one watch before the next one's turn. */
#define BURST 32

static void note_add(struct pb_kube_watch *watch, struct pb_kube_entry *entry)
{
	struct pb_kube_note *note = malloc(sizeof(*note));

	if (!note) {
		/* Going on would leave a watcher with an object that is freed. */
		pb_error("kube", "out of memory: the agent can't keep its view of Kubernetes");
		abort();
	}
	*note = (struct pb_kube_note){.watch = watch, .entry = entry};
	if (entry->object)
		note->told = pb_kube_object_ref(entry->object);
	DL_APPEND(watch->notes, note);
	DL_APPEND2(entry->notes, note, entry_prev, entry_next);
}

void pb_kube_note_change(struct pb_kube *kube, uint32_t kind, struct pb_kube_entry *entry)
{
	struct pb_kube_store *store = &kube->stores[kind];
	struct pb_kube_watch *watch;
	struct pb_kube_note *note;

	store->last_change = uv_now(kube->loop);
	store->mark++;
	/* Looked up from the entry's side, the cost of a change doesn't follow the queues. */
	DL_FOREACH2(entry->notes, note, entry_next)
	{
		note->watch->mark = store->mark;
	}
	DL_FOREACH (store->watches, watch) {
		if (watch->gone || watch->mark == store->mark)
			continue;
		/* The replay will come by and tell what is there then. */
		if (watch->cursor && entry->seq >= watch->cursor->seq)
			continue;
		note_add(watch, entry);
	}
	pb_kube_wake(kube);
}

static bool has_work(const struct pb_kube_watch *watch)
{
	const struct pb_kube_store *store = &watch->kube->stores[watch->kind];

	return watch->notes || watch->cursor || watch->told != store->known_serial;
}

void pb_kube_wake(struct pb_kube *kube)
{
	if (!kube->closing)
		uv_idle_start(&kube->idle, pb_kube_idle_cb);
}

static void tell(struct pb_kube_watch *watch, uint32_t kind, const struct pb_kube_object *object,
		 const struct pb_kube_object *old)
{
	struct pb_kube_event event = {
		.size = sizeof(event),
		.kind = kind,
		.object_kind = watch->kind,
		.object = object ? object + 1 : NULL,
		.old = old ? old + 1 : NULL,
		.api_version =
			kind == PB_KUBE_SYNCED ? watch->kube->stores[watch->kind].version : "",
	};

	watch->fn(watch->arg, &event);
}

/* Another object of the same name: its uid says so. */
static bool is_replacement(const struct pb_kube_object *old, struct pb_kube_object *new)
{
	const struct pb_kube_meta *a = (const void *)(old + 1);
	const struct pb_kube_meta *b = pb_kube_object_meta(new);

	return *a->uid && *b->uid && strcmp(a->uid, b->uid) != 0;
}

static void tell_change(struct pb_kube_watch *watch, struct pb_kube_object *old,
			struct pb_kube_object *new)
{
	if (old == new)
		return;
	if (old && (!new || is_replacement(old, new))) {
		tell(watch, PB_KUBE_DELETE, old, NULL);
		old = NULL;
	}
	if (new && !watch->gone)
		tell(watch, PB_KUBE_PUT, new, old);
}

static void note_drop(struct pb_kube_watch *watch, struct pb_kube_note *note)
{
	DL_DELETE(watch->notes, note);
	DL_DELETE2(note->entry->notes, note, entry_prev, entry_next);
	pb_kube_store_settle(&watch->kube->stores[watch->kind], note->entry);
	pb_kube_object_unref(note->told);
	free(note);
}

/* A watcher may change the store by unwatching, so the objects are held over the callback. */
static void tell_note(struct pb_kube_watch *watch, struct pb_kube_note *note)
{
	struct pb_kube_object *old = note->told, *new = note->entry->object;

	note->told = NULL;
	if (new)
		pb_kube_object_ref(new);
	note_drop(watch, note);
	tell_change(watch, old, new);
	pb_kube_object_unref(old);
	pb_kube_object_unref(new);
}

static void tell_replay(struct pb_kube_watch *watch)
{
	struct pb_kube_entry *entry = watch->cursor;
	struct pb_kube_object *object = entry->object;

	watch->cursor = entry->hh.next;
	if (!object)
		return;
	pb_kube_object_ref(object);
	tell(watch, PB_KUBE_PUT, object, NULL);
	pb_kube_object_unref(object);
}

static void tell_known(struct pb_kube_watch *watch)
{
	const struct pb_kube_store *store = &watch->kube->stores[watch->kind];

	watch->told = store->known_serial;
	if (store->known == PB_KNOWN_SYNCED)
		tell(watch, PB_KUBE_SYNCED, NULL, NULL);
	else if (store->known == PB_KNOWN_ABSENT)
		tell(watch, PB_KUBE_ABSENT, NULL, NULL);
}

void pb_kube_known_set(struct pb_kube *kube, uint32_t kind, enum pb_kube_known known)
{
	struct pb_kube_store *store = &kube->stores[kind];
	const char *version = known == PB_KNOWN_SYNCED ? store->next_version : "";

	if (store->known != known || strcmp(store->version, version) != 0)
		store->known_serial++;
	store->known = known;
	memmove(store->version, version, strlen(version) + 1);
	pb_kube_wake(kube);
}

/*
 * That a kind is served no more is told before its objects go: who can look elsewhere knows then
 * that these deletions aren't to be followed.
 */
static bool has_lost_kind(const struct pb_kube_watch *watch)
{
	const struct pb_kube_store *store = &watch->kube->stores[watch->kind];

	return store->known == PB_KNOWN_ABSENT && watch->told != store->known_serial;
}

static void drop_notes(struct pb_kube_watch *watch)
{
	struct pb_kube_note *note, *tmp;

	DL_FOREACH_SAFE(watch->notes, note, tmp)
	note_drop(watch, note);
}

/* Tells up to BURST events. */
static void watch_serve(struct pb_kube_watch *watch, uint64_t until)
{
	struct pb_kube *kube = watch->kube;

	kube->delivering = watch;
	for (unsigned n = 0; n < BURST && !watch->gone && !watch->held && has_work(watch); n++) {
		if (has_lost_kind(watch))
			tell_known(watch);
		else if (watch->notes)
			tell_note(watch, watch->notes);
		else if (watch->cursor)
			tell_replay(watch);
		else
			tell_known(watch);
		if (uv_hrtime() >= until)
			break;
	}
	kube->delivering = NULL;
}

static struct pb_kube_watch *next_with_work(const struct pb_kube_store *store)
{
	struct pb_kube_watch *watch;

	DL_FOREACH (store->watches, watch)
		if (!watch->held && has_work(watch))
			return watch;
	return NULL;
}

/* The one that was served goes to the end, so that all watches of a kind take turns. */
static bool store_serve(struct pb_kube_store *store, uint64_t until)
{
	struct pb_kube_watch *watch = next_with_work(store);

	if (!watch)
		return false;
	DL_DELETE(store->watches, watch);
	DL_APPEND(store->watches, watch);
	watch_serve(watch, until);
	if (watch->gone)
		free(watch);
	return true;
}

void pb_kube_idle_cb(uv_idle_t *idle)
{
	struct pb_kube *kube = idle->data;
	uint64_t until = uv_hrtime() + SLICE_NS;
	unsigned quiet = 0;

	while (quiet < PB_KUBE_KINDS && !kube->closing && uv_hrtime() < until) {
		kube->turn = (kube->turn + 1) % PB_KUBE_KINDS;
		quiet = store_serve(&kube->stores[kube->turn], until) ? 0 : quiet + 1;
	}
	if (quiet == PB_KUBE_KINDS)
		uv_idle_stop(idle);
}

int pb_kube_watch(struct pb_kube *kube, uint32_t kind, pb_kube_watch_fn fn, void *arg,
		  struct pb_kube_watch **ret_watch)
{
	struct pb_kube_watch *watch;
	struct pb_kube_store *store;
	bool first;

	if (!pb_kube_type(kind) || kube->closing)
		return -EINVAL;
	store = &kube->stores[kind];
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		return -ENOMEM;
	watch->kube = kube;
	watch->kind = kind;
	watch->fn = fn;
	watch->arg = arg;
	watch->cursor = store->entries;
	watch->told = store->known == PB_KNOWN_NOT ? store->known_serial : 0;
	first = !store->watches;
	DL_APPEND(store->watches, watch);
	*ret_watch = watch;
	pb_kube_wake(kube);
	if (!first)
		return 0;
	if (kube->source)
		kube->source->ops->want(kube->source, kind, true);
	else if (kube->started)
		pb_sink_absent((struct pb_sink *)kube, kind);
	return 0;
}

static void kind_unwanted(struct pb_kube *kube, uint32_t kind)
{
	struct pb_kube_store *store = &kube->stores[kind];

	if (kube->source)
		kube->source->ops->want(kube->source, kind, false);
	pb_kube_store_clear(kube, kind);
	store->known = PB_KNOWN_NOT;
	store->version[0] = '\0';
	store->full = false;
	store->listing = false;
	pb_kube_state_forget(store);
}

void pb_kube_unwatch(struct pb_kube_watch *watch)
{
	struct pb_kube_store *store;
	struct pb_kube *kube;
	uint32_t kind;

	if (!watch)
		return;
	kube = watch->kube;
	kind = watch->kind;
	store = &kube->stores[kind];
	drop_notes(watch);
	DL_DELETE(store->watches, watch);
	watch->gone = true;
	/* Inside its own callback: whoever calls it frees it. */
	if (kube->delivering != watch)
		free(watch);
	if (!store->watches && !kube->closing)
		kind_unwanted(kube, kind);
}

void pb_kube_hold(struct pb_kube_watch *watch)
{
	watch->held = true;
}

void pb_kube_resume(struct pb_kube_watch *watch)
{
	watch->held = false;
	pb_kube_wake(watch->kube);
}

bool pb_kube_replayed(const struct pb_kube_watch *watch)
{
	return !has_work(watch);
}
