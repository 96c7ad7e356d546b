# python3
# exit: 138
python3 /mnt/src/real.py
