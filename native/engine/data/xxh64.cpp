#include "engine/data/xxh64.h"

#include <bit>
#include <cstring>

namespace caravan {

namespace {

constexpr uint64_t prime1 = 0x9E3779B185EBCA87u, prime2 = 0xC2B2AE3D27D4EB4Fu, prime3 = 0x165667B19E3779F9u,
                   prime4 = 0x85EBCA77C2B2AE63u, prime5 = 0x27D4EB2F165667C5u;

template <typename T>
T read(const unsigned char* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  if constexpr (std::endian::native == std::endian::big) {
    T swapped = 0;
    for (size_t i = 0; i < sizeof value; ++i) swapped = static_cast<T>(swapped << 8 | ((value >> (8 * i)) & 0xff));
    value = swapped;
  }
  return value;
}

uint64_t round(uint64_t sum, uint64_t lane) { return std::rotl(sum + lane * prime2, 31) * prime1; }

uint64_t merge(uint64_t hash, uint64_t sum) { return (hash ^ round(0, sum)) * prime1 + prime4; }

}  // namespace

uint64_t xxh64(const void* bytes, size_t size, uint64_t seed) {
  const auto* p = static_cast<const unsigned char*>(bytes);
  const unsigned char* const end = p + size;
  uint64_t hash;
  if (size >= 32) {
    uint64_t sum[4] = {seed + prime1 + prime2, seed + prime2, seed, seed - prime1};
    for (; end - p >= 32; p += 32) {
      for (int i = 0; i < 4; ++i) sum[i] = round(sum[i], read<uint64_t>(p + 8 * i));
    }
    hash = std::rotl(sum[0], 1) + std::rotl(sum[1], 7) + std::rotl(sum[2], 12) + std::rotl(sum[3], 18);
    for (const uint64_t one : sum) hash = merge(hash, one);
  } else {
    hash = seed + prime5;
  }
  hash += size;
  for (; end - p >= 8; p += 8) hash = std::rotl(hash ^ round(0, read<uint64_t>(p)), 27) * prime1 + prime4;
  if (end - p >= 4) {
    hash = std::rotl(hash ^ read<uint32_t>(p) * prime1, 23) * prime2 + prime3;
    p += 4;
  }
  for (; p < end; ++p) hash = std::rotl(hash ^ *p * prime5, 11) * prime1;
  hash = (hash ^ (hash >> 33)) * prime2;
  hash = (hash ^ (hash >> 29)) * prime3;
  return hash ^ (hash >> 32);
}

}  // namespace caravan
