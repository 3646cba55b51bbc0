// A GGUF file as a base model: the same weights as the folder of the same model, whatever the architecture; rotary
// scaling; what is refused; and SmolLM2 against what transformers recorded.
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "doctest/doctest.h"
#include "engine/infer/inference_model.h"
#include "engine/io/model_identity.h"
#include "engine/io/safetensors.h"
#include "engine/model/base_model.h"
#include "engine/model/gguf_config.h"
#include "engine/model/model_summary.h"
#include "engine/model/rope_table.h"
#include "gguf_writer.h"
#include "kernels/error.h"
#include "recorded_case.h"
#include "test_data.h"
#include "tiny_run.h"

using namespace caravan;
using test::GgufWriter;

namespace {

void write_config(GgufWriter& writer, const ModelConfig& config) {
  const std::string arch = config.family == "qwen2" ? "qwen2" : "llama";
  const auto u32 = [&](const char* key, int64_t value) { writer.u32(arch + "." + key, static_cast<uint32_t>(value)); };
  writer.text("general.architecture", arch);
  u32("block_count", config.num_layers);
  u32("context_length", config.max_positions);
  u32("embedding_length", config.hidden_size);
  u32("feed_forward_length", config.intermediate_size);
  u32("attention.head_count", config.num_heads);
  u32("attention.head_count_kv", config.num_kv_heads);
  u32("attention.key_length", config.head_dim);
  u32("attention.value_length", config.head_dim);
  u32("rope.dimension_count", config.head_dim);
  writer.f32(arch + ".rope.freq_base", static_cast<float>(config.rope_theta));
  writer.f32(arch + ".attention.layer_norm_rms_epsilon", config.norm_eps);
}

std::string ggml_name(std::string name) {
  const auto replace = [&](const std::string& from, const std::string& to) {
    const size_t at = name.find(from);
    if (at != std::string::npos) name.replace(at, from.size(), to);
  };
  replace("model.embed_tokens", "token_embd");
  replace("model.norm", "output_norm");
  replace("lm_head", "output");
  replace("model.layers.", "blk.");
  replace("input_layernorm", "attn_norm");
  replace("post_attention_layernorm", "ffn_norm");
  for (const char* p : {"q", "k", "v"}) replace(std::string("self_attn.") + p + "_proj", std::string("attn_") + p);
  replace("self_attn.o_proj", "attn_output");
  for (const char* p : {"gate", "up", "down"}) replace(std::string("mlp.") + p + "_proj", std::string("ffn_") + p);
  return name;
}

/// As convert_hf_to_gguf permutes q and k: of each head (2, d / 2, in) to (d / 2, 2, in).
std::vector<float> interleave(const std::vector<float>& values, int64_t heads, int64_t row) {
  std::vector<float> out;
  const int64_t d = static_cast<int64_t>(values.size()) / row / heads;
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t i = 0; i < d / 2; ++i)
      for (int64_t s = 0; s < 2; ++s) {
        const auto from = values.begin() + (h * d + s * d / 2 + i) * row;
        out.insert(out.end(), from, from + row);
      }
  return out;
}

/// The model of `dir` (F32) as a GGUF file's content.
GgufWriter convert(const std::string& dir) {
  GgufWriter writer;
  const ModelConfig config = read_model_config(dir);
  write_config(writer, config);
  const ModelTensors tensors = ModelTensors::open(dir);
  for (const auto& [name, entry] : tensors.entries()) {
    const std::span<const float> stored = entry.file->as<float>(*entry.tensor);
    std::vector<float> values(stored.begin(), stored.end());
    std::vector<uint64_t> dimensions(entry.tensor->shape.rbegin(), entry.tensor->shape.rend());
    const int64_t row = dimensions.size() < 2 ? 1 : static_cast<int64_t>(dimensions[0]);
    if (config.family == "llama" && name.find(".q_proj") != std::string::npos)
      values = interleave(values, config.num_heads, row);
    if (config.family == "llama" && name.find(".k_proj") != std::string::npos)
      values = interleave(values, config.num_kv_heads, row);
    writer.tensor(ggml_name(name), dimensions, values);
  }
  return writer;
}

bool same(const DeviceBuffer& a, const DeviceBuffer& b) {
  return a.bytes() == b.bytes() && (a.bytes() == 0 || std::memcmp(a.data(), b.data(), a.bytes()) == 0);
}
bool same(const StoredWeight& a, const StoredWeight& b) {
  if (a.bytes() != b.bytes() || a.bytes() == 0) return a.bytes() == b.bytes();
  const Weight left = a.weight(), right = b.weight();
  return left.rows == right.rows && left.cols == right.cols &&
         std::memcmp(left.dense.data, right.dense.data, a.bytes()) == 0;
}

std::string error_of(const std::function<void()>& act, std::string* code = nullptr) {
  try {
    act();
  } catch (const EngineError& error) {
    if (code != nullptr) *code = error.code;
    return error.what();
  }
  FAIL("no error");
  return {};
}

/// The configuration of a file with an embedding alone, and what `change` adds.
ModelConfig config_with(const std::function<void(GgufWriter&)>& change, const ModelConfig& base) {
  GgufWriter writer;
  write_config(writer, base);
  change(writer);
  writer.tensor("token_embd.weight", {static_cast<uint64_t>(base.hidden_size), 4},
                std::vector<float>(static_cast<size_t>(base.hidden_size) * 4));
  const test::TempFolder folder("gguf-config");
  test::write_file(folder.path("m.gguf"), writer.file());
  return read_model_config(folder.path("m.gguf"));
}

}  // namespace

TEST_CASE("a GGUF file loads as the folder of the same model does") {
  for (const char* name : {"family-llama-bias", "llama-full", "llama-full-tied", "qwen2-full", "qwen2-full-untied"}) {
    CAPTURE(name);
    const test::TempFolder folder(std::string("gguf-") + name);
    test::write_recorded_base(test::RecordedCase(name), folder.path());
    const std::string path = folder.path("m.gguf");
    test::write_file(path, convert(folder.path()).file());

    const Exec exec = test::exec_with_threads(1);
    for (const BaseDType dtype : {BaseDType::f32, BaseDType::bf16}) {
      BaseOptions options;
      options.dtype = dtype;
      const auto want = load_base_model(exec, folder.path(), options);
      int64_t done = 0, total = 0;
      const auto got = load_base_model(exec, path, options, [&](int64_t d, int64_t t) {
        CHECK(d > done);
        done = d;
        total = t;
      });
      CHECK(done == total);
      CHECK(total > 0);
      CHECK(got->config.family == want->config.family);
      CHECK(got->config.parameter_count() == want->config.parameter_count());
      CHECK(got->config.tied_embeddings == want->config.tied_embeddings);
      CHECK(got->config.norm_eps == want->config.norm_eps);
      CHECK(got->bytes() == want->bytes());
      CHECK(same(got->embedding, want->embedding));
      CHECK(same(got->head, want->head));
      CHECK(same(got->final_norm, want->final_norm));
      for (size_t layer = 0; layer < want->layers.size(); ++layer) {
        const BaseLayer &a = got->layers[layer], &b = want->layers[layer];
        CHECK(same(a.input_norm, b.input_norm));
        CHECK(same(a.post_norm, b.post_norm));
        for (size_t p = 0; p < num_projections; ++p) {
          CAPTURE(p);
          CHECK(same(a.projections[p], b.projections[p]));
          CHECK(same(a.biases[p], b.biases[p]));
        }
      }
    }
    const ModelSummary summary = summarize_model(path);
    CHECK(summary.stored_types == std::vector<std::string>{"F32"});
    CHECK(summary.parameters.total == summarize_model(folder.path()).parameters.total);
    CHECK(hash_model(path).size() == 64);
    CHECK(hash_model(path) != hash_model(folder.path()));
  }
}

TEST_CASE("rotary scaling of every kind") {
  ModelConfig base = test::tiny_config("llama");
  base.head_dim = 64;
  base.rope_theta = 500000.0;
  base.max_positions = 131072;
  CHECK(config_with([](auto&) {}, base).rope.kind == RopeKind::plain);
  const ModelConfig linear = config_with(
      [](auto& w) {
        w.text("llama.rope.scaling.type", "linear");
        w.f32("llama.rope.scaling.factor", 4.0f);
      },
      base);
  CHECK(linear.rope.kind == RopeKind::linear);
  CHECK(linear.rope.factor == 4.0);
  const ModelConfig yarn = config_with(
      [](auto& w) {
        w.text("llama.rope.scaling.type", "yarn");
        w.f32("llama.rope.scaling.factor", 4.0f);
        w.u32("llama.rope.scaling.original_context_length", 32768);
      },
      base);
  CHECK(yarn.rope.kind == RopeKind::yarn);
  CHECK(yarn.rope.original_max_positions == 32768);

  // Llama 3.2's factors, as its converter computes them, are recognised; others are divisors as they stand.
  ModelConfig llama3 = base;
  llama3.rope.kind = RopeKind::llama3;
  llama3.rope.factor = 32.0;
  llama3.rope.low_freq_factor = 1.0;
  llama3.rope.high_freq_factor = 4.0;
  llama3.rope.original_max_positions = 8192;
  double attention = 0.0;
  const std::vector<double> plain = rope_frequencies(base, 16, &attention);
  const std::vector<double> scaled = rope_frequencies(llama3, 16, &attention);
  std::vector<float> divisors;
  for (size_t i = 0; i < plain.size(); ++i) divisors.push_back(static_cast<float>(plain[i] / scaled[i]));
  const auto with_factors = [&] {
    return config_with([&](auto& w) { w.tensor("rope_freqs.weight", {32}, divisors); }, base);
  };
  const ModelConfig known = with_factors();
  CHECK(known.rope.kind == RopeKind::llama3);
  CHECK(known.rope.factor == 32.0);
  CHECK(rope_frequencies(known, 16, &attention) == scaled);
  divisors[5] = 3.0f;
  const ModelConfig own = with_factors();
  CHECK(own.rope.kind == RopeKind::divisors);
  CHECK(rope_frequencies(own, 16, &attention)[5] == plain[5] / 3.0);
  CHECK_THROWS_WITH_AS(write_model_config(own, "float32"), doctest::Contains("a factor of its own"), EngineError);
  divisors[5] = 0.0f;
  CHECK_THROWS_WITH_AS(with_factors(), doctest::Contains("rope_freqs.weight"), EngineError);
}

TEST_CASE("what is not understood is refused by key") {
  const ModelConfig base = test::tiny_config("llama");
  const auto refusal = [&](const std::function<void(GgufWriter&)>& change, std::string* code = nullptr) {
    return error_of([&] { config_with(change, base); }, code);
  };
  const auto holds = [](const std::string& text, const char* part) {
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  };
  std::string code;
  holds(refusal([](auto& w) { w.u32("llama.expert_count", 8); }, &code), "mixture of experts");
  CHECK(code == "unsupported_architecture");
  holds(refusal([](auto& w) { w.text("llama.rope.scaling.type", "longrope"); }, &code), "llama.rope.scaling.type");
  CHECK(code == "bad_file");
  holds(refusal([](auto& w) {
          w.text("llama.rope.scaling.type", "yarn");
          w.f32("llama.rope.scaling.factor", 0.5f);
        }),
        "llama.rope.scaling.factor");
  ModelConfig partial = base;
  partial.num_kv_heads = 3;
  holds(error_of([&] { config_with([](auto&) {}, partial); }), "llama.attention.head_count_kv");

  const test::TempFolder folder("gguf-refused");
  const std::string path = folder.path("m.gguf");
  const auto refused = [&](const GgufWriter& writer) {
    test::write_file(path, writer.file());
    return error_of([&] { load_base_model(test::exec_with_threads(1), path, {}); }, &code);
  };
  GgufWriter gemma;
  gemma.text("general.architecture", "gemma");
  holds(refused(gemma), "general.architecture is \"gemma\"");
  CHECK(code == "unsupported_architecture");
  GgufWriter vocabulary;
  write_config(vocabulary, base);
  holds(refused(vocabulary), "holds no weights");

  test::write_tiny_model(folder.path());
  GgufWriter extra = convert(folder.path());
  extra.tensor("blk.0.attn_q_norm.weight", {8}, std::vector<float>(8));
  holds(refused(extra), "'blk.0.attn_q_norm.weight'");
  CHECK(code == "unsupported_architecture");
  GgufWriter larger;
  ModelConfig more = read_model_config(folder.path());
  more.num_layers = 3;
  write_config(larger, more);
  larger.tensor("token_embd.weight", {32, 61}, std::vector<float>(32 * 61));
  holds(refused(larger), "model.layers.0.input_layernorm.weight");
}

TEST_CASE("SmolLM2's GGUF scores as transformers does to 1e-4 per token") {
  const auto model = test::test_data("models/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2 from its GGUF");
  if (!model) return;
  const std::string folder = model->substr(0, model->rfind('/'));
  const auto lines_of = [](const std::string& path) {
    std::ifstream file(path);
    REQUIRE(file);
    std::vector<nlohmann::json> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
  };
  OpenModelOptions options;
  options.model_dir = *model;
  options.base_dtype = BaseDType::f32;
  options.threads = 2;
  const auto opened = InferenceModel::open(options);
  const std::vector<nlohmann::json> lines = lines_of(folder + "/smollm2-scores.jsonl");
  double worst = 0.0;
  size_t tokens = 0;
  for (size_t i = 0; i < lines.size(); i += 8) {
    std::vector<int32_t> row = lines[i].at("context_ids");
    const auto first = static_cast<int64_t>(row.size());
    const std::vector<int32_t> continuation = lines[i].at("continuation_ids");
    row.insert(row.end(), continuation.begin(), continuation.end());
    const std::vector<ScoreResult> results =
        opened->score(std::vector<std::vector<int32_t>>{row}, std::vector<int64_t>{first});
    const std::vector<double> expected = lines[i].at("token_logprobs");
    REQUIRE(results[0].token_logprobs.size() == expected.size());
    for (size_t t = 0; t < expected.size(); ++t, ++tokens)
      worst = std::max(worst, std::fabs(results[0].token_logprobs[t] - expected[t]));
  }
  MESSAGE(tokens, " tokens; the largest difference is ", worst);
  CHECK(tokens > 100);
  CHECK(worst < 1e-4);
}
