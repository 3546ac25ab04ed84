"""The PyTorch side of `moue bench`: the networks and training steps that moue's settings describe, as they are written in PyTorch.

Reads one JSON object a line and answers each with one (`src/bench/contestant.rs`): first the case, then `{"seconds": S}`, to work for about
so long. Eager, or compiled where the case says so; single precision, or matrix products in bfloat16 (autocast); PyTorch's own attention, norms, fused AdamW and clipping. Faces lie in memory as bytes; normalising,
cutting into patches and HOG targets are part of the step, on the device, as in moue. Parameters are as many as moue's and lie in the same
groups.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable

from timing import package, seconds

np, no_numpy = package("numpy")
torch, no_torch = package("torch")

BATCHES = 8
WARM_UP = 3
# Steps between two waits for a GPU.
WAIT = 20
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Missing(Exception):
    """Why this side cannot take part."""


if torch is not None:
    import torch.nn.functional as F
    from torch import Tensor, nn

    from hog import torch_cells

    def split(x: Tensor, heads: int) -> Tensor:
        return x.unflatten(2, (heads, -1)).transpose(1, 2)

    def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
        if rate == 0.0 or not training:
            return x
        keep = torch.empty(len(x), 1, 1, device=x.device).bernoulli_(1 - rate).div_(1 - rate)
        return x * keep

    class Attention(nn.Module):
        def __init__(self, dim: int, heads: int):
            super().__init__()
            self.qkv, self.proj, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads

        def forward(self, x: Tensor) -> Tensor:
            b, n, d = x.shape
            q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
            return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))

    class Mlp(nn.Sequential):
        def __init__(self, dim: int, ratio: float, activation: str, dropout: float = 0.0):
            hidden = round(dim * ratio)
            act = {"relu": nn.ReLU, "gelu": nn.GELU}[activation]
            layers = [nn.Linear(dim, hidden), act(), nn.Dropout(dropout), nn.Linear(hidden, dim), nn.Dropout(dropout)]
            super().__init__(*(layer for layer in layers if dropout > 0.0 or not isinstance(layer, nn.Dropout)))

    class Block(nn.Module):
        def __init__(self, dim: int, heads: int, vit: dict, rate: float):
            super().__init__()
            self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), Attention(dim, heads)
            self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), Mlp(dim, vit["mlp_ratio"], vit["activation"])
            self.rate = rate

        def forward(self, x: Tensor) -> Tensor:
            x = x + drop_path(self.attn(self.norm1(x)), self.rate, self.training)
            return x + drop_path(self.mlp(self.norm2(x)), self.rate, self.training)

    class ConvStem(nn.Module):
        def __init__(self, s: dict):
            super().__init__()
            self.patch, self.channels = s["vit"]["patch"], s["data"]["channels"]
            levels = self.patch.bit_length() - 1
            widths = [self.channels] + [s["vit"]["dim"] >> (levels - level) for level in range(1, levels + 1)]
            self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths))

        def forward(self, patches: Tensor) -> Tensor:
            side = math.isqrt(patches.shape[1])
            cut = patches.view(len(patches), side, side, self.patch, self.patch, self.channels)
            x = cut.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), self.channels, side * self.patch, side * self.patch)
            for conv in self.convs:
                x = F.relu(conv(x))
            return x.flatten(2).transpose(1, 2)

    def positions(grid: int, dim: int, cls: bool) -> Tensor:
        """Fixed sines and cosines of column and row, `[1, T, D]`."""
        angles = torch.arange(grid)[:, None] * 10000.0 ** (-torch.arange(dim // 4) / max(dim // 4, 1))
        line = torch.cat([angles.sin(), angles.cos()], 1)
        both = torch.cat([line.repeat(grid, 1), line.repeat_interleave(grid, 0)], 1)
        return F.pad(both, (0, dim - both.shape[1], int(cls), 0))[None]

    class Vit(nn.Module):
        def __init__(self, s: dict, rate: float):
            super().__init__()
            vit, channels = s["vit"], s["data"]["channels"]
            dim, grid = vit["dim"], s["data"]["size"] // vit["patch"]
            self.stem = ConvStem(s) if vit["stem"] == "conv" else None
            self.patch_embed = nn.Linear(dim if self.stem else vit["patch"] ** 2 * channels, dim)
            self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02) if vit["cls"] else None
            sincos = vit["positions"] == "sincos"
            shape = (1, grid * grid + vit["cls"], dim)
            self.pos_embed = nn.Parameter(positions(grid, dim, vit["cls"]) if sincos else torch.randn(shape) * 0.02)
            last = max(vit["depth"] - 1, 1)
            self.blocks = nn.Sequential(*(Block(dim, vit["heads"], vit, rate * i / last) for i in range(vit["depth"])))
            self.norm = nn.LayerNorm(dim, eps=1e-6)

        def embed(self, patches: Tensor) -> Tensor:
            return self.patch_embed(self.stem(patches) if self.stem else patches)

        def encode(self, x: Tensor) -> Tensor:
            if self.cls_token is not None:
                x = torch.cat([self.cls_token.expand(len(x), 1, -1), x], 1)
            return self.norm(self.blocks(x + self.pos_embed))

        def forward(self, patches: Tensor, index: Tensor | None = None) -> Tensor:
            """`[B, N, P * P * C]`, or those at `index` `[B, K]`, to tokens."""
            if index is None:
                return self.encode(self.embed(patches))
            first = int(self.cls_token is not None)
            x = self.embed(patches) + self.pos_embed[0, first:][index]
            if first:
                x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(x), 1, -1), x], 1)
            return self.norm(self.blocks(x))

        def patch_tokens(self, tokens: Tensor) -> Tensor:
            return tokens if self.cls_token is None else tokens[:, 1:]

    class MaskedVit(nn.Module):
        """MaskFeat and SimMIM: mask tokens in the encoder, a linear head."""

        def __init__(self, s: dict, width: int):
            super().__init__()
            self.encoder = Vit(s, s["pretrain"]["drop_path"])
            self.mask_token = nn.Parameter(torch.randn(1, 1, s["vit"]["dim"]) * 0.02)
            self.head = nn.Linear(s["vit"]["dim"], width)

        def forward(self, patches: Tensor, mask: Tensor, _index: Tensor | None) -> Tensor:
            x = self.encoder.embed(patches * (1 - mask) if self.encoder.stem else patches)
            x = self.encoder.encode(torch.where(mask.bool(), self.mask_token, x))
            return self.head(self.encoder.patch_tokens(x))

    class MaskedAutoencoder(nn.Module):
        """MAE: the encoder sees visible patches, a light decoder predicts."""

        def __init__(self, s: dict, width: int):
            super().__init__()
            vit, mim = s["vit"], s["mim"]
            dim, grid = mim["decoder_dim"], s["data"]["size"] // vit["patch"]
            self.encoder = Vit(s, s["pretrain"]["drop_path"])
            self.decoder_embed = nn.Linear(vit["dim"], dim)
            self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
            self.decoder_pos_embed = nn.Parameter(positions(grid, dim, vit["cls"]), requires_grad=False)
            self.decoder_blocks = nn.Sequential(*(Block(dim, mim["decoder_heads"], vit, 0.0) for _ in range(mim["decoder_depth"])))
            self.decoder_norm, self.decoder_pred = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, width)

        def forward(self, patches: Tensor, mask: Tensor, index: Tensor) -> Tensor:
            visible = patches.gather(1, index[..., None].expand(-1, -1, patches.shape[2]))
            x = self.decoder_embed(self.encoder(visible, index))
            before = x.shape[1] - index.shape[1]
            full = self.mask_token.expand(len(x), mask.shape[1], -1)
            full = full.scatter(1, index[..., None].expand(-1, -1, x.shape[2]), x[:, before:])
            full = torch.cat([x[:, :before], full], 1) if before else full
            x = self.decoder_norm(self.decoder_blocks(full + self.decoder_pos_embed))
            return self.decoder_pred(x[:, before:])

    class CrossAttention(nn.Module):
        def __init__(self, dim: int, heads: int):
            super().__init__()
            self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))
            self.heads = heads

        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = split(self.q(q), self.heads), split(self.k(k), self.heads), split(self.v(v), self.heads)
            return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    class DecoderLayer(nn.Module):
        def __init__(self, s: dict):
            super().__init__()
            dim, decoder = s["vit"]["dim"], s["decoder"]
            norm = lambda: nn.LayerNorm(dim, eps=1e-6)
            self.self_attn, self.norm_self = (CrossAttention(dim, decoder["heads"]), norm()) if decoder["self_attn"] else (None, None)
            self.cross_attn, self.norm_cross = CrossAttention(dim, decoder["heads"]), norm()
            self.mlp, self.norm_mlp = Mlp(dim, decoder["mlp_ratio"], "relu", decoder["dropout"]), norm()
            self.pre_norm, self.dropout = decoder["pre_norm"], nn.Dropout(decoder["dropout"])

        def residual(self, x: Tensor, norm: nn.LayerNorm, branch: Callable[[Tensor], Tensor]) -> Tensor:
            return x + branch(norm(x)) if self.pre_norm else norm(x + branch(x))

        def forward(self, x: Tensor, queries: Tensor, memory: Tensor) -> Tensor:
            if self.self_attn is not None:
                x = self.residual(x, self.norm_self, lambda x: self.dropout(self.self_attn(x + queries, x + queries, x)))
            x = self.residual(x, self.norm_cross, lambda x: self.dropout(self.cross_attn(x + queries, memory, memory)))
            return self.residual(x, self.norm_mlp, self.mlp)

    class QueryDecoder(nn.Module):
        """Query2Label's: one query for each class."""

        def __init__(self, s: dict, classes: int):
            super().__init__()
            dim = s["vit"]["dim"]
            self.queries = nn.Parameter(torch.randn(classes, dim), requires_grad=s["queries"]["trainable"])
            self.layers = nn.ModuleList(DecoderLayer(s) for _ in range(s["decoder"]["layers"]))
            self.norm = nn.LayerNorm(dim, eps=1e-6)
            self.weight, self.bias = nn.Parameter(torch.randn(classes, dim) * dim**-0.5), nn.Parameter(torch.zeros(classes))

        def forward(self, memory: Tensor) -> Tensor:
            x = memory.new_zeros(len(memory), *self.queries.shape)
            for layer in self.layers:
                x = layer(x, self.queries, memory)
            return (self.norm(x) * self.weight).sum(2) + self.bias

    class Classifier(nn.Module):
        def __init__(self, s: dict, classes: int):
            super().__init__()
            self.encoder = Vit(s, s["finetune"]["drop_path"])
            dim = s["vit"]["dim"]
            self.decoder = QueryDecoder(s, classes) if s["decoder"]["enabled"] else None
            self.pooled = None if self.decoder else nn.Sequential(nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, classes))
            self.use_cls = s["decoder"]["use_cls"]

        def forward(self, patches: Tensor) -> Tensor:
            tokens = self.encoder(patches)
            if self.decoder is None:
                return self.pooled(self.encoder.patch_tokens(tokens).mean(1))
            return self.decoder(tokens if self.use_cls else self.encoder.patch_tokens(tokens))


class Input:
    """From bytes `[B, H, W, C]` on the device to what networks see and predict."""

    def __init__(self, s: dict, device: torch.device):
        self.s, self.patch, self.how = s, s["vit"]["patch"], s["data"]["normalize"]
        if self.how == "imagenet":
            mean, std = (torch.tensor(v, device=device) for v in IMAGENET)
            self.mean, self.std = (mean, std) if s["data"]["channels"] == 3 else (mean.mean(), std.mean())

    def patches(self, pixels: Tensor) -> Tensor:
        """Normalised, `[B, N, P * P * C]`."""
        x = pixels.float().div_(255)
        if self.how == "per_face":
            std, mean = torch.std_mean(x, (1, 2, 3), correction=0, keepdim=True)
            x = (x - mean) / std.clamp_min(1e-3)
        elif self.how == "half":
            x = (x - 0.5) / 0.5
        else:
            x = (x - self.mean) / self.std
        b, h, w, c = x.shape
        p = self.patch
        return x.view(b, h // p, p, w // p, p, c).transpose(2, 3).reshape(b, -1, p * p * c)

    def choose_hog(self, pixels: Tensor) -> Callable[[Tensor], Tensor]:
        """The fastest way here to `[B, N, C * 9 * (P / cell)^2]`."""
        hog, k = self.s["hog"], self.patch // self.s["hog"]["cell"]
        if hog["domain"] != "u8":
            raise Missing("hog.domain = normalized is not written in PyTorch here")

        def tokens(pixels: Tensor, planar: bool, size: int) -> Tensor:
            parts = [torch_cells(part, hog["cell"], hog["window"], direct=True, planar=planar) for part in pixels.split(size)]
            cells = torch.cat(parts) if len(parts) > 1 else parts[0]
            b, c, bins, h, w = cells.shape
            return cells.view(b, c, bins, h // k, k, w // k, k).permute(0, 3, 5, 1, 2, 4, 6).reshape(b, -1, c * bins * k * k)

        def work(planar: bool, size: int) -> Callable[[Tensor], Tensor]:
            return lambda pixels: tokens(pixels, planar, size)

        ways = [work(planar, size) for planar in (False, True) for size in sorted({min(8, len(pixels)), len(pixels)})]

        def cost(way: Callable[[Tensor], Tensor]) -> float:
            def timed() -> None:
                way(pixels)
                wait(pixels.device)

            return min(seconds(timed, 3, warm_up=1))

        with torch.no_grad():
            return min(ways, key=cost)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class Side:
    """What all rows start from."""

    def __init__(self, case: dict):
        self.case, self.s, self.batch = case, case["settings"], case["batch"]
        if case["device"] != "cpu" and not torch.cuda.is_available():
            raise Missing("torch has no CUDA device")
        self.device = torch.device("cpu" if case["device"] == "cpu" else "cuda")
        torch.set_num_threads(case["threads"])
        torch.manual_seed(0)
        if self.device.type == "cuda":
            # Also for what the HOG script makes on the way.
            torch.set_default_device(self.device)
        if self.s["encoder"]["backbone"] != "vit" and case["row"] not in ("loader", "hog"):
            raise Missing("of encoders only the vision transformer is written in PyTorch here")
        size, channels = self.s["data"]["size"], self.s["data"]["channels"]
        self.faces = np.fromfile(case["faces"]["pixels"], dtype=np.uint8).reshape(-1, size, size, channels)
        self.input = Input(self.s, self.device)
        self.network = None

    def order(self, step: int) -> np.ndarray:
        return np.arange(step * self.batch, (step + 1) * self.batch) % len(self.faces)

    def ready(self, array: np.ndarray) -> Tensor:
        """On the host, quick to upload."""
        tensor = torch.tensor(array, device="cpu")
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def upload(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def optimizer(self, stage: str) -> Callable[[], None]:
        """Clips, updates, and forgets the gradients."""
        hyper, depth = self.s[stage], self.s["vit"]["depth"]
        decay = hyper.get("layer_decay", 1.0)

        def layer(path: str) -> int:
            parts = path.split(".")
            if parts[:2] == ["encoder", "blocks"]:
                return int(parts[2]) + 1
            return 0 if parts[0] == "encoder" and parts[1] != "norm" else depth + 1

        groups: dict = {}
        for path, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                decays = parameter.ndim in (2, 4) and not path.endswith("queries")
                groups.setdefault((layer(path), decays), []).append(parameter)
        listed = [
            {"params": params, "lr": hyper["lr"] * decay ** (depth + 1 - at), "weight_decay": hyper["weight_decay"] * decays}
            for (at, decays), params in groups.items()
        ]
        options = {"betas": (hyper["beta1"], hyper["beta2"]), "eps": 1e-8}
        try:
            adamw = torch.optim.AdamW(listed, fused=True, **options)
        except RuntimeError:
            adamw = torch.optim.AdamW(listed, **options)
        parameters = [p for group in listed for p in group["params"]]

        def update() -> None:
            if hyper["clip"] > 0:
                nn.utils.clip_grad_norm_(parameters, hyper["clip"])
            adamw.step()
            adamw.zero_grad(set_to_none=True)

        return update

    def training(self, stage: str, loss: Callable[[int], Tensor], after: Callable[[], None]) -> Callable[[], None]:
        """Steps, or the part of them that the case names."""
        if self.s[stage]["accumulate"] > 1:
            raise Missing(f"{stage}.accumulate is not written in PyTorch here")
        update, part, steps = self.optimizer(stage), self.case["part"], itertools.count()
        mixed = self.s["run"]["precision"] == "mixed"
        self.compile()

        def step() -> None:
            if part == "forward":
                with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
                    loss(next(steps) % BATCHES)
                return
            with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
                value = loss(next(steps) % BATCHES)
            value.backward()
            if part == "gradients":
                self.network.zero_grad(set_to_none=True)
                return
            update()
            after()

        return step

    def compile(self) -> None:
        if self.case["compile"]:
            self.network.compile()

    # Rows.

    def pretrain(self) -> Callable[[], None]:
        s, grid = self.s, self.s["data"]["size"] // self.s["vit"]["patch"]
        method, hidden = s["pretrain"]["method"], self.case["hidden"]
        channels, patch = s["data"]["channels"], s["vit"]["patch"]
        predicts_hog = method in ("maskfeat", "mae_hog")
        width = channels * 9 * (patch // s["hog"]["cell"]) ** 2 if predicts_hog else patch * patch * channels
        autoencoder = method in ("mae", "mae_hog")
        self.network = (MaskedAutoencoder if autoencoder else MaskedVit)(s, width).to(self.device).train()
        rng, batches = np.random.default_rng(0), []
        for step in range(BATCHES):
            places = rng.permuted(np.tile(np.arange(grid * grid), (self.batch, 1)), axis=1)
            mask = np.zeros((self.batch, grid * grid, 1), dtype=np.float32)
            np.put_along_axis(mask[..., 0], places[:, :hidden], 1.0, axis=1)
            batches.append([self.ready(part) for part in (self.faces[self.order(step)], mask, np.sort(places[:, hidden:], axis=1))])
        hog = self.input.choose_hog(self.upload(batches[0][0])) if predicts_hog else None

        def loss(step: int) -> Tensor:
            pixels, mask, index = (self.upload(part) for part in batches[step])
            patches = self.input.patches(pixels)
            # Targets are data, in single precision.
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                target = hog(pixels) if hog else patches
                if method == "mae" and s["mim"]["norm_pix"]:
                    variance, mean = torch.var_mean(patches, 2, keepdim=True)
                    target = (patches - mean) / (variance + 1e-6).sqrt()
            error = self.network(patches, mask, index) - target
            error = error.abs() if method == "simmim" else error.square()
            return (error * mask).sum() / (mask.sum() * width)

        return self.training("pretrain", loss, lambda: None)

    def finetune(self) -> Callable[[], None]:
        s, classes = self.s, self.case["classes"]
        objective, revise, uniform = s["finetune"]["objective"], s["revise"], s["uniform"]
        if objective not in ("pll", "ce"):
            raise Missing(f"finetune.objective = {objective} is not written in PyTorch here")
        if s["finetune"]["mask_ratio"] > 0:
            raise Missing("finetune.mask_ratio is not written in PyTorch here")
        self.network = Classifier(s, classes).to(self.device).train()
        candidates = np.zeros((len(self.faces), classes), dtype=bool)
        for row, allowed in zip(candidates, self.case["faces"]["candidates"], strict=True):
            row[allowed if objective == "pll" else allowed[:1]] = True
        candidates = torch.tensor(candidates, device=self.device)
        rows = candidates / candidates.sum(1, keepdim=True)
        batches = [[self.ready(part) for part in (self.faces[self.order(step)], self.order(step))] for step in range(BATCHES)]
        revises = objective == "pll" and revise["enabled"]
        queries = self.network.decoder.queries if self.network.decoder is not None else None
        own = torch.eye(classes, dtype=torch.bool, device=self.device)
        pending: list = []

        @torch.no_grad()
        def revised(old: Tensor, logits: Tensor, allowed: Tensor) -> Tensor:
            """Paper eq. 3-4 on a whole batch."""
            if revise["response"] == "sigmoid":
                p = logits.sigmoid() * allowed
                p = p / p.sum(1, keepdim=True)
            else:
                p = logits.masked_fill(~allowed, -math.inf).softmax(1)
            top = p.topk(2, 1)
            p1, p2 = top.values[:, :1], top.values[:, 1:]
            certainty = {"margin": p1 - p2, "ratio": 1 - p2 / p1, "top1": p1}[revise["metric"]]
            sure = F.one_hot(top.indices[:, 0], classes).to(p.dtype)
            if revise["below"] == "keep_all":
                unsure = p
            else:
                pair = top.values / top.values.sum(1, keepdim=True) if revise["below"] == "top2_soft" else torch.full_like(top.values, 0.5)
                unsure = torch.zeros_like(p).scatter_(1, top.indices, pair)
            new = torch.where(certainty > revise["theta"], sure, unsure)
            new = revise["ema"] * old + (1 - revise["ema"]) * new
            return torch.where(allowed.sum(1, keepdim=True) > 1, new, old)

        def uniformity() -> Tensor:
            unit = F.normalize(queries, dim=1)
            if uniform["kind"] == "gaussian":
                return (unit @ unit.T).sub(1).mul(4).masked_fill(own, -math.inf).flatten().logsumexp(0) - math.log(classes * (classes - 1))
            similar = unit @ unit.T / uniform["tau"]
            if uniform["self_term"] == "exclude":
                similar = similar.masked_fill(own, -math.inf)
            return similar.logsumexp(1).mean()

        def loss(step: int) -> Tensor:
            pixels, faces = (self.upload(part) for part in batches[step])
            patches = self.input.patches(pixels)
            logits = self.network(patches)
            targets = rows[faces]
            if revises and revise["order"] == "before_loss":
                targets = revised(targets, logits, candidates[faces])
            total = F.cross_entropy(logits, targets)
            if objective == "pll" and queries is not None and queries.requires_grad and uniform["lambda"] > 0:
                total = total + uniform["lambda"] * (uniform["tau"] if uniform["scale_by_tau"] else 1) * uniformity()
            pending[:] = [patches, faces, logits.detach()]
            return total

        def after() -> None:
            if not revises:
                return
            patches, faces, logits = pending
            if revise["order"] == "refresh_forward":
                with torch.no_grad():
                    logits = self.network(patches)
            rows[faces] = revised(rows[faces], logits, candidates[faces])

        return self.training("finetune", loss, after)

    def predict(self) -> Callable[[], None]:
        self.network = Classifier(self.s, self.case["classes"]).to(self.device).eval()
        self.compile()
        pixels = self.ready(self.faces[self.order(0)])

        @torch.inference_mode()
        def step() -> None:
            self.network(self.input.patches(self.upload(pixels))).cpu()

        return step

    def hog(self) -> Callable[[], None]:
        pixels = self.upload(self.ready(self.faces[self.order(0)]))
        way = self.input.choose_hog(pixels)
        return torch.inference_mode()(lambda: way(pixels))

    def loader(self, stage: str) -> Callable[[], None]:
        """The ordinary way: PIL and torchvision, face by face, in worker processes."""
        vision, missing = package("torchvision.transforms.v2")
        images, no_pil = package("PIL.Image")
        if missing or no_pil:
            raise Missing(missing or no_pil)
        hyper, size = self.s[stage], self.s["data"]["size"]
        steps = []
        if hyper["crop_min"] < 1:
            steps.append(vision.RandomResizedCrop(size, scale=(hyper["crop_min"], 1.0), antialias=True))
        if hyper.get("rotate", 0.0) > 0:
            steps.append(vision.RandomRotation(hyper["rotate"], interpolation=vision.InterpolationMode.BILINEAR))
        if hyper["flip"]:
            steps.append(vision.RandomHorizontalFlip())
        steps.append(vision.PILToTensor())
        if hyper.get("erase", 0.0) > 0:
            steps.append(vision.RandomErasing(hyper["erase"], scale=(0.02, 0.25)))
        transform, faces, batch = vision.Compose(steps), self.faces, self.batch
        torch.set_default_device("cpu")

        class Faces(torch.utils.data.Dataset):
            def __len__(self) -> int:
                return len(faces)

            def __getitem__(self, index: int) -> Tensor:
                face = faces[index % len(faces)]
                return transform(images.fromarray(face[..., 0] if face.shape[2] == 1 else face))

        class Endless(torch.utils.data.Sampler):
            def __iter__(self):
                order = (i for _ in itertools.count() for i in torch.randperm(len(faces)).tolist())
                while True:
                    yield list(itertools.islice(order, batch))

        workers, ahead = self.case["threads"], 2
        loader = torch.utils.data.DataLoader(
            Faces(), batch_sampler=Endless(), num_workers=workers, persistent_workers=True, prefetch_factor=ahead
        )
        batches = iter(loader)

        def step() -> None:
            next(batches)

        # What was made between two turns is not this turn's.
        step.before = lambda: [next(batches) for _ in range(workers * ahead)]
        return step

    def work(self) -> Callable[[], None]:
        row, part = self.case["row"], self.case["part"]
        if row == "loader" or part == "loader":
            step = self.loader("finetune" if row == "loader" else row)
            if row != "loader":
                # For the number of its parameters.
                getattr(self, row)()
            return step
        return getattr(self, row)()


def peak_bytes() -> int | None:
    try:
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return None


def answer(value: dict) -> None:
    print(json.dumps(value), flush=True)


def main() -> int:
    case = json.loads(sys.stdin.readline())
    if no_numpy or no_torch:
        answer({"why": "; ".join(reason for reason in (no_numpy, no_torch) if reason)})
        return 0
    try:
        side = Side(case)
        work = side.work()
        for _ in range(WARM_UP):
            work()
        wait(side.device)
    except Missing as missing:
        answer({"why": str(missing)})
        return 0
    parameters = None if side.network is None else sum(p.numel() for p in side.network.parameters())
    on_cpu = side.device.type == "cpu"
    name = "CPU" if on_cpu else torch.cuda.get_device_name()
    details = {"python": sys.version.split()[0], "cpu": torch.backends.cpu.get_cpu_capability(), "cuda": torch.version.cuda}
    answer(
        {
            "version": torch.__version__,
            "device": name,
            "is_cpu": on_cpu,
            "threads": torch.get_num_threads(),
            "parameters": parameters,
            "details": details,
        }
    )
    # Worker processes are not in this process's memory.
    loads = "loader" in (case["row"], case["part"])
    for line in sys.stdin:
        turn = json.loads(line)["seconds"]
        getattr(work, "before", lambda: None)()
        steps, start = 0, time.perf_counter()
        while True:
            work()
            steps += 1
            over = time.perf_counter() - start >= turn
            if over or steps % WAIT == 0:
                wait(side.device)
            if over:
                break
        spent = time.perf_counter() - start
        answer({"faces": steps * case["batch"], "seconds": spent, "peak_bytes": None if loads else peak_bytes()})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
