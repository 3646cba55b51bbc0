// A dense model as one GGUF file, with its tokenizer and template.
#include <cmath>

#include "engine/data/tokenizer_json.h"
#include "engine/data/tokenizer_to_gguf.h"
#include "engine/export/write_export.h"
#include "engine/io/gguf_writer.h"
#include "engine/model/rope_table.h"
#include "engine/platform/file.h"

namespace caravan {

namespace {

/// general.file_type
uint32_t file_type(ExportType type) {
  switch (type) {
    case ExportType::f32: return 0;
    case ExportType::q4_0: return 2;
    case ExportType::q8_0: return 7;
    default: return 1;
  }
}

void add_model_keys(const ModelConfig& config, const ExportOptions& options, GgufWriter& writer) {
  const std::string arch = config.family == "qwen2" ? "qwen2" : "llama";
  const auto u32 = [&](const char* key, int64_t value) { writer.u32(arch + "." + key, static_cast<uint32_t>(value)); };
  writer.text("general.architecture", arch);
  writer.text("general.name", options.gguf_name);
  writer.u32("general.file_type", file_type(options.type));
  if (is_quantised(options.type)) writer.u32("general.quantization_version", 2);
  u32("context_length", config.max_positions);
  u32("embedding_length", config.hidden_size);
  u32("block_count", config.num_layers);
  u32("feed_forward_length", config.intermediate_size);
  u32("attention.head_count", config.num_heads);
  u32("attention.head_count_kv", config.num_kv_heads);
  u32("attention.key_length", config.head_dim);
  u32("attention.value_length", config.head_dim);
  u32("vocab_size", config.vocab_size);
  u32("rope.dimension_count", config.head_dim);
  writer.f32(arch + ".attention.layer_norm_rms_epsilon", config.norm_eps);
  writer.f32(arch + ".rope.freq_base", static_cast<float>(config.rope_theta));
  const RopeScaling& rope = config.rope;
  if (rope.kind == RopeKind::linear) {
    writer.text(arch + ".rope.scaling.type", "linear");
    writer.f32(arch + ".rope.scaling.factor", static_cast<float>(rope.factor));
  } else if (rope.kind == RopeKind::yarn) {
    writer.text(arch + ".rope.scaling.type", "yarn");
    writer.f32(arch + ".rope.scaling.factor", static_cast<float>(rope.factor));
    u32("rope.scaling.original_context_length", rope.original_max_positions);
    writer.f32(arch + ".rope.scaling.yarn_beta_fast", static_cast<float>(rope.beta_fast));
    writer.f32(arch + ".rope.scaling.yarn_beta_slow", static_cast<float>(rope.beta_slow));
  }
}

/// Llama 3.1's scaling, worked out as divisors of the frequencies; empty for the kinds that metadata say.
std::vector<float> rope_divisors(const ModelConfig& config) {
  if (config.rope.kind == RopeKind::divisors) return config.rope.divisors;
  if (config.rope.kind != RopeKind::llama3) return {};
  ModelConfig plain = config;
  plain.rope = RopeScaling{};
  double attention_factor = 1.0;
  const std::vector<double> base = rope_frequencies(plain, config.max_positions, &attention_factor);
  const std::vector<double> scaled = rope_frequencies(config, config.max_positions, &attention_factor);
  std::vector<float> divisors;
  for (size_t i = 0; i < base.size(); ++i) divisors.push_back(static_cast<float>(base[i] / scaled[i]));
  return divisors;
}

void add_tokenizer(const ModelConfig& config, const ExportOptions& options, GgufWriter& writer) {
  if (is_gguf_file(options.tokenizer_path)) {
    copy_gguf_tokenizer(writer, GgufFile::open(options.tokenizer_path), options.chat_template);
    return;
  }
  const MappedFile file = MappedFile::open(options.tokenizer_path);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  GgufTokenizerFacts facts;
  facts.vocab_size = config.vocab_size;
  facts.eos_ids = options.eos_ids;
  if (!config.bos_ids.empty()) facts.bos_id = config.bos_ids[0];
  facts.chat_template = options.chat_template;
  add_gguf_tokenizer(writer, parse_tokenizer_json(text, options.tokenizer_path), facts);
}

}  // namespace

void read_gguf_values(const TrainedModel& model, const GgufExportTensor& tensor, std::vector<float>& values) {
  const int64_t count = tensor.elements();
  values.resize(static_cast<size_t>(count));
  model.read({tensor.hugging_face_name}, count, values.data());
  if (tensor.interleaved_heads == 0) return;
  // Row s * half + i of a head goes to row 2 i + s; a bias is a matrix of one column.
  const std::vector<float> straight = values;
  const int64_t rows = tensor.shape[0], cols = count / rows, head = rows / tensor.interleaved_heads, half = head / 2;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t in_head = row % head;
    const int64_t to = row - in_head + 2 * (in_head % half) + in_head / half;
    std::copy_n(straight.begin() + row * cols, cols, values.begin() + to * cols);
  }
}

void write_gguf_export(const TrainedModel& model, const ExportOptions& options, const std::string& path,
                       const std::function<void(uint64_t)>& wrote) {
  const ModelConfig& config = model.config();
  GgufWriter writer;
  add_model_keys(config, options, writer);
  add_tokenizer(config, options, writer);
  if (const std::vector<float> divisors = rope_divisors(config); !divisors.empty()) {
    writer.tensor("rope_freqs.weight", GgmlType::F32, {static_cast<int64_t>(divisors.size())},
                  [divisors](std::span<std::byte> bytes) { quantize_blocks(GgmlType::F32, divisors, bytes); });
  }
  for (const GgufExportTensor& tensor : list_gguf_tensors(config, options.type)) {
    writer.tensor(tensor.name, tensor.type, tensor.shape, [&model, &wrote, tensor](std::span<std::byte> bytes) {
      std::vector<float> values;
      read_gguf_values(model, tensor, values);
      quantize_blocks(tensor.type, values, bytes);
      wrote(bytes.size());
    });
  }
  writer.write(path);
}

}  // namespace caravan
