# g++
g++ -O1 -o x /mnt/src/real.cc -pthread && ./x
readelf -n x | grep -c 'Build ID'
