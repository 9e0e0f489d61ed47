#!/usr/bin/env bash
#
# Keeps a private RabbitMQ with settings of the test's own: starts it, says `ready URL`, runs rabbitmqctl with the words of
# each line of its input and answers `ok` or `failed`, and stops the broker when its input ends.
#
#   private_broker.sh FOLDER    which holds rabbitmq.conf (to be added), advanced.config, enabled_plugins, and what else the
#                               settings name as @HOME@/..

set -euo pipefail

settings=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../../../.."
source scripts/lib/say.sh
source scripts/lib/packages.sh
source scripts/lib/private.sh
source scripts/lib/rabbitmq.sh

# Whether somebody can log in is looked at by the test itself.
can_use() {
    return 0
}

eval "$(declare -f write_rabbitmq_settings | sed '1s/.*/write_plain_settings()/')"

write_rabbitmq_settings() {
    write_plain_settings "$@"
    node_home=$1
    cat "$settings/rabbitmq.conf" >>"$node_home/rabbitmq.conf"
    local file
    for file in "$settings"/*; do
        [ "${file##*/}" = rabbitmq.conf ] || cp "$file" "$node_home/"
    done
    sed -i "s|@HOME@|$node_home|g" "$node_home/rabbitmq.conf" "$node_home/advanced.config"
    [ "$(id -un)" = "$rabbitmq_user" ] || chown "$rabbitmq_user" "$node_home"/*
}

control() {
    (as_user "$rabbitmq_user" "$node_home" env -i PATH="$PATH" HOME="$node_home" LANG=C.UTF-8 ERL_EPMD_PORT="$private_epmd_port" \
        RABBITMQ_NODENAME="cap-test-$$@localhost" RABBITMQ_CONF_ENV_FILE="$node_home/none.conf" \
        "${rabbitmq_server%-server}ctl" "$@") >/dev/null 2>&1 </dev/null 4>&-
}

# Words that only a person needs; the test shows them when it fails.
exec 4>&1 1>&2
trap stop_private EXIT
trap 'exit 130' INT TERM HUP
start_private_rabbitmq 4>&-
printf 'ready %s\n' "$AMQP_URL" >&4
while read -ra words; do
    if control "${words[@]}"; then printf 'ok\n' >&4; else printf 'failed\n' >&4; fi
done
