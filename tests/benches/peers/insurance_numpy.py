#!/usr/bin/env python3
"""The insurance.v1 model as vectorised numpy: the peer that a careful user would write.

Prints one JSON line: iterations, seconds, ns per iteration, mean, quantiles. Works in blocks that stay in cache.
Usage: insurance_numpy.py [iterations]
"""

import json
import sys
import time

import numpy as np

FREQ, MU, SIG = 2.0, 6.0, 1.0
CAT_PROB, CAT_MU, CAT_SIG = 0.02, 10.0, 1.5
POLICY_LIMIT, AGGREGATE_LIMIT = 50_000.0, 250_000.0


def block(rng: np.random.Generator, years: int) -> np.ndarray:
    claims = rng.poisson(FREQ, years)
    severities = np.exp(MU + SIG * rng.standard_normal(int(claims.sum())))
    np.minimum(severities, POLICY_LIMIT, out=severities)
    ends = np.cumsum(claims)
    totals = np.concatenate(([0.0], np.cumsum(severities)))
    losses = totals[ends] - totals[ends - claims]
    struck = rng.random(years) < CAT_PROB
    catastrophes = np.exp(CAT_MU + CAT_SIG * rng.standard_normal(int(struck.sum())))
    losses[struck] += np.minimum(catastrophes, POLICY_LIMIT)
    return np.minimum(losses, AGGREGATE_LIMIT)


def main() -> None:
    iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 4_194_304
    size = 65_536
    rng = np.random.default_rng(1)
    block(rng, size)  # warm-up
    start = time.perf_counter()
    parts = [block(rng, min(size, iterations - done)) for done in range(0, iterations, size)]
    losses = np.concatenate(parts)
    mean, variance = float(losses.mean()), float(losses.var())
    quantiles = np.quantile(losses, [0.5, 0.95, 0.99]).tolist()
    seconds = time.perf_counter() - start
    print(json.dumps({
        "iterations": iterations,
        "seconds": seconds,
        "ns_per_iteration": seconds / iterations * 1e9,
        "mean": mean,
        "variance": variance,
        "p50_p95_p99": quantiles,
        "numpy": np.__version__,
    }))


if __name__ == "__main__":
    main()
