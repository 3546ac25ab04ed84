"""Times histograms of oriented gradients of a batch of 8-bit pictures, from interleaved bytes to normalised cells, on the CPU.

torch         eager PyTorch the way MaskFeat describes it: reflect padding, depthwise Sobel, magnitude, atan2, a scatter of every pixel's
              vote into nine full-size planes, sums over cells, L2 norm.
torch_direct  the same, but every vote goes straight to its cell, which spares the nine planes.
skimage       scikit-image's `hog`, one picture and channel after the other on one thread. Comparable work, not the same result: it
              takes central differences, not Sobel, and no window.

Both torch versions run with the memory order and the number of pictures a call that are fastest here, found before the timing.
Prints one JSON object. Pictures are random noise unless --input gives them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from functools import partial

from timing import package, seconds

np, no_numpy = package("numpy")
torch, no_torch = package("torch")
feature, no_skimage = package("skimage.feature")

BINS = 9


def gaussian(side: int) -> torch.Tensor:
    """[side, side], standard deviation side / 2, sum 1."""
    t = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / (side // 2)
    g = torch.exp(-0.5 * t * t)
    return (torch.outer(g, g) / g.sum() ** 2).float()


def gradients(pixels: torch.Tensor, planar: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """gx = left minus right, gy = up minus down, both [B, C, H, W], of u8 [B, H, W, C]."""
    x = pixels.permute(0, 3, 1, 2).float()
    if planar:
        x = x.contiguous()
    channels = x.shape[1]
    sobel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    x = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    gx, gy = (torch.nn.functional.conv2d(x, k.expand(channels, 1, 3, 3), groups=channels) for k in (sobel, sobel.T))
    return gx, gy


def torch_cells(pixels: torch.Tensor, cell: int, window: int, direct: bool, planar: bool) -> torch.Tensor:
    """[B, C, 9, H / cell, W / cell] of u8 [B, H, W, C]; rows and columns beyond the last whole cell are left out."""
    gx, gy = gradients(pixels, planar)
    b, c, height, width = gx.shape
    cells_y, cells_x = height // cell, width // cell
    h, w = cells_y * cell, cells_x * cell
    gx, gy = gx[..., :h, :w], gy[..., :h, :w]
    magnitude = (gx * gx + gy * gy).sqrt()
    if window:
        magnitude = magnitude * gaussian(window).tile(math.ceil(h / window), math.ceil(w / window))[:h, :w]
    bins = (torch.atan2(gx, gy) * (BINS / math.pi)).floor().long().remainder(BINS)
    if direct:
        at = (torch.arange(h) // cell * cells_x)[:, None] + torch.arange(w) // cell
        at = (bins * (cells_y * cells_x) + at).reshape(b * c, h * w)
        votes = torch.zeros(b * c, BINS * cells_y * cells_x).scatter_add_(1, at, magnitude.reshape(b * c, h * w))
        votes = votes.view(b, c, BINS, cells_y, cells_x)
    else:
        planes = torch.zeros(b, c, BINS, h, w).scatter_add_(2, bins[:, :, None], magnitude[:, :, None])
        votes = planes.view(b, c, BINS, cells_y, cell, cells_x, cell).sum((4, 6))
    return torch.nn.functional.normalize(votes, dim=2, eps=1e-12)


def in_parts(work: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor, size: int) -> torch.Tensor:
    return torch.cat([work(part) for part in pixels.split(size)])


def time_torch(pixels: torch.Tensor, args: argparse.Namespace, direct: bool) -> dict:
    candidates = []
    for planar in (False, True):
        for size in sorted({1, min(8, len(pixels)), len(pixels)}):
            work = partial(in_parts, partial(torch_cells, cell=args.cell, window=args.window, direct=direct, planar=planar), pixels, size)
            candidates.append((min(seconds(work, 2, warm_up=1)), planar, size, work))
    _, planar, size, work = min(candidates, key=lambda candidate: candidate[0])
    return {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "order": "planar" if planar else "interleaved",
        "pictures_per_call": size,
        "seconds": seconds(work, args.repeats),
    }


def time_skimage(pixels: np.ndarray, args: argparse.Namespace) -> dict:
    shape = {"orientations": BINS, "pixels_per_cell": (args.cell, args.cell), "cells_per_block": (1, 1), "block_norm": "L2"}

    def work() -> list:
        return [feature.hog(picture[..., c], feature_vector=False, **shape) for picture in pixels for c in range(args.channels)]

    return {"version": sys.modules["skimage"].__version__, "threads": 1, "seconds": seconds(work, args.repeats, warm_up=1)}


def compare(ours: torch.Tensor, pixels: torch.Tensor, args: argparse.Namespace) -> dict:
    """Largest difference of all cells, and of those without a pixel so near a bin's border that rounding decides its bin."""
    theirs = in_parts(partial(torch_cells, cell=args.cell, window=args.window, direct=False, planar=True), pixels, 8)
    if ours.numel() != theirs.numel():
        raise SystemExit(f"{args.check}: {ours.numel()} values, expected {theirs.numel()}")
    difference = (ours.view(theirs.shape) - theirs).abs().nan_to_num(nan=math.inf).amax(2)
    # Vertical gradients (gx = 0) lie on a border exactly: they need no rounding and must agree.
    gx, gy = (g.double()[..., : theirs.shape[3] * args.cell, : theirs.shape[4] * args.cell] for g in gradients(pixels, planar=True))
    phase = torch.atan2(gx, gy) * (BINS / math.pi)
    near = ((phase - phase.round()).abs() < 1e-5) & (gx != 0)
    doubtful = torch.nn.functional.max_pool2d(near.float(), args.cell) > 0
    return {
        "max_difference": difference.max().item(),
        "max_difference_off_border": difference.masked_fill(doubtful, 0.0).max().item(),
        "border_cells": int(doubtful.sum()),
    }


def verify(path: str) -> int:
    """Both torch versions against stored cells."""
    from safetensors.torch import load_file

    golden = load_file(path)
    worst, compared = 0.0, 0
    for name, stored in golden.items():
        stem, _, window = name.partition(".cells.w")
        if not window:
            continue
        pixels = golden[f"{stem}.input_u8"].permute(1, 2, 0)[None].contiguous()
        for direct in (False, True):
            for planar in (False, True):
                cells = torch_cells(pixels, 8, int(window), direct, planar)[0]
                worst = max(worst, (cells - stored).abs().nan_to_num(nan=math.inf).max().item())
                compared += 1
    good = compared > 0 and worst <= 2e-6
    print(json.dumps({"golden": {"compared": compared, "max_difference": worst, "good": good}}))
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="side in pixels")
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--cell", type=int, default=8, help="side in pixels")
    parser.add_argument("--window", type=int, default=0, choices=(0, 16), help="side of the Gaussian window, 0 for none")
    parser.add_argument("--threads", type=int, default=1, help="for torch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", help="raw u8 pictures [B, H, W, C]")
    parser.add_argument("--check", help="raw f32 cells [B, C, 9, H / cell, W / cell] to compare with")
    parser.add_argument("--golden", help="only compare torch with this safetensors file of pictures and cells")
    args = parser.parse_args()

    why = "; ".join(reason for reason in (no_numpy, no_torch, no_skimage) if reason)
    report: dict = {"torch": None, "torch_direct": None, "skimage": None, "max_difference": None}
    if args.golden and torch is None:
        raise SystemExit(no_torch)
    if np is None:
        print(json.dumps(report | {"why": why}))
        return 0
    shape = (args.batch, args.size, args.size, args.channels)
    if args.input:
        pixels = np.fromfile(args.input, dtype=np.uint8)
        if pixels.size != math.prod(shape):
            raise SystemExit(f"{args.input}: {pixels.size} bytes, expected {math.prod(shape)}")
        pixels = pixels.reshape(shape)
    else:
        pixels = np.random.default_rng(args.seed).integers(0, 256, shape, dtype=np.uint8)
    if torch is not None:
        torch.set_num_threads(args.threads)
        with torch.inference_mode():
            if args.golden:
                return verify(args.golden)
            tensor = torch.from_numpy(pixels)
            report["torch"] = time_torch(tensor, args, direct=False)
            report["torch_direct"] = time_torch(tensor, args, direct=True)
            if args.check:
                report |= compare(torch.from_numpy(np.fromfile(args.check, dtype=np.float32)), tensor, args)
    if feature is not None:
        report["skimage"] = time_skimage(pixels, args)
    print(json.dumps(report | ({"why": why} if why else {})))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
