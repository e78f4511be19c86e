/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as patchbay.yaml: an error with a text, or a configuration whose plugin sections are
 * JSON; never a crash, a leak or an endless loop.
 */
#include <base/json.h>
#include <config/config.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_config *config = NULL;
	struct pb_err err = {0};

	if (pb_config_parse("fuzz.yaml", (const char *)data, size, &config, &err) < 0) {
		if (config || !err.text[0])
			abort();
		return 0;
	}
	for (size_t i = 0; i < config->n_plugins; i++) {
		PB_JSON_FREE cJSON *json = cJSON_Parse(config->plugins[i].json);

		if (!cJSON_IsObject(json))
			abort();
	}
	pb_config_free(config);
	return 0;
}
