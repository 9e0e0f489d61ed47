# What the private servers share: a folder, free ports, an unprivileged user, and their end.

private_folder=
private_postgres=
private_rabbitmq=
private_pgbouncer=
private_epmd_port=

# The folder of this run, made when the first private server needs it. Other users may pass through, but not look in.
make_private_folder() {
    [ -z "$private_folder" ] || return 0
    private_folder=$(mktemp -d "${TMPDIR:-/tmp}/cap-test.XXXXXX")
    chmod 711 "$private_folder"
}

# Who runs a private server: PostgreSQL refuses to run as root, and RabbitMQ has no need to.
server_user() {
    if [ "$(id -u)" != 0 ]; then
        id -un
    elif id -u "$1" >/dev/null 2>&1; then
        printf '%s\n' "$1"
    else
        printf 'nobody\n'
    fi
}

# A folder inside the private one that belongs to this user alone.
make_server_folder() {
    local folder=$1 user=$2
    mkdir -m 700 "$folder"
    [ "$(id -un)" = "$user" ] || chown "$user" "$folder"
}

# Runs a command in this folder as this user.
as_user() {
    local user=$1 folder=$2
    shift 2
    cd "$folder" || exit
    if [ "$(id -un)" = "$user" ]; then exec "$@"; else exec runuser -u "$user" -- "$@"; fi
}

answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# A port that nothing listens on, below those that outgoing connections are given.
free_port() {
    local port
    while :; do
        port=$((10000 + RANDOM % 20000))
        answers "$port" || break
    done
    printf '%s\n' "$port"
}

# A password for one run; it is written to a folder that only the server can read, and shown nowhere.
new_password() {
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n'
}

# Stops what this run started, and nothing else. Throwaway servers have nothing to save, so they are not asked twice.
stop_private() {
    local outcome=$?
    trap - EXIT
    [ -z "$private_pgbouncer" ] || stop_private_pgbouncer
    [ -z "$private_postgres" ] || stop_private_postgres
    [ -z "$private_rabbitmq" ] || stop_private_rabbitmq
    [ -z "$private_folder" ] || rm -rf "$private_folder"
    exit "$outcome"
}
