;; Names a kind that does not exist.
(memory (export "memory") 1 16)
(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (drop (call $honest (local.get $count)))
  (i32.store8 (i32.const 136) (i32.const 11))
  (i32.const 64))
