"""Writes tiny models in the published sparse layouts, and what published_model.py makes of them, to native/test/published.

record_published.py --check only says whether they are stale.
"""

import json
import os
import sys

import torch
from safetensors.torch import load_file, save_file

from published_model import PublishedModel, load_folder

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "published")
SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "adapter_dim": 6,
    "moe_dtype": "bfloat16",
    "output_router_logits": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# As the published config.json of each has them.
MODELS = {
    "camelidae": {
        "architectures": ["modeling_camelidae.LlamaForCausalLM"],
        "model_type": "camelidae",
        "num_experts": 4,
        "topk": 2,
        "moe_scaling": 0.25,
        "pretraining_tp": 1,
        "rope_scaling": None,
    },
    # The first uploads called themselves llama.
    "camelidae-first": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_experts": 4,
        "topk": 1,
        "moe_scaling": 0.25,
        "pretraining_tp": 1,
        "rope_scaling": None,
    },
    "qwen2idae": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2idae",
        "num_experts": 6,
        "topk": 4,
        "moe_scaling": 0.25,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "sliding_window": 8,
        "use_sliding_window": False,
        "max_window_layers": 1,
        "attention_dropout": 0.0,
    },
    "sparsetral": {
        "architectures": ["modeling_sparsetral.MistralForCausalLM"],
        "model_type": "sparsetral",
        "num_experts": 6,
        "topk": 4,
        "moe_scaling": 1,
        "adapter_dropout": 0.0,
        "rope_theta": 10000.0,
        "router_aux_loss_coef": 0.01,
        "sliding_window": 5,
    },
}


def make_tensors(name, config):
    torch.manual_seed(len(name))
    hidden, inner, size = config["hidden_size"], config["intermediate_size"], config["hidden_size"] // config["num_attention_heads"]
    kv = config["num_key_value_heads"] * size
    tensors = {}

    def add(name, *shape, spread=0.3):
        tensors[name] = (torch.randn(shape) * spread + (1.0 if len(shape) == 1 and "norm" in name else 0.0)).bfloat16()

    add("model.embed_tokens.weight", config["vocab_size"], hidden, spread=1.0)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        add(prefix + "input_layernorm.weight", hidden)
        add(prefix + "post_attention_layernorm.weight", hidden)
        for part, rows, cols in (("q", hidden, hidden), ("k", kv, hidden), ("v", kv, hidden), ("o", hidden, hidden)):
            add(prefix + f"self_attn.{part}_proj.weight", rows, cols)
            if config["model_type"] == "qwen2idae" and part != "o":
                add(prefix + f"self_attn.{part}_proj.bias", rows)
        for part, rows, cols in (("gate", inner, hidden), ("up", inner, hidden), ("down", hidden, inner)):
            add(prefix + f"mlp.{part}_proj.weight", rows, cols)
        moe = prefix + "mlp.moe_adapter."
        add(moe + "router.weight", config["num_experts"], hidden)
        for expert in range(config["num_experts"]):
            spelled = f"experts.{expert}" if config["model_type"] == "sparsetral" else f"experts.expert_{expert}"
            add(moe + spelled + ".adapter_down.weight", config["adapter_dim"], hidden)
            add(moe + spelled + ".adapter_up.weight", hidden, config["adapter_dim"], spread=0.5)
    add("model.norm.weight", hidden)
    add("lm_head.weight", config["vocab_size"], hidden)
    return tensors


def expected_of(folder):
    ids = torch.randint(0, SHAPE["vocab_size"], (23,), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        logits = PublishedModel(*load_folder(folder)).logits(ids.tolist())
    return {"ids": ids.to(torch.int32), "logits": logits.contiguous()}


def main():
    check = "--check" in sys.argv[1:]
    stale = []
    for name, more in MODELS.items():
        folder = os.path.join(FOLDER, name)
        config = {**SHAPE, **more}
        if not check:
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, "config.json"), "w", encoding="utf8") as file:
                file.write(json.dumps(config, indent=2) + "\n")
            save_file(make_tensors(name, config), os.path.join(folder, "model.safetensors"), {"format": "pt"})
            save_file(expected_of(folder), os.path.join(folder, "expected.safetensors"))
            continue
        recorded = load_file(os.path.join(folder, "expected.safetensors"))
        if not torch.allclose(recorded["logits"], expected_of(folder)["logits"], atol=1e-5):
            stale.append(name)
    if stale:
        sys.exit("stale: " + ", ".join(stale))


if __name__ == "__main__":
    main()
