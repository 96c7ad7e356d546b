# time
dd if=/dev/zero of=/dev/null bs=1 count=1500000 2>/dev/null
