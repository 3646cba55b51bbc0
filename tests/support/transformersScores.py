"""Log-probabilities by transformers (and peft), as `caravan score` gives them.

usage: transformersScores.py KIND FOLDER ROWS [BASE]
KIND: folder (a Hugging Face model), peft (FOLDER is an adapter over BASE), gguf (FOLDER is a GGUF file).
ROWS: JSON lines {context, continuation}; writes one JSON line {ids, token_logprobs} each.
"""

import json
import os
import sys

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

kind, folder, rows, *rest = sys.argv[1:]
torch.set_num_threads(1)
if kind == "gguf":
    model = AutoModelForCausalLM.from_pretrained(
        os.path.dirname(folder), gguf_file=os.path.basename(folder), dtype=torch.float32
    )
    tokenizer_dir = rest[0]
else:
    model = AutoModelForCausalLM.from_pretrained(rest[0] if kind == "peft" else folder, dtype=torch.float32)
    tokenizer_dir = folder
if kind == "peft":
    from peft import PeftModel

    model = PeftModel.from_pretrained(model, folder)
model.eval()
tokenizer = Tokenizer.from_file(os.path.join(tokenizer_dir, "tokenizer.json"))
with open(rows, encoding="utf8") as lines, torch.no_grad():
    for line in lines:
        row = json.loads(line)
        context = tokenizer.encode(row["context"]).ids
        whole = tokenizer.encode(row["context"] + row["continuation"]).ids
        logits = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        found = [float(logits[at - 1, whole[at]]) for at in range(len(context), len(whole))]
        print(json.dumps({"ids": whole[len(context) :], "token_logprobs": found}))
