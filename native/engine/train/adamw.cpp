#include "engine/train/adamw.h"

#include <cmath>

#include "kernels/transfer.h"

namespace caravan {

namespace {

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/// Small tensors keep 32-bit state, and so do embeddings: rows that are rarely seen have gradients on another scale than
/// their block's neighbours (bitsandbytes keeps them apart likewise).
bool keeps_eight_bits(const Parameter& parameter, bool eight_bit) {
  return eight_bit && parameter.count >= adamw8bit_min_size && parameter.name != "model.embed_tokens.weight";
}

size_t blocks_of(const Parameter& parameter) {
  return static_cast<size_t>((parameter.count + adamw8bit_block - 1) / adamw8bit_block);
}

size_t state_bytes(const Parameter& parameter, bool eight_bit) {
  const size_t count = static_cast<size_t>(parameter.count);
  if (keeps_eight_bits(parameter, eight_bit)) {
    return 2 * aligned(count) + 2 * aligned(blocks_of(parameter) * sizeof(float));
  }
  return 2 * aligned(count * sizeof(float));
}

}  // namespace

size_t AdamW::planned_bytes(const std::vector<Parameter>& parameters, bool eight_bit) {
  size_t total = 0;
  for (const Parameter& parameter : parameters) total += state_bytes(parameter, eight_bit);
  return total;
}

AdamW::AdamW(const TrainableSet& set, const AdamWSettings& settings)
    : settings_(settings), memory_(set.device(), planned_bytes(set.parameters(), settings.eight_bit)) {
  char* at = memory_.data();
  const auto take = [&at](size_t bytes) {
    char* taken = at;
    at += aligned(bytes);
    return taken;
  };
  for (const Parameter& parameter : set.parameters()) {
    State state;
    state.eight_bit = keeps_eight_bits(parameter, settings.eight_bit);
    const size_t bytes = static_cast<size_t>(parameter.count) * (state.eight_bit ? 1 : sizeof(float));
    state.first = take(bytes);
    state.second = take(bytes);
    if (state.eight_bit) {
      state.absmax1 = reinterpret_cast<float*>(take(blocks_of(parameter) * sizeof(float)));
      state.absmax2 = reinterpret_cast<float*>(take(blocks_of(parameter) * sizeof(float)));
    }
    parameters_.push_back(&parameter);
    states_.push_back(state);
  }
}

void AdamW::update(const Exec& exec, TrainableSet& set, float lr, float gradient_scale, int64_t step) {
  AdamWOptions options;
  options.lr = lr;
  options.beta1 = settings_.beta1;
  options.beta2 = settings_.beta2;
  options.eps = settings_.eps;
  options.step = step;
  options.gradient_scale = gradient_scale;
  options.seed = settings_.seed;
  for (const Parameter& parameter : set.parameters()) {
    const State& state = states_[parameter.index];
    options.parameter = parameter.index;
    options.weight_decay = parameter.shape.size() == 1 ? 0.0f : settings_.weight_decay;
    if (state.eight_bit) {
      adamw8bit_update(exec, parameter.value, parameter.gradient, reinterpret_cast<uint8_t*>(state.first),
                       reinterpret_cast<uint8_t*>(state.second), state.absmax1, state.absmax2, parameter.count,
                       options);
    } else {
      adamw_update(exec, parameter.value, parameter.gradient, reinterpret_cast<float*>(state.first),
                   reinterpret_cast<float*>(state.second), parameter.count, options);
    }
  }
}

std::vector<StateArray> AdamW::arrays() {
  std::vector<StateArray> arrays;
  for (size_t i = 0; i < states_.size(); ++i) {
    const State& state = states_[i];
    const std::string& name = parameters_[i]->name;
    const int64_t count = parameters_[i]->count;
    if (!state.eight_bit) {
      arrays.push_back({name + ".m", state.first, count, 4});
      arrays.push_back({name + ".v", state.second, count, 4});
      continue;
    }
    const int64_t blocks = static_cast<int64_t>(blocks_of(*parameters_[i]));
    arrays.push_back({name + ".state1", state.first, count, 1});
    arrays.push_back({name + ".state2", state.second, count, 1});
    arrays.push_back({name + ".absmax1", state.absmax1, blocks, 4});
    arrays.push_back({name + ".absmax2", state.absmax2, blocks, 4});
  }
  return arrays;
}

double gradient_norm(const Exec& exec, TrainableSet& set) {
  double* squared = set.squared_norm();
  zero_bytes(exec, squared, sizeof *squared);
  for (const Parameter& parameter : set.parameters()) {
    squared_norm_add(exec, squared, parameter.gradient, parameter.count);
  }
  double sum = 0.0;
  download(exec, &sum, squared, sizeof sum);
  return std::sqrt(sum);
}

}  // namespace caravan
