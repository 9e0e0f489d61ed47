# Installing a missing program, where that can be done without asking: as root on Debian.

can_install() {
    [ "$(id -u)" = 0 ] && have apt-get
}

# Installs Debian packages without letting them start a server of their own: the tests start private ones, and the
# machine is left with the programs only.
install_packages() {
    say "installing $*"
    local policy=/usr/sbin/policy-rc.d own_policy=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        own_policy=yes
    fi
    local outcome=0 words
    words=$({ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
        2>&1 </dev/null) || outcome=$?
    [ "$outcome" = 0 ] || tail -n 20 <<<"$words" >&2
    [ -z "$own_policy" ] || rm -f "$policy"
    hash -r
    return "$outcome"
}
