#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The guide and the man page name every key of the configuration and every command of the tool,
# the guide says what to do about every drop reason of the plugins, and the example is accepted.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/../netns/lib.sh"
PB_TMP=$(mktemp -d) || exit 1
trap 'rm -r "$PB_TMP"' EXIT

begin configuration
# shellcheck disable=SC2013 # keys have no blanks
for key in $(grep -o '{"[a-z]*\(\.[a-z_]*\)*", KEY' "$PB_TOP_SRCDIR/core/config/keys.c" | cut -d'"' -f2); do
	then_ok "admin.md has $key" grep -qF "| \`$key\` |" "$PB_TOP_SRCDIR/docs/admin.md"
	then_ok "patchbay.yaml.5 has $key" \
		grep -q "^.BR ${key#*.} " "$PB_TOP_SRCDIR/docs/man/patchbay.yaml.5"
done

begin commands
for command in $(grep -o '^	{"[a-z ]*", "' "$PB_TOP_SRCDIR/core/cli/table.c" | cut -d'"' -f2 | tr ' ' _); do
	then_ok "patchbay.1 has ${command/_/ }" \
		grep -qE "^\.BI? \"?${command/_/ }" "$PB_TOP_SRCDIR/docs/man/patchbay.1"
done

begin drop_reasons
while read -r reason number; do
	then_ok "$reason has a name" grep -qE "\[$reason\] = \"[^\"]+\"" "$PB_TOP_SRCDIR/core/datapath/names.c"
	if grep -rqw --include='*.[ch]' "$reason" "$PB_TOP_SRCDIR"/plugins/*/*.[ch]; then
		then_ok "admin.md says what to do about $number" \
			grep -qE "^\| $number \| [^|]+ \|" "$PB_TOP_SRCDIR/docs/admin.md"
	fi
done < <(sed -n 's/^\t\(PB_REASON_[A-Z_]*\) = \(1[3-9][0-9]\),.*/\1 \2/p' "$PB_TOP_SRCDIR/sdk/include/patchbay/abi.h")

begin example
if [ -x "$PB_PATCHBAYD" ]; then
	then_ok "examples/patchbay.yaml is accepted" \
		"$PB_PATCHBAYD" --check-config -c "$PB_TOP_SRCDIR/examples/patchbay.yaml"
else
	skip "examples/patchbay.yaml is accepted" "patchbayd is not built"
fi
done_testing
