;; Opens an input that nobody declared.
;;; imports
(core module $memory-module
  (memory (export "memory") 1 16)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192)))
(core instance $memory (instantiate $memory-module))
(import "forgepool:kernel/inputs@1.0.0" (instance $inputs
  (export "input" (type $input (sub resource)))
  (type $error' (variant (case "undeclared" string) (case "out-of-range" u64)))
  (export "input-error" (type $error (eq $error')))
  (export "[method]input.size" (func (param "self" (borrow $input)) (result u64)))
  (export "[method]input.read" (func (param "self" (borrow $input)) (param "offset" u64) (param "len" u32)
    (result (result (list u8) (error $error)))))
  (export "open" (func (param "name" string) (result (result (own $input) (error $error)))))))
(alias export $inputs "input" (type $input))
(core func $open (canon lower (func $inputs "open") (memory $memory "memory") (realloc (func $memory "realloc"))))
(core func $size (canon lower (func $inputs "[method]input.size")))
(core func $read (canon lower (func $inputs "[method]input.read") (memory $memory "memory")
  (realloc (func $memory "realloc"))))
(core func $drop (canon resource.drop $input))
(core instance $host
  (export "memory" (memory $memory "memory"))
  (export "open" (func $open)) (export "size" (func $size))
  (export "read" (func $read)) (export "drop" (func $drop)))
;;; arguments
(with "host" (instance $host))
;;; core
(import "host" "memory" (memory 1 16))
(import "host" "open" (func $open (param i32 i32 i32)))
(import "host" "size" (func $size (param i32) (result i64)))
(import "host" "read" (func $read (param i32 i64 i32 i32)))
(import "host" "drop" (func $drop (param i32)))
(export "memory" (memory 0))
(data (i32.const 16) "data")

(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (call $open (i32.const 8) (i32.const 4) (i32.const 304))
  (call $honest (i64.load8_u (i32.const 304))))
