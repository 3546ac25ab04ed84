"""The other side of `tests/weights.rs`: networks made by timm and transformers with random weights, and the loading of ours.

    python3 tests/parity/exchange.py make FOLDER      reads case.json, writes network files, pixels and features
    python3 tests/parity/exchange.py load FOLDER      loads exported.safetensors strictly, writes loaded.safetensors with its features

`case.json`: {"from": "timm" | "hf" | "mae" | "maskfeat", "size", "patch", "channels", "dim", "depth", "heads", "cls"}
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def network(case):
    if case["from"] == "hf":
        import transformers

        config = transformers.ViTConfig(
            image_size=case["size"], patch_size=case["patch"], num_channels=case["channels"], hidden_size=case["dim"],
            num_hidden_layers=case["depth"], num_attention_heads=case["heads"], intermediate_size=4 * case["dim"], layer_norm_eps=1e-6,
        )
        return transformers.ViTModel(config, add_pooling_layer=False).eval()
    import timm

    if case.get("name"):
        return timm.create_model(case["name"], pretrained=False).eval()
    return timm.models.VisionTransformer(
        img_size=case["size"], patch_size=case["patch"], in_chans=case["channels"], embed_dim=case["dim"], depth=case["depth"],
        num_heads=case["heads"], class_token=case["cls"], global_pool="", num_classes=0,
    ).eval()


def features(model, pixels):
    x = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        return model.forward_features(x) if hasattr(model, "forward_features") else model(x).last_hidden_state


def make(folder, case):
    torch.manual_seed(7)
    model = network(case)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms, too, begin as constants
            parameter.add_(0.05 * torch.randn_like(parameter))
    pixels = torch.randint(0, 256, (2, case["size"], case["size"], case["channels"]), dtype=torch.uint8)
    save_file({"pixels": pixels, "features": features(model, pixels).contiguous()}, folder / "expected.safetensors")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if case["from"] == "hf":
        model.save_pretrained(folder / "hf")
        (folder / "hf/model.safetensors").rename(folder / "network.safetensors")
        torch.save(state, folder / "network.pth")
        return
    save_file(state, folder / "network.safetensors")
    extra = {"mask_token": torch.zeros(1, 1, case["dim"])}
    if case["from"] == "mae":
        extra |= {"decoder_embed.weight": torch.zeros(8, case["dim"]), "decoder_pos_embed": torch.zeros(1, 17, 8)}
        torch.save({"model": state | extra, "epoch": 3, "args": {"lr": 1e-3}}, folder / "network.pth")
    elif case["from"] == "maskfeat":
        state["pred_head.transforms.0.0.weight"] = state.pop("norm.weight")
        state["pred_head.transforms.0.0.bias"] = state.pop("norm.bias")
        state["pred_head.projections.0.weight"] = torch.zeros(108, case["dim"])
        torch.save({"epoch": 3, "model_state": state | extra, "optimizer_state": {"state": {0: {"exp_avg": torch.zeros(3)}}}}, folder / "network.pth")
    else:
        model.head = torch.nn.Linear(case["dim"], 5)
        torch.save({"state_dict": {f"module.{n}": t for n, t in model.state_dict().items()}}, folder / "network.pth")


def load(folder, case):
    state = load_file(folder / "exported.safetensors")
    model = network(case)
    if case["from"] == "hf":
        import transformers

        model, said = transformers.ViTModel.from_pretrained(
            None, config=model.config, add_pooling_layer=False, state_dict=state, output_loading_info=True
        )
        assert not said["missing_keys"] and not said["unexpected_keys"], said
        model.eval()
    else:
        if case.get("name"):
            model.reset_classifier(0)
        model.load_state_dict(state, strict=True)
    pixels = load_file(folder / "expected.safetensors")["pixels"]
    save_file({"features": features(model, pixels).contiguous()}, folder / "loaded.safetensors")


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    {"make": make, "load": load}[sys.argv[1]](folder, json.loads((folder / "case.json").read_text()))
