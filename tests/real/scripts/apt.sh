# dpkg, apt-get
# varies: \d+ files and directories
dpkg -l | sha256sum
dpkg -S /bin/ls
dpkg-query -W -f='${Status}\n' | sort | uniq -c
mkdir -p p/DEBIAN p/usr/share/p
printf 'Package: p\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: p\n' >p/DEBIAN/control
printf '#!/bin/sh\necho installed $1 $2\n' >p/DEBIAN/postinst
chmod 755 p/DEBIAN/postinst
echo x >p/usr/share/p/x
SOURCE_DATE_EPOCH=1 dpkg-deb --build p p.deb
cp -a /var/lib/dpkg db
dpkg --admindir=db --root=/ -i p.deb 2>&1
cat /usr/share/p/x
dpkg --admindir=db -r p 2>&1
ls /usr/share/p 2>&1
apt-get -s remove perl
apt-get -s -o Debug::NoLocking=1 install nothing-such
apt-cache show bash | head -n 3
apt-config dump | sha256sum
