"""Independent vectors for the kernels patch_gather and patch_pixels, by numpy alone.

Writes patch_gather.safetensors and patch_pixels.safetensors beside this file. Needs numpy and safetensors.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent
META = {"generator": "gen_patch_goldens.py", "numpy": np.__version__}


def gather(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    out = np.zeros((x.shape[0], index.shape[1], x.shape[2]), x.dtype)
    for b, k in np.ndindex(*index.shape):
        if 0 <= index[b, k] < x.shape[1]:
            out[b, k] = x[b, index[b, k]]
    return out


def scatter(g: np.ndarray, index: np.ndarray, rows: int) -> np.ndarray:
    """Sums in double precision, rounded once."""
    out = np.zeros((g.shape[0], rows, g.shape[2]), np.float64)
    for b, k in np.ndindex(*index.shape):
        if 0 <= index[b, k] < rows:
            out[b, index[b, k]] += g[b, k].astype(np.float64)
    return out.astype(g.dtype)


def patch_gather(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    # name: samples, rows, kept, width, kind of index
    cases = {
        "masked": (3, 36, 14, 96, "distinct"),
        "whole": (2, 9, 9, 20, "distinct"),
        "repeated": (2, 7, 40, 6, "repeated"),
        "outside": (2, 5, 6, 4, "outside"),
        "odd": (2, 5, 3, 3, "distinct"),
        "one": (1, 1, 1, 2, "distinct"),
    }
    for name, (b, n, k, d, kind) in cases.items():
        if kind == "distinct":
            index = np.stack([rng.permutation(n)[:k] for _ in range(b)])
        elif kind == "repeated":
            index = rng.integers(0, n, (b, k))
        else:
            index = rng.integers(-2, n + 2, (b, k))
            index[0, 0], index[0, 1] = -1, n
        index = index.astype(np.int32)
        tensors[f"{name}.index"] = index
        for kind_of_float in (np.float32, np.float16):
            label = "f32" if kind_of_float is np.float32 else "f16"
            x = rng.standard_normal((b, n, d)).astype(kind_of_float)
            g = rng.standard_normal((b, k, d)).astype(kind_of_float)
            tensors[f"{name}.{label}.x"] = x
            tensors[f"{name}.{label}.gathered"] = gather(x, index)
            tensors[f"{name}.{label}.g"] = g
            tensors[f"{name}.{label}.scattered"] = scatter(g, index, n)
    return tensors


def patch_pixels(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    # name: samples, height, width, channels, side, kept
    cases = {
        "colour": (2, 32, 48, 3, 16, 4),
        "gray": (3, 48, 48, 1, 8, 36),
        "ragged": (2, 13, 11, 3, 4, 5),
        "pixel": (1, 3, 2, 1, 1, 6),
    }
    for name, (b, h, w, c, p, k) in cases.items():
        pixels = rng.integers(0, 256, (b, h, w, c), dtype=np.uint8)
        scales = rng.standard_normal((b, 2, c)).astype(np.float32)
        count = (h // p) * (w // p)
        index = np.stack([rng.permutation(count)[:k] for _ in range(b)]).astype(np.int32)
        index[-1, -1] = count  # does not exist
        out = np.zeros((b, k, p * p * c), np.float32)
        for i, j in np.ndindex(b, k):
            if index[i, j] < count:
                y, x = divmod(int(index[i, j]), w // p)
                block = pixels[i, y * p : (y + 1) * p, x * p : (x + 1) * p].astype(np.float64)
                out[i, j] = (block * scales[i, 0].astype(np.float64) + scales[i, 1].astype(np.float64)).reshape(-1)
        tensors |= {f"{name}.pixels": pixels, f"{name}.scales": scales, f"{name}.index": index, f"{name}.patches": out}
        tensors[f"{name}.side"] = np.array([p], np.int32)
    return tensors


if __name__ == "__main__":
    save_file(patch_gather(np.random.default_rng(11)), HERE / "patch_gather.safetensors", META)
    save_file(patch_pixels(np.random.default_rng(12)), HERE / "patch_pixels.safetensors", META)
