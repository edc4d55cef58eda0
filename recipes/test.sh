#!/usr/bin/env bash
# Run the tests: the fast ones, or all with --slow. Further arguments go to pytest.
source "$(dirname "$0")/setup.sh"
export HF_HUB_OFFLINE=1
if [ "${1:-}" = --slow ]; then
    shift
    exec python -m pytest --numprocesses 2 --dist loadfile "$@"
fi
exec python -m pytest --numprocesses 2 --dist loadfile -m "not slow" "$@"
