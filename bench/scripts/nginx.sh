# rate: requests a second
mkdir -p /tmp/www /tmp/logs
echo hello >/tmp/www/index.html
sed 's/worker_processes 2/worker_processes 1/' /mnt/src/nginx.conf >/tmp/nginx.conf
nginx -c /tmp/nginx.conf
for i in $(seq 100); do curl -s -o /dev/null http://127.0.0.1:7002/ && break; sleep 0.05; done
wrk -t1 -c10 -d2s http://127.0.0.1:7002/ | sed -n 's/Requests.sec: *//p'
kill -QUIT $(cat nginx.pid)
