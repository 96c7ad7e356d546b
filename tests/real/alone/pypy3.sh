# pypy3
pypy3 /mnt/project/bench/engines/work.py
