/* SPDX-License-Identifier: Apache-2.0 */
/* Units of core/kube/kubeconfig*.c: what is accepted, and the exact text of what is refused. */
#include <criterion/criterion.h>

#include <kube/kubeconfig.h>

/* base64 of "-----BEGIN CERTIFICATE-----\n" and of "-----BEGIN PRIVATE KEY-----\n" */
#define CERT64 "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="
#define KEY64 "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCg=="

/* Three lines before the cluster's first field, and the user's section after it. */
#define HEAD "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
#define CLUSTER(fields_) "clusters:\n- name: k\n  cluster:\n" fields_
#define SERVER "    server: https://10.0.0.1:6443\n"
#define USER(fields_) "users:\n- name: u\n  user:\n" fields_
#define WITH_USER(fields_) HEAD CLUSTER(SERVER) USER(fields_)

static int parse(const char *text, struct pb_api_config **ret_config, struct pb_err *err)
{
	return pb_kubeconfig_parse("/d/kc", text, strlen(text), ret_config, err);
}

Test(kube_api_config, every_field_of_a_complete_file_is_read)
{
	static const char text[] =
		"apiVersion: v1\nkind: Config\npreferences: {}\n"
		"current-context: prod\n"
		"contexts:\n"
		"- name: other\n  context: {cluster: none, user: nobody}\n"
		"- name: prod\n  context: {cluster: east, user: agent, namespace: x}\n"
		"clusters:\n"
		"- name: east\n"
		"  cluster:\n"
		"    server: https://api.example:6443/k8s/clusters/c-1/\n"
		"    certificate-authority-data: " CERT64 "\n"
		"    tls-server-name: kubernetes\n"
		"    proxy-url: http://proxy.example:3128\n"
		"    disable-compression: true\n"
		"    extensions:\n"
		"    - {name: other-tool, extension: {whatever: [1]}}\n"
		"    - name: patchbay\n"
		"      extension: {servers: [\"https://[fd00::2]:6443\", \"https://b.example\"]}\n"
		"users:\n"
		"- name: agent\n"
		"  user:\n"
		"    client-certificate-data: " CERT64 "\n"
		"    client-key-data: >-\n      LS0tLS1CRUdJTiBQUklW\n      QVRFIEtFWS0tLS0tCg==\n"
		"    token: \"abc.def\"\n";
	struct pb_api_config *c = NULL;
	struct pb_err err = {0};

	cr_assert_eq(parse(text, &c, &err), 0, "%s", err.text);
	cr_assert_str_eq(c->origin, "context prod of /d/kc");
	cr_assert_eq(c->n_servers, 3);
	cr_assert_str_eq(c->servers[0], "https://api.example:6443/k8s/clusters/c-1");
	cr_assert_str_eq(c->servers[1], "https://[fd00::2]:6443");
	cr_assert_str_eq(c->servers[2], "https://b.example");
	cr_assert_str_eq(c->ca.text.data, "-----BEGIN CERTIFICATE-----\n");
	cr_assert_str_eq(c->cert.text.data, "-----BEGIN CERTIFICATE-----\n");
	cr_assert_str_eq(c->key.text.data, "-----BEGIN PRIVATE KEY-----\n");
	cr_assert_str_eq(c->tls_server_name, "kubernetes");
	cr_assert_str_eq(c->proxy, "http://proxy.example:3128");
	cr_assert_str_eq(c->token, "abc.def");
	cr_assert(c->no_compression);
	cr_assert_not(c->insecure);
	pb_api_config_free(c);
}

Test(kube_api_config, what_kubectl_accepts_is_accepted)
{
	static const char *const texts[] = {
		/* no user: anonymous */
		"current-context: c\ncontexts: [{name: c, context: {cluster: k}}]\n" CLUSTER(
			SERVER),
		"current-context: c\ncontexts: [{name: c, context: {cluster: k, user: "
		"''}}]\n" CLUSTER(SERVER),
		WITH_USER("    {}\n"),
		WITH_USER("    token: t\n    exec: null\n    auth-provider: ~\n"),
		WITH_USER("    username: a\n    password: '12'\n"),
		HEAD CLUSTER("    server: http://localhost:8080\n") USER("    {unknown: {a: b}}\n"),
		HEAD CLUSTER(SERVER "    insecure-skip-tls-verify: true\n"
				    "    certificate-authority-data: ''\n") USER("    {}\n"),
		("{\"current-context\":\"c\",\"contexts\":[{\"name\":\"c\",\"context\":{"
		 "\"cluster\":"
		 "\"k\"}}],\"clusters\":[{\"name\":\"k\",\"cluster\":{\"server\":\"https://"
		 "a\"}}]}"),
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(texts); i++) {
		struct pb_api_config *c = NULL;
		struct pb_err err = {0};

		cr_expect_eq(parse(texts[i], &c, &err), 0, "case %zu: %s", i, err.text);
		pb_api_config_free(c);
	}
}

#define PLUGIN_TEXT                                                                                \
	": login plugins run programs and are not supported; use a service account's token "       \
	"(\"tokenFile\") or a client certificate"

Test(kube_api_config, what_is_wrong_is_named_with_its_line)
{
	static const struct {
		const char *text;
		const char *error;
	} cases[] = {
		{"", "/d/kc: the file is empty"},
		{"- a\n", "/d/kc:1: not a kubeconfig: it must start with keys"},
		{"a: b\nc: [\n", "/d/kc:3: did not find expected node content"},
		{"clusters: []\n",
		 "/d/kc: \"current-context\" is not set; choose one: kubectl config use-context "
		 "NAME --kubeconfig FILE"},
		{"current-context: c\n", "/d/kc: \"contexts\" is missing"},
		{"current-context: c\ncontexts: {}\n", "/d/kc:2: \"contexts\" must be a list"},
		{"current-context: prd\ncontexts:\n- {name: prod, context: {}}\n",
		 "/d/kc:1: there is no context \"prd\"; did you mean \"prod\"?"},
		{"current-context: c\ncontexts:\n- {name: production, context: {}}\n",
		 "/d/kc:1: there is no context \"c\" in this file"},
		{"current-context: c\ncontexts:\n- {name: c}\n",
		 "/d/kc:3: context \"c\" has no section \"context\""},
		{"current-context: c\ncontexts:\n- {context: {}}\n",
		 "/d/kc:3: this entry of \"contexts\" has no name"},
		{"current-context: c\ncontexts:\n- {name: c, context: {user: u}}\n",
		 "/d/kc:3: the context has no \"cluster\""},
		{HEAD "clusters: []\n", "/d/kc:2: there is no cluster \"k\" in this file"},
		{HEAD CLUSTER("    {}\n"), "/d/kc:6: the cluster has no \"server\""},
		{HEAD CLUSTER("    server: 10.0.0.1:6443\n"),
		 "/d/kc:6: \"server\": \"10.0.0.1:6443\" must start with https:// or http://"},
		{HEAD CLUSTER("    server: https://a:b@h\n"),
		 "/d/kc:6: \"server\": a URL with a user in it; use \"username\" and \"password\""},
		{HEAD CLUSTER("    server: https://h/?a=b\n"),
		 "/d/kc:6: \"server\": \"https://h/?a=b\" has something after the path"},
		{HEAD CLUSTER("    server: https://h:99999\n"),
		 "/d/kc:6: \"server\": \"https://h:99999\" is not a URL"},
		{HEAD CLUSTER("    server: [a]\n"), "/d/kc:6: \"server\" must be a URL"},
		{HEAD CLUSTER(SERVER "    server: https://h\n"),
		 "/d/kc:7: \"server\" stands twice in this section"},
		{HEAD CLUSTER(SERVER "    insecure-skip-tls-verify: 'true'\n"),
		 "/d/kc:7: \"insecure-skip-tls-verify\" must be true or false"},
		{HEAD CLUSTER(SERVER "    insecure-skip-tls-verify: true\n"
				     "    certificate-authority-data: " CERT64 "\n"),
		 "/d/kc:6: \"insecure-skip-tls-verify\" and a certificate authority contradict "
		 "each other; remove one"},
		{HEAD CLUSTER(SERVER "    certificate-authority-data: '%%%'\n"),
		 "/d/kc:7: \"certificate-authority-data\": not base64"},
		{HEAD CLUSTER(SERVER "    certificate-authority-data: aGVsbG8=\n"),
		 "/d/kc:7: \"certificate-authority-data\": no PEM block (-----BEGIN ...) in the "
		 "base64 text"},
		{HEAD CLUSTER(SERVER "    certificate-authority: missing/ca.crt\n"),
		 "/d/kc:7: \"certificate-authority\": /d/missing/ca.crt: No such file or "
		 "directory"},
		{HEAD CLUSTER(SERVER "    certificate-authority: /dev\n"),
		 "/d/kc:7: \"certificate-authority\": /dev: not a regular file"},
		{HEAD CLUSTER(SERVER "    extensions:\n    - {name: patchbay, extension: {}}\n"),
		 "/d/kc:8: \"servers\" must be a list of URLs"},
		{HEAD CLUSTER(SERVER) "users: []\n",
		 "/d/kc:2: there is no user \"u\" in this file"},
		{WITH_USER("    exec: {command: aws}\n"),
		 "/d/kc:10: user \"u\": \"exec\"" PLUGIN_TEXT},
		{WITH_USER("    token: t\n    auth-provider: {name: oidc}\n"),
		 "/d/kc:11: user \"u\": \"auth-provider\"" PLUGIN_TEXT},
		{WITH_USER("    as: root\n"), "/d/kc:10: user \"u\": \"as\": impersonation is not "
					      "supported; give the agent its own user"},
		{WITH_USER("    client-certificate-data: " CERT64 "\n"),
		 "/d/kc:10: a client certificate without \"client-key\""},
		{WITH_USER("    client-key-data: " KEY64 "\n"),
		 "/d/kc:10: a client key without \"client-certificate\""},
		{WITH_USER("    username: a\n    token: t\n"),
		 "/d/kc:10: \"username\" and a token contradict each other; remove one"},
		{WITH_USER("    token: [t]\n"), "/d/kc:10: \"token\" must be a string"},
		{WITH_USER("    token: \"a\\nb: c\"\n"),
		 "/d/kc:10: \"token\" has a line break in it"},
		{WITH_USER("    token: \"a\\0b\"\n"), "/d/kc:10: \"token\" must be a string"},
		{WITH_USER("    tokenFile: gone\n"),
		 "/d/kc:10: \"tokenFile\": /d/gone: No such file or directory"},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_api_config *c = NULL;
		struct pb_err err = {0};

		cr_expect_lt(parse(cases[i].text, &c, &err), 0, "case %zu was accepted", i);
		cr_expect_str_eq(err.text, cases[i].error, "case %zu", i);
		cr_expect_null(c);
	}
}

static void write_file(const char *dir, const char *name, const char *text)
{
	PB_FREE char *path = pb_sprintf("%s/%s", dir, name);
	struct pb_err err;

	cr_assert_eq(pb_file_write(path, text, strlen(text), 0600, &err), 0);
}

static void remove_files(const char *dir)
{
	static const char *const names[] = {"token", "ca.crt", "kubeconfig"};

	for (size_t i = 0; i < PB_ARRAY_LEN(names); i++) {
		PB_FREE char *path = pb_sprintf("%s/%s", dir, names[i]);

		unlink(path);
	}
	rmdir(dir);
}

Test(kube_api_config, relative_files_are_looked_for_beside_the_kubeconfig)
{
	char dir[] = "/tmp/pb-kubeconfig-XXXXXX";
	struct pb_api_config *c = NULL;
	PB_FREE char *path = NULL;
	PB_FREE char *token = NULL;
	struct pb_err err = {0};

	cr_assert_not_null(mkdtemp(dir));
	path = pb_sprintf("%s/kubeconfig", dir);
	token = pb_sprintf("%s/token", dir);
	write_file(dir, "token", "t");
	write_file(dir, "ca.crt", "x");
	write_file(dir, "kubeconfig",
		   HEAD CLUSTER(SERVER "    certificate-authority: ca.crt\n")
			   USER("    tokenFile: token\n"));
	cr_assert_eq(pb_kubeconfig_load(path, &c, &err), 0, "%s", err.text);
	cr_assert_str_eq(c->token_file, token);
	cr_assert_eq(strncmp(c->ca.file, dir, strlen(dir)), 0);
	pb_api_config_free(c);
	remove_files(dir);
}

Test(kube_api_config, in_cluster_needs_the_environment_and_both_files)
{
	char dir[] = "/tmp/pb-incluster-XXXXXX";
	struct pb_api_config *c = NULL;
	struct pb_err err = {0};

	cr_assert_not_null(mkdtemp(dir));
	unsetenv("KUBERNETES_SERVICE_HOST");
	cr_assert_eq(pb_api_config_in_cluster(dir, &c, &err), -ENOENT);
	cr_assert_str_eq(err.text,
			 "in-cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not "
			 "set; outside of a pod set kubernetes.kubeconfig");
	setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
	setenv("KUBERNETES_SERVICE_PORT", "443", 1);
	cr_assert_eq(pb_api_config_in_cluster(dir, &c, &err), -ENOENT);
	cr_assert_not_null(strstr(err.text, "in-cluster: the service account's token: /tmp/"));
	write_file(dir, "token", "t");
	cr_assert_eq(pb_api_config_in_cluster(dir, &c, &err), -ENOENT);
	cr_assert_not_null(strstr(err.text, "/ca.crt: No such file or directory"));
	write_file(dir, "ca.crt", "x");
	cr_assert_eq(pb_api_config_in_cluster(dir, &c, &err), 0, "%s", err.text);
	cr_assert_str_eq(c->servers[0], "https://[fd00::1]:443");
	pb_api_config_free(c);
	remove_files(dir);
}
