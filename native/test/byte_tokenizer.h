// A tokenizer for answers of tiny models and of none: byte-level tokens of a few bytes.
#pragma once

#include <memory>
#include <string_view>

#include "engine/data/tokenizer.h"

namespace caravan::test {

/// "<s>" is 0 and "</s>" is 1, both special; then come single bytes (halves of é and € among them), and from 30 on every
/// part of "ab\n###cd" and of "abcd".
std::shared_ptr<const Tokenizer> byte_tokenizer();
/// The id of the token that stands for `bytes`; fails the test when there is none.
int32_t byte_token(std::string_view bytes);

}  // namespace caravan::test
