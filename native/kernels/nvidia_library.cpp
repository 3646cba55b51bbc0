#include "kernels/nvidia_library.h"

#ifndef _WIN32
#include <dlfcn.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <utility>

namespace caravan {

SharedLibrary::SharedLibrary(SharedLibrary&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)),
      path_(std::move(other.path_)),
      why_not_(std::move(other.why_not_)) {}

#ifdef _WIN32

SharedLibrary::~SharedLibrary() = default;

void* SharedLibrary::symbol(const char*) const { return nullptr; }

SharedLibrary open_nvidia_library(const std::vector<std::string>& names, const std::vector<std::string>&) {
  SharedLibrary library;
  library.why_not_ = names.front() + ": GPUs are used on Linux only";
  return library;
}

#else

namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

/// The folder of the shared object or program that holds this function.
fs::path own_folder() {
  Dl_info info = {};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) return {};
  std::error_code error;
  return fs::weakly_canonical(info.dli_fname, error).parent_path();
}

/// <prefix>/lib/python3.*/{site,dist}-packages/nvidia/<package>/lib, newest Python first.
void add_pip_folders(std::vector<fs::path>& folders, const fs::path& prefix, const std::vector<std::string>& packages) {
  std::vector<fs::path> pythons;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(prefix / "lib", error)) {
    if (entry.path().filename().string().starts_with("python3")) pythons.push_back(entry.path());
  }
  std::sort(pythons.begin(), pythons.end(), std::greater<>());
  for (const fs::path& python : pythons) {
    for (const char* const site : {"site-packages", "dist-packages"}) {
      for (const std::string& package : packages) {
        fs::path folder = python / site / "nvidia" / package / "lib";
        if (fs::is_directory(folder, error)) folders.push_back(std::move(folder));
      }
    }
  }
}

/// An empty path stands for the loader's own search.
std::vector<fs::path> search_folders(const std::vector<std::string>& pip_packages) {
  std::vector<fs::path> folders;
  const std::string named = environment("CARAVAN_CUDA_PATH");
  for (size_t first = 0; first < named.size();) {
    const size_t end = std::min(named.find(':', first), named.size());
    if (end > first) folders.emplace_back(named.substr(first, end - first));
    first = end + 1;
  }
  folders.push_back(own_folder());
  folders.emplace_back();
  folders.emplace_back("/usr/local/cuda/lib64");
  for (const char* const variable : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    const std::string prefix = environment(variable);
    if (!prefix.empty()) add_pip_folders(folders, prefix, pip_packages);
  }
  const std::string home = environment("HOME");
  if (!home.empty()) add_pip_folders(folders, fs::path(home) / ".local", pip_packages);
  add_pip_folders(folders, "/usr/local", pip_packages);
  add_pip_folders(folders, "/usr", pip_packages);
  return folders;
}

}  // namespace

SharedLibrary::~SharedLibrary() {
  if (handle_ != nullptr) dlclose(handle_);
}

void* SharedLibrary::symbol(const char* name) const { return dlsym(handle_, name); }

SharedLibrary open_nvidia_library(const std::vector<std::string>& names, const std::vector<std::string>& pip_packages) {
  SharedLibrary library;
  std::string tried, failed;
  for (const fs::path& folder : search_folders(pip_packages)) {
    tried += (tried.empty() ? "" : ", ") + (folder.empty() ? std::string("the loader's path") : folder.string());
    for (const std::string& name : names) {
      const std::string path = (folder / name).string();
      std::error_code error;
      if (!folder.empty() && !fs::exists(path, error)) continue;
      library.handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (library.handle_ != nullptr) {
        library.path_ = path;
        return library;
      }
      // A file that is there but does not load says more than that another is missing.
      if (!folder.empty()) failed = dlerror();
    }
  }
  library.why_not_ = names.front() + (failed.empty() ? " was not found in " + tried : " does not load: " + failed);
  return library;
}

#endif

}  // namespace caravan
