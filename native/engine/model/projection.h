// One projection with its bias and LoRA: y = x W^T + b + scale * B u, u = A drop(x).
#pragma once

#include "engine/model/layer.h"
#include "kernels/dropout.h"

namespace caravan {

/// y (N, out) = projection of x (N, in); u (N, R) is kept for the backward pass (null without LoRA).
void project_forward(const Pass& pass, const Layer& layer, const Projection& projection, const Tokens& tokens, Ptr y,
                     ConstPtr x, Ptr u);

/// dx (N, in) += or = (by `accumulate`) from dy (N, out); adds to the gradients of what trains.
void project_backward(const Pass& pass, const Layer& layer, const Projection& projection, const Tokens& tokens, Ptr dx,
                      bool accumulate, ConstPtr dy, ConstPtr x, ConstPtr u);

/// The mask of one dropout site for the tokens of a pass; p = 0 where the pass drops nothing.
DropoutMask dropout_mask(const Pass& pass, const Layer& layer, const Tokens& tokens, DropoutSite site);

}  // namespace caravan
