// Measures near-duplicate removal on generated rows, of which every tenth is a variant of an earlier one.
//
// usage: minhash_bench [--rows N] [--threads N] [--permutations N]     one JSON document of figures
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/data/near_duplicates.h"
#include "kernels/cpu/cpu_isa.h"

namespace {

using Clock = std::chrono::steady_clock;

/// Of all threads: on a machine with other work on it, the figure to compare.
double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

int option(int argc, char** argv, std::string_view name, int otherwise) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (argv[i] == name) return std::atoi(argv[i + 1]);
  }
  return otherwise;
}

/// Words of two to ten letters, the frequent ones short: 1.6 kB are about 280 of them.
std::vector<std::string> generate(size_t rows) {
  std::mt19937_64 random(1);
  std::vector<std::string> vocabulary;
  for (int i = 0; i < 30000; ++i) {
    std::string word;
    for (auto letters = 2 + (i > 300 ? 2 : 0) + random() % 6; letters > 0; --letters) {
      word.push_back(static_cast<char>('a' + random() % 26));
    }
    vocabulary.push_back(word);
  }
  std::vector<std::string> texts;
  while (texts.size() < rows) {
    if (texts.size() % 10 == 9) {
      std::string text = texts[random() % texts.size()];
      for (int i = 0; i < 8; ++i) text[random() % text.size()] = 'q';
      texts.push_back(text);
      continue;
    }
    std::string text;
    while (text.size() < 1600) {
      const auto& word = vocabulary[random() % 2 == 0 ? random() % 300 : random() % vocabulary.size()];
      text += word + (random() % 12 == 0 ? ". " : " ");
    }
    texts.push_back(text);
  }
  return texts;
}

}  // namespace

int main(int argc, char** argv) {
  caravan::NearDuplicateOptions options;
  options.threads = option(argc, argv, "--threads", 2);
  options.permutations = option(argc, argv, "--permutations", 240);
  const auto texts = generate(static_cast<size_t>(option(argc, argv, "--rows", 100000)));
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  size_t bytes = 0, shingles = 0;
  for (const auto& text : texts) bytes += text.size();

  auto start = Clock::now();
  for (const auto& text : texts) shingles += caravan::shingle_hashes(text, options.ngram).size();
  const double shingling = seconds_since(start);

  caravan::NearDuplicates search(options);
  const double processor_start = processor_seconds();
  start = Clock::now();
  constexpr size_t batch = 4000;
  for (size_t first = 0; first < views.size(); first += batch) {
    search.add(std::span(views).subspan(first, std::min(batch, views.size() - first)));
  }
  const double signing = seconds_since(start);
  const double processor_signing = processor_seconds() - processor_start;
  start = Clock::now();
  const auto& candidates = search.find_candidates();
  const double searching = seconds_since(start);
  start = Clock::now();
  std::vector<std::string_view> of_candidates;
  for (const int32_t row : candidates.rows) of_candidates.push_back(views[static_cast<size_t>(row)]);
  search.load(candidates.rows, of_candidates);
  const size_t lost = search.verify().size();
  const double verifying = seconds_since(start);
  const double processor_all = processor_seconds() - processor_start;
  const auto rows = static_cast<double>(texts.size());
  const nlohmann::json report = {{"rows", texts.size()},
                                 {"bytes_per_row", static_cast<double>(bytes) / rows},
                                 {"shingles_per_row", static_cast<double>(shingles) / rows},
                                 {"threads", options.threads},
                                 {"isa", caravan::cpu::isa_name(caravan::cpu::cpu_isa())},
                                 {"bands", search.shape().bands},
                                 {"rows_per_band", search.shape().rows},
                                 {"shingling_rows_per_second_one_thread", rows / shingling},
                                 {"signing_rows_per_second", rows / signing},
                                 {"signing_rows_per_processor_second", rows / processor_signing},
                                 {"rows_per_processor_second", rows / processor_all},
                                 {"search_seconds", searching},
                                 {"verify_seconds", verifying},
                                 {"candidates", candidates.rows.size()},
                                 {"near_duplicates", lost},
                                 {"rows_per_second", rows / (signing + searching + verifying)}};
  std::cout << report.dump() << "\n";
  return 0;
}
