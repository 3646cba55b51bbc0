#include "engine/export/onnx_tensors.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/io/half.h"
#include "engine/model/rope_table.h"
#include "engine/platform/error.h"
#include "engine/platform/file.h"

namespace caravan {

namespace {

constexpr int64_t slab_elements = int64_t{1} << 24;

int64_t blocks_of(int64_t cols) { return cols / onnx_block; }
int64_t zero_bytes(int64_t cols) { return (blocks_of(cols) + 1) / 2; }

struct Int4Range {
  float scale = 0.0f;
  float inverse = 0.0f;
  float zero = 8.0f;

  /// A whole number from 0 to 15.
  float code(float x) const {
    return static_cast<float>(static_cast<int>(std::clamp(x * inverse + zero, 0.0f, 15.0f) + 0.5f));
  }
};

/// 0 is a code of every block: what is 0 in the model stays 0.
Int4Range range_of(float low, float high) {
  Int4Range range;
  range.scale = (high - low) / 15.0f;
  if (!(range.scale >= std::numeric_limits<float>::min())) return {};  // all of the block is 0, or next to it
  range.inverse = 1.0f / range.scale;
  range.zero = std::clamp(std::round(-low * range.inverse), 0.0f, 15.0f);
  return range;
}

float squared_error(const float* x, const Int4Range& range) {
  float sum = 0.0f;
  for (int64_t i = 0; i < onnx_block; ++i) {
    const float difference = x[i] - (range.code(x[i]) - range.zero) * range.scale;
    sum += difference * difference;
  }
  return sum;
}

void quantise_block_int4(const float* x, uint8_t* codes, float* scale, uint8_t* zero) {
  float low = 0.0f, high = 0.0f;
  for (int64_t i = 0; i < onnx_block; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  // A narrower range cuts off a block's largest numbers and gives all others finer steps: the one of least squared error.
  Int4Range best = range_of(low, high);
  float least = squared_error(x, best);
  for (const float kept : {0.95f, 0.9f, 0.85f, 0.8f, 0.75f}) {
    const Int4Range range = range_of(low * kept, high * kept);
    const float error = squared_error(x, range);
    if (error >= least) continue;
    least = error;
    best = range;
  }
  *scale = best.scale;
  *zero = static_cast<uint8_t>(best.zero);
  for (int64_t i = 0; i < onnx_block; ++i) {
    const auto code = static_cast<uint8_t>(best.code(x[i]));
    codes[i / 2] = static_cast<uint8_t>(i % 2 == 0 ? code : codes[i / 2] | (code << 4));
  }
}

void quantise_block_int8(const float* x, uint8_t* codes, float* scale) {
  float largest = 0.0f;
  for (int64_t i = 0; i < onnx_block; ++i) largest = std::max(largest, std::fabs(x[i]));
  *scale = largest / 127.0f;
  for (int64_t i = 0; i < onnx_block; ++i) {
    const long level = *scale > 0.0f ? std::lround(x[i] / *scale) : 0L;
    codes[i] = static_cast<uint8_t>(std::clamp(level, -127L, 127L) + 128L);
  }
}

uint8_t zero_of(OnnxForm form, const BlockedRows& rows, int64_t row, int64_t block, int64_t cols) {
  if (form == OnnxForm::int8) return 128;
  const uint8_t pair = rows.zeros[static_cast<size_t>(row * zero_bytes(cols) + block / 2)];
  return block % 2 == 0 ? pair & 15 : pair >> 4;
}

/// The file's bytes, in their order; gaps are zeros.
class DataFile {
 public:
  DataFile(const std::string& path, uint64_t total, const ExportWatch& watch)
      : writer_(path), total_(total), watch_(watch) {}

  void write_at(uint64_t offset, std::span<const std::byte> bytes) {
    if (offset < writer_.written()) throw EngineError("internal", "ONNX tensors overlap in their file");
    while (writer_.written() < offset) {
      static constexpr std::array<std::byte, 4096> gap{};
      writer_.write(std::span(gap).first(std::min<uint64_t>(gap.size(), offset - writer_.written())));
    }
    writer_.write(bytes);
    watch_.tell("writing", static_cast<int64_t>(writer_.written()), static_cast<int64_t>(total_));
    watch_.check();
  }
  template <typename T>
  void append(std::span<const T> values) {
    write_at(writer_.written(), std::as_bytes(values));
  }
  void close() { writer_.sync_and_close(); }

 private:
  FileWriter writer_;
  uint64_t total_;
  const ExportWatch& watch_;
};

void write_plain(DataFile& file, OnnxForm form, std::span<const float> values) {
  if (form == OnnxForm::f32) {
    file.append(values);
    return;
  }
  std::vector<uint16_t> halves(values.size());
  std::transform(values.begin(), values.end(), halves.begin(), float_to_half);
  file.append(std::span<const uint16_t>(halves));
}

void write_transposed(DataFile& file, const TrainedModel& model, const OnnxTensor& tensor) {
  const int64_t rows = tensor.rows() / tensor.batch, cols = tensor.cols();
  std::vector<float> all;
  all.reserve(static_cast<size_t>(tensor.rows() * cols));
  for_row_slabs(model, tensor, [&](const OnnxPart&, int64_t, int64_t, std::span<const float> values) {
    all.insert(all.end(), values.begin(), values.end());
  });
  std::vector<float> turned(static_cast<size_t>(rows * cols));
  for (int64_t matrix = 0; matrix < tensor.batch; ++matrix) {
    const float* from = all.data() + matrix * rows * cols;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t col = 0; col < cols; ++col) turned[static_cast<size_t>(col * rows + row)] = from[row * cols + col];
    }
    write_plain(file, tensor.form, turned);
  }
}

void write_rope(DataFile& file, const TrainedModel& model, const OnnxTensor& tensor) {
  const size_t count = static_cast<size_t>(tensor.rows() * tensor.cols());
  std::vector<float> cos(count), sin(count);
  fill_rope_rows(model.config(), tensor.rows(), 0, tensor.rows(), cos.data(), sin.data());
  file.append(std::span<const float>(tensor.form == OnnxForm::rope_cos ? cos : sin));
}

void write_blocked(const Exec& exec, DataFile& file, const TrainedModel& model, const OnnxTensor& tensor) {
  const int64_t cols = tensor.cols();
  std::vector<float> scales;
  std::vector<uint8_t> zeros;
  for_row_slabs(model, tensor, [&](const OnnxPart&, int64_t, int64_t rows, std::span<const float> values) {
    std::vector<BlockedRows> made(static_cast<size_t>(rows));
    parallel_for(exec, rows, 16, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        made[static_cast<size_t>(row)] = quantise_rows(
            tensor.form, values.subspan(static_cast<size_t>(row * cols), static_cast<size_t>(cols)), cols);
      }
    });
    std::vector<uint8_t> codes;
    for (const BlockedRows& row : made) {
      codes.insert(codes.end(), row.codes.begin(), row.codes.end());
      scales.insert(scales.end(), row.scales.begin(), row.scales.end());
      zeros.insert(zeros.end(), row.zeros.begin(), row.zeros.end());
    }
    file.append(std::span<const uint8_t>(codes));
  });
  file.write_at(tensor.scales_offset, std::as_bytes(std::span(scales)));
  if (!zeros.empty()) file.write_at(tensor.zeros_offset, std::as_bytes(std::span(zeros)));
}

}  // namespace

OnnxForm parse_onnx_form(const std::string& name) {
  static constexpr std::array<std::pair<OnnxForm, const char*>, 6> forms{{{OnnxForm::f32, "f32"},
                                                                          {OnnxForm::f16, "f16"},
                                                                          {OnnxForm::int4, "int4"},
                                                                          {OnnxForm::int8, "int8"},
                                                                          {OnnxForm::rope_cos, "rope_cos"},
                                                                          {OnnxForm::rope_sin, "rope_sin"}}};
  for (const auto& [form, known] : forms) {
    if (name == known) return form;
  }
  throw EngineError("bad_option", "\"" + name + "\" is no form of an ONNX tensor");
}

int64_t OnnxTensor::rows() const {
  int64_t all = 0;
  for (const OnnxPart& part : parts) all += part.rows;
  return all;
}

uint64_t OnnxTensor::bytes() const {
  const auto elements = static_cast<uint64_t>(rows() * cols());
  switch (form) {
    case OnnxForm::int4: return elements / 2;
    case OnnxForm::int8: return elements;
    case OnnxForm::f16: return elements * 2;
    default: return elements * 4;
  }
}

BlockedRows quantise_rows(OnnxForm form, std::span<const float> values, int64_t cols) {
  const int64_t rows = static_cast<int64_t>(values.size()) / cols, blocks = blocks_of(cols);
  const int64_t code_bytes = form == OnnxForm::int4 ? onnx_block / 2 : onnx_block;
  BlockedRows made;
  made.codes.resize(static_cast<size_t>(rows * blocks * code_bytes));
  made.scales.resize(static_cast<size_t>(rows * blocks));
  if (form == OnnxForm::int4) made.zeros.resize(static_cast<size_t>(rows * zero_bytes(cols)));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t at = row * blocks + block;
      const float* x = values.data() + at * onnx_block;
      uint8_t* codes = made.codes.data() + at * code_bytes;
      float* scale = made.scales.data() + at;
      if (form == OnnxForm::int8) {
        quantise_block_int8(x, codes, scale);
        continue;
      }
      uint8_t zero = 0;
      quantise_block_int4(x, codes, scale, &zero);
      uint8_t& pair = made.zeros[static_cast<size_t>(row * zero_bytes(cols) + block / 2)];
      pair = static_cast<uint8_t>(block % 2 == 0 ? zero : pair | (zero << 4));
    }
  }
  return made;
}

int block_code(OnnxForm form, const BlockedRows& rows, int64_t element) {
  if (form == OnnxForm::int8) return rows.codes[static_cast<size_t>(element)];
  const uint8_t pair = rows.codes[static_cast<size_t>(element / 2)];
  return element % 2 == 0 ? pair & 15 : pair >> 4;
}

void dequantise_rows(OnnxForm form, const BlockedRows& rows, int64_t cols, float* out) {
  const int64_t count = static_cast<int64_t>(rows.scales.size()) * onnx_block;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = i / cols, block = i % cols / onnx_block;
    const int level = block_code(form, rows, i) - zero_of(form, rows, row, block, cols);
    out[i] = static_cast<float>(level) * rows.scales[static_cast<size_t>(i / onnx_block)];
  }
}

void for_row_slabs(const TrainedModel& model, const OnnxTensor& tensor,
                   const std::function<void(const OnnxPart&, int64_t, int64_t, std::span<const float>)>& use) {
  std::vector<float> values;
  for (const OnnxPart& part : tensor.parts) {
    const int64_t most = model.can_slice(part.origin) ? std::max<int64_t>(1, slab_elements / part.cols) : part.rows;
    for (int64_t row = 0; row < part.rows; row += most) {
      const int64_t rows = std::min(most, part.rows - row);
      values.resize(static_cast<size_t>(rows * part.cols));
      TensorOrigin origin = part.origin;
      origin.first += row * part.cols;
      model.read(origin, rows * part.cols, values.data());
      use(part, row, rows, values);
    }
  }
}

void write_onnx_data(const Exec& exec, const TrainedModel& model, const std::vector<OnnxTensor>& tensors,
                     const std::string& path, const ExportWatch& watch) {
  uint64_t total = 0;
  for (const OnnxTensor& tensor : tensors) total = std::max(total, tensor.offset + tensor.bytes());
  DataFile file(path, total, watch);
  for (const OnnxTensor& tensor : tensors) {
    file.write_at(tensor.offset, {});
    if (tensor.form == OnnxForm::rope_cos || tensor.form == OnnxForm::rope_sin) {
      write_rope(file, model, tensor);
    } else if (is_blocked(tensor.form)) {
      write_blocked(exec, file, model, tensor);
    } else if (tensor.transposed) {
      write_transposed(file, model, tensor);
    } else {
      for_row_slabs(model, tensor, [&](const OnnxPart&, int64_t, int64_t, std::span<const float> values) {
        write_plain(file, tensor.form, values);
      });
    }
  }
  file.close();
}

}  // namespace caravan
