# luajit
# exit: 5
luajit /mnt/src/real.lua
