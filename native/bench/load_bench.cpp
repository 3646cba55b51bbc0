// How fast a Hugging Face folder of bf16 safetensors becomes a base model in memory, and what the host holds meanwhile:
//
//   load_bench [--shape llama2-7b] [--layers N] [--device cpu|cuda] [--base nf4] [--threads 0] [--dir DIR] [--json FILE]
//
// Writes the folder itself below DIR (default: the system's temporary folder) as a sparse file: a header, and zeros that
// take no disk, so that what is timed is everything but the disk. Deleted at the end.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include <nlohmann/json.hpp>

#include "bench_shapes.h"
#include "engine/model/base_model.h"
#include "engine/model/compute_device.h"
#include "engine/platform/memory.h"
#include "kernels/transfer.h"

using namespace caravan;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

namespace {

/// Writes config.json and a model.safetensors of zeros. Returns the bytes of its tensors.
int64_t write_sparse_model(const fs::path& dir, const ModelConfig& config) {
  fs::create_directories(dir);
  std::ofstream(dir / "config.json") << Json({{"architectures", {"LlamaForCausalLM"}},
                                              {"hidden_size", config.hidden_size},
                                              {"intermediate_size", config.intermediate_size},
                                              {"num_hidden_layers", config.num_layers},
                                              {"num_attention_heads", config.num_heads},
                                              {"num_key_value_heads", config.num_kv_heads},
                                              {"head_dim", config.head_dim},
                                              {"vocab_size", config.vocab_size},
                                              {"max_position_embeddings", config.max_positions},
                                              {"rms_norm_eps", config.norm_eps},
                                              {"tie_word_embeddings", config.tied_embeddings}})
                                            .dump();
  Json header;
  int64_t at = 0;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    int64_t bytes = 2;
    for (const int64_t extent : shape) bytes *= extent;
    header[name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {at, at + bytes}}};
    at += bytes;
  };
  add("model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    add(prefix + "input_layernorm.weight", {config.hidden_size});
    add(prefix + "post_attention_layernorm.weight", {config.hidden_size});
    for (const Proj proj : all_projections) {
      add(prefix + projection_name(proj) + ".weight", {projection_rows(config, proj), projection_cols(config, proj)});
    }
  }
  add("model.norm.weight", {config.hidden_size});
  if (!config.tied_embeddings) add("lm_head.weight", {config.vocab_size, config.hidden_size});
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();
  const fs::path path = dir / "model.safetensors";
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file << text;
  file.close();
  fs::resize_file(path, sizeof length + length + static_cast<uint64_t>(at));
  return at;
}

}  // namespace

int main(int argc, char** argv) try {
  std::string shape = "llama2-7b", device_name = "cpu", dir = fs::temp_directory_path().string(), json;
  BaseOptions options{BaseDType::nf4, true, DType::bf16};
  int64_t layers = 0;
  int threads = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--shape") shape = value;
    if (name == "--layers") layers = std::stoll(value);
    if (name == "--device") device_name = value;
    if (name == "--base") options.dtype = parse_base_dtype(value);
    if (name == "--threads") threads = std::stoi(value);
    if (name == "--dir") dir = value;
    if (name == "--json") json = value;
  }
  const ModelConfig config = bench::bench_shape(shape, layers);
  const fs::path folder = fs::path(dir) / "caravan-load-bench";
  const int64_t bytes = write_sparse_model(folder, config);
  const DevicePlace place = parse_device(device_name, "--device");
  const ComputeDevice device(place.device, threads, place.index);
  const int64_t before = peak_resident_bytes();
  const auto start = std::chrono::steady_clock::now();
  int64_t told = 0;
  const auto base = load_base_model(device.exec(), folder.string(), options, [&](int64_t done, int64_t total) {
    if (done * 10 / total == told) return;
    told = done * 10 / total;
    std::fprintf(stderr, "%lld %%\n", static_cast<long long>(10 * told));
  });
  synchronize(device.exec());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  fs::remove_all(folder);
  const int64_t held = place.device == Device::cpu ? static_cast<int64_t>(base->bytes()) : 0;
  const Json result = {{"bench", "load"},
                       {"shape", shape},
                       {"device", device_name},
                       {"threads", thread_count(device.exec())},
                       {"base", base_dtype_name(options.dtype)},
                       {"fileBytes", bytes},
                       {"seconds", seconds},
                       {"gigabytesPerSecond", static_cast<double>(bytes) / seconds / 1e9},
                       {"baseBytes", base->bytes()},
                       // Beyond what is kept and what was there before: of the whole process, its peak.
                       {"hostBytes", peak_resident_bytes() - before - held}};
  std::printf("%s\n", result.dump().c_str());
  if (!json.empty()) std::ofstream(json) << result.dump(1) << "\n";
  return 0;
} catch (const EngineError& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
