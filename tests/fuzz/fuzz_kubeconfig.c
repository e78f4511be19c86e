/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer target: any bytes as a kubeconfig give settings with a server, or an error text. */
#include <kube/kubeconfig.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_api_config *config = NULL;
	struct pb_err err = {0};
	int rc = pb_kubeconfig_parse("kubeconfig", (const char *)data, size, &config, &err);

	if (rc < 0 ? config || !err.text[0] : !config->n_servers || !config->origin)
		abort();
	pb_api_config_free(config);
	return 0;
}
