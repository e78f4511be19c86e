/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: any bytes as a plugin's file. The seed is the smallest file that is accepted.
 * Nothing may crash; an accepted manifest obeys what the loader relies on.
 */
#include <plugin/manager.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool ends(const char *field, size_t size)
{
	return memchr(field, '\0', size) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_manifest mf;
	struct pb_err err = {0};
	/* Exactly as long as the input, so that one byte too far is seen. */
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		return 0;
	memcpy(copy, data, size);
	if (pb_manifest_parse("input", copy, size, &mf, &err) == 0) {
		if (!ends(mf.name, sizeof(mf.name)) || !mf.name[0] || strchr(mf.name, '/') ||
		    !ends(mf.version, sizeof(mf.version)) ||
		    !ends(mf.requires, sizeof(mf.requires)) ||
		    mf.state_schema_min > mf.state_schema)
			abort();
	} else if (!err.text[0]) {
		abort();
	}
	free(copy);
	return 0;
}
