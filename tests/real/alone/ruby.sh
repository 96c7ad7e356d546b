# ruby
ruby --yjit /mnt/project/bench/engines/work.rb
