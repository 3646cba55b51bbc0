// Embedding at the bottom; final norm, logits and cross entropy at the top. Logits exist for a chunk of rows at a time.
#pragma once

#include "engine/model/layer.h"

namespace caravan {

/// out (N, C) = embedding[ids].
void embed_forward(const Pass& pass, const Tokens& tokens, Ptr out);
/// Adds the gradient of the embedding's rows; nothing where it is frozen.
void embed_backward(const Pass& pass, const Tokens& tokens, ConstPtr dout);

/// logits (M, V) f32 of `rows` (M, device memory) of the last layer's output `stream` (N, C).
void logits_forward(const Pass& pass, ConstPtr stream, const int32_t* rows, int64_t m, float* logits);

/// The rows that are scored, and what they should say. Device memory.
struct Targets {
  int64_t count = 0;              // M
  const int32_t* rows = nullptr;  // (M) ascending
  const int32_t* ids = nullptr;   // (M) the token that follows each row
};

/// Rows of logits that are in memory together for a vocabulary of `vocab_size`.
int64_t head_chunk_rows(int64_t vocab_size);

/// losses (M) f32: cross entropy of each target.
void loss_forward(const Pass& pass, ConstPtr stream, const Targets& targets, float* losses);
/// The same, and dstream (N, C), zero on entry, = gradient of scale * sum(losses); adds to the gradients of the head and
/// the final norm where they train.
void loss_forward_backward(const Pass& pass, ConstPtr stream, const Targets& targets, float scale, float* losses,
                           Ptr dstream);

}  // namespace caravan
