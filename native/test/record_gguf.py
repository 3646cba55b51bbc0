"""Writes recorded/gguf-types.gguf: every tensor type that the engine reads, and beside it what gguf's own dequantize makes
of it as NAME.expected in F32. usage: record_gguf.py [--check]; wants: pip install numpy gguf
"""

import pathlib
import sys
import tempfile

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize

TARGET = pathlib.Path(__file__).parent / "recorded" / "gguf-types.gguf"
TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]
# Where the half-precision scales of a block lie.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def random_blocks(name: str, random: np.random.Generator) -> np.ndarray:
    """Two rows of 512 elements: any bits, but scales that are numbers, subnormal and zero ones among them."""
    block, size = GGML_QUANT_SIZES[Type[name]]
    blocks = random.integers(0, 256, (2 * 512 // block, size), dtype=np.uint8)
    for at in SCALES[name]:
        scales = (random.standard_normal(len(blocks)) * 10.0 ** random.integers(-7, 2, len(blocks))).astype(np.float16)
        scales[0] = 0
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(2, -1)


def write(path: pathlib.Path) -> None:
    random = np.random.default_rng(2026)
    writer = GGUFWriter(str(path), "llama")
    writer.add_uint8("test.u8", 200)
    writer.add_int16("test.i16", -3)
    writer.add_uint64("test.u64", 1 << 40)
    writer.add_float64("test.f64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.text", "naïve")
    writer.add_array("test.texts", ["a", "", "ab"])
    writer.add_array("test.integers", [1, -2, 3])
    writer.add_array("test.numbers", [0.5, -1.5])
    for name in TYPES:
        if name in SCALES:
            data = random_blocks(name, random)
        else:
            values = (random.standard_normal((2, 512)) * 10.0 ** random.integers(-6, 3, (2, 512))).astype(np.float32)
            data = values if name == "F32" else quantize(values, Type[name])
        writer.add_tensor(name, data, raw_dtype=Type[name])
        expected = data if name == "F32" else dequantize(data, Type[name])
        writer.add_tensor(name + ".expected", np.ascontiguousarray(expected, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if sys.argv[1:] == ["--check"]:
    with tempfile.TemporaryDirectory() as folder:
        fresh = pathlib.Path(folder) / TARGET.name
        write(fresh)
        if fresh.read_bytes() != TARGET.read_bytes():
            sys.exit(f"{TARGET} is stale: run record_gguf.py")
else:
    write(TARGET)
