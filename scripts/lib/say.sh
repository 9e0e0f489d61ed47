# What the scripts tell the person who started them.

say() {
    printf '==> %s\n' "$*" >&2
}

# Ends the script because something that it needs is not there: what, and how to get it.
missing() {
    printf 'scripts/test cannot run: %s\n' "$*" >&2
    exit 2
}

# An address without its password.
without_password() {
    sed -E 's#(://[^:/@]*):[^@]*@#\1@#' <<<"$1"
}

have() {
    command -v "$1" >/dev/null 2>&1
}
