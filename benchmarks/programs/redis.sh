#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# redis.sh DIRECTORY: redis-server under redis-benchmark, with a BGSAVE (a fork) while it is written to.
set -e
cd "$1"
rm -f dump.rdb socket
redis-server --port 0 --unixsocket "$PWD/socket" --save "" --appendonly no --logfile log --dir "$PWD" &
until redis-cli -s socket ping >/dev/null 2>&1; do sleep 0.05; done
bench() { redis-benchmark -s socket -q -P 16 -r 200000 "$@" >/dev/null; }
bench -n 400000 -d 200 -t set
redis-cli -s socket bgsave >/dev/null
bench -n 800000 -d 200 -t set,get,lpush,hset
while redis-cli -s socket info persistence | grep -q 'rdb_bgsave_in_progress:1'; do sleep 0.05; done
redis-cli -s socket info persistence | grep -q 'rdb_last_bgsave_status:ok'
redis-cli -s socket dbsize
redis-cli -s socket flushall >/dev/null
bench -n 200000 -d 50 -t set
redis-cli -s socket shutdown nosave
wait
