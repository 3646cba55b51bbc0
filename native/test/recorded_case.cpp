#include "recorded_case.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include <nlohmann/json.hpp>

#include "kernels/philox.h"
#include "tiny_run.h"
#include "typed_array.h"

namespace caravan::test {

namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr uint32_t init_key = 0x494E4954;  // record_random.py

uint32_t fnv1a(const std::string& text) {
  uint32_t value = 0x811C9DC5u;
  for (const char c : text) value = (value ^ static_cast<uint8_t>(c)) * 0x01000193u;
  return value;
}

MethodOptions method_of(const Json& json) {
  MethodOptions method;
  method.method = parse_method(json.at("method"));
  method.lora_rank = json.at("lora_rank");
  method.lora_alpha = json.at("lora_alpha");
  method.lora_dropout = json.at("lora_dropout");
  method.num_experts = json.at("num_experts");
  method.top_k = json.at("top_k");
  method.adapter_dim = json.at("adapter_dim");
  method.adapter_dropout = json.at("adapter_dropout");
  method.adapter_scale = json.at("adapter_scale");
  method.balance_coefficient = json.at("balance_coefficient");
  check_method_options(method);
  return method;
}

std::shared_ptr<const BaseModel> load_recorded_base(const Exec& exec, const RecordedCase& recorded, BaseDType dtype) {
  const TempFolder folder("recorded-" + recorded.name);
  write_recorded_base(recorded, folder.path());
  BaseOptions options;
  options.dtype = dtype;
  options.dense_dtype = DType::f32;
  return load_base_model(exec, folder.path(), options);
}

}  // namespace

std::string recorded_path(const std::string& name) {
  return std::string(CARAVAN_RECORDED_DIR) + "/" + name + ".safetensors";
}

std::vector<std::string> recorded_case_names() {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(CARAVAN_RECORDED_DIR)) {
    if (entry.path().extension() == ".safetensors" && entry.path().stem() != "rope") {
      names.push_back(entry.path().stem().string());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

RecordedCase::RecordedCase(const std::string& case_name)
    : name(case_name), file_(SafetensorsFile::open(recorded_path(case_name))) {
  const Json json = Json::parse(file_.metadata().at("case"));
  config_json = json.at("config").dump();
  config = parse_model_config(config_json, name);
  method = method_of(json.at("method"));
  base = parse_base_dtype(json.at("base"));
  seed = json.at("seed");
  lr = json.at("lr");
  weight_decay = json.at("weight_decay");
  max_grad_norm = json.at("max_grad_norm");
  for (const Parameter& parameter : list_parameters(config, method)) trainable_.push_back(parameter.name);
  std::sort(trainable_.begin(), trainable_.end());
  for (const Json& rule : json.at("rules")) {
    rules_.push_back({rule[0], rule[1].get<float>(), rule[2].get<double>(), rule[3].get<bool>()});
  }

  const std::vector<int32_t> ids = integers("ids"), lengths = integers("lengths"), first = integers("first_target");
  const size_t per_step = json.at("conversations");
  size_t at = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (i % per_step == 0) batches.emplace_back();
    Conversation conversation;
    for (int32_t j = 0; j < lengths[i]; ++j) {
      conversation.ids.push_back(ids[at++]);
      conversation.is_target.push_back(j >= first[i]);
    }
    batches.back().push_back(std::move(conversation));
  }
  REQUIRE(at == ids.size());
  REQUIRE(batches.size() == json.at("steps").get<size_t>());
}

std::vector<float> RecordedCase::floats(const std::string& tensor) const {
  const auto span = file_.as<float>(file_.get(tensor));
  return {span.begin(), span.end()};
}

std::vector<int32_t> RecordedCase::integers(const std::string& tensor) const {
  const auto span = file_.as<int32_t>(file_.get(tensor));
  return {span.begin(), span.end()};
}

std::vector<float> RecordedCase::initial(const std::string& tensor, const std::vector<int64_t>& shape) const {
  if (has("initial." + tensor)) return floats("initial." + tensor);
  const auto rule =
      std::find_if(rules_.begin(), rules_.end(), [&](const Rule& r) { return tensor.ends_with(r.ending); });
  REQUIRE(rule != rules_.end());
  const double divisor = rule->by_fan_in ? std::sqrt(static_cast<double>(shape.back())) : 1.0;
  const auto spread = static_cast<float>(rule->spread / divisor);
  const uint32_t hash = fnv1a(tensor);
  std::vector<float> values(
      static_cast<size_t>(std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>())));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint32_t word = philox(seed, init_key, hash, static_cast<uint32_t>(i / 4), 0, 0).word[i % 4];
    values[i] = rule->center + spread * (2.0f * uniform01(word) - 1.0f);
  }
  return values;
}

std::vector<std::vector<float>> RecordedCase::by_parameter(const std::string& tensor, const TrainableSet& set) const {
  const std::vector<float> all = floats(tensor);
  std::vector<std::vector<float>> result(set.parameters().size());
  size_t at = 0;
  for (const std::string& parameter_name : trainable_) {
    const auto found = std::find_if(set.parameters().begin(), set.parameters().end(),
                                    [&](const Parameter& parameter) { return parameter.name == parameter_name; });
    INFO(parameter_name);
    REQUIRE(found != set.parameters().end());
    const size_t count = static_cast<size_t>(found->count);
    REQUIRE(at + count <= all.size());
    result[found->index].assign(all.begin() + static_cast<ptrdiff_t>(at),
                                all.begin() + static_cast<ptrdiff_t>(at + count));
    at += count;
  }
  REQUIRE(at == all.size());
  return result;
}

size_t RecordedCase::place_of(const std::string& parameter) const {
  const auto found = std::find(trainable_.begin(), trainable_.end(), parameter);
  REQUIRE(found != trainable_.end());
  return static_cast<size_t>(found - trainable_.begin());
}

void write_recorded_base(const RecordedCase& recorded, const std::string& dir) {
  write_file(dir + "/config.json", recorded.config_json);
  MethodOptions everything;
  everything.method = Method::full;
  std::vector<std::vector<float>> values;
  std::vector<TensorToWrite> tensors;
  for (const Parameter& parameter : list_parameters(recorded.config, everything)) {
    values.push_back(recorded.initial(parameter.name, parameter.shape));
    tensors.push_back({parameter.name, StoredType::F32, parameter.shape, std::as_bytes(std::span(values.back()))});
  }
  write_safetensors(dir + "/model.safetensors", std::move(tensors), {{"format", "pt"}});
}

void set_recorded_values(const RecordedCase& recorded, const TrainableSet& set) {
  for (const Parameter& parameter : set.parameters()) {
    write_values(parameter.value, recorded.initial(parameter.name, parameter.shape));
  }
}

TinySession make_recorded_session(const Exec& exec, const RecordedCase& recorded, BaseDType base) {
  TinySession session;
  // Sparse upcycling trains every weight: there is nothing that a base would add.
  if (recorded.method.method != Method::upcycle) session.base = load_recorded_base(exec, recorded, base);
  session.set = std::make_shared<TrainableSet>(exec.device, recorded.config, recorded.method, DType::f32);
  if (session.base) session.set->initialise(exec, *session.base, 11);
  session.set->allocate_gradients();
  // `full` keeps what it copied from its base.
  if (recorded.method.method != Method::full) set_recorded_values(recorded, *session.set);
  size_t longest = 0;
  for (const auto& batch : recorded.batches) {
    for (const Conversation& conversation : batch) longest = std::max(longest, conversation.ids.size());
  }
  session.model =
      std::make_shared<Model>(exec, recorded.config, session.base, session.set, static_cast<int64_t>(longest));
  return session;
}

EngineRun run_recorded(const RecordedCase& recorded, const RunOptions& options) {
  const Exec exec = exec_with_threads(options.threads);
  const TinySession session =
      make_recorded_session(exec, recorded, options.activation == DType::bf16 ? BaseDType::bf16 : recorded.base);
  DecoderOptions decoder_options;
  decoder_options.activation = options.activation;
  decoder_options.recompute = options.recompute;
  decoder_options.max_tokens = decoder_options.max_targets = 512;
  Decoder decoder(exec, session.model, decoder_options);
  AdamWSettings settings;
  settings.weight_decay = recorded.weight_decay;
  AdamW optimizer(exec, *session.set, settings);

  EngineRun run;
  run.before = copy_values(*session.set);
  const MicroBatch first = pack(recorded.batches[0]);
  std::vector<int32_t> rows(static_cast<size_t>(first.size()));
  std::iota(rows.begin(), rows.end(), 0);
  run.logits.resize(rows.size() * static_cast<size_t>(recorded.config.vocab_size));
  decoder.logits(first.tokens(), rows.data(), first.size(), run.logits.data());

  const int64_t steps = std::min(options.steps, static_cast<int64_t>(recorded.batches.size()));
  for (int64_t step = 1; step <= steps; ++step) {
    const std::vector<Conversation>& batch = recorded.batches[static_cast<size_t>(step - 1)];
    const int last = static_cast<int>(batch.size()) - 1;
    const double valid = static_cast<double>(pack(batch).valid_tokens());
    const int64_t targets = target_tokens(batch);
    session.set->zero_gradients(exec);
    double loss = 0.0, balance = 0.0;
    // All conversations but the last in the first micro-batch, as record_cases.py cuts them.
    for (const auto& [from, to] : {std::pair{0, last}, std::pair{last, last + 1}}) {
      const MicroBatch micro = pack(batch, from, to, options.padding);
      StepPlace place;
      place.seed = recorded.seed;
      place.step = static_cast<uint32_t>(step);
      place.micro = from == 0 ? 0 : 1;
      place.loss_scale = 1.0f / static_cast<float>(targets);
      place.balance_weight = static_cast<float>(static_cast<double>(micro.valid_tokens()) / valid);
      const MicroBatchResult result = decoder.forward_backward(micro.tokens(), micro.targets(), place);
      for (const float one : result.losses) loss += one;
      for (const float one : result.balance_loss) balance += static_cast<double>(one) * place.balance_weight;
      if (step > 1) continue;
      run.losses.insert(run.losses.end(), result.losses.begin(), result.losses.end());
      run.tokens_per_expert.insert(run.tokens_per_expert.end(), result.tokens_per_expert.begin(),
                                   result.tokens_per_expert.end());
    }
    run.loss.push_back(loss / static_cast<double>(targets));
    run.balance.push_back(balance * recorded.method.balance_coefficient);
    if (step == 1) run.gradients = copy_gradients(*session.set);
    if (!recorded.has("after")) break;
    const double norm = gradient_norm(exec, *session.set);
    const auto scale = static_cast<float>(std::min(1.0, recorded.max_grad_norm / (norm + 1e-6)));
    optimizer.update(exec, *session.set, recorded.lr, scale, step);
  }
  run.after = copy_values(*session.set);
  return run;
}

void check_values(const std::vector<float>& actual, const std::vector<float>& expected, double tolerance,
                  const std::string& what) {
  REQUIRE(actual.size() == expected.size());
  double largest = 0.0;
  for (const float value : expected) largest = std::max(largest, static_cast<double>(std::fabs(value)));
  check_elements(
      what, static_cast<int64_t>(expected.size()), [&](int64_t i) { return actual[static_cast<size_t>(i)]; },
      [&](int64_t i) { return expected[static_cast<size_t>(i)]; }, [&](double) { return tolerance * largest; });
}

void check_parameters(const RecordedCase& recorded, const std::vector<std::vector<float>>& actual,
                      const std::vector<std::vector<float>>& expected, double tolerance, const char* what) {
  const std::vector<Parameter> parameters = list_parameters(recorded.config, recorded.method);
  REQUIRE(actual.size() == parameters.size());
  REQUIRE(expected.size() == parameters.size());
  for (size_t p = 0; p < parameters.size(); ++p) {
    check_values(actual[p], expected[p], tolerance, recorded.name + " " + what + " " + parameters[p].name);
  }
}

/// fp32 against fp32: what another order of sums moves.
constexpr double logit_tolerance = 1e-5;     // of the largest logit
constexpr double gradient_tolerance = 1e-4;  // of the tensor's largest gradient
constexpr double loss_tolerance = 1e-5;      // of the loss
constexpr double update_tolerance = 1e-3;    // of the tensor's largest update over the ten steps

namespace {}  // namespace

void check_losses(const RecordedCase& recorded, const std::vector<double>& loss, const std::vector<double>& balance) {
  const std::vector<float> expected_loss = recorded.floats("loss"), expected_balance = recorded.floats("balance");
  REQUIRE(loss.size() == expected_loss.size());
  REQUIRE(balance.size() == expected_loss.size());
  for (size_t step = 0; step < loss.size(); ++step) {
    INFO(recorded.name << " step " << step + 1);
    CHECK(std::fabs(loss[step] - expected_loss[step]) <= loss_tolerance * std::fabs(expected_loss[step]));
    CHECK(std::fabs(balance[step] - expected_balance[step]) <= loss_tolerance * std::fabs(expected_balance[step]));
  }
}

void check_experts(const RecordedCase& recorded, const EngineRun& run) {
  if (!recorded.method.has_experts()) return;
  const std::vector<int32_t> expected = recorded.integers("tokens_per_expert");
  CHECK(run.tokens_per_expert == std::vector<int64_t>(expected.begin(), expected.end()));
}

void check_updates(const RecordedCase& recorded, const std::vector<std::vector<float>>& before,
                   const std::vector<std::vector<float>>& after) {
  // What moved, so that a tensor that starts large is not let off.
  const TrainableSet set(Device::cpu, recorded.config, recorded.method, DType::f32);
  std::vector<std::vector<float>> moved = after, expected = recorded.by_parameter("after", set);
  REQUIRE(before.size() == after.size());
  for (size_t p = 0; p < moved.size(); ++p) {
    for (size_t i = 0; i < moved[p].size(); ++i) {
      moved[p][i] -= before[p][i];
      expected[p][i] -= before[p][i];
    }
  }
  check_parameters(recorded, moved, expected, update_tolerance, "update of");
}

void check_recorded(const RecordedCase& recorded, const RunOptions& options) {
  INFO(recorded.name);
  const EngineRun run = run_recorded(recorded, options);
  const TrainableSet set(Device::cpu, recorded.config, recorded.method, DType::f32);
  check_values(run.logits, recorded.floats("logits"), logit_tolerance, recorded.name + " logits");
  check_losses(recorded, run.loss, run.balance);
  check_values(run.losses, recorded.floats("losses"), loss_tolerance, recorded.name + " losses");
  check_experts(recorded, run);
  check_parameters(recorded, run.gradients, recorded.by_parameter("gradients", set), gradient_tolerance, "gradient of");
  if (!recorded.has("after")) return;

  REQUIRE(run.loss.size() == 10);
  check_updates(recorded, run.before, run.after);
}

}  // namespace caravan::test
