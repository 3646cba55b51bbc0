#include "engine/infer/shared_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/model/head.h"
#include "engine/platform/error.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

// Rows up to which a product reads each weight once and sums as for one (kernels/matmul.h); grouped, over all groups.
constexpr int64_t few_rows = 8;
constexpr int64_t few_grouped_rows_cpu = 8, few_grouped_rows_cuda = 32;

int64_t most_turns_of(const Model& model) {
  if (!model.method().has_experts()) return few_rows;
  const int64_t grouped = model.device() == Device::cpu ? few_grouped_rows_cpu : few_grouped_rows_cuda;
  return std::clamp<int64_t>(grouped / model.method().top_k, 1, few_rows);
}

DecodeProjection fused_projection(const Projection& projection) {
  DecodeProjection result;
  result.weight = projection.weight.nf4;
  result.bias = projection.bias;
  result.lora_a = projection.lora_a.value;
  result.lora_b = projection.lora_b.value;
  result.rank = projection.rank;
  result.lora_scale = projection.lora_scale;
  return result;
}

/// Null where one kernel cannot do all layers of this model.
std::unique_ptr<DecodeLayers> make_fused(const Exec& exec, const Model& model) {
  const ModelConfig& config = model.config();
  const MethodOptions& method = model.method();
  if (exec.device == Device::cpu || config.qk_norm || method.trains_everything()) return nullptr;
  DecodeShape shape;
  shape.hidden = config.hidden_size;
  shape.intermediate = config.intermediate_size;
  shape.heads = config.num_heads;
  shape.kv_heads = config.num_kv_heads;
  shape.head_dim = config.head_dim;
  shape.norm_eps = config.norm_eps;
  shape.attention_scale = model.layers().front().attention.scale;
  if (method.has_adapters()) {
    shape.num_experts = method.num_experts;
    shape.top_k = method.top_k;
    shape.adapter_dim = method.adapter_dim;
    shape.adapter_scale = method.adapter_scale;
  }
  std::vector<DecodeLayer> layers;
  for (const Layer& layer : model.layers()) {
    DecodeLayer fused;
    fused.input_norm = layer.input_norm.value;
    fused.post_norm = layer.post_norm.value;
    for (const Proj proj : all_projections) {
      fused.projections[static_cast<size_t>(proj)] = fused_projection(layer.projection(proj));
    }
    fused.router = layer.router.value;
    fused.adapter_down = layer.adapter_down.value;
    fused.adapter_up = layer.adapter_up.value;
    fused.window = layer.attention.window;
    fused.rotates = layer.rotates;
    layers.push_back(fused);
  }
  return DecodeLayers::make(exec, shape, layers);
}

/// Lengths of caches that share a record: powers of two from 256 on.
int64_t length_class(int64_t length) {
  int64_t size = 256;
  while (size < length) size *= 2;
  return size;
}

}  // namespace

SharedStep::SharedStep(const Exec& exec, std::shared_ptr<const Model> model, DType activation)
    : exec_(exec),
      model_(std::move(model)),
      activation_(activation),
      most_turns_(most_turns_of(*model_)),
      activations_(exec.device, 0),
      scratch_(exec.device, 0) {
  const ModelConfig& config = model_->config();
  const MethodOptions& method = model_->method();
  if (method.has_experts()) chosen_ = config.num_layers * method.top_k;
  inputs_.resize(static_cast<size_t>(3 * most_turns_));
  for (int64_t i = 0; i < most_turns_; ++i) inputs_[static_cast<size_t>(2 * most_turns_ + i)] = static_cast<int32_t>(i);
  caches_.resize(static_cast<size_t>(config.num_layers * most_turns_));
  if (exec.device != Device::cpu) {
    device_inputs_ = DeviceBuffer(exec.device, inputs_.size() * sizeof(int32_t));
    device_caches_ = DeviceBuffer(exec.device, caches_.size() * sizeof(CacheView));
  }
  use_fused(true);
  const Results results = place_results(most_turns_);
  results_ = DeviceBuffer(exec.device, results.head_bytes + static_cast<size_t>(most_turns_ * config.vocab_size) * 4);
}

void SharedStep::use_fused(bool use) {
  fused_ = use && activation_ == DType::bf16 ? make_fused(exec_, *model_) : nullptr;
}

SharedStep::Results SharedStep::place_results(int64_t n) const {
  Results results;
  char* at = results_.data();
  const auto take = [&](auto*& array, int64_t count) {
    array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(at);
    at += (static_cast<size_t>(count) * sizeof(*array) + 63) / 64 * 64;
  };
  take(results.logprobs, n);
  take(results.ids, n);
  take(results.experts, n * chosen_);
  take(results.weights, n * chosen_);
  results.head_bytes = static_cast<size_t>(at - results_.data());
  results.logits = reinterpret_cast<float*>(at);
  return results;
}

void SharedStep::run(std::span<const Turn> turns) {
  const int64_t n = static_cast<int64_t>(turns.size());
  int64_t longest = 0;
  for (const Turn& turn : turns) {
    turn.decoder->make_room(1);
    longest = std::max(longest, turn.decoder->length() + 1);
  }
  send_inputs(turns);
  Tokens host, device;
  host.n = device.n = n;
  host.position = inputs_.data() + most_turns_;
  device.position = exec_.device == Device::cpu ? host.position : device_inputs_.as<int32_t>() + most_turns_;
  const AnglesView angles = angles_.continued_each(exec_, *model_, host, device);
  const Results results = place_results(n);
  const int64_t most = length_class(longest);
  const std::vector<uint64_t> key = {static_cast<uint64_t>(n), static_cast<uint64_t>(most),
                                     reinterpret_cast<uint64_t>(angles.cos), reinterpret_cast<uint64_t>(angles.row)};
  work_.run(exec_, key, [&] { enqueue(n, most, angles, results); });
  read_results(turns, results);
}

/// Ids, positions and, where they changed, the addresses of the caches.
void SharedStep::send_inputs(std::span<const Turn> turns) {
  const int64_t layers = model_->config().num_layers;
  for (size_t i = 0; i < turns.size(); ++i) {
    const CachedDecoder& decoder = *turns[i].decoder;
    inputs_[i] = turns[i].id;
    inputs_[static_cast<size_t>(most_turns_) + i] = static_cast<int32_t>(decoder.length());
    for (int64_t layer = 0; layer < layers; ++layer) {
      caches_[static_cast<size_t>(layer * most_turns_) + i] = {decoder.cache().keys(layer).data,
                                                               decoder.cache().values(layer).data};
    }
  }
  if (exec_.device == Device::cpu) return;
  upload(exec_, device_inputs_.data(), inputs_.data(), device_inputs_.bytes());
  const size_t bytes = device_caches_.bytes();
  if (sent_.size() == caches_.size() && std::memcmp(sent_.data(), caches_.data(), bytes) == 0) return;
  upload(exec_, device_caches_.data(), caches_.data(), bytes);
  sent_ = caches_;
}

void SharedStep::enqueue(int64_t n, int64_t most, AnglesView angles, const Results& results) {
  const ModelConfig& config = model_->config();
  const int32_t* const inputs = exec_.device == Device::cpu ? inputs_.data() : device_inputs_.as<const int32_t>();
  Tokens tokens;
  tokens.n = tokens.valid_tokens = n;
  tokens.ids = inputs;
  tokens.position = inputs + most_turns_;
  Pass pass;
  pass.exec = exec_;
  pass.model = model_.get();
  pass.angles = angles;
  pass.scratch = &scratch_;
  pass.activation = activation_;

  activations_.release({});
  LayerActivations acts = take_layer_activations(activations_, config, model_->method(), activation_, n, n);
  acts.input = activations_.take(activation_, n * config.hidden_size);
  Ptr output = activations_.take(activation_, n * config.hidden_size);
  embed_forward(pass, tokens, acts.input);
  if (fused_) {
    DecodeStep step;
    step.stream = acts.input;
    step.caches = caches();
    step.cache_stride = most_turns_;
    step.positions = tokens.position;
    step.cos = angles.cos, step.sin = angles.sin, step.angle_rows = angles.row;
    step.experts = results.experts, step.expert_weights = results.weights;
    step.n = n, step.most = most;
    fused_->run(exec_, step);
  } else {
    enqueue_layers(pass, tokens, most, results, acts, output);
  }
  logits_forward(pass, acts.input, inputs + 2 * most_turns_, n, results.logits);
  greedy_choice(exec_, results.ids, results.logprobs, results.logits, n, config.vocab_size);
}

const CacheView* SharedStep::caches() const {
  return exec_.device == Device::cpu ? caches_.data() : device_caches_.as<const CacheView>();
}

/// acts.input -> acts.input, piece by piece.
void SharedStep::enqueue_layers(const Pass& pass, const Tokens& tokens, int64_t most, const Results& results,
                                LayerActivations& acts, Ptr& output) {
  const int64_t n = tokens.n;
  for (const Layer& layer : model_->layers()) {
    if (chosen_ > 0) {  // they are reported
      acts.experts.chosen = results.experts + layer.index * n * model_->method().top_k;
      acts.experts.weights = results.weights + layer.index * n * model_->method().top_k;
    }
    const CacheView* const cache = caches() + layer.index * most_turns_;
    attention_inputs_forward(pass, layer, tokens, acts);
    cache_append(exec_, cache, tokens.position, acts.k, acts.v, n, model_->config().kv_size());
    attention_decode_each(exec_, acts.attended, acts.q, cache, tokens.position, n, most, layer.attention);
    attention_output_forward(pass, layer, tokens, acts);
    mlp_forward(pass, layer, tokens, acts, output);
    std::swap(acts.input, output);
  }
}

/// Waits for the step.
void SharedStep::read_results(std::span<const Turn> turns, const Results& results) {
  const size_t v = static_cast<size_t>(model_->config().vocab_size);
  const size_t n = turns.size(), k = static_cast<size_t>(model_->method().top_k);
  head_.resize(results.head_bytes);
  download(exec_, head_.data(), results_.data(), head_.size());
  const auto on_host = [&](const auto* array) {
    return reinterpret_cast<decltype(array)>(head_.data() + (reinterpret_cast<const char*>(array) - results_.data()));
  };
  const int32_t* const experts = on_host(results.experts);
  const float* const weights = on_host(results.weights);
  for (size_t i = 0; i < n; ++i) {
    CachedDecoder::Found found;
    found.greedy_id = on_host(results.ids)[i];
    found.greedy_logprob = on_host(results.logprobs)[i];
    for (size_t at = i * k; chosen_ > 0 && at < static_cast<size_t>(chosen_) * n; at += n * k) {
      found.experts.insert(found.experts.end(), experts + at, experts + at + k);
      found.expert_weights.insert(found.expert_weights.end(), weights + at, weights + at + k);
    }
    if (turns[i].wants_logits) {
      found.logits.resize(v);
      download(exec_, found.logits.data(), results.logits + i * v, v * sizeof(float));
    }
    turns[i].decoder->has_read(std::move(found));
  }
}

size_t SharedStep::memory_bytes() const {
  return activations_.capacity() + scratch_.capacity() + angles_.bytes() + device_inputs_.bytes() +
         device_caches_.bytes() + results_.bytes();
}

}  // namespace caravan
