#!/usr/bin/env python3
"""numpy as the peer of gemm@1.

Usage: gemm_numpy.py check FOLDER ALPHA BETA    a.npy, b.npy, c.npy where BETA is not 0, and found.npy, the result
       gemm_numpy.py bench [SIZE] [float32]     GFLOP/s of SIZE x SIZE x SIZE on one thread, one JSON line
"""

import io
import json
import os
import sys
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np


def check(folder: str, alpha: float, beta: float) -> None:
    def load(name: str) -> np.ndarray:
        return np.load(os.path.join(folder, name + ".npy"), allow_pickle=False)

    a, b, found = load("a"), load("b"), load("found")
    kind = found.dtype.type
    product = kind(alpha) * (a @ b)
    size = abs(alpha) * (np.abs(a) @ np.abs(b))
    if beta != 0.0:
        c = load("c")
        product = product + kind(beta) * c
        size = size + abs(beta) * np.abs(c)
    # Either side may be off by gamma(k + 3) (Higham 2002, section 3.1), so they may differ by twice that.
    steps = (a.shape[1] + 3) * np.finfo(kind).eps / 2
    bound = 2 * steps / (1 - steps) * size
    error = np.abs(found.astype(np.float64) - product.astype(np.float64))
    share = float(np.max(error / bound))
    if not share <= 1.0:
        sys.exit(f"off by {share} of the bound")
    again = io.BytesIO()
    np.save(again, found)
    with open(os.path.join(folder, "found.npy"), "rb") as file:
        if file.read() != again.getvalue():
            sys.exit("numpy.save writes other bytes for the same matrix")
    print(f"{found.dtype} {found.shape}: at most {share:.4f} of the bound, numpy {np.__version__}")


def bench(size: int, kind: str) -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.uniform(-1, 1, (size, size)).astype(kind) for _ in range(2))
    a @ b  # warm-up
    best = min(timed(a, b) for _ in range(5))
    print(json.dumps({"gflops": 2 * size**3 / best / 1e9, "size": size, "dtype": kind, "numpy": np.__version__}))


def timed(a: np.ndarray, b: np.ndarray) -> float:
    start = time.perf_counter()
    a @ b
    return time.perf_counter() - start


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] == "check":
        check(sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
    elif len(sys.argv) >= 2 and sys.argv[1] == "bench":
        bench(int(sys.argv[2]) if len(sys.argv) > 2 else 1024, sys.argv[3] if len(sys.argv) > 3 else "float64")
    else:
        sys.exit(__doc__)
