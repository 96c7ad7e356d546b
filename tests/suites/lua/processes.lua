-- Work that is compiled, between system calls of many kinds: files, pipes to other programs, clocks, memory that is given back.
local sum = 0
for i = 1, 3e6 do sum = (sum * 31 + i) % 1000003 end
print(sum)

local name = os.tmpname()
for round = 1, 200 do
  local f = assert(io.open(name, "w"))
  for i = 1, 100 do f:write(i, " ", i * round, "\n") end
  f:close()
  local total = 0
  for line in io.lines(name) do
    local a, b = line:match("(%d+) (%d+)")
    total = total + a * b
  end
  assert(total == round * 338350)
end
assert(os.remove(name))

for i = 1, 20 do
  local p = io.popen("echo " .. i .. "; exit " .. i)
  assert(p:read("*n") == i)
  p:close()
end

local threads = {}
for i = 1, 200 do
  threads[i] = coroutine.wrap(function()
    for round = 1, 100 do
      local before = os.clock()
      coroutine.yield(i * round)
      assert(os.clock() >= before and os.time() > 0)
    end
  end)
end
local yielded = 0
for round = 1, 100 do for i = 1, 200 do yielded = yielded + threads[i]() end end
print(yielded)

for round = 1, 30 do
  local parts = {}
  for i = 1, 20000 do parts[i] = ("x"):rep(i % 50) end
  assert(#table.concat(parts) == 490000)
  collectgarbage()
end
print(pcall(error, "thrown"), select("#", pcall(string.rep)))
