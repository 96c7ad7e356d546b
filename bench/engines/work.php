<?php
// Loops that opcache's JIT compiles, arrays, strings, files, a child.
function mandelbrot(int $n): int {
    $inside = 0;
    for ($y = 0; $y < $n; $y++) {
        for ($x = 0; $x < $n; $x++) {
            $cr = 2.0 * $x / $n - 1.5; $ci = 2.0 * $y / $n - 1.0; $zr = 0.0; $zi = 0.0; $i = 0;
            while ($i < 50 && $zr * $zr + $zi * $zi < 4) {
                $t = $zr * $zr - $zi * $zi + $cr; $zi = 2 * $zr * $zi + $ci; $zr = $t; $i++;
            }
            if ($i == 50) $inside++;
        }
    }
    return $inside;
}
function sieve(int $n): int {
    $composite = array_fill(0, $n, false); $found = 0;
    for ($i = 2; $i < $n; $i++) {
        if ($composite[$i]) continue;
        $found++;
        for ($j = 2 * $i; $j < $n; $j += $i) $composite[$j] = true;
    }
    return $found;
}
echo "mandelbrot ", mandelbrot(1500), " sieve ", sieve(3000000), "\n";
$name = tempnam(sys_get_temp_dir(), 'engine');
$sum = 0;
for ($round = 0; $round < 200; $round++) { file_put_contents($name, str_repeat("line $round\n", 100)); $sum += filesize($name); clearstatcache(); }
unlink($name);
echo "files $sum digest ", hash('sha256', str_repeat('x', 1000000)), " child ", shell_exec('/bin/echo hello');
