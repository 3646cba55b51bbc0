// The numbers of an ONNX export: one file beside the graph, of tensors that core/onnx/export lays out. What a tensor holds,
// and where, is said by that graph; how it is made of the model's weights is said here.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/export/trained_model.h"

namespace caravan {

/// int4 and int8: blocks of 32 along a row, as MatMulNBits and GatherBlockQuantized read them: x = (code - zero) * scale.
enum class OnnxForm : uint8_t {
  f32,
  f16,
  int4,  // codes 0..15, two a byte, the even one low; zeros likewise, each row's on bytes of its own
  int8,  // codes 1..255 around 128
  rope_cos,
  rope_sin,
};
/// @throws EngineError bad_option
OnnxForm parse_onnx_form(const std::string& name);
inline bool is_blocked(OnnxForm form) { return form == OnnxForm::int4 || form == OnnxForm::int8; }
constexpr int64_t onnx_block = 32;

/// A matrix (or a vector, of one column) of the model.
struct OnnxPart {
  TensorOrigin origin;
  int64_t rows = 0;
  int64_t cols = 0;
};

struct OnnxTensor {
  std::string name;
  OnnxForm form = OnnxForm::f32;
  uint64_t offset = 0;  // in the file; of the codes where blocked
  uint64_t scales_offset = 0;
  uint64_t zeros_offset = 0;
  /// The rows of all parts are cut into so many matrices; where transposed, each is.
  int64_t batch = 1;
  bool transposed = false;
  std::vector<OnnxPart> parts;  // stacked, of the same columns. Of rope_cos and rope_sin one without origin

  int64_t rows() const;
  int64_t cols() const { return parts[0].cols; }
  uint64_t bytes() const;  // at `offset`
};

/// Codes, scales and zeros of whole rows.
struct BlockedRows {
  std::vector<uint8_t> codes;
  std::vector<float> scales;   // (rows, blocks)
  std::vector<uint8_t> zeros;  // empty: 128
};
BlockedRows quantise_rows(OnnxForm form, std::span<const float> values, int64_t cols);
/// The zeros of each value's block -> `zeros`, may be null.
void dequantise_rows(OnnxForm form, const BlockedRows& rows, int64_t cols, float* out);
/// Code of one value.
int block_code(OnnxForm form, const BlockedRows& rows, int64_t element);

/// Calls `use(part, first row, rows, values)` for all rows of a tensor, some millions of numbers at a time where the model
/// can give them so.
void for_row_slabs(const TrainedModel& model, const OnnxTensor& tensor,
                   const std::function<void(const OnnxPart&, int64_t, int64_t, std::span<const float>)>& use);

/// Writes `path`, tensor by tensor in the order of their offsets. @throws EngineError disk_full, cancelled
void write_onnx_data(const Exec& exec, const TrainedModel& model, const std::vector<OnnxTensor>& tensors,
                     const std::string& path, const ExportWatch& watch);

}  // namespace caravan
