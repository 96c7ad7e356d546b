# php
php -d opcache.enable_cli=1 -d opcache.jit_buffer_size=32M /mnt/project/bench/engines/work.php
