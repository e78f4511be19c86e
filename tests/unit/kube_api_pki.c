/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the openssl command; a test is skipped where there is none. */
#include "kube_api_pki.h"

#include <base/base.h>
#include <criterion/criterion.h>

static void run(const char *dir, const char *command)
{
	PB_FREE char *line = pb_sprintf("cd %s && %s >/dev/null 2>&1", dir, command);

	cr_assert_eq(system(line), 0, "failed: %s", command);
}

void pki_make(struct pki *p)
{
	if (system("openssl version >/dev/null 2>&1") != 0)
		cr_skip("the openssl command is not installed");
	strcpy(p->dir, "/tmp/pb-pki-XXXXXX");
	cr_assert_not_null(mkdtemp(p->dir));
	run(p->dir, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
		    "-subj /CN=test-ca -keyout ca.key -out ca.crt");
	run(p->dir, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
		    "-subj /CN=stranger -keyout other.key -out other.crt");
	run(p->dir, "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
		    "-subj /CN=kubernetes -keyout tls.key -out tls.csr");
	run(p->dir,
	    "printf 'subjectAltName=DNS:kubernetes\n' > ext && openssl x509 -req -in tls.csr "
	    "-CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out tls.crt");
	snprintf(p->ca, sizeof(p->ca), "%s/ca.crt", p->dir);
	snprintf(p->cert, sizeof(p->cert), "%s/tls.crt", p->dir);
	snprintf(p->key, sizeof(p->key), "%s/tls.key", p->dir);
	snprintf(p->other, sizeof(p->other), "%s/other.crt", p->dir);
}

void pki_remove(struct pki *p)
{
	run(p->dir, "rm -f ca.* tls.* other.* ext .srl");
	rmdir(p->dir);
}
