# PB_PLUGIN(NAME, DESCRIPTION)
# A plugin under plugins/NAME: gives --disable-plugin-NAME, the conditional PLUGIN_NAME for its
# subdir.am, and a word in configure's summary.
AC_DEFUN([PB_PLUGIN], [
	AC_ARG_ENABLE([plugin-$1],
		[AS_HELP_STRING([--disable-plugin-$1], [leave out $1: $2])],
		[], [enable_plugin_[]m4_translit([$1], [-], [_])=yes])
	AS_IF([test "x$enable_plugin_[]m4_translit([$1], [-], [_])" != xno],
		[pb_plugins_on="$pb_plugins_on $1"])
	AM_CONDITIONAL([PLUGIN_]m4_translit([$1], [a-z-], [A-Z_]),
		[test "x$enable_plugin_[]m4_translit([$1], [-], [_])" != xno])
])
