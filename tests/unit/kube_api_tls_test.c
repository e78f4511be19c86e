/* SPDX-License-Identifier: Apache-2.0 */
/* TLS with an authority that the test makes for itself: who is believed, and as whom we come. */
#include "kube_api_harness.h"
#include "kube_api_pki.h"

#define SVC PB_KUBE_SERVICE

Test(kube_api_tls, the_server_is_believed_by_its_authority_and_its_name)
{
	struct pb_api_config *config;
	struct bench b;
	struct pki p;

	pki_make(&p);
	bench_open_tls(&b, p.cert, p.key);
	config = bench_config(&b);
	config->ca.file = strdup(p.ca);
	config->tls_server_name = strdup("kubernetes");
	fake_api_put(b.api, SERVICES, "a", "one", "");
	bench_start(&b, config, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	cr_assert_str_eq(bench_objects(&b, SVC), "a/one");
	cr_assert(strstr(fake_http_url(fake_api_http(b.api)), fake_api_host(b.api)),
		  "the Host header stays the server's: %s", fake_api_host(b.api));
	fake_api_put(b.api, SERVICES, "a", "two", "");
	WAIT(&b, strcmp(bench_objects(&b, SVC), "a/one a/two") == 0);
	bench_close(&b);
	pki_remove(&p);
}

Test(kube_api_tls, an_authority_inside_the_kubeconfig_is_as_good_as_a_file)
{
	struct pb_api_config *config;
	struct bench b;
	struct pki p;

	pki_make(&p);
	bench_open_tls(&b, p.cert, p.key);
	config = bench_config(&b);
	cr_assert_eq(pb_file_read(p.ca, 100000, &config->ca.text, NULL), 0);
	config->tls_server_name = strdup("kubernetes");
	bench_start(&b, config, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	bench_close(&b);
	pki_remove(&p);
}

Test(kube_api_tls, a_server_that_can_not_be_believed_is_told_nothing)
{
	static const struct {
		bool stranger;
		const char *name;
		const char *state;
	} cases[] = {
		{true, "kubernetes",
		 "SSL certificate problem"}, /* another authority than the one named */
		{false, "someone-else", "no alternative certificate subject name matches"},
		{false, NULL, "no alternative certificate subject name matches"},
	};
	struct pki p;

	pki_make(&p);
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_api_config *config;
		struct bench b;

		bench_open_tls(&b, p.cert, p.key);
		config = bench_config(&b);
		config->token = strdup("secret");
		config->ca.file = strdup(cases[i].stranger ? p.other : p.ca);
		config->tls_server_name = cases[i].name ? strdup(cases[i].name) : NULL;
		bench_start(&b, config, SVC);
		WAIT(&b, bench_says(&b, SVC, "retrying in "));
		cr_assert(bench_says(&b, SVC, cases[i].state), "%s", b.sink.state[SVC]);
		cr_assert(bench_says(&b, SVC, "https://127.0.0.1:"));
		cr_assert_eq(fake_api_asked(b.api, "/", NULL), 0);
		bench_close(&b);
	}
	pki_remove(&p);
}

Test(kube_api_tls, verification_can_be_turned_off)
{
	struct pb_api_config *config;
	struct bench b;
	struct pki p;

	pki_make(&p);
	bench_open_tls(&b, p.cert, p.key);
	config = bench_config(&b);
	config->insecure = true;
	bench_start(&b, config, SVC);
	WAIT(&b, fake_api_watches(b.api) == 1);
	bench_close(&b);
	pki_remove(&p);
}
