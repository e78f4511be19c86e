/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates for one test, made with the openssl command in a directory of its own. */
#ifndef KUBE_API_PKI_H
#define KUBE_API_PKI_H

struct pki {
	char dir[32];
	char ca[64], cert[64], key[64], other[64];
};

/* An authority, a certificate for the name "kubernetes" only, and a stranger's authority. */
void pki_make(struct pki *pki);
void pki_remove(struct pki *pki);

#endif
