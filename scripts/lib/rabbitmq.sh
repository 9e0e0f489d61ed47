# The RabbitMQ of the tests: a given one, one that answers on this machine, or a private one.

choose_rabbitmq() {
    if [ -n "${CAP_TEST_PRIVATE:-}" ]; then
        start_private_rabbitmq
    elif [ -n "${AMQP_URL:-}" ]; then
        can_use "$AMQP_URL" || missing "AMQP_URL names a RabbitMQ that the tests cannot use (see above)"
    else
        find_local_rabbitmq || start_private_rabbitmq
    fi
    export AMQP_URL
    say "RabbitMQ: $(without_password "$AMQP_URL")"
}

find_local_rabbitmq() {
    answers 5672 || return 1
    AMQP_URL=amqp://guest:guest@127.0.0.1:5672
    if can_use "$AMQP_URL" 2>/dev/null; then return 0; fi
    say "something answers on port 5672, but does not let guest in as a RabbitMQ would"
    return 1
}

# The server's own script. Debian's command on the path is a wrapper around it that insists on the system's folders.
rabbitmq_program() {
    local program
    for program in /usr/lib/rabbitmq/bin/rabbitmq-server /opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server \
        "$(command -v rabbitmq-server)"; do
        if [ -x "$program" ]; then
            printf '%s\n' "$program"
            return 0
        fi
    done
    return 1
}

need_rabbitmq_program() {
    rabbitmq_server=$(rabbitmq_program) && return 0
    if can_install && install_packages rabbitmq-server; then
        rabbitmq_server=$(rabbitmq_program) && return 0
    fi
    missing "no RabbitMQ was found. Either set AMQP_URL to a broker whose user may declare queues, or install the server" \
        "(Debian, Ubuntu: apt-get install rabbitmq-server; macOS: brew install rabbitmq) so that a private one can start"
}

# Everything that a node would share with another of this machine is its own: folders, ports, name, cookie, and the
# daemon that finds nodes by name.
start_private_rabbitmq() {
    need_rabbitmq_program
    make_private_folder
    local home=$private_folder/rabbitmq password port dist_port
    rabbitmq_user=$(server_user rabbitmq)
    password=$(new_password)
    port=$(free_port)
    dist_port=$(free_port)
    private_epmd_port=$(free_port)
    make_server_folder "$home" "$rabbitmq_user"
    say "starting a private RabbitMQ from $rabbitmq_server on port $port"
    write_rabbitmq_settings "$home" "$password"
    # Job control gives the server its own process group, so that it does not die of a Ctrl-C before the tests do, and
    # can be ended with all its children.
    set -m
    (as_user "$rabbitmq_user" "$home" env -i PATH="$PATH" HOME="$home" LANG=C.UTF-8 \
        ERL_EPMD_PORT="$private_epmd_port" ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_NODENAME="cap-test-$$@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$port" \
        RABBITMQ_DIST_PORT="$dist_port" RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" \
        RABBITMQ_MNESIA_BASE="$home/data" RABBITMQ_LOG_BASE="$home/log" RABBITMQ_PID_FILE="$home/pid" \
        RABBITMQ_SCHEMA_DIR="$home/schema" RABBITMQ_GENERATED_CONFIG_DIR="$home/generated" \
        RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" RABBITMQ_ADVANCED_CONFIG_FILE="$home/advanced.config" \
        RABBITMQ_CONF_ENV_FILE="$home/none.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" \
        "$rabbitmq_server") >"$private_folder/rabbitmq.log" 2>&1 </dev/null &
    private_rabbitmq=$!
    set +m
    AMQP_URL=amqp://cap:$password@127.0.0.1:$port
    wait_for_rabbitmq "$port"
}

write_rabbitmq_settings() {
    local home=$1 password=$2
    (
        umask 077
        cat >"$home/rabbitmq.conf" <<SETTINGS
default_user = cap
default_pass = $password
max_message_size = 134217728
disk_free_limit.absolute = 200MB
SETTINGS
        printf '[].\n' >"$home/enabled_plugins"
    )
    [ "$(id -un)" = "$rabbitmq_user" ] || chown "$rabbitmq_user" "$home/rabbitmq.conf" "$home/enabled_plugins"
}

# A node takes some seconds to boot, and opens its port last.
wait_for_rabbitmq() {
    local deadline=$((SECONDS + 120))
    until answers "$1" && can_use "$AMQP_URL" 2>/dev/null; do
        if ! kill -0 "$private_rabbitmq" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
            private_failed RabbitMQ "$private_folder/rabbitmq.log"
        fi
        sleep 0.3
    done
}

stop_private_rabbitmq() {
    kill -KILL -- "-$private_rabbitmq" 2>/dev/null || true
    wait "$private_rabbitmq" 2>/dev/null || true
    stop_private_epmd
}

# The daemon leaves the process group of the node that started it, so it is ended by its port. It refuses while it
# still believes in the node, which it does for a moment.
stop_private_epmd() {
    local epmd deadline=$((SECONDS + 10))
    epmd=$(command -v epmd || ls /usr/lib/erlang/erts-*/bin/epmd 2>/dev/null | head -n 1)
    while answers "$private_epmd_port" && [ "$SECONDS" -lt "$deadline" ]; do
        "$epmd" -port "$private_epmd_port" -kill >/dev/null 2>&1 || true
        sleep 0.1
    done
}
