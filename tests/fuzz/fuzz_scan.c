/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: the scanner against cJSON, a second opinion on what is JSON and what it says.
 *
 * They may differ where this one is stricter on purpose (numbers, raw control characters, blanks
 * other than four, a byte order mark, more than 64 levels) and where cJSON refuses or cuts
 * escapes (half a surrogate pair, U+0000). So: what the scanner takes, cJSON takes and reads the
 * same, escapes apart; and what cJSON takes and prints anew, the scanner takes and reads the same.
 */
#include <kube/decode.h>

#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <float.h>
#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool held)
{
	if (!held)
		abort();
}

static char *text_of(struct pb_span string)
{
	char *text = malloc(pb_span_room(string));

	must(text);
	must(pb_span_text(string, text) < pb_span_room(string));
	return text;
}

/* An address is read by hand; inet_pton() says what is one. */
static void compare_addr(struct pb_span string, const char *text)
{
	struct pb_kube_addr addr;
	struct pb_decode d = {0};
	struct in_addr v4;
	bool taken = pb_decode_addr(&d, string, "fuzz", &addr);
	bool is_v4 = pb_span_room(string) <= 64 && inet_pton(AF_INET, text, &v4) == 1;

	must((taken && addr.family == 4) == is_v4);
	if (is_v4)
		must(memcmp(&addr.addr, &v4, sizeof(v4)) == 0);
}

static void compare_string(struct pb_span string, const char *expected)
{
	PB_FREE char *text = text_of(string);

	must(strcmp(text, expected) == 0);
	must(pb_span_room(string) > 256 || strchr(text, '\\') || pb_span_is(string, text));
	compare_addr(string, text);
}

/* cJSON prints 15 digits where they are as near as its own comparison asks for. */
static void compare_number(struct pb_span value, double expected)
{
	int64_t number;

	if (pb_span_int(value, &number) == 0 && number > -(1LL << 53) && number < 1LL << 53)
		must(fabs((double)number - expected) <= fabs(expected) * DBL_EPSILON);
}

static void compare(struct pb_span value, const cJSON *expected);

static void compare_members(struct pb_span object, const cJSON *expected)
{
	struct pb_scan scan = pb_scan_object(object);
	const cJSON *child = expected->child;
	struct pb_span key, value;

	for (; pb_scan_member(&scan, &key, &value); child = child->next) {
		must(child);
		compare_string(key, child->string);
		compare(value, child);
	}
	must(!child);
}

/* Elements are reached in two ways; the one that looks for members must not lose its place. */
static void compare_elements(struct pb_span list, const cJSON *expected)
{
	struct pb_scan scan = pb_scan_list(list), twin = scan;
	const cJSON *child = expected->child;
	struct pb_span value, a, b;
	const struct pb_scan_field one[] = {{"name", &a}}, other[] = {{"name", &b}};

	for (; pb_scan_element(&scan, &value); child = child->next) {
		must(child);
		pb_scan_fields(value, one, 1);
		must(pb_scan_element_fields(&twin, other, 1));
		must(a.p == b.p && a.end == b.end && scan.p == twin.p);
		compare(value, child);
	}
	must(!child && !pb_scan_element_fields(&twin, other, 1));
}

static void compare(struct pb_span value, const cJSON *expected)
{
	switch (pb_span_type(value)) {
	case '{':
		must(cJSON_IsObject(expected));
		compare_members(value, expected);
		break;
	case '[':
		must(cJSON_IsArray(expected));
		compare_elements(value, expected);
		break;
	case '"':
		must(cJSON_IsString(expected));
		compare_string(value, expected->valuestring);
		break;
	case '0':
		must(cJSON_IsNumber(expected));
		compare_number(value, expected->valuedouble);
		break;
	case '\0':
		/* cJSON prints a number beyond any double as null. */
		must(cJSON_IsNull(expected) || isinf(expected->valuedouble));
		break;
	default:
		must(cJSON_IsBool(expected));
		must(cJSON_IsTrue(expected) == (pb_span_type(value) == 't'));
	}
}

/* The members noted by the check are those that a walk finds. */
static void compare_noted(const struct pb_scan_doc *doc)
{
	struct pb_span a, b;
	const struct pb_scan_field one[] = {{"kind", &a}}, other[] = {{"kind", &b}};

	pb_scan_doc_fields(doc, one, 1);
	pb_scan_fields(doc->root, other, 1);
	must(a.p == b.p && a.end == b.end);
}

static bool too_deep(const cJSON *value, unsigned depth)
{
	if (!cJSON_IsObject(value) && !cJSON_IsArray(value))
		return false;
	if (depth == PB_SCAN_DEPTH)
		return true;
	cJSON_ArrayForEach (value, value)
		if (too_deep(value, depth + 1))
			return true;
	return false;
}

static void compare_printed(const cJSON *tree)
{
	char *printed = cJSON_PrintUnformatted(tree);
	struct pb_scan_doc doc;
	struct pb_err err;

	if (printed && !too_deep(tree, 0)) {
		must(pb_scan_check_doc(printed, strlen(printed), &doc, &err) == 0);
		compare_noted(&doc);
		compare(doc.root, tree);
	}
	cJSON_free(printed);
}

/* A value with more text after it is found as it would be alone, and nothing else is. */
static void compare_front(const char *text, size_t size, const struct pb_scan_doc *doc)
{
	struct pb_scan_doc front, alone;
	int rc = pb_scan_check_front(text, size, &front);

	must(!doc || rc == 0);
	if (rc < 0)
		return;
	must(pb_scan_check_doc(text, (size_t)(front.root.end - text), &alone, NULL) == 0);
	must(alone.root.p == front.root.p && alone.root.end == front.root.end);
	must(alone.n == front.n && alone.all == front.all);
	must(!doc || (doc->root.p == front.root.p && doc->root.end == front.root.end));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	PB_FREE char *text = malloc(size + 1);
	struct pb_scan_doc doc;
	struct pb_span root;
	struct pb_err err;
	cJSON *tree;
	int rc;

	must(text);
	memcpy(text, data, size);
	text[size] = '\0';
	rc = pb_scan_check_doc(text, size, &doc, &err);
	must(rc == pb_scan_check(text, size, &root, NULL));
	compare_front(text, size, rc == 0 ? &doc : NULL);
	tree = cJSON_ParseWithLengthOpts(text, size + 1, NULL, true);
	if (rc == 0) {
		compare_noted(&doc);
		must(tree || strstr(text, "\\u"));
	}
	if (rc == 0 && tree && !strstr(text, "\\u"))
		compare(doc.root, tree);
	if (tree)
		compare_printed(tree);
	cJSON_Delete(tree);
	return 0;
}
