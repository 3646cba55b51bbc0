#include "engine/infer/cached_decoder.h"

#include <algorithm>

#include "engine/model/head.h"
#include "engine/platform/error.h"
#include "kernels/attention.h"
#include "kernels/decoding.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

// Rows of a chunk: enough for the packed products to run at full speed, few enough to be cancelled within a second. A GPU
// writes out a quantised weight once a chunk, which many rows must pay for.
constexpr int64_t chunk_rows_cpu = 512, chunk_rows_cuda = 2048;

}  // namespace

/// What one call of read needs beside the conversation.
struct CachedDecoder::Reading {
  explicit Reading(Device device) : activations(device, 0), scratch(device, 0) {}

  Arena activations;
  Arena scratch;
  StagedBatch staged;
  PassAngles angles;
  std::vector<int32_t> positions;
};

CachedDecoder::CachedDecoder(const Exec& exec, std::shared_ptr<const Model> model, DType activation, int64_t limit)
    : exec_(exec),
      model_(std::move(model)),
      activation_(activation),
      limit_(limit),
      cache_(exec, model_->config(), activation, limit) {}

void CachedDecoder::make_room(int64_t tokens) {
  if (tokens == 0 || length_ + tokens > limit_) {
    throw EngineError("internal", "a conversation of " + std::to_string(length_) + " tokens was to read " +
                                      std::to_string(tokens) + " more, with room for " + std::to_string(limit_));
  }
  cache_.reserve(length_ + tokens, length_);
}

void CachedDecoder::has_read(Found found) {
  ++length_;
  found_ = std::move(found);
}

bool CachedDecoder::read(std::span<const int32_t> ids, const std::atomic<bool>* cancelled) {
  const int64_t n = static_cast<int64_t>(ids.size());
  make_room(n);
  const int64_t length = length_ + n;
  const int64_t chunk_rows = exec_.device == Device::cpu ? chunk_rows_cpu : chunk_rows_cuda;
  const int64_t chunks = (n + chunk_rows - 1) / chunk_rows;
  Reading reading(exec_.device);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    if (cancelled != nullptr && cancelled->load()) return false;
    // Cut evenly: a short last chunk would run through the products for a few rows.
    const int64_t first = chunk * n / chunks, last = (chunk + 1) * n / chunks;
    read_chunk(reading, ids.subspan(static_cast<size_t>(first), static_cast<size_t>(last - first)), length, last == n);
  }
  return true;
}

/// `length`: of the conversation once all that is being read is read. After the last chunk it waits for what was found.
void CachedDecoder::read_chunk(Reading& reading, std::span<const int32_t> ids, int64_t length, bool last) {
  const ModelConfig& config = model_->config();
  const int64_t n = static_cast<int64_t>(ids.size()), c = config.hidden_size, v = config.vocab_size;
  const int64_t k = model_->method().has_experts() ? model_->method().top_k : 0;
  reading.positions.resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) reading.positions[static_cast<size_t>(i)] = static_cast<int32_t>(length_ + i);
  Tokens host;
  host.n = host.valid_tokens = n;
  host.ids = ids.data();
  host.position = reading.positions.data();
  const Tokens tokens = reading.staged.tokens(exec_, host);

  Pass pass;
  pass.exec = exec_;
  pass.model = model_.get();
  pass.angles = reading.angles.continued(exec_, *model_, host, tokens, length);
  pass.scratch = &reading.scratch;
  pass.activation = activation_;

  Arena& arena = reading.activations;
  arena.release({});
  LayerActivations acts = take_layer_activations(arena, config, model_->method(), activation_, n, n);
  acts.input = arena.take(activation_, n * c);
  Ptr output = arena.take(activation_, n * c);
  int32_t* const experts = arena.take<int32_t>(config.num_layers * k);
  float* const expert_weights = arena.take<float>(config.num_layers * k);
  embed_forward(pass, tokens, acts.input);
  for (const Layer& layer : model_->layers()) {
    // New keys and values are written where they stay.
    acts.k = cache_.keys(layer.index).at(length_ * cache_.row_size());
    acts.v = cache_.values(layer.index).at(length_ * cache_.row_size());
    attention_inputs_forward(pass, layer, tokens, acts);
    attention_decode(exec_, acts.attended, acts.q, cache_.keys(layer.index), cache_.values(layer.index), length_, n,
                     layer.attention);
    attention_output_forward(pass, layer, tokens, acts);
    mlp_forward(pass, layer, tokens, acts, output);
    std::swap(acts.input, output);
    if (!last || k == 0) continue;
    copy_bytes(exec_, experts + layer.index * k, acts.experts.chosen + (n - 1) * k, static_cast<size_t>(k) * 4);
    copy_bytes(exec_, expert_weights + layer.index * k, acts.experts.weights + (n - 1) * k, static_cast<size_t>(k) * 4);
  }
  length_ += n;
  if (!last) return;
  const int32_t row = static_cast<int32_t>(n - 1);
  float* const logits = arena.take<float>(v);
  int32_t* const choice = arena.take<int32_t>(1);
  double* const logprob = arena.take<double>(1);
  logits_forward(pass, acts.input, reading.staged.rows(exec_, &row, 1), 1, logits);
  greedy_choice(exec_, choice, logprob, logits, 1, v);
  const auto bring = [&](auto& values, const auto* from, int64_t count) {
    values.resize(static_cast<size_t>(count));
    if (count > 0) download(exec_, values.data(), from, values.size() * sizeof(values[0]));
  };
  bring(found_.logits, logits, v);
  bring(found_.experts, experts, config.num_layers * k);
  bring(found_.expert_weights, expert_weights, config.num_layers * k);
  download(exec_, &found_.greedy_id, choice, sizeof(int32_t));
  download(exec_, &found_.greedy_logprob, logprob, sizeof(double));
}

}  // namespace caravan
