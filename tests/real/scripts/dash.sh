# dash
dash -c 'i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo $i; done | sort -rn | head -n 3; x=$(ls /etc | wc -l); echo $x; trap "echo bye" EXIT; (exit 3) || echo $?; kill -l 15'
dash -c "kill -9 \$\$"
echo $?
