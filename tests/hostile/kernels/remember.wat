;; Counts its calls in memory and answers with that: a fresh instance always answers 1.
(memory (export "memory") 1 16)
(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (i64.store (i32.const 512) (i64.add (i64.load (i32.const 512)) (i64.const 1)))
  (call $honest (i64.load (i32.const 512))))
