#include "engine/export/export_options.h"

#include <array>
#include <utility>

#include "engine/platform/error.h"

namespace caravan {

namespace {

constexpr std::array<std::pair<ExportLayout, const char*>, 9> layouts{{{ExportLayout::peft, "peft"},
                                                                       {ExportLayout::adapter, "adapter"},
                                                                       {ExportLayout::merged, "merged"},
                                                                       {ExportLayout::camelidae, "camelidae"},
                                                                       {ExportLayout::qwen2idae, "qwen2idae"},
                                                                       {ExportLayout::sparsetral, "sparsetral"},
                                                                       {ExportLayout::mixtral, "mixtral"},
                                                                       {ExportLayout::gguf, "gguf"},
                                                                       {ExportLayout::onnx, "onnx"}}};
constexpr std::array<std::pair<ExportType, const char*>, 6> types{{{ExportType::f32, "f32"},
                                                                   {ExportType::bf16, "bf16"},
                                                                   {ExportType::f16, "f16"},
                                                                   {ExportType::q8_0, "q8_0"},
                                                                   {ExportType::q4_0, "q4_0"},
                                                                   {ExportType::int4, "int4"}}};

template <typename Table, typename Value>
const char* name_in(const Table& table, Value value) {
  for (const auto& [known, name] : table)
    if (known == value) return name;
  return "";
}

template <typename Table>
auto find_in(const Table& table, const std::string& name, const char* what) {
  std::string names;
  for (const auto& [known, text] : table) {
    if (name == text) return known;
    names += (names.empty() ? "" : ", ") + std::string(text);
  }
  throw EngineError("bad_option", std::string(what) + " is \"" + name + "\"; it must be one of " + names);
}

}  // namespace

const char* export_layout_name(ExportLayout layout) { return name_in(layouts, layout); }
ExportLayout parse_export_layout(const std::string& name) { return find_in(layouts, name, "layout"); }
const char* export_type_name(ExportType type) { return name_in(types, type); }
ExportType parse_export_type(const std::string& name) { return find_in(types, name, "type"); }

void ExportWatch::check() const {
  if (cancelled != nullptr && cancelled->load()) throw EngineError("cancelled", "the export was cancelled");
}

}  // namespace caravan
