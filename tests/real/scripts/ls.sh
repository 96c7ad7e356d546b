# ls
# exit: 2
# varies: ^(d.*? \d+|total) .*
ls -la --time-style=+%s /etc /usr/share/doc /var
ls -R /usr/share | sha256sum
ls /nowhere
