# gcc: less, for the tracer
cp -r /usr/src/real/lua5.4-*/src b
cd b
echo '#define DEB_HOST_MULTIARCH "x86_64-linux-gnu"' >lua5.4-deb-multiarch.h
gcc -O2 -c lapi.c -o x.o
sha256sum x.o
