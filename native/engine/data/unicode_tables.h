// The raw arrays of the generated unicode_tables.cpp; unicode.cpp alone reads them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caravan::unicode_tables {

extern const uint32_t class_changes[];
extern const size_t class_changes_size;
extern const uint32_t combining_changes[];
extern const size_t combining_changes_size;
extern const uint32_t canonical_rows[];
extern const size_t canonical_rows_size;
extern const uint32_t compatibility_rows[];
extern const size_t compatibility_rows_size;
extern const int32_t lowercase_runs[];
extern const size_t lowercase_runs_size;

}  // namespace caravan::unicode_tables
