;; Gives more bytes than the host would copy.
(memory (export "memory") 8000 8192)
(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (drop (call $honest (local.get $count)))
  (i32.store8 (i32.const 136) (i32.const 10))
  (i32.store (i32.const 144) (i32.const 0))
  (i32.store (i32.const 148) (i32.const 419430400))
  (i32.const 64))
