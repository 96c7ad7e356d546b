# Methods that YJIT compiles, objects, threads, files, a child.
require 'digest'
require 'tempfile'

def sieve(n)
  composite = Array.new(n, false)
  found = 0
  (2...n).each do |i|
    next if composite[i]
    found += 1
    (2 * i).step(n - 1, i) { |j| composite[j] = true }
  end
  found
end

def fib(n) = n < 2 ? n : fib(n - 1) + fib(n - 2)

puts "sieve #{sieve(4_000_000)} fib #{fib(34)}"
puts "threads #{[50_000, 100_000].map { |n| Thread.new { sieve(n) } }.map(&:value)}"
Tempfile.create('engine') do |file|
  20_000.times { |i| file.puts i }
  file.rewind
  puts "lines #{file.each_line.sum(&:to_i)}"
end
puts "digest #{Digest::SHA256.hexdigest('x' * 1_000_000)} child #{`/bin/echo hello`}"
