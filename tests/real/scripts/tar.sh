# tar
tar cf a.tar --sort=name /usr/share/perl5 2>&1
sha256sum a.tar
mkdir x
tar xf a.tar -C x
tar czf - x | tar tzf - | wc -l
tar cJf - x/usr/share/perl5/Debconf | xz -dc | tar tf - | sort | sha256sum
tar df a.tar -C x
