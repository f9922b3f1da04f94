;; Never even starts: its start function does not end.
(func $start (loop $again (br $again)))
(start $start)
(memory (export "memory") 1 16)
(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (call $honest (local.get $count)))
