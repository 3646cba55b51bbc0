#!/usr/bin/env python3
"""Records what PyTorch, transformers and peft compute for tiny models of every family and method, for
recorded_*_test.cpp to compare the engine with.

    python3 native/test/record_cases.py            writes native/test/recorded/
    python3 native/test/record_cases.py --check    says which recorded files are stale; exit code 1 if any is
    python3 native/test/record_cases.py --only qwen2-pesc     (either way) cases whose name contains that

Needs torch, transformers, peft, safetensors and numpy; made with torch 2.13, transformers 5.18, peft 0.21. Another
version may round differently: --check allows 2e-5 of each tensor's largest value.

A file holds float32 results and one metadata entry, the case itself as JSON. Initial values and masks are functions of
its seeds (record_random.py), so they are not stored."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.numpy import save_file

from record_case_list import CASES, RULES, draw
from record_models import CraftedModel, describe_config, make_config
from record_nf4 import stored_as_nf4
from record_random import integers
from record_rope import record_rope

FOLDER = Path(__file__).parent / "recorded"
SMALLEST_MARGIN = 1e-3  # of every top-k choice: so that rounding turns none


class Batch:
    """One optimizer step: conversations of 4 to 11 tokens, all but the last in the first micro-batch."""

    def __init__(self, case, seed, step):
        count = case["conversations"]
        lengths = integers(seed, step, 1000, count, *case["lengths"])
        vocabulary = case["config"]["vocab_size"]
        self.ids = [integers(seed, step, i, int(n), 0, vocabulary) for i, n in enumerate(lengths)]
        self.first_target = [int(n) // 2 - (i % 2) for i, n in enumerate(lengths)]
        self.micro_batches = [list(range(count - 1)), [count - 1]]

    def targets(self, i):
        """Rows that are scored and what they should say: token j is scored in row j - 1."""
        first = max(1, self.first_target[i])
        return torch.arange(first - 1, len(self.ids[i]) - 1), torch.from_numpy(self.ids[i][first:]).long()

    def target_count(self):
        return sum(len(self.targets(i)[0]) for i in range(len(self.ids)))


def balance_loss(logits, top_k):
    """E * sum_i F_i P_i of one layer and micro-batch; F carries no gradient."""
    experts = logits.shape[-1]
    chosen = logits.topk(top_k, dim=-1).indices
    share = torch.bincount(chosen.flatten(), minlength=experts) / chosen.numel()
    return experts * (share * logits.softmax(dim=-1).mean(dim=0)).sum(), share * chosen.numel()


def margin(logits, top_k):
    if top_k == logits.shape[-1]:
        return float("inf")
    ordered = logits.detach().sort(dim=-1, descending=True).values
    return (ordered[:, top_k - 1] - ordered[:, top_k]).min().item()


class Step:
    """Loss of one batch: sum of cross entropies / target tokens + alpha * mean over micro-batches of the balance loss,
    weighted by their tokens."""

    def __init__(self, model, batch, method):
        total_tokens = sum(len(ids) for ids in batch.ids)
        self.losses, self.tokens_per_expert, self.margin = [], [], float("inf")
        balance = torch.zeros(())
        for micro in batch.micro_batches:
            for router in model.routers:
                router.seen.clear()
            for i in micro:
                model.place.conversation = i
                rows, targets = batch.targets(i)
                self.losses.append(F.cross_entropy(model.logits(batch.ids[i])[rows], targets, reduction="none"))
            tokens = sum(len(batch.ids[i]) for i in micro)
            for router in model.routers:
                logits = torch.cat(router.seen)
                term, counts = balance_loss(logits, router.top_k)
                balance = balance + tokens / total_tokens * term
                self.tokens_per_expert.append(counts.round().int())
                self.margin = min(self.margin, margin(logits, router.top_k))
        self.cross_entropy = torch.cat(self.losses).sum() / batch.target_count()
        self.balance = method["balance_coefficient"] * balance
        self.total = self.cross_entropy + self.balance


def make_optimizer(model, case):
    """Vectors (norms, biases) do not decay."""
    matrices = [p for p in model.trainable.values() if p.dim() > 1]
    vectors = [p for p in model.trainable.values() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": case["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=case["lr"], betas=(0.9, 0.999), eps=1e-8)


def to_array(tensor):
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().copy()


def join(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def run_case(case, seed, dtype=torch.float32):
    """A case's tensors; None where a top-k choice is too close to call or the experts' loads are not those wanted."""
    config = make_config(case["family"], **case["config"])
    method = case["method"]
    model = CraftedModel(case["family"], config, method)
    given = case["initial"]({name: tuple(p.shape) for name, p in model.parameters.items()}, seed)

    def start(name, shape):
        value = given[name] if name in given else draw(seed, name, shape)
        return stored_as_nf4(value) if case["base"] == "nf4" and name.endswith("_proj.weight") else value

    model.initialise(start)
    model.causal.to(dtype)
    out = {f"initial.{name}": value for name, value in given.items()}

    batches = [Batch(case, seed, step) for step in range(1, case["steps"] + 1)]
    with torch.no_grad():
        out["logits"] = torch.cat([model.logits(ids) for ids in batches[0].ids])
        for prompt in case["decode"]:
            out[f"decoded.{prompt}"] = model.decode(max(batches[0].ids, key=len), prompt)

    trainable = list(model.trainable.values())
    before = join(trainable)
    optimizer = make_optimizer(model, case)
    losses, balances = [], []
    model.place.dropout, model.place.seed = True, seed
    for number, batch in enumerate(batches, start=1):
        model.place.step = number
        optimizer.zero_grad()
        step = Step(model, batch, method)
        if step.margin < (case["first_margin"] if number == 1 else SMALLEST_MARGIN):
            return None
        step.total.backward()
        losses.append(step.cross_entropy.item())
        balances.append(step.balance.item())
        if number == 1:
            out["losses"] = torch.cat(step.losses)
            out["gradients"] = join(p.grad if p.grad is not None else torch.zeros_like(p) for p in trainable)
            if step.tokens_per_expert:
                out["tokens_per_expert"] = torch.stack(step.tokens_per_expert)
                if not case["routes"](out["tokens_per_expert"].numpy()):
                    return None
        if case["steps"] > 1:
            torch.nn.utils.clip_grad_norm_(trainable, case["max_grad_norm"])
            optimizer.step()
    if case["steps"] > 1:
        out["after"] = join(trainable)
    out["loss"], out["balance"] = np.float32(losses), np.float32(balances)
    out["ids"] = np.concatenate([ids for batch in batches for ids in batch.ids])
    out["lengths"] = np.int32([len(ids) for batch in batches for ids in batch.ids])
    out["first_target"] = np.int32([first for batch in batches for first in batch.first_target])
    arrays = {k: to_array(v) if isinstance(v, torch.Tensor) else v for k, v in out.items()}
    return Recorded(model, before.float().numpy(), arrays)


class Recorded:
    def __init__(self, model, before, arrays):
        self.model, self.before, self.arrays = model, before, arrays

    def parameters(self, values):
        """`values` cut into the trainable tensors."""
        return np.split(values, np.cumsum([p.numel() for p in self.model.trainable.values()])[:-1])

    def largest_difference(self, other):
        """Of any tensor's gradient or update, relative to its largest."""
        worst = 0.0
        for name in ("gradients", "after"):
            if name not in self.arrays:
                continue
            start, other_start = (self.before, other.before) if name == "after" else (0.0, 0.0)
            ours, theirs = self.arrays[name] - start, other.arrays[name] - other_start
            for a, b in zip(self.parameters(ours), self.parameters(theirs), strict=True):
                allowed = 1e-3 if name == "after" else 1e-4
                largest = np.abs(b).max()
                if largest > 0:
                    worst = max(worst, np.abs(a - b).max() / largest / allowed)
        return worst


def bf16_differences(case, seed, found):
    """How far PyTorch's own bf16 is from its fp32 in the first step, of the logits, the losses and each gradient: the
    largest difference by the largest value, and the same of their root mean squares. The yardstick for the engine's
    bf16. None where bf16 turns a choice."""
    narrow = run_case(dict(case, steps=1, first_margin=0.0), seed, torch.bfloat16)
    counts = [each.arrays.get("tokens_per_expert") for each in (narrow, found)]
    if counts[0] is not None and (counts[0] != counts[1]).any():
        return None
    pairs = [(narrow.arrays[name], found.arrays[name]) for name in ("logits", "losses")]
    gradients = (found.parameters(each.arrays["gradients"]) for each in (narrow, found))
    pairs += zip(*gradients, strict=True)
    sizes = (lambda x: np.abs(x).max(), lambda x: np.sqrt(np.square(x).mean()))
    return np.float32([[size(a - b) / max(size(b), 1e-30) for size in sizes] for a, b in pairs])


def record(case, first_seed):
    """Tries seeds until every top-k choice of every step is clear and fp32's rounding moves nothing by more than a
    fifth of what the tests allow: AdamW divides by the root of v, so a gradient that is all rounding would become an
    update as large as any."""
    for seed in range(first_seed, first_seed + 400):
        found = run_case(case, seed)
        if found is None:
            continue
        exact = run_case(case, seed, torch.float64)
        if exact is None or found.largest_difference(exact) > 0.2:
            continue
        if case["bf16"]:
            differences = bf16_differences(case, seed, found)
            if differences is None:
                continue
            found.arrays["bf16_differences"] = differences
        description = {
            "config": describe_config(found.model.config),
            "method": case["method"],
            "seed": seed,
            "rules": RULES,
            **{key: case[key] for key in ("base", "conversations", "lr", "weight_decay", "max_grad_norm", "steps")},
        }
        return found.arrays, description
    raise AssertionError(f"{case['name']}: no seed keeps every top-k margin and the loads wanted; change its spreads")


def recorded_seed(path):
    if not path.exists():
        return 1
    with safe_open(path, "np") as stored:
        return json.loads(stored.metadata()["case"]).get("seed", 1)


def is_stale(path, arrays, text):
    if not path.exists():
        return "missing"
    with safe_open(path, "np") as stored:
        if json.loads(stored.metadata()["case"]) != json.loads(text):
            return "another case"
        if set(stored.keys()) != set(arrays):
            return "other tensors"
        for name, value in arrays.items():
            there = stored.get_tensor(name)
            if there.shape != value.shape or there.dtype != value.dtype:
                return f"{name} has another shape"
            largest = np.abs(value).max(initial=0)
            if np.abs(there.astype(np.float64) - value).max(initial=0) > 2e-5 * largest:
                return f"{name} has other values"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is recorded and write nothing")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    recorders = {case["name"]: lambda seed, case=case: record(case, seed) for case in CASES}
    recorders["rope"] = lambda seed: record_rope()
    stale = 0
    for name, run in recorders.items():
        if arguments.only not in name:
            continue
        path = FOLDER / f"{name}.safetensors"
        # To check, the recorded seed is good enough; to record, the search begins where it always did.
        arrays, description = run(recorded_seed(path) if arguments.check else 1)
        text = json.dumps(description, sort_keys=True)
        if arguments.check:
            problem = is_stale(path, arrays, text)
            stale += problem is not None
            print(f"{name}: {problem or 'as recorded'}")
        else:
            save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, metadata={"case": text})
            print(f"{name}: {path.stat().st_size} bytes, seed {description.get('seed')}")
    unknown = {path.stem for path in FOLDER.glob("*.safetensors")} - recorders.keys()
    for name in sorted(unknown):
        print(f"{name}: recorded, but no case has that name")
    if arguments.check and (stale or unknown):
        print("stale: run record_cases.py again")
        sys.exit(1)


if __name__ == "__main__":
    main()
