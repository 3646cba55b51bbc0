"""NF4 with double quantisation in NumPy, from bitsandbytes' definition: what a weight is once it has been stored."""

import numpy as np
import torch

CODE = np.float32(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
        0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ]
)  # fmt: skip


def dynamic_map():
    """bitsandbytes' create_dynamic_map(signed=True, max_exponent_bits=7, total_bits=8)."""
    values = [0.0, 1.0]
    for i in range(7):
        boundaries = torch.linspace(0.1, 1, 2**i + 1, dtype=torch.float32)
        means = (boundaries[:-1] + boundaries[1:]) / 2.0
        values += (10 ** (i - 6) * means).tolist() + (-(10 ** (i - 6)) * means).tolist()
    return np.float32(sorted(values))


def nearest(codes, values):
    """Indices; no value here lies on a midpoint."""
    return np.abs(codes.astype(np.float64)[None, :] - values.astype(np.float64)[:, None]).argmin(axis=1)


def stored_as_nf4(weight):
    """`weight` after quantisation in blocks of 64, the scales in 8 bits in blocks of 256 about their mean."""
    flat = weight.reshape(-1)
    blocks = [flat[i : i + 64] for i in range(0, len(flat), 64)]
    absmax = np.float32([np.abs(block).max() for block in blocks])
    offset = np.float32(absmax.astype(np.float64).mean())
    codes = dynamic_map()
    scales = []
    for i in range(0, len(absmax), 256):
        centred = absmax[i : i + 256] - offset
        largest = np.abs(centred).max()
        scales.append(codes[nearest(codes, centred * (np.float32(1) / largest))] * largest + offset)
    scales = np.concatenate(scales)
    values = [
        CODE[nearest(CODE, block * (np.float32(1) / largest))] * scale
        for block, largest, scale in zip(blocks, absmax, scales, strict=True)
    ]
    return np.concatenate(values).reshape(weight.shape)
