"""Modules that wasmtime compiles: loops, calls into python, traps (signals of made code), threads, many modules."""

import threading
from collections.abc import Callable
from typing import Any

from wasmtime import Engine, Func, FuncType, Instance, Module, Store, Trap, ValType, WasmtimeError

TEXT = """
(module
  (import "" "told" (func $told (param i32)))
  (memory (export "memory") 80)
  (func (export "sieve") (param $n i32) (result i32) (local $i i32) (local $j i32) (local $found i32)
    (local.set $i (i32.const 2))
    (loop $next
      (if (i32.eqz (i32.load8_u (local.get $i)))
        (then
          (local.set $found (i32.add (local.get $found) (i32.const 1)))
          (local.set $j (i32.mul (local.get $i) (i32.const 2)))
          (block $done (loop $mark
            (br_if $done (i32.ge_u (local.get $j) (local.get $n)))
            (i32.store8 (local.get $j) (i32.const 1))
            (local.set $j (i32.add (local.get $j) (local.get $i)))
            (br $mark)))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $n))))
    (call $told (local.get $found))
    (local.get $found))
  (func (export "tell") (param $n i32)
    (loop $next
      (call $told (local.get $n))
      (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
  (func (export "divide") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
  (func (export "read") (param i32) (result i32) (i32.load (local.get 0)))
  (func $deep (export "deep") (param i32) (result i32) (i32.add (i32.const 1) (call $deep (local.get 0))))
  (func (export "never") unreachable))
"""


Call = Callable[..., Any]


def started(engine: Engine, told: Callable[[int], object]) -> Call:
    store = Store(engine)
    module = Module(engine, TEXT)
    instance = Instance(store, module, [Func(store, FuncType([ValType.i32()], []), told)])
    exports: Any = instance.exports(store)
    return lambda name, *arguments: exports[name](store, *arguments)


def trap(call: Call, *arguments: object) -> object:
    try:
        return call(*arguments)
    except (Trap, WasmtimeError) as e:
        return str(e).strip().splitlines()[-1].strip()


def main() -> None:
    engine = Engine()
    seen: list[int] = []
    call = started(engine, seen.append)
    print(
        "sieve", call("sieve", 5_000_000), [started(engine, seen.append)("sieve", 5_000_000) for _ in range(30)], seen
    )
    call("tell", 30_000)
    print("told", sum(seen))
    for _ in range(200):
        told = [trap(call, "divide", 1, 0), trap(call, "read", 80 << 16), trap(call, "read", -4), trap(call, "never")]
    print("traps", told, trap(call, "deep", 1))
    results: dict[int, object] = {}

    def work(n: int) -> None:
        mine = started(engine, lambda _: None)
        results[n] = mine("sieve", n), trap(mine, "divide", n, 0)

    threads = [threading.Thread(target=work, args=(n,)) for n in (1_000_000, 2_000_000, 3_000_000, 4_000_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("threads", sorted(results.items()))
    total = 0
    for i in range(300):
        store = Store(engine)
        made = Module(
            engine, f'(module (func (export "f") (param i32) (result i32) (i32.mul (local.get 0) (i32.const {i}))))'
        )
        total += Instance(store, made, []).exports(store)["f"](store, 3)
    print("made", total)


main()
