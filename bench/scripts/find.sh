# time
for i in 1 2 3; do find /usr >/dev/null; done
