//! A kernel that has broken its engine: four of its functions are machine code of this test's choice, written over the
//! compiler's. With them it makes any system call, from the very thread and process that kernels run in.

use forge_contract::Digest;
use forge_contract::duty::Duty;
use forge_contract::id::JobId;
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{PartKind, PartSpec};
use forge_contract::seed::StageKey;
use forge_contract::task::{Cut, Task};

use crate::attempts::{Attempt, Image, PREVIOUS};

/// Where the image of all attempts lies in the kernel's memory.
const IMAGE_AT: usize = 65_536;
/// Native memory that the kernel maps for its structures, bytes.
const ARENA_BYTES: usize = 65_536;

/// `push rbp; mov rbp, rsp`: every function of the compiler begins so.
const PROLOGUE: [u8; 4] = [0x55, 0x48, 0x89, 0xe5];

/// Arguments are in rdx and rcx (before them the engine's two contexts), the result in rax.
const NATIVE: [(&str, u64, &[u8]); 4] = [
    (
        // mmap(0, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        "arena",
        0x5ea1_0000_0000_0a01,
        &[
            0xb8, 9, 0, 0, 0, 0x31, 0xff, 0xbe, 0, 0, 1, 0, 0xba, 3, 0, 0, 0, 0x41, 0xba, 0x22, 0, 0, 0, 0x49, 0xc7,
            0xc0, 0xff, 0xff, 0xff, 0xff, 0x45, 0x31, 0xc9, 0x0f, 0x05, 0xc3,
        ],
    ),
    // mov [rdx], rcx; ret
    ("poke", 0x5ea1_0000_0000_0b02, &[0x48, 0x89, 0x0a, 0xc3]),
    // mov rax, [rdx]; ret
    ("peek", 0x5ea1_0000_0000_0c03, &[0x48, 0x8b, 0x02, 0xc3]),
    (
        // Loads rax and the six arguments from the block at rdx; syscall; ret
        "call",
        0x5ea1_0000_0000_0d04,
        &[
            0x48, 0x8b, 0x02, 0x48, 0x8b, 0x7a, 0x08, 0x48, 0x8b, 0x72, 0x10, 0x4c, 0x8b, 0x52, 0x20, 0x4c, 0x8b, 0x42,
            0x28, 0x4c, 0x8b, 0x4a, 0x30, 0x48, 0x8b, 0x52, 0x18, 0x0f, 0x05, 0xc3,
        ],
    ),
];

/// The component that carries out these attempts once it is [`broken`].
pub fn component(attempts: &[Attempt]) -> Vec<u8> {
    let image = Image::of(attempts);
    assert!(image.bytes.len() <= ARENA_BYTES);
    let mut natives = String::new();
    for (name, mark, _) in NATIVE {
        natives.push_str(&busy(name, mark));
    }
    let data: String = image.bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let core = CORE
        .replace("@NATIVES@", &natives)
        .replace("@DATA@", &data)
        .replace("@BYTES@", &image.bytes.len().to_string())
        .replace("@IMAGE@", &IMAGE_AT.to_string())
        .replace("@POINTERS@", &image.pointers_at.to_string())
        .replace("@POINTERS_END@", &image.pointers_end.to_string())
        .replace("@CASES@", &image.cases_at.to_string())
        .replace("@PREVIOUS@", &PREVIOUS.cast_signed().to_string());
    let shell = include_str!("../hostile/kernels/shell.wat");
    let text = shell.replace("@IMPORTS@", "").replace("@ARGUMENTS@", "").replace("@CORE@", &core);
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

/// A function longer than what will replace it, with a constant in it by which its code is found.
fn busy(name: &str, mark: u64) -> String {
    let params = match name {
        "arena" => "",
        "poke" => "(param $a i64) (param $b i64)",
        _ => "(param $a i64)",
    };
    let start = if params.is_empty() { "(i64.load (i32.const 0))" } else { "(local.get $a)" };
    let mut value = format!("(i64.xor {start} (i64.const {}))", mark.cast_signed());
    for round in 0..8_u64 {
        let odd = (mark.rotate_left(7) ^ (round << 40) | 1).cast_signed();
        value = format!("(i64.add (i64.mul {value} (i64.const {odd})) (i64.load (i32.const {})))", round * 8);
    }
    format!("(func ${name} {params} (result i64) {value})\n")
}

const CORE: &str = r#"
(memory (export "memory") 4 16)
(data (i32.const @IMAGE@) "@DATA@")
@NATIVES@
(func (export "execute") (param i32 i32 i32 i32 i32 i32) (param $index i64) (param $units i64) (param i32)
  (param $first i64) (param $count i64) (param i32 i32 i32 i32) (result i32)
  (local $base i64) (local $at i32) (local $block i64) (local $left i64) (local $result i64) (local $slot i64)
  (local $place i64)
  (local.set $base (call $arena))
  ;; Everything goes to native memory, whose address is known,
  (loop $copy
    (drop (call $poke (i64.add (local.get $base) (i64.extend_i32_u (local.get $at)))
      (i64.load (i32.add (i32.const @IMAGE@) (local.get $at)))))
    (local.set $at (i32.add (local.get $at) (i32.const 8)))
    (br_if $copy (i32.lt_u (local.get $at) (i32.const @BYTES@))))
  ;; and what points there gets the address added.
  (local.set $at (i32.const @POINTERS@))
  (block $done (loop $point
    (br_if $done (i32.ge_u (local.get $at) (i32.const @POINTERS_END@)))
    (local.set $place (i64.add (local.get $base) (i64.load (i32.add (i32.const @IMAGE@) (local.get $at)))))
    (drop (call $poke (local.get $place) (i64.add (call $peek (local.get $place)) (local.get $base))))
    (local.set $at (i32.add (local.get $at) (i32.const 8)))
    (br $point)))
  ;; The calls of this attempt, one after the other.
  (local.set $place (i64.add (local.get $base)
    (i64.add (i64.const @CASES@) (i64.mul (local.get $index) (i64.const 16)))))
  (local.set $block (i64.add (local.get $base) (call $peek (local.get $place))))
  (local.set $left (call $peek (i64.add (local.get $place) (i64.const 8))))
  (loop $calls
    (local.set $slot (i64.const 8))
    (loop $slots
      (local.set $place (i64.add (local.get $block) (local.get $slot)))
      (if (i64.eq (call $peek (local.get $place)) (i64.const @PREVIOUS@))
        (then (drop (call $poke (local.get $place) (local.get $result)))))
      (local.set $slot (i64.add (local.get $slot) (i64.const 8)))
      (br_if $slots (i64.le_u (local.get $slot) (i64.const 48))))
    (local.set $result (call $call (local.get $block)))
    (local.set $block (i64.add (local.get $block) (i64.const 56)))
    (local.set $left (i64.sub (local.get $left) (i64.const 1)))
    (br_if $calls (i64.ne (local.get $left) (i64.const 0))))
  (call $honest (local.get $result)))
"#;

/// The compiled component with its four functions replaced.
pub fn broken(mut code: Vec<u8>) -> Vec<u8> {
    for (name, mark, machine) in NATIVE {
        let mark = mark.to_le_bytes();
        let found = code.windows(8).position(|window| window == mark);
        let found = found.unwrap_or_else(|| panic!("the compiler left no trace of '{name}'"));
        let before = &code[found.saturating_sub(400)..found];
        let start = before.windows(4).rposition(|window| window == PROLOGUE).expect("a function has a prologue");
        let start = found - before.len() + start;
        code[start..start + machine.len()].copy_from_slice(machine);
    }
    code
}

/// Attempt `index` as a shard of one unit.
pub fn task(component: &[u8], attempts: usize, index: usize) -> Task {
    Task {
        job: JobId::from_bits(1),
        stage_index: 0,
        shard: 0,
        component: Digest::of(component),
        component_bytes: component.len() as u64,
        profile: "test.v1".into(),
        stage: "try".into(),
        args: "{}".into(),
        key: StageKey([7; 32]),
        cut: Cut::Items { total: attempts as u64, unit: 1 },
        first_unit: index as u64,
        unit_count: 1,
        limits: UnitLimits { fuel: 50_000_000, memory_bytes: 16 << 20, output_bytes: 1 << 16 },
        parts: vec![PartSpec {
            name: "work".into(),
            kind: PartKind::Count,
            counts_items: false,
            shown: true,
            unit: None,
        }],
        inputs: vec![],
        duty: Duty::Compute,
    }
}
