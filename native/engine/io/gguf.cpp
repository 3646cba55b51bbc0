#include "engine/io/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <limits>

#include "engine/platform/error.h"

namespace caravan {

namespace {

constexpr uint64_t max_key_bytes = 65535;  // the format's own limit
constexpr uint64_t max_name_bytes = 64;
constexpr uint32_t max_dimensions = 4;
constexpr uint64_t max_alignment = uint64_t{1} << 30;

/// 0 for strings and lists, whose size the file says.
size_t kind_bytes(GgufKind kind) {
  switch (kind) {
    case GgufKind::u8:
    case GgufKind::i8:
    case GgufKind::boolean: return 1;
    case GgufKind::u16:
    case GgufKind::i16: return 2;
    case GgufKind::u32:
    case GgufKind::i32:
    case GgufKind::f32: return 4;
    case GgufKind::u64:
    case GgufKind::i64:
    case GgufKind::f64: return 8;
    case GgufKind::string:
    case GgufKind::array: break;
  }
  return 0;
}

template <typename T>
T read_as(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof(T));
  return value;
}

bool is_integer(GgufKind kind) {
  return kind != GgufKind::f32 && kind != GgufKind::f64 && kind != GgufKind::boolean && kind != GgufKind::string &&
         kind != GgufKind::array;
}

/// Nothing where an unsigned number is beyond int64_t.
std::optional<int64_t> integer_at(GgufKind kind, const std::byte* data) {
  switch (kind) {
    case GgufKind::u8: return read_as<uint8_t>(data);
    case GgufKind::i8: return read_as<int8_t>(data);
    case GgufKind::u16: return read_as<uint16_t>(data);
    case GgufKind::i16: return read_as<int16_t>(data);
    case GgufKind::u32: return read_as<uint32_t>(data);
    case GgufKind::i32: return read_as<int32_t>(data);
    case GgufKind::i64: return read_as<int64_t>(data);
    default: break;
  }
  const auto value = read_as<uint64_t>(data);
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return static_cast<int64_t>(value);
}

// Appended piece by piece: GCC 12 warns of nonsense where a literal is added to a string on the left.
std::string in_quotes(std::string_view name) { return std::string(1, '\'').append(name).append(1, '\''); }

}  // namespace

int64_t GgufTensor::elements() const {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

bool is_gguf_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[4] = {};
  return file.read(magic, 4) && std::memcmp(magic, "GGUF", 4) == 0;
}

void GgufFile::fail(const std::string& what) const {
  throw EngineError("bad_file", path_ + ": " + what + "; download or convert the file again");
}

/// Reads front to back; `left` bytes are never overstepped.
class GgufFile::Parser {
 public:
  explicit Parser(GgufFile& file) : file_(file), all_(file.file_.bytes()) {}

  void parse() {
    if (all_.size() < 24) file_.fail("is too short for a GGUF header");
    if (std::memcmp(all_.data(), "GGUF", 4) != 0) file_.fail("does not begin with GGUF");
    at_ = 4;
    const auto version = number<uint32_t>("the header");
    if (version == 0x03000000 || version == 0x02000000) file_.fail("is big-endian, which is not supported");
    if (version != 2 && version != 3)
      file_.fail("is GGUF version " + std::to_string(version) + "; versions 2 and 3 are supported");
    const auto tensor_count = number<uint64_t>("the header");
    const auto value_count = number<uint64_t>("the header");
    // A key takes 12 bytes at least, a tensor 24: what is counted beyond that cannot be there.
    if (value_count > left() / 12)
      file_.fail("counts " + std::to_string(value_count) + " metadata values, more than it holds");
    for (uint64_t i = 0; i < value_count; ++i) parse_value(i);
    if (tensor_count > left() / 24)
      file_.fail("counts " + std::to_string(tensor_count) + " tensors, more than it holds");
    for (uint64_t i = 0; i < tensor_count; ++i) parse_tensor(i);
    place_tensors();
  }

 private:
  uint64_t left() const { return all_.size() - at_; }

  std::span<const std::byte> take(uint64_t count, const std::string& what) {
    if (count > left())
      file_.fail(what + " needs " + std::to_string(count) + " bytes where " + std::to_string(left()) +
                 " are left: it was cut short or is damaged");
    const auto bytes = all_.subspan(at_, count);
    at_ += count;
    return bytes;
  }

  template <typename T>
  T number(const std::string& what) {
    return read_as<T>(take(sizeof(T), what).data());
  }

  std::string text(uint64_t limit, const std::string& what) {
    const auto length = number<uint64_t>(what);
    if (length > limit)
      file_.fail(what + " is " + std::to_string(length) + " bytes long, over the limit of " + std::to_string(limit));
    const auto bytes = take(length, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  GgufKind kind(const std::string& what) {
    const auto raw = number<uint32_t>(what);
    if (raw > static_cast<uint32_t>(GgufKind::f64)) file_.fail(what + " has the unknown type " + std::to_string(raw));
    return static_cast<GgufKind>(raw);
  }

  void parse_value(uint64_t index) {
    const std::string key = text(max_key_bytes, "metadata key " + std::to_string(index));
    const std::string what = "metadata " + in_quotes(key);
    Value value;
    value.kind = kind(what);
    if (value.kind == GgufKind::array) {
      value.is_list = true;
      value.kind = kind(what);
      value.count = number<uint64_t>(what);
      if (value.kind == GgufKind::array) file_.fail(what + " is a list of lists, which no model needs");
    }
    const size_t each = kind_bytes(value.kind);
    if (each > 0) {
      if (value.count > left() / each)
        file_.fail(what + " counts " + std::to_string(value.count) + " elements, more than the file holds");
      value.data = take(value.count * each, what);
    } else {
      if (value.count > left() / 8)
        file_.fail(what + " counts " + std::to_string(value.count) + " strings, more than the file holds");
      const uint64_t first = at_;
      for (uint64_t i = 0; i < value.count; ++i) take(number<uint64_t>(what), what);
      value.data = all_.subspan(first, at_ - first);
    }
    if (!file_.values_.emplace(key, value).second) file_.fail(what + " is there twice");
  }

  void parse_tensor(uint64_t index) {
    GgufTensor tensor;
    tensor.name = text(max_name_bytes, "the name of tensor " + std::to_string(index));
    const std::string what = "tensor " + in_quotes(tensor.name);
    const auto dimensions = number<uint32_t>(what);
    if (dimensions > max_dimensions) file_.fail(what + " has " + std::to_string(dimensions) + " dimensions");
    uint64_t elements = 1;
    for (uint32_t i = 0; i < dimensions; ++i) {
      const auto extent = number<uint64_t>(what);
      if (extent == 0 || extent > (uint64_t{1} << 48)) file_.fail(what + " has an extent of " + std::to_string(extent));
      if (elements > (uint64_t{1} << 56) / extent) file_.fail(what + " is too large");
      elements *= extent;
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(extent));
    }
    const auto type = number<uint32_t>(what);
    const GgmlLayout* layout = find_ggml_layout(type);
    if (layout == nullptr)
      throw EngineError("bad_file", file_.path_ + ": " + what + " is of ggml type " + std::to_string(type) +
                                        ", which is not supported; take a file of the types " + supported_ggml_types());
    tensor.type = layout->type;
    const auto row = static_cast<uint64_t>(tensor.shape.empty() ? 1 : tensor.shape.back());
    if (row % static_cast<uint64_t>(layout->block) != 0)
      file_.fail(what + " has rows of " + std::to_string(row) + " elements, which are no whole blocks of " +
                 layout->name + " (" + std::to_string(layout->block) + ")");
    tensor.size = elements / static_cast<uint64_t>(layout->block) * layout->bytes;
    tensor.offset = number<uint64_t>(what);
    std::string name = tensor.name;
    if (!file_.tensors_.emplace(std::move(name), std::move(tensor)).second) file_.fail(what + " is there twice");
  }

  /// From offsets in the data section to offsets in the file.
  void place_tensors() {
    const int64_t asked = file_.integer("general.alignment").value_or(32);
    if (asked < 1 || static_cast<uint64_t>(asked) > max_alignment || !std::has_single_bit(static_cast<uint64_t>(asked)))
      file_.fail("metadata 'general.alignment' is " + std::to_string(asked) + ", no power of two");
    const auto alignment = static_cast<uint64_t>(asked);
    if (file_.tensors_.empty()) return;
    const uint64_t start = (at_ + alignment - 1) / alignment * alignment;
    const uint64_t room = start > all_.size() ? 0 : all_.size() - start;
    std::vector<const GgufTensor*> order;
    for (auto& [name, tensor] : file_.tensors_) {
      const std::string what = "tensor " + in_quotes(name);
      if (tensor.offset % alignment != 0)
        file_.fail(what + " begins at " + std::to_string(tensor.offset) + ", no multiple of the alignment " +
                   std::to_string(alignment));
      if (tensor.offset > room || tensor.size > room - tensor.offset)
        file_.fail(what + " ends " + std::to_string(tensor.size) + " bytes after offset " +
                   std::to_string(tensor.offset) + ", but the file holds " + std::to_string(room) +
                   " bytes of tensors: it was cut short");
      tensor.offset += start;
      order.push_back(&tensor);
    }
    std::sort(order.begin(), order.end(),
              [](const GgufTensor* a, const GgufTensor* b) { return a->offset < b->offset; });
    for (size_t i = 1; i < order.size(); ++i)
      if (order[i - 1]->offset + order[i - 1]->size > order[i]->offset)
        file_.fail("tensors " + in_quotes(order[i - 1]->name) + " and " + in_quotes(order[i]->name) + " overlap");
  }

  GgufFile& file_;
  std::span<const std::byte> all_;
  uint64_t at_ = 0;
};

GgufFile GgufFile::open(const std::string& path) {
  GgufFile result;
  result.path_ = path;
  result.file_ = MappedFile::open(path);
  Parser(result).parse();
  return result;
}

const GgufFile::Value* GgufFile::value(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

void GgufFile::wrong_kind(std::string_view key, const char* wanted) const {
  fail("metadata " + in_quotes(key) + " must be " + wanted);
}

std::optional<std::string> GgufFile::text(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (found->is_list || found->kind != GgufKind::string) wrong_kind(key, "a string");
  return std::string(reinterpret_cast<const char*>(found->data.data()) + 8, found->data.size() - 8);
}

std::optional<int64_t> GgufFile::integer(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (found->is_list || !is_integer(found->kind)) wrong_kind(key, "a whole number");
  const std::optional<int64_t> number = integer_at(found->kind, found->data.data());
  if (!number) wrong_kind(key, "a whole number below 2^63");
  return number;
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (!found->is_list && found->kind == GgufKind::f32) return double{read_as<float>(found->data.data())};
  if (!found->is_list && found->kind == GgufKind::f64) return read_as<double>(found->data.data());
  if (found->is_list || !is_integer(found->kind)) wrong_kind(key, "a number");
  return static_cast<double>(*integer(key));
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (found->is_list || found->kind != GgufKind::boolean) wrong_kind(key, "true or false");
  return found->data[0] != std::byte{0};
}

std::optional<std::vector<std::string>> GgufFile::texts(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (!found->is_list || found->kind != GgufKind::string) wrong_kind(key, "a list of strings");
  std::vector<std::string> result;
  result.reserve(found->count);
  const std::byte* at = found->data.data();
  for (uint64_t i = 0; i < found->count; ++i) {
    const auto length = read_as<uint64_t>(at);
    result.emplace_back(reinterpret_cast<const char*>(at) + 8, length);
    at += 8 + length;
  }
  return result;
}

std::optional<std::vector<int64_t>> GgufFile::integers(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (!is_integer(found->kind)) wrong_kind(key, "a list of whole numbers");
  std::vector<int64_t> result;
  result.reserve(found->count);
  for (uint64_t i = 0; i < found->count; ++i) {
    const auto number = integer_at(found->kind, found->data.data() + i * kind_bytes(found->kind));
    if (!number) wrong_kind(key, "a list of whole numbers below 2^63");
    result.push_back(*number);
  }
  return result;
}

std::optional<std::vector<float>> GgufFile::numbers(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (!found->is_list || found->kind != GgufKind::f32) wrong_kind(key, "a list of f32 numbers");
  std::vector<float> result(found->count);
  if (found->count > 0) std::memcpy(result.data(), found->data.data(), found->data.size());
  return result;
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

std::span<const std::byte> GgufFile::bytes(const GgufTensor& tensor) const {
  return file_.bytes().subspan(tensor.offset, tensor.size);
}

std::vector<std::string> GgufFile::keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : values_) keys.push_back(key);
  return keys;
}

GgufFile::Raw GgufFile::raw(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) fail("metadata '" + std::string(key) + "' is missing");
  return {found->kind, found->is_list, found->count, found->data};
}

}  // namespace caravan
