"""Camelidae, Qwen2idae and sparsetral in plain PyTorch: written from the published modelling code's formulas and tensor
names, without transformers, to be read and not to be fast. What the engine loads and exports is held to it.

usage: published_model.py FOLDER ROWS
ROWS: JSON lines {context, continuation}; writes one JSON line {ids, token_logprobs} each.
"""

import json
import os
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


def load_folder(folder):
    """config.json and all tensors of a folder, in fp32."""
    with open(os.path.join(folder, "config.json"), encoding="utf8") as file:
        config = json.load(file)
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if name.startswith("model") and name.endswith(".safetensors"):
            tensors.update(load_file(os.path.join(folder, name)))
    return config, {name: tensor.float() for name, tensor in tensors.items()}


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x, theta):  # (heads, T, D), halves rotated against each other
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequency
    cos, sin = angle.cos().float(), angle.sin().float()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class PublishedModel:
    """One token sequence at a time; no cache."""

    def __init__(self, config, tensors):
        self.config, self.tensors = config, tensors
        # Camelidae's code builds its rotary embedding with the default base, whatever the file says.
        self.theta = 10000.0 if config["model_type"] == "camelidae" else config.get("rope_theta", 10000.0)
        self.window = config.get("sliding_window") if config.get("use_sliding_window", True) else None

    def linear(self, x, name):
        return F.linear(x, self.tensors[name + ".weight"], self.tensors.get(name + ".bias"))

    def attention(self, x, prefix):
        config = self.config
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        size = config["hidden_size"] // heads

        def split(name, count):
            return self.linear(x, prefix + name).view(-1, count, size).transpose(0, 1)

        q, k, v = split("q_proj", heads), split("k_proj", kv_heads), split("v_proj", kv_heads)
        q, k = rotate(q, self.theta), rotate(k, self.theta)
        k, v = (t.repeat_interleave(heads // kv_heads, 0) for t in (k, v))
        scores = q @ k.transpose(1, 2) / size**0.5
        place = torch.arange(x.shape[0])
        distance = place[:, None] - place[None, :]
        hidden = distance < 0
        if self.window is not None:
            hidden |= distance >= self.window
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        return self.linear((weights @ v).transpose(0, 1).reshape(x.shape[0], -1), prefix + "o_proj")

    def expert_name(self, prefix, expert):
        indexed = prefix + f"moe_adapter.experts.{expert}"
        return indexed if indexed + ".adapter_down.weight" in self.tensors else prefix + f"moe_adapter.experts.expert_{expert}"

    def mlp(self, x, prefix):
        """y = sum over the K chosen experts of w (F + s Up(gelu(Down F))), F the shared FFN."""
        config = self.config
        ffn = self.linear(F.silu(self.linear(x, prefix + "gate_proj")) * self.linear(x, prefix + "up_proj"), prefix + "down_proj")
        logits = self.linear(x, prefix + "moe_adapter.router")
        best, chosen = logits.topk(config["topk"], -1)
        weights = best.softmax(-1)
        out = torch.zeros_like(ffn)
        for expert in range(config["num_experts"]):
            name = self.expert_name(prefix, expert)
            adapted = self.linear(F.gelu(self.linear(ffn, name + ".adapter_down")), name + ".adapter_up")
            share = (weights * (chosen == expert)).sum(-1, keepdim=True)
            out += share * (ffn + config["moe_scaling"] * adapted)
        return out

    def logits(self, ids):
        eps = self.config["rms_norm_eps"]
        x = self.tensors["model.embed_tokens.weight"][torch.tensor(ids)]
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            normed = rms_norm(x, self.tensors[prefix + "input_layernorm.weight"], eps)
            x = x + self.attention(normed, prefix + "self_attn.")
            normed = rms_norm(x, self.tensors[prefix + "post_attention_layernorm.weight"], eps)
            x = x + self.mlp(normed, prefix + "mlp.")
        x = rms_norm(x, self.tensors["model.norm.weight"], eps)
        head = self.tensors.get("lm_head.weight", self.tensors["model.embed_tokens.weight"])
        return x @ head.T


def main():
    from tokenizers import Tokenizer

    folder, rows = sys.argv[1:]
    model = PublishedModel(*load_folder(folder))
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    with open(rows, encoding="utf8") as lines, torch.no_grad():
        for line in lines:
            row = json.loads(line)
            context = tokenizer.encode(row["context"]).ids
            whole = tokenizer.encode(row["context"] + row["continuation"]).ids
            logits = model.logits(whole).double().log_softmax(-1)
            found = [float(logits[at - 1, whole[at]]) for at in range(len(context), len(whole))]
            print(json.dumps({"ids": whole[len(context) :], "token_logprobs": found}))


if __name__ == "__main__":
    main()
