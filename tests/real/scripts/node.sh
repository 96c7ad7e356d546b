# node
# exit: 6
node /mnt/src/real.js
