/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One manifest file -> decoded objects. A file is believed as a whole or not at all: what can't
 * be read as YAML or JSON, or holds something that is no Kubernetes object, is an error of the
 * file; a bad field is an error of its object only.
 */
#include <kube/manifests.h>

#include <kube/decode.h>
#include <kube/yaml.h>

struct parse {
	struct pb_manifest_file *file;
	uint32_t kinds;
	bool is_json;
	const char *text; /* the whole document; lines are counted in JSON only */
	unsigned line;	  /* where the document starts */
	const char *counted;
	unsigned counted_line;
};

uint64_t pb_manifest_key(uint32_t kind, const char *ns, const char *name)
{
	return pb_hash64(name, strlen(name), pb_hash64(ns, strlen(ns) + 1, kind));
}

/* The line of a place in the document; in YAML only the document's is known. */
static unsigned line_at(struct parse *p, const char *at)
{
	if (!p->is_json)
		return p->line;
	for (; p->counted < at; p->counted++)
		p->counted_line += *p->counted == '\n';
	return p->counted_line;
}

static struct pb_manifest_object *object_add(struct pb_manifest_file *file)
{
	if (file->n_objects == file->cap_objects) {
		size_t cap = file->cap_objects ? file->cap_objects * 2 : 4;
		struct pb_manifest_object *objects =
			reallocarray(file->objects, cap, sizeof(*objects));

		if (!objects)
			return NULL;
		file->objects = objects;
		file->cap_objects = cap;
	}
	file->objects[file->n_objects] = (struct pb_manifest_object){0};
	return &file->objects[file->n_objects++];
}

static int parse_object(struct parse *p, struct pb_span value, const char *list_kind,
			const char *list_api, struct pb_err *err)
{
	const struct pb_scan_doc doc = {.root = value};
	struct pb_manifest_object *object;
	struct pb_kube_head head;
	struct pb_err why = {0};
	unsigned warns = 0;

	pb_kube_head(&doc, pb_kube_kind_find(list_api, list_kind), list_api, &head);
	if (pb_span_type(value) != '{' || !head.kind_name[0] || !head.api_version[0])
		return pb_err_set(err, -EINVAL,
				  "line %u: not a Kubernetes object: it has no kind or no "
				  "apiVersion",
				  line_at(p, value.p));
	if (!head.kind || !(p->kinds & 1U << head.kind))
		return 0;
	object = object_add(p->file);
	if (!object)
		return pb_err_set(err, -ENOMEM, "out of memory");
	object->kind = head.kind;
	object->key = pb_manifest_key(head.kind, head.ns, head.name);
	if (pb_kube_decode_span(value, &head, &object->object, &warns, &why) < 0 || warns)
		object->text = pb_sprintf("line %u: %s", line_at(p, value.p), why.text);
	return 0;
}

/* {"kind": "List"} or "ServiceList" and the like: the items are objects. */
static bool list_of(struct pb_span root, char *kind, size_t size, char *api, size_t api_size,
		    struct pb_span *ret_items)
{
	struct pb_span kind_name, api_version;
	const struct pb_scan_field fields[] = {{"kind", &kind_name},
					       {"apiVersion", &api_version},
					       {"items", ret_items}};
	size_t len;

	pb_scan_fields(root, fields, PB_ARRAY_LEN(fields));
	if (pb_span_type(kind_name) != '"' || pb_span_room(kind_name) > size ||
	    pb_span_type(api_version) != '"' || pb_span_room(api_version) > api_size)
		return false;
	len = pb_span_text(kind_name, kind);
	pb_span_text(api_version, api);
	if (len < 4 || strcmp(kind + len - 4, "List") != 0)
		return false;
	kind[len - 4] = '\0';
	return true;
}

static int parse_document(void *arg, const char *json, size_t len, unsigned line,
			  struct pb_err *err)
{
	struct parse *p = arg;
	struct pb_span root, items, item;
	char kind[64], api[64];
	struct pb_scan scan;
	int rc;

	p->line = line;
	p->counted = p->text = json;
	p->counted_line = line;
	rc = pb_scan_check(json, len, &root, err);
	if (rc < 0)
		return p->is_json ? rc : pb_err_prefix(err, "document in line %u", line);
	/* Nothing between two "---", or only a comment. */
	if (pb_span_type(root) == '\0' && !p->is_json)
		return 0;
	if (!list_of(root, kind, sizeof(kind), api, sizeof(api), &items))
		return parse_object(p, root, "", "", err);
	scan = pb_scan_list(items);
	while (rc == 0 && pb_scan_element(&scan, &item))
		rc = parse_object(p, item, kind, api, err);
	return rc;
}

static int parse_json(FILE *in, struct parse *p, struct pb_err *err)
{
	PB_BUF_FREE struct pb_buf text = {0};
	char chunk[16384];
	size_t n;

	while ((n = fread(chunk, 1, sizeof(chunk), in)) > 0)
		if (pb_buf_append(&text, chunk, n) < 0)
			return pb_err_set(err, -ENOMEM, "out of memory");
	if (ferror(in))
		return pb_err_set(err, -EIO, "can't be read");
	return parse_document(p, text.data ? text.data : "", text.len, 1, err);
}

int pb_manifest_file_parse(FILE *in, bool json, uint32_t kinds, struct pb_manifest_file *file,
			   size_t *ret_len, struct pb_err *err)
{
	struct parse p = {.file = file, .kinds = kinds, .is_json = json};
	int rc = json ? parse_json(in, &p, err) : pb_yaml_documents(in, parse_document, &p, err);
	long at = ftell(in);

	*ret_len = at > 0 ? (size_t)at : 0;
	return rc;
}
