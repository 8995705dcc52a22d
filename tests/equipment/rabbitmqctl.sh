#!/usr/bin/env bash
# Runs one of RabbitMQ's tools against a node that rabbitmq.sh runs.
#
#   rabbitmqctl.sh DIR [rabbitmq-diagnostics|rabbitmq-queues|rabbitmq-plugins] ARGS...
#
# Called by the tests and by people; without a tool's name it is rabbitmqctl, as in
# `rabbitmqctl.sh DIR list_queues name messages`. Each call starts an Erlang machine,
# about a second. Guarantees: it speaks to the node of DIR only, and exits with the
# tool's code.
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: $0 DIR [TOOL] ARGS..." >&2; exit 64; }
[ -r "$1/env" ] || { echo "$0: no node in $1" >&2; exit 66; }
. "$1/env"
shift
tool=rabbitmqctl
case $1 in rabbitmq-diagnostics | rabbitmq-queues | rabbitmq-plugins | rabbitmq-upgrade) tool=$1 && shift ;; esac
exec "/usr/lib/rabbitmq/bin/$tool" "$@"
