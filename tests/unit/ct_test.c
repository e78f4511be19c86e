/* SPDX-License-Identifier: Apache-2.0 */
/* Filters, rows, places and intervals of connection tracking: all that needs no map. */
#include <criterion/criterion.h>

#include <arpa/inet.h>

#include <datapath/ct_private.h>

static union pb_addr address(const char *text)
{
	union pb_addr addr = {0};

	cr_assert_eq(inet_pton(strchr(text, ':') ? AF_INET6 : AF_INET, text, &addr), 1);
	return addr;
}

static const struct pb_ct_key *key(void)
{
	static struct pb_ct_key k;

	k = (struct pb_ct_key){.saddr = address("10.0.0.1"),
			       .daddr = address("10.96.0.1"),
			       .sport = htons(40000),
			       .dport = htons(80),
			       .protocol = IPPROTO_TCP,
			       .family = 4};
	return &k;
}

static const struct pb_ct *entry(void)
{
	static struct pb_ct ct;

	ct = (struct pb_ct){.saddr = address("192.168.0.1"),
			    .daddr = address("10.1.0.9"),
			    .sport = htons(1024),
			    .dport = htons(8080),
			    .flags = PB_CT_SNAT | PB_CT_DSR,
			    .state = PB_CT_ESTABLISHED,
			    .expires = 160,
			    .frontend = 7,
			    .backend = 12};
	return &ct;
}

Test(ct, a_filter_looks_at_both_tuples_and_wants_all_that_it_names)
{
	static const struct {
		const char *text;
		bool passes;
	} cases[] = {
		{"", true},
		{"address=10.0.0.1", true},
		{"address=10.96.0.1", true},
		{"address=192.168.0.1", true},
		{"address=10.1.0.9", true},
		{"address=10.1.0.8", false},
		{"address=fd00::1", false},
		{"address=a00:1::", false}, /* the same bytes, of the other family */
		{"port=80", true},
		{"port=8080", true},
		{"port=1024", true},
		{"port=40000", true},
		{"port=81", false},
		{"protocol=tcp", true},
		{"protocol=6", true},
		{"protocol=udp", false},
		{"family=4", true},
		{"family=6", false},
		{"zone=service", true},
		{"zone=egress", false},
		{"state=established", true},
		{"state=opening", false},
		{"flag=snat", true},
		{"flag=snat flag=dsr", true},
		{"flag=snat flag=reply", false},
		{"frontend=7", true},
		{"frontend=8", false},
		{"backend=12", true},
		{"backend=0", false},
		{"address=10.0.0.1 port=80 protocol=tcp", true},
		{"  address=10.0.0.1   port=81 ", false},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_ct_filter filter;
		struct pb_err err = {0};

		cr_assert_eq(pb_ct_filter_parse(cases[i].text, &filter, &err), 0, "%s: %s",
			     cases[i].text, err.text);
		cr_expect_eq(pb_ct_filter_passes(&filter, key(), entry()), cases[i].passes, "%s",
			     cases[i].text);
	}
}

Test(ct, a_filter_that_makes_no_sense_is_named_with_what_is_known)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
		{"10.0.0.1", "\"10.0.0.1\" is no filter; known are address=, port=, protocol=, "
			     "family=, zone=, state=, flag=, frontend= and backend="},
		{"host=a",
		 "\"host=a\" is no filter; known are address=, port=, protocol=, family=, "
		 "zone=, state=, flag=, frontend= and backend="},
		{"address=10.0.0", "address: \"10.0.0\" isn't an IPv4 or IPv6 address"},
		{"port=65536", "port: \"65536\" isn't a number up to 65535"},
		{"port=", "port: \"\" isn't a number up to 65535"},
		{"protocol=ip",
		 "protocol: \"ip\" isn't tcp, udp, sctp, icmp, icmpv6 or a number up "
		 "to 255"},
		{"family=5", "family: \"5\" isn't 4 or 6"},
		{"zone=all", "zone: \"all\" isn't service, egress or ingress"},
		{"state=new", "state: \"new\" isn't opening, established or closing"},
		{"flag=nat", "flag: \"nat\" isn't reply, single, snat, local, dsr, dsr-backend, "
			     "hairpin, host or pod"},
		{"frontend=-1", "frontend: \"-1\" isn't the number of a frontend"},
		{"port=80 port=80", "port: is given twice; give it once"},
		{"address=fd00::1 flag=snat address=10.0.0.1",
		 "address: is given twice; give it once"},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_ct_filter filter;
		struct pb_err err = {0};

		cr_expect_eq(pb_ct_filter_parse(cases[i].text, &filter, &err), -EINVAL, "%s",
			     cases[i].text);
		cr_expect_str_eq(err.text, cases[i].error);
	}
}

Test(ct, a_row_shows_both_tuples_and_the_seconds_that_are_left)
{
	cJSON *items;
	PB_JSON_FREE cJSON *table = pb_ct_rows_new(false, &items);
	PB_FREE char *text = NULL;

	cr_assert_not_null(table);
	pb_ct_row(items, key(), entry(), 100);
	text = cJSON_PrintUnformatted(items);
	cr_expect_str_eq(text, "[{\"zone\":\"service\",\"protocol\":\"tcp\",\"source\":"
			       "\"10.0.0.1:40000\",\"destination\":\"10.96.0.1:80\",\"to_source\":"
			       "\"192.168.0.1:1024\",\"to_destination\":\"10.1.0.9:8080\","
			       "\"state\":\"established\",\"flags\":\"snat,dsr\",\"expires_s\":60,"
			       "\"frontend\":7,\"backend\":12,\"identity\":0,\"policy\":0,"
			       "\"ifindex\":0}]");
}

Test(ct, a_row_of_what_has_expired_or_has_no_name_is_shown_all_the_same)
{
	cJSON *items;
	PB_JSON_FREE cJSON *table = pb_ct_rows_new(false, &items);
	struct pb_ct_key k = {.saddr = address("fd00::1"), .protocol = 47, .family = 6, .zone = 9};
	struct pb_ct ct = {.state = 8, .flags = 0x8000};

	cr_assert_not_null(table);
	pb_ct_row(items, &k, &ct, 100);
	cr_expect_str_eq(pb_json_str(items->child, "protocol", ""), "47");
	cr_expect_str_eq(pb_json_str(items->child, "zone", ""), "unknown");
	cr_expect_str_eq(pb_json_str(items->child, "state", ""), "unknown");
	cr_expect_str_eq(pb_json_str(items->child, "source", ""), "[fd00::1]:0");
	cr_expect_str_eq(pb_json_str(items->child, "flags", "x"), "");
	cr_expect_eq(pb_json_num(items->child, "expires_s", -1), 0);
}

Test(ct, nat_list_has_flows_whose_source_or_port_moved_once_each)
{
	cJSON *items;
	PB_JSON_FREE cJSON *table = pb_ct_rows_new(true, &items);
	struct pb_ct ct = *entry();
	struct pb_ct_key k = *key();

	cr_expect(pb_ct_is_nat(&k, &ct));
	ct.flags = 0;
	cr_expect(pb_ct_is_nat(&k, &ct), "its port moved");
	ct.sport = k.sport;
	cr_expect_not(pb_ct_is_nat(&k, &ct));
	ct.flags = PB_CT_SNAT | PB_CT_REPLY;
	cr_expect_not(pb_ct_is_nat(&k, &ct));
	ct.flags = PB_CT_SNAT;
	k.zone = PB_CT_ZONE_EGRESS;
	cr_expect_not(pb_ct_is_nat(&k, &ct));
	cr_assert_not_null(table);
	pb_ct_nat_row(items, key(), entry(), 100);
	cr_expect_str_eq(pb_json_str(items->child, "client", ""), "10.0.0.1:40000");
	cr_expect_str_eq(pb_json_str(items->child, "frontend", ""), "10.96.0.1:80");
	cr_expect_str_eq(pb_json_str(items->child, "node", ""), "192.168.0.1:1024");
	cr_expect_str_eq(pb_json_str(items->child, "backend", ""), "10.1.0.9:8080");
}

Test(ct, a_place_is_the_same_after_its_text)
{
	static const char *const wrong[] = {"b", "b-1", "b1x", "b4294967296", "k", "k00", "x", "1"};
	struct pb_ct_place place = {.begun = true, .bucket = 4711}, got;
	char text[PB_CT_PLACE_TEXT];

	pb_ct_place_text(&place, text, sizeof(text));
	cr_assert_eq(pb_ct_place_parse(text, &got), 0);
	cr_expect_eq(got.bucket, 4711);
	cr_expect(got.begun && !got.by_key);
	place = (struct pb_ct_place){.begun = true, .by_key = true, .key = *key()};
	pb_ct_place_text(&place, text, sizeof(text));
	cr_assert_eq(pb_ct_place_parse(text, &got), 0);
	cr_expect_arr_eq(&got.key, key(), sizeof(got.key));
	cr_expect(got.by_key);
	cr_assert_eq(pb_ct_place_parse("", &got), 0);
	cr_expect_not(got.begun);
	for (size_t i = 0; i < PB_ARRAY_LEN(wrong); i++)
		cr_expect_eq(pb_ct_place_parse(wrong[i], &got), -EINVAL, "%s", wrong[i]);
}

Test(ct, the_fuller_the_map_the_sooner_the_next_run)
{
	static const struct {
		uint32_t last;
		uint64_t kept, deleted;
		uint32_t next;
		const char *why;
	} cases[] = {
		{300, 0, 0, 450, "nothing to do: more seldom"},
		{40000, 10, 0, 43200, "12 hours at most"},
		{300, 100, 20, 300, "a little: as before"},
		{300, 100, 100, 150, "more than a twentieth had expired"},
		{300, 100, 300, 75, "more than a quarter"},
		{12, 100, 300, 10, "10 seconds at least"},
		{43200, 250, 0, 300, "a quarter full"},
		{43200, 500, 0, 60, "half full"},
		{43200, 750, 0, 10, "three quarters full"},
		{43200, 100, 900, 10800, "it was full, and isn't any more"},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		const struct pb_ct_gc gc = {.kept = cases[i].kept, .deleted = cases[i].deleted};

		cr_expect_eq(pb_ct_gc_interval(cases[i].last, &gc, 1000), cases[i].next, "%s: %u",
			     cases[i].why, pb_ct_gc_interval(cases[i].last, &gc, 1000));
	}
}
