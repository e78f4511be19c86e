/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a manifest file: YAML, and JSON when the first byte is 'j'. What YAML turns into
 * must be JSON.
 */
#include <kube/manifests.h>
#include <kube/yaml.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int check_document(void *arg, const char *json, size_t len, unsigned line,
			  struct pb_err *err)
{
	struct pb_span root;
	int rc = pb_scan_check(json, len, &root, err);

	(void)arg;
	(void)line;
	/* An alias may lead deeper than a reader accepts; nothing else may be wrong. */
	if (rc < 0 && !strstr(err->text, "nested too deeply"))
		abort();
	return 0;
}

static void parse(const uint8_t *data, size_t size, bool json)
{
	struct pb_manifest_file *file = pb_manifest_file_new("f");
	FILE *in = fmemopen((void *)(uintptr_t)data, size, "r");
	struct pb_err err;
	size_t len;

	if (in && file)
		pb_manifest_file_parse(in, json, UINT32_MAX, file, &len, &err);
	if (in)
		fclose(in);
	pb_manifest_files_free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_err err;
	FILE *in;

	if (size == 0)
		return 0;
	if (data[0] == 'j') {
		parse(data + 1, size - 1, true);
		return 0;
	}
	parse(data, size, false);
	in = fmemopen((void *)(uintptr_t)data, size, "r");
	if (in) {
		pb_yaml_documents(in, check_document, NULL, &err);
		fclose(in);
	}
	if (pb_kube_intern_count() != 0)
		abort();
	return 0;
}
