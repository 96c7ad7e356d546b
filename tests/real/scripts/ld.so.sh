# ld.so
# varies: AT_\w+: +0x\w+
L=/lib64/ld-linux-x86-64.so.2
$L /bin/echo direct
$L --verify /bin/ls
echo $?
$L --verify /etc/passwd
echo $?
$L --list /bin/bash | sed 's/0x.*//'
$L --preload /lib/x86_64-linux-gnu/libm.so.6 --list /bin/ls | sed 's/0x.*//'
$L --library-path /tmp --list /bin/ls | sed 's/0x.*//'
$L --argv0 zero /bin/sh -c 'echo $0'
$L --help | head -n 3
$L --inhibit-cache /bin/true
echo $?
LD_BIND_NOW=1 /bin/echo now
LD_DEBUG=statistics /bin/true 2>&1 | grep -c relocation
LD_SHOW_AUXV=1 /bin/true | grep -vE '0x|RANDOM|UID|GID'
ldd /bin/cat | sed 's/0x.*//'
