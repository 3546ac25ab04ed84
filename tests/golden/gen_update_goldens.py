"""Independent vectors for the kernels adamw and squares: steps of torch.optim.AdamW, and sums by numpy, both in double precision.

Writes adamw.safetensors and squares.safetensors beside this file. Needs torch, numpy and safetensors.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

HERE = Path(__file__).parent
META = {"generator": "gen_update_goldens.py", "torch": torch.__version__, "numpy": np.__version__}


def adamw(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    # name: values, steps, factor of the gradient, rate, weight decay, betas
    cases = {
        "plain": (37, 4, 1.0, 0.02, 0.0, (0.9, 0.999)),
        "decayed": (257, 5, 1.0, 0.02, 0.05, (0.9, 0.999)),
        # Clipped, and with the factor of a scaled loss.
        "scaled": (1030, 3, 0.37 / 1024, 0.1, 0.3, (0.9, 0.95)),
        "one": (1, 3, 0.5, 0.05, 0.05, (0.8, 0.98)),
    }
    for name, (n, steps, factor, rate, decay, betas) in cases.items():
        scalars = np.array([factor, rate, decay, *betas, 1e-8], np.float32)
        factor, rate, decay, beta1, beta2, epsilon = map(float, scalars)
        start = rng.standard_normal(n).astype(np.float32)
        gradients = (rng.standard_normal((steps, n)) / factor).astype(np.float32)
        # Nothing learnt at all, and next to nothing beside epsilon.
        if n > 2:
            gradients[:, 0], gradients[:, 1] = 0.0, 3e-9 / factor
        parameter = torch.nn.Parameter(torch.from_numpy(start).double())
        optimizer = torch.optim.AdamW([parameter], lr=rate, betas=(beta1, beta2), eps=epsilon, weight_decay=decay)
        made: dict[str, list[np.ndarray]] = {"parameters": [], "first": [], "second": []}
        for gradient in gradients:
            parameter.grad = torch.from_numpy(gradient).double() * factor
            optimizer.step()
            state = optimizer.state[parameter]
            for part, values in zip(made.values(), (parameter, state["exp_avg"], state["exp_avg_sq"]), strict=True):
                part.append(values.detach().numpy().astype(np.float32))
        tensors |= {f"{name}.scalars": scalars, f"{name}.parameter": start, f"{name}.gradients": gradients}
        tensors |= {f"{name}.{part}": np.stack(values) for part, values in made.items()}
    return tensors


def squares(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    # name: values, and the sum before them
    cases = {
        "one": (1, 0.0),
        "odd": (77, 2.5),
        # More values than a turn of a workgroup has.
        "turns": (1531, 1000.0),
        # More than one chunk, and some left over.
        "chunks": (9001, 3.0),
    }
    for name, (n, before) in cases.items():
        x = rng.standard_normal(n).astype(np.float32)
        total = before + (x.astype(np.float64) ** 2).sum()
        tensors |= {f"{name}.x": x, f"{name}.before": np.array([before], np.float32), f"{name}.sum": np.array([total], np.float32)}
    return tensors


if __name__ == "__main__":
    save_file(adamw(np.random.default_rng(17)), HERE / "adamw.safetensors", META)
    save_file(squares(np.random.default_rng(18)), HERE / "squares.safetensors", META)
