;; Divides by zero.
(memory (export "memory") 1 16)
(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (drop (i32.div_u (i32.const 1) (i32.wrap_i64 (i64.sub (local.get $count) (local.get $count)))))
  (call $honest (local.get $count)))
