"""PESC and sparse upcycling in plain PyTorch around transformers' models and peft's LoRA: the formulas that the engine
is held to, written to be read and not to be fast."""

import json

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from record_random import ADAPTER_SITE, SITES, dropout_mask

FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "smollm3": (SmolLM3Config, SmolLM3ForCausalLM),
}


class Place:
    """Where the forward pass now is: what every dropout mask depends on."""

    def __init__(self):
        self.dropout, self.seed, self.step, self.conversation = False, 0, 1, 0


class PhiloxDropout(nn.Module):
    def __init__(self, place, p, layer, site):
        super().__init__()
        self.place, self.p, self.layer, self.site = place, p, layer, site

    def forward(self, x):  # (1, T, C)
        if not self.place.dropout or self.p == 0.0:
            return x
        place = self.place
        mask = dropout_mask(
            self.p, place.seed, place.step, self.layer, self.site, place.conversation, x.shape[1], x.shape[2]
        )
        return x * torch.from_numpy(mask)


class Router(nn.Module):
    """Keeps the K largest logits of each token; their softmax weighs the experts."""

    def __init__(self, num_experts, top_k, hidden_size):
        super().__init__()
        self.top_k = top_k
        self.weight = nn.Parameter(torch.empty(num_experts, hidden_size))
        self.seen = []  # logits (T, E) of every conversation since the last reset

    def forward(self, x):  # (T, C) -> weights (T, E), zero where not chosen
        logits = x @ self.weight.T
        self.seen.append(logits)
        best, chosen = logits.topk(self.top_k, dim=-1)
        return torch.zeros_like(logits).scatter(-1, chosen, best.softmax(dim=-1))


class AdapterExperts(nn.Module):
    """PESC: y = f + s * sum_k w_k Up_k(gelu(Down_k(dropout(f)))), f the dense FFN, computed once."""

    def __init__(self, dense, method, hidden_size, dropout):
        super().__init__()
        experts, width = method["num_experts"], method["adapter_dim"]
        self.dense, self.scale, self.dropout = dense, method["adapter_scale"], dropout
        self.router = Router(experts, method["top_k"], hidden_size)
        self.adapter_down = nn.Parameter(torch.empty(experts, width, hidden_size))
        self.adapter_up = nn.Parameter(torch.empty(experts, hidden_size, width))

    def forward(self, x):  # (1, T, C)
        f = self.dense(x)
        weights = self.router(x[0])
        inputs = self.dropout(f)
        y = f
        for e in range(self.adapter_down.shape[0]):
            adapted = F.gelu(inputs @ self.adapter_down[e].T) @ self.adapter_up[e].T
            y = y + self.scale * weights[None, :, e, None] * adapted
        return y


class Stacked(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))


class FfnExperts(nn.Module):
    """Sparse upcycling: y = sum_k w_k FFN_k(x)."""

    def __init__(self, method, hidden_size, intermediate_size):
        super().__init__()
        experts = method["num_experts"]
        self.router = Router(experts, method["top_k"], hidden_size)
        self.experts = nn.ModuleDict(
            {
                "gate_proj": Stacked(experts, intermediate_size, hidden_size),
                "up_proj": Stacked(experts, intermediate_size, hidden_size),
                "down_proj": Stacked(experts, hidden_size, intermediate_size),
            }
        )

    def forward(self, x):  # (1, T, C)
        weights = self.router(x[0])
        gate, up, down = (self.experts[name].weight for name in ("gate_proj", "up_proj", "down_proj"))
        y = torch.zeros_like(x)
        for e in range(gate.shape[0]):
            hidden = F.silu(x @ gate[e].T) * (x @ up[e].T)
            y = y + weights[None, :, e, None] * (hidden @ down[e].T)
        return y


def make_config(family, **values):
    config_class, model_class = FAMILIES[family]
    config = config_class(**values, attn_implementation="eager")
    config.architectures = [model_class.__name__]
    return config


def describe_config(config):
    """config.json as transformers writes it, less its own version."""
    description = json.loads(config.to_json_string())
    del description["transformers_version"]
    return description


def engine_name(name):
    """The engine's name of one of our parameters."""
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".mlp.dense.", ".mlp.")
    name = name.replace(".mlp.router.weight", ".mlp.router")
    return name.replace(".lora_A.default.weight", ".lora_a").replace(".lora_B.default.weight", ".lora_b")


class CraftedModel:
    """A base model crafted by a method. `parameters` holds every tensor by engine name, `trainable` those that train,
    sorted by name."""

    def __init__(self, family, config, method):
        self.method, self.config, self.place = method, config, Place()
        torch.manual_seed(0)
        self.causal = FAMILIES[family][1](config)
        self.routers = []
        kind = method["method"]
        if kind in ("lora", "pesc"):
            self.add_lora()
        if kind == "pesc":
            self.replace_mlps(
                lambda index, dense: AdapterExperts(
                    dense,
                    method,
                    config.hidden_size,
                    PhiloxDropout(self.place, method["adapter_dropout"], index, ADAPTER_SITE),
                )
            )
        if kind == "upcycle":
            self.replace_mlps(lambda index, dense: FfnExperts(method, config.hidden_size, config.intermediate_size))
        self.parameters = {engine_name(name): value for name, value in self.causal.named_parameters()}
        self.trainable = {name: value for name, value in sorted(self.parameters.items()) if value.requires_grad}

    def layers(self):
        return (self.causal.base_model.model if self.method["method"] in ("lora", "pesc") else self.causal).model.layers

    def add_lora(self):
        self.causal = get_peft_model(
            self.causal,
            LoraConfig(
                r=self.method["lora_rank"],
                lora_alpha=self.method["lora_alpha"],
                lora_dropout=0.0,
                target_modules=list(SITES),
                bias="none",
                task_type="CAUSAL_LM",
            ),
        )
        # peft's own dropout draws from a generator with a state; ours is put in the same place of its forward pass.
        for index, layer in enumerate(self.layers()):
            for name, module in layer.named_modules():
                site = SITES.get(name.rsplit(".", 1)[-1])
                if site is not None:
                    p = self.method["lora_dropout"]
                    module.lora_dropout["default"] = PhiloxDropout(self.place, p, index, site)

    def replace_mlps(self, make):
        for index, layer in enumerate(self.layers()):
            layer.mlp = make(index, layer.mlp)
            self.routers.append(layer.mlp.router)

    def initialise(self, value_of):
        """value_of(name, shape): an array."""
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(torch.from_numpy(value_of(name, tuple(value.shape))))

    def forget_length(self):
        """Dynamic scaling keeps the frequencies of a longer sequence that went before; each conversation starts anew."""
        for module in self.causal.modules():
            if hasattr(module, "max_seq_len_cached"):
                module.max_seq_len_cached = module.original_max_seq_len
                module.inv_freq = module.original_inv_freq

    def logits(self, ids):
        """(T, V) of one conversation."""
        self.forget_length()
        return self.causal(input_ids=torch.from_numpy(ids).long()[None]).logits[0]

    def decode(self, ids, prompt):
        """(T - prompt + 1, V): after the first `prompt` tokens of a conversation, and after each further one, read from
        a cache as `generate` reads them."""
        self.forget_length()
        ids = torch.from_numpy(ids).long()[None]
        out = self.causal(input_ids=ids[:, :prompt], use_cache=True)
        rows = [out.logits[0, -1]]
        for t in range(prompt, ids.shape[1]):
            out = self.causal(input_ids=ids[:, t : t + 1], past_key_values=out.past_key_values, use_cache=True)
            rows.append(out.logits[0, -1])
        return torch.stack(rows)
