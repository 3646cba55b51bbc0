"""Cosines and sines of transformers' own rotary embeddings for every kind of scaling."""

import numpy as np
import torch
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from record_models import describe_config, make_config

SHAPE = dict(hidden_size=48, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
# name -> (head_dim, max_position_embeddings, rope_parameters, length)
KINDS = {
    "plain": (128, 4096, {"rope_type": "default", "rope_theta": 10000.0}, 4096),
    "plain-5e6": (24, 4096, {"rope_type": "default", "rope_theta": 5000000.0}, 4096),
    "linear": (64, 4096, {"rope_type": "linear", "factor": 2.5, "rope_theta": 10000.0}, 4096),
    "dynamic-short": (64, 256, {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}, 200),
    "dynamic-long": (64, 256, {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}, 1000),
    "llama3": (
        128,
        131072,
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_theta": 500000.0,
        },
        9000,
    ),
    "llama3-32": (
        64,
        131072,
        {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_theta": 500000.0,
        },
        9000,
    ),
    "yarn": (
        128,
        32768,
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192, "rope_theta": 1000000.0},
        9000,
    ),
    "yarn-untruncated": (
        64,
        4096,
        {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 512,
            "rope_theta": 10000.0,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "truncate": False,
        },
        4096,
    ),
    "yarn-mscale": (
        64,
        4096,
        {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 512,
            "rope_theta": 10000.0,
            "mscale": 0.7,
            "mscale_all_dim": 1.2,
        },
        4096,
    ),
    "yarn-attention-factor": (
        64,
        4096,
        {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 512,
            "rope_theta": 10000.0,
            "attention_factor": 0.9,
        },
        4096,
    ),
}


def record_rope():
    arrays, configs = {}, {}
    for name, (head_dim, max_positions, parameters, length) in KINDS.items():
        config = make_config(
            "llama",
            **SHAPE,
            head_dim=head_dim,
            vocab_size=8,
            max_position_embeddings=max_positions,
            rope_parameters=dict(parameters),
        )
        positions = np.unique(np.int64([1, 7, length // 3, length - 1]))
        embedding = LlamaRotaryEmbedding(config)
        cos, sin = embedding(torch.zeros(1, dtype=torch.float32), torch.from_numpy(positions)[None])
        half = head_dim // 2
        arrays[f"{name}.positions"] = positions.astype(np.int32)
        arrays[f"{name}.frequencies"] = embedding.inv_freq.numpy().copy()
        arrays[f"{name}.cos"] = cos[0, :, :half].numpy().copy()
        arrays[f"{name}.sin"] = sin[0, :, :half].numpy().copy()
        configs[name] = {"config": describe_config(config), "length": length}
    return arrays, {"kinds": configs}
