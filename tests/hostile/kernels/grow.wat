;; Takes memory page by page and uses it, without end.
(memory (export "memory") 1 8192)
(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (loop $again
    (drop (memory.grow (i32.const 1)))
    (br $again))
  unreachable)
