#include "engine/model/decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/platform/error.h"
#include "kernels/activation.h"
#include "kernels/optimizer.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

/// Cuts what a pass keeps: the inputs of all layers, and their activations once per layer or once in all.
std::vector<LayerActivations> take_activations(Arena& arena, const ModelConfig& config, const MethodOptions& method,
                                               DType activation, int64_t n, int64_t valid_tokens, bool per_layer,
                                               bool keep_outputs, bool widened) {
  std::vector<LayerActivations> layers(static_cast<size_t>(config.num_layers));
  LayerActivations shared;
  if (!per_layer) shared = take_layer_activations(arena, config, method, activation, n, valid_tokens, widened);
  for (LayerActivations& acts : layers) {
    acts = per_layer ? take_layer_activations(arena, config, method, activation, n, valid_tokens, widened) : shared;
    if (keep_outputs && !per_layer) take_layer_outputs(acts, arena, config, method, activation, n);
    acts.input = arena.take(activation, n * config.hidden_size);
  }
  return layers;
}

void check_tokens(const Tokens& tokens, const DecoderOptions& options) {
  if (tokens.n <= 0 || tokens.n > options.max_tokens) {
    throw EngineError("internal", "a micro-batch of " + std::to_string(tokens.n) +
                                      " tokens, but memory was planned for " + std::to_string(options.max_tokens));
  }
}

}  // namespace

Decoder::Decoder(const Exec& exec, std::shared_ptr<const Model> model, const DecoderOptions& options)
    : exec_(exec), model_(std::move(model)), options_(options), activations_(exec.device, 0), scratch_(exec.device, 0) {
  const ModelConfig& config = model_->config();
  const MethodOptions& method = model_->method();
  const DType train_dtype = model_->set() != nullptr ? model_->set()->dtype() : DType::f32;
  const DecoderMemory memory = plan_decoder_memory(config, method, train_dtype, options_);
  activations_ = Arena(exec.device, memory.activations);
  scratch_ = Arena(exec.device, memory.workspace + memory.logits);
  if (!method.has_experts()) return;

  const int64_t layers = config.num_layers, e = method.num_experts, c = config.hidden_size;
  balance_gradient_ = DeviceBuffer::of(exec.device, DType::f32, layers * e * c);
  // One block per layer: tokens (E, i64), P (E, f32), loss (1, f32, in a slot of two).
  const size_t block = static_cast<size_t>(e) * (sizeof(int64_t) + sizeof(float)) + 2 * sizeof(float) + 8;
  const size_t stride = (block + 63) / 64 * 64;
  balance_buffer_ = DeviceBuffer(exec.device, stride * static_cast<size_t>(layers));
  for (int64_t i = 0; i < layers; ++i) {
    char* at = balance_buffer_.data() + stride * static_cast<size_t>(i);
    BalanceState state;
    state.tokens_per_expert = reinterpret_cast<int64_t*>(at);
    state.mean_probability = reinterpret_cast<float*>(at + static_cast<size_t>(e) * sizeof(int64_t));
    state.loss = state.mean_probability + e;
    state.gradient = balance_gradient_.as<float>() + i * e * c;
    balance_.push_back(state);
  }
}

Pass Decoder::pass_of(const Tokens& host, const Tokens& tokens, const StepPlace& place) {
  if (model_->set() != nullptr && place.micro == 0) model_->set()->refresh_copies(exec_);
  Pass pass;
  pass.exec = exec_;
  pass.model = model_.get();
  pass.angles = angles_.packed(exec_, *model_, host, tokens);
  pass.scratch = &scratch_;
  pass.activation = options_.activation;
  pass.dropout = place.dropout;
  pass.seed = place.seed;
  pass.step = place.step;
  pass.micro = place.micro;
  return pass;
}

/// Embed and run every layer; the last layer's output (N, C) lies in the activation arena. `keep`: what the backward
/// pass reads stays (each layer's input alone, with recomputation).
Ptr Decoder::forward(const Pass& pass, const Tokens& tokens, bool keep) {
  const ModelConfig& config = model_->config();
  activations_.release({});
  layers_ = take_activations(activations_, config, model_->method(), options_.activation, tokens.n, tokens.valid_tokens,
                             keep && !options_.recompute, keep && options_.keep_outputs, exec_.device == Device::cuda);
  const Ptr output = activations_.take(options_.activation, tokens.n * config.hidden_size);

  embed_forward(pass, tokens, layers_.front().input);
  for (const Layer& layer : model_->layers()) {
    const size_t i = static_cast<size_t>(layer.index);
    const bool last = i + 1 == layers_.size();
    layer_forward(pass, layer, tokens, layers_[i], last ? output : layers_[i + 1].input);
    if (!balance_.empty()) balance_forward(pass, tokens, layers_[i].experts, balance_[i]);
  }
  return output;
}

MicroBatchResult Decoder::forward_backward(const Tokens& host, const Targets& host_targets, const StepPlace& place) {
  check_tokens(host, options_);
  const Tokens tokens = staged_.tokens(exec_, host);
  const Targets targets = staged_.targets(exec_, host_targets);
  const int64_t count = tokens.n * model_->config().hidden_size;
  const Pass pass = pass_of(host, tokens, place);
  const Ptr output = forward(pass, tokens, true);

  ArenaScope scope(scratch_);
  float* losses = scratch_.take<float>(targets.count);
  const Ptr stream = scratch_.take(options_.activation, count);  // gradient of the residual stream
  fill_zero(exec_, stream, count);
  loss_forward_backward(pass, output, targets, place.loss_scale, losses, stream);
  for (size_t i = layers_.size(); i-- > 0;) {
    const Layer& layer = model_->layers()[i];
    if (options_.recompute) layer_forward_again(pass, layer, tokens, layers_[i], output);
    BalanceState* balance = balance_.empty() ? nullptr : &balance_[i];
    if (balance != nullptr) balance->coefficient = model_->method().balance_coefficient * place.balance_weight;
    layer_backward(pass, layer, tokens, layers_[i], stream, balance);
  }
  embed_backward(pass, tokens, stream);
  return read_result(losses, targets.count);
}

MicroBatchResult Decoder::evaluate(const Tokens& host, const Targets& host_targets) {
  check_tokens(host, options_);
  const Tokens tokens = staged_.tokens(exec_, host);
  const Targets targets = staged_.targets(exec_, host_targets);
  StepPlace place;
  place.dropout = false;
  const Pass pass = pass_of(host, tokens, place);
  const Ptr output = forward(pass, tokens, false);
  ArenaScope scope(scratch_);
  float* losses = scratch_.take<float>(targets.count);
  loss_forward(pass, output, targets, losses);
  return read_result(losses, targets.count);
}

void Decoder::logits(const Tokens& host, const int32_t* rows, int64_t m, float* out) {
  check_tokens(host, options_);
  const Tokens tokens = staged_.tokens(exec_, host);
  StepPlace place;
  place.dropout = false;
  const Pass pass = pass_of(host, tokens, place);
  const Ptr output = forward(pass, tokens, false);
  ArenaScope scope(scratch_);
  const int64_t count = m * model_->config().vocab_size;
  float* logits = scratch_.take<float>(count);
  logits_forward(pass, output, staged_.rows(exec_, rows, m), m, logits);
  download(exec_, out, logits, static_cast<size_t>(count) * sizeof(float));
}

/// Waits for the pass.
MicroBatchResult Decoder::read_result(const float* losses, int64_t targets) const {
  MicroBatchResult result;
  result.losses.resize(static_cast<size_t>(targets));
  download(exec_, result.losses.data(), losses, result.losses.size() * sizeof(float));
  if (balance_.empty()) return result;
  std::vector<char> bytes(balance_buffer_.bytes());
  download(exec_, bytes.data(), balance_buffer_.data(), bytes.size());
  const auto at = [&](const void* device) {
    return bytes.data() + (static_cast<const char*>(device) - balance_buffer_.data());
  };
  const size_t e = static_cast<size_t>(model_->method().num_experts);
  for (const BalanceState& state : balance_) {
    float loss = 0.0f;
    std::memcpy(&loss, at(state.loss), sizeof loss);
    result.balance_loss.push_back(loss);
    result.tokens_per_expert.resize(result.tokens_per_expert.size() + e);
    std::memcpy(result.tokens_per_expert.data() + result.tokens_per_expert.size() - e, at(state.tokens_per_expert),
                e * sizeof(int64_t));
  }
  return result;
}

double Decoder::balance_gradient_norm() const {
  const int64_t each = model_->method().num_experts * model_->config().hidden_size;
  double sum = 0.0;
  for (const BalanceState& state : balance_) sum += squared_norm(exec_, state.gradient, each);
  return std::sqrt(sum);
}

void Decoder::reset_balance_gradient() {
  if (balance_gradient_) {
    fill_zero(exec_, balance_gradient_.ptr(DType::f32),
              static_cast<int64_t>(balance_gradient_.bytes() / sizeof(float)));
  }
}

size_t Decoder::memory_bytes() const {
  return activations_.capacity() + scratch_.capacity() + staged_.bytes() + balance_buffer_.bytes() +
         balance_gradient_.bytes() + angles_.bytes();
}

DecoderMemory plan_decoder_memory(const ModelConfig& config, const MethodOptions& method, DType train_dtype,
                                  const DecoderOptions& options) {
  const int64_t n = options.max_tokens, c = config.hidden_size, f = config.intermediate_size;
  const int64_t widest_in = std::max({c, f, config.q_size()});
  const int64_t m = n * method.top_k;
  DecoderMemory memory;

  Arena arena = Arena::measuring();
  take_activations(arena, config, method, options.activation, n, n, !options.recompute, options.keep_outputs, true);
  arena.take(options.activation, n * c);
  memory.activations = arena.peak();

  // What lies in scratch at the deepest point of a layer's backward pass; mirrors layer_backward.cpp.
  Arena scratch = Arena::measuring();
  scratch.take(options.activation, n * c);   // gradient of the stream
  scratch.take<float>(options.max_targets);  // losses
  const Arena::Mark start = scratch.mark();
  const auto lora = [&] {
    if (!method.has_lora()) return;
    scratch.take(options.activation, n * widest_in);
    scratch.take(options.activation, 3 * n * method.lora_rank);
  };
  const auto f32_sum = [&] {
    if (train_dtype == DType::f32) return;
    int64_t largest = 0;
    for (const Parameter& parameter : list_parameters(config, method)) largest = std::max(largest, parameter.count);
    if (method.has_lora()) largest = std::max(largest, 3 * method.lora_rank * c);  // of q, k and v at a time
    scratch.take(DType::f32, largest);
  };
  scratch.take(options.activation, n * c);  // dnormed
  if (method.has_experts()) scratch.take<float>(n * method.top_k);
  const Arena::Mark mlp = scratch.mark();
  if (method.method == Method::upcycle) {
    scratch.take(options.activation, 2 * m * c + 3 * m * f);
  } else {
    if (method.has_adapters()) {
      scratch.take(options.activation, n * c);
      const Arena::Mark adapters = scratch.mark();
      scratch.take(options.activation, 2 * m * c + m * method.adapter_dim);
      f32_sum();
      scratch.release(adapters);
    }
    scratch.take(options.activation, 3 * n * f);
  }
  lora();
  f32_sum();
  scratch.release(mlp);
  if (method.has_experts()) {
    scratch.take<float>(2 * n * method.num_experts);
    f32_sum();
  }
  scratch.release(start);
  scratch.take(options.activation, 2 * n * config.q_size() + 2 * n * config.kv_size() + n * c);
  if (config.qk_norm) scratch.take(options.activation, n * (config.q_size() + config.kv_size()));
  lora();
  f32_sum();
  scratch.release(start);
  const int64_t rows = std::min(head_chunk_rows(config.vocab_size), std::max<int64_t>(options.max_targets, 1));
  scratch.take(options.activation, 4 * rows * c);
  scratch.take<float>(rows);
  if (method.trains_everything()) f32_sum();
  memory.workspace = scratch.peak() + 64 * 64;  // rounding of each piece to 64 bytes
  // In f32, and their gradient once more in bf16 where the products are.
  const size_t each = sizeof(float) + (options.activation == DType::bf16 ? sizeof(bf16) : 0);
  memory.logits = static_cast<size_t>(rows * config.vocab_size) * each;
  return memory;
}

}  // namespace caravan
