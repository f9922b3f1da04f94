;; Asks for more than 32 bits address.
(memory (export "memory") 1)
(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (drop (memory.grow (i32.const 65536)))
  (call $honest (local.get $count)))
