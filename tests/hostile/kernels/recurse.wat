;; Calls itself without end.
(func $deeper (param i32) (result i32)
  (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
(memory (export "memory") 1 16)
(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (drop (call $deeper (i32.const 0)))
  (call $honest (local.get $count)))
