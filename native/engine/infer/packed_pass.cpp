#include "engine/infer/packed_pass.h"

#include <algorithm>
#include <utility>

#include "engine/model/head.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

// The products for up to 8 rows sum in another order (kernels/matmul.h). With more rows always, what a row gets does not
// depend on how many others it was packed with.
constexpr size_t fewest_rows = 9;

}  // namespace

PackedPass::PackedPass(const Exec& exec, std::shared_ptr<const Model> model, DType activation)
    : exec_(exec),
      model_(std::move(model)),
      activation_(activation),
      activations_(exec.device, 0),
      scratch_(exec.device, 0) {}

template <typename T>
const T* PackedPass::on_host(const T* values, int64_t count, std::vector<T>& copy) {
  if (exec_.device == Device::cpu || values == nullptr) return values;
  copy.resize(static_cast<size_t>(count));
  download(exec_, copy.data(), values, copy.size() * sizeof(T));
  return copy.data();
}

void PackedPass::run(std::span<const std::span<const int32_t>> rows, const LayerListener& on_layer) {
  ids_.clear();
  positions_.clear();
  cu_seqlens_ = {0};
  for (const std::span<const int32_t> row : rows) {
    ids_.insert(ids_.end(), row.begin(), row.end());
    for (size_t i = 0; i < row.size(); ++i) positions_.push_back(static_cast<int32_t>(i));
    cu_seqlens_.push_back(static_cast<int32_t>(ids_.size()));
  }
  while (ids_.size() < fewest_rows) {
    ids_.push_back(0);
    positions_.push_back(0);
    cu_seqlens_.push_back(static_cast<int32_t>(ids_.size()));
  }
  Tokens host;
  host.n = host.valid_tokens = static_cast<int64_t>(ids_.size());
  host.ids = ids_.data();
  host.position = positions_.data();
  host.cu_seqlens = cu_seqlens_.data();
  host.sequences = static_cast<int64_t>(cu_seqlens_.size()) - 1;
  const Tokens tokens = staged_.tokens(exec_, host);

  const ModelConfig& config = model_->config();
  const int64_t n = tokens.n, c = config.hidden_size;
  pass_.exec = exec_;
  pass_.model = model_.get();
  pass_.angles = angles_.packed(exec_, *model_, host, tokens);
  pass_.scratch = &scratch_;
  pass_.activation = activation_;
  activations_.release({});
  LayerActivations acts = take_layer_activations(activations_, config, model_->method(), activation_, n, n);
  acts.input = activations_.take(activation_, n * c);
  Ptr output = activations_.take(activation_, n * c);
  embed_forward(pass_, tokens, acts.input);
  for (const Layer& layer : model_->layers()) {
    layer_forward(pass_, layer, tokens, acts, output);
    if (on_layer) {
      const int64_t chosen = n * model_->method().top_k;
      on_layer(layer, on_host(acts.experts.chosen, chosen, chosen_), on_host(acts.experts.weights, chosen, weights_));
    }
    std::swap(acts.input, output);
  }
  stream_ = acts.input;
}

void PackedPass::read_logits(std::span<const int32_t> tokens, const std::function<void(size_t, const float*)>& read) {
  if (tokens.empty()) return;
  std::vector<int32_t> wanted(tokens.begin(), tokens.end());
  while (wanted.size() < fewest_rows) wanted.push_back(wanted.back());
  const int64_t v = model_->config().vocab_size;
  const int64_t count = static_cast<int64_t>(wanted.size());
  const int64_t chunks = (count + head_chunk_rows(v) - 1) / head_chunk_rows(v);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    // Cut evenly, so that the last chunk has no fewer rows than it may.
    const int64_t first = chunk * count / chunks, last = (chunk + 1) * count / chunks;
    ArenaScope scope(scratch_);
    float* logits = scratch_.take<float>((last - first) * v);
    logits_forward(pass_, stream_, staged_.rows(exec_, wanted.data() + first, last - first), last - first, logits);
    std::vector<float> downloaded;
    if (exec_.device != Device::cpu) {
      downloaded.resize(static_cast<size_t>((last - first) * v));
      download(exec_, downloaded.data(), logits, downloaded.size() * sizeof(float));
      logits = downloaded.data();
    }
    const int64_t real = std::min(last, static_cast<int64_t>(tokens.size())) - first;
    parallel_for(exec_, real, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) read(static_cast<size_t>(first + row), logits + row * v);
    });
  }
}

size_t PackedPass::memory_bytes() const {
  return activations_.capacity() + scratch_.capacity() + staged_.bytes() + angles_.bytes();
}

}  // namespace caravan
