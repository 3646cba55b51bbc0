"""The Python peers on the same stand-ins: python3 tests/scale/peers.py DIR. `pip install tokenizers duckdb datasketch rensa`
first; what is missing is said. Prints rows/s of each on the cores of this machine."""

import json
import os
import re
import sys
import time

folder = sys.argv[1]
orca = os.path.join(folder, "oo-labeled_correct.gpt4.sharegpt.jsonl")


def rows(limit):
    texts = []
    with open(orca, encoding="utf-8") as lines:
        for line in lines:
            try:
                turns = json.loads(line)["conversations"]
            except ValueError:
                continue
            texts.append("\n".join(turn["value"] for turn in turns if turn["from"] != "system"))
            if len(texts) == limit:
                break
    return texts


def report(name, count, seconds, more=""):
    print(f"{name}: {count / seconds:,.0f} rows/s ({count} rows, {seconds:.1f} s){more}", flush=True)


def bench_tokenizers():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(folder, "llama-2.tokenizer.json"))
    texts = rows(20000)
    began = time.time()
    tokens = sum(len(one.ids) for one in tokenizer.encode_batch(texts))
    seconds = time.time() - began
    report("tokenizers, Llama-2, all cores", len(texts), seconds, f", {tokens / seconds:,.0f} tokens/s")


def bench_duckdb():
    import duckdb

    began = time.time()
    out = os.path.join(folder, "peer.parquet")
    duckdb.sql(
        f"COPY (SELECT * FROM read_json('{orca}', format='newline_delimited', ignore_errors=true)) TO '{out}' (FORMAT parquet, COMPRESSION zstd)"
    )
    count = duckdb.sql(f"SELECT count(*) FROM '{out}'").fetchone()[0]
    os.remove(out)
    report("DuckDB, JSONL to Parquet, all cores", count, time.time() - began)


def shingles(text):
    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def bench_datasketch():
    from datasketch import MinHash

    texts = rows(2000)
    began = time.time()
    MinHash.bulk([[one.encode() for one in shingles(text)] for text in texts], num_perm=240)
    report("datasketch, 240 permutations, signatures alone, one core", len(texts), time.time() - began)


def bench_rensa():
    from rensa import RMinHash

    texts = rows(10000)
    began = time.time()
    for text in texts:
        RMinHash(num_perm=240, seed=42).update(shingles(text))
    report("rensa, 240 permutations, signatures alone, one core", len(texts), time.time() - began)


for bench in (bench_tokenizers, bench_duckdb, bench_datasketch, bench_rensa):
    try:
        bench()
    except ImportError as error:
        print(f"{bench.__name__}: not measured, {error.name} is missing", flush=True)
