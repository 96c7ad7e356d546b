# rate: requests a second of SET
redis-server --port 7001 --save '' --dir /tmp --logfile /dev/null &
for i in $(seq 100); do redis-cli -p 7001 ping 2>/dev/null | grep -q PONG && break; sleep 0.05; done
redis-benchmark -p 7001 -n 300000 -q -t set --csv | tail -n 1 | cut -d'"' -f 4
redis-cli -p 7001 shutdown nosave
wait
