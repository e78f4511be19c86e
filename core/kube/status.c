/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `status` and the metrics show of each kind. Every kind has every field, in the same order,
 * so that the list is a table; the names are documented in docs/admin.md.
 */
#include <kube/store.h>

static const char *known_name(const struct pb_kube_store *store)
{
	if (!store->watches)
		return "not watched";
	if (store->known == PB_KNOWN_ABSENT)
		return "not served";
	return store->known == PB_KNOWN_SYNCED ? "synced" : "waiting for the first list";
}

/* Nobody knows whether a kind that isn't asked for could be had. */
static void add_healthy(cJSON *json, const struct pb_kube_store *store)
{
	if (store->watches && store->state)
		cJSON_AddBoolToObject(json, "healthy", store->healthy && !store->full);
	else
		cJSON_AddNullToObject(json, "healthy");
}

static const char *source_text(const struct pb_kube_store *store)
{
	if (store->full)
		return "no room for all objects of this kind; the log names the first of the "
		       "others";
	return store->state ? store->state : "";
}

static void add_age(cJSON *json, const struct pb_kube *kube, uint64_t last_event)
{
	uint64_t seconds = (uv_now(kube->loop) - last_event) / 1000;

	if (last_event)
		cJSON_AddNumberToObject(json, "last_event_seconds", (double)seconds);
	else
		cJSON_AddNullToObject(json, "last_event_seconds");
}

/* "list services": verb and resource as a role names them. */
static void add_missing(cJSON *json, const struct pb_source_kind *source)
{
	cJSON *missing = cJSON_AddArrayToObject(json, "missing_rights");
	PB_FREE char *list = pb_sprintf("list %s", source->resource);
	PB_FREE char *watch = pb_sprintf("watch %s", source->resource);

	if (list && source->lacks_list)
		cJSON_AddItemToArray(missing, cJSON_CreateString(list));
	if (watch && source->lacks_watch)
		cJSON_AddItemToArray(missing, cJSON_CreateString(watch));
}

static cJSON *kind_status(struct pb_kube *kube, uint32_t kind)
{
	struct pb_source_kind source = {.mode = "", .resource = "", .last_relist = ""};
	const struct pb_kube_store *store = &kube->stores[kind];
	cJSON *json = cJSON_CreateObject();

	if (kube->source && store->watches)
		kube->source->ops->describe(kube->source, kind, &source);
	cJSON_AddStringToObject(json, "kind", pb_kube_type(kind)->name);
	cJSON_AddStringToObject(json, "state", known_name(store));
	add_healthy(json, store);
	cJSON_AddStringToObject(json, "mode", source.mode);
	cJSON_AddStringToObject(json, "api_version", store->version);
	cJSON_AddNumberToObject(json, "objects", (double)store->objects);
	cJSON_AddNumberToObject(json, "events", (double)store->events);
	cJSON_AddNumberToObject(json, "relists", store->lists ? (double)(store->lists - 1) : 0);
	cJSON_AddNumberToObject(json, "refused", (double)store->refused);
	cJSON_AddNumberToObject(json, "bytes", (double)source.bytes);
	add_age(json, kube, source.last_event ? source.last_event : store->last_change);
	add_missing(json, &source);
	cJSON_AddStringToObject(json, "last_relist", source.last_relist);
	cJSON_AddStringToObject(json, "source", source_text(store));
	cJSON_AddStringToObject(json, "last_error", store->last_error ? store->last_error : "");
	return json;
}

cJSON *pb_kube_status_json(struct pb_kube *kube)
{
	cJSON *json = cJSON_CreateObject(), *source, *kinds;

	cJSON_AddStringToObject(json, "source", kube->source ? kube->source->ops->name : "none");
	cJSON_AddStringToObject(json, "source_error", kube->source_error ? kube->source_error : "");
	source = kube->source ? kube->source->ops->status(kube->source) : NULL;
	if (source)
		cJSON_AddItemToObject(json, "detail", source);
	kinds = cJSON_AddArrayToObject(json, "kinds");
	for (uint32_t kind = 1; kind < PB_KUBE_KINDS; kind++)
		cJSON_AddItemToArray(kinds, kind_status(kube, kind));
	return json;
}
