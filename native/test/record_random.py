"""The random numbers of recorded cases: Philox4x32-10, tensors that need not be stored, and dropout masks.

All of it is written from native/kernels/philox.h and dropout.h, in NumPy, so that a case holds only what PyTorch
computed."""

import numpy as np

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SITES = {name: site for site, name in enumerate(PROJECTIONS)}
ADAPTER_SITE = 7
INIT_KEY = 0x494E4954  # the second key word of what `fill` draws: apart from every key of a run


def philox(key0, key1, c0, c1, c2, c3):
    """Four words for each counter; counters are broadcast arrays of uint32 values."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0, c1, c2, c3 = (np.asarray(c, dtype=np.uint64) for c in np.broadcast_arrays(c0, c1, c2, c3))
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (p1 >> half) ^ c1 ^ np.uint64(key0),
            p1 & mask,
            (p0 >> half) ^ c3 ^ np.uint64(key1),
            p0 & mask,
        )
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


def name_hash(name):
    """FNV-1a in 32 bits."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def fill(seed, name, shape, center, spread):
    """center + spread * u, u uniform in [-1, 1) with 24 bits: a function of the arguments in fp32."""
    count = int(np.prod(shape))
    words = philox(seed, INIT_KEY, name_hash(name), np.arange((count + 3) // 4), 0, 0).reshape(-1)[:count]
    uniform = (words >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)
    value = np.float32(center) + np.float32(spread) * (np.float32(2) * uniform - np.float32(1))
    return value.reshape(shape)


def integers(seed, step, item, count, low, high):
    """`count` whole numbers in [low, high)."""
    words = philox(seed, 0x44415441, step, item, np.arange((count + 3) // 4), 0).reshape(-1)[:count]
    return (words % np.uint64(high - low)).astype(np.int32) + low


def dropout_mask(p, seed, step, layer, site, conversation, positions, channels):
    """(positions, channels): 0 where dropped, 1 / (1 - p) where kept. `p` as fp32 has it."""
    p = np.float32(p)
    threshold = np.uint64(int(np.floor(float(p) * 2.0**32)))
    words = philox(
        seed,
        step,
        conversation,
        np.arange(positions)[:, None],
        layer * 16 + site,
        np.arange((channels + 3) // 4)[None, :],
    ).reshape(positions, -1)[:, :channels]
    return np.where(words >= threshold, np.float32(1) / (np.float32(1) - p), np.float32(0)).astype(np.float32)
