"""The recorded cases: which models, methods and numbers, and what their tensors start from."""

import math

import numpy as np

from record_random import fill

LLAMA = dict(
    hidden_size=21,
    intermediate_size=27,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    head_dim=6,
    vocab_size=43,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    tie_word_embeddings=False,
)
QWEN2 = dict(
    LLAMA,
    hidden_size=18,
    intermediate_size=17,
    num_attention_heads=4,
    num_key_value_heads=2,
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
)

METHOD = dict(
    lora_rank=2,
    lora_alpha=3.0,
    lora_dropout=0.0,
    num_experts=4,
    top_k=2,
    adapter_dim=3,
    adapter_dropout=0.0,
    adapter_scale=1.0,
    balance_coefficient=0.02,
)


# Initial values by the end of a tensor's name, the first that matches: center, spread, and whether the spread is
# divided by the square root of the last dimension. Large enough that every part of the formula shows in the result.
RULES = [
    ["norm.weight", 1.0, 0.3, False],
    [".bias", 0.0, 0.3, False],
    ["embed_tokens.weight", 0.0, 1.0, False],
    [".router", 0.0, 8.0, True],
    ["", 0.0, 1.7, True],
]


def draw(seed, name, shape):
    _, center, spread, by_fan_in = next(rule for rule in RULES if name.endswith(rule[0]))
    return fill(seed, name, shape, center, spread / math.sqrt(shape[-1]) if by_fan_in else spread)


def draw_all(shapes, seed):
    return {}


def steer_router(push):
    """Every token has the same large first channel, by which the routers are pushed towards or away from an expert."""

    def initial(shapes, seed):
        embedding = "model.embed_tokens.weight"
        tensors = {embedding: draw(seed, embedding, shapes[embedding])}
        tensors[embedding][:, 0] = 8.0
        for name in shapes:
            if name.endswith("post_attention_layernorm.weight"):
                tensors[name] = np.ones(shapes[name], dtype=np.float32)
            if name.endswith(".router"):
                # Not so sure of itself that its softmax, and with it the balance gradient, vanishes.
                tensors[name] = np.float32(0.25) * draw(seed, name, shapes[name])
                tensors[name][:, 0] = 0.0
                tensors[name][2, 0] = push
        return tensors

    return initial


def anywhere(tokens_per_expert):
    return True


def not_on_expert_2(tokens_per_expert):
    return (tokens_per_expert[:, 2] == 0).all()


def all_on_expert_2(tokens_per_expert):
    return (np.delete(tokens_per_expert, 2, axis=1) == 0).all() and (tokens_per_expert[:, 2] > 0).all()


def make_case(name, family, config, method, **changes):
    case = dict(
        name=name,
        family=family,
        config=config,
        method=dict(METHOD, method=method, **changes.pop("numbers", {})),
        initial=draw_all,
        routes=anywhere,
        base="f32",
        conversations=4,
        lengths=(4, 11),
        decode=(),  # prompts, of the first batch's longest conversation, that are gone on with token by token
        lr=5e-3,
        weight_decay=0.0,
        max_grad_norm=0.3,
        steps=10,
        first_margin=1e-3,
        bf16=False,
    )
    unknown = changes.keys() - case.keys()
    assert not unknown, unknown
    case.update(changes)
    return case


def method_cases(family, config, tied):
    def case(name, method, **changes):
        if method in ("full", "upcycle"):  # a file holds every weight twice
            changes["config"] = dict(hidden_size=15, vocab_size=31, intermediate_size=13, **changes.get("config", {}))
        own = dict(config, **changes.pop("config", {}))
        return make_case(f"{family}-{name}", family, own, method, **changes)

    dropout = dict(lora_dropout=0.1, adapter_dropout=0.1)
    return [
        case("lora", "lora", bf16=True),
        case("lora-dropout", "lora", numbers=dropout, weight_decay=0.1),
        # The first step's margin is wide, so that bf16 arithmetic makes the same choices.
        case("pesc-4-2", "pesc", first_margin=0.15, bf16=True),
        case("pesc-4-1", "pesc", numbers=dict(top_k=1)),
        case("pesc-8-2", "pesc", numbers=dict(num_experts=8, adapter_scale=0.25)),
        case("pesc-8-1", "pesc", numbers=dict(num_experts=8, top_k=1)),
        case("pesc-hole", "pesc", initial=steer_router(-1.5), routes=not_on_expert_2),
        case("pesc-one", "pesc", numbers=dict(top_k=1), initial=steer_router(1.0), routes=all_on_expert_2),
        case("pesc-dropout", "pesc", numbers=dropout),
        case("pesc-nf4", "pesc", base="nf4"),
        case("full", "full", weight_decay=0.1, bf16=True),
        case(f"full-{'un' if tied else ''}tied", "full", config=dict(tie_word_embeddings=not tied)),
        case("upcycle", "upcycle", numbers=dict(num_experts=3), first_margin=0.15, bf16=True),
    ]


def family_cases():
    """What other families and scalings of the rotary embedding change: one step's logits and gradients."""

    def case(name, family, method, numbers=(), lengths=(4, 11), decode=(), **config):
        small = dict(LLAMA, intermediate_size=13, vocab_size=23)
        return make_case(
            f"family-{name}",
            family,
            {**small, **config},
            method,
            numbers=dict(numbers),
            lengths=lengths,
            decode=decode,
            steps=1,
        )

    def rope(kind, **values):
        return {"rope_type": kind, "rope_theta": 10000.0, **values}

    stretched = dict(factor=4.0, original_max_position_embeddings=16)
    special = dict(pad_token_id=None, bos_token_id=None, eos_token_id=None)  # its own lie beyond this vocabulary
    return [
        case("mistral-window", "mistral", "full", sliding_window=3),
        case("mistral", "mistral", "lora", sliding_window=None),
        case("qwen2-window", "qwen2", "lora", use_sliding_window=True, sliding_window=3, max_window_layers=1),
        case("qwen3", "qwen3", "full", tie_word_embeddings=True),
        case("qwen3-bias", "qwen3", "lora", attention_bias=True),
        # Its second layer does not rotate.
        case("smollm3", "smollm3", "full", tie_word_embeddings=True, no_rope_layers=[1, 0], **special),
        case("smollm3-lora", "smollm3", "lora", no_rope_layers=[0, 1], **special),
        case("llama-bias", "llama", "full", attention_bias=True, mlp_bias=True),
        case("llama-bias-pesc", "llama", "pesc", attention_bias=True, mlp_bias=True),
        case("linear", "llama", "lora", rope_parameters=rope("linear", factor=2.5)),
        # Some conversations lie within max_position_embeddings, some beyond.
        case(
            "dynamic",
            "llama",
            "lora",
            rope_parameters=rope("dynamic", factor=3.0),
            max_position_embeddings=7,
            lengths=(4, 15),
            decode=(4, 9),
        ),
        case(
            "llama3",
            "llama",
            "lora",
            rope_parameters=rope("llama3", low_freq_factor=1.0, high_freq_factor=4.0, **stretched),
        ),
        case("yarn", "llama", "lora", rope_parameters=rope("yarn", **stretched)),
    ]


CASES = [
    *method_cases("llama", LLAMA, tied=False),
    *method_cases("qwen2", QWEN2, tied=True),
    *family_cases(),
]
