#include "engine/data/tokenizer_normalize.h"

#include <algorithm>
#include <cstring>

namespace caravan {
namespace {

bool is_space(std::string_view text, size_t at) {
  return code_point_classes()[decode_utf8(text.data() + at).code_point] & class_space;
}

std::string_view strip(const NormalizerStep& step, std::string_view text) {
  if (step.strip_left) {
    while (!text.empty() && is_space(text, 0)) text.remove_prefix(decode_utf8(text.data()).size);
  }
  if (step.strip_right) {
    while (!text.empty()) {
      size_t last = text.size() - 1;
      while ((static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
      if (!is_space(text, last)) break;
      text.remove_suffix(text.size() - last);
    }
  }
  return text;
}

}  // namespace

void replace_all(std::string_view text, std::string_view pattern, std::string_view content, std::string& out) {
  out.clear();
  if (pattern.size() == 1) {  // the blank of sentencepiece vocabularies: one pass into room for the worst case
    out.resize(text.size() * std::max<size_t>(content.size(), 1));
    char* to = out.data();
    for (const char c : text) {
      if (c == pattern[0]) {
        std::memcpy(to, content.data(), content.size());
        to += content.size();
      } else {
        *to++ = c;
      }
    }
    out.resize(static_cast<size_t>(to - out.data()));
    return;
  }
  size_t done = 0;
  for (size_t at; (at = text.find(pattern, done)) != std::string_view::npos; done = at + pattern.size()) {
    out.append(text, done, at - done);
    out += content;
  }
  out.append(text, done);
}

NormalizedText apply_normalizers(const std::vector<NormalizerStep>& steps, std::string_view text,
                                 NormalizeScratch& scratch) {
  using Kind = NormalizerStep::Kind;
  NormalizedText result{text, true};
  int free_buffer = 0;
  for (const NormalizerStep& step : steps) {
    std::string& out = scratch.buffers[free_buffer];
    if (step.kind == Kind::strip) {
      const std::string_view stripped = strip(step, result.text);
      if (stripped.data() != result.text.data()) result.keeps_start = false;
      result.text = stripped;
      continue;
    }
    if (result.text.empty()) continue;
    switch (step.kind) {
      case Kind::normal_form:
        if (step.form == NormalForm::nfc && !may_change_under_nfc(result.text)) continue;
        out = normalize(result.text, step.form);
        break;
      case Kind::lowercase: out = lowercase(result.text); break;
      case Kind::replace: replace_all(result.text, step.pattern, step.content, out); break;
      case Kind::prepend: out.assign(step.content).append(result.text); break;
      case Kind::strip: break;
    }
    result.text = out;
    free_buffer ^= 1;
  }
  return result;
}

}  // namespace caravan
