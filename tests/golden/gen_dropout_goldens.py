"""Independent vectors for the kernel dropout: ChaCha8 written out in numpy from its definition (Bernstein, 2008), with the counter and the
stream number of 64 bits that the original has.

Writes dropout.safetensors beside this file. Needs numpy and safetensors.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent
META = {"generator": "gen_dropout_goldens.py", "numpy": np.__version__}
ROUNDS = 8
QUARTERS = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]


def turned(x: int, bits: int) -> int:
    return ((x << bits) | (x >> (32 - bits))) & 0xFFFFFFFF


def block(key: list[int], number: int) -> list[int]:
    """The 16 words of a block of the stream with number zero."""
    start = list(np.frombuffer(b"expand 32-byte k", "<u4").astype(int)) + key + [number & 0xFFFFFFFF, number >> 32, 0, 0]
    x = [int(v) for v in start]
    for _ in range(ROUNDS // 2):
        for a, b, c, d in QUARTERS:
            for p, q, r, bits in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)]:
                x[p] = (x[p] + x[q]) & 0xFFFFFFFF
                x[r] = turned(x[r] ^ x[p], bits)
    return [(v + int(s)) & 0xFFFFFFFF for v, s in zip(x, start, strict=True)]


def main() -> None:
    rng = np.random.default_rng(23)
    tensors: dict[str, np.ndarray] = {}
    # name: values, first word, rate
    cases = {
        "one": (1, 0, 0.5),
        "within": (9, 3, 0.1),
        "odd": (77, 21, 0.1),
        # More than a workgroup's values.
        "groups": (4999, 7, 0.3),
        # The block's number leaves 32 bits inside.
        "high": (100, 16 * (2**32 - 2) + 5, 0.25),
    }
    for name, (n, first, rate) in cases.items():
        rate = float(np.float32(rate))
        key = [int(v) for v in rng.integers(0, 2**32, 8)]
        blocks = {number: block(key, number) for number in range(first // 16, (first + n - 1) // 16 + 1)}
        words = np.array([blocks[w // 16][w % 16] for w in range(first, first + n)], np.uint64)
        # A number in [0, 1) of 24 bits.
        kept = (words >> np.uint64(8)).astype(np.float64) / 2.0**24 >= rate
        x = rng.standard_normal(n).astype(np.float32)
        expected = x * np.where(kept, np.float32(1.0 / (1.0 - rate)), np.float32(0.0))
        as_ints = np.array([*key, first & 0xFFFFFFFF, first >> 32], np.uint32).view(np.int32)
        tensors |= {f"{name}.stream": as_ints, f"{name}.rate": np.array([rate], np.float32), f"{name}.x": x, f"{name}.y": expected}
    save_file(tensors, HERE / "dropout.safetensors", META)


if __name__ == "__main__":
    main()
