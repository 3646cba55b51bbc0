#include "engine/io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <filesystem>
#include <set>

#include <nlohmann/json.hpp>
#include "engine/io/half.h"
#include "engine/io/torch_file.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

using nlohmann::json;

constexpr uint64_t max_header_bytes = 100'000'000;  // the reference library's own limit

struct TypeName {
  StoredType type;
  const char* name;
  size_t size;
};
constexpr std::array<TypeName, 15> type_names{{{StoredType::F64, "F64", 8},
                                               {StoredType::F32, "F32", 4},
                                               {StoredType::F16, "F16", 2},
                                               {StoredType::BF16, "BF16", 2},
                                               {StoredType::F8_E4M3, "F8_E4M3", 1},
                                               {StoredType::F8_E5M2, "F8_E5M2", 1},
                                               {StoredType::I64, "I64", 8},
                                               {StoredType::I32, "I32", 4},
                                               {StoredType::I16, "I16", 2},
                                               {StoredType::I8, "I8", 1},
                                               {StoredType::U64, "U64", 8},
                                               {StoredType::U32, "U32", 4},
                                               {StoredType::U16, "U16", 2},
                                               {StoredType::U8, "U8", 1},
                                               {StoredType::BOOL, "BOOL", 1}}};

[[noreturn]] void bad(const std::string& path, const std::string& what) {
  throw EngineError("bad_file", path + ": " + what + "; download or export the file again");
}

/// Refuses duplicate keys (nlohmann keeps the last in silence) and deep nesting while parsing.
json parse_header(const std::string& path, std::span<const std::byte> text) {
  std::vector<std::set<std::string>> keys;
  const auto* first = reinterpret_cast<const char*>(text.data());
  const auto check = [&](int depth, json::parse_event_t event, json& value) {
    if (depth > 4) bad(path, "its header nests deeper than the format does");
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      bad(path, "its header names '" + value.get<std::string>() + "' twice");
    return true;
  };
  try {
    return json::parse(first, first + text.size(), check);
  } catch (const json::exception& error) {
    bad(path, std::string("its header is not valid JSON: ") + error.what());
  }
}

StoredType parse_type(const std::string& path, const std::string& tensor, const json& value) {
  if (value.is_string())
    for (const TypeName& entry : type_names)
      if (value.get_ref<const std::string&>() == entry.name) return entry.type;
  bad(path, "tensor '" + tensor + "' has an unknown dtype " + value.dump());
}

uint64_t parse_size(const std::string& path, const std::string& tensor, const char* field, const json& value) {
  if (!value.is_number_unsigned()) bad(path, "tensor '" + tensor + "': " + field + " holds " + value.dump());
  return value.get<uint64_t>();
}

}  // namespace

const char* stored_type_name(StoredType type) { return type_names[static_cast<size_t>(type)].name; }
size_t stored_type_size(StoredType type) { return type_names[static_cast<size_t>(type)].size; }

int64_t TensorInfo::elements() const {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  SafetensorsFile result;
  result.path_ = path;
  result.file_ = MappedFile::open(path);
  const std::span<const std::byte> all = result.file_.bytes();
  if (all.size() < 8) bad(path, "is too short for a safetensors header");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, all.data(), 8);
  if (header_bytes > max_header_bytes)
    bad(path, "gives a header of " + std::to_string(header_bytes) + " bytes, more than the format's 100,000,000");
  if (header_bytes > all.size() - 8)
    bad(path, "gives a header of " + std::to_string(header_bytes) + " bytes but has only " +
                  std::to_string(all.size() - 8) + " after it: it was cut short");
  const json header = parse_header(path, all.subspan(8, header_bytes));
  if (!header.is_object()) bad(path, "its header is not an object");
  const uint64_t data_bytes = all.size() - 8 - header_bytes;
  std::vector<TensorInfo> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) bad(path, "its __metadata__ is not an object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) bad(path, "its metadata '" + key + "' is not a string");
        result.metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") || !entry.contains("data_offsets"))
      bad(path, "tensor '" + name + "' lacks dtype, shape or data_offsets");
    TensorInfo tensor;
    tensor.name = name;
    tensor.type = parse_type(path, name, entry["dtype"]);
    if (!entry["shape"].is_array()) bad(path, "tensor '" + name + "': shape is not an array");
    uint64_t size = stored_type_size(tensor.type);
    bool empty = false;
    for (const json& extent : entry["shape"]) {
      const uint64_t value = parse_size(path, name, "shape", extent);
      // Bounded by the file, so the product below cannot overflow.
      if (value > (uint64_t{1} << 48)) bad(path, "tensor '" + name + "' has an extent of " + std::to_string(value));
      empty = empty || value == 0;
      if (value != 0 && size > (uint64_t{1} << 62) / value) bad(path, "tensor '" + name + "' is too large");
      if (value != 0) size *= value;
      tensor.shape.push_back(static_cast<int64_t>(value));
    }
    tensor.size = empty ? 0 : size;
    const json& offsets = entry["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2) bad(path, "tensor '" + name + "': data_offsets is not a pair");
    const uint64_t begin = parse_size(path, name, "data_offsets", offsets[0]);
    const uint64_t end = parse_size(path, name, "data_offsets", offsets[1]);
    if (begin > end || end > data_bytes)
      bad(path, "tensor '" + name + "' ends at byte " + std::to_string(end) + " of its data, which has " +
                    std::to_string(data_bytes) + ": it was cut short");
    if (end - begin != tensor.size)
      bad(path, "tensor '" + name + "' has " + std::to_string(end - begin) + " bytes, but its shape and type need " +
                    std::to_string(tensor.size));
    tensor.offset = 8 + header_bytes + begin;
    tensors.push_back(std::move(tensor));
  }
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.size != b.size ? a.size < b.size : a.name < b.name;
  });
  uint64_t at = 8 + header_bytes;
  for (TensorInfo& tensor : tensors) {
    if (tensor.offset != at)
      bad(path, "tensor '" + tensor.name +
                    (tensor.offset < at ? "' overlaps the one before it" : "' leaves a hole before it"));
    at += tensor.size;
    result.add(std::move(tensor));
  }
  if (at != all.size()) bad(path, "has " + std::to_string(all.size() - at) + " bytes that no tensor owns");
  return result;
}

bool TensorFile::add(TensorInfo tensor) {
  if (!by_name_.emplace(tensor.name, tensors_.size()).second) return false;
  tensors_.push_back(std::move(tensor));
  return true;
}

const TensorInfo* TensorFile::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

const TensorInfo& TensorFile::get(std::string_view name) const {
  const TensorInfo* tensor = find(name);
  if (!tensor) bad(path_, "has no tensor '" + std::string(name) + "'");
  return *tensor;
}

std::span<const std::byte> TensorFile::bytes(const TensorInfo& tensor) const {
  return file_.bytes().subspan(tensor.offset, tensor.size);
}

const void* TensorFile::aligned(const TensorInfo& tensor, size_t size, size_t alignment) const {
  if (stored_type_size(tensor.type) != size)
    bad(path_, "tensor '" + tensor.name + "' is " + stored_type_name(tensor.type) + ", another type was expected");
  const void* data = bytes(tensor).data();
  if (tensor.size > 0 && reinterpret_cast<uintptr_t>(data) % alignment != 0)
    bad(path_, "tensor '" + tensor.name + "' is not aligned to its type");
  return data;
}

ModelTensors ModelTensors::open(const std::string& dir) {
  namespace fs = std::filesystem;
  const fs::path folder(dir);
  const bool is_torch =
      !fs::exists(folder / "model.safetensors.index.json") && !fs::exists(folder / "model.safetensors") &&
      (fs::exists(folder / "pytorch_model.bin.index.json") || fs::exists(folder / "pytorch_model.bin"));
  const std::string single = is_torch ? "pytorch_model.bin" : "model.safetensors";
  const fs::path index = folder / (single + ".index.json");
  std::map<std::string, std::string> weight_map;  // tensor -> file, empty for a single file
  std::set<std::string> names;
  if (fs::exists(index)) {
    const MappedFile file = MappedFile::open(index.string());
    const auto* text = reinterpret_cast<const char*>(file.bytes().data());
    const json parsed = json::parse(text, text + file.bytes().size(), nullptr, false);
    if (parsed.is_discarded() || !parsed.is_object() || !parsed.contains("weight_map") ||
        !parsed["weight_map"].is_object())
      bad(index.string(), "is not an index with a weight_map");
    for (const auto& [tensor, name] : parsed["weight_map"].items()) {
      if (!name.is_string()) bad(index.string(), "weight_map['" + tensor + "'] is not a file name");
      const std::string shard = name.get<std::string>();
      if (shard.empty() || fs::path(shard).has_parent_path() || shard == "..")
        bad(index.string(), "weight_map['" + tensor + "'] = '" + shard + "' leaves the folder");
      weight_map[tensor] = shard;
      names.insert(shard);
    }
    if (names.empty()) bad(index.string(), "names no tensor");
  } else if (fs::exists(folder / single)) {
    names.insert(single);
  } else {
    throw EngineError("bad_file",
                      dir +
                          ": holds neither model.safetensors nor pytorch_model.bin, whole or with an index; give a "
                          "Hugging Face model folder");
  }
  ModelTensors result;
  std::map<std::string, const TensorFile*> by_file;
  for (const std::string& name : names) {
    const fs::path path = folder / name;
    if (!fs::exists(path)) bad(path.string(), "is named by the index but is not there");
    if (is_torch)
      result.files_.push_back(std::make_unique<TorchFile>(TorchFile::open(path.string())));
    else
      result.files_.push_back(std::make_unique<SafetensorsFile>(SafetensorsFile::open(path.string())));
    by_file[name] = result.files_.back().get();
  }
  if (weight_map.empty()) {
    for (const TensorInfo& tensor : result.files_[0]->tensors())
      result.entries_[tensor.name] = {result.files_[0].get(), &tensor};
  }
  for (const auto& [tensor, name] : weight_map) {
    const TensorFile* file = by_file[name];
    const TensorInfo* info = file->find(tensor);
    if (!info) bad(file->path(), "has no tensor '" + tensor + "', which the index places there");
    result.entries_[tensor] = {file, info};
  }
  return result;
}

ModelTensors::Entry ModelTensors::find(std::string_view name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? Entry{} : found->second;
}

uint64_t ModelTensors::file_bytes() const {
  uint64_t sum = 0;
  for (const auto& [name, entry] : entries_) sum += entry.tensor->size;
  return sum;
}

void read_tensor(const TensorFile& file, const TensorInfo& tensor, Ptr out) {
  const std::byte* data = file.bytes(tensor).data();
  const int64_t count = tensor.elements();
  const auto convert_from = [&]<typename Raw>(auto to_float) {
    dispatch(out.dtype, [&]<typename T>() {
      T* to = out.as<T>();
      for (int64_t i = 0; i < count; ++i) {
        Raw raw;
        std::memcpy(&raw, data + i * static_cast<int64_t>(sizeof(Raw)), sizeof(Raw));
        to[i] = T(to_float(raw));
      }
    });
  };
  const bool same = (tensor.type == StoredType::F32 && out.dtype == DType::f32) ||
                    (tensor.type == StoredType::BF16 && out.dtype == DType::bf16);
  if (same) {
    if (tensor.size > 0) std::memcpy(out.data, data, tensor.size);
    return;
  }
  switch (tensor.type) {
    case StoredType::F64: return convert_from.operator()<double>([](double x) { return static_cast<float>(x); });
    case StoredType::F32: return convert_from.operator()<float>([](float x) { return x; });
    case StoredType::F16: return convert_from.operator()<uint16_t>(half_to_float);
    case StoredType::BF16:
      return convert_from.operator()<uint16_t>([](uint16_t bits) { return static_cast<float>(bf16::from_bits(bits)); });
    default:
      bad(file.path(),
          "tensor '" + tensor.name + "' is " + stored_type_name(tensor.type) + ", expected F32, F16 or BF16");
  }
}

namespace {

/// The order of the reference library: by alignment, then by name.
template <typename Tensor>
void sort_tensors(std::vector<Tensor>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) {
    const size_t wide = stored_type_size(a.type), other = stored_type_size(b.type);
    return wide != other ? wide > other : a.name < b.name;
  });
}

uint64_t tensor_size(StoredType type, const std::vector<int64_t>& shape) {
  uint64_t size = stored_type_size(type);
  for (const int64_t extent : shape) size *= static_cast<uint64_t>(extent);
  return size;
}

template <typename Tensor>
void write_header(FileWriter& writer, const std::vector<Tensor>& sorted,
                  const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0;
  for (const Tensor& tensor : sorted) {
    const uint64_t size = tensor_size(tensor.type, tensor.shape);
    header[tensor.name] = {
        {"dtype", stored_type_name(tensor.type)}, {"shape", tensor.shape}, {"data_offsets", {at, at + size}}};
    at += size;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // data begins aligned to its widest type
  const uint64_t length = text.size();
  writer.write(std::as_bytes(std::span(&length, 1)));
  writer.write(std::as_bytes(std::span(text)));
}

}  // namespace

void write_safetensors(const std::string& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  sort_tensors(tensors);
  for (const TensorToWrite& tensor : tensors) {
    const uint64_t size = tensor_size(tensor.type, tensor.shape);
    if (size != tensor.data.size())
      throw EngineError("internal", path + ": tensor '" + tensor.name + "' has " + std::to_string(tensor.data.size()) +
                                        " bytes, its shape needs " + std::to_string(size));
  }
  FileWriter writer(path);
  write_header(writer, tensors, metadata);
  for (const TensorToWrite& tensor : tensors) writer.write(tensor.data);
  writer.sync_and_close();
}

uint64_t TensorToStream::bytes() const { return tensor_size(type, shape); }

void stream_safetensors(const std::string& path, std::vector<TensorToStream> tensors,
                        const std::map<std::string, std::string>& metadata) {
  sort_tensors(tensors);
  FileWriter writer(path);
  write_header(writer, tensors, metadata);
  std::vector<std::byte> bytes;
  for (const TensorToStream& tensor : tensors) {
    bytes.resize(tensor.bytes());
    tensor.fill(bytes);
    writer.write(bytes);
  }
  writer.sync_and_close();
}

}  // namespace caravan
