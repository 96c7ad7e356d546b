-- Numbers, tables, strings, files and a coroutine; the traces that LuaJIT makes of the loops are freed and made anew.
local function mandelbrot(n)
  local inside = 0
  for y = 0, n - 1 do
    for x = 0, n - 1 do
      local cr, ci, zr, zi, i = 2.0 * x / n - 1.5, 2.0 * y / n - 1.0, 0, 0, 0
      while i < 50 and zr * zr + zi * zi < 4 do
        zr, zi, i = zr * zr - zi * zi + cr, 2 * zr * zi + ci, i + 1
      end
      if i == 50 then inside = inside + 1 end
    end
  end
  return inside
end

local function words(n)
  local count, text = {}, {}
  for i = 1, n do text[i] = string.format("w%d", i * 7919 % 1009) end
  for word in table.concat(text, " "):gmatch("%S+") do count[word] = (count[word] or 0) + 1 end
  local keys = {}
  for word in pairs(count) do keys[#keys + 1] = word end
  table.sort(keys)
  return #keys, count[keys[1]]
end

local name = os.tmpname()
for round = 1, 12 do
  local file = assert(io.open(name, "w"))
  for i = 1, 20000 do file:write(i * round, "\n") end
  file:close()
  local sum = 0
  for line in io.lines(name) do sum = sum + tonumber(line) end
  if jit then jit.flush() end
  print(round, mandelbrot(900), sum, words(100000))
end
os.remove(name)
for value in coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) do print(value) end
