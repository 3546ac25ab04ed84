"""Independent vectors for the kernels product, attention and column_sums, by numpy alone, in double precision.

Writes product.safetensors, attention.safetensors and column_sums.safetensors beside this file. Needs numpy and safetensors.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent
META = {"generator": "gen_product_goldens.py", "numpy": np.__version__}


def halves(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Values that f16 holds, so that they are the same in f32."""
    return rng.standard_normal(shape).astype(np.float16)


def linear(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    # name: rows, width of the input, width of the output
    cases = {
        # Fewer columns than a matrix of tensor cores has.
        "narrow": (5, 8, 16),
        # Part of a slice along what is summed over, and more than one.
        "small": (3, 16, 32),
        "ragged": (37, 64, 48),
    }
    for name, (m, k, n) in cases.items():
        x, w, g = halves(rng, (m, k)), halves(rng, (k, n)), halves(rng, (m, n))
        values, weight, slopes = (part.astype(np.float64) for part in (x, w, g))
        made = {"y": values @ weight, "of_x": slopes @ weight.T, "of_w": values.T @ slopes}
        tensors |= {f"{name}.x": x, f"{name}.w": w, f"{name}.g": g}
        tensors |= {f"{name}.{part}": values.astype(np.float32) for part, values in made.items()}
    return tensors


def attended(parts: list[np.ndarray], g: np.ndarray, heads: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """What queries [B, Q, D] read over keys and values [B, K, D], and gradients of these three parts, from that of what is read, g."""

    def split(x: np.ndarray) -> np.ndarray:
        """[B, N, D] -> [B, H, N, D / H]"""
        b, n, d = x.shape
        return x.astype(np.float64).reshape(b, n, heads, d // heads).transpose(0, 2, 1, 3)

    def join(x: np.ndarray) -> np.ndarray:
        b, h, n, width = x.shape
        return x.transpose(0, 2, 1, 3).reshape(b, n, h * width)

    (q, k, v), slopes, scale = map(split, parts), split(g), (g.shape[2] // heads) ** -0.5
    scores = scale * (q @ k.swapaxes(2, 3))
    powers = np.exp(scores - scores.max(axis=3, keepdims=True))
    weights = powers / powers.sum(axis=3, keepdims=True)
    of_weights = slopes @ v.swapaxes(2, 3)
    of_scores = scale * weights * (of_weights - (weights * of_weights).sum(axis=3, keepdims=True))
    gradients = of_scores @ k, of_scores.swapaxes(2, 3) @ q, weights.swapaxes(2, 3) @ slopes
    return join(weights @ v), [join(part) for part in gradients]


def attention(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    # Of all tokens over themselves. name: samples, tokens, heads, width of a head
    cases = {
        "two_faces": (2, 5, 2, 16),
        "wide_heads": (1, 17, 2, 32),
        "small_picture": (1, 36, 1, 16),
    }
    for name, (b, n, h, width) in cases.items():
        qkv, g = halves(rng, (b, n, 3 * h * width)), halves(rng, (b, n, h * width))
        read, gradients = attended(np.split(qkv, 3, axis=2), g, h)
        tensors |= {f"{name}.qkv": qkv, f"{name}.g": g, f"{name}.heads": np.array([h], np.int32)}
        made = {"read": read, "of_qkv": np.concatenate(gradients, axis=2)}
        tensors |= {f"{name}.{part}": values.astype(np.float32) for part, values in made.items()}
    # Of queries over other tokens. name: samples, queries, keys, heads, width of a head
    others = {
        "few_queries": (2, 7, 19, 2, 16),
        "more_keys": (1, 3, 37, 1, 64),
        "heads_of_48": (1, 35, 40, 2, 48),
    }
    for name, (b, queries, keys, h, width) in others.items():
        q, k, v, g = (halves(rng, (b, n, h * width)) for n in (queries, keys, keys, queries))
        read, (of_q, of_k, of_v) = attended([q, k, v], g, h)
        tensors |= {f"{name}.q": q, f"{name}.k": k, f"{name}.v": v, f"{name}.g": g, f"{name}.heads": np.array([h], np.int32)}
        made = {"read": read, "of_q": of_q, "of_k": of_k, "of_v": of_v}
        tensors |= {f"{name}.{part}": values.astype(np.float32) for part, values in made.items()}
    return tensors


def column_sums(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    # name: rows, columns
    cases = {
        "one": (1, 1),
        "odd": (5, 7),
        "row": (1, 65),
        # More columns than a workgroup has lanes.
        "wide": (9, 301),
        # More rows than one chunk, and some left over.
        "long": (4097, 3),
    }
    for name, (r, d) in cases.items():
        x = rng.standard_normal((r, d)).astype(np.float32)
        tensors |= {f"{name}.x": x, f"{name}.sums": x.astype(np.float64).sum(axis=0).astype(np.float32)}
    return tensors


if __name__ == "__main__":
    rng = np.random.default_rng(15)
    save_file(linear(rng), HERE / "product.safetensors", META)
    save_file(attention(rng), HERE / "attention.safetensors", META)
    save_file(column_sums(np.random.default_rng(16)), HERE / "column_sums.safetensors", META)
