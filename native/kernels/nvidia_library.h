// NVIDIA's libraries, opened at run time from where they usually are.
#pragma once

#include <string>
#include <vector>

namespace caravan {

/// An open shared library, or why it is not; closed with the object unless keep() was called.
class SharedLibrary {
 public:
  SharedLibrary() = default;
  SharedLibrary(SharedLibrary&& other) noexcept;
  SharedLibrary& operator=(SharedLibrary&& other) = delete;
  ~SharedLibrary();

  bool loaded() const { return handle_ != nullptr; }
  const std::string& path() const { return path_; }
  const std::string& why_not() const { return why_not_; }
  void* symbol(const char* name) const;
  /// Leaves it loaded for the life of the process.
  void keep() { handle_ = nullptr; }

 private:
  friend SharedLibrary open_nvidia_library(const std::vector<std::string>&, const std::vector<std::string>&);
  void* handle_ = nullptr;
  std::string path_;
  std::string why_not_;
};

/// The first of `names` that loads from, in this order: $CARAVAN_CUDA_PATH (folders, ':' between), the folder of this
/// code (the addon's), the loader's path, the CUDA toolkit's, and pip's nvidia/<one of pip_packages>/lib folders below
/// $VIRTUAL_ENV, $CONDA_PREFIX, ~/.local, /usr/local and /usr.
SharedLibrary open_nvidia_library(const std::vector<std::string>& names, const std::vector<std::string>& pip_packages);

}  // namespace caravan
