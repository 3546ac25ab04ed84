"""Independent vectors for the kernels layer_norm and softmax, by numpy alone, in double precision.

Writes layer_norm.safetensors and softmax.safetensors beside this file. Needs numpy and safetensors.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent
META = {"generator": "gen_row_goldens.py", "numpy": np.__version__}
EPSILON = 1e-6


def layer_norm(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    # name: rows, width, mean of the values
    cases = {
        "odd": (5, 7, 0.0),
        "one": (1, 1, 0.0),
        "small": (37, 16, 0.0),
        "dim96": (21, 96, 0.0),
        "wide": (3, 1025, 0.0),
        # A variance from squares and the square of the mean has few digits left here.
        "far": (6, 50, 100.0),
    }
    for name, (r, d, mean) in cases.items():
        x = (rng.standard_normal((r, d)) + mean).astype(np.float32)
        gamma, beta = (rng.standard_normal(d).astype(np.float32) for _ in range(2))
        g = rng.standard_normal((r, d)).astype(np.float32)
        values, slopes = x.astype(np.float64), g.astype(np.float64)
        deviation = np.sqrt(values.var(axis=1, keepdims=True) + EPSILON)
        normal = (values - values.mean(axis=1, keepdims=True)) / deviation
        scaled = slopes * gamma
        of_x = (scaled - scaled.mean(axis=1, keepdims=True) - normal * (scaled * normal).mean(axis=1, keepdims=True)) / deviation
        made = {
            "x": x,
            "gamma": gamma,
            "beta": beta,
            "g": g,
            "y": normal * gamma + beta,
            "of_x": of_x,
            "of_gamma": (slopes * normal).sum(axis=0),
            "of_beta": slopes.sum(axis=0),
        }
        tensors |= {f"{name}.{part}": values.astype(np.float32) for part, values in made.items()}
    return tensors


def softmax(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    # name: rows, columns with padding, columns that count, spread of the scores
    cases = {
        "padded": (13, 16, 11, 2.0),
        "attention": (5, 208, 197, 4.0),
        "single": (3, 4, 1, 2.0),
        "whole": (4, 37, 37, 2.0),
        "wide": (2, 1030, 1025, 3.0),
        "sharp": (6, 24, 20, 60.0),
    }
    for name, (m, p, k, spread) in cases.items():
        scores = (spread * rng.standard_normal((m, p))).astype(np.float32)
        g = rng.standard_normal((m, p)).astype(np.float32)
        # What must not be looked at.
        scores[:, k:], g[:, k:] = 1e9, -1e9
        scale = np.float32(rng.uniform(0.1, 1.0))
        values = scores[:, :k].astype(np.float64) * np.float64(scale)
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        exact = np.zeros((m, p))
        exact[:, :k] = powers / powers.sum(axis=1, keepdims=True)
        tensors |= {f"{name}.scores": scores, f"{name}.g": g, f"{name}.scale": np.array([scale], np.float32)}
        tensors[f"{name}.columns"] = np.array([k], np.int32)
        for label, kind in (("f32", np.float32), ("f16", np.float16))[: 1 + (p + 1) % 2]:
            weights = exact.astype(kind)
            # From the rounded weights, which are what the kernel gets.
            rounded, slopes = weights.astype(np.float64), np.where(np.arange(p) < k, g, 0).astype(np.float64)
            of_scores = np.float64(scale) * rounded * (slopes - (rounded * slopes).sum(axis=1, keepdims=True))
            tensors |= {f"{name}.{label}.weights": weights, f"{name}.{label}.of_scores": of_scores.astype(np.float32)}
    return tensors


if __name__ == "__main__":
    save_file(layer_norm(np.random.default_rng(13)), HERE / "layer_norm.safetensors", META)
    save_file(softmax(np.random.default_rng(14)), HERE / "softmax.safetensors", META)
