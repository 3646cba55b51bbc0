#include "engine/io/gguf_writer.h"

#include <cstring>

#include "engine/platform/error.h"
#include "engine/platform/file.h"

namespace caravan {

namespace {

constexpr uint64_t alignment = 32;

template <typename T>
void put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void put_text(std::string& out, std::string_view value) {
  put(out, static_cast<uint64_t>(value.size()));
  out += value;
}

uint64_t aligned(uint64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

void GgufWriter::begin(std::string_view key, GgufKind kind) {
  put_text(values_, key);
  put(values_, static_cast<uint32_t>(kind));
  ++count_;
}

void GgufWriter::begin_list(std::string_view key, GgufKind kind, uint64_t count) {
  begin(key, GgufKind::array);
  put(values_, static_cast<uint32_t>(kind));
  put(values_, count);
}

void GgufWriter::text(std::string_view key, std::string_view value) {
  begin(key, GgufKind::string);
  put_text(values_, value);
}
void GgufWriter::u32(std::string_view key, uint32_t value) {
  begin(key, GgufKind::u32);
  put(values_, value);
}
void GgufWriter::f32(std::string_view key, float value) {
  begin(key, GgufKind::f32);
  put(values_, value);
}
void GgufWriter::boolean(std::string_view key, bool value) {
  begin(key, GgufKind::boolean);
  put(values_, static_cast<uint8_t>(value));
}
void GgufWriter::texts(std::string_view key, const std::vector<std::string>& values) {
  begin_list(key, GgufKind::string, values.size());
  for (const std::string& value : values) put_text(values_, value);
}
void GgufWriter::i32s(std::string_view key, const std::vector<int32_t>& values) {
  begin_list(key, GgufKind::i32, values.size());
  for (const int32_t value : values) put(values_, value);
}
void GgufWriter::f32s(std::string_view key, const std::vector<float>& values) {
  begin_list(key, GgufKind::f32, values.size());
  for (const float value : values) put(values_, value);
}

void GgufWriter::copy(std::string_view key, const GgufFile& from) {
  const GgufFile::Raw raw = from.raw(key);
  if (raw.is_list) {
    begin_list(key, raw.kind, raw.count);
  } else {
    begin(key, raw.kind);
  }
  values_.append(reinterpret_cast<const char*>(raw.data.data()), raw.data.size());
}

void GgufWriter::tensor(std::string name, GgmlType type, const std::vector<int64_t>& shape,
                        std::function<void(std::span<std::byte>)> fill) {
  const GgmlLayout& layout = ggml_layout(type);
  uint64_t elements = 1;
  for (const int64_t extent : shape) elements *= static_cast<uint64_t>(extent);
  const uint64_t bytes = elements / static_cast<uint64_t>(layout.block) * layout.bytes;
  tensors_.push_back({std::move(name), type, shape, bytes, std::move(fill)});
}

void GgufWriter::write(const std::string& path) const {
  std::string head = "GGUF";
  put(head, uint32_t{3});
  put(head, static_cast<uint64_t>(tensors_.size()));
  put(head, count_);
  head += values_;
  uint64_t at = 0;
  for (const Tensor& tensor : tensors_) {
    put_text(head, tensor.name);
    put(head, static_cast<uint32_t>(tensor.shape.size()));
    // The file has the innermost dimension first.
    for (auto extent = tensor.shape.rbegin(); extent != tensor.shape.rend(); ++extent) {
      put(head, static_cast<uint64_t>(*extent));
    }
    put(head, static_cast<uint32_t>(tensor.type));
    put(head, at);
    at += aligned(tensor.bytes);
  }
  head.resize(aligned(head.size()));
  FileWriter writer(path);
  writer.write(std::as_bytes(std::span(head)));
  std::vector<std::byte> bytes;
  for (const Tensor& tensor : tensors_) {
    bytes.assign(aligned(tensor.bytes), std::byte{0});
    tensor.fill(std::span(bytes).first(tensor.bytes));
    writer.write(bytes);
  }
  writer.sync_and_close();
}

}  // namespace caravan
