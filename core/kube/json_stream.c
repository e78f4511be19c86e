/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scanner for one JSON value that can stop after any byte, and the two users of it: the list
 * splitter and the member finder. Nothing here recurses, and nothing is kept of a finished item.
 */
#include <kube/json_stream.h>

#include <base/json.h>
#include <base/scan.h>

/* Deeper than any object the API server accepts (its own limit is 10000 for its decoder). */
#define DEPTH_MAX 10000
#define METADATA_MAX ((size_t)64 * 1024)

enum scan_mode {
	SCAN_START,
	SCAN_NEST,
	SCAN_STRING,
	SCAN_ESCAPE,
	SCAN_SCALAR,
};

/* Where the scanner stands inside one value. Zeroed: before its first byte. */
struct scan {
	enum scan_mode mode;
	unsigned depth;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static size_t skip_blanks(const char *p, size_t n)
{
	size_t i = 0;

	while (i < n && is_blank(p[i]))
		i++;
	return i;
}

static int scan_first(struct scan *s, char c)
{
	switch (c) {
	case '{':
	case '[':
		s->depth = 1;
		s->mode = SCAN_NEST;
		return 0;
	case '"':
		s->mode = SCAN_STRING;
		return 0;
	case ',':
	case ':':
	case '}':
	case ']':
		return -EPROTO;
	default:
		s->mode = SCAN_SCALAR;
		return 0;
	}
}

/* Inside a string: up to its end, to an escape, or to the end of the text. */
static size_t scan_string(struct scan *s, const char *p, size_t n)
{
	size_t i = 0;

	while ((i = (size_t)(pb_scan_plain(p + i, p + n) - p)) < n) {
		s->mode = p[i] == '"' ? SCAN_NEST : p[i] == '\\' ? SCAN_ESCAPE : SCAN_STRING;
		i++;
		if (s->mode != SCAN_STRING)
			break;
	}
	return i;
}

/* Inside an object or array; only strings and brackets, which differ from braces in one bit. */
static size_t scan_nest(struct scan *s, const char *p, size_t n, int *ret_done)
{
	size_t i = 0;

	while (i < n && s->mode == SCAN_NEST) {
		char c = p[i];

		if (c == '"') {
			s->mode = SCAN_STRING;
			i++;
			i += scan_string(s, p + i, n - i);
			continue;
		}
		if ((c | 0x20) == '{' && ++s->depth > DEPTH_MAX) {
			*ret_done = -EPROTO;
			return i;
		}
		i++;
		if ((c | 0x20) == '}' && --s->depth == 0) {
			*ret_done = 1;
			return i;
		}
	}
	return i;
}

static size_t scan_scalar(const char *p, size_t n, int *ret_done)
{
	for (size_t i = 0; i < n; i++) {
		if (is_blank(p[i]) || p[i] == ',' || p[i] == '}' || p[i] == ']') {
			*ret_done = 1;
			return i;
		}
	}
	return n;
}

/*
 * Goes on with a value; blanks before it were skipped. Returns the bytes that belong to it;
 * *ret_done: 1 at its end, 0 when more must come, negative when it is no value.
 */
static size_t scan_value(struct scan *s, const char *p, size_t n, int *ret_done)
{
	size_t i = 0;

	*ret_done = 0;
	if (n && s->mode == SCAN_START) {
		*ret_done = scan_first(s, p[0]);
		i = 1;
	}
	while (i < n && *ret_done == 0) {
		switch (s->mode) {
		case SCAN_START:
		case SCAN_NEST:
			i += scan_nest(s, p + i, n - i, ret_done);
			break;
		case SCAN_STRING:
			i += scan_string(s, p + i, n - i);
			*ret_done = s->mode == SCAN_NEST && s->depth == 0;
			break;
		case SCAN_ESCAPE:
			s->mode = SCAN_STRING;
			i++;
			break;
		case SCAN_SCALAR:
			i += scan_scalar(p + i, n - i, ret_done);
			break;
		}
	}
	return i;
}

/* ---- one member of a complete object ---- */

/* The next value of the text; blanks before and after it are taken too. */
static int take_value(struct pb_json_span *rest, struct pb_json_span *ret_value)
{
	struct scan s = {0};
	size_t blanks = skip_blanks(rest->text, rest->len);
	size_t n;
	int done;

	rest->text += blanks;
	rest->len -= blanks;
	n = scan_value(&s, rest->text, rest->len, &done);
	if (done != 1)
		return -EINVAL;
	*ret_value = (struct pb_json_span){rest->text, n};
	rest->text += n;
	rest->len -= n;
	blanks = skip_blanks(rest->text, rest->len);
	rest->text += blanks;
	rest->len -= blanks;
	return 0;
}

static bool take_char(struct pb_json_span *rest, char c)
{
	if (!rest->len || rest->text[0] != c)
		return false;
	rest->text++;
	rest->len--;
	return true;
}

static bool key_is(struct pb_json_span key, const char *name)
{
	size_t len = strlen(name);

	return key.len == len + 2 && key.text[0] == '"' && memcmp(key.text + 1, name, len) == 0;
}

int pb_json_member_rest(struct pb_json_span object, const char *key, struct pb_json_span *ret_rest)
{
	struct pb_json_span rest = object, name, value;
	size_t blanks = skip_blanks(rest.text, rest.len);

	rest.text += blanks;
	rest.len -= blanks;
	if (!take_char(&rest, '{'))
		return -EINVAL;
	blanks = skip_blanks(rest.text, rest.len);
	if (blanks < rest.len && rest.text[blanks] == '}')
		return -ENOENT;
	do {
		if (take_value(&rest, &name) < 0 || name.text[0] != '"' || !take_char(&rest, ':'))
			return -EINVAL;
		if (key_is(name, key)) {
			*ret_rest = rest;
			return 0;
		}
		if (take_value(&rest, &value) < 0)
			return -EINVAL;
	} while (take_char(&rest, ','));
	return take_char(&rest, '}') ? -ENOENT : -EINVAL;
}

int pb_json_member(struct pb_json_span object, const char *key, struct pb_json_span *ret_value)
{
	struct pb_json_span rest;
	int rc = pb_json_member_rest(object, key, &rest);

	return rc < 0 ? rc : take_value(&rest, ret_value);
}

int pb_json_text(struct pb_json_span value, char *buf, size_t size)
{
	PB_JSON_FREE cJSON *parsed = NULL;
	const char *text = value.text + 1;
	size_t len = value.len - 2;

	if (value.len < 2 || value.text[0] != '"' || value.text[value.len - 1] != '"')
		return -EINVAL;
	if (memchr(text, '\\', len)) {
		parsed = cJSON_ParseWithLength(value.text, value.len);
		if (!cJSON_IsString(parsed))
			return -EINVAL;
		text = parsed->valuestring;
		len = strlen(text);
	}
	if (memchr(text, '\0', len))
		return -EINVAL;
	if (len >= size)
		return -ENOSPC;
	memcpy(buf, text, len);
	buf[len] = '\0';
	return 0;
}

void pb_json_member_text(struct pb_json_span object, const char *key, char *buf, size_t size)
{
	struct pb_json_span value;

	if (pb_json_member(object, key, &value) < 0 || pb_json_text(value, buf, size) < 0)
		buf[0] = '\0';
}

/* ---- a list, split while it arrives ---- */

enum stream_state {
	STREAM_BEGIN,
	STREAM_KEY_FIRST,
	STREAM_KEY,
	STREAM_COLON,
	STREAM_VALUE,
	STREAM_AFTER_VALUE,
	STREAM_ITEM_FIRST,
	STREAM_ITEM,
	STREAM_AFTER_ITEM,
	STREAM_END,
};

enum stream_want {
	WANT_NOTHING,
	WANT_ITEMS,
	WANT_METADATA,
};

struct pb_json_stream {
	pb_json_item_fn item;
	void *arg;
	size_t max;
	enum stream_state state;
	enum stream_want want; /* of the current member's value */
	bool inside;	       /* a key, value or item has begun and not ended */
	struct scan scan;
	struct pb_buf held; /* what earlier chunks had of it */
	char version[128];
	char *next; /* metadata.continue */
};

int pb_json_stream_new(size_t max, pb_json_item_fn item, void *arg,
		       struct pb_json_stream **ret_stream)
{
	struct pb_json_stream *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->max = max;
	s->item = item;
	s->arg = arg;
	*ret_stream = s;
	return 0;
}

struct pb_json_stream *pb_json_stream_free(struct pb_json_stream *s)
{
	if (!s)
		return NULL;
	pb_buf_free(&s->held);
	free(s->next);
	free(s);
	return NULL;
}

const char *pb_json_stream_version(const struct pb_json_stream *s)
{
	return s->version;
}

const char *pb_json_stream_continue(const struct pb_json_stream *s)
{
	return s->next ? s->next : "";
}

static int stream_metadata(struct pb_json_stream *s, struct pb_json_span metadata)
{
	struct pb_json_span token;

	pb_json_member_text(metadata, "resourceVersion", s->version, sizeof(s->version));
	if (pb_json_member(metadata, "continue", &token) < 0 || token.len < 2)
		return 0;
	free(s->next);
	s->next = calloc(1, token.len);
	if (!s->next)
		return -ENOMEM;
	return pb_json_text(token, s->next, token.len);
}

/* A complete key, value or item. */
static int stream_taken(struct pb_json_stream *s, struct pb_json_span value)
{
	switch (s->state) {
	case STREAM_KEY_FIRST:
	case STREAM_KEY:
		if (value.text[0] != '"')
			return -EPROTO;
		s->want = key_is(value, "items")      ? WANT_ITEMS
			  : key_is(value, "metadata") ? WANT_METADATA
						      : WANT_NOTHING;
		s->state = STREAM_COLON;
		return 0;
	case STREAM_ITEM_FIRST:
	case STREAM_ITEM:
		s->state = STREAM_AFTER_ITEM;
		return s->item(s->arg, value.text, value.len);
	default:
		s->state = STREAM_AFTER_VALUE;
		return s->want == WANT_METADATA ? stream_metadata(s, value) : 0;
	}
}

static size_t stream_limit(const struct pb_json_stream *s)
{
	return s->state == STREAM_ITEM || s->state == STREAM_ITEM_FIRST ? s->max : METADATA_MAX;
}

/* Takes what the chunk has of the current value; a value inside one chunk is never copied. */
static int stream_scan(struct pb_json_stream *s, const char *p, size_t n, size_t *ret_used)
{
	bool skip = s->state == STREAM_VALUE && s->want == WANT_NOTHING;
	struct pb_json_span value = {p, 0};
	int done, rc;

	s->inside = true;
	value.len = *ret_used = scan_value(&s->scan, p, n, &done);
	if (done < 0)
		return done;
	if (!skip && s->held.len + value.len > stream_limit(s))
		return -EFBIG;
	if (!skip && (s->held.len || !done)) {
		if (pb_buf_append(&s->held, p, value.len) < 0)
			return -ENOMEM;
		value = (struct pb_json_span){s->held.data, s->held.len};
	}
	if (!done)
		return 0;
	s->inside = false;
	s->scan = (struct scan){0};
	rc = stream_taken(s, value);
	pb_buf_reset(&s->held);
	return rc;
}

/* A byte between values: true when it was punctuation that fits and is used up. */
static bool stream_punctuation(struct pb_json_stream *s, char c)
{
	static const struct {
		enum stream_state from;
		char c;
		enum stream_state to;
	} steps[] = {
		{STREAM_BEGIN, '{', STREAM_KEY_FIRST}, {STREAM_KEY_FIRST, '}', STREAM_END},
		{STREAM_COLON, ':', STREAM_VALUE},     {STREAM_AFTER_VALUE, ',', STREAM_KEY},
		{STREAM_AFTER_VALUE, '}', STREAM_END}, {STREAM_ITEM_FIRST, ']', STREAM_AFTER_VALUE},
		{STREAM_AFTER_ITEM, ',', STREAM_ITEM}, {STREAM_AFTER_ITEM, ']', STREAM_AFTER_VALUE},
	};

	if (s->state == STREAM_VALUE && s->want == WANT_ITEMS && c == '[') {
		s->state = STREAM_ITEM_FIRST;
		return true;
	}
	for (size_t i = 0; i < PB_ARRAY_LEN(steps); i++) {
		if (steps[i].from == s->state && steps[i].c == c) {
			s->state = steps[i].to;
			return true;
		}
	}
	return false;
}

static bool stream_value_may_start(const struct pb_json_stream *s)
{
	switch (s->state) {
	case STREAM_KEY_FIRST:
	case STREAM_KEY:
	case STREAM_VALUE:
	case STREAM_ITEM_FIRST:
	case STREAM_ITEM:
		return true;
	default:
		return false;
	}
}

static int stream_step(struct pb_json_stream *s, const char *p, size_t n, size_t *ret_used)
{
	if (!s->inside) {
		*ret_used = skip_blanks(p, n);
		if (*ret_used)
			return 0;
		*ret_used = 1;
		if (stream_punctuation(s, *p))
			return 0;
		if (!stream_value_may_start(s))
			return -EPROTO;
	}
	return stream_scan(s, p, n, ret_used);
}

int pb_json_stream_feed(struct pb_json_stream *s, const char *data, size_t len, struct pb_err *err)
{
	size_t used;
	int rc = 0;

	while (len && rc == 0) {
		rc = stream_step(s, data, len, &used);
		data += used;
		len -= used;
	}
	if (rc == -EPROTO)
		return pb_err_set(err, rc, "the answer is not a Kubernetes list");
	if (rc == -EFBIG)
		return pb_err_set(err, rc, "an object of the list is larger than %zu bytes",
				  s->max);
	if (rc < 0)
		return pb_err_set(err, rc, "reading the list: %s", strerror(-rc));
	return 0;
}

int pb_json_stream_end(const struct pb_json_stream *s, struct pb_err *err)
{
	if (s->state != STREAM_END)
		return pb_err_set(err, -EPROTO, "the list was cut short");
	if (!s->version[0])
		return pb_err_set(err, -EPROTO, "the list has no metadata.resourceVersion");
	return 0;
}
