#include "engine/infer/cached_decoder.h"

#include <algorithm>

#include "engine/model/head.h"
#include "engine/platform/error.h"
#include "kernels/attention.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

// Rows of a chunk: enough for the packed products to run at full speed, few enough to be cancelled within a second.
constexpr int64_t chunk_rows = 512;

}  // namespace

CachedDecoder::CachedDecoder(const Exec& exec, std::shared_ptr<const Model> model, DType activation, int64_t limit)
    : exec_(exec),
      model_(std::move(model)),
      activation_(activation),
      limit_(limit),
      cache_(exec, model_->config(), activation, limit),
      activations_(exec.device, 0),
      scratch_(exec.device, 0),
      logits_(static_cast<size_t>(model_->config().vocab_size)) {
  const MethodOptions& method = model_->method();
  if (method.has_experts()) experts_.resize(static_cast<size_t>(model_->config().num_layers * method.top_k));
  expert_weights_.resize(experts_.size());
  const int64_t chosen = static_cast<int64_t>(experts_.size());
  results_ = DeviceBuffer::of(exec.device, DType::f32, model_->config().vocab_size + 2 * chosen);
}

bool CachedDecoder::read(std::span<const int32_t> ids, const std::atomic<bool>* cancelled) {
  const int64_t n = static_cast<int64_t>(ids.size());
  if (n == 0 || length_ + n > limit_) {
    throw EngineError("internal", "a conversation of " + std::to_string(length_) + " tokens was to read " +
                                      std::to_string(n) + " more, with room for " + std::to_string(limit_));
  }
  cache_.reserve(length_ + n, length_);
  const int64_t length = length_ + n;
  const int64_t chunks = (n + chunk_rows - 1) / chunk_rows;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    if (cancelled != nullptr && cancelled->load()) return false;
    // Cut evenly: a short last chunk would run through the products for a few rows.
    const int64_t first = chunk * n / chunks, last = (chunk + 1) * n / chunks;
    read_chunk(ids.subspan(static_cast<size_t>(first), static_cast<size_t>(last - first)), length, last == n);
  }
  return true;
}

/// `length`: of the conversation once all that is being read is read.
void CachedDecoder::read_chunk(std::span<const int32_t> ids, int64_t length, bool last) {
  const ModelConfig& config = model_->config();
  const int64_t n = static_cast<int64_t>(ids.size()), c = config.hidden_size;
  positions_.resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) positions_[static_cast<size_t>(i)] = static_cast<int32_t>(length_ + i);
  Tokens host;
  host.n = host.valid_tokens = n;
  host.ids = ids.data();
  host.position = positions_.data();
  const Tokens tokens = staged_.tokens(exec_, host);

  Pass pass;
  pass.exec = exec_;
  pass.model = model_.get();
  pass.angles = angles_.continued(exec_, *model_, host, tokens, length);
  pass.scratch = &scratch_;
  pass.activation = activation_;

  activations_.release({});
  LayerActivations acts = take_layer_activations(activations_, config, model_->method(), activation_, n, n);
  acts.input = activations_.take(activation_, n * c);
  Ptr output = activations_.take(activation_, n * c);
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
    if (last && !experts_.empty()) keep_experts(layer, acts.experts, n);
  }
  length_ += n;
  if (!last) return;
  const int32_t row = static_cast<int32_t>(n - 1);
  logits_forward(pass, acts.input, staged_.rows(exec_, &row, 1), 1, results_.as<float>());
  read_results();
}

void CachedDecoder::keep_experts(const Layer& layer, const ExpertActivations& experts, int64_t n) {
  const int64_t k = model_->method().top_k;
  char* chosen = results_.data() + logits_.size() * sizeof(float);
  char* weights = chosen + experts_.size() * sizeof(int32_t);
  copy_bytes(exec_, chosen + static_cast<size_t>(layer.index * k) * sizeof(int32_t), experts.chosen + (n - 1) * k,
             static_cast<size_t>(k) * sizeof(int32_t));
  copy_bytes(exec_, weights + static_cast<size_t>(layer.index * k) * sizeof(float), experts.weights + (n - 1) * k,
             static_cast<size_t>(k) * sizeof(float));
}

/// Brings logits and experts to the host; waits for the pass.
void CachedDecoder::read_results() {
  const char* at = results_.data();
  const auto read = [&](auto& values) {
    const size_t bytes = values.size() * sizeof(values[0]);
    if (bytes > 0) download(exec_, values.data(), at, bytes);
    at += bytes;
  };
  read(logits_);
  read(experts_);
  read(expert_weights_);
}

size_t CachedDecoder::memory_bytes() const {
  return cache_.bytes() + activations_.capacity() + scratch_.capacity() + staged_.bytes() + angles_.bytes() +
         results_.bytes();
}

}  // namespace caravan
