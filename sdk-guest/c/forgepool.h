/* forgepool.h: what a kernel written in C needs, in one header. No libc, no other file.
 *
 *   #define FORGEPOOL_IMPLEMENTATION      in exactly one source file, before the include
 *   #include "forgepool.h"
 *
 *   forge_result forge_execute(const forge_task *task) { ... }
 *
 * `forgepool kernel build` compiles it with clang for wasm32 and makes the component. A kernel is a pure function of
 * its task: there is no clock, no entropy and no file, and every unit runs in a fresh instance, so nothing needs freeing.
 *
 * Interface: forgepool:kernel@1.0.0 (wit/kernel.wit). The structures below have the layout of the component model's
 * canonical ABI, so what a kernel returns is handed over as it lies in memory.
 */
#ifndef FORGEPOOL_H
#define FORGEPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- what a unit is given ---------------------------------------------------------------------------------------- */

/* UTF-8, not terminated by a zero. */
typedef struct { const char *at; size_t bytes; } forge_string;

typedef struct { uint64_t first, count; } forge_items;
typedef struct { uint64_t row, column; uint32_t rows, columns; } forge_rectangle;
typedef struct { int64_t start, end; } forge_interval;

enum { FORGE_ITEMS = 0, FORGE_RECTANGLE = 1, FORGE_ELEMENT = 2, FORGE_INTERVAL = 3, FORGE_WHOLE = 4 };

typedef struct {
    forge_string profile, stage;
    /* Canonical JSON, defaults filled in, valid against the manifest's schema. */
    forge_string args;
    /* Index of this unit in its stage, and how many there are. */
    uint64_t index, units;
    /* The piece of the stage that this unit is: which member holds it is said by `slice`. */
    int slice;
    forge_items items;
    forge_rectangle rectangle;
    uint64_t element;
    forge_interval interval;
    /* 32 bytes: key of the unit's generator. */
    const uint8_t *seed;
} forge_task;

/* ---- what a unit gives ------------------------------------------------------------------------------------------- */

/* n, mean, and sums of (x - mean)^k for k = 2, 3, 4. */
typedef struct { uint64_t n; double mean, m2, m3, m4; } forge_moments;
typedef struct { double min, max; } forge_extrema;
/* Key: the top 12 + mantissa_bits bits of the value as a double. By rising key, none twice, no zero count. */
typedef struct { uint32_t key; uint64_t count; } forge_bucket;
typedef struct { uint8_t mantissa_bits; const forge_bucket *buckets; size_t count; } forge_histogram;
typedef struct { forge_moments moments; forge_extrema extrema; forge_histogram histogram; } forge_distribution;
enum { FORGE_FLOAT32 = 0, FORGE_FLOAT64 = 1, FORGE_INT32 = 2, FORGE_INT64 = 3 };
/* Row-major. */
typedef struct { uint32_t rows, columns; const double *values; size_t count; } forge_matrix;
/* Row-major, little-endian. */
typedef struct { forge_rectangle at; uint8_t number; const void *values; size_t bytes; } forge_tile;
typedef struct { uint64_t first; uint32_t columns; uint8_t number; const void *values; size_t bytes; } forge_rows;
typedef struct { forge_interval at; const void *media; size_t bytes; } forge_segment;
typedef struct { const void *at; size_t bytes; } forge_bytes;

enum {
    FORGE_COUNT = 0, FORGE_SUM = 1, FORGE_MOMENTS = 2, FORGE_EXTREMA = 3, FORGE_HISTOGRAM = 4, FORGE_DISTRIBUTION = 5,
    FORGE_MATRIX_SUM = 6, FORGE_TILE = 7, FORGE_ROWS = 8, FORGE_SEGMENT = 9, FORGE_BYTES = 10
};

/* A named part. The names and kinds are those of the manifest, in its order. */
typedef struct {
    forge_string name;
    uint8_t kind;
    union {
        uint64_t count;
        double sum;
        forge_moments moments;
        forge_extrema extrema;
        forge_histogram histogram;
        forge_distribution distribution;
        forge_matrix matrix;
        forge_tile tile;
        forge_rows rows;
        forge_segment segment;
        forge_bytes bytes;
    } part;
} forge_part;

/* A deterministic refusal: every agent says the same, nobody is blamed. */
enum { FORGE_FAIL_ARGUMENTS = 0, FORGE_FAIL_INPUT = 1, FORGE_FAIL_NUMERIC = 2, FORGE_FAIL_OTHER = 3 };

typedef struct {
    uint8_t failed;
    union {
        struct { const forge_part *parts; size_t count; } found;
        struct { uint8_t kind; forge_string message; } failure;
    } value;
} forge_result;

/* The kernel: one unit of work. Write this. */
forge_result forge_execute(const forge_task *task);

static inline size_t forge_length(const char *text) {
    size_t bytes = 0;
    while (text[bytes] != 0) bytes++;
    return bytes;
}

static inline forge_string forge_text(const char *text) {
    forge_string string = { text, forge_length(text) };
    return string;
}

static inline bool forge_is(forge_string string, const char *text) {
    size_t at = 0;
    while (at < string.bytes && text[at] != 0 && string.at[at] == text[at]) at++;
    return at == string.bytes && text[at] == 0;
}

/* The answer: these parts, which must outlive the call (static or from forge_alloc). */
static inline forge_result forge_ok(const forge_part *parts, size_t count) {
    forge_result result = { 0 };
    result.value.found.parts = parts;
    result.value.found.count = count;
    return result;
}

static inline forge_result forge_fail(uint8_t kind, const char *message) {
    forge_result result = { 0 };
    result.failed = 1;
    result.value.failure.kind = kind;
    result.value.failure.message = forge_text(message);
    return result;
}

static inline forge_part forge_part_of(const char *name, uint8_t kind) {
    forge_part part = { 0 };
    part.name = forge_text(name);
    part.kind = kind;
    return part;
}

static inline forge_part forge_count_part(const char *name, uint64_t count) {
    forge_part part = forge_part_of(name, FORGE_COUNT);
    part.part.count = count;
    return part;
}

static inline forge_part forge_sum_part(const char *name, double sum) {
    forge_part part = forge_part_of(name, FORGE_SUM);
    part.part.sum = sum;
    return part;
}

static inline forge_part forge_moments_part(const char *name, forge_moments moments) {
    forge_part part = forge_part_of(name, FORGE_MOMENTS);
    part.part.moments = moments;
    return part;
}

static inline forge_part forge_bytes_part(const char *name, const void *at, size_t bytes) {
    forge_part part = forge_part_of(name, FORGE_BYTES);
    part.part.bytes.at = at;
    part.part.bytes.bytes = bytes;
    return part;
}

/* Adds one value. Source: P. Pebay, "Formulas for robust, one-pass parallel computation of covariances and
 * arbitrary-order statistical moments", SAND2008-6212, 2008. */
static inline void forge_moments_add(forge_moments *m, double x) {
    double before = (double)m->n, n = before + 1.0;
    double delta = x - m->mean, step = delta / n, square = step * step, cross = delta * step * before;
    m->n += 1;
    m->mean += step;
    m->m4 += cross * square * (n * n - 3.0 * n + 3.0) + 6.0 * square * m->m2 - 4.0 * step * m->m3;
    m->m3 += cross * step * (n - 2.0) - 3.0 * step * m->m2;
    m->m2 += cross;
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

/* The JSON of a top-level argument; false where there is none. Names with escapes in them are not found. */
bool forge_argument(const forge_task *task, const char *name, forge_string *json);
/* A number. Exact up to 15 significant digits and powers of ten up to 22, within one unit in the last place beyond. */
bool forge_number(const forge_task *task, const char *name, double *value);
/* A whole number from 0 to 2^64 - 1. */
bool forge_whole(const forge_task *task, const char *name, uint64_t *value);

/* ---- randomness -------------------------------------------------------------------------------------------------- */

/* ChaCha8 with the stage's key and the unit's index as stream: word for word what every other kernel kit draws. */
typedef struct { uint32_t key[8]; uint64_t stream, block; uint32_t words[16]; unsigned at; } forge_generator;

forge_generator forge_seeded(const forge_task *task);
uint32_t forge_next_u32(forge_generator *random);
/* Two words, the low one first. */
uint64_t forge_next_u64(forge_generator *random);
/* Uniform on the open unit interval: the middle of one of 2^52 equal cells, never 0 and never 1. */
double forge_next_open(forge_generator *random);

/* ---- memory and inputs ------------------------------------------------------------------------------------------- */

/* Memory that lives as long as the unit; traps where the limit is reached. */
void *forge_alloc(size_t bytes, size_t align);

typedef struct { uint32_t handle; } forge_input;
/* Opens a declared input; false where the stage declares none of that name or its argument was left out. */
bool forge_open(const char *name, forge_input *input);
/* Size, bytes. */
uint64_t forge_input_size(forge_input input);
/* Bytes offset .. offset + length, fewer where the input ends; false where the offset lies past its end. */
bool forge_input_read(forge_input input, uint64_t offset, uint32_t length, forge_bytes *found);

#endif /* FORGEPOOL_H */

#ifdef FORGEPOOL_IMPLEMENTATION
#undef FORGEPOOL_IMPLEMENTATION

static uint32_t forge_rotated(uint32_t word, int by) { return (word << by) | (word >> (32 - by)); }

static void forge_quarter(uint32_t *w, int a, int b, int c, int d) {
    w[a] += w[b]; w[d] = forge_rotated(w[d] ^ w[a], 16);
    w[c] += w[d]; w[b] = forge_rotated(w[b] ^ w[c], 12);
    w[a] += w[b]; w[d] = forge_rotated(w[d] ^ w[a], 8);
    w[c] += w[d]; w[b] = forge_rotated(w[b] ^ w[c], 7);
}

/* Source: D. J. Bernstein, "ChaCha, a variant of Salsa20", 2008; 64-bit counter and stream. */
static void forge_next_block(forge_generator *random) {
    uint32_t input[16] = { 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574 };
    for (int i = 0; i < 8; i++) input[4 + i] = random->key[i];
    input[12] = (uint32_t)random->block;
    input[13] = (uint32_t)(random->block >> 32);
    input[14] = (uint32_t)random->stream;
    input[15] = (uint32_t)(random->stream >> 32);
    for (int i = 0; i < 16; i++) random->words[i] = input[i];
    for (int round = 0; round < 4; round++) {
        uint32_t *w = random->words;
        forge_quarter(w, 0, 4, 8, 12);
        forge_quarter(w, 1, 5, 9, 13);
        forge_quarter(w, 2, 6, 10, 14);
        forge_quarter(w, 3, 7, 11, 15);
        forge_quarter(w, 0, 5, 10, 15);
        forge_quarter(w, 1, 6, 11, 12);
        forge_quarter(w, 2, 7, 8, 13);
        forge_quarter(w, 3, 4, 9, 14);
    }
    for (int i = 0; i < 16; i++) random->words[i] += input[i];
    random->block += 1;
    random->at = 0;
}

forge_generator forge_seeded(const forge_task *task) {
    forge_generator random = { 0 };
    for (int i = 0; i < 8; i++) {
        const uint8_t *from = task->seed + 4 * i;
        random.key[i] = from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
    }
    random.stream = task->index;
    random.at = 16;
    return random;
}

uint32_t forge_next_u32(forge_generator *random) {
    if (random->at == 16) forge_next_block(random);
    return random->words[random->at++];
}

uint64_t forge_next_u64(forge_generator *random) {
    uint64_t low = forge_next_u32(random);
    return low | (uint64_t)forge_next_u32(random) << 32;
}

double forge_next_open(forge_generator *random) {
    const double cell = 1.0 / 9007199254740992.0; /* 2^-53 */
    return (double)(forge_next_u64(random) >> 12) * (2.0 * cell) + cell;
}

/* The place behind the value that begins at `at`. */
static size_t forge_past_value(forge_string json, size_t at) {
    unsigned depth = 0;
    bool quoted = false;
    for (; at < json.bytes; at++) {
        char c = json.at[at];
        if (quoted) {
            if (c == '\\') at++;
            else if (c == '"') quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (depth == 0 && (c == ',' || c == '}' || c == ']')) {
            return at;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return at;
}

bool forge_argument(const forge_task *task, const char *name, forge_string *json) {
    size_t at = 1, wanted = forge_length(name);
    forge_string args = task->args;
    while (at < args.bytes && args.at[at] == '"') {
        size_t key = at + 1, end = key;
        while (end < args.bytes && args.at[end] != '"') end += args.at[end] == '\\' ? 2 : 1;
        size_t value = end + 2, after = forge_past_value(args, value);
        if (after > args.bytes || value > after) return false;
        if (end - key == wanted) {
            forge_string found = { args.at + key, wanted };
            if (forge_is(found, name)) {
                json->at = args.at + value;
                json->bytes = after - value;
                return true;
            }
        }
        at = after + 1;
    }
    return false;
}

bool forge_whole(const forge_task *task, const char *name, uint64_t *value) {
    forge_string json;
    if (!forge_argument(task, name, &json) || json.bytes == 0) return false;
    uint64_t whole = 0;
    for (size_t at = 0; at < json.bytes; at++) {
        unsigned digit = (unsigned)(json.at[at] - '0');
        if (digit > 9 || whole > (UINT64_MAX - digit) / 10) return false;
        whole = whole * 10 + digit;
    }
    *value = whole;
    return true;
}

bool forge_number(const forge_task *task, const char *name, double *value) {
    forge_string json;
    if (!forge_argument(task, name, &json)) return false;
    size_t at = 0;
    bool negative = at < json.bytes && json.at[at] == '-';
    at += negative;
    uint64_t digits = 0;
    int power = 0, seen = 0;
    bool fraction = false;
    for (; at < json.bytes; at++) {
        char c = json.at[at];
        if (c == '.') { fraction = true; continue; }
        if (c < '0' || c > '9') break;
        seen++;
        if (digits < 1000000000000000000u) {
            digits = digits * 10 + (uint64_t)(c - '0');
            power -= fraction;
        } else {
            power += !fraction;
        }
    }
    if (seen == 0) return false;
    if (at < json.bytes && (json.at[at] == 'e' || json.at[at] == 'E')) {
        at++;
        bool minus = at < json.bytes && json.at[at] == '-';
        if (at < json.bytes && (json.at[at] == '-' || json.at[at] == '+')) at++;
        int exponent = 0;
        for (; at < json.bytes && json.at[at] >= '0' && json.at[at] <= '9' && exponent < 10000; at++)
            exponent = exponent * 10 + (json.at[at] - '0');
        power += minus ? -exponent : exponent;
    }
    if (at != json.bytes) return false;
    /* Powers up to 10^22 are doubles exactly: one rounding where the digits fit 53 bits (W. D. Clinger, 1990). */
    double number = (double)digits;
    while (power != 0) {
        int step = power > 22 ? 22 : power < -22 ? -22 : power;
        double ten = 1.0;
        for (int i = 0; i < (step < 0 ? -step : step); i++) ten *= 10.0;
        number = step < 0 ? number / ten : number * ten;
        power -= step;
        if (number == 0.0 || number > 1e308) break;
    }
    *value = negative ? -number : number;
    return true;
}

#ifdef __wasm__

_Static_assert(sizeof(forge_part) == 88 && offsetof(forge_part, part) == 16, "the canonical ABI's layout of a part");
_Static_assert(sizeof(forge_result) == 16 && offsetof(forge_result, value) == 4, "and of a result");
_Static_assert(sizeof(forge_tile) == 40 && sizeof(forge_rows) == 24 && sizeof(forge_segment) == 24, "and of content");

extern unsigned char __heap_base;
static uintptr_t forge_free;

void *forge_alloc(size_t bytes, size_t align) {
    if (forge_free == 0) forge_free = (uintptr_t)&__heap_base;
    if (align < 1) align = 1;
    uintptr_t at = (forge_free + align - 1) & ~(uintptr_t)(align - 1);
    uintptr_t end = at + bytes;
    size_t held = __builtin_wasm_memory_size(0) * 65536;
    if (end < at) __builtin_trap();
    if (end > held && __builtin_wasm_memory_grow(0, (end - held + 65535) / 65536) == (size_t)-1) __builtin_trap();
    forge_free = end;
    return (void *)at;
}

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
    unsigned char *t = to;
    const unsigned char *f = from;
    for (size_t i = 0; i < bytes; i++) t[i] = f[i];
    return to;
}

void *memmove(void *to, const void *from, size_t bytes) {
    unsigned char *t = to;
    const unsigned char *f = from;
    if (t < f) for (size_t i = 0; i < bytes; i++) t[i] = f[i];
    else for (size_t i = bytes; i > 0; i--) t[i - 1] = f[i - 1];
    return to;
}

void *memset(void *to, int value, size_t bytes) {
    unsigned char *t = to;
    for (size_t i = 0; i < bytes; i++) t[i] = (unsigned char)value;
    return to;
}

int memcmp(const void *a, const void *b, size_t bytes) {
    const unsigned char *x = a, *y = b;
    for (size_t i = 0; i < bytes; i++) if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
}

/* How the host makes room for what it writes: a task's strings, an input's bytes. */
__attribute__((export_name("cabi_realloc")))
void *forge_cabi_realloc(void *old, size_t old_bytes, size_t align, size_t bytes) {
    void *at = forge_alloc(bytes, align);
    if (old != NULL) memcpy(at, old, old_bytes < bytes ? old_bytes : bytes);
    return at;
}

__attribute__((export_name("forgepool:kernel/unit@1.0.0#execute")))
forge_result *forge_export_execute(const char *profile, size_t profile_bytes, const char *stage, size_t stage_bytes,
                                   const char *args, size_t args_bytes, uint64_t index, uint64_t units, int slice,
                                   uint64_t a, uint64_t b, uint32_t c, uint32_t d, const uint8_t *seed,
                                   size_t seed_bytes) {
    static forge_result result;
    forge_task task = { { profile, profile_bytes }, { stage, stage_bytes }, { args, args_bytes }, index, units, slice,
                        { a, b }, { a, b, c, d }, a, { (int64_t)a, (int64_t)b }, seed };
    result = seed_bytes == 32 ? forge_execute(&task) : forge_fail(FORGE_FAIL_OTHER, "the seed is not 32 bytes");
    return &result;
}

#define FORGE_IMPORT(name) \
    __attribute__((import_module("forgepool:kernel/inputs@1.0.0"), import_name(name)))
FORGE_IMPORT("open") void forge_host_open(const char *name, size_t bytes, void *result);
FORGE_IMPORT("[method]input.size") uint64_t forge_host_size(uint32_t input);
FORGE_IMPORT("[method]input.read") void forge_host_read(uint32_t input, uint64_t offset, uint32_t length, void *result);
#undef FORGE_IMPORT

/* result<own<input> | list<u8>, input-error>: an error holds a u64, so both begin at byte 8. */
typedef struct { uint64_t failed; uint32_t first, second; uint64_t rest; } forge_answer;

bool forge_open(const char *name, forge_input *input) {
    forge_answer answer;
    forge_host_open(name, forge_length(name), &answer);
    input->handle = answer.first;
    return (uint8_t)answer.failed == 0;
}

uint64_t forge_input_size(forge_input input) { return forge_host_size(input.handle); }

bool forge_input_read(forge_input input, uint64_t offset, uint32_t length, forge_bytes *found) {
    forge_answer answer;
    forge_host_read(input.handle, offset, length, &answer);
    found->at = (const void *)(uintptr_t)answer.first;
    found->bytes = answer.second;
    return (uint8_t)answer.failed == 0;
}

#endif /* __wasm__ */
#endif /* FORGEPOOL_IMPLEMENTATION */
