# curl
cd /tmp
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout k -out c -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>/dev/null
seq 200000 >n
python3 /mnt/src/serve.py & for i in $(seq 100); do curl -s -o /dev/null --cacert c https://localhost:7005/ && break; sleep 0.1; done
curl -s --cacert c https://localhost:7005/n | sha256sum
curl -s https://localhost:7005/n
echo $?
curl -s -o a -o b --cacert c https://localhost:7005/n https://localhost:7005/c
sha256sum a | cut -c-10
curl -s http://localhost:1/
echo $?
kill %1
