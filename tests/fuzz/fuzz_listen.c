/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as http.listen: an address of a family that is known, off, or a reason. */
#include <stdlib.h>

#include <config/listen.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct pb_listen listen;
	const char *wrong;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	wrong = pb_listen_parse(text, &listen);
	if (wrong ? !*wrong : listen.len > sizeof(listen.addr))
		abort();
	if (!wrong && listen.len && listen.addr.ss_family != AF_INET &&
	    listen.addr.ss_family != AF_INET6 && listen.addr.ss_family != AF_UNIX)
		abort();
	free(text);
	return 0;
}
