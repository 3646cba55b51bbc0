#include "engine/model/staged_batch.h"

#include "kernels/transfer.h"

namespace caravan {

namespace {

template <typename T>
const T* staged(const Exec& exec, DeviceBuffer& buffer, const T* host, int64_t count) {
  if (exec.device == Device::cpu || host == nullptr || count == 0) return host;
  const size_t bytes = static_cast<size_t>(count) * sizeof(T);
  if (buffer.bytes() < bytes) {
    if (buffer) synchronize(exec);  // what was enqueued may still read it
    buffer = DeviceBuffer(exec.device, bytes);
  }
  upload(exec, buffer.data(), host, bytes);
  return buffer.as<const T>();
}

}  // namespace

Tokens StagedBatch::tokens(const Exec& exec, const Tokens& host) {
  Tokens tokens = host;
  tokens.ids = staged(exec, ids_, host.ids, host.n);
  tokens.position = staged(exec, position_, host.position, host.n);
  tokens.conversation = staged(exec, conversation_, host.conversation, host.n);
  tokens.valid = staged(exec, valid_, host.valid, host.n);
  tokens.cu_seqlens = staged(exec, cu_seqlens_, host.cu_seqlens, host.sequences + 1);
  return tokens;
}

Targets StagedBatch::targets(const Exec& exec, const Targets& host) {
  return {host.count, staged(exec, target_rows_, host.rows, host.count),
          staged(exec, target_ids_, host.ids, host.count)};
}

const int32_t* StagedBatch::rows(const Exec& exec, const int32_t* host, int64_t count) {
  return staged(exec, rows_, host, count);
}

size_t StagedBatch::bytes() const {
  size_t total = 0;
  for (const DeviceBuffer* buffer :
       {&ids_, &position_, &conversation_, &valid_, &cu_seqlens_, &target_rows_, &target_ids_, &rows_}) {
    total += buffer->bytes();
  }
  return total;
}

}  // namespace caravan
