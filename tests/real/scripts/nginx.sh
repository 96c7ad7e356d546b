# nginx
# varies: ^[\d/]+ [\d:]+ 
# varies: \d+#\d+: \*\d+
mkdir -p /tmp/www /tmp/logs
seq 100000 >/tmp/www/numbers
echo hello >/tmp/www/index.html
nginx -c /mnt/src/nginx.conf 2>&1
for i in $(seq 100); do curl -s -o /dev/null http://127.0.0.1:7002/ && break; sleep 0.1; done
curl -s http://127.0.0.1:7002/numbers | sha256sum
curl -s -r 100-200 http://127.0.0.1:7002/numbers
curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:7002/nothing
wrk -t2 -c20 -d2s http://127.0.0.1:7002/ | grep -cE 'Requests/sec: +[1-9]'
wrk -t1 -c5 -d1s http://127.0.0.1:7002/numbers | grep -E 'Socket|Non-2xx'
kill -HUP $(cat nginx.pid)
sleep 0.5
curl -s http://127.0.0.1:7002/
kill -QUIT $(cat nginx.pid)
sleep 0.5
ls nginx.pid 2>&1
cat logs/error.log
