;; Prints a page, then answers honestly.
;;; imports
(core module $memory-module
  (memory (export "memory") 1 16)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192)))
(core instance $memory (instantiate $memory-module))
(import "wasi:io/error@0.2.6" (instance $errors (export "error" (type (sub resource)))))
(alias export $errors "error" (type $error))
(import "wasi:io/streams@0.2.6" (instance $streams
  (export "output-stream" (type $stream (sub resource)))
  (alias outer 1 $error (type $error'))
  (export "error" (type $error'' (eq $error')))
  (type $failure' (variant (case "last-operation-failed" (own $error'')) (case "closed")))
  (export "stream-error" (type $failure (eq $failure')))
  (export "[method]output-stream.blocking-write-and-flush" (func (param "self" (borrow $stream))
    (param "contents" (list u8)) (result (result (error $failure)))))))
(alias export $streams "output-stream" (type $stream))
(import "wasi:cli/stdout@0.2.6" (instance $stdout
  (alias outer 1 $stream (type $stream'))
  (export "output-stream" (type $stream'' (eq $stream')))
  (export "get-stdout" (func (result (own $stream''))))))
(core func $get (canon lower (func $stdout "get-stdout")))
(core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
  (memory $memory "memory")))
(core instance $host
  (export "memory" (memory $memory "memory"))
  (export "get" (func $get)) (export "write" (func $write)))
;;; arguments
(with "host" (instance $host))
;;; core
(import "host" "memory" (memory 1 16))
(import "host" "get" (func $get (result i32)))
(import "host" "write" (func $write (param i32 i32 i32 i32)))
(export "memory" (memory 0))

(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (local $stream i32) (local $left i32)
  (memory.fill (i32.const 16384) (i32.const 0x61) (i32.const 3000))
  (local.set $stream (call $get))
  (local.set $left (i32.const 10))
  (loop $again
    (call $write (local.get $stream) (i32.const 16384) (i32.const 3000) (i32.const 320))
    (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
  (call $honest (local.get $count)))
