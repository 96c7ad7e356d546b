# Builds Lua's interpreter and compiler in the working folder (Debian's own Makefile wants libtool).
CFLAGS = -std=gnu99 -O2 -DLUA_USE_LINUX
OBJECTS = $(patsubst %.c,%.o,$(filter-out lua.c luac.c,$(wildcard *.c)))

all: lua luac
lua luac: %: %.o liblua.a
	$(CC) -o $@ $^ -Wl,-E -ldl -lm
liblua.a: $(OBJECTS)
	ar rcD $@ $^
	ranlib -D $@
