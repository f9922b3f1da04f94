;; Asks for chance.
;;; imports
(import "wasi:random/random@0.2.0" (instance $random
  (export "get-random-u64" (func (result u64)))))
(core func $draw (canon lower (func $random "get-random-u64")))
(core instance $host (export "draw" (func $draw)))
;;; arguments
(with "host" (instance $host))
;;; core
(import "host" "draw" (func $draw (result i64)))
(memory (export "memory") 1 16)
(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (drop (call $draw))
  (call $honest (local.get $count)))
