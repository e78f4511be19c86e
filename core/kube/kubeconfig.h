/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How to reach an API server and as whom: read from a kubeconfig file or a pod's environment.
 *
 * Owns the settings of one connection as an immutable structure. What can't be honoured (login
 * plugins, impersonation) is refused with the line it stands on: nothing is left out in silence
 * that would change who the agent is. Secrets are wiped when freed and never appear in a text.
 */
#ifndef PB_KUBE_KUBECONFIG_H
#define PB_KUBE_KUBECONFIG_H

#include <base/base.h>

/* Either a file, read anew for each connection, or PEM text from the kubeconfig; or neither. */
struct pb_api_pem {
	char *file;
	struct pb_buf text;
};

struct pb_api_config {
	char *origin;	/* "context admin of /etc/kubernetes/admin.conf", "in-cluster" */
	char **servers; /* base URLs without a slash at the end, at least one */
	size_t n_servers;
	char *tls_server_name; /* NULL: the host of the URL */
	char *proxy;	       /* NULL: none; the environment is never asked */
	char *token;
	char *token_file; /* wins over token */
	char *username;
	char *password;
	struct pb_api_pem ca; /* empty: the system's */
	struct pb_api_pem cert;
	struct pb_api_pem key;
	bool insecure;
	bool no_compression;
};

/* Reads and checks the current context of a file. Messages name file and line. */
int pb_kubeconfig_load(const char *path, struct pb_api_config **ret_config, struct pb_err *err);
/* The same from memory. `name` stands for the file in messages and for relative paths. */
int pb_kubeconfig_parse(const char *name, const char *text, size_t len,
			struct pb_api_config **ret_config, struct pb_err *err);
/* From KUBERNETES_SERVICE_HOST and _PORT and the service account mounted at `directory`. */
int pb_api_config_in_cluster(const char *directory, struct pb_api_config **ret_config,
			     struct pb_err *err);
/*
 * Equal for settings that lead to the same server as the same user: covers the fields and the
 * content of the certificate files, as they are now. Of a token file only the path counts: whoever
 * uses the settings reads it again anyway.
 */
uint64_t pb_api_config_digest(const struct pb_api_config *config);
struct pb_api_config *pb_api_config_free(struct pb_api_config *config); /* returns NULL */

#define PB_SERVICE_ACCOUNT_DIR "/var/run/secrets/kubernetes.io/serviceaccount"

#endif
