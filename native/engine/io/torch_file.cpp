#include "engine/io/torch_file.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "engine/io/torch_pickle.h"
#include "engine/io/zip_entries.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

[[noreturn]] void bad(const std::string& path, const std::string& what) {
  throw EngineError("bad_file", path + ": " + what + "; download or save the file again");
}

/// Before 1.6 torch.save wrote no archive but several pickles, the first of them this number.
bool is_before_1_6(std::span<const std::byte> bytes) {
  static constexpr unsigned char magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c,
                                            0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
  return bytes.size() >= sizeof(magic) && std::memcmp(bytes.data(), magic, sizeof(magic)) == 0;
}

/// Elements of a shape; nothing where there are more than could be stored.
std::optional<uint64_t> count_elements(const std::vector<int64_t>& shape) {
  uint64_t count = 1;
  for (const int64_t extent : shape) {
    if (extent < 0 || extent > (int64_t{1} << 48)) return std::nullopt;
    if (extent != 0 && count > (uint64_t{1} << 56) / static_cast<uint64_t>(extent)) return std::nullopt;
    count *= static_cast<uint64_t>(extent);
  }
  return count;
}

/// Row by row without gaps; the stride of an extent of one says nothing.
bool is_contiguous(const PickledTensor& tensor, uint64_t elements) {
  if (elements == 0) return true;
  int64_t expected = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

}  // namespace

TorchFile TorchFile::open(const std::string& path) {
  TorchFile result;
  result.path_ = path;
  result.file_ = MappedFile::open(path);
  const std::span<const std::byte> all = result.file_.bytes();
  if (is_before_1_6(all))
    throw EngineError("bad_file", path +
                                      ": PyTorch before 1.6 wrote it, in a form that is not read; load it and save it "
                                      "again with torch.save, or take a revision with safetensors");
  const auto entries = read_zip_entries(path, all);
  // All entries lie in one folder, which has the name of the file that was saved.
  const auto pickle = std::find_if(entries.begin(), entries.end(), [](const auto& entry) {
    return entry.first.ends_with("/data.pkl") && std::count(entry.first.begin(), entry.first.end(), '/') == 1;
  });
  if (pickle == entries.end()) bad(path, "holds no data.pkl, as every checkpoint of PyTorch does");
  const std::string folder = pickle->first.substr(0, pickle->first.size() - std::strlen("data.pkl"));
  if (const auto order = entries.find(folder + "byteorder"); order != entries.end()) {
    const std::string_view word{reinterpret_cast<const char*>(order->second.data()), order->second.size()};
    if (word != "little") bad(path, "was written on a machine of another byte order");
  }
  for (PickledTensor& tensor : read_torch_pickle(path, pickle->second)) {
    const std::string who = "tensor '" + tensor.name + "'";
    const auto storage = entries.find(folder + "data/" + tensor.storage);
    if (storage == entries.end()) bad(path, who + " lies in a storage that is not there");
    const uint64_t width = stored_type_size(tensor.type);
    const uint64_t stored = storage->second.size() / width;
    if (tensor.storage_elements < 0 || static_cast<uint64_t>(tensor.storage_elements) > stored)
      bad(path, who + " lies in a storage of " + std::to_string(tensor.storage_elements) + " elements, which has " +
                    std::to_string(stored));
    const std::optional<uint64_t> elements = count_elements(tensor.shape);
    if (!elements || tensor.strides.size() != tensor.shape.size()) bad(path, who + " has a shape that no tensor has");
    if (!is_contiguous(tensor, *elements))
      throw EngineError("bad_file", path + ": " + who +
                                        " is not stored row by row (it is a view of another); save it again after "
                                        "contiguous()");
    if (tensor.offset < 0 || static_cast<uint64_t>(tensor.offset) > stored ||
        *elements > stored - static_cast<uint64_t>(tensor.offset))
      bad(path, who + " ends beyond its storage of " + std::to_string(stored) + " elements");
    TensorInfo info;
    info.name = std::move(tensor.name);
    info.type = tensor.type;
    info.shape = std::move(tensor.shape);
    info.offset =
        static_cast<uint64_t>(storage->second.data() - all.data()) + static_cast<uint64_t>(tensor.offset) * width;
    info.size = *elements * width;
    if (!result.add(std::move(info))) bad(path, "names " + who + " twice");
  }
  return result;
}

}  // namespace caravan
