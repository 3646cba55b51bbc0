#!/usr/bin/env python3
"""Writes native/test/torch: checkpoints as torch.save writes them, what safetensors has of the same tensors, and such as
must be refused. Needs torch and safetensors; run it again when a case is added."""
import collections
import json
import os
import pickle
import zipfile

import torch
from safetensors.torch import save_file

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch")
torch.manual_seed(1)

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32, "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    "hidden_act": "silu", "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1,
}


def model(dtype):
    layer = "model.layers.0."
    shapes = {
        "model.embed_tokens.weight": (32, 16), layer + "self_attn.q_proj.weight": (16, 16),
        layer + "self_attn.k_proj.weight": (8, 16), layer + "self_attn.v_proj.weight": (8, 16),
        layer + "self_attn.o_proj.weight": (16, 16), layer + "mlp.gate_proj.weight": (24, 16),
        layer + "mlp.up_proj.weight": (24, 16), layer + "mlp.down_proj.weight": (16, 24),
        layer + "input_layernorm.weight": (16,), layer + "post_attention_layernorm.weight": (16,),
        "model.norm.weight": (16,), "lm_head.weight": (32, 16),
    }
    return collections.OrderedDict((name, (0.1 * torch.randn(shape)).to(dtype)) for name, shape in shapes.items())


def folder(name):
    path = os.path.join(here, name)
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "config.json"), "w") as file:
        json.dump(CONFIG, file, indent=2)
        file.write("\n")
    return path


def save(value, *name, **more):
    torch.save(value, os.path.join(here, *name), **more)


whole = model(torch.float32)
path = folder("whole")
save(whole, "whole", "pytorch_model.bin")
save_file(whole, os.path.join(path, "expected.safetensors"))

sharded = model(torch.bfloat16)
path = folder("sharded")
names = list(sharded)
shards = {"pytorch_model-00001-of-00002.bin": names[:5], "pytorch_model-00002-of-00002.bin": names[5:]}
for file, part in shards.items():
    save(collections.OrderedDict((name, sharded[name]) for name in part), "sharded", file)
with open(os.path.join(path, "pytorch_model.bin.index.json"), "w") as file:
    json.dump({"metadata": {}, "weight_map": {name: shard for shard, part in shards.items() for name in part}}, file, indent=1)
    file.write("\n")
save_file(sharded, os.path.join(path, "expected.safetensors"))

base = torch.arange(24, dtype=torch.float32).reshape(6, 4)
kinds = {
    "f32": base, "rows of f32": base[2:4], "f16": base.half(), "bf16": base.bfloat16(), "f64": base.double(),
    "i64": torch.arange(5), "i32": torch.arange(5, dtype=torch.int32), "i16": torch.arange(5, dtype=torch.int16),
    "i8": torch.arange(-2, 3, dtype=torch.int8), "u8": torch.arange(5, dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]), "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4),
    "column of one": base[:, :1].contiguous(), "tied": None,
}
kinds["tied"] = kinds["f32"]
save(kinds, "kinds.bin")
save(kinds, "protocol4.bin", pickle_protocol=4)
save_file({name: tensor.clone().contiguous() for name, tensor in kinds.items()}, os.path.join(here, "kinds.safetensors"))
linear = torch.nn.Linear(3, 2)
save(linear.state_dict(), "module_state.bin")

# What must be refused.
save({"turned": base.t()}, "turned.bin")
save({"weight": base}, "before_1_6.bin", _use_new_zipfile_serialization=False)
save({"state_dict": {"weight": base}}, "nested.bin")
save(linear, "module.bin")


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/caravan-was-here",))


def archive(name, pickled, compression=zipfile.ZIP_STORED, order="little"):
    with zipfile.ZipFile(os.path.join(here, name), "w", compression) as file:
        for entry, content in {"a/data.pkl": pickled, "a/byteorder": order, "a/data/0": bytes(96), "a/version": "3\n"}.items():
            file.writestr(zipfile.ZipInfo(entry), content, compression)


def tensor(offset=0, size=(2, 3), stride=(3, 1), numel=24, storage="FloatStorage", key="0"):
    """A dictionary of one tensor, instruction by instruction."""
    def number(value):
        return b"J" + value.to_bytes(4, "little", signed=True) if -2**31 <= value < 2**31 else b"\x8a\x08" + value.to_bytes(8, "little", signed=True)

    def text(value):
        return b"X" + len(value).to_bytes(4, "little") + value.encode()
    return (b"\x80\x02}" + text("weight") + b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\n"
            + storage.encode() + b"\n" + text(key) + text("cpu") + number(numel) + b"tQ" + number(offset)
            + b"(" + b"".join(map(number, size)) + b"t(" + b"".join(map(number, stride)) + b"t\x89}tRs.")


archive("evil.bin", pickle.dumps({"weight": Evil()}, 2))
archive("packed.bin", tensor(), zipfile.ZIP_DEFLATED)
archive("big_endian.bin", tensor(), order="big")
archive("plain.bin", tensor())
archive("beyond.bin", tensor(offset=19))
archive("negative.bin", tensor(offset=-1))
archive("huge.bin", tensor(size=(2**40, 2**40), stride=(2**40, 1)))
archive("wraps.bin", tensor(size=(2**47, 2**9, 2), stride=(2**10, 2, 1)))
archive("storage_lies.bin", tensor(numel=2**40))
archive("no_storage.bin", tensor(key="../../../etc/passwd"))
archive("unknown_storage.bin", tensor(storage="load"))
archive("overlapping.bin", tensor(stride=(0, 0)))

for folder_name, _, files in os.walk(here):
    for name in files:
        os.chmod(os.path.join(folder_name, name), 0o644)
