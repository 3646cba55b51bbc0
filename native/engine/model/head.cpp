#include "engine/model/head.h"

#include <algorithm>

#include "engine/model/gradient.h"
#include "kernels/classifier.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"

namespace caravan {

namespace {

/// Logits held together: 64 MiB of f32.
constexpr int64_t logits_in_memory = int64_t{16} << 20;

/// What the head computes of one chunk of rows, in scratch.
struct HeadRows {
  Ptr stream;     // (M, C)
  Ptr normed;     // (M, C)
  float* rstd;    // (M)
  float* logits;  // (M, V)
};

HeadRows head_rows_forward(const Pass& pass, ConstPtr stream, const int32_t* rows, int64_t m, float* logits) {
  const ModelConfig& config = pass.model->config();
  const int64_t c = config.hidden_size;
  HeadRows head;
  head.stream = pass.scratch->take(pass.activation, m * c);
  head.normed = pass.scratch->take(pass.activation, m * c);
  head.rstd = pass.scratch->take<float>(m);
  head.logits = logits != nullptr ? logits : pass.scratch->take<float>(m * config.vocab_size);
  gather_rows(pass.exec, head.stream, stream, rows, m, c);
  rmsnorm_forward(pass.exec, head.normed, head.rstd, head.stream, pass.model->final_norm().value, m, c,
                  config.norm_eps);
  linear_forward(pass.exec, head.logits, head.normed, pass.model->head(), nullptr, m, 1.0f, false);
  return head;
}

/// Calls body(first, count) for each chunk of the targets.
template <typename Body>
void for_chunks(const Pass& pass, const Targets& targets, Body body) {
  const int64_t chunk = head_chunk_rows(pass.model->config().vocab_size);
  for (int64_t first = 0; first < targets.count; first += chunk) {
    ArenaScope scope(*pass.scratch);
    body(first, std::min(chunk, targets.count - first));
  }
}

}  // namespace

int64_t head_chunk_rows(int64_t vocab_size) { return std::clamp<int64_t>(logits_in_memory / vocab_size, 16, 1024); }

void embed_forward(const Pass& pass, const Tokens& tokens, Ptr out) {
  embedding_forward(pass.exec, out, pass.model->embedding().value, tokens.ids, tokens.n,
                    pass.model->config().hidden_size);
}

void embed_backward(const Pass& pass, const Tokens& tokens, ConstPtr dout) {
  Parameter* parameter = pass.model->embedding().parameter;
  if (parameter == nullptr) return;
  const ModelConfig& config = pass.model->config();
  add_gradient(
      pass, *parameter,
      [&](Ptr dtable) {
        embedding_backward(pass.exec, dtable, dout, tokens.ids, tokens.n, config.hidden_size, config.vocab_size);
      },
      1);
}

void logits_forward(const Pass& pass, ConstPtr stream, const int32_t* rows, int64_t m, float* logits) {
  ArenaScope scope(*pass.scratch);
  head_rows_forward(pass, stream, rows, m, logits);
}

void loss_forward(const Pass& pass, ConstPtr stream, const Targets& targets, float* losses) {
  for_chunks(pass, targets, [&](int64_t first, int64_t m) {
    const HeadRows head = head_rows_forward(pass, stream, targets.rows + first, m, nullptr);
    cross_entropy(pass.exec, losses + first, head.logits, targets.ids + first, m, pass.model->config().vocab_size,
                  false, 0.0f);
  });
}

void loss_forward_backward(const Pass& pass, ConstPtr stream, const Targets& targets, float scale, float* losses,
                           Ptr dstream) {
  const ModelConfig& config = pass.model->config();
  const int64_t c = config.hidden_size, v = config.vocab_size;
  const Tensor& norm = pass.model->final_norm();
  float* dnorm = norm.parameter == nullptr ? nullptr : norm.parameter->gradient.as<float>();
  Parameter* head_parameter = pass.model->head_parameter();
  const auto backward = [&](Ptr dhead) {
    for_chunks(pass, targets, [&](int64_t first, int64_t m) {
      const HeadRows head = head_rows_forward(pass, stream, targets.rows + first, m, nullptr);
      cross_entropy(pass.exec, losses + first, head.logits, targets.ids + first, m, v, true, scale);
      Ptr dlogits = head.logits;
      if (pass.activation == DType::bf16) {
        dlogits = pass.scratch->take(DType::bf16, m * v);
        convert(pass.exec, dlogits, head.logits, m * v);
      }
      const Ptr dnormed = pass.scratch->take(pass.activation, m * c);
      const Ptr drows = pass.scratch->take(pass.activation, m * c);
      if (dhead) linear_backward_weight(pass.exec, dhead, dlogits, head.normed, m, v, c, 1.0f);
      linear_backward_input(pass.exec, dnormed, dlogits, pass.model->head(), m, 1.0f, false);
      rmsnorm_backward(pass.exec, drows, dnorm, dnormed, head.stream, head.rstd, norm.value, m, c, false);
      scatter_rows_add(pass.exec, dstream, drows, targets.rows + first, m, c);
    });
  };
  // One rounding of a bf16 gradient for all chunks: its bits do not depend on how many there are.
  if (head_parameter != nullptr) {
    add_gradient(pass, *head_parameter, backward);
  } else {
    backward(Ptr());
  }
}

}  // namespace caravan
