#!/usr/bin/env bash
# Runs a real PostgreSQL server on 127.0.0.1 in the foreground, for tests and trials.
#
#   postgres.sh PORT DIR [SETTING=VALUE...]
#
# Called by the tests (under guard.py) and by tests/stack. The first start makes a
# cluster with the database `holdfast` and its owner `holdfast`; later starts take
# what is there. No passwords on loopback; `postgres` is the superuser. Settings are
# postgresql.conf's, such as max_connections=10; a key that ssl_key_file= names becomes
# the server's own, which PostgreSQL insists on. The newest installed version runs,
# as the user `postgres` when called by root, who must not run it.
# Guarantees: data, log and sockets only in DIR; fsync stays on; it comes back after
# kill -9, even after one in the middle of the first start. For a fast stop send INT.
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: $0 PORT DIR [SETTING=VALUE...]" >&2; exit 64; }
port=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
shift 2
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -V | tail -n 1)
[ -n "$bin" ] || { echo "$0: no PostgreSQL, run tests/equipment/install" >&2; exit 69; }

# The parent-death signal does not survive a change of user, so it is set again.
as=()
if [ "$(id -u)" = 0 ]; then
    chown postgres "$dir"
    as=(setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups --pdeathsig KILL)
    if ! "${as[@]}" test -x "$dir"; then
        # A closed directory above DIR: let it pass through, still not as root.
        as+=(--inh-caps=+dac_override --ambient-caps=+dac_override)
    fi
fi

cd "$dir"
data=$dir/data
if [ ! -e "$dir/made" ]; then
    rm -rf "$data"
    "${as[@]}" "$bin/initdb" --pgdata="$data" --username=postgres --auth=trust \
        --encoding=UTF8 --locale=C.UTF-8 --no-instructions >"$dir/initdb.log" 2>&1 ||
        { cat "$dir/initdb.log" >&2; exit 70; }
    "${as[@]}" "$bin/postgres" --single -D "$data" postgres >>"$dir/initdb.log" 2>&1 <<'SQL'
CREATE ROLE holdfast LOGIN
CREATE DATABASE holdfast OWNER holdfast
SQL
    touch "$dir/made"
fi

settings=()
for setting in "$@"; do
    settings+=(-c "$setting")
    if [[ $setting == ssl_key_file=* ]]; then
        chmod 600 "${setting#*=}"
        [ "$(id -u)" != 0 ] || chown postgres "${setting#*=}"
    fi
done
exec "${as[@]}" "$bin/postgres" -D "$data" -p "$port" -k "$dir" \
    -c listen_addresses=127.0.0.1 -c max_connections=100 -c timezone=UTC \
    -c log_line_prefix='%m [%p] ' "${settings[@]}"
