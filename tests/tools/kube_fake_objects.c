/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The texts of the fake API server: objects, events, bookmarks, lists, and a list as gzip.
 */
#include "kube_fake_objects.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* "services" -> Service, "endpoints" -> Endpoints, "endpointslices" -> EndpointSlice */
static void kind_of(const char *collection, char *kind, char *api_version)
{
	const char *plural = strrchr(collection, '/') + 1;
	size_t len = strlen(plural);

	if (strcmp(plural, "endpoints") == 0)
		strcpy(kind, "Endpoints");
	else if (strcmp(plural, "endpointslices") == 0)
		strcpy(kind, "EndpointSlice");
	else
		sprintf(kind, "%c%.*s", plural[0] - 32, (int)len - 2, plural + 1);
	if (strncmp(collection, "/apis/", 6) == 0)
		sprintf(api_version, "%.*s", (int)(plural - collection - 7), collection + 6);
	else
		strcpy(api_version, "v1");
}

void fake_print_object(FILE *f, const struct fake_change *c, unsigned long rv, bool typed)
{
	char kind[64], api_version[128];

	kind_of(c->collection, kind, api_version);
	fprintf(f, "{");
	if (typed)
		fprintf(f, "\"kind\":\"%s\",\"apiVersion\":\"%s\",", kind, api_version);
	fprintf(f, "\"metadata\":{\"name\":\"%s\",", c->name);
	if (c->ns[0])
		fprintf(f, "\"namespace\":\"%s\",", c->ns);
	fprintf(f, "\"resourceVersion\":\"%lu\"}%s%s}", rv, c->body[0] ? "," : "", c->body);
}

void fake_print_event(FILE *f, const struct fake_change *c)
{
	fprintf(f, "{\"type\":\"%s\",\"object\":",
		c->deleted ? "DELETED"
		: c->first ? "ADDED"
			   : "MODIFIED");
	fake_print_object(f, c, c->rv, true);
	fprintf(f, "}\n");
}

void fake_print_bookmark(FILE *f, const char *collection, unsigned long rv, bool mark)
{
	char kind[64], api_version[128];

	kind_of(collection, kind, api_version);
	fprintf(f,
		"{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"%s\",\"apiVersion\":\"%s\","
		"\"metadata\":{\"resourceVersion\":\"%lu\",\"creationTimestamp\":null%s}}}\n",
		kind, api_version, rv,
		mark ? ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}" : "");
}

bool fake_same_object(const struct fake_change *a, const struct fake_change *b)
{
	return strcmp(a->collection, b->collection) == 0 && strcmp(a->ns, b->ns) == 0 &&
	       strcmp(a->name, b->name) == 0;
}

size_t fake_snapshot(struct fake_change *changes, size_t n_changes, const char *collection,
		     unsigned long rv, struct fake_change **out)
{
	size_t n = 0;

	for (size_t i = 0; i < n_changes; i++) {
		struct fake_change *c = &changes[i];
		bool latest = c->rv <= rv && strcmp(c->collection, collection) == 0;

		for (size_t j = i + 1; latest && j < n_changes; j++) {
			if (changes[j].rv <= rv && fake_same_object(c, &changes[j]))
				latest = false;
		}
		if (latest && !c->deleted)
			out[n++] = c;
	}
	return n;
}

void fake_print_list(FILE *f, const char *collection, struct fake_change **items, size_t from,
		     size_t to, size_t all, unsigned long rv)
{
	char kind[64], api_version[128];

	kind_of(collection, kind, api_version);
	fprintf(f, "{\"kind\":\"%sList\",\"apiVersion\":\"%s\",\"metadata\":{", kind, api_version);
	fprintf(f, "\"resourceVersion\":\"%lu\"", rv);
	if (to < all)
		fprintf(f, ",\"continue\":\"%lu:%zu=\",\"remainingItemCount\":%zu", rv, to,
			all - to);
	fprintf(f, "},\"items\":[");
	for (size_t i = from; i < to; i++) {
		if (i > from)
			fputc(',', f);
		fake_print_object(f, items[i], items[i]->rv, false);
	}
	fprintf(f, "]}\n");
}

static uint32_t crc32_of(const char *data, size_t len)
{
	uint32_t crc = ~0U;

	for (size_t i = 0; i < len; i++) {
		crc ^= (unsigned char)data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320U : 0);
	}
	return ~crc;
}

static void put_le(FILE *f, uint32_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		fputc((int)(value >> (8 * i) & 0xff), f);
}

void fake_gzip(struct fake_text *out, const char *data, size_t len)
{
	fake_text_open(out);
	fwrite("\x1f\x8b\x08\0\0\0\0\0\0\xff", 1, 10, out->file);
	for (size_t at = 0; at < len || at == 0; at += 65535) {
		uint32_t part = len - at < 65535 ? (uint32_t)(len - at) : 65535;

		fputc(at + part == len, out->file);
		put_le(out->file, part, 2);
		put_le(out->file, ~part, 2);
		fwrite(data + at, 1, part, out->file);
		if (part < 65535)
			break;
	}
	put_le(out->file, crc32_of(data, len), 4);
	put_le(out->file, (uint32_t)len, 4);
	fake_text_close(out);
}

void fake_text_open(struct fake_text *t)
{
	t->file = open_memstream(&t->data, &t->len);
}

void fake_text_close(struct fake_text *t)
{
	fclose(t->file);
}
