"""Times PyTorch on the CPU taking the visible tokens out of a batch, the gradient of that, and cutting visible patches out of pictures.

gather   [B, N, D] at [B, K] to [B, K, D]: torch.gather with the index expanded over D, and index_select on flattened rows.
scatter  the gradient, [B, K, D] added into zeros [B, N, D]: scatter_add_, and index_add_ on flattened rows.
pixels   u8 [B, H, W, C] to normalised f32 [B, K, P * P * C], inner order (row, column, channel): the whole picture normalised, unfolded
         and gathered, and the bytes unfolded and gathered first, so that only visible pixels are normalised.

Every row's K indices are the first of a random permutation, as in MAE. Prints one JSON object with the seconds of every repeat.
"""

from __future__ import annotations

import argparse
import json

from timing import package, seconds

torch, no_torch = package("torch")


def keep(batch: int, tokens: int, count: int) -> torch.Tensor:
    """[B, K], no index twice in a row."""
    return torch.rand(batch, tokens).argsort(dim=1)[:, :count].contiguous()


def rows(index: torch.Tensor, tokens: int) -> torch.Tensor:
    """[B, K] as [B * K] row numbers of the flattened [B * N, D]."""
    return (index + torch.arange(len(index))[:, None] * tokens).flatten()


def gather(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


def index_select(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    b, n, d = x.shape
    return x.view(b * n, d).index_select(0, rows(index, n)).view(b, -1, d)


def scatter_add(grad: torch.Tensor, index: torch.Tensor, tokens: int) -> torch.Tensor:
    b, _, d = grad.shape
    return torch.zeros(b, tokens, d, dtype=grad.dtype).scatter_add_(1, index[..., None].expand(-1, -1, d), grad)


def index_add(grad: torch.Tensor, index: torch.Tensor, tokens: int) -> torch.Tensor:
    b, k, d = grad.shape
    return torch.zeros(b * tokens, d, dtype=grad.dtype).index_add_(0, rows(index, tokens), grad.view(b * k, d)).view(b, tokens, d)


def patches(x: torch.Tensor, side: int) -> torch.Tensor:
    """[B, N, P, P, C] of [B, H, W, C]."""
    return x.unfold(1, side, side).unfold(2, side, side).permute(0, 1, 2, 4, 5, 3).flatten(1, 2)


def normalise_first(pixels: torch.Tensor, index: torch.Tensor, side: int, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return gather(patches(pixels * scale + shift, side).flatten(2), index)


def gather_first(pixels: torch.Tensor, index: torch.Tensor, side: int, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    visible = patches(pixels, side)[torch.arange(len(index))[:, None], index]
    return (visible * scale + shift).flatten(2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=196)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--keep", type=int, default=49)
    parser.add_argument("--size", type=int, default=224, help="side of the pictures in pixels")
    parser.add_argument("--patch", type=int, default=16, help="side in pixels")
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--dtype", choices=("f32", "f16"), default="f32", help="of the tokens; pixels are always f32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.keep > min(args.tokens, (args.size // args.patch) ** 2):
        parser.error("--keep exceeds the tokens or the patches of a picture")
    if torch is None:
        print(json.dumps({"torch": None, "why": no_torch}))
        return 0

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    dtype = {"f32": torch.float32, "f16": torch.float16}[args.dtype]
    with torch.inference_mode():
        x = torch.randn(args.batch, args.tokens, args.dim).to(dtype)
        grad = torch.randn(args.batch, args.keep, args.dim).to(dtype)
        index = keep(args.batch, args.tokens, args.keep)
        pixels = torch.randint(0, 256, (args.batch, args.size, args.size, args.channels), dtype=torch.uint8)
        visible = keep(args.batch, (args.size // args.patch) ** 2, args.keep)
        mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if args.channels == 3 else ((0.5,), (0.5,))
        scale = 1 / (255 * torch.tensor(std))
        shift = -torch.tensor(mean) / torch.tensor(std)
        groups = {
            "gather": {
                "gather": lambda: gather(x, index),
                "index_select": lambda: index_select(x, index),
            },
            "scatter": {
                "scatter_add": lambda: scatter_add(grad, index, args.tokens),
                "index_add": lambda: index_add(grad, index, args.tokens),
            },
            "pixels": {
                "normalise_first": lambda: normalise_first(pixels, visible, args.patch, scale, shift),
                "gather_first": lambda: gather_first(pixels, visible, args.patch, scale, shift),
            },
        }
        report: dict = {"torch": {"version": torch.__version__, "threads": torch.get_num_threads()}}
        for group, ways in groups.items():
            one, other = (work() for work in ways.values())
            if not torch.allclose(one, other, atol=1e-6):
                raise SystemExit(f"{group}: the two ways disagree")
            report[group] = {way: {"seconds": seconds(work, args.repeats)} for way, work in ways.items()}
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
