#include "engine/export/compare_tensors.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <set>

#include "engine/data/tokenizer_gguf.h"
#include "engine/data/tokenizer_json.h"
#include "engine/data/tokenizer_to_gguf.h"
#include "engine/io/half.h"
#include "engine/model/gguf_source.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

constexpr int64_t grain = 1 << 16;

struct Worst {
  double difference = 0.0;
  int64_t wrong = 0;  // elements outside their tolerance
};

/// Judges all elements; `judge(i)` returns the difference and whether it is allowed.
template <typename Judge>
Worst judge_elements(const Exec& exec, int64_t count, Judge&& judge) {
  Worst worst;
  std::mutex mutex;
  parallel_for(exec, count, grain, [&](int64_t first, int64_t last) {
    Worst mine;
    for (int64_t i = first; i < last; ++i) {
      const auto [difference, allowed] = judge(i);
      mine.difference = std::max(mine.difference, difference);
      if (!allowed) ++mine.wrong;
    }
    const std::lock_guard lock(mutex);
    worst.difference = std::max(worst.difference, mine.difference);
    worst.wrong += mine.wrong;
  });
  return worst;
}

/// Half the distance between neighbours at `value` in a type of `bits` of fraction and `smallest` exponent.
double half_step(double value, int bits, int smallest) {
  int exponent = 0;
  std::frexp(value, &exponent);
  return std::ldexp(1.0, std::max(exponent - 1, smallest) - bits - 1);
}

double half_step(StoredType type, double value) {
  if (type == StoredType::F16) return half_step(value, 10, -14);
  if (type == StoredType::BF16) return half_step(value, 7, -126);
  return half_step(value, 23, -126);
}

float cast(StoredType type, float value) {
  if (type == StoredType::F16) return half_to_float(float_to_half(value));
  if (type == StoredType::BF16) return static_cast<float>(bf16(value));
  return value;
}

class Comparer {
 public:
  Comparer(const Exec& exec, const TrainedModel& model, const ExportWatch& watch)
      : exec_(exec), model_(model), watch_(watch) {}

  void wrong(const std::string& what) { result_.wrong.push_back(what); }

  /// `found`: the file's values in `type`, the checkpoint's by `origin`.
  void compare(const std::string& name, StoredType type, const TensorOrigin& origin, std::span<const float> found) {
    finish(name, count_rule(origin), static_cast<int64_t>(found.size()), judge(type, origin, found));
  }

  /// Returns the rule's name.
  const char* count_rule(const TensorOrigin& origin) {
    const bool copied = model_.rule(origin) == TensorRule::copied;
    ++(copied ? result_.copied : result_.merged);
    return copied ? "copied" : "merged";
  }
  const char* count_quantised() {
    ++result_.quantised;
    return "quantised";
  }

  /// All of a tensor, or some of one that can be sliced.
  Worst judge(StoredType type, const TensorOrigin& origin, std::span<const float> found) const {
    watch_.check();
    const int64_t count = static_cast<int64_t>(found.size());
    if (model_.rule(origin) == TensorRule::copied) {
      std::vector<float> expected(found.size());
      model_.read(origin, count, expected.data());
      return judge_elements(exec_, count, [&](int64_t i) {
        const float want = expected[static_cast<size_t>(i)], got = found[static_cast<size_t>(i)];
        const bool same = std::bit_cast<uint32_t>(cast(type, want)) == std::bit_cast<uint32_t>(got);
        return std::pair(std::fabs(double{want} - double{got}), same);
      });
    }
    std::vector<double> expected(found.size()), scale(found.size());
    model_.expect(origin, count, expected.data(), scale.data());
    return judge_elements(exec_, count, [&](int64_t i) {
      const double want = expected[static_cast<size_t>(i)], got = double{found[static_cast<size_t>(i)]};
      const double difference = std::fabs(want - got);
      // The sum in fp32, then one rounding to the file's type.
      const double sum = 4e-7 * scale[static_cast<size_t>(i)];
      return std::pair(difference, difference <= half_step(type, std::fabs(want) + sum) + sum);
    });
  }

  /// Codes of whole rows against the values that they stand for.
  Worst judge_blocks(OnnxForm form, const TensorOrigin& origin, const BlockedRows& rows, int64_t cols) const {
    watch_.check();
    const int64_t count = static_cast<int64_t>(rows.scales.size()) * onnx_block;
    std::vector<float> expected(static_cast<size_t>(count)), found(static_cast<size_t>(count));
    model_.read(origin, count, expected.data());
    dequantise_rows(form, rows, cols, found.data());
    const int lowest = form == OnnxForm::int4 ? 0 : 1, highest = form == OnnxForm::int4 ? 15 : 255;
    return judge_elements(exec_, count, [&](int64_t i) {
      const double want = double{expected[static_cast<size_t>(i)]}, got = double{found[static_cast<size_t>(i)]};
      const double difference = std::fabs(want - got);
      const int code = block_code(form, rows, i);
      // Half a step; at the end of the codes also what was cut off there: a quarter of the block's range at most.
      const double steps = form == OnnxForm::int4 && (code == lowest || code == highest) ? 6.0 : 0.5;
      const double step = double{rows.scales[static_cast<size_t>(i / onnx_block)]};
      return std::pair(difference, difference <= step * steps * (1.0 + 1e-5) + 1e-30);
    });
  }

  void compare_quantised(const GgufExportTensor& tensor, std::span<const std::byte> blocks) {
    watch_.check();
    ++result_.quantised;
    const int64_t count = tensor.elements();
    std::vector<float> expected, found(static_cast<size_t>(count));
    read_gguf_values(model_, tensor, expected);
    dequantize_blocks(tensor.type, blocks, found.data());
    const GgmlLayout& layout = ggml_layout(tensor.type);
    const Worst worst = judge_elements(exec_, count, [&](int64_t i) {
      uint16_t half;
      std::memcpy(&half, blocks.data() + static_cast<size_t>(i / layout.block) * layout.bytes, 2);
      const double step = std::fabs(double{half_to_float(half)});
      const double want = double{expected[static_cast<size_t>(i)]}, got = double{found[static_cast<size_t>(i)]};
      const double difference = std::fabs(want - got);
      // Half a step, and a whole one at the end of Q4_0 that has no code; the step itself is rounded to 11 bits.
      const bool at_end = tensor.type == GgmlType::Q4_0 && std::fabs(want) > 7.5 * step;
      const double codes = tensor.type == GgmlType::Q4_0 ? 8.0 : 127.0;
      return std::pair(difference, difference <= step * ((at_end ? 1.0 : 0.5) + codes * 0x1p-11) + 0x1p-24 * codes);
    });
    finish(tensor.name, "quantised", count, worst);
  }

  TensorComparison result() && { return std::move(result_); }

  void finish(const std::string& name, const char* rule, int64_t count, const Worst& worst) {
    ++result_.tensors;
    result_.each.push_back({name, rule, count, worst.difference, worst.wrong});
    result_.elements += count;
    if (worst.difference > result_.max_difference || result_.max_tensor.empty()) {
      result_.max_difference = worst.difference;
      result_.max_tensor = name;
    }
    if (worst.wrong > 0) {
      result_.wrong.push_back(name + ": " + std::to_string(worst.wrong) + " of " + std::to_string(count) +
                              " elements are not what the checkpoint gives, by up to " +
                              std::to_string(worst.difference));
    }
    watch_.tell("comparing tensors", result_.tensors, 0);
  }

 private:
  const Exec& exec_;
  const TrainedModel& model_;
  const ExportWatch& watch_;
  TensorComparison result_;
};

void compare_folder(const TrainedModel& model, const ExportOptions& options, Comparer& comparer) {
  // PEFT's and our own adapter are single files under another name than a model's.
  std::vector<std::unique_ptr<SafetensorsFile>> single;
  std::map<std::string, ModelTensors::Entry, std::less<>> entries;
  std::optional<ModelTensors> whole;
  if (options.layout == ExportLayout::peft || options.layout == ExportLayout::adapter) {
    const char* name = options.layout == ExportLayout::peft ? peft_weights_name : adapter_weights_name;
    single.push_back(std::make_unique<SafetensorsFile>(
        SafetensorsFile::open((std::filesystem::path(options.out_dir) / name).string())));
    for (const TensorInfo& tensor : single[0]->tensors()) entries[tensor.name] = {single[0].get(), &tensor};
  } else {
    whole = ModelTensors::open(options.out_dir);
    entries = whole->entries();
  }
  std::set<std::string> expected;
  for (const ExportTensor& tensor :
       list_export_tensors(model.config(), model.method(), model.train_dtype(), options.layout, options.type)) {
    expected.insert(tensor.name);
    const auto found = entries.find(tensor.name);
    if (found == entries.end()) {
      comparer.wrong(tensor.name + " is missing");
      continue;
    }
    const TensorInfo& info = *found->second.tensor;
    if (info.type != tensor.type || info.shape != tensor.shape) {
      comparer.wrong(tensor.name + " has another type or shape");
      continue;
    }
    std::vector<float> values(static_cast<size_t>(info.elements()));
    read_tensor(*found->second.file, info, values.data());
    comparer.compare(tensor.name, tensor.type, tensor.origin, values);
  }
  for (const auto& [name, entry] : entries) {
    if (expected.count(name) == 0) comparer.wrong(name + " is in the file, and belongs to nothing");
  }
}

void compare_gguf(const TrainedModel& model, const ExportOptions& options, Comparer& comparer) {
  const std::string path = (std::filesystem::path(options.out_dir) / options.gguf_file).string();
  const GgufFile file = GgufFile::open(path);
  const GgufSource source(path);  // gives rows back in the order of Hugging Face
  const std::vector<GgufExportTensor> expected = list_gguf_tensors(model.config(), options.type);
  for (const GgufExportTensor& tensor : expected) {
    const GgufTensor* found = file.find(tensor.name);
    if (found == nullptr) {
      comparer.wrong(tensor.name + " is missing");
    } else if (found->type != tensor.type || found->shape != tensor.shape) {
      comparer.wrong(tensor.name + " has another type or shape");
    } else if (found->type == GgmlType::Q8_0 || found->type == GgmlType::Q4_0) {
      comparer.compare_quantised(tensor, file.bytes(*found));
    } else {
      std::vector<float> values(static_cast<size_t>(tensor.elements()));
      source.read(tensor.hugging_face_name, values.data());
      comparer.compare(tensor.name, found->type == GgmlType::F16 ? StoredType::F16 : StoredType::F32,
                       {tensor.hugging_face_name}, values);
    }
  }
  const size_t factors = file.find("rope_freqs.weight") != nullptr ? 1 : 0;
  if (file.tensors().size() != expected.size() + factors) {
    comparer.wrong("the file holds " + std::to_string(file.tensors().size()) + " tensors instead of " +
                   std::to_string(expected.size() + factors));
  }
  TokenizerSpec original;
  if (is_gguf_file(options.tokenizer_path)) {
    original = read_gguf_tokenizer(GgufFile::open(options.tokenizer_path));
  } else {
    const MappedFile json = MappedFile::open(options.tokenizer_path);
    original = parse_tokenizer_json({reinterpret_cast<const char*>(json.bytes().data()), json.bytes().size()},
                                    options.tokenizer_path);
  }
  if (const std::string problem = compare_tokenizers(read_gguf_tokenizer(file), original); !problem.empty()) {
    comparer.wrong("the tokenizer is not the model's: " + problem);
  }
}

/// Rows [first, first + rows) of a blocked tensor.
BlockedRows read_blocked(const MappedFile& file, const OnnxTensor& tensor, int64_t first, int64_t rows) {
  const auto read = [&](uint64_t offset, int64_t row_bytes, auto& out) {
    using T = typename std::decay_t<decltype(out)>::value_type;
    out.resize(static_cast<size_t>(rows * row_bytes) / sizeof(T));
    std::memcpy(out.data(), file.bytes().data() + offset + static_cast<uint64_t>(first * row_bytes),
                out.size() * sizeof(T));
  };
  const int64_t blocks = tensor.cols() / onnx_block;
  BlockedRows found;
  read(tensor.offset, tensor.form == OnnxForm::int4 ? tensor.cols() / 2 : tensor.cols(), found.codes);
  read(tensor.scales_offset, blocks * 4, found.scales);
  if (tensor.form == OnnxForm::int4) read(tensor.zeros_offset, (blocks + 1) / 2, found.zeros);
  return found;
}

/// Rows [first, first + rows) of the tensor before it was transposed, as f32.
std::vector<float> read_plain(const MappedFile& file, const OnnxTensor& tensor, int64_t first, int64_t rows) {
  const std::byte* data = file.bytes().data() + tensor.offset;
  const auto at = [&](int64_t element) {
    if (tensor.form == OnnxForm::f16) {
      uint16_t half;
      std::memcpy(&half, data + element * 2, 2);
      return half_to_float(half);
    }
    float value;
    std::memcpy(&value, data + element * 4, 4);
    return value;
  };
  const int64_t cols = tensor.cols(), height = tensor.rows() / tensor.batch;
  std::vector<float> values(static_cast<size_t>(rows * cols));
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t matrix = (first + row) / height, within = (first + row) % height;
    for (int64_t col = 0; col < cols; ++col) {
      const int64_t place = tensor.transposed ? (matrix * cols + col) * height + within : (first + row) * cols + col;
      values[static_cast<size_t>(row * cols + col)] = at(place);
    }
  }
  return values;
}

uint64_t end_of(const OnnxTensor& tensor) {
  const auto blocks = static_cast<uint64_t>(tensor.rows() * (tensor.cols() / onnx_block));
  uint64_t end = tensor.offset + tensor.bytes();
  if (is_blocked(tensor.form)) end = std::max(end, tensor.scales_offset + blocks * 4);
  if (tensor.form == OnnxForm::int4) {
    const int64_t row_bytes = (tensor.cols() / onnx_block + 1) / 2;
    end = std::max(end, tensor.zeros_offset + static_cast<uint64_t>(tensor.rows() * row_bytes));
  }
  return end;
}

}  // namespace

TensorComparison compare_onnx_tensors(const Exec& exec, const TrainedModel& model,
                                      const std::vector<OnnxTensor>& tensors, const std::string& path,
                                      const ExportWatch& watch) {
  Comparer comparer(exec, model, watch);
  const MappedFile file = MappedFile::open(path);
  std::set<std::string> missing;
  for (const ExportTensor& tensor : list_export_tensors(model.config(), model.method(), model.train_dtype(),
                                                        ExportLayout::merged, ExportType::f32)) {
    missing.insert(tensor.name);
  }
  if (model.method().has_adapters()) {
    MethodOptions experts = model.method();
    experts.lora_rank = 0;
    for (const Parameter& parameter : list_parameters(model.config(), experts)) missing.insert(parameter.name);
  }
  for (const OnnxTensor& tensor : tensors) {
    if (end_of(tensor) > file.bytes().size()) {
      comparer.wrong(tensor.name + " lies beyond the end of the file");
      continue;
    }
    if (tensor.form == OnnxForm::rope_cos || tensor.form == OnnxForm::rope_sin) continue;
    const bool blocked = is_blocked(tensor.form);
    int64_t above = 0;  // rows of the parts before
    for (const OnnxPart& part : tensor.parts) {
      missing.erase(part.origin.name);
      const char* rule = blocked ? comparer.count_quantised() : comparer.count_rule(part.origin);
      const int64_t most =
          model.can_slice(part.origin) ? std::max<int64_t>(1, (int64_t{1} << 24) / part.cols) : part.rows;
      Worst worst;
      for (int64_t row = 0; row < part.rows; row += most) {
        const int64_t rows = std::min(most, part.rows - row);
        TensorOrigin origin = part.origin;
        origin.first += row * part.cols;
        const Worst slab = blocked ? comparer.judge_blocks(tensor.form, origin,
                                                           read_blocked(file, tensor, above + row, rows), part.cols)
                                   : comparer.judge(tensor.form == OnnxForm::f16 ? StoredType::F16 : StoredType::F32,
                                                    origin, read_plain(file, tensor, above + row, rows));
        worst.difference = std::max(worst.difference, slab.difference);
        worst.wrong += slab.wrong;
      }
      comparer.finish(part.origin.name, rule, part.rows * part.cols, worst);
      above += part.rows;
    }
  }
  for (const std::string& name : missing) comparer.wrong(name + " is missing");
  return std::move(comparer).result();
}

TensorComparison compare_export_tensors(const Exec& exec, const TrainedModel& model, const ExportOptions& options,
                                        const ExportWatch& watch) {
  Comparer comparer(exec, model, watch);
  if (options.layout == ExportLayout::gguf) {
    compare_gguf(model, options, comparer);
  } else {
    compare_folder(model, options, comparer);
  }
  return std::move(comparer).result();
}

}  // namespace caravan
