use strict; use warnings; use threads; use POSIX ':sys_wait_h'; use Socket; use Time::HiRes 'sleep'; use Digest::SHA 'sha256_hex';
$| = 1;
my $t = threads->create(sub { my $s = 0; $s += $_ for 1 .. 1000; $s }); print $t->join, "\n";
open(my $p, '-|', 'sh', '-c', 'seq 5 | sort -r') or die; print <$p>; close $p;
for my $i (1 .. 20) { my $pid = fork // die; exit $i unless $pid; waitpid $pid, 0; print $? >> 8, ' '; } print "\n";
local $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; sleep 10; }; print $@;
local $SIG{CHLD} = sub { while ((my $k = waitpid -1, WNOHANG) > 0) { print "reaped ", $? >> 8, "\n" } }; my $pid = fork; exit 4 unless $pid; sleep 0.3;
socketpair(my $x, my $y, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; syswrite $x, 'x' x 10; sysread $y, my $buf, 20; print length $buf, "\n";
print `id -u`, sha256_hex(join ',', sort { $a <=> $b } map { ($_ * 7919) % 10007 } 1 .. 20000), " $0 $^X\n"; kill 'TERM', $$; sleep 5;
