// The memory that a run is planned to take on a GPU against what NVML says that it takes (used less what was used before
// this process started, CUDA's own included), and the speed of paged optimizer state against resident, with the bandwidth of
// the host's link beside it:
//
//   memory_bench [--shape llama2-7b] [--layers N] [--device cuda] [--cases mb1,mb1-recompute,...] [--steps 2]
//                [--micro 1] [--tokens 2048] [--link yes|no] [--json FILE]
//
// A case is a list of words joined by '-': mbN (bins of --tokens at once), recompute, recomputeN (layers), 8bit, paged,
// bf16 (trainDtype). Weights and tokens are random. One JSON line a case, to FILE too.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench_shapes.h"
#include "engine/train/micro_batch.h"
#include "engine/train/training_plan.h"
#include "engine/train/training_session.h"
#include "kernels/cuda_devices.h"
#include "kernels/pager.h"
#include "kernels/philox.h"
#include "kernels/transfer.h"

using namespace caravan;
using Json = nlohmann::ordered_json;

namespace {

std::vector<std::string> split(const std::string& list, char separator) {
  std::vector<std::string> parts;
  std::stringstream stream(list);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

TrainOptions options_of(const std::string& words, Device device, int64_t micro, int64_t tokens) {
  TrainOptions options;
  options.seq_len = tokens;
  options.device = device;
  options.base_dtype = BaseDType::nf4;
  options.compute_dtype = DType::bf16;
  options.method.method = Method::pesc;
  bool eight_bit = false, paged = false;
  for (const std::string& word : split(words, '-')) {
    if (word.starts_with("mb")) options.micro_batch_size = std::stoll(word.substr(2));
    if (word.starts_with("recompute")) {
      options.recompute = true;
      if (word.size() > 9) options.recompute_layers = std::stoll(word.substr(9));
    }
    eight_bit = eight_bit || word == "8bit";
    paged = paged || word == "paged";
    if (word == "bf16") options.train_dtype = DType::bf16;
  }
  options.optimizer = std::string(paged ? "paged_" : "") + (eight_bit ? "adamw8bit" : "adamw");
  options.batch_size = options.micro_batch_size * micro;
  return options;
}

MicroBatch random_batch(int64_t rows, int64_t tokens, int64_t vocab_size) {
  MicroBatch batch;
  const std::vector<uint8_t> targets(static_cast<size_t>(tokens), 1);
  for (int64_t row = 0; row < rows; ++row) {
    std::vector<int32_t> ids;
    for (int64_t j = 0; j < tokens; ++j) {
      const Philox4 random = philox(1, 0, static_cast<uint32_t>(j), static_cast<uint32_t>(row), 0, 0);
      ids.push_back(static_cast<int32_t>(random.word[0] % static_cast<uint32_t>(vocab_size)));
    }
    batch.add(ids.data(), targets.data(), tokens, static_cast<int32_t>(row));
  }
  return batch;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// GB/s of a GiB from pinned memory to the device, and back.
std::pair<double, double> measure_link(const Exec& exec) {
  constexpr size_t bytes = size_t{1} << 30;
  const PinnedBuffer host(bytes);
  const DeviceBuffer device(exec.device, bytes);
  Pager pager(exec);
  const auto time = [&](auto copy) {
    double best = 1e9;
    for (int i = 0; i < 4; ++i) {
      synchronize(exec);
      const auto start = std::chrono::steady_clock::now();
      copy();
      best = std::min(best, seconds_since(start));
    }
    return static_cast<double>(bytes) / best / 1e9;
  };
  const double in = time([&] {
    pager.fetch(device.data(), host.data(), bytes);
    pager.ready(0);
    synchronize(exec);
  });
  const double out = time([&] {
    pager.store(host.data(), device.data(), bytes);
    pager.wait();
  });
  return {in, out};
}

class Case {
 public:
  Case(const ModelConfig& config, const TrainOptions& options, const std::string& uuid, int64_t before)
      : config_(config), options_(options), uuid_(uuid), before_(before) {}

  Json run(int64_t steps) {
    const MemoryPlan plan = plan_memory(config_, options_);
    const ComputeDevice device(options_.device, options_.threads, options_.device_index);
    const Exec& exec = device.exec();
    note("context");
    const auto base = make_random_base_model(exec, config_, 1, base_options(options_));
    note("base");
    const auto set = std::make_shared<TrainableSet>(exec.device, config_, options_.method, options_.train_dtype);
    set->initialise(exec, *base, 1);
    if (keeps_copies(options_)) set->allocate_copies();
    const auto model = std::make_shared<Model>(exec, config_, base, set, options_.seq_len);
    set->allocate_gradients();
    note("set");
    Decoder decoder(exec, model, decoder_options(options_));
    note("decoder");
    AdamWSettings settings;
    settings.kind = parse_adamw_kind(options_.optimizer);
    AdamW optimizer(exec, *set, settings);
    GradientClip clip(exec.device);
    note("optimizer");
    const MicroBatch batch = random_batch(options_.micro_batch_size, options_.seq_len, config_.vocab_size);
    const int64_t micro_batches = options_.batch_size / options_.micro_batch_size;
    std::vector<double> times;
    for (int64_t step = 1; step <= steps; ++step) {
      const auto start = std::chrono::steady_clock::now();
      set->zero_gradients(exec);
      decoder.begin_step();
      StepPlace place;
      place.step = static_cast<uint32_t>(step);
      place.loss_scale = 1.0f / static_cast<float>(batch.target_count() * micro_batches);
      place.balance_weight = 1.0f / static_cast<float>(micro_batches);
      for (int64_t i = 0; i < micro_batches; ++i) {
        place.micro = static_cast<uint32_t>(i);
        decoder.accumulate(batch.tokens(), batch.targets(), place);
      }
      optimizer.update(exec, *set, 1e-4f, clip.measure(exec, *set, decoder.squared_losses(), 0.3f), step);
      decoder.collect();
      synchronize(exec);
      times.push_back(seconds_since(start));
    }
    note("steps");
    const double fastest = *std::min_element(times.begin(), times.end());
    const int64_t used = used_now();
    Json items;
    for (const MemoryItem& item : plan.items) items[item.item] = item.bytes >> 20;
    Json result = {{"microBatchSize", options_.micro_batch_size},
                   {"microBatches", micro_batches},
                   {"recompute", options_.recompute},
                   {"recomputeLayers", options_.recompute_layers},
                   {"optimizer", options_.optimizer},
                   {"trainDtype", options_.train_dtype == DType::f32 ? "f32" : "bf16"},
                   {"plannedMiB", plan.total >> 20},
                   {"usedMiB", used >> 20},
                   {"ratio", static_cast<double>(used) / static_cast<double>(plan.total)},
                   {"tokensPerSecond", static_cast<double>(batch.size() * micro_batches) / fastest},
                   {"itemsMiB", items},
                   {"usedByStageMiB", stages_},
                   {"hostMiB", (plan.host) >> 20}};
    return result;
  }

 private:
  int64_t used_now() const {
    const auto sample = sample_gpu(uuid_);
    return sample ? static_cast<int64_t>(sample->used_bytes) - before_ : 0;
  }
  void note(const char* stage) { stages_[stage] = used_now() >> 20; }

  const ModelConfig& config_;
  const TrainOptions& options_;
  const std::string& uuid_;
  int64_t before_;
  Json stages_;
};

}  // namespace

int main(int argc, char** argv) try {
  std::string shape = "llama2-7b", json, device_name = "cuda";
  std::string cases = "mb1,mb1-recompute,mb4,mb4-recompute,mb1-recompute-8bit-bf16,mb1-recompute-8bit-paged-bf16";
  bool link = true;
  int64_t layers = 0, steps = 2, micro = 1, tokens = 2048;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--shape") shape = value;
    if (name == "--layers") layers = std::stoll(value);
    if (name == "--device") device_name = value;
    if (name == "--cases") cases = value;
    if (name == "--steps") steps = std::stoll(value);
    if (name == "--micro") micro = std::stoll(value);
    if (name == "--link") link = value == "yes";
    if (name == "--tokens") tokens = std::stoll(value);
    if (name == "--json") json = value;
  }
  const DevicePlace place = parse_device(device_name, "--device");
  const CudaStatus status = cuda_status();
  std::string uuid;
  for (const CudaDevice& device : status.devices) {
    if (device.index == place.index) uuid = device.uuid;
  }
  const auto sample = sample_gpu(uuid);
  const int64_t before = sample ? static_cast<int64_t>(sample->used_bytes) : 0;
  const ModelConfig config = bench::bench_shape(shape, layers);
  std::ofstream file;
  if (!json.empty()) file.open(json);
  const auto tell = [&](const Json& result) {
    std::printf("%s\n", result.dump().c_str());
    std::fflush(stdout);
    if (file.is_open()) file << result.dump() << std::endl;
  };
  for (const std::string& words : split(cases, ',')) {
    TrainOptions options = options_of(words, place.device, micro, tokens);
    options.device_index = place.index;
    Json result = {{"bench", "memory"}, {"shape", shape}, {"case", words}};
    try {
      result.update(Case(config, options, uuid, before).run(steps));
    } catch (const EngineError& error) {
      result["error"] = error.what();
    }
    tell(result);
  }
  if (link && place.device == Device::cuda) {
    const ComputeDevice device(Device::cuda, 0, place.index);
    const auto [in, out] = measure_link(device.exec());
    tell({{"bench", "link"}, {"toDeviceGBs", in}, {"toHostGBs", out}});
  }
  return 0;
} catch (const EngineError& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
