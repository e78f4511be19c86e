/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What strict, probe and disabled make of a machine: any kernel, handed in; and that the probe
 * itself finds on this one what its programs need.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../kpr_mode.h"

static struct kpr_mode_wish wish;
static struct kpr_findings found;
static struct kpr_abilities can;
static char warnings[16][512];
static uint32_t n_warnings;
static char why[2048];

static void setup(void)
{
	wish = (struct kpr_mode_wish){.mode = KPR_MODE_PROBE,
				      .node_ports = true,
				      .bind_protection = true,
				      .range = {30000, 32767}};
	memset(&found, 0, sizeof(found));
	snprintf(found.probe.kernel, sizeof(found.probe.kernel), "5.10.0-9");
}

TestSuite(mode, .init = setup);

static void warn(void *arg, const char *text)
{
	cr_assert_eq(arg, warnings);
	cr_assert_lt(n_warnings, 16);
	snprintf(warnings[n_warnings++], sizeof(warnings[0]), "%s", text);
}

static int decide(void)
{
	n_warnings = 0;
	return kpr_mode_decide(&wish, &found, &can, warn, warnings, why, sizeof(why));
}

static void lack(enum kpr_feature feature)
{
	found.probe.missing |= 1U << feature;
}

Test(mode, with_everything_everything_is_on)
{
	for (int mode = KPR_MODE_PROBE; mode <= KPR_MODE_STRICT; mode++) {
		wish.mode = (enum kpr_mode)mode;
		cr_assert_eq(decide(), 0);
		cr_assert_eq(n_warnings, 0);
		cr_assert_str_eq(why, "");
		cr_assert(can.others && can.node_ports && can.north_south && can.bind_protection &&
			  can.loopback && can.getpeername && can.sock_release && can.udp_destroy &&
			  can.ipv6);
	}
}

Test(mode, probe_goes_without_what_is_missing_with_a_warning_each)
{
	const struct {
		enum kpr_feature feature;
		bool *ability;
	} cases[] = {
		{KPR_FEATURE_GETPEERNAME, &can.getpeername},
		{KPR_FEATURE_SOCK_RELEASE, &can.sock_release},
		{KPR_FEATURE_DIAG_DESTROY, &can.udp_destroy},
		{KPR_FEATURE_NETNS_COOKIE, &can.loopback},
		{KPR_FEATURE_NETNS_COOKIE, &can.bind_protection},
		{KPR_FEATURE_BIND, &can.bind_protection},
		{KPR_FEATURE_FIB_LOOKUP, &can.north_south},
		{KPR_FEATURE_REDIRECT_NEIGH, &can.north_south},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		found.probe.missing = 0;
		lack(cases[i].feature);
		cr_assert_eq(decide(), 0);
		cr_assert_eq(n_warnings, 1, "case %zu", i);
		cr_assert_not_null(strstr(warnings[0], kpr_feature_info(cases[i].feature)->name));
		cr_assert_not_null(strstr(warnings[0], "Linux 5.10.0-9"));
		cr_assert(!*cases[i].ability, "case %zu", i);
		cr_assert(can.others && can.node_ports);
	}
}

Test(mode, strict_refuses_with_one_message_that_names_all_of_it)
{
	wish.mode = KPR_MODE_STRICT;
	lack(KPR_FEATURE_REDIRECT_NEIGH);
	lack(KPR_FEATURE_GETPEERNAME);
	found.kube_proxy = true;
	snprintf(found.trace, sizeof(found.trace), "nftables table ip kube-proxy");
	cr_assert_eq(decide(), -EOPNOTSUPP);
	cr_assert_eq(n_warnings, 0);
	cr_assert_not_null(strstr(why, "Linux 5.10.0-9 has no redirect-neigh"), "%s", why);
	cr_assert_not_null(strstr(why, "Linux 5.10.0-9 has no socket-getpeername"), "%s", why);
	cr_assert_not_null(strstr(why, "(nftables table ip kube-proxy)"), "%s", why);
	cr_assert_not_null(strstr(why, "mode: probe goes without"), "%s", why);
}

Test(mode, strict_refuses_for_each_feature_alone_but_ipv6)
{
	wish.mode = KPR_MODE_STRICT;
	for (int f = 0; f < KPR_FEATURE_COUNT; f++) {
		found.probe.missing = 1U << f;
		cr_assert_eq(decide(), f == KPR_FEATURE_IPV6 ? 0 : -EOPNOTSUPP, "%s",
			     kpr_feature_info((enum kpr_feature)f)->name);
	}
}

Test(mode, what_nothing_works_without_is_refused_in_every_mode)
{
	for (int mode = KPR_MODE_PROBE; mode <= KPR_MODE_DISABLED; mode++)
		for (int f = 0; f < KPR_FEATURE_COUNT; f++) {
			const struct kpr_feature_info *info = kpr_feature_info((enum kpr_feature)f);

			wish.mode = (enum kpr_mode)mode;
			found.probe.missing = 1U << f;
			if (!info->required)
				continue;
			cr_assert_eq(decide(), -EOPNOTSUPP, "%s", info->name);
			cr_assert_not_null(strstr(why, info->name));
			cr_assert_not_null(strstr(why, info->needs));
		}
}

Test(mode, kube_proxy_beside_takes_bind_protection_away)
{
	found.kube_proxy = true;
	snprintf(found.trace, sizeof(found.trace), "chain KUBE-SERVICES in iptables table nat");
	cr_assert_eq(decide(), 0);
	cr_assert_eq(n_warnings, 1);
	cr_assert_not_null(strstr(warnings[0], found.trace));
	cr_assert(!can.bind_protection && can.node_ports);
	wish.mode = KPR_MODE_STRICT;
	wish.bind_protection = false;
	cr_assert_eq(decide(), -EOPNOTSUPP);
}

Test(mode, ports_that_cannot_be_reserved_take_node_ports_away)
{
	static const enum kpr_reserve bad[] = {KPR_RESERVE_OFF, KPR_RESERVE_FAILED};
	static const enum kpr_reserve good[] = {KPR_RESERVE_NOT_NEEDED, KPR_RESERVE_THERE,
						KPR_RESERVE_DONE};

	snprintf(found.reserve_why, sizeof(found.reserve_why), "it is written in stone");
	for (size_t i = 0; i < 2; i++) {
		found.reserve = bad[i];
		wish.mode = KPR_MODE_PROBE;
		cr_assert_eq(decide(), 0);
		cr_assert_eq(n_warnings, 1);
		cr_assert_not_null(strstr(warnings[0], "30000-32767: it is written in stone"));
		cr_assert(!can.node_ports && can.others && can.north_south);
		wish.mode = KPR_MODE_STRICT;
		cr_assert_eq(decide(), -EOPNOTSUPP);
		wish.node_ports = false;
		cr_assert_eq(decide(), 0, "nobody wants them");
		wish.node_ports = true;
	}
	for (size_t i = 0; i < 3; i++) {
		found.reserve = good[i];
		cr_assert_eq(decide(), 0);
		cr_assert(can.node_ports);
	}
}

Test(mode, disabled_is_cluster_ips_from_sockets_and_warns_of_nothing_else)
{
	wish.mode = KPR_MODE_DISABLED;
	found.kube_proxy = true;
	found.reserve = KPR_RESERVE_FAILED;
	lack(KPR_FEATURE_REDIRECT_NEIGH);
	lack(KPR_FEATURE_FIB_LOOKUP);
	lack(KPR_FEATURE_BIND);
	cr_assert_eq(decide(), 0);
	cr_assert_eq(n_warnings, 0, "%s", warnings[0]);
	cr_assert(!can.others && !can.node_ports && !can.north_south && !can.bind_protection);
	cr_assert(can.getpeername && can.udp_destroy);
}

Test(mode, has_three_names)
{
	static const char *const names[] = {"probe", "strict", "disabled"};
	enum kpr_mode mode;

	for (size_t i = 0; i < 3; i++) {
		cr_assert_eq(kpr_mode_parse(names[i], &mode), 0);
		cr_assert_str_eq(kpr_mode_name(mode), names[i]);
	}
	cr_assert_eq(kpr_mode_parse("partial", &mode), -EINVAL);
	cr_assert_eq(kpr_mode_parse("", &mode), -EINVAL);
}

Test(mode, every_feature_is_described)
{
	for (int f = 0; f < KPR_FEATURE_COUNT; f++) {
		const struct kpr_feature_info *info = kpr_feature_info((enum kpr_feature)f);

		cr_assert(info->name && info->needs && info->without);
		cr_assert_null(strchr(info->name, ' '));
	}
}

/* ---- the probe, on this kernel ---- */

static int open_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += dup2(fd, fd) == fd;
	return n;
}

Test(mode, the_probe_leaves_nothing_open_and_finds_what_the_tests_of_programs_use)
{
	struct kpr_probe probe;
	int before = open_fds();

	kpr_probe_run(&probe);
	cr_assert_eq(open_fds(), before);
	cr_assert(probe.kernel[0]);
	cr_assert_eq(probe.missing & probe.unknown, 0);
	if (probe.unknown)
		cr_skip_test("needs the rights to load programs");
	cr_assert_eq(probe.missing & 1U << KPR_FEATURE_CONNECT, 0);
	cr_assert_eq(probe.missing & 1U << KPR_FEATURE_SET_RETVAL, 0);
	cr_assert_eq(probe.missing & 1U << KPR_FEATURE_LRU, 0);
}

Test(mode, a_process_without_rights_takes_everything_for_present)
{
	struct kpr_probe probe;

	if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
		cr_skip_test("setresuid: %s", strerror(errno));
	kpr_probe_run(&probe);
	cr_assert_eq(probe.missing & ~(1U << KPR_FEATURE_IPV6), 0, "%x", probe.missing);
}
