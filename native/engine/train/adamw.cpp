#include "engine/train/adamw.h"

#include <algorithm>

#include "engine/platform/error.h"

namespace caravan {

namespace {

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/// Elements that pass through the device together: 32 MiB of 32-bit state. A multiple of the 8-bit state's blocks.
constexpr int64_t piece = int64_t{4} << 20;

/// Small tensors keep 32-bit state, and so do embeddings: rows that are rarely seen have gradients on another scale than
/// their block's neighbours (bitsandbytes keeps them apart likewise).
bool keeps_eight_bits(const Parameter& parameter, bool eight_bit) {
  return eight_bit && parameter.count >= adamw8bit_min_size && parameter.name != "model.embed_tokens.weight";
}

size_t blocks_of(int64_t count) { return static_cast<size_t>((count + adamw8bit_block - 1) / adamw8bit_block); }

/// Bytes of the state of `count` elements.
size_t state_bytes(int64_t count, bool eight_bit) {
  const size_t elements = static_cast<size_t>(count);
  if (eight_bit) return 2 * aligned(elements) + 2 * aligned(blocks_of(count) * sizeof(float));
  return 2 * aligned(elements * sizeof(float));
}

/// 32-bit state may be paged beside 8-bit state: embeddings have it.
size_t slot_bytes() { return state_bytes(piece, false); }

}  // namespace

AdamWKind parse_adamw_kind(const std::string& optimizer) {
  if (optimizer == "adamw") return {false, false};
  if (optimizer == "adamw8bit") return {true, false};
  if (optimizer == "paged_adamw") return {false, true};
  if (optimizer == "paged_adamw8bit") return {true, true};
  throw EngineError("bad_option",
                    "optimizer is \"" + optimizer + "\"; it must be adamw, adamw8bit, paged_adamw or paged_adamw8bit");
}

size_t AdamW::planned_bytes(const std::vector<Parameter>& parameters, bool eight_bit) {
  size_t total = 0;
  for (const Parameter& parameter : parameters) {
    total += state_bytes(parameter.count, keeps_eight_bits(parameter, eight_bit));
  }
  return total;
}

size_t AdamW::paging_bytes() { return Pager::slots * slot_bytes(); }

AdamW::AdamW(const Exec& exec, const TrainableSet& set, const AdamWSettings& settings) : settings_(settings) {
  const size_t bytes = planned_bytes(set.parameters(), settings.kind.eight_bit);
  const bool paged = settings.kind.paged && set.device() == Device::cuda;
  if (paged) {
    pinned_ = std::make_unique<PinnedBuffer>(bytes);
    pager_ = std::make_unique<Pager>(exec);
  }
  memory_ = DeviceBuffer(set.device(), paged ? paging_bytes() : bytes);
  char* at = paged ? pinned_->data() : memory_.data();
  const auto take = [&at](size_t taken_bytes) {
    char* taken = at;
    at += aligned(taken_bytes);
    return taken;
  };
  for (const Parameter& parameter : set.parameters()) parameters_.push_back(&parameter);
  states_.resize(parameters_.size());
  together_ = !settings.kind.eight_bit && !paged;
  for (const ParameterRun& run : set.runs()) {
    const auto each_of = [&](const auto& place) {
      for (size_t i = run.first; i < run.first + run.count; ++i) place(*parameters_[i], states_[i]);
    };
    if (together_) {
      // Each array of a run lies as its values do.
      each_of(
          [&](const Parameter& p, State& state) { state.first = take(static_cast<size_t>(p.count) * sizeof(float)); });
      each_of(
          [&](const Parameter& p, State& state) { state.second = take(static_cast<size_t>(p.count) * sizeof(float)); });
      continue;
    }
    each_of([&](const Parameter& p, State& state) {
      state.eight_bit = keeps_eight_bits(p, settings.kind.eight_bit);
      const size_t each = static_cast<size_t>(p.count) * (state.eight_bit ? 1 : sizeof(float));
      state.first = take(each);
      state.second = take(each);
      if (!state.eight_bit) return;
      state.absmax1 = reinterpret_cast<float*>(take(blocks_of(p.count) * sizeof(float)));
      state.absmax2 = reinterpret_cast<float*>(take(blocks_of(p.count) * sizeof(float)));
    });
  }
}

void AdamW::update(const Exec& exec, TrainableSet& set, float lr, GradientScale scale, int64_t step) {
  AdamWOptions options;
  options.lr = lr;
  options.beta1 = settings_.beta1;
  options.beta2 = settings_.beta2;
  options.eps = settings_.eps;
  options.step = step;
  options.gradient_scale = scale.value;
  options.device_gradient_scale = scale.device;
  options.seed = settings_.seed;
  for (const ParameterRun& run : set.runs()) {
    const Parameter& first = set.parameters()[run.first];
    options.weight_decay = first.shape.size() == 1 ? 0.0f : settings_.weight_decay;
    // bf16 values round by random numbers that count each parameter's own elements.
    if (together_ && first.value.dtype == DType::f32) {
      options.parameter = first.index;
      update_elements(exec, first, 0, run.elements, states_[run.first], options);
      continue;
    }
    for (size_t i = run.first; i < run.first + run.count; ++i) {
      const Parameter& parameter = set.parameters()[i];
      options.parameter = parameter.index;
      if (pager_) {
        update_paged(exec, parameter, states_[i], options);
      } else {
        update_elements(exec, parameter, 0, parameter.count, states_[i], options);
      }
    }
  }
}

void AdamW::update_elements(const Exec& exec, const Parameter& parameter, int64_t first, int64_t count,
                            const State& state, AdamWOptions options) const {
  options.first = first;
  if (state.eight_bit) {
    adamw8bit_update(exec, parameter.value.at(first), parameter.gradient.at(first),
                     reinterpret_cast<uint8_t*>(state.first), reinterpret_cast<uint8_t*>(state.second), state.absmax1,
                     state.absmax2, count, options);
  } else {
    adamw_update(exec, parameter.value.at(first), parameter.gradient.at(first), reinterpret_cast<float*>(state.first),
                 reinterpret_cast<float*>(state.second), count, options);
  }
}

AdamW::State AdamW::in_slot(int slot, bool eight_bit) const {
  State state;
  state.eight_bit = eight_bit;
  char* at = memory_.data() + static_cast<size_t>(slot) * slot_bytes();
  const size_t each = aligned(static_cast<size_t>(piece) * (eight_bit ? 1 : sizeof(float)));
  state.first = at;
  state.second = at + each;
  if (eight_bit) {
    state.absmax1 = reinterpret_cast<float*>(at + 2 * each);
    state.absmax2 = state.absmax1 + aligned(blocks_of(piece) * sizeof(float)) / sizeof(float);
  }
  return state;
}

void AdamW::update_paged(const Exec& exec, const Parameter& parameter, const State& state,
                         const AdamWOptions& options) {
  const size_t element = state.eight_bit ? 1 : sizeof(float);
  for (int64_t first = 0; first < parameter.count; first += piece) {
    const int64_t count = std::min(piece, parameter.count - first);
    const int slot = next_slot_;
    next_slot_ = (next_slot_ + 1) % Pager::slots;
    const State here = in_slot(slot, state.eight_bit);
    const size_t bytes = static_cast<size_t>(count) * element, offset = static_cast<size_t>(first) * element;
    const size_t blocks = blocks_of(count), block = static_cast<size_t>(first / adamw8bit_block);
    pager_->begin(slot);
    pager_->fetch(here.first, state.first + offset, bytes);
    pager_->fetch(here.second, state.second + offset, bytes);
    if (state.eight_bit) {
      pager_->fetch(here.absmax1, state.absmax1 + block, blocks * sizeof(float));
      pager_->fetch(here.absmax2, state.absmax2 + block, blocks * sizeof(float));
    }
    pager_->ready(slot);
    update_elements(exec, parameter, first, count, here, options);
    pager_->done(slot);
    pager_->store(state.first + offset, here.first, bytes);
    pager_->store(state.second + offset, here.second, bytes);
    if (state.eight_bit) {
      pager_->store(state.absmax1 + block, here.absmax1, blocks * sizeof(float));
      pager_->store(state.absmax2 + block, here.absmax2, blocks * sizeof(float));
    }
    pager_->stored(slot);
  }
}

std::vector<StateArray> AdamW::arrays() {
  if (pager_) pager_->wait();
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
    const int64_t blocks = static_cast<int64_t>(blocks_of(count));
    arrays.push_back({name + ".state1", state.first, count, 1});
    arrays.push_back({name + ".state2", state.second, count, 1});
    arrays.push_back({name + ".absmax1", state.absmax1, blocks, 4});
    arrays.push_back({name + ".absmax2", state.absmax2, blocks, 4});
  }
  return arrays;
}

}  // namespace caravan
