// Projections with their bias and LoRA: y = x W^T + b + scale * B u, u = A drop(x). Up to three that share their input are computed together.
#pragma once

#include <initializer_list>

#include "engine/model/layer.h"
#include "kernels/dropout.h"

namespace caravan {

/// One of the layer's projections and its output (N, out), or in the backward pass the gradient of that.
struct ProjectionCall {
  Proj proj;
  Ptr y;
};

/// y = projections of x (N, in; rows of x_row elements). u (N, R) and the masks are kept in `acts` for the backward pass.
void project_forward(const Pass& pass, const Layer& layer, const Tokens& tokens, LayerActivations& acts,
                     std::initializer_list<ProjectionCall> calls, ConstPtr x, int64_t x_row);

/// dx (N, in) += or = (by `accumulate`) from all dy; adds to the gradients of what trains.
void project_backward(const Pass& pass, const Layer& layer, const Tokens& tokens, const LayerActivations& acts,
                      std::initializer_list<ProjectionCall> calls, Ptr dx, bool accumulate, ConstPtr x, int64_t x_row);

/// The mask of one dropout site for the tokens of a pass; p = 0 where the pass drops nothing.
DropoutMask dropout_mask(const Pass& pass, const Layer& layer, const Tokens& tokens, DropoutSite site);

}  // namespace caravan
