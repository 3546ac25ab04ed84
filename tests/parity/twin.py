"""A second implementation of moue's training steps, in PyTorch and double precision.

Written from METHOD.md and the papers, with PyTorch's own attention, norms, AdamW and clipping, so that it shares nothing with the Rust
code but the names of parameters and the layout of weights. `tests/parity.rs` writes a folder, runs

    python3 tests/parity/twin.py FOLDER [--fault NAME ...]

and compares. The folder holds `case.json` (settings, schedule, candidate sets, the faces of every step) and `moue.safetensors` (8-bit
crops and masks of every step, `start/*` weights, `gradients/STEP/*`). The twin answers with `twin.safetensors`:

    losses            [steps]   its own training from the start weights
    gradients/PATH              of the first step, before clipping
    rows              [n, C]    confidences after the first step that revises them (finetuning)
    replayed/PATH               parameters after all steps of its optimiser, fed with moue's gradients

and, for each `--fault NAME`, the same from a deliberately wrong twin in `twin-NAME.safetensors`: the comparison has to notice.
"""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

FAULTS = ("attention-scale", "tau", "theta", "layer-decay", "no-decay", "hog-bin", "hidden-only", "clip", "norm-groups")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Network:
    """Forward passes over a dictionary of parameters, `path -> tensor`. Linear weights are `[d_in, d_out]`."""

    def __init__(self, parameters, settings, fault):
        self.p, self.s, self.fault = parameters, settings, fault

    def linear(self, path, x):
        return F.linear(x, self.p[f"{path}.weight"].T, self.p[f"{path}.bias"])

    def norm(self, path, x):
        gamma = self.p[f"{path}.gamma"]
        return F.layer_norm(x, gamma.shape, gamma, self.p[f"{path}.beta"], eps=1e-6)

    def attend(self, q, k, v, heads):
        """`[B, N, D]` each, split into heads."""
        split = lambda x: x.unflatten(2, (heads, -1)).transpose(1, 2)
        width = q.shape[2] if self.fault == "attention-scale" else q.shape[2] // heads
        out = F.scaled_dot_product_attention(split(q), split(k), split(v), scale=width**-0.5)
        return out.transpose(1, 2).flatten(2)

    # The vision transformer (Dosovitskiy et al. 2021).

    def embed(self, patches):
        if self.s["vit"]["stem"] == "conv":
            patches = self.conv_stem(unpatch(patches, self.s["vit"]["patch"], self.s["data"]["channels"]))
        return self.linear("encoder.patch_embed", patches)

    def conv_stem(self, picture):
        """3 x 3 convolutions of stride 2 until one position is left for each patch (Xiao et al. 2021)."""
        for i in range(self.s["vit"]["patch"].bit_length() - 1):
            path = f"encoder.stem.convs.{i}"
            picture = F.relu(F.conv2d(picture, self.p[f"{path}.weight"], self.p[f"{path}.bias"], stride=2, padding=1))
        return picture.flatten(2).transpose(1, 2)

    def encode(self, x):
        vit = self.s["vit"]
        if vit["cls"]:
            x = torch.cat([self.p["encoder.cls_token"].expand(len(x), 1, -1), x], 1)
        x = x + self.p["encoder.pos_embed"]
        activation = {"gelu": F.gelu, "relu": F.relu}[vit["activation"]]
        for i in range(vit["depth"]):
            block = f"encoder.blocks.{i}"
            q, k, v = self.linear(f"{block}.attn.qkv", self.norm(f"{block}.norm1", x)).chunk(3, 2)
            x = x + self.linear(f"{block}.attn.proj", self.attend(q, k, v, vit["heads"]))
            hidden = activation(self.linear(f"{block}.mlp.fc1", self.norm(f"{block}.norm2", x)))
            x = x + self.linear(f"{block}.mlp.fc2", hidden)
        return self.norm("encoder.norm", x)

    def patch_tokens(self, tokens):
        return tokens[:, 1:] if self.s["vit"]["cls"] else tokens

    # ResNet-18 (He et al. 2016) with group normalisation (Wu and He 2018).

    def conv_norm(self, path, x, stride=1):
        weight = self.p[f"{path}.conv.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)
        groups = next(n for n in range(min(32, x.shape[1] // 2), 0, -1) if x.shape[1] % n == 0)
        if self.fault == "norm-groups":
            groups = 1
        return F.group_norm(x, groups, self.p[f"{path}.norm.gamma"], self.p[f"{path}.norm.beta"], eps=1e-5)

    def resnet(self, picture):
        large = picture.shape[2] >= 96
        x = F.relu(self.conv_norm("encoder.stem", picture, 2 if large else 1))
        if large:
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage in range(4):
            for half in range(2):
                block = f"encoder.blocks.{2 * stage + half}"
                stride = 2 if stage > 0 and half == 0 else 1
                branch = F.relu(self.conv_norm(f"{block}.first", x, stride))
                branch = self.conv_norm(f"{block}.second", branch)
                if stride > 1:
                    x = self.conv_norm(f"{block}.shortcut", x, stride)
                x = F.relu(x + branch)
        tokens = x.flatten(2).transpose(1, 2)
        return self.linear("encoder.proj", tokens) if self.s["decoder"]["enabled"] else tokens

    # Heads.

    def logits(self, patches):
        if self.s["encoder"]["backbone"] == "resnet18":
            memory = self.resnet(unpatch(patches, self.s["vit"]["patch"], self.s["data"]["channels"]))
        else:
            tokens = self.encode(self.embed(patches))
            memory = tokens if self.s["decoder"]["use_cls"] else self.patch_tokens(tokens)
        if self.s["decoder"]["enabled"]:
            return self.decode(memory)
        return self.linear("head.pooled.linear", self.norm("head.pooled.norm", memory.mean(1)))

    def decode(self, memory):
        """Query2Label's decoder: the target starts at zero, queries are its positional term (METHOD 1.4)."""
        settings = self.s["decoder"]
        queries = self.p["head.decoder.queries"]
        x = memory.new_zeros(len(memory), *queries.shape)

        def attention(path, query, key, value):
            q, k, v = (self.linear(f"{path}.{name}", t) for name, t in (("q", query), ("k", key), ("v", value)))
            return self.linear(f"{path}.proj", self.attend(q, k, v, settings["heads"]))

        for i in range(settings["layers"]):
            layer = f"head.decoder.layers.{i}"
            parts = [
                ("norm_cross", lambda x: attention(f"{layer}.cross_attn", x + queries, memory, memory)),
                ("norm_mlp", lambda x: self.linear(f"{layer}.mlp.fc2", F.relu(self.linear(f"{layer}.mlp.fc1", x)))),
            ]
            if settings["self_attn"]:
                parts.insert(0, ("norm_self", lambda x: attention(f"{layer}.self_attn", x + queries, x + queries, x)))
            for name, branch in parts:
                norm = lambda x: self.norm(f"{layer}.{name}", x)
                x = x + branch(norm(x)) if settings["pre_norm"] else norm(x + branch(x))
        return (self.norm("head.decoder.norm", x) * self.p["head.decoder.weight"]).sum(2) + self.p["head.decoder.bias"]

    def reconstruct(self, patches, mask):
        """Predictions for all patches, of which `mask` `[B, N, 1]` hides some (MaskFeat)."""
        x = self.embed(patches * (1 - mask) if self.s["vit"]["stem"] == "conv" else patches)
        x = torch.where(mask.bool(), self.p["mask_token"], x)
        return self.linear("head", self.patch_tokens(self.encode(x)))


# From 8-bit pixels to inputs and targets.


def patches_of(picture, patch):
    """`[B, C, H, W]` -> `[B, N, P * P * C]`, pixels of a patch row by row, channels last."""
    b, c, h, w = picture.shape
    cut = picture.reshape(b, c, h // patch, patch, w // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, patch * patch * c)


def unpatch(patches, patch, channels):
    side = math.isqrt(patches.shape[1])
    cut = patches.reshape(len(patches), side, side, patch, patch, channels)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), channels, side * patch, side * patch)


def normalised(pixels, how):
    """8-bit `[B, H, W, C]` -> `[B, C, H, W]`."""
    x = pixels.permute(0, 3, 1, 2).double() / 255
    if how == "per_face":
        mean = x.mean((1, 2, 3), keepdim=True)
        std = x.std((1, 2, 3), correction=0, keepdim=True).clamp_min(1e-3)
    elif how == "half":
        mean, std = 0.5, 0.5
    else:
        mean, std = (x.new_tensor(v).reshape(3, 1, 1) for v in IMAGENET)
        if x.shape[1] == 1:
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    return (x - mean) / std


def hog_tokens(pixels, cell, window, patch, fault):
    """MaskFeat's target of every patch, `[B, N, C * 9 * (P / cell)^2]`, from 8-bit `[B, H, W, C]` (METHOD 3.1)."""
    x = F.pad(pixels.permute(0, 3, 1, 2).double(), (1, 1, 1, 1), mode="reflect")
    b, c = x.shape[:2]
    across = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]).double()
    sobel = lambda kernel: F.conv2d(x, kernel.expand(c, 1, 3, 3), groups=c)
    gx, gy = sobel(across), sobel(across.T)
    magnitude = torch.hypot(gx, gy)
    if window:
        t = torch.arange(window).double() - (window - 1) / 2
        g = torch.exp(-(t**2) / (2 * (window // 2) ** 2))
        g = torch.outer(g, g) / g.sum() ** 2
        h, w = magnitude.shape[2:]
        magnitude = magnitude * g.repeat(-(-h // window), -(-w // window))[:h, :w]
    turn = torch.atan2(gx, gy) / math.pi
    bins = (torch.floor(turn * 9).long() + (fault == "hog-bin")) % 9
    votes = F.one_hot(bins, 9).movedim(4, 2) * magnitude.unsqueeze(2)
    cells = F.avg_pool2d(votes.flatten(0, 1), cell).unflatten(0, (b, c)) * cell**2
    cells = F.normalize(cells, dim=2, eps=1e-12)
    k = patch // cell
    cut = cells.unflatten(3, (-1, k)).unflatten(5, (-1, k))
    return cut.permute(0, 3, 5, 1, 2, 4, 6).reshape(b, -1, c * 9 * k * k)


# Objectives.


def uniformity(queries, settings, fault):
    """Paper eq. 2 on unit queries; `gaussian`: Wang and Isola 2020."""
    unit = F.normalize(queries, dim=1)
    own = torch.eye(len(unit), dtype=torch.bool)
    if settings["kind"] == "gaussian":
        return (-2 * torch.cdist(unit, unit)[~own] ** 2).exp().mean().log()
    similar = unit @ unit.T / (settings["tau"] * (2 if fault == "tau" else 1))
    if settings["self_term"] == "exclude":
        similar = similar.masked_fill(own, -math.inf)
    return similar.logsumexp(1).mean()


def revised(rows, logits, candidates, settings, fault):
    """Rows of confidences after a response (paper eq. 3-4)."""
    out = rows.clone()
    theta = settings["theta"] + (0.05 if fault == "theta" else 0)
    for i, (z, allowed) in enumerate(zip(logits, candidates)):
        if len(allowed) == 1:
            continue
        z = z[allowed]
        p = z.sigmoid() if settings["response"] == "sigmoid" else (z - z.max()).exp()
        p = p / p.sum()
        best = torch.sort(p, descending=True, stable=True)
        (p1, p2), top = best.values[:2], best.indices[:2]
        certainty = {"margin": p1 - p2, "ratio": 1 - p2 / p1, "top1": p1}[settings["metric"]]
        new = torch.zeros_like(p)
        if certainty > theta:
            new[top[0]] = 1
        elif settings["below"] == "top2_soft":
            new[top] = p[top] / p[top].sum()
        elif settings["below"] == "top2_uniform":
            new[top] = 0.5
        else:
            new = p
        out[i, allowed] = settings["ema"] * rows[i, allowed] + (1 - settings["ema"]) * new
    return out


class Finetune:
    """Cross-entropy against confidences that are revised after every batch, and uniform queries (paper eq. 1-4)."""

    def __init__(self, case, data, fault):
        self.s, self.data, self.fault = case["settings"], data, fault
        self.partial = case["objective"] == "pll"
        self.candidates, self.positions = case["candidates"], case["positions"]
        self.rows = torch.zeros(len(self.candidates), case["classes"]).double()
        for row, allowed in zip(self.rows, self.candidates):
            row[allowed] = 1 / len(allowed)

    def loss(self, parameters, step):
        faces = self.positions[step]
        candidates = [self.candidates[i] for i in faces]
        picture = normalised(self.data[f"pixels/{step}"], self.s["data"]["normalize"])
        patches = patches_of(picture, self.s["vit"]["patch"])
        logits = Network(parameters, self.s, self.fault).logits(patches)
        targets = self.rows[faces]
        if self.partial and step >= self.s["revise"]["start_epoch"]:
            new = revised(targets, logits.detach(), candidates, self.s["revise"], self.fault)
            self.rows[faces] = new
            targets = new if self.s["revise"]["order"] == "before_loss" else targets
        loss = -(targets * F.log_softmax(logits, 1)).sum(1).mean()
        uniform = self.s["uniform"]
        queries = parameters.get("head.decoder.queries")
        if self.partial and queries is not None and queries.requires_grad:
            scale = uniform["lambda"] * (uniform["tau"] if uniform["scale_by_tau"] else 1)
            loss = loss + scale * uniformity(queries, uniform, self.fault)
        return loss


class MaskFeat:
    """Mean squared error between predicted and true HOG of the hidden patches."""

    def __init__(self, case, data, fault):
        self.s, self.data, self.fault = case["settings"], data, fault

    def loss(self, parameters, step):
        pixels, mask = self.data[f"pixels/{step}"], self.data[f"mask/{step}"].double().unsqueeze(2)
        patch, hog = self.s["vit"]["patch"], self.s["hog"]
        targets = hog_tokens(pixels, hog["cell"], hog["window"], patch, self.fault)
        patches = patches_of(normalised(pixels, self.s["data"]["normalize"]), patch)
        predicted = Network(parameters, self.s, self.fault).reconstruct(patches, mask)
        if self.fault == "hidden-only":
            return F.mse_loss(predicted, targets)
        hidden = mask.squeeze(2).bool()
        return F.mse_loss(predicted[hidden], targets[hidden])


# Optimisation.


class Optimizer:
    """AdamW: no decay on vectors, tokens, positions and queries; rates fall by `layer_decay` per layer from the top."""

    def __init__(self, parameters, settings, schedule, fault):
        self.schedule, self.fault = schedule, fault
        self.stage = settings[schedule["stage"]]
        depth = {"vit": settings["vit"]["depth"], "resnet18": 8}[settings["encoder"]["backbone"]]
        decay = self.stage.get("layer_decay", 1.0)
        if fault == "layer-decay":
            decay = decay**0.9
        self.groups = []
        for path, parameter in parameters.items():
            if not parameter.requires_grad:
                continue
            kept = path.endswith((".bias", ".gamma", ".beta", "_token", "pos_embed", "queries")) and fault != "no-decay"
            group = {"params": [parameter], "weight_decay": 0.0 if kept else self.stage["weight_decay"]}
            self.groups.append((group, decay ** (depth + 1 - layer(path, depth))))
        betas = (self.stage["beta1"], self.stage["beta2"])
        self.adamw = torch.optim.AdamW([group for group, _ in self.groups], lr=0.0, betas=betas, eps=1e-8)

    def step(self, step):
        if self.stage["clip"] > 0 and self.fault != "clip":
            torch.nn.utils.clip_grad_norm_([p for group, _ in self.groups for p in group["params"]], self.stage["clip"])
        for group, (_, factor) in zip(self.adamw.param_groups, self.groups):
            group["lr"] = self.rate(step) * factor
        self.adamw.step()
        self.adamw.zero_grad()

    def rate(self, step):
        """Linear warm-up, then half a cosine."""
        floor, peak, warmup, steps = (self.schedule[name] for name in ("floor", "peak", "warmup_steps", "steps"))
        if step + 1 <= warmup:
            return floor + (peak - floor) * (step + 1) / warmup
        done = (step + 1 - warmup) / (steps - warmup)
        return floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2


def layer(path, depth):
    """Embeddings 0, block i at i + 1, the rest above them (BEiT)."""
    parts = path.split(".")
    if parts[:2] == ["encoder", "blocks"]:
        return int(parts[2]) + 1
    return 0 if parts[0] == "encoder" and parts[1] not in ("norm", "proj") else depth + 1


def answer(case, data, fault):
    """Everything that the comparison wants to know."""
    objective = {"finetune": Finetune, "maskfeat": MaskFeat}[case["kind"]](case, data, fault)
    steps = case["schedule"]["steps"]

    def start():
        weights = {path.removeprefix("start/"): t.double() for path, t in data.items() if path.startswith("start/")}
        return {path: t.requires_grad_(path not in case["frozen"]) for path, t in weights.items()}

    out, losses = {}, []
    parameters = start()
    optimizer = Optimizer(parameters, case["settings"], case["schedule"], fault)
    for step in range(steps):
        loss = objective.loss(parameters, step)
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            out |= {f"gradients/{path}": p.grad.clone() for path, p in parameters.items() if p.grad is not None}
        if case["kind"] == "finetune" and step == case["settings"]["revise"]["start_epoch"]:
            out["rows"] = objective.rows.clone()
        optimizer.step(step)
    out["losses"] = torch.tensor(losses, dtype=torch.float64)

    parameters = start()
    optimizer = Optimizer(parameters, case["settings"], case["schedule"], fault)
    for step in range(steps):
        for path, parameter in parameters.items():
            gradient = data.get(f"gradients/{step}/{path}")
            parameter.grad = None if gradient is None else gradient.double()
        optimizer.step(step)
    out |= {f"replayed/{path}": p.detach() for path, p in parameters.items()}
    return {name: t.contiguous() for name, t in out.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fault", action="append", default=[], choices=FAULTS)
    args = parser.parse_args()
    # Small tensors, and other tests beside this one.
    torch.set_num_threads(1)
    case = json.loads((args.folder / "case.json").read_text())
    data = load_file(args.folder / "moue.safetensors")
    for fault in [None, *args.fault]:
        name = f"twin-{fault}" if fault else "twin"
        save_file(answer(case, data, fault), args.folder / f"{name}.safetensors")


if __name__ == "__main__":
    main()
