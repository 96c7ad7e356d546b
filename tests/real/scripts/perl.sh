# perl
# exit: 143
perl /mnt/src/real.pl
