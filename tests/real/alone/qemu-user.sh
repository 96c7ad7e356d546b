# qemu-user
qemu-x86_64 /bin/busybox sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo $i; busybox ls / | wc -l; (exit 3); echo $?; kill -9 $$'
echo $?
qemu-x86_64 /bin/ls -l /etc/passwd
qemu-x86_64 /usr/bin/python3 -c 'import threading, hashlib
t = [threading.Thread(target=lambda: hashlib.sha256(b"x" * 100000)) for _ in range(4)]
[x.start() for x in t]; [x.join() for x in t]; print(len(t))'
