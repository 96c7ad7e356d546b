# gcc; a copy elsewhere finds its parts by the name that it is called by
gcc() { (exec -a /usr/bin/gcc gcc "$@"); }
gcc -O2 -c /mnt/project/tests/oracle/oracle.c -o o.o
gcc -O2 -g -pipe -S /mnt/project/runtime_stub/src/digest.c -o - | grep -v ident | sha256sum
gcc o.o -o o
sha256sum o.o
./o -o out.json -- echo traced
gcc -c nothing.c
echo $?
