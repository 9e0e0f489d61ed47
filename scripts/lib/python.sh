# The Python of the tests: the peer that speaks to us as another language would, with pika.

choose_python() {
    local packages=$target/python
    if [ -n "${CAP_TEST_PYTHON:-}" ]; then
        imports_pika "$CAP_TEST_PYTHON" || missing "CAP_TEST_PYTHON ($CAP_TEST_PYTHON) cannot import pika: run '$CAP_TEST_PYTHON -m pip install pika'"
    else
        find_python || install_pika "$packages" || install_python \
            || missing "no Python with the pika library was found. Install Python 3 and pika" \
                "(Debian, Ubuntu: apt-get install python3-pika; elsewhere: pip install pika), or name one in CAP_TEST_PYTHON"
    fi
    export CAP_TEST_PYTHON
    say "Python: $CAP_TEST_PYTHON"
}

imports_pika() {
    "$1" -c 'import pika' >/dev/null 2>&1
}

# A Python that has pika already, or finds it where an earlier run put it.
find_python() {
    local python
    for python in python3 /usr/bin/python3; do
        if imports_pika "$python"; then
            CAP_TEST_PYTHON=$python
            return 0
        fi
    done
    [ -d "$packages" ] || return 1
    use_installed_pika
}

use_installed_pika() {
    export PYTHONPATH=$packages${PYTHONPATH:+:$PYTHONPATH}
    CAP_TEST_PYTHON=python3
    imports_pika "$CAP_TEST_PYTHON"
}

# Into the target folder, so that neither the machine's Python nor the repository changes.
install_pika() {
    python3 -m pip --version >/dev/null 2>&1 || return 1
    say "installing pika into $packages"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --target "$packages" \
        --requirement tests/python/requirements.txt >&2 || return 1
    use_installed_pika
}

install_python() {
    can_install && install_packages python3 python3-pika || return 1
    CAP_TEST_PYTHON=/usr/bin/python3
    imports_pika "$CAP_TEST_PYTHON"
}
