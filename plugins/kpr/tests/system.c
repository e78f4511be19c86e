/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "system.h"

struct kpr_probe system_probe = {.kernel = "5.10.0-9"};
const char *system_kube_proxy;
enum kpr_reserve system_reserve;
unsigned system_asked;

void kpr_probe_run(struct kpr_probe *ret_probe)
{
	*ret_probe = system_probe;
	system_asked++;
}

bool kpr_coexist_find(char *ret_what, size_t len)
{
	snprintf(ret_what, len, "%s", system_kube_proxy ? system_kube_proxy : "");
	return system_kube_proxy;
}

enum kpr_reserve kpr_reserve_ports(const char *dir, const struct kpr_port_range *range, bool wanted,
				   char *why, size_t why_len)
{
	snprintf(why, why_len, "%s said so for %u-%u, %s", dir, range->min, range->max,
		 wanted ? "wanted" : "not wanted");
	return system_reserve;
}
