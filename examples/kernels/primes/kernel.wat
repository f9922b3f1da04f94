;; examples/primes: how many of 1 to `limit` are prime, a block of 65,536 numbers per unit.
;;
;; A core module that exports the kernel interface by its canonical names, with no import and no toolchain behind it.
;; The sieve of Eratosthenes, segmented: a unit strikes out the multiples of every d from 2 to the root of its last
;; number. Striking with composite d too costs a third more and needs no list of primes.
(module
  ;; Page 0: names at 0, the answer at 1024, what the host writes from 4096 on. Page 1: a byte per number, 1 if struck.
  (memory (export "memory") 2 2)
  (data (i32.const 0) "tested")
  (data (i32.const 16) "primes")
  (data (i32.const 32) "the slice is not a run of at most 65536 items")
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

  ;; Strikes out the multiples of every divisor in start .. end.
  (func $sieve (param $start i64) (param $end i64)
    (local $divisor i64) (local $multiple i64)
    (local.set $divisor (i64.const 2))
    (block $done
      (loop $divisors
        (local.set $multiple (i64.mul (local.get $divisor) (local.get $divisor)))
        (br_if $done (i64.ge_u (local.get $multiple) (local.get $end)))
        ;; The first multiple from `start` on, but never below the square.
        (if (i64.lt_u (local.get $multiple) (local.get $start))
          (then (local.set $multiple (i64.mul (local.get $divisor)
            (i64.div_u (i64.sub (i64.add (local.get $start) (local.get $divisor)) (i64.const 1))
              (local.get $divisor))))))
        (block $struck
          (loop $multiples
            (br_if $struck (i64.ge_u (local.get $multiple) (local.get $end)))
            (i32.store8 offset=65536 (i32.wrap_i64 (i64.sub (local.get $multiple) (local.get $start))) (i32.const 1))
            (local.set $multiple (i64.add (local.get $multiple) (local.get $divisor)))
            (br $multiples)))
        (local.set $divisor (i64.add (local.get $divisor) (i64.const 1)))
        (br $divisors))))

  (func (export "forgepool:kernel/unit@1.0.0#execute")
    ;; profile, stage, args: address and length of each.
    (param i32 i32 i32 i32 i32 i32)
    (param $index i64) (param $units i64)
    ;; The slice: 0 is a run of items, of which $first and $count follow.
    (param $slice i32) (param $first i64) (param $count i64) (param i32 i32)
    ;; Seed: address and length. Nothing here is random.
    (param i32 i32)
    (result i32)
    (local $start i64) (local $end i64) (local $at i64) (local $primes i64)
    ;; A refusal: 1, then the failure's kind (3: other), its message's address and length.
    (if (i32.or (local.get $slice) (i64.gt_u (local.get $count) (i64.const 65536)))
      (then
        (i32.store8 (i32.const 1024) (i32.const 1))
        (i32.store8 (i32.const 1028) (i32.const 3))
        (i32.store (i32.const 1032) (i32.const 32))
        (i32.store (i32.const 1036) (i32.const 45))
        (return (i32.const 1024))))

    ;; Items count from 0, numbers from 1; 1 is no prime.
    (local.set $start (i64.add (local.get $first) (i64.const 1)))
    (local.set $end (i64.add (local.get $start) (local.get $count)))
    (call $sieve (local.get $start) (local.get $end))
    (local.set $at (local.get $start))
    (if (i64.eq (local.get $at) (i64.const 1)) (then (local.set $at (i64.const 2))))
    (block $done
      (loop $numbers
        (br_if $done (i64.ge_u (local.get $at) (local.get $end)))
        (local.set $primes (i64.add (local.get $primes) (i64.extend_i32_u (i32.eqz
          (i32.load8_u offset=65536 (i32.wrap_i64 (i64.sub (local.get $at) (local.get $start))))))))
        (local.set $at (i64.add (local.get $at) (i64.const 1)))
        (br $numbers)))

    ;; The answer: 0, then the list of parts: address and length.
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1028) (i32.const 1040))
    (i32.store (i32.const 1032) (i32.const 2))
    ;; A part has 88 bytes: name (address, length), at 8 its kind (0: count), at 16 its value.
    (i32.store (i32.const 1040) (i32.const 0))
    (i32.store (i32.const 1044) (i32.const 6))
    (i32.store8 (i32.const 1048) (i32.const 0))
    (i64.store (i32.const 1056) (local.get $count))
    (i32.store (i32.const 1128) (i32.const 16))
    (i32.store (i32.const 1132) (i32.const 6))
    (i32.store8 (i32.const 1136) (i32.const 0))
    (i64.store (i32.const 1144) (local.get $primes))
    (i32.const 1024)))
