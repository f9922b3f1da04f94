;; Is larger than its limit from the start.
(memory (export "memory") 4096 8192)
(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (call $honest (local.get $count)))
