#!/usr/bin/env bash
# Runs a real RabbitMQ broker on 127.0.0.1 in the foreground, for tests and trials.
#
#   rabbitmq.sh NODE PORT DIST_PORT DIR [EXTRA_CONFIG_FILE]
#
# Called by the tests (under guard.py) and by tests/stack. NODE is a short name
# (`a` becomes a@localhost). EXTRA_CONFIG_FILE holds rabbitmq.conf lines, such as
# `vm_memory_high_watermark.absolute = 200MB`, which win over those below.
# Environment: ERL_EPMD_PORT  port of the node's own name server (DIST_PORT + 1);
#                             if one answers there already, it is shared
#              RABBIT_PLUGINS names of plugins, e.g. "rabbitmq_management" (none)
#              RABBIT_HOST    the node's host (localhost), and RABBIT_ADDRESS its IPv4
#                             address (127.0.0.1): for a cluster on several
#              RABBIT_TICK    seconds after which nodes notice that one is gone (60)
#              RABBIT_BUSY_WAIT  `none`: a node gives its processor back at once when it has
#                             nothing to do; else as Erlang does it, which spins a while
#              RABBIT_COOKIE  the same for all nodes of a cluster (random, kept in DIR)
# Guarantees: data, logs and cookie only in DIR, and it comes back on them after
# kill -9 of everything; the process is the Erlang machine itself, its name server is
# a child in the same group; DIR/env tells rabbitmqctl.sh where it is.
# Known: RabbitMQ 3.10 writes down a new quorum queue about a second after it confirmed
# the declaration; killed before, the queue is dead for good (it never finds a leader).
# `rabbitmqctl.sh DIR eval '[dets:sync(T) || T <- dets:all()].'` makes it write at once.
set -euo pipefail

[ $# -ge 4 ] || { echo "usage: $0 NODE PORT DIST_PORT DIR [EXTRA_CONFIG_FILE]" >&2; exit 64; }
node=$1 port=$2 dist=$3 dir=$4 extra=${5:-}
host=${RABBIT_HOST:-localhost} address=${RABBIT_ADDRESS:-127.0.0.1}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
home=/usr/lib/rabbitmq/bin
[ -x $home/rabbitmq-server ] || { echo "$0: no rabbitmq-server, run tests/equipment/install" >&2; exit 69; }

cookie="$dir/.erlang.cookie"
if [ ! -s "$cookie" ]; then
    (umask 077 && printf %s "${RABBIT_COOKIE:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}" >"$cookie.new")
    chmod 400 "$cookie.new"
    mv -f "$cookie.new" "$cookie"
fi

cat >"$dir/rabbitmq.conf" <<CONF
listeners.tcp.1 = $address:$port
log.file = $dir/rabbit.log
log.file.level = info
CONF
# The extra lines come last, and a default that they speak of is left out.
if [ -z "$extra" ] || ! grep -q '^ *disk_free_limit' "$extra"; then
    echo 'disk_free_limit.absolute = 50MB' >>"$dir/rabbitmq.conf"
fi
[ -z "$extra" ] || cat "$extra" >>"$dir/rabbitmq.conf"
: >"$dir/rabbitmq-env.conf"
printf '[%s].\n' "$(tr -s ' ' ',' <<<"${RABBIT_PLUGINS:-}" | tr -d '\n')" >"$dir/enabled_plugins"

cat >"$dir/env.new" <<ENV
export HOME=$(printf %q "$dir")
export ERL_EPMD_PORT=${ERL_EPMD_PORT:-$((dist + 1))}
export ERL_EPMD_ADDRESS=$address
export RABBITMQ_NODENAME=$(printf %q "${node%@*}@$host")
export RABBITMQ_NODE_PORT=$port
export RABBITMQ_DIST_PORT=$dist
export RABBITMQ_CTL_DIST_PORT_MIN=1024
export RABBITMQ_CTL_DIST_PORT_MAX=65535
export RABBITMQ_BASE=$(printf %q "$dir")
export RABBITMQ_MNESIA_BASE=$(printf %q "$dir/data")
export RABBITMQ_LOG_BASE=$(printf %q "$dir")
export RABBITMQ_ENABLED_PLUGINS_FILE=$(printf %q "$dir/enabled_plugins")
export RABBITMQ_CONFIG_FILE=$(printf %q "$dir/rabbitmq.conf")
export RABBITMQ_ADVANCED_CONFIG_FILE=$(printf %q "$dir/advanced.config")
export RABBITMQ_CONF_ENV_FILE=$(printf %q "$dir/rabbitmq-env.conf")
export RABBITMQ_GENERATED_CONFIG_DIR=$(printf %q "$dir/config")
export RABBITMQ_PID_FILE=$(printf %q "$dir/rabbit.pid")
ENV
mv -f "$dir/env.new" "$dir/env"
unset NOTIFY_SOCKET
. "$dir/env"
cd "$dir"

# The name server first, in the foreground: as a daemon it would leave the group.
if ! epmd -names >/dev/null 2>&1; then
    epmd >/dev/null 2>&1 &
    for _ in $(seq 100); do
        epmd -names >/dev/null 2>&1 && break
        sleep 0.02
    done
fi

# With "input allowed" the script becomes the Erlang machine instead of its parent.
export RABBITMQ_ALLOW_INPUT=1
export RABBITMQ_SERVER_START_ARGS="-noinput"
busy_wait=
[ "${RABBIT_BUSY_WAIT-}" != none ] || busy_wait="+sbwt none +sbwtdcpu none +sbwtdio none"
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="$busy_wait -kernel inet_dist_use_interface {${address//./,}} net_ticktime ${RABBIT_TICK:-60}"
exec $home/rabbitmq-server
