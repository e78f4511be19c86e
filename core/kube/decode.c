/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all kinds have in common: finding the kind, metadata, the way from text to a finished
 * object. Meaning of a kind's own fields is in decode_<kind>.c only.
 */
#include <kube/decode.h>
#include <kube/kube.h>

/* kubectl keeps the whole manifest there; nobody on the node reads it, so it isn't kept twice. */
#define LAST_APPLIED "kubectl.kubernetes.io/last-applied-configuration"

static const struct pb_kube_type types[] = {
	[PB_KUBE_SERVICE] = {"Service", "v1", sizeof(struct pb_kube_service), true,
			     pb_kube_fill_service},
	[PB_KUBE_ENDPOINTSLICE] = {"EndpointSlice", "discovery.k8s.io/v1",
				   sizeof(struct pb_kube_endpointslice), true,
				   pb_kube_fill_endpointslice},
	[PB_KUBE_ENDPOINTS] = {"Endpoints", "v1", sizeof(struct pb_kube_endpoints), true,
			       pb_kube_fill_endpoints},
	[PB_KUBE_POD] = {"Pod", "v1", sizeof(struct pb_kube_pod), true, pb_kube_fill_pod},
	[PB_KUBE_NODE] = {"Node", "v1", sizeof(struct pb_kube_node), false, pb_kube_fill_node},
	[PB_KUBE_NAMESPACE] = {"Namespace", "v1", sizeof(struct pb_kube_namespace), false,
			       pb_kube_fill_namespace},
};

static const char slice_v1beta1[] = "discovery.k8s.io/v1beta1";

const struct pb_kube_type *pb_kube_type(uint32_t kind)
{
	return kind < PB_ARRAY_LEN(types) && types[kind].name ? &types[kind] : NULL;
}

uint32_t pb_kube_kind_find(const char *api_version, const char *kind)
{
	for (uint32_t k = 1; k < PB_ARRAY_LEN(types); k++) {
		if (strcmp(types[k].name, kind) != 0)
			continue;
		if (strcmp(types[k].api_version, api_version) == 0)
			return k;
		if (k == PB_KUBE_ENDPOINTSLICE && strcmp(api_version, slice_v1beta1) == 0)
			return k;
	}
	return 0;
}

static void head_text(struct pb_span value, char *dst, size_t size)
{
	PB_FREE char *text = NULL;

	dst[0] = '\0';
	if (pb_span_type(value) != '"')
		return;
	if (pb_span_room(value) <= size) {
		pb_span_text(value, dst);
		return;
	}
	text = malloc(pb_span_room(value));
	if (!text)
		return;
	pb_span_text(value, text);
	snprintf(dst, size, "%s", text);
}

void pb_kube_head(const struct pb_scan_doc *doc, uint32_t kind, const char *api_version,
		  struct pb_kube_head *ret_head)
{
	struct pb_kube_members *m = &ret_head->members;
	struct pb_span ns, name;
	const struct pb_scan_field fields[] = {
		{"kind", &m->kind},	      {"apiVersion", &m->api_version},
		{"metadata", &m->metadata},   {"spec", &m->spec},
		{"status", &m->status},	      {"addressType", &m->address_type},
		{"endpoints", &m->endpoints}, {"ports", &m->ports},
		{"subsets", &m->subsets},
	};
	const struct pb_scan_field names[] = {{"namespace", &ns}, {"name", &name}};
	const struct pb_kube_type *type = pb_kube_type(kind);

	pb_scan_doc_fields(doc, fields, PB_ARRAY_LEN(fields));
	pb_scan_fields(m->metadata, names, PB_ARRAY_LEN(names));
	head_text(m->kind, ret_head->kind_name, sizeof(ret_head->kind_name));
	head_text(m->api_version, ret_head->api_version, sizeof(ret_head->api_version));
	head_text(ns, ret_head->ns, sizeof(ret_head->ns));
	head_text(name, ret_head->name, sizeof(ret_head->name));
	if (type && !ret_head->kind_name[0])
		snprintf(ret_head->kind_name, sizeof(ret_head->kind_name), "%s", type->name);
	if (!ret_head->api_version[0] && (api_version || type))
		snprintf(ret_head->api_version, sizeof(ret_head->api_version), "%s",
			 api_version ? api_version : type->api_version);
	ret_head->kind = pb_kube_kind_find(ret_head->api_version, ret_head->kind_name);
	type = pb_kube_type(ret_head->kind);
	if (type && !type->namespaced)
		ret_head->ns[0] = '\0';
	else if (!ret_head->ns[0])
		snprintf(ret_head->ns, sizeof(ret_head->ns), "default");
}

void pb_decode_warn(struct pb_decode *d, const char *fmt, ...)
{
	va_list ap;

	if (d->warns++)
		return;
	va_start(ap, fmt);
	vsnprintf(d->first_warning, sizeof(d->first_warning), fmt, ap);
	va_end(ap);
}

void pb_decode_fail(struct pb_decode *d, const char *fmt, ...)
{
	va_list ap;

	if (d->rc < 0)
		return;
	va_start(ap, fmt);
	d->rc = pb_err_setv(d->err, -EINVAL, fmt, ap);
	va_end(ap);
}

static int pair_compare(const void *a, const void *b)
{
	const struct pb_kube_pair *left = a, *right = b;
	int order = strcmp(left->key, right->key);

	/* Texts lie in the arena in the order of the object, so equal keys stay in that order. */
	return order ? order : (left->key > right->key) - (left->key < right->key);
}

static bool pair_read(struct pb_decode *d, struct pb_span key, struct pb_span value,
		      const char *field, struct pb_kube_pair *ret_pair)
{
	if (pb_span_is(key, LAST_APPLIED))
		return false;
	ret_pair->key = pb_kube_arena_text(&d->arena, key);
	if (pb_span_type(value) != '"' && pb_span_type(value) != '\0') {
		pb_decode_fail(d,
			       "metadata.%s: the value of \"%.100s\" is not a string: put it in "
			       "double quotes",
			       field, ret_pair->key);
		return false;
	}
	ret_pair->value = pb_kube_arena_text(&d->arena, value);
	return true;
}

/* Of a key given twice the last value counts. */
static uint32_t pairs_drop_duplicates(struct pb_kube_pair *pairs, uint32_t n)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (kept && strcmp(pairs[kept - 1].key, pairs[i].key) == 0)
			pairs[kept - 1] = pairs[i];
		else
			pairs[kept++] = pairs[i];
	}
	return kept;
}

static void decode_pairs(struct pb_decode *d, struct pb_span object, const char *field,
			 const struct pb_kube_pair **slot, uint32_t *ret_n)
{
	static const int slots[] = {offsetof(struct pb_kube_pair, key),
				    offsetof(struct pb_kube_pair, value), -1};
	struct pb_scan scan = pb_scan_object(object);
	PB_FREE struct pb_kube_pair *pairs = NULL;
	struct pb_span key, value;
	uint32_t n = 0;

	if (pb_span_type(object) && pb_span_type(object) != '{') {
		pb_decode_fail(d, "metadata.%s is not a map", field);
		return;
	}
	while (pb_scan_member(&scan, &key, &value))
		n++;
	if (n == 0)
		return;
	pairs = calloc(n, sizeof(*pairs));
	if (!pairs) {
		d->arena.rc = -ENOMEM;
		return;
	}
	n = 0;
	scan = pb_scan_object(object);
	while (pb_scan_member(&scan, &key, &value))
		n += pair_read(d, key, value, field, &pairs[n]);
	qsort(pairs, n, sizeof(*pairs), pair_compare);
	*ret_n = pairs_drop_duplicates(pairs, n);
	*slot = pb_kube_arena_copy(&d->arena, pairs, *ret_n, sizeof(*pairs), slots);
	pb_kube_arena_slot(&d->arena, slot);
}

static void decode_meta(struct pb_decode *d, const struct pb_kube_head *head,
			struct pb_kube_meta *meta)
{
	struct pb_span ns, name, uid, version, labels, annotations;
	const struct pb_scan_field fields[] = {{"namespace", &ns},  {"name", &name},
					       {"uid", &uid},	    {"resourceVersion", &version},
					       {"labels", &labels}, {"annotations", &annotations}};

	pb_scan_fields(d->members->metadata, fields, PB_ARRAY_LEN(fields));
	pb_decode_text(d, name, "metadata.name", &meta->name);
	if (!head->name[0] || pb_span_room(name) > sizeof(head->name))
		pb_decode_fail(d, "metadata.name is missing or too long");
	if (pb_span_type(ns) == '"' && pb_span_room(ns) > sizeof(head->ns))
		pb_decode_fail(d, "metadata.namespace is too long");
	if (pb_kube_type(meta->kind)->namespaced) {
		pb_decode_text(d, ns, "metadata.namespace", &meta->ns);
		if (!*meta->ns)
			meta->ns = "default";
	}
	pb_decode_text(d, uid, "metadata.uid", &meta->uid);
	pb_decode_text(d, version, "metadata.resourceVersion", &meta->version);
	decode_pairs(d, labels, "labels", &meta->labels, &meta->n_labels);
	decode_pairs(d, annotations, "annotations", &meta->annotations, &meta->n_annotations);
}

static int decode_into(struct pb_decode *d, size_t len, const struct pb_kube_head *head,
		       struct pb_kube_object **ret_object)
{
	const struct pb_kube_type *type = pb_kube_type(head->kind);
	struct pb_kube_meta *meta = pb_kube_arena_start(&d->arena, len, type->size);

	if (!meta)
		return pb_err_set(d->err, -ENOMEM, "out of memory");
	*meta = (struct pb_kube_meta){.size = (uint32_t)type->size,
				      .kind = head->kind,
				      .ns = "",
				      .name = "",
				      .uid = "",
				      .version = ""};
	decode_meta(d, head, meta);
	if (d->rc == 0)
		type->fill(d, meta);
	pb_decode_intern_settle(d);
	if (d->rc == 0 && d->arena.rc < 0)
		d->rc = pb_err_set(d->err, d->arena.rc, "%s",
				   d->arena.rc == -ENOMEM ? "out of memory"
							  : "decodes to more than it could");
	if (d->rc == 0) {
		*ret_object = pb_kube_arena_finish(&d->arena);
		if (!*ret_object)
			d->rc = pb_err_set(d->err, -ENOMEM, "out of memory");
	}
	if (d->rc < 0)
		pb_kube_release_strings(meta);
	return d->rc;
}

int pb_kube_decode_span(struct pb_span root, const struct pb_kube_head *head,
			struct pb_kube_object **ret_object, unsigned *ret_warns, struct pb_err *err)
{
	struct pb_decode d = {.members = &head->members,
			      .spec = head->members.spec,
			      .status = head->members.status,
			      .err = err};
	int rc;

	if (!head->kind)
		return pb_err_set(err, -ENOTSUP, "%s of %s: not a kind that is read",
				  head->kind_name, head->api_version);
	d.kind_name = head->kind_name;
	d.v1beta1 = strcmp(head->api_version, slice_v1beta1) == 0;
	rc = decode_into(&d, (size_t)(root.end - root.p), head, ret_object);
	pb_kube_arena_stop(&d.arena);
	if (ret_warns)
		*ret_warns = d.warns;
	if (rc < 0) {
		pb_err_prefix(err, "%s %s/%s", head->kind_name, head->ns, head->name);
		return rc;
	}
	if (d.warns)
		pb_err_set(err, 0, "%s %s/%s: %s", head->kind_name, head->ns, head->name,
			   d.first_warning);
	return 0;
}

int pb_kube_decode(const char *json, size_t len, struct pb_kube_meta **ret_object,
		   unsigned *ret_warns, struct pb_err *err)
{
	struct pb_kube_object *object;
	struct pb_kube_head head;
	struct pb_scan_doc doc;
	struct pb_err local;
	int rc;

	if (!err)
		err = &local;
	rc = pb_scan_check_doc(json, len, &doc, err);
	if (rc < 0)
		return rc;
	if (pb_span_type(doc.root) != '{')
		return pb_err_set(err, -EINVAL, "not a JSON object");
	pb_kube_head(&doc, 0, NULL, &head);
	rc = pb_kube_decode_span(doc.root, &head, &object, ret_warns, err);
	if (rc == 0)
		*ret_object = pb_kube_object_meta(object);
	return rc;
}

struct pb_kube_meta *pb_kube_object_free(struct pb_kube_meta *object)
{
	if (object)
		pb_kube_object_unref(pb_kube_object_of(object));
	return NULL;
}
