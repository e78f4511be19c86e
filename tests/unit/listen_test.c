/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses to listen on: what is one, and what is said of the others. */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <config/listen.h>

static const char form[] = "is no address; write 127.0.0.1:PORT, [::1]:PORT, unix:/PATH or off, "
			   "names are not resolved";
static const char port[] = "has no port behind its last ':'; give a number from 1 to 65535";

static const struct {
	const char *text;
	int family; /* 0: off */
	unsigned port;
	const char *wrong;
} cases[] = {
	{"off", 0, 0, NULL},
	{"127.0.0.1:9876", AF_INET, 9876, NULL},
	{"0.0.0.0:1", AF_INET, 1, NULL},
	{"[::1]:65535", AF_INET6, 65535, NULL},
	{"[::]:80", AF_INET6, 80, NULL},
	{"unix:/run/patchbay/http.sock", AF_UNIX, 0, NULL},
	{"", 0, 0, form},
	{"on", 0, 0, form},
	{"9876", 0, 0, form},
	{":9876", 0, 0, form},
	{"localhost:9876", 0, 0, form},
	{"127.1:9876", 0, 0, form},
	{"127.0.0.1", 0, 0, form},
	{"::1:9876", 0, 0, form},
	{"[::1:9876", 0, 0, form},
	{"[127.0.0.1]:9876", 0, 0, form},
	{"[]:9876", 0, 0, form},
	{"[fe80::1%eth0]:9876", 0, 0, form},
	{"127.0.0.1:", 0, 0, port},
	{"127.0.0.1:0", 0, 0, port},
	{"127.0.0.1:65536", 0, 0, port},
	{"127.0.0.1:123456", 0, 0, port},
	{"127.0.0.1:-1", 0, 0, port},
	{"127.0.0.1:80x", 0, 0, port},
	{"[::1]", 0, 0, port},
	{"unix:", 0, 0, "needs an absolute path behind \"unix:\""},
	{"unix:run/x", 0, 0, "needs an absolute path behind \"unix:\""},
};

Test(listen, each_text_is_an_address_or_says_what_is_wrong)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_listen listen;
		const struct sockaddr_in *v4 = (const void *)&listen.addr;
		const char *wrong = pb_listen_parse(cases[i].text, &listen);

		cr_expect_str_eq(wrong ? wrong : "", cases[i].wrong ? cases[i].wrong : "", "%s",
				 cases[i].text);
		if (wrong)
			continue;
		cr_expect_eq(listen.len != 0, cases[i].family != 0, "%s", cases[i].text);
		cr_expect_eq(listen.addr.ss_family, cases[i].family, "%s", cases[i].text);
		if (cases[i].port)
			cr_expect_eq(ntohs(v4->sin_port), cases[i].port, "%s", cases[i].text);
	}
}

Test(listen, a_path_fits_into_an_address)
{
	struct pb_listen listen;
	char text[128];

	memset(text, 'a', sizeof(text));
	memcpy(text, "unix:/", 6);
	text[5 + 107] = '\0';
	cr_expect_null(pb_listen_parse(text, &listen));
	text[5 + 107] = 'a';
	text[5 + 108] = '\0';
	cr_expect_not_null(pb_listen_parse(text, &listen));
}
