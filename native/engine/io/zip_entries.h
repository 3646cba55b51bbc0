// The table of a ZIP archive whose entries are stored as they are, such as torch.save's: ZIP64 too, no compression.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

namespace caravan {

/// Name -> the entry's bytes within `archive`.
/// @throws EngineError bad_file naming `path`
std::map<std::string, std::span<const std::byte>, std::less<>> read_zip_entries(const std::string& path,
                                                                                std::span<const std::byte> archive);

}  // namespace caravan
