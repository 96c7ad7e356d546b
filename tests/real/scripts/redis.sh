# redis
# varies: pid [0-9]+
# varies: ^[0-9]+:\w
redis-server --port 7001 --save '' --dir /tmp --daemonize yes --logfile /tmp/redis.log >/dev/null
for i in $(seq 100); do redis-cli -p 7001 ping 2>/dev/null | grep -q PONG && break; sleep 0.1; done
redis-cli -p 7001 set k v
redis-cli -p 7001 get k
redis-cli -p 7001 eval 'local s = 0 for i = 1, 100000 do s = s + i end return s' 0
redis-benchmark -p 7001 -n 20000 -q -t set,get,lpush,incr -P 4 --threads 2 2>&1 | grep -c 'requests per second'
redis-cli -p 7001 bgsave
while redis-cli -p 7001 info persistence | grep -q bgsave_in_progress:1; do sleep 0.1; done
redis-cli -p 7001 info persistence | grep -E 'bgsave_status|bgsave_in'
redis-cli -p 7001 bgrewriteaof
sleep 0.5
redis-cli -p 7001 shutdown nosave
tail -n 1 redis.log | cut -d' ' -f 6-
