# bash
# exit: 7
for i in 3 1 2; do echo $i | cat; done | sort | while read -r x; do echo x$x; done
f() { local n=$1; [ $n -le 1 ] && echo 1 || echo $((n * $(f $((n - 1))))); }
f 8
diff <(seq 10) <(seq 2 11)
coproc cat
echo hi >&${COPROC[1]}
read -r x <&${COPROC[0]}
echo $x
trap 'echo trapped' USR1
kill -USR1 $$
(trap '' TERM; kill -TERM $BASHPID; echo alive)
cat <<<here
sleep 10 & kill $!
wait $!
echo $?
timeout 0.2 sleep 5
echo $?
yes | head -n 1000 | md5sum
exit 7
