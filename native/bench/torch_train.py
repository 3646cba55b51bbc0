"""PyTorch's twin of train_bench: the same model, method and batch, in Hugging Face's transformers and peft.

    python3 native/bench/torch_train.py [--mode f32|autocast|bf16] [--rows 4] [--tokens 512] [--threads 0] [--steps 3]
                                        [--shape smollm2|demo] [--method lora|full]

A step is what train_bench times: gradients to zero, forward, backward, the gradient norm, AdamW. Weights are random;
speed does not depend on them. Prints one line per step and the best of them in tokens/s.
"""

import argparse
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES = {
    "smollm2": dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                    num_key_value_heads=3, vocab_size=49152, max_position_embeddings=8192, rms_norm_eps=1e-5,
                    rope_theta=100000.0),
    "demo": dict(hidden_size=256, intermediate_size=704, num_hidden_layers=6, num_attention_heads=8,
                 num_key_value_heads=4, vocab_size=4096, max_position_embeddings=512, rms_norm_eps=1e-5,
                 rope_theta=10000.0),
}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_model(shape, method, dtype):
    torch.manual_seed(1)
    config = LlamaConfig(**SHAPES[shape], tie_word_embeddings=True, attn_implementation="sdpa", use_cache=False)
    model = LlamaForCausalLM(config).to(dtype)
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=64, lora_alpha=16, lora_dropout=0.1, target_modules=PROJECTIONS,
                                                 task_type="CAUSAL_LM"))
    return model.train()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["f32", "autocast", "bf16"], default="f32",
                        help="f32; autocast: bf16 autocast over f32 weights; bf16: weights and all in bf16")
    parser.add_argument("--shape", choices=list(SHAPES), default="smollm2")
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    model = make_model(options.shape, options.method, torch.bfloat16 if options.mode == "bf16" else torch.float32)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4, weight_decay=0.0)
    ids = torch.randint(0, SHAPES[options.shape]["vocab_size"], (options.rows, options.tokens))
    print(f"PyTorch {torch.__version__}, {options.shape}, {options.method}, {options.mode}, {options.rows} x "
          f"{options.tokens} tokens, {torch.get_num_threads()} threads", flush=True)
    best = 0.0
    for step in range(options.steps):
        start, processor_start = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.mode == "autocast"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 0.3)
        optimizer.step()
        seconds = time.perf_counter() - start
        best = max(best, ids.numel() / seconds)
        print(f"step {step + 1}: {seconds:.2f} s (processor {time.process_time() - processor_start:.2f} s): "
              f"{ids.numel() / seconds:.1f} tokens/s", flush=True)
    print(f"best {best:.1f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
