# make -j
# timeout: 600
cp -r /usr/src/real/lua5.4-*/src b
cd b
echo '#define DEB_HOST_MULTIARCH "x86_64-linux-gnu"' >lua5.4-deb-multiarch.h
make -s -j4 -f /mnt/src/lua.mk 2>&1
sha256sum lua luac liblua.a *.o
./lua -e 'print(_VERSION, #arg, 2^53)'
./luac -l /mnt/src/real.lua | wc -l
