/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks JSON text in place: no tree, no allocation, no copy but for the strings that are kept.
 *
 * Owns validation (strict RFC 8259, bounded nesting) and the walk over what was validated. A
 * span other than pb_scan_check()'s input must come from a span that was checked: the walk
 * itself trusts its text.
 */
#ifndef PB_BASE_SCAN_H
#define PB_BASE_SCAN_H

#include <base/base.h>

/* The deepest nesting that is accepted. */
#define PB_SCAN_DEPTH 64

/* One JSON value without surrounding blanks; p NULL: no value (missing or null). */
struct pb_span {
	const char *p;
	const char *end;
};

/* A place in an object or list. */
struct pb_scan {
	const char *p;
	const char *end;
};

/* Checks that the text is one JSON value; the error names line and column. */
int pb_scan_check(const char *json, size_t len, struct pb_span *ret_root, struct pb_err *err);

/* More members of the outermost object than this are found by walking it. */
#define PB_SCAN_MEMBERS 16

/* A checked value. For an object, where its members are: the check comes by them anyway. */
struct pb_scan_doc {
	struct pb_span root;
	bool all; /* every member is below */
	unsigned n;
	struct pb_span keys[PB_SCAN_MEMBERS];
	struct pb_span values[PB_SCAN_MEMBERS];
};

/* The same check; the result is good as long as the text is. */
int pb_scan_check_doc(const char *json, size_t len, struct pb_scan_doc *ret_doc,
		      struct pb_err *err);
/* The same for the value that the text begins with: what follows it isn't looked at. -EINVAL. */
int pb_scan_check_front(const char *json, size_t len, struct pb_scan_doc *ret_doc);

/* '{', '[', '"', 't', 'f', '0' for a number, or '\0' for no value. */
char pb_span_type(struct pb_span value);

/* Starts a walk; over anything but an object (a list) it finds nothing. */
struct pb_scan pb_scan_object(struct pb_span object);
struct pb_scan pb_scan_list(struct pb_span list);
bool pb_scan_member(struct pb_scan *scan, struct pb_span *ret_key, struct pb_span *ret_value);
bool pb_scan_element(struct pb_scan *scan, struct pb_span *ret_value);

/* The first quote, backslash or control character of a string's text; any bytes may be asked. */
const char *pb_scan_plain(const char *p, const char *end);

/* Where to put the value of a member. */
struct pb_scan_field {
	const char *name;
	struct pb_span *value;
};

/*
 * Fills the values of the named members; those that are missing or null become no value. Of a
 * member given twice the last one counts, as in Kubernetes.
 */
void pb_scan_fields(struct pb_span object, const struct pb_scan_field *fields, size_t n);

/* The same for the outermost object. `all` false: only its root is set. */
void pb_scan_doc_fields(const struct pb_scan_doc *doc, const struct pb_scan_field *fields,
			size_t n);
/*
 * The same for the next element of a list, which is passed over once, not once for its end and
 * once for its members. False: no more elements. An element that is no object has no members.
 */
bool pb_scan_element_fields(struct pb_scan *scan, const struct pb_scan_field *fields, size_t n);

/* True if the value is the string `text`, which has no backslash. */
bool pb_span_is(struct pb_span value, const char *text);
/* The most bytes that pb_span_text() can need, NUL included. */
size_t pb_span_room(struct pb_span string);
/*
 * Writes the string unescaped and NUL terminated, returns its length. What can't stand in a C
 * string or in UTF-8 (U+0000, half a surrogate pair) becomes U+FFFD.
 */
size_t pb_span_text(struct pb_span string, char *dst);
/* -EINVAL: no whole number; -ERANGE: doesn't fit in 63 bits. */
int pb_span_int(struct pb_span value, int64_t *ret_number);

#endif
