;; Reads past its memory.
(memory (export "memory") 1 16)
(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (drop (i64.load (i32.const 0x7fffffff)))
  (call $honest (local.get $count)))
