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

/// Cuts what a pass keeps: the inputs of all layers, and their activations, which the first `sharing` layers have in common.
std::vector<LayerActivations> take_activations(Arena& arena, const ModelConfig& config, const MethodOptions& method,
                                               DType activation, int64_t n, int64_t valid_tokens, int64_t sharing,
                                               bool keep_outputs, bool widened) {
  std::vector<LayerActivations> layers(static_cast<size_t>(config.num_layers));
  LayerActivations shared;
  if (sharing > 0) shared = take_layer_activations(arena, config, method, activation, n, valid_tokens, widened);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    LayerActivations& acts = layers[static_cast<size_t>(i)];
    acts = i < sharing ? shared : take_layer_activations(arena, config, method, activation, n, valid_tokens, widened);
    if (keep_outputs && i < sharing) take_layer_outputs(acts, arena, config, method, activation, n);
    acts.input = arena.take(activation, n * config.hidden_size);
  }
  return layers;
}

/// Bytes of one layer's block: tokens (E, i64), P (E, f32), loss (1, f32, in a slot of two).
size_t balance_stride(int64_t num_experts) {
  const size_t block = static_cast<size_t>(num_experts) * (sizeof(int64_t) + sizeof(float)) + 2 * sizeof(float) + 8;
  return (block + 63) / 64 * 64;
}

void check_tokens(const Tokens& tokens, const DecoderOptions& options) {
  if (tokens.n <= 0 || tokens.n > options.max_tokens) {
    throw EngineError("internal", "a micro-batch of " + std::to_string(tokens.n) +
                                      " tokens, but memory was planned for " + std::to_string(options.max_tokens));
  }
}

}  // namespace

int64_t recomputed_layers(const ModelConfig& config, const DecoderOptions& options) {
  if (!options.recompute) return 0;
  return options.recompute_layers == 0 ? config.num_layers : std::min(options.recompute_layers, config.num_layers);
}

Decoder::Decoder(const Exec& exec, std::shared_ptr<const Model> model, const DecoderOptions& options)
    : exec_(exec),
      model_(std::move(model)),
      options_(options),
      activations_(exec.device, 0),
      scratch_(exec.device, 0),
      sums_(exec.device, sizeof(StepSums)),
      results_(exec.device, 0) {
  const ModelConfig& config = model_->config();
  const MethodOptions& method = model_->method();
  const DType train_dtype = model_->set() != nullptr ? model_->set()->dtype() : DType::f32;
  const DecoderMemory memory = plan_decoder_memory(config, method, train_dtype, options_);
  activations_ = Arena(exec.device, memory.activations);
  scratch_ = Arena(exec.device, memory.workspace + memory.logits);
  results_ = Arena(exec.device, memory.results);
  if (!method.has_experts()) return;

  const int64_t layers = config.num_layers, e = method.num_experts, c = config.hidden_size;
  balance_gradient_ = DeviceBuffer::of(exec.device, DType::f32, layers * e * c);
  const size_t stride = balance_stride(e);
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
/// pass reads stays (of recomputed layers their input alone).
Ptr Decoder::forward(const Pass& pass, const Tokens& tokens, bool keep) {
  const ModelConfig& config = model_->config();
  activations_.release({});
  layers_ = take_activations(activations_, config, model_->method(), options_.activation, tokens.n, tokens.valid_tokens,
                             keep ? recomputed_layers(config, options_) : config.num_layers,
                             keep && options_.keep_outputs, exec_.device == Device::cuda);
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

void Decoder::begin_step() {
  found_.clear();
  results_.release({});
  zero_bytes(exec_, sums_.data(), sums_.bytes());
  if (!balance_gradient_) return;
  fill_zero(exec_, balance_gradient_.ptr(DType::f32), static_cast<int64_t>(balance_gradient_.bytes() / sizeof(float)));
}

MicroBatchResult Decoder::forward_backward(const Tokens& tokens, const Targets& targets, const StepPlace& place) {
  begin_step();
  accumulate(tokens, targets, place);
  return read(found_.back());
}

void Decoder::accumulate(const Tokens& host, const Targets& host_targets, const StepPlace& place) {
  check_tokens(host, options_);
  const Tokens tokens = staged_.tokens(exec_, host);
  const Targets targets = staged_.targets(exec_, host_targets);
  const int64_t count = tokens.n * model_->config().hidden_size;
  const Pass pass = pass_of(host, tokens, place);
  const Ptr output = forward(pass, tokens, true);

  float* losses = results_.take<float>(targets.count);
  ArenaScope scope(scratch_);
  const Ptr stream = scratch_.take(options_.activation, count);  // gradient of the residual stream
  fill_zero(exec_, stream, count);
  loss_forward_backward(pass, output, targets, place.loss_scale, losses, stream);
  const int64_t recomputed = recomputed_layers(model_->config(), options_);
  for (size_t i = layers_.size(); i-- > 0;) {
    const Layer& layer = model_->layers()[i];
    // What the last of them has computed still stands: those after it have memory of their own.
    if (layer.index + 1 < recomputed) layer_forward_again(pass, layer, tokens, layers_[i], output);
    BalanceState* balance = balance_.empty() ? nullptr : &balance_[i];
    if (balance != nullptr) balance->coefficient = model_->method().balance_coefficient * place.balance_weight;
    layer_backward(pass, layer, tokens, layers_[i], stream, balance);
  }
  embed_backward(pass, tokens, stream);
  squared_norm_add(exec_, &sums_.as<StepSums>()->squared_losses, losses, targets.count);
  Found found{losses, targets.count, nullptr};
  if (!balance_.empty()) {
    char* copy = results_.take<char>(static_cast<int64_t>(balance_buffer_.bytes()));
    copy_bytes(exec_, copy, balance_buffer_.data(), balance_buffer_.bytes());
    found.balance = copy;
  }
  found_.push_back(found);
}

std::vector<MicroBatchResult> Decoder::collect() {
  std::vector<MicroBatchResult> results;
  for (const Found& found : found_) results.push_back(read(found));
  return results;
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
  return read({losses, targets.count, balance_buffer_.data()});
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
MicroBatchResult Decoder::read(const Found& found) const {
  MicroBatchResult result;
  result.losses.resize(static_cast<size_t>(found.targets));
  download(exec_, result.losses.data(), found.losses, result.losses.size() * sizeof(float));
  if (balance_.empty()) return result;
  std::vector<char> bytes(balance_buffer_.bytes());
  download(exec_, bytes.data(), found.balance, bytes.size());
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
  double* squared = &sums_.as<StepSums>()->squared_balance;
  zero_bytes(exec_, squared, sizeof *squared);
  for (const BalanceState& state : balance_) squared_norm_add(exec_, squared, state.gradient, each);
  double sum = 0.0;
  download(exec_, &sum, squared, sizeof sum);
  return std::sqrt(sum);
}

size_t Decoder::memory_bytes() const {
  return activations_.capacity() + scratch_.capacity() + staged_.bytes() + balance_buffer_.bytes() +
         balance_gradient_.bytes() + sums_.bytes() + results_.capacity() + angles_.bytes();
}

DecoderMemory plan_decoder_memory(const ModelConfig& config, const MethodOptions& method, DType train_dtype,
                                  const DecoderOptions& options) {
  const int64_t n = options.max_tokens, c = config.hidden_size, f = config.intermediate_size;
  const int64_t widest_in = std::max({c, f, config.q_size()});
  const int64_t m = n * method.top_k;
  DecoderMemory memory;

  Arena arena = Arena::measuring();
  take_activations(arena, config, method, options.activation, n, n, recomputed_layers(config, options),
                   options.keep_outputs, true);
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
  size_t found = (static_cast<size_t>(options.max_targets) * sizeof(float) + 63) / 64 * 64;
  if (method.has_experts()) found += balance_stride(method.num_experts) * static_cast<size_t>(config.num_layers);
  memory.results = found * static_cast<size_t>(options.micro_batches);
  return memory;
}

}  // namespace caravan
