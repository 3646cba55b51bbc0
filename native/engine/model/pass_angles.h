// Which rotary angles the tokens of one pass turn by.
//
// With dynamic scaling (transformers' "dynamic", NTK-aware) the frequencies of a sequence longer than max_positions
// depend on its length. Here, as with transformers where each sequence runs alone:
//   trained and scored   every conversation has the frequencies of its own length, whatever it is packed with;
//   decoded              what is read at once (a prompt, then each new token) has the frequencies of the conversation's
//                        length so far; keys in the cache keep the rotation that they were written with.
// Every other kind, and every sequence within max_positions, reads the model's one table.
#pragma once

#include <vector>

#include "engine/model/device_buffer.h"

namespace caravan {

class Model;
struct Tokens;

/// Rows of angles, and the row of each token. Device memory; a view.
struct AnglesView {
  const float* cos = nullptr;    // (rows, head_dim / 2)
  const float* sin = nullptr;    // (rows, head_dim / 2)
  const int32_t* row = nullptr;  // (N)
};

/// Owns the rows that a pass needs beside the model's table; a view is good until the next.
class PassAngles {
 public:
  /// Of whole sequences laid end to end. `host` and `device` are the same tokens in the memory of each.
  AnglesView packed(const Exec& exec, const Model& model, const Tokens& host, const Tokens& device);
  /// Of tokens that go on with one sequence, which will then have `length` tokens, or more if this is not all of it.
  AnglesView continued(const Exec& exec, const Model& model, const Tokens& host, const Tokens& device, int64_t length);

  /// Of tokens that each go on with a sequence of its own, by one.
  AnglesView continued_each(const Exec& exec, const Model& model, const Tokens& host, const Tokens& device);

  size_t bytes() const { return rows_.bytes() + row_of_token_.bytes(); }

 private:
  void make_room(const Exec& exec, const Model& model, int64_t tokens);
  AnglesView send(const Exec& exec, const Model& model);

  std::vector<float> filled_;  // cos (room, half), then sin; as the host fills them
  DeviceBuffer rows_;          // the same on the device
  DeviceBuffer row_of_token_;  // (N) 0, 1, ...
  int64_t room_ = 0;           // N
};

}  // namespace caravan
