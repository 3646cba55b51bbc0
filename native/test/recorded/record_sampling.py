"""Writes sampling.json: what Hugging Face's logits processors leave of given logits, in the order in which `generate`
applies them. Needs transformers and torch."""

import json
import pathlib
import random

import torch
import transformers
from transformers.generation import logits_process as processors


def distribution(case):
    chain = []
    if case["repetition_penalty"] != 1.0:
        chain.append(processors.RepetitionPenaltyLogitsProcessor(case["repetition_penalty"]))
    if case["temperature"] != 1.0:
        chain.append(processors.TemperatureLogitsWarper(case["temperature"]))
    if case["top_k"] != 0:
        chain.append(processors.TopKLogitsWarper(case["top_k"]))
    if case["top_p"] < 1.0:
        chain.append(processors.TopPLogitsWarper(case["top_p"]))
    if case["min_p"] > 0.0:
        chain.append(processors.MinPLogitsWarper(case["min_p"]))
    ids = torch.tensor([case["ids"]])
    scores = torch.tensor([case["logits"]], dtype=torch.float32)
    for processor in chain:
        scores = processor(ids, scores)
    return torch.softmax(scores[0].double(), -1).tolist()


def main():
    generator = random.Random(7)
    cases = []
    for number in range(200):
        logits = [round(generator.gauss(0.0, 2.0), 1 if number % 3 == 0 else 4) for _ in range(16)]
        case = {
            "logits": logits,
            "ids": [generator.randrange(16) for _ in range(4)],
            "repetition_penalty": generator.choice([1.0, 1.3, 0.8]),
            "temperature": generator.choice([1.0, 0.7, 1.8]),
            "top_k": generator.choice([0, 1, 3, 8, 16, 40]),
            "top_p": generator.choice([1.0, 0.9, 0.5, 0.05]),
            "min_p": generator.choice([0.0, 0.0, 0.1, 0.4, 1.0]),
        }
        case["probabilities"] = distribution(case)
        cases.append(case)
    text = ",\n".join(json.dumps(case) for case in cases)
    version = json.dumps(f"transformers {transformers.__version__}, torch {torch.__version__}")
    folder = pathlib.Path(__file__).parent
    (folder / "sampling.json").write_text(f'{{"made_by": {version}, "cases": [\n{text}\n]}}\n')


if __name__ == "__main__":
    main()
