;; {{label}}: how many of 1 to `limit` are multiples of 3 or 5. Put your own model in its place.
;;
;; A core module that exports the kernel interface by its canonical names; `forgepool kernel build` makes the component.
;; The host calls cabi_realloc for each string it hands over, then `execute` with the task's fields laid out flat.
(module
  ;; 0 .. 64 the names; 1024 the answer; from 4096 on what the host writes. The maximum is at most memory_bytes.
  (memory (export "memory") 2 2)
  (data (i32.const 0) "tested")
  (data (i32.const 16) "multiples")
  (global $free (mut i32) (i32.const 4096))

  ;; Room for what the host hands over. Every unit runs in a fresh instance, so nothing is freed.
  (func (export "cabi_realloc") (param $old i32) (param $old_bytes i32) (param $align i32) (param $bytes i32)
    (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $at) (local.get $bytes)))
    (local.get $at))

  (func (export "forgepool:kernel/unit@1.0.0#execute")
    ;; profile, stage, args: address and length of each.
    (param i32 i32 i32 i32 i32 i32)
    (param $index i64) (param $units i64)
    ;; The slice: 0 is a run of items, of which $first and $count follow. Other slices use all four fields.
    (param $slice i32) (param $first i64) (param $count i64) (param i32 i32)
    ;; Seed: address, and its length of 32.
    (param i32 i32)
    (result i32)
    (local $number i64) (local $end i64) (local $found i64)
    ;; Items count from 0, numbers from 1.
    (local.set $number (i64.add (local.get $first) (i64.const 1)))
    (local.set $end (i64.add (local.get $number) (local.get $count)))
    (block $done
      (loop $next
        (br_if $done (i64.ge_u (local.get $number) (local.get $end)))
        (local.set $found (i64.add (local.get $found) (i64.extend_i32_u (i32.or
          (i64.eqz (i64.rem_u (local.get $number) (i64.const 3)))
          (i64.eqz (i64.rem_u (local.get $number) (i64.const 5)))))))
        (local.set $number (i64.add (local.get $number) (i64.const 1)))
        (br $next)))

    ;; result<fragment, failure>: 0 is ok; then the list of parts: address and length.
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1028) (i32.const 1040))
    (i32.store (i32.const 1032) (i32.const 2))
    ;; A part has 88 bytes: name (address, length), at 8 its kind (0: count), at 16 its value.
    (i32.store (i32.const 1040) (i32.const 0))
    (i32.store (i32.const 1044) (i32.const 6))
    (i32.store8 (i32.const 1048) (i32.const 0))
    (i64.store (i32.const 1056) (local.get $count))
    (i32.store (i32.const 1128) (i32.const 16))
    (i32.store (i32.const 1132) (i32.const 9))
    (i32.store8 (i32.const 1136) (i32.const 0))
    (i64.store (i32.const 1144) (local.get $found))
    (i32.const 1024)))
