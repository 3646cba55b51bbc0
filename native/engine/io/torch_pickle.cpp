// The pickle machine (Python's pickletools) has a stack, a memo and some seventy instructions. Here it has those that
// torch.save uses for a dictionary of tensors, and three callables. Values live in one list and name each other by index:
// what refers to itself, or nests a million deep, costs no recursion.
#include "engine/io/torch_pickle.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <deque>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "engine/platform/error.h"

namespace caravan {

namespace {

using Index = uint32_t;

constexpr size_t max_pickle_bytes = 64'000'000;
constexpr size_t max_values = 1'000'000;  // some twenty a tensor, and seventy bytes each
constexpr size_t max_dimensions = 16;

enum class Kind : uint8_t { none, boolean, integer, real, text, tuple, list, dict, global, storage, tensor, mark };

struct Value {
  Kind kind = Kind::none;
  int64_t integer = 0;    // boolean, integer; elements of a storage
  std::string_view text;  // text; module of a global; key of a storage
  std::string_view name;  // of a global; class of a storage
  std::vector<Index>
      items;  // of a tuple, list or dict (key, value, key, ...); storage, offset, shape, strides of a tensor
};

struct StorageClass {
  std::string_view name;
  StoredType type;
};
constexpr StorageClass storage_classes[] = {
    {"FloatStorage", StoredType::F32},  {"HalfStorage", StoredType::F16}, {"BFloat16Storage", StoredType::BF16},
    {"DoubleStorage", StoredType::F64}, {"LongStorage", StoredType::I64}, {"IntStorage", StoredType::I32},
    {"ShortStorage", StoredType::I16},  {"CharStorage", StoredType::I8},  {"ByteStorage", StoredType::U8},
    {"BoolStorage", StoredType::BOOL},
};

const StorageClass* find_storage_class(std::string_view name) {
  for (const StorageClass& one : storage_classes)
    if (one.name == name) return &one;
  return nullptr;
}

class Unpickler {
 public:
  Unpickler(const std::string& path, std::span<const std::byte> bytes) : path_(path), bytes_(bytes) {}

  std::vector<PickledTensor> run() {
    if (bytes_.size() > max_pickle_bytes)
      fail("its pickle has " + std::to_string(bytes_.size()) + " bytes, more than any checkpoint needs");
    while (!step()) {
    }
    return tensors();
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw EngineError("bad_file", path_ + ": " + what); }
  [[noreturn]] void damaged() const { fail("its pickle is damaged; download or save the file again"); }
  [[noreturn]] void refuse(const std::string& what) const {
    fail(what +
         ", which rebuilds no tensor: nothing of it was run. Load it where you trust it, and save its state_dict() "
         "alone");
  }

  // ---- reading

  std::span<const std::byte> take(size_t count) {
    if (count > bytes_.size() - at_) damaged();
    const auto taken = bytes_.subspan(at_, count);
    at_ += count;
    return taken;
  }
  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string_view text(size_t count) {
    const auto taken = take(count);
    return {reinterpret_cast<const char*>(taken.data()), count};
  }
  std::string_view line() {
    const std::string_view rest{reinterpret_cast<const char*>(bytes_.data()) + at_, bytes_.size() - at_};
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) damaged();
    at_ += end + 1;
    return rest.substr(0, end);
  }

  // ---- the stack

  Index add(Value value) {
    if (values_.size() >= max_values) fail("its pickle holds more values than any checkpoint needs");
    values_.push_back(std::move(value));
    return static_cast<Index>(values_.size() - 1);
  }
  void push(Value value) { stack_.push_back(add(std::move(value))); }
  void push(Kind kind, int64_t integer) {
    Value value;
    value.kind = kind;
    value.integer = integer;
    push(std::move(value));
  }
  void push_text(std::string_view text) {
    Value value;
    value.kind = Kind::text;
    value.text = text;
    push(std::move(value));
  }
  void push_items(Kind kind, std::vector<Index> items) {
    Value value;
    value.kind = kind;
    value.items = std::move(items);
    push(std::move(value));
  }
  Index pop() {
    if (stack_.empty()) damaged();
    const Index top = stack_.back();
    stack_.pop_back();
    return top;
  }
  std::vector<Index> pop_many(size_t count) {
    if (stack_.size() < count) damaged();
    std::vector<Index> items(stack_.end() - static_cast<ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return items;
  }
  std::vector<Index> pop_to_mark() {
    if (marks_.empty() || marks_.back() > stack_.size()) damaged();
    const size_t count = stack_.size() - marks_.back();
    marks_.pop_back();
    return pop_many(count);
  }
  Value& top(Kind kind) {
    if (stack_.empty() || values_[stack_.back()].kind != kind) damaged();
    return values_[stack_.back()];
  }
  const Value& at(Index index, Kind kind) const {
    if (values_[index].kind != kind) damaged();
    return values_[index];
  }
  void remember(uint64_t key) {
    if (stack_.empty() || memo_.size() >= max_values) damaged();
    memo_[key] = stack_.back();
  }
  void recall(uint64_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) damaged();
    stack_.push_back(found->second);
  }

  // ---- what may be called

  void push_global(std::string_view module, std::string_view name) {
    const bool known = (module == "collections" && name == "OrderedDict") ||
                       (module == "torch._utils" && name == "_rebuild_tensor_v2") ||
                       (module == "torch" && find_storage_class(name) != nullptr);
    if (!known) refuse("its pickle asks for " + shown(module) + "." + shown(name));
    Value value;
    value.kind = Kind::global;
    value.text = module;
    value.name = name;
    push(std::move(value));
  }
  /// A stranger's words in a message: short, and nothing that a terminal would obey.
  static std::string shown(std::string_view text) {
    std::string result(text.substr(0, 80));
    for (char& c : result)
      if (c < ' ' || c > '~') c = '?';
    return result;
  }
  void reduce() {
    const std::vector<Index> arguments = at(pop(), Kind::tuple).items;
    const Value& called = at(pop(), Kind::global);
    if (called.name == "OrderedDict") {
      if (!arguments.empty()) refuse("its pickle builds a dictionary out of something");
      push_items(Kind::dict, {});
      return;
    }
    if (called.name != "_rebuild_tensor_v2") refuse("its pickle calls " + std::string(called.name));
    // storage, offset, shape, strides, requires_grad, hooks (empty), and since 2.0 metadata
    if (arguments.size() < 6 || arguments.size() > 7) damaged();
    at(arguments[0], Kind::storage);
    at(arguments[1], Kind::integer);
    at(arguments[2], Kind::tuple);
    at(arguments[3], Kind::tuple);
    push_items(Kind::tensor, {arguments[0], arguments[1], arguments[2], arguments[3]});
  }
  /// ('storage', class, key, where it was, elements)
  void push_storage() {
    const std::vector<Index> parts = at(pop(), Kind::tuple).items;
    if (parts.size() != 5 || at(parts[0], Kind::text).text != "storage") damaged();
    const Value& of = at(parts[1], Kind::global);
    if (of.text != "torch") damaged();
    Value value;
    value.kind = Kind::storage;
    value.name = of.name;
    value.text = at(parts[2], Kind::text).text;
    value.integer = at(parts[4], Kind::integer).integer;
    push(std::move(value));
  }
  /// State of an OrderedDict: `_metadata` of a state_dict, which holds versions of modules.
  void build() {
    const Index state = pop();
    top(Kind::dict);
    at(state, Kind::dict);
  }
  void set_items(std::vector<Index> items) {
    if (items.size() % 2 != 0) damaged();
    std::vector<Index>& dict = top(Kind::dict).items;
    dict.insert(dict.end(), items.begin(), items.end());
  }
  void push_long(size_t count) {
    const auto digits = take(count);
    if (count > 8) fail("its pickle holds a number of " + std::to_string(count) + " bytes");
    uint64_t value = 0;
    for (size_t i = 0; i < count; ++i) value |= uint64_t{std::to_integer<uint8_t>(digits[i])} << (8 * i);
    if (count > 0 && count < 8 && (std::to_integer<uint8_t>(digits[count - 1]) & 0x80) != 0)
      value |= ~uint64_t{0} << (8 * count);
    push(Kind::integer, static_cast<int64_t>(value));
  }

  /// One instruction. @returns whether it was the last
  bool step() {
    const auto code = number<uint8_t>();
    switch (static_cast<char>(code)) {
      case '\x80': take(1); break;  // PROTO
      case '\x95': take(8); break;  // FRAME
      case '.': return true;        // STOP
      case '(': marks_.push_back(stack_.size()); break;
      case '0': pop(); break;
      case 'N': push(Kind::none, 0); break;
      case '\x88': push(Kind::boolean, 1); break;
      case '\x89': push(Kind::boolean, 0); break;
      case 'J': push(Kind::integer, number<int32_t>()); break;
      case 'K': push(Kind::integer, number<uint8_t>()); break;
      case 'M': push(Kind::integer, number<uint16_t>()); break;
      case '\x8a': push_long(number<uint8_t>()); break;
      case 'G': take(8), push(Kind::real, 0); break;
      case 'X': push_text(text(number<uint32_t>())); break;
      case '\x8c': push_text(text(number<uint8_t>())); break;
      case ')': push_items(Kind::tuple, {}); break;
      case '\x85': push_items(Kind::tuple, pop_many(1)); break;
      case '\x86': push_items(Kind::tuple, pop_many(2)); break;
      case '\x87': push_items(Kind::tuple, pop_many(3)); break;
      case 't': push_items(Kind::tuple, pop_to_mark()); break;
      case ']': push_items(Kind::list, {}); break;
      case '}': push_items(Kind::dict, {}); break;
      case 'a': {
        const Index item = pop();
        top(Kind::list).items.push_back(item);
        break;
      }
      case 'e': {
        const std::vector<Index> items = pop_to_mark();
        std::vector<Index>& list = top(Kind::list).items;
        list.insert(list.end(), items.begin(), items.end());
        break;
      }
      case 's': set_items(pop_many(2)); break;
      case 'u': set_items(pop_to_mark()); break;
      case 'q': remember(number<uint8_t>()); break;
      case 'r': remember(number<uint32_t>()); break;
      case '\x94': remember(memo_.size()); break;
      case 'h': recall(number<uint8_t>()); break;
      case 'j': recall(number<uint32_t>()); break;
      case 'c': {
        const std::string_view module = line();
        push_global(module, line());
        break;
      }
      case '\x93': {
        const std::string_view name = at(pop(), Kind::text).text;
        push_global(at(pop(), Kind::text).text, name);
        break;
      }
      case 'Q': push_storage(); break;
      case 'R': reduce(); break;
      case 'b': build(); break;
      default: refuse("its pickle has the instruction " + std::to_string(code));
    }
    return false;
  }

  // ---- what came of it

  std::vector<int64_t> integers(Index tuple, const std::string& name) const {
    const std::vector<Index>& items = at(tuple, Kind::tuple).items;
    if (items.size() > max_dimensions)
      fail("tensor '" + name + "' has " + std::to_string(items.size()) + " dimensions");
    std::vector<int64_t> result;
    for (const Index item : items) result.push_back(at(item, Kind::integer).integer);
    return result;
  }
  std::vector<PickledTensor> tensors() const {
    if (stack_.size() != 1 || values_[stack_[0]].kind != Kind::dict)
      fail("is no dictionary of tensors; save a model's state_dict()");
    const std::vector<Index>& items = values_[stack_[0]].items;
    std::vector<PickledTensor> result;
    for (size_t i = 0; i < items.size(); i += 2) {
      const std::string name = shown_name(items[i]);
      const Value& value = values_[items[i + 1]];
      if (value.kind != Kind::tensor) fail("its entry '" + name + "' is no tensor; save a model's state_dict()");
      const Value& storage = values_[value.items[0]];
      PickledTensor tensor;
      tensor.name = name;
      tensor.storage = storage.text;
      const StorageClass* type = find_storage_class(storage.name);
      if (type == nullptr) damaged();
      tensor.type = type->type;
      tensor.storage_elements = storage.integer;
      tensor.offset = values_[value.items[1]].integer;
      tensor.shape = integers(value.items[2], name);
      tensor.strides = integers(value.items[3], name);
      result.push_back(std::move(tensor));
    }
    return result;
  }
  std::string shown_name(Index key) const {
    const std::string_view name = at(key, Kind::text).text;
    if (name.size() > 1000) fail("a tensor's name has " + std::to_string(name.size()) + " bytes");
    return std::string(name);
  }

  const std::string& path_;
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  std::deque<Value> values_;  // grows without a second copy of itself
  std::vector<Index> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, Index> memo_;
};

}  // namespace

std::vector<PickledTensor> read_torch_pickle(const std::string& path, std::span<const std::byte> pickle) {
  return Unpickler(path, pickle).run();
}

}  // namespace caravan
