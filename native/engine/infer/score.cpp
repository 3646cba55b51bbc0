// What a model says of given rows: log-probabilities, routing, logits. Rows are packed; each is alone in its sequence.
#include <algorithm>
#include <numeric>

#include "engine/infer/held_memory.h"
#include "engine/infer/inference_model.h"
#include "engine/infer/log_probability.h"
#include "engine/infer/packed_pass.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

// Tokens that run through the layers together; a longer row runs alone.
constexpr size_t batch_tokens = 1024;

}  // namespace

/// Rows [first, last) of a call, which run together. Token t of row r is number starts[r - first] + t.
struct InferenceModel::PackedRows {
  PackedPass& pass;
  size_t first = 0;
  size_t last = 0;
  std::vector<size_t> starts;
};

/// `on_layer` (may be empty) sees the experts that each layer chose and their weights, (tokens, top-k), `after` the
/// finished pass.
void InferenceModel::run_packed(
    std::span<const std::vector<int32_t>> rows,
    const std::function<void(const PackedRows&, const Layer&, const int32_t*, const float*)>& on_layer,
    const std::function<void(PackedRows&)>& after) {
  for (size_t i = 0; i < rows.size(); ++i) check_row(rows[i], i);
  HeldMemory held(held_);
  const ExecPool::Lease lease(execs_);
  PackedPass pass(lease.exec(), model_, compute_dtype_);
  for (size_t first = 0; first < rows.size();) {
    PackedRows packed{pass, first, first + 1, {0}};
    size_t tokens = rows[first].size();
    while (packed.last < rows.size() && tokens + rows[packed.last].size() <= batch_tokens) {
      packed.starts.push_back(tokens);
      tokens += rows[packed.last++].size();
    }
    std::vector<std::span<const int32_t>> views(rows.begin() + static_cast<std::ptrdiff_t>(first),
                                                rows.begin() + static_cast<std::ptrdiff_t>(packed.last));
    packed.pass.run(views, [&](const Layer& layer, const int32_t* chosen, const float* weights) {
      if (on_layer) on_layer(packed, layer, chosen, weights);
    });
    held.set(packed.pass.memory_bytes());
    after(packed);
    held.set(packed.pass.memory_bytes());
    first = packed.last;
  }
}

std::vector<ScoreResult> InferenceModel::score(std::span<const std::vector<int32_t>> rows,
                                               std::span<const int64_t> first_scored) {
  if (rows.size() != first_scored.size()) {
    throw EngineError("bad_option", "firstScored has " + std::to_string(first_scored.size()) + " entries for " +
                                        std::to_string(rows.size()) + " rows");
  }
  std::vector<ScoreResult> results(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t length = static_cast<int64_t>(rows[i].size());
    if (first_scored[i] < 1 || first_scored[i] > length) {
      throw EngineError("bad_option", "firstScored[" + std::to_string(i) + "] is " + std::to_string(first_scored[i]) +
                                          "; it must be between 1 (the first token follows nothing) and the row's " +
                                          std::to_string(length) + " tokens");
    }
    results[i].token_logprobs.resize(static_cast<size_t>(length - first_scored[i]));
  }

  struct Scored {
    size_t row;
    size_t token;
  };
  const int64_t v = config().vocab_size;
  run_packed(rows, {}, [&](PackedRows& packed) {
    std::vector<Scored> scored;
    std::vector<int32_t> before;  // the token whose logits foretell the scored one
    for (size_t row = packed.first; row < packed.last; ++row) {
      for (size_t token = static_cast<size_t>(first_scored[row]); token < rows[row].size(); ++token) {
        scored.push_back({row, token});
        before.push_back(static_cast<int32_t>(packed.starts[row - packed.first] + token - 1));
      }
    }
    std::vector<uint8_t> is_largest(scored.size());
    packed.pass.read_logits(before, [&](size_t i, const float* logits) {
      const auto [row, token] = scored[i];
      const int32_t id = rows[row][token];
      results[row].token_logprobs[token - static_cast<size_t>(first_scored[row])] =
          static_cast<double>(logits[id]) - log_sum_exp(logits, v);
      is_largest[i] = arg_max(logits, v) == id;
    });
    for (size_t i = 0; i < scored.size(); ++i) {
      if (!is_largest[i]) results[scored[i].row].greedy = false;
    }
  });
  for (ScoreResult& result : results) {
    result.logprob = std::accumulate(result.token_logprobs.begin(), result.token_logprobs.end(), 0.0);
  }
  return results;
}

void InferenceModel::check_has_experts() const {
  if (num_experts() == 0) {
    throw EngineError("bad_option", "this model has no experts to route to; open a pesc or upcycle checkpoint");
  }
}

RouteResult InferenceModel::route(std::span<const std::vector<int32_t>> rows, std::span<const int64_t> group,
                                  int64_t groups) {
  check_has_experts();
  if (rows.size() != group.size()) {
    throw EngineError("bad_option", "group has " + std::to_string(group.size()) + " entries for " +
                                        std::to_string(rows.size()) + " rows");
  }
  for (size_t i = 0; i < group.size(); ++i) {
    if (group[i] >= 0 && group[i] < groups) continue;
    throw EngineError("bad_option", "group[" + std::to_string(i) + "] is " + std::to_string(group[i]) +
                                        "; it must be between 0 and " + std::to_string(groups - 1));
  }
  RouteResult result;
  result.layers = config().num_layers;
  result.experts = num_experts();
  result.groups = groups;
  const size_t size = static_cast<size_t>(groups * result.layers * result.experts);
  result.first.resize(size);
  result.second.resize(size);
  result.any.resize(size);
  result.tokens.resize(static_cast<size_t>(groups));
  const int64_t k = top_k();
  const auto count_layer = [&](const PackedRows& packed, const Layer& layer, const int32_t* chosen, const float*) {
    for (size_t row = packed.first; row < packed.last; ++row) {
      const size_t at = static_cast<size_t>((group[row] * result.layers + layer.index) * result.experts);
      const int32_t* of_row = chosen + static_cast<int64_t>(packed.starts[row - packed.first]) * k;
      for (int64_t token = 0; token < static_cast<int64_t>(rows[row].size()); ++token) {
        for (int64_t slot = 0; slot < k; ++slot) {
          const size_t expert = at + static_cast<size_t>(of_row[token * k + slot]);
          result.any[expert] += 1.0;
          if (slot == 0) result.first[expert] += 1.0;
          if (slot == 1) result.second[expert] += 1.0;
        }
      }
    }
  };
  run_packed(rows, count_layer, [](PackedRows&) {});
  for (size_t row = 0; row < rows.size(); ++row) {
    result.tokens[static_cast<size_t>(group[row])] += static_cast<double>(rows[row].size());
  }
  return result;
}

TokenRoutes InferenceModel::route_tokens(std::span<const int32_t> row) {
  check_has_experts();
  TokenRoutes result;
  result.layers = config().num_layers;
  result.experts = num_experts();
  result.top_k = top_k();
  const size_t tokens = row.size(), layers = static_cast<size_t>(result.layers), k = static_cast<size_t>(result.top_k);
  result.chosen.resize(tokens * layers * k);
  result.weights.resize(result.chosen.size());
  const auto keep_layer = [&](const PackedRows&, const Layer& layer, const int32_t* chosen, const float* weights) {
    for (size_t token = 0; token < tokens; ++token) {
      const size_t at = (token * layers + static_cast<size_t>(layer.index)) * k;
      std::copy_n(chosen + token * k, k, result.chosen.begin() + static_cast<std::ptrdiff_t>(at));
      std::copy_n(weights + token * k, k, result.weights.begin() + static_cast<std::ptrdiff_t>(at));
    }
  };
  const std::vector<int32_t> rows[] = {{row.begin(), row.end()}};
  run_packed(rows, keep_layer, [](PackedRows&) {});
  return result;
}

std::vector<float> InferenceModel::logits(std::span<const int32_t> row) {
  const size_t v = static_cast<size_t>(config().vocab_size);
  std::vector<float> all(row.size() * v);
  std::vector<int32_t> tokens(row.size());
  std::iota(tokens.begin(), tokens.end(), 0);
  const std::vector<int32_t> rows[] = {{row.begin(), row.end()}};
  run_packed(rows, {}, [&](PackedRows& packed) {
    packed.pass.read_logits(tokens, [&](size_t i, const float* logits) {
      std::copy_n(logits, v, all.begin() + static_cast<std::ptrdiff_t>(i * v));
    });
  });
  return all;
}

}  // namespace caravan
