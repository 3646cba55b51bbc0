#include "engine/io/zip_entries.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "engine/platform/error.h"

namespace caravan {

namespace {

using Bytes = std::span<const std::byte>;

constexpr uint32_t end_signature = 0x06054b50;
constexpr uint32_t end64_signature = 0x06064b50;
constexpr uint32_t locator64_signature = 0x07064b50;
constexpr uint32_t central_signature = 0x02014b50;
constexpr uint32_t local_signature = 0x04034b50;
constexpr size_t end_size = 22, locator64_size = 20, end64_size = 56, central_size = 46, local_size = 30;
constexpr size_t longest_comment = 0xffff;
constexpr uint16_t zip64_extra = 1;
constexpr uint32_t in_zip64 = 0xffffffff;

class Archive {
 public:
  Archive(const std::string& path, Bytes bytes) : path_(path), bytes_(bytes) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw EngineError("bad_file", path_ + ": " + what + "; download or save the file again");
  }

  /// Bounds are checked with what is left, so that no sum can wrap around.
  Bytes part(uint64_t offset, uint64_t size, const char* what) const {
    if (offset > bytes_.size() || size > bytes_.size() - offset)
      fail(std::string(what) + " reaches beyond the file's " + std::to_string(bytes_.size()) +
           " bytes: it was cut short");
    return bytes_.subspan(static_cast<size_t>(offset), static_cast<size_t>(size));
  }

  template <typename T>
  static T number(Bytes bytes, size_t offset) {
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof(T));
    return value;
  }

  struct Table {
    uint64_t offset = 0, size = 0, count = 0;
  };

  /// The end of the archive says where its table is.
  Table find_table() const {
    if (bytes_.size() < end_size) fail("is too short for a checkpoint of PyTorch");
    const size_t last = bytes_.size() - end_size;
    const size_t first = last - std::min(last, longest_comment);
    for (size_t at = last;; --at) {
      if (number<uint32_t>(bytes_, at) == end_signature) return table_at(at);
      if (at == first) break;
    }
    fail("has no table of contents at its end: it was cut short, or PyTorch before 1.6 wrote it");
  }

 private:
  Table table_at(size_t at) const {
    const Bytes end = bytes_.subspan(at, end_size);
    Table table{number<uint32_t>(end, 16), number<uint32_t>(end, 12), number<uint16_t>(end, 10)};
    if (table.offset != in_zip64 && table.size != in_zip64 && table.count != 0xffff) return table;
    if (at < locator64_size) fail("its table of contents is damaged");
    const Bytes locator = bytes_.subspan(at - locator64_size, locator64_size);
    if (number<uint32_t>(locator, 0) != locator64_signature) fail("its table of contents is damaged");
    const Bytes end64 = part(number<uint64_t>(locator, 8), end64_size, "its table of contents");
    if (number<uint32_t>(end64, 0) != end64_signature) fail("its table of contents is damaged");
    return {number<uint64_t>(end64, 48), number<uint64_t>(end64, 40), number<uint64_t>(end64, 32)};
  }

  const std::string& path_;
  Bytes bytes_;
};

/// Replaces those of the numbers that did not fit by the ones of the ZIP64 field, in its order.
void read_zip64(const Archive& archive, Bytes extra, std::span<uint64_t*> wide) {
  while (extra.size() >= 4) {
    const auto id = Archive::number<uint16_t>(extra, 0);
    const auto size = Archive::number<uint16_t>(extra, 2);
    extra = extra.subspan(4);
    if (size > extra.size()) archive.fail("an entry's description is damaged");
    if (id == zip64_extra) {
      if (size < 8 * wide.size()) archive.fail("an entry's description is damaged");
      for (size_t i = 0; i < wide.size(); ++i) *wide[i] = Archive::number<uint64_t>(extra, 8 * i);
      return;
    }
    extra = extra.subspan(size);
  }
  archive.fail("an entry's description is damaged");
}

}  // namespace

std::map<std::string, Bytes, std::less<>> read_zip_entries(const std::string& path, Bytes bytes) {
  const Archive archive(path, bytes);
  const Archive::Table table = archive.find_table();
  Bytes rest = archive.part(table.offset, table.size, "its table of contents");
  std::map<std::string, Bytes, std::less<>> entries;
  for (uint64_t i = 0; i < table.count; ++i) {
    if (rest.size() < central_size || Archive::number<uint32_t>(rest, 0) != central_signature)
      archive.fail("its table of contents is damaged");
    const auto flags = Archive::number<uint16_t>(rest, 8);
    const auto method = Archive::number<uint16_t>(rest, 10);
    uint64_t packed = Archive::number<uint32_t>(rest, 20), size = Archive::number<uint32_t>(rest, 24);
    const auto name_size = Archive::number<uint16_t>(rest, 28);
    const auto extra_size = Archive::number<uint16_t>(rest, 30);
    const auto comment_size = Archive::number<uint16_t>(rest, 32);
    uint64_t offset = Archive::number<uint32_t>(rest, 42);
    const size_t whole = central_size + name_size + extra_size + comment_size;
    if (rest.size() < whole) archive.fail("its table of contents is damaged");
    const std::string name(reinterpret_cast<const char*>(rest.data()) + central_size, name_size);
    std::vector<uint64_t*> wide;
    if (size == in_zip64) wide.push_back(&size);
    if (packed == in_zip64) wide.push_back(&packed);
    if (offset == in_zip64) wide.push_back(&offset);
    if (!wide.empty()) read_zip64(archive, rest.subspan(central_size + name_size, extra_size), wide);
    rest = rest.subspan(whole);
    if ((flags & 1) != 0) archive.fail("its entry '" + name + "' is encrypted");
    if (method != 0 || packed != size)
      archive.fail("its entry '" + name + "' is compressed, which torch.save never does");
    const Bytes local = archive.part(offset, local_size, "an entry");
    if (Archive::number<uint32_t>(local, 0) != local_signature) archive.fail("its entry '" + name + "' is damaged");
    // The local copy of the name and of the extra field (which pads to alignment) may have other lengths.
    const uint64_t skipped =
        local_size + uint64_t{Archive::number<uint16_t>(local, 26)} + uint64_t{Archive::number<uint16_t>(local, 28)};
    archive.part(offset, skipped, "an entry");
    if (!entries.emplace(name, archive.part(offset + skipped, size, "an entry")).second)
      archive.fail("it has two entries named '" + name + "'");
  }
  return entries;
}

}  // namespace caravan
