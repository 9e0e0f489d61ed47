# A private PgBouncer before the PostgreSQL of the tests.

pgbouncer_program() {
    command -v pgbouncer || ls /usr/sbin/pgbouncer 2>/dev/null
}

need_pgbouncer_program() {
    pgbouncer=$(pgbouncer_program) && return 0
    if can_install && install_packages pgbouncer; then
        pgbouncer=$(pgbouncer_program) && return 0
    fi
    missing "no PgBouncer was found (Debian, Ubuntu: apt-get install pgbouncer; macOS: brew install pgbouncer)"
}

# Starts one in this pool mode that ignores these startup parameters. It logs in to the server as DATABASE_URL says, and
# asks nobody who comes from this machine for a password. Sets `pgbouncer_url`.
start_private_pgbouncer() {
    local mode=$1 ignored=$2
    need_pgbouncer_program
    make_private_folder
    local home=$private_folder/pgbouncer port user rest login place host
    user=$(server_user postgres)
    port=$(free_port)
    make_server_folder "$home" "$user"
    rest=${DATABASE_URL#*://}
    login=${rest%@*}
    place=${rest#*@}
    host=${place%%/*}
    local password= database=${place#*/}
    [ "$login" = "${login#*:}" ] || password=" password=${login#*:}"
    (
        umask 077
        cat >"$home/pgbouncer.ini" <<SETTINGS
[databases]
* = host=${host%:*} port=${host##*:} user=${login%%:*}$password
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = any
pool_mode = $mode
ignore_startup_parameters = $ignored
default_pool_size = 20
max_client_conn = 200
SETTINGS
    )
    [ "$(id -un)" = "$user" ] || chown "$user" "$home/pgbouncer.ini"
    (as_user "$user" "$home" "$pgbouncer" pgbouncer.ini) >"$private_folder/pgbouncer.log" 2>&1 </dev/null &
    private_pgbouncer=$!
    pgbouncer_url=postgres://${login%%:*}@127.0.0.1:$port/${database%%\?*}
    local deadline=$((SECONDS + 30))
    until answers "$port"; do
        if ! kill -0 "$private_pgbouncer" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
            private_failed PgBouncer "$private_folder/pgbouncer.log"
        fi
        sleep 0.1
    done
}

# Its own process only: a shell of ours stands before it.
stop_private_pgbouncer() {
    kill "$private_pgbouncer" 2>/dev/null || true
    wait "$private_pgbouncer" 2>/dev/null || true
}
