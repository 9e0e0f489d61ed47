# The PostgreSQL of the tests: a given one, one that answers on this machine, or a private one.

choose_postgres() {
    if [ -n "${CAP_TEST_PRIVATE:-}" ]; then
        start_private_postgres
    elif [ -n "${DATABASE_URL:-}" ]; then
        can_use "$DATABASE_URL" || missing "DATABASE_URL names a PostgreSQL that the tests cannot use (see above)"
    else
        find_local_postgres || start_private_postgres
    fi
    export DATABASE_URL
    say "PostgreSQL: $(without_password "$DATABASE_URL")"
}

find_local_postgres() {
    answers 5432 || return 1
    local user database
    for user in postgres "$(id -un)"; do
        for database in test postgres; do
            DATABASE_URL=postgres://$user@127.0.0.1:5432/$database
            if can_use "$DATABASE_URL" 2>/dev/null; then return 0; fi
        done
    done
    say "a PostgreSQL answers on port 5432, but lets neither postgres nor $(id -un) in without a password"
    return 1
}

# The folder with the server's programs; Debian keeps them off the path.
postgres_programs() {
    local folder
    for folder in "$(dirname "$(command -v initdb || printf 'none/none')")" \
        "$(pg_config --bindir 2>/dev/null || printf 'none')" \
        $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin 2>/dev/null | sort -rV); do
        if [ -x "$folder/initdb" ] && [ -x "$folder/pg_ctl" ] && [ -x "$folder/postgres" ]; then
            printf '%s\n' "$folder"
            return 0
        fi
    done
    return 1
}

need_postgres_programs() {
    postgres_bin=$(postgres_programs) && return 0
    if can_install && install_packages postgresql; then
        postgres_bin=$(postgres_programs) && return 0
    fi
    missing "no PostgreSQL was found. Either set DATABASE_URL to a server whose user may create schemas, or install the" \
        "server (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql) so that a private one can start"
}

start_private_postgres() {
    need_postgres_programs
    make_private_folder
    local home=$private_folder/postgres password port
    postgres_user=$(server_user postgres)
    password=$(new_password)
    port=$(free_port)
    make_server_folder "$home" "$postgres_user"
    say "starting a private PostgreSQL from $postgres_bin on port $port"
    (umask 077 && printf '%s\n' "$password" >"$home/password")
    [ "$(id -un)" = "$postgres_user" ] || chown "$postgres_user" "$home/password"
    (as_user "$postgres_user" "$home" "$postgres_bin/initdb" --pgdata data --username cap --pwfile password \
        --auth scram-sha-256 --encoding UTF8 --locale C --no-sync) >"$private_folder/initdb.log" 2>&1 \
        || private_failed PostgreSQL "$private_folder/initdb.log"
    private_postgres=$home/data
    # Durability is the tests' business only as far as transactions go: nobody pulls the plug here.
    (as_user "$postgres_user" "$home" "$postgres_bin/pg_ctl" start --pgdata data --wait --timeout 60 --log server.log \
        --options "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=300") \
        >/dev/null 2>&1 || private_failed PostgreSQL "$home/server.log"
    DATABASE_URL=postgres://cap:$password@127.0.0.1:$port/postgres
    can_use "$DATABASE_URL" || private_failed PostgreSQL "$home/server.log"
}

stop_private_postgres() {
    (as_user "$postgres_user" / "$postgres_bin/pg_ctl" stop --pgdata "$private_postgres" --mode immediate --wait) \
        >/dev/null 2>&1 || true
}

private_failed() {
    say "the private $1 did not start; its log ends with:"
    tail -n 20 "$2" >&2 2>/dev/null || true
    exit 1
}
