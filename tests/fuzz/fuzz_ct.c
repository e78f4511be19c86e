/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: filter and place of `ct list`, and an entry as a row. What is refused has a
 * text; a place that is taken is the same after it was written down; every entry makes a row.
 */
#include <datapath/ct_private.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_place(const char *text)
{
	struct pb_ct_place place, again;
	char out[PB_CT_PLACE_TEXT];

	if (pb_ct_place_parse(text, &place) < 0 || !place.begun)
		return;
	pb_ct_place_text(&place, out, sizeof(out));
	if (pb_ct_place_parse(out, &again) < 0 || again.by_key != place.by_key ||
	    again.bucket != place.bucket || memcmp(&again.key, &place.key, sizeof(place.key)) != 0)
		abort();
}

static void try_row(const struct pb_ct_filter *filter, const uint8_t *data, size_t size)
{
	struct pb_ct_key key = {0};
	struct pb_ct ct = {0};
	cJSON *items = NULL;
	PB_JSON_FREE cJSON *table = pb_ct_rows_new(false, &items);

	memcpy(&key, data, size < sizeof(key) ? size : sizeof(key));
	if (size > sizeof(key))
		memcpy(&ct, data + sizeof(key),
		       size - sizeof(key) < sizeof(ct) ? size - sizeof(key) : sizeof(ct));
	if (!table)
		return;
	pb_ct_filter_passes(filter, &key, &ct);
	pb_ct_row(items, &key, &ct, 100);
	pb_ct_nat_row(items, &key, &ct, 100);
	if (cJSON_GetArraySize(items) != 2)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	PB_FREE char *text = malloc(size + 2);
	struct pb_ct_filter filter;
	struct pb_err err = {0};
	size_t first, second;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = text[size + 1] = '\0';
	first = strlen(text);
	second = first < size ? first + 1 + strlen(text + first + 1) : size;
	if (pb_ct_filter_parse(text, &filter, &err) < 0 && !err.text[0])
		abort();
	try_place(first < size ? text + first + 1 : "");
	if (second < size)
		try_row(&filter, data + second + 1, size - second - 1);
	return 0;
}
