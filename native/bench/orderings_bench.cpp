// The paper's claim on a small real model: held-out loss of the base, of Camel (LoRA) and of Camelidae (PESC) with more
// and more experts, all trained on the same rows in the same order and steps; and what the paper argues against (full
// fine-tuning and sparse upcycling) beside them.
//
//   orderings_bench MODEL ROWS.jsonl ORDER.jsonl [--device cuda] [--base bf16|nf4] [--configs lora,pesc4,pesc8,pesc16]
//                   [--seeds 0,1,2] [--optimizer adamw|adamw8bit] [--train-dtype f32|bf16] [--steps N]
//                   [--kl pesc8,upcycle8] [--json FILE]
//
// --kl: of two of the configurations, how far the second's predictions of the held-out answers are from the first's: the
// mean over tokens of KL(first || second) in nats, for each seed.
// MODEL: a Hugging Face folder or a GGUF file. ROWS: {split, source, first_target, ids} a line; ORDER: {seed, epoch,
// order} a line. Each batch of 16 rows is cut into its 8 shortest rows and the rest. One JSON line a run, to FILE too.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/infer/inference_model.h"
#include "engine/model/compute_device.h"
#include "engine/model/decoder.h"
#include "engine/train/adamw.h"
#include "engine/train/gradient_clip.h"
#include "engine/train/micro_batch.h"
#include "kernels/cuda_devices.h"
#include "kernels/philox.h"
#include "kernels/transfer.h"

using namespace caravan;
using Json = nlohmann::ordered_json;

namespace {

constexpr int64_t batch_rows = 16;
constexpr float peak_lr = 2e-4f;
constexpr float max_norm = 0.3f;
constexpr int64_t warmup = 5;

struct Row {
  std::string source;
  std::vector<int32_t> ids;
  std::vector<uint8_t> is_target;
};

struct Data {
  std::vector<Row> train, held;
  std::map<int64_t, std::vector<std::vector<int32_t>>> orders;  // of a seed, by epoch
};

std::ifstream open_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw EngineError("bad_file", path + ": cannot be read");
  return file;
}

Data read_data(const std::string& rows, const std::string& order) {
  Data data;
  std::ifstream file = open_file(rows);
  for (std::string line; std::getline(file, line);) {
    const Json json = Json::parse(line);
    Row row{json.at("source"), json.at("ids"), {}};
    row.is_target.resize(row.ids.size());
    for (size_t i = json.at("first_target").get<size_t>(); i < row.ids.size(); ++i) row.is_target[i] = 1;
    (json.at("split") == "train" ? data.train : data.held).push_back(std::move(row));
  }
  std::ifstream orders = open_file(order);
  for (std::string line; std::getline(orders, line);) {
    const Json json = Json::parse(line);
    data.orders[json.at("seed")].push_back(json.at("order"));
  }
  return data;
}

struct Settings {
  std::string model, rows, order, json;
  Device device = Device::cpu;
  BaseDType base = BaseDType::bf16;
  std::string configs = "lora,pesc4,pesc8,pesc16";
  std::string seeds = "0";
  bool eight_bit = false;
  DType train_dtype = DType::f32;
  int64_t steps = 0;
  std::string kl;
  std::string uuid;          // of the GPU
  uint64_t used_before = 0;  // there, before this process took any
};

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  std::stringstream stream(list);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

Settings parse(int argc, char** argv) {
  Settings settings;
  std::vector<std::string> places;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (!name.starts_with("--")) {
      places.push_back(name);
      continue;
    }
    const std::string value = i + 1 < argc ? argv[++i] : "";
    if (name == "--device") settings.device = value == "cuda" ? Device::cuda : Device::cpu;
    if (name == "--base") settings.base = parse_base_dtype(value);
    if (name == "--configs") settings.configs = value;
    if (name == "--seeds") settings.seeds = value;
    if (name == "--optimizer") settings.eight_bit = value == "adamw8bit";
    if (name == "--train-dtype") settings.train_dtype = value == "bf16" ? DType::bf16 : DType::f32;
    if (name == "--kl") settings.kl = value;
    if (name == "--steps") settings.steps = std::stoll(value);
    if (name == "--json") settings.json = value;
  }
  if (places.size() != 3) throw EngineError("bad_option", "give MODEL ROWS.jsonl ORDER.jsonl");
  settings.model = places[0];
  settings.rows = places[1];
  settings.order = places[2];
  return settings;
}

/// "lora", "full", "pesc8", "upcycle8".
MethodOptions method_of(const std::string& config) {
  const size_t digits = config.find_first_of("0123456789");
  MethodOptions method;
  method.method = parse_method(config.substr(0, digits));
  if (digits != std::string::npos) method.num_experts = std::stoll(config.substr(digits));
  method.adapter_dim = 64;
  return method;
}

MicroBatch pack(const std::vector<const Row*>& rows, size_t first, size_t last) {
  MicroBatch batch;
  for (size_t i = first; i < last; ++i) {
    batch.add(rows[i]->ids.data(), rows[i]->is_target.data(), static_cast<int64_t>(rows[i]->ids.size()),
              static_cast<int32_t>(i));
  }
  return batch;
}

class Run {
 public:
  Run(const Exec& exec, const Data& data, const Settings& settings, const std::string& config, int64_t seed)
      : exec_(exec), data_(data), settings_(settings), config_(config), seed_(seed), clip_(exec.device) {}

  Json run() {
    const auto config = read_config();
    const BaseOptions base_options{settings_.base, true, DType::bf16};
    std::shared_ptr<const BaseModel> base = load_base_model(exec_, settings_.model, base_options);
    if (config_ != "base") {
      set_ = std::make_shared<TrainableSet>(exec_.device, config, method_of(config_), settings_.train_dtype);
      set_->initialise(exec_, *base, static_cast<uint32_t>(seed_));
      set_->allocate_gradients();
      if (exec_.device == Device::cuda) set_->allocate_copies();
    }
    model_ = std::make_shared<Model>(exec_, config, std::move(base), set_, longest());
    Json result = {{"config", config_}, {"base", base_dtype_name(settings_.base)}};
    if (set_) {
      result["seed"] = seed_;
      result["optimizer"] = settings_.eight_bit ? "adamw8bit" : "adamw";
      result["trainDtype"] = settings_.train_dtype == DType::f32 ? "f32" : "bf16";
      result["trainable"] = set_->count();
      result["parameters"] = config.parameter_count() + added_parameters();
      train(result);
    }
    evaluate(result);
    return result;
  }

  std::shared_ptr<const Model> model() const { return model_; }

 private:
  /// Beside the dense model's: of replaced FFNs what is more than one copy.
  int64_t added_parameters() const {
    int64_t added = 0;
    for (const Parameter& parameter : set_->parameters()) {
      if (parameter.group == ParameterGroup::base) continue;
      const bool expert = parameter.group == ParameterGroup::expert;
      added += parameter.count - (expert ? parameter.count / parameter.shape[0] : 0);
    }
    return added;
  }

  ModelConfig read_config() const { return read_model_config(settings_.model); }

  int64_t longest() const {
    size_t length = 0;
    for (const auto* rows : {&data_.train, &data_.held}) {
      for (const Row& row : *rows) length = std::max(length, row.ids.size());
    }
    return static_cast<int64_t>(length);
  }

  std::unique_ptr<Decoder> make_decoder(int64_t tokens) const {
    DecoderOptions options;
    options.activation = DType::bf16;
    options.max_tokens = options.max_targets = tokens;
    return std::make_unique<Decoder>(exec_, model_, options);
  }

  void train(Json& result) {
    const std::unique_ptr<Decoder> decoder = make_decoder(batch_rows / 2 * longest());
    AdamWSettings adamw;
    adamw.kind.eight_bit = settings_.eight_bit;
    adamw.seed = static_cast<uint32_t>(seed_);
    AdamW optimizer(exec_, *set_, adamw);
    int64_t step = 0, tokens = 0;
    const auto start = std::chrono::steady_clock::now();
    for (const std::vector<int32_t>& order : data_.orders.at(seed_)) {
      for (size_t first = 0; first < order.size(); first += batch_rows) {
        if (settings_.steps > 0 && step == settings_.steps) break;
        std::vector<const Row*> rows;
        for (size_t i = first; i < std::min(first + batch_rows, order.size()); ++i) {
          rows.push_back(&data_.train[static_cast<size_t>(order[i])]);
        }
        std::stable_sort(rows.begin(), rows.end(),
                         [](const Row* a, const Row* b) { return a->ids.size() < b->ids.size(); });
        tokens += train_step(*decoder, optimizer, rows, ++step);
      }
    }
    synchronize(exec_);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    result["steps"] = step;
    result["tokensPerSecond"] = std::round(static_cast<double>(tokens) / seconds);
    result["decoderBytes"] = decoder->memory_bytes();
    // While everything that training holds is there.
    if (const auto gpu = sample_gpu(settings_.uuid)) result["gpuBytes"] = gpu->used_bytes - settings_.used_before;
  }

  int64_t train_step(Decoder& decoder, AdamW& optimizer, const std::vector<const Row*>& rows, int64_t step) {
    const MicroBatch whole = pack(rows, 0, rows.size());
    set_->zero_gradients(exec_);
    decoder.begin_step();
    StepPlace place;
    place.seed = static_cast<uint32_t>(seed_);
    place.step = static_cast<uint32_t>(step);
    place.loss_scale = 1.0f / static_cast<float>(whole.target_count());
    for (size_t first = 0; first < rows.size(); first += batch_rows / 2) {
      const MicroBatch micro = pack(rows, first, std::min(first + batch_rows / 2, rows.size()));
      place.balance_weight = static_cast<float>(static_cast<double>(micro.size()) / static_cast<double>(whole.size()));
      decoder.accumulate(micro.tokens(), micro.targets(), place);
      place.micro += 1;
    }
    const float lr = peak_lr * std::min(1.0f, static_cast<float>(step) / warmup);
    optimizer.update(exec_, *set_, lr, clip_.measure(exec_, *set_, decoder.squared_losses(), max_norm), step);
    return whole.size();
  }

  void evaluate(Json& result) {
    const std::unique_ptr<Decoder> decoder = make_decoder(longest());
    std::map<std::string, std::pair<double, int64_t>> by_source;
    double total = 0.0;
    int64_t targets = 0;
    for (const Row& row : data_.held) {
      const MicroBatch batch = pack({&row}, 0, 1);
      for (const float loss : decoder->evaluate(batch.tokens(), batch.targets()).losses) {
        by_source[row.source].first += loss;
        by_source[row.source].second += 1;
        total += loss;
        ++targets;
      }
    }
    result["held"] = total / static_cast<double>(targets);
    for (const auto& [source, sum] : by_source)
      result["heldBySource"][source] = sum.first / static_cast<double>(sum.second);
    if (set_ && set_->method().has_experts()) {
      result["information"] = information(false);
      result["informationShuffled"] = information(true);
    }
  }

  /// Mutual information in nats between a token's experts (every slot) and its row's source, sources taken as equally
  /// frequent; mean over layers.
  double information(bool shuffled) {
    std::map<std::string, int64_t> number;
    for (const Row& row : data_.held) number.emplace(row.source, 0);
    int64_t groups = 0;
    for (auto& [source, index] : number) index = groups++;
    std::vector<std::vector<int32_t>> rows;
    std::vector<int64_t> group;
    for (const Row& row : data_.held) {
      const uint32_t draw = philox(0, 0, static_cast<uint32_t>(rows.size()), 0, 0, 0).word[0];
      group.push_back(shuffled ? static_cast<int64_t>(draw % static_cast<uint32_t>(groups)) : number[row.source]);
      rows.push_back(row.ids);
    }
    synchronize(exec_);
    InferenceModel model(model_, DType::bf16, 0);
    const RouteResult route = model.route(rows, group, groups);
    double sum = 0.0;
    for (int64_t layer = 0; layer < route.layers; ++layer) {
      std::vector<std::vector<double>> share;
      for (int64_t g = 0; g < groups; ++g) {
        const double* counts = route.any.data() + (g * route.layers + layer) * route.experts;
        double all = 0.0;
        for (int64_t e = 0; e < route.experts; ++e) all += counts[e];
        if (all == 0.0) continue;
        share.emplace_back(counts, counts + route.experts);
        for (double& one : share.back()) one /= all;
      }
      for (const std::vector<double>& of_source : share) {
        for (size_t e = 0; e < of_source.size(); ++e) {
          double mean = 0.0;
          for (const std::vector<double>& other : share) mean += other[e] / static_cast<double>(share.size());
          sum += of_source[e] * std::log((of_source[e] + 1e-12) / (mean + 1e-12)) / static_cast<double>(share.size());
        }
      }
    }
    return sum / static_cast<double>(route.layers);
  }

  const Exec& exec_;
  const Data& data_;
  const Settings& settings_;
  std::string config_;
  int64_t seed_;
  GradientClip clip_;
  std::shared_ptr<TrainableSet> set_;
  std::shared_ptr<const Model> model_;
};

/// Mean over the targets of held-out rows of KL(first || second).
double mean_divergence(const Exec& exec, const Data& data, const std::shared_ptr<const Model>& first,
                       const std::shared_ptr<const Model>& second) {
  const int64_t vocab = first->config().vocab_size;
  size_t longest = 0;
  for (const Row& row : data.held) longest = std::max(longest, row.ids.size());
  DecoderOptions options;
  options.activation = DType::bf16;
  options.recompute = true;
  options.max_tokens = options.max_targets = static_cast<int64_t>(longest);
  Decoder decoders[2] = {Decoder(exec, first, options), Decoder(exec, second, options)};
  double sum = 0.0;
  int64_t tokens = 0;
  std::vector<float> logits[2];
  for (const Row& row : data.held) {
    const MicroBatch batch = pack({&row}, 0, 1);
    const Targets targets = batch.targets();
    for (int which = 0; which < 2; ++which) {
      logits[which].resize(static_cast<size_t>(targets.count * vocab));
      decoders[which].logits(batch.tokens(), targets.rows, targets.count, logits[which].data());
    }
    std::vector<double> each(static_cast<size_t>(targets.count));
    parallel_for({Device::cpu, exec.pool}, targets.count, 1, [&](int64_t from, int64_t to) {
      for (int64_t t = from; t < to; ++t) {
        const float* p = logits[0].data() + t * vocab;
        const float* q = logits[1].data() + t * vocab;
        const auto log_sum = [&](const float* x) {
          const double most = *std::max_element(x, x + vocab);
          double total = 0.0;
          for (int64_t i = 0; i < vocab; ++i) total += std::exp(x[i] - most);
          return most + std::log(total);
        };
        const double of_p = log_sum(p), of_q = log_sum(q);
        double divergence = 0.0;
        for (int64_t i = 0; i < vocab; ++i) divergence += std::exp(p[i] - of_p) * ((p[i] - of_p) - (q[i] - of_q));
        each[static_cast<size_t>(t)] = divergence;
      }
    });
    for (const double one : each) sum += one;
    tokens += targets.count;
  }
  return sum / static_cast<double>(tokens);
}

}  // namespace

int main(int argc, char** argv) try {
  Settings settings = parse(argc, argv);
  if (settings.device == Device::cuda) {
    for (const CudaDevice& gpu : cuda_status().devices) {
      if (gpu.index == 0) settings.uuid = gpu.uuid;
    }
    if (const auto gpu = sample_gpu(settings.uuid)) settings.used_before = gpu->used_bytes;
  }
  const Data data = read_data(settings.rows, settings.order);
  const ComputeDevice device(settings.device, 0);
  std::ofstream file;
  if (!settings.json.empty()) file.open(settings.json);
  const auto tell = [&](const Json& result) {
    std::printf("%s\n", result.dump().c_str());
    std::fflush(stdout);
    if (file.is_open()) file << result.dump() << std::endl;
  };
  tell(Run(device.exec(), data, settings, "base", 0).run());
  for (const std::string& seed : split(settings.seeds)) {
    const std::vector<std::string> compared = split(settings.kl);
    std::map<std::string, std::shared_ptr<const Model>> kept;
    for (const std::string& config : split(settings.configs)) {
      Run run(device.exec(), data, settings, config, std::stoll(seed));
      tell(run.run());
      if (std::find(compared.begin(), compared.end(), config) != compared.end()) kept[config] = run.model();
    }
    if (kept.size() == 2) {
      tell({{"kl", settings.kl},
            {"seed", std::stoll(seed)},
            {"nats", mean_divergence(device.exec(), data, kept[compared[0]], kept[compared[1]])}});
    }
  }
  return 0;
} catch (const EngineError& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
