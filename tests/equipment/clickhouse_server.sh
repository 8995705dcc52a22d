#!/usr/bin/env bash
# Runs a ClickHouse HTTP server on 127.0.0.1 in the foreground, for tests and trials.
#
#   clickhouse_server.sh PORT DATADIR USER PASSWORD DATABASE VENV_PYTHON [TLS_PORT CERTIFICATE KEY]
#
# Called by the tests (under guard.py) and by tests/stack. With a `clickhouse`
# binary on the PATH it is the real server (a production server is 25.x or newer);
# else clickhouse_front.py, the same engine from a Python wheel. HOLDFAST_TEST_CLICKHOUSE
# chooses by hand: `server` or `front`. It is ready when `SELECT 1` with
# `database=DATABASE` is answered: /ping of a real server answers earlier.
# Guarantees: data only in DATADIR, and it comes back on it after kill -9.
set -euo pipefail

[ $# -eq 6 ] || [ $# -eq 9 ] || { echo "usage: $0 PORT DATADIR USER PASSWORD DATABASE VENV_PYTHON [TLS_PORT CERTIFICATE KEY]" >&2; exit 64; }
port=$1 dir=$2 user=$3 password=$4 database=$5 python=$6
tls_port=${7:-} certificate=${8:-} key=${9:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export TZ=UTC
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

kind=${HOLDFAST_TEST_CLICKHOUSE:-}
if [ -z "$kind" ]; then
    if command -v clickhouse >/dev/null; then kind=server; else kind=front; fi
fi
if [ "$kind" = front ]; then
    exec "$python" "$here/clickhouse_front.py" --port "$port" --path "$dir" \
        --user "$user" --password "$password" --database "$database" \
        ${tls_port:+--tls-port "$tls_port" --certificate "$certificate" --key "$key"}
fi

xml() { sed -e 's/&/\&amp;/g' -e 's/</\&lt;/g' -e 's/>/\&gt;/g' <<<"$1"; }
cat >"$dir/config.xml" <<XML
<clickhouse>
    <logger><level>warning</level><console>1</console></logger>
    <listen_host>127.0.0.1</listen_host>
    <http_port>$port</http_port>
    <path>$(xml "$dir")/data/</path>
    <tmp_path>$(xml "$dir")/tmp/</tmp_path>
    <user_files_path>$(xml "$dir")/user_files/</user_files_path>
    <format_schema_path>$(xml "$dir")/format_schemas/</format_schema_path>
    <timezone>UTC</timezone>
    <mark_cache_size>67108864</mark_cache_size>
    <user_directories><users_xml><path>$(xml "$dir")/users.xml</path></users_xml></user_directories>
</clickhouse>
XML
if [ -n "$tls_port" ]; then
    mkdir -p "$dir/config.d"
    cat >"$dir/config.d/tls.xml" <<XML
<clickhouse>
    <https_port>$tls_port</https_port>
    <openSSL><server>
        <certificateFile>$(xml "$certificate")</certificateFile>
        <privateKeyFile>$(xml "$key")</privateKeyFile>
        <verificationMode>none</verificationMode>
    </server></openSSL>
</clickhouse>
XML
fi
hash=$(printf %s "$password" | sha256sum | cut -d' ' -f1)
cat >"$dir/users.xml" <<XML
<clickhouse>
    <profiles><default/></profiles>
    <quotas><default/></quotas>
    <users><$user>
        <password_sha256_hex>$hash</password_sha256_hex>
        <networks><ip>127.0.0.1</ip></networks>
        <profile>default</profile><quota>default</quota>
    </$user></users>
</clickhouse>
XML
# The database is made as soon as the server answers.
(
    for _ in $(seq 300); do
        curl -fsS -o /dev/null -H "X-ClickHouse-User: $user" -H "X-ClickHouse-Key: $password" \
            --data-binary "CREATE DATABASE IF NOT EXISTS \`$database\`" \
            "http://127.0.0.1:$port/" 2>/dev/null && exit 0
        sleep 0.1
    done
) &
cd "$dir"
exec clickhouse server --config-file="$dir/config.xml"
