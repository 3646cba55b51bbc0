// Measures the tokenizer, or serves as the other side of native/test/tokenizer_fuzz.py.
//
// usage: tokenizer_bench TOKENIZER.json TEXTS.jsonl [--threads N] [--repeat N]     one JSON document of figures
//        tokenizer_bench TOKENIZER.json --serve      reads {"text", "special"?} lines, writes {"ids", "text", "stream"}
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/data/tokenizer.h"
#include "engine/platform/error.h"

namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

int option(int argc, char** argv, std::string_view name, int otherwise) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (argv[i] == name) return std::atoi(argv[i + 1]);
  }
  return otherwise;
}

int serve(const std::shared_ptr<const caravan::Tokenizer>& tokenizer) {
  for (std::string line; std::getline(std::cin, line);) {
    const Json request = Json::parse(line);
    const bool special = request.value("special", false);
    const auto ids = tokenizer->encode(request.at("text").get_ref<const std::string&>(), {.parse_special = special});
    std::string stream;
    caravan::StreamDecoder decoder(tokenizer, false);
    for (const int32_t id : ids) stream += decoder.push(id);
    stream += decoder.finish();
    const Json answer = {{"ids", ids}, {"text", tokenizer->decode(ids)}, {"stream", stream}};
    std::cout << answer.dump() << "\n" << std::flush;
  }
  return 0;
}

int measure(const caravan::Tokenizer& tokenizer, double load_seconds, const char* path, int threads, int repeat) {
  std::vector<std::string> texts;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) texts.push_back(Json::parse(line).at("text").get<std::string>());
  }
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  size_t bytes = 0;
  for (const std::string& text : texts) bytes += text.size();

  // The first pass meets empty caches: it is the figure for a corpus seen once.
  auto start = Clock::now();
  size_t tokens = 0;
  for (const auto& ids : encode_batch(tokenizer, views, threads)) tokens += ids.size();
  const double cold = seconds_since(start);
  double best = cold;
  for (int i = 1; i < repeat; ++i) {
    start = Clock::now();
    encode_batch(tokenizer, views, threads);
    best = std::min(best, seconds_since(start));
  }
  const Json report = {{"texts", texts.size()},
                       {"bytes", bytes},
                       {"tokens", tokens},
                       {"threads", threads},
                       {"load_seconds", load_seconds},
                       {"cold_tokens_per_second", static_cast<double>(tokens) / cold},
                       {"tokens_per_second", static_cast<double>(tokens) / best}};
  std::cout << report.dump() << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: tokenizer_bench TOKENIZER.json (TEXTS.jsonl [--threads N] [--repeat N] | --serve)\n";
    return 2;
  }
  try {
    const auto start = Clock::now();
    const auto tokenizer = caravan::Tokenizer::from_file(argv[1]);
    const double load_seconds = seconds_since(start);
    if (std::string_view(argv[2]) == "--serve") return serve(tokenizer);
    return measure(*tokenizer, load_seconds, argv[2], option(argc, argv, "--threads", 2),
                   option(argc, argv, "--repeat", 5));
  } catch (const caravan::EngineError& error) {
    std::cerr << error.code << ": " << error.what() << "\n";
    return 2;
  }
}
