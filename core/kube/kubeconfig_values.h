/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The single values of an API server's settings, checked: URLs, PEM texts, files.
 *
 * Owns the rules for one value each. Knows no file format. Error texts name the cause only; the
 * caller adds where the value stands.
 */
#ifndef PB_KUBE_KUBECONFIG_VALUES_H
#define PB_KUBE_KUBECONFIG_VALUES_H

#include <kube/kubeconfig.h>

/* http or https, a host, perhaps a port and a path; the result has no slash at its end. */
int pb_api_server_url(const char *text, char **ret_url, struct pb_err *err);
/* Base64 (blanks allowed) of something that has a PEM block in it. */
int pb_api_pem_inline(const char *base64, struct pb_buf *out, struct pb_err *err);
/* `path`, or beside `base` when relative; it must be a file that can be read. */
int pb_api_file(const char *base, const char *path, char **ret_path, struct pb_err *err);

#endif
