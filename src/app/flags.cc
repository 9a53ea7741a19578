#include "app/flags.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

namespace strata::app {
namespace {

// Spellings with one dash and old names -> names of the table.
constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kAliases = {{
    {"-tp", "--tensor-parallel-size"},
    {"-pp", "--pipeline-parallel-size"},
    {"-dp", "--data-parallel-size"},
    {"-sc", "--speculative-config"},
    {"-cc", "--compilation-config"},
    {"-O", "--compilation-config"},
    {"-q", "--quantization"},
    {"--disable-log-requests", "--no-enable-log-requests"},
}};

// Levenshtein distance with one row of the table.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

}  // namespace

std::vector<const FlagSpec*> flags_of(Command command) {
  std::vector<const FlagSpec*> flags;
  for (const auto part : {honoured_flags(), inert_flags(), refused_flags(), load_flags()})
    for (const FlagSpec& spec : part)
      if ((spec.commands & command_bit(command)) != 0) flags.push_back(&spec);
  return flags;
}

const FlagSpec* find_flag(std::string_view name, Command command) {
  const auto flags = flags_of(command);
  const auto found = std::find_if(flags.begin(), flags.end(),
                                  [&](const auto* spec) { return spec->name == name; });
  return found == flags.end() ? nullptr : *found;
}

bool is_quiet(const FlagUse& use) {
  std::string_view rest = use.spec.quiet;
  while (!rest.empty()) {
    const std::size_t bar = std::min(rest.find('|'), rest.size());
    if (use.value() == rest.substr(0, bar)) return true;
    rest.remove_prefix(std::min(bar + 1, rest.size()));
  }
  return false;
}

std::string nearest_flag(std::string_view name, Command command) {
  std::string best;
  // A third of the letters wrong is another word.
  std::size_t best_distance = name.size() / 3 + 1;
  for (const FlagSpec* spec : flags_of(command)) {
    const std::size_t distance = edit_distance(name, spec->name);
    if (distance < best_distance) {
      best_distance = distance;
      best = spec->name;
    }
  }
  return best;
}

std::string canonical_argument(const std::string& argument) {
  if (argument.size() < 2 || argument[0] != '-') return argument;
  const std::size_t equals = std::min(argument.find('='), argument.size());
  std::string name = argument.substr(0, equals);
  std::string value = argument.substr(equals);  // with "="
  if (const std::size_t dot = name.find('.'); dot != std::string::npos && value.size() > 1) {
    value = "=" + name.substr(dot + 1) + value;
    name.resize(dot);
  }
  if (name.starts_with("--")) std::replace(name.begin(), name.end(), '_', '-');
  for (const auto& [alias, full] : kAliases)
    if (name == alias) name = full;
  return name + value;
}

}  // namespace strata::app
