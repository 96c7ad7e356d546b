local ffi = require 'ffi'
ffi.cdef[[ int getpid(void); long syscall(long, ...); int poll(void *, unsigned long, int); unsigned sleep(unsigned); ]]
local s = 0
for i = 1, 1e7 do s = s + i % 7 end
print(s, ffi.C.getpid() == tonumber(ffi.C.syscall(39)))
for i = 1, 1000000 do ffi.C.getpid() end
local p = io.popen('seq 3 | sort -r'); io.write(p:read('*a')); p:close()
print(os.execute('exit 3'))
local t = {}
for i = 1, 300000 do t[i % 1000] = { i, tostring(i) } end
collectgarbage()
print(#t, t[7][2], jit.status())
local f = assert(io.open('/tmp/f', 'w')); for i = 1, 10000 do f:write(i, '\n') end f:close()
local n = 0 for line in io.lines('/tmp/f') do n = n + tonumber(line) end print(n)
print(pcall(error, 'x'))
os.exit(5)
