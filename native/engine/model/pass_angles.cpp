#include "engine/model/pass_angles.h"

#include <algorithm>
#include <numeric>

#include "engine/model/layer.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

bool depends_on_length(const ModelConfig& config, int64_t length) {
  return config.rope.kind == RopeKind::dynamic && length > config.max_positions;
}

AnglesView of_table(const RopeTable& table, const Tokens& tokens) { return {table.cos, table.sin, tokens.position}; }

}  // namespace

void PassAngles::make_room(const Exec& exec, const Model& model, int64_t tokens) {
  if (tokens <= room_) return;
  synchronize(exec);  // what was enqueued may still read the old rows
  filled_.resize(static_cast<size_t>(tokens * model.config().head_dim));
  rows_ = DeviceBuffer::of(exec.device, DType::f32, tokens * model.config().head_dim);
  row_of_token_ = DeviceBuffer(exec.device, static_cast<size_t>(tokens) * sizeof(int32_t));
  std::vector<int32_t> rows(static_cast<size_t>(tokens));
  std::iota(rows.begin(), rows.end(), 0);
  upload(exec, row_of_token_.data(), rows.data(), row_of_token_.bytes());
  room_ = tokens;
}

AnglesView PassAngles::send(const Exec& exec, const Model& model) {
  upload(exec, rows_.data(), filled_.data(), rows_.bytes());
  const float* cos = rows_.as<const float>();
  return {cos, cos + room_ * (model.config().head_dim / 2), row_of_token_.as<const int32_t>()};
}

AnglesView PassAngles::packed(const Exec& exec, const Model& model, const Tokens& host, const Tokens& device) {
  const ModelConfig& config = model.config();
  int64_t longest = 0;
  for (int64_t s = 0; s < host.sequences; ++s) {
    longest = std::max<int64_t>(longest, host.cu_seqlens[s + 1] - host.cu_seqlens[s]);
  }
  if (!depends_on_length(config, longest)) return of_table(model.rope(), device);
  make_room(exec, model, host.n);
  const int64_t half = config.head_dim / 2;
  float* cos = filled_.data();
  float* sin = cos + room_ * half;
  for (int64_t s = 0; s < host.sequences; ++s) {
    const int64_t start = host.cu_seqlens[s], length = host.cu_seqlens[s + 1] - start;
    fill_rope_rows(config, length, 0, length, cos + start * half, sin + start * half);
  }
  return send(exec, model);
}

AnglesView PassAngles::continued(const Exec& exec, const Model& model, const Tokens& host, const Tokens& device,
                                 int64_t length) {
  const ModelConfig& config = model.config();
  if (!depends_on_length(config, length)) return of_table(model.rope(), device);
  make_room(exec, model, host.n);
  float* cos = filled_.data();
  float* sin = cos + room_ * (config.head_dim / 2);
  fill_rope_rows(config, length, host.position[0], host.n, cos, sin);
  return send(exec, model);
}

AnglesView PassAngles::continued_each(const Exec& exec, const Model& model, const Tokens& host, const Tokens& device) {
  const ModelConfig& config = model.config();
  const int32_t longest = *std::max_element(host.position, host.position + host.n);
  if (!depends_on_length(config, longest + 1)) return of_table(model.rope(), device);
  make_room(exec, model, host.n);
  const int64_t half = config.head_dim / 2;
  float* cos = filled_.data();
  float* sin = cos + room_ * half;
  for (int64_t i = 0; i < host.n; ++i) {
    fill_rope_rows(config, host.position[i] + 1, host.position[i], 1, cos + i * half, sin + i * half);
  }
  return send(exec, model);
}

}  // namespace caravan
