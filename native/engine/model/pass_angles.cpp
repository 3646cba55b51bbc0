#include "engine/model/pass_angles.h"

#include <algorithm>
#include <numeric>

#include "engine/model/layer.h"

namespace caravan {

namespace {

bool depends_on_length(const ModelConfig& config, int64_t length) {
  return config.rope.kind == RopeKind::dynamic && length > config.max_positions;
}

AnglesView of_table(const RopeTable& table, const Tokens& tokens) { return {table.cos, table.sin, tokens.position}; }

}  // namespace

void PassAngles::make_room(const Model& model, int64_t tokens) {
  if (tokens <= room_) return;
  rows_ = DeviceBuffer::of(model.device(), DType::f32, tokens * model.config().head_dim);
  row_of_token_ = DeviceBuffer(model.device(), static_cast<size_t>(tokens) * sizeof(int32_t));
  int32_t* rows = row_of_token_.as<int32_t>();
  std::iota(rows, rows + tokens, 0);
  room_ = tokens;
}

AnglesView PassAngles::packed(const Model& model, const Tokens& tokens) {
  const ModelConfig& config = model.config();
  int64_t longest = 0;
  for (int64_t s = 0; s < tokens.sequences; ++s) {
    longest = std::max<int64_t>(longest, tokens.cu_seqlens[s + 1] - tokens.cu_seqlens[s]);
  }
  if (!depends_on_length(config, longest)) return of_table(model.rope(), tokens);
  make_room(model, tokens.n);
  const int64_t half = config.head_dim / 2;
  float* cos = rows_.as<float>();
  float* sin = cos + room_ * half;
  for (int64_t s = 0; s < tokens.sequences; ++s) {
    const int64_t start = tokens.cu_seqlens[s], length = tokens.cu_seqlens[s + 1] - start;
    fill_rope_rows(config, length, 0, length, cos + start * half, sin + start * half);
  }
  return {cos, sin, row_of_token_.as<int32_t>()};
}

AnglesView PassAngles::continued(const Model& model, const Tokens& tokens, int64_t length) {
  const ModelConfig& config = model.config();
  if (!depends_on_length(config, length)) return of_table(model.rope(), tokens);
  make_room(model, tokens.n);
  float* cos = rows_.as<float>();
  float* sin = cos + room_ * (config.head_dim / 2);
  fill_rope_rows(config, length, tokens.position[0], tokens.n, cos, sin);
  return {cos, sin, row_of_token_.as<int32_t>()};
}

}  // namespace caravan
