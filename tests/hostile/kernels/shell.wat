;; The component around a core module: the whole kernel interface, spelled out, as no toolchain would write it.
;; The test replaces three marks by the sections of a kernel's file: what the component asks of the host, what the
;; module asks of the component, and the module itself.
(component
  @IMPORTS@
  (core module $core
    @CORE@
    ;; The honest answer for `count` items: one part, "work", a count.
    (func $honest (param $count i64) (result i32)
      (i32.store8 (i32.const 64) (i32.const 0))
      (i32.store (i32.const 68) (i32.const 128))
      (i32.store (i32.const 72) (i32.const 1))
      (i32.store (i32.const 128) (i32.const 8))
      (i32.store (i32.const 132) (i32.const 4))
      (i32.store8 (i32.const 136) (i32.const 0))
      (i64.store (i32.const 144) (local.get $count))
      (i32.const 64))
    (data (i32.const 8) "work")
    ;; Strings the host writes end up here; nothing needs them twice.
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  )
  (core instance $i (instantiate $core @ARGUMENTS@))
  (type $items (record (field "first" u64) (field "count" u64)))
  (type $rectangle (record (field "row" u64) (field "column" u64) (field "rows" u32) (field "columns" u32)))
  (type $interval (record (field "start" s64) (field "end" s64)))
  (type $slice (variant (case "items" $items) (case "rectangle" $rectangle) (case "element" u64) (case "interval" $interval) (case "whole")))
  (type $task (record (field "profile" string) (field "stage" string) (field "args" string) (field "index" u64) (field "units" u64) (field "slice" $slice) (field "seed" (list u8))))
  (type $moments (record (field "n" u64) (field "mean" f64) (field "m2" f64) (field "m3" f64) (field "m4" f64)))
  (type $extrema (record (field "min" f64) (field "max" f64)))
  (type $bucket (record (field "key" u32) (field "count" u64)))
  (type $histogram (record (field "mantissa-bits" u8) (field "buckets" (list $bucket))))
  (type $distribution (record (field "moments" $moments) (field "extrema" $extrema) (field "histogram" $histogram)))
  (type $number (enum "float32" "float64" "int32" "int64"))
  (type $matrix (record (field "rows" u32) (field "columns" u32) (field "values" (list f64))))
  (type $tile (record (field "at" $rectangle) (field "number" $number) (field "values" (list u8))))
  (type $rows (record (field "first" u64) (field "columns" u32) (field "number" $number) (field "values" (list u8))))
  (type $segment (record (field "at" $interval) (field "media" (list u8))))
  (type $part (variant (case "count" u64) (case "sum" f64) (case "moments" $moments) (case "extrema" $extrema) (case "histogram" $histogram) (case "distribution" $distribution) (case "matrix-sum" $matrix) (case "tile" $tile) (case "rows" $rows) (case "segment" $segment) (case "bytes" (list u8))))
  (type $named (record (field "name" string) (field "part" $part)))
  (type $fragment (record (field "parts" (list $named))))
  (type $failure (variant (case "arguments" string) (case "input" string) (case "numeric" string) (case "other" string)))
  (func $execute (param "task" $task) (result (result $fragment (error $failure)))
    (canon lift (core func $i "execute") (memory $i "memory") (realloc (func $i "cabi_realloc"))))
  (instance $unit
    (export "items" (type $items)) (export "rectangle" (type $rectangle)) (export "interval" (type $interval))
    (export "slice" (type $slice)) (export "task" (type $task)) (export "moments" (type $moments)) (export "extrema" (type $extrema))
    (export "bucket" (type $bucket)) (export "histogram" (type $histogram)) (export "distribution" (type $distribution))
    (export "number" (type $number)) (export "matrix" (type $matrix)) (export "tile" (type $tile)) (export "rows" (type $rows))
    (export "segment" (type $segment)) (export "part" (type $part)) (export "named" (type $named)) (export "fragment" (type $fragment))
    (export "failure" (type $failure)) (export "execute" (func $execute)))
  (export "forgepool:kernel/unit@1.0.0" (instance $unit))
)
