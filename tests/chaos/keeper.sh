#!/usr/bin/env bash
#
# Keeps a private server for a fault test: starts it, says `ready URL`, does what each line of its input says, answers
# each with `ok` or `failed`, and stops the server when its input ends.
#
#   keeper.sh rabbitmq    stop, start (the application in the node), kill, boot (the node), close (all connections),
#                         alarm, calm (memory)
#   keeper.sh postgres    stop (at once, as a crash), start, restart (both),
#                         room (a small disk, said where; only root can have one), fill, free (that disk)
#   keeper.sh pair        a PostgreSQL with a standby: `ready PRIMARY STANDBY`; promote (the standby), demote (the primary,
#                         which then follows the other)
#   keeper.sh pgbouncer MODE IGNORED
#                         a PgBouncer before the server of DATABASE_URL, in this pool mode, which ignores these startup
#                         parameters

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/lib/say.sh
source scripts/lib/packages.sh
source scripts/lib/private.sh
source scripts/lib/postgres.sh
source scripts/lib/rabbitmq.sh
source scripts/lib/pgbouncer.sh

main() {
    # Words that only a person needs; the test shows them when it fails.
    exec 4>&1 1>&2
    trap finish EXIT
    trap 'exit 130' INT TERM HUP
    "start_$1" "${@:2}"
    local line
    while read -r line; do
        answer=ok
        if "${1}_$line"; then printf '%s\n' "$answer" >&4; else printf 'failed\n' >&4; fi
    done
}

# Whether somebody can log in is looked at by the test itself.
can_use() {
    return 0
}

start_postgres() {
    start_private_postgres 4>&-
    printf 'ready %s\n' "$DATABASE_URL" >&4
}

base_backup_program() {
    ls "$postgres_bin/pg_basebackup" /usr/lib/postgresql/*/bin/pg_basebackup 2>/dev/null | head -n 1
}

# The standby is a copy that follows the primary. Both let everybody on this machine in without a password.
start_pair() {
    start_private_postgres 4>&-
    local home=$private_folder/postgres
    printf 'local all all trust\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n' \
        >"$private_postgres/pg_hba.conf"
    control_postgres reload
    primary_port=$(sed -n 4p "$private_postgres/postmaster.pid")
    standby_port=$(free_port)
    (as_user "$postgres_user" "$home" "$(base_backup_program)" --pgdata standby --write-recovery-conf --wal-method stream \
        --checkpoint fast --no-sync --dbname "host=127.0.0.1 port=$primary_port user=cap") 4>&-
    start_standby 4>&-
    printf 'ready %s %s\n' "postgres://cap@127.0.0.1:$primary_port/postgres" \
        "postgres://cap@127.0.0.1:$standby_port/postgres" >&4
}

control_standby() {
    (as_user "$postgres_user" / "$postgres_bin/pg_ctl" "$@" --pgdata "$private_folder/postgres/standby" --wait) \
        >/dev/null 2>&1 4>&-
}

start_standby() {
    control_standby start --log "$private_folder/postgres/standby.log" --options "-p $standby_port \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=300"
}

pair_promote() {
    control_standby promote
}

# Stopped in order before the other is promoted, it can follow that one.
pair_demote() {
    control_postgres stop --mode fast || return 1
    printf "primary_conninfo = 'host=127.0.0.1 port=%s user=cap'\nrecovery_target_timeline = 'latest'\n" "$standby_port" \
        >>"$private_postgres/postgresql.auto.conf"
    touch "$private_postgres/standby.signal"
    [ "$(id -un)" = "$postgres_user" ] || chown "$postgres_user" "$private_postgres/standby.signal"
    postgres_start
}

start_pgbouncer() {
    start_private_pgbouncer "$@" 4>&-
    printf 'ready %s\n' "$pgbouncer_url" >&4
}

control_postgres() {
    (as_user "$postgres_user" / "$postgres_bin/pg_ctl" "$@" --pgdata "$private_postgres" --wait) >/dev/null 2>&1 4>&-
}

postgres_stop() {
    control_postgres stop --mode immediate
}

# The options are those of the first start; the server keeps them in its folder.
postgres_start() {
    local options
    options=$(sed -E 's/^[^ ]+ //; s/"//g; s/-D [^ ]+//' "$private_postgres/postmaster.opts")
    control_postgres start --log "$private_folder/postgres/server.log" --options "$options"
}

postgres_restart() {
    postgres_stop && postgres_start
}

room=

# A disk of its own that can be filled without harm to anything else.
postgres_room() {
    [ "$(id -u)" = 0 ] || return 1
    room=$(mktemp -d)
    if ! mount -t tmpfs -o size=64m,mode=0777 tmpfs "$room" 2>/dev/null; then
        rmdir "$room"
        room=
        return 1
    fi
    mkdir "$room/small"
    chown "$postgres_user" "$room/small"
    answer="ok $room/small"
}

# It ends where there is no room left.
postgres_fill() {
    dd if=/dev/zero of="$room/filler" bs=4k 2>/dev/null || true
    [ "$(df --output=avail "$room" | tail -n 1)" -eq 0 ]
}

postgres_free() {
    rm -f "$room/filler"
}

# The server must be gone before its disk is.
finish() {
    local outcome=$?
    [ -z "${standby_port:-}" ] || control_standby stop --mode immediate || true
    [ -n "$room" ] || stop_private
    (stop_private) || true
    { umount "$room" && rmdir "$room"; } || true
    exit "$outcome"
}

start_rabbitmq() {
    need_rabbitmq_program
    make_private_folder
    home=$private_folder/rabbitmq
    rabbitmq_user=$(server_user rabbitmq)
    port=$(free_port)
    private_epmd_port=$(free_port)
    local password
    password=$(new_password)
    make_server_folder "$home" "$rabbitmq_user"
    write_rabbitmq_settings "$home" "$password"
    # Everything that a node would share with another of this machine is its own.
    rabbitmq_environment=(PATH="$PATH" HOME="$home" LANG=C.UTF-8
        ERL_EPMD_PORT="$private_epmd_port" ERL_EPMD_ADDRESS=127.0.0.1
        RABBITMQ_NODENAME="cap-chaos-$$@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$port"
        RABBITMQ_DIST_PORT="$(free_port)" RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
        RABBITMQ_MNESIA_BASE="$home/data" RABBITMQ_LOG_BASE="$home/log" RABBITMQ_PID_FILE="$home/pid"
        RABBITMQ_SCHEMA_DIR="$home/schema" RABBITMQ_GENERATED_CONFIG_DIR="$home/generated"
        RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" RABBITMQ_ADVANCED_CONFIG_FILE="$home/advanced.config"
        RABBITMQ_CONF_ENV_FILE="$home/none.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins")
    AMQP_URL=amqp://cap:$password@127.0.0.1:$port
    rabbitmq_boot
    printf 'ready %s\n' "$AMQP_URL" >&4
}

rabbitmq_boot() {
    set -m
    (as_user "$rabbitmq_user" "$home" env -i "${rabbitmq_environment[@]}" "$rabbitmq_server") \
        >"$private_folder/rabbitmq.log" 2>&1 </dev/null 4>&- &
    private_rabbitmq=$!
    set +m
    wait_for_rabbitmq "$port"
}

rabbitmq_kill() {
    kill -KILL -- "-$private_rabbitmq"
    wait "$private_rabbitmq" 2>/dev/null || true
}

control_rabbitmq() {
    (as_user "$rabbitmq_user" "$home" env -i "${rabbitmq_environment[@]}" "${rabbitmq_server%-server}ctl" "$@") \
        >/dev/null 2>&1 </dev/null 4>&-
}

rabbitmq_stop() {
    control_rabbitmq stop_app
}

rabbitmq_start() {
    control_rabbitmq start_app
}

rabbitmq_close() {
    control_rabbitmq close_all_connections 'a fault test'
}

rabbitmq_alarm() {
    control_rabbitmq set_vm_memory_high_watermark 0.00001
}

rabbitmq_calm() {
    control_rabbitmq set_vm_memory_high_watermark 0.6
}

main "$@"
