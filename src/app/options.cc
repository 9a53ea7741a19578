#include "app/options.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include "app/exit_code.h"
#include "app/flag_values.h"
#include "app/flags.h"
#include "app/version.h"

namespace strata::app {
namespace {

struct CommandInfo {
  Command command;
  const char* name;  // a second word: a command below the first
  const char* description;
};

// A command stands behind the one it is below.
constexpr std::array<CommandInfo, 5> kCommands = {{
    {Command::kServe, "serve",
     "Serve a model over an OpenAI-compatible HTTP API, with a chat page"},
    {Command::kChat, "chat", "Chat with a model in the terminal"},
    {Command::kBench, "bench", "Measure prompt and decode speed"},
    {Command::kPlan, "plan", "Print where memory would go, without loading anything"},
    {Command::kBenchServe, "bench serve", "Measure a running OpenAI-compatible server under load"},
}};

constexpr const char* kModelHelp =
    "Directory, hub name such as openai/gpt-oss-20b, or nothing for the embedded model";

// A subcommand with its options, in the order of `flags`.
struct CommandParser {
  CommandInfo info;
  CLI::App* app = nullptr;
  CLI::Option* model = nullptr;  // the positional MODEL; bench serve has none
  std::vector<std::pair<const FlagSpec*, CLI::Option*>> flags;
};

// Shows a switch as --[no-]name.
class HelpFormatter final : public CLI::Formatter {
 public:
  std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    if (is_positional || option->get_lnames().size() < 2)
      return CLI::Formatter::make_option_name(option, is_positional);
    return "--[no-]" + option->get_lnames().front();
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    const bool takes_value = option->get_expected_max() > 0 && !option->get_positional();
    return takes_value ? " VALUE" : "";
  }
};

CLI::Option* add_flag(CLI::App& app, const FlagSpec& spec) {
  const std::string name = spec.name;
  CLI::Option* option = nullptr;
  switch (spec.kind) {
    case FlagKind::kSwitch:
      option = app.add_flag(fmt::format("{},!--no-{}", name, name.substr(2)), spec.text)
                   ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
      break;
    case FlagKind::kValue:
      option = app.add_option(name, spec.text)
                   ->expected(1)
                   ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
      break;
    case FlagKind::kList: option = app.add_option(name, spec.text)->expected(1, 1 << 10); break;
    case FlagKind::kRepeated:
      option = app.add_option(name, spec.text)
                   ->expected(1)
                   ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
      break;
  }
  return option->group(spec.group);
}

CommandParser add_command(CLI::App& root, const CommandInfo& info) {
  const std::string_view name = info.name;
  const std::size_t space = name.find(' ');
  CLI::App* parent = &root;
  if (space != std::string_view::npos)
    parent = root.get_subcommand(std::string(name.substr(0, space)));
  CommandParser parser{info, nullptr, nullptr, {}};
  parser.app = parent->add_subcommand(
      std::string(space == std::string_view::npos ? name : name.substr(space + 1)),
      info.description);
  parser.app->allow_extras();
  if (info.command != Command::kBenchServe)
    parser.model = parser.app->add_option("MODEL", kModelHelp)->type_name("");
  for (const FlagSpec* spec : flags_of(info.command))
    parser.flags.emplace_back(spec, add_flag(*parser.app, *spec));
  return parser;
}

[[noreturn]] void unknown_argument(const std::string& argument, const CommandInfo& info) {
  const std::string name = argument.substr(0, argument.find('='));
  if (!name.starts_with("-"))
    usage_error(fmt::format("unexpected argument '{}'", argument),
                info.command == Command::kBenchServe
                    ? std::string("--model names the model of the server")
                    : fmt::format("one MODEL is taken: strata {} MODEL", info.name));
  for (const CommandInfo& other : kCommands)
    if (find_flag(name, other.command) != nullptr)
      usage_error(fmt::format("{} is no flag of strata {}", name, info.name),
                  fmt::format("strata {} takes it", other.name));
  const std::string nearest = nearest_flag(name, info.command);
  usage_error(fmt::format("unknown flag {}", name),
              nearest.empty() ? fmt::format("strata {} --help lists the flags", info.name)
                              : fmt::format("did you mean {}?", nearest));
}

void apply_flag(const FlagUse& use, ParsedCommandLine& parsed) {
  const FlagSpec& spec = use.spec;
  if (spec.kind == FlagKind::kSwitch && use.value() != "true" && use.value() != "false")
    usage_error(fmt::format("{} takes true or false, not '{}'", spec.name, use.value()));
  if (spec.apply != nullptr) spec.apply(parsed.options, use);
  if (spec.effect == FlagEffect::kInert)
    parsed.notes.push_back(fmt::format("{} has no effect because {}", spec.name, spec.text));
  if (spec.effect == FlagEffect::kRefused && !is_quiet(use)) {
    const std::string shown = spec.kind == FlagKind::kSwitch
                                  ? std::string(spec.name)
                                  : fmt::format("{} {}", spec.name, use.value());
    usage_error(fmt::format("{} is not supported", shown), spec.text);
  }
}

void check_load(Options& options) {
  loadgen::LoadOptions& load = options.load;
  if (load.preset == loadgen::Preset::kFiveUsers) return;
  if (load.dataset == loadgen::Dataset::kCustom && load.dataset_path.empty())
    usage_error("--dataset-name custom needs --dataset-path FILE.jsonl",
                R"(one line a prompt: {"prompt": "Hello"})");
  if (load.dataset == loadgen::Dataset::kRandom && !load.dataset_path.empty())
    usage_error("--dataset-path needs --dataset-name custom");
  // As in vLLM: random prompts are answered up to the requested length.
  if (load.dataset == loadgen::Dataset::kRandom) load.ignore_eos = true;
}

// Fills in what depends on other flags, and checks what must fit together.
void check_together(Options& options) {
  if (options.command == Command::kBenchServe) return check_load(options);
  if (options.load_format == LoadFormat::kScripted && options.script_file.empty())
    usage_error("--load-format scripted needs --script FILE.jsonl",
                R"(one line an answer: {"text": "<|channel|>final<|message|>hi<|return|>"})");
  if (options.load_format != LoadFormat::kScripted && !options.script_file.empty())
    usage_error("--script needs --load-format scripted");
  if (options.rebuild_above_percent > 0 &&
      options.gpu_memory_utilization * 100 >= options.rebuild_above_percent)
    usage_error(
        fmt::format("--rebuild-on-vram {}: --gpu-memory-utilization {} fills the card as far",
                    options.rebuild_above_percent, options.gpu_memory_utilization),
        "the model would be rebuilt again and again; leave a few percent between them");
  if (options.deterministic && options.cuda_path != CudaPath::kAuto)
    usage_error("--deterministic has kernels of its own, in float32", "leave out --cuda-path");
  if (options.max_num_batched_tokens > 0 && options.max_num_batched_tokens < options.max_num_seqs)
    usage_error(fmt::format("--max-num-batched-tokens {} is below --max-num-seqs {}",
                            options.max_num_batched_tokens, options.max_num_seqs),
                "a step must hold one token of every running sequence");
  // A card's sizes depend on its room (ModelSetup).
  if (options.backend != BackendChoice::kAuto && options.backend != BackendChoice::kCuda)
    options = with_backend(options, options.backend);
}

void note_card_flags(const CommandParser& parser, ParsedCommandLine& parsed) {
  const BackendChoice backend = parsed.options.backend;
  if (backend == BackendChoice::kCuda) return;
  for (const auto& [spec, option] : parser.flags) {
    if (option->count() == 0 || spec->effect != FlagEffect::kCard) continue;
    if (backend == BackendChoice::kAuto) parsed.options.card_flags.push_back(spec->name);
    else parsed.notes.push_back(without_card(spec->name));
  }
}

void read_flags(const CommandParser& parser, ParsedCommandLine& parsed) {
  parsed.options.command = parser.info.command;
  const std::vector<std::string> extras = parser.app->remaining();
  if (!extras.empty()) unknown_argument(extras.front(), parser.info);
  for (const auto& [spec, option] : parser.flags)
    if (option->count() > 0) apply_flag(FlagUse{*spec, option->results()}, parsed);
  note_card_flags(parser, parsed);
  if (parser.model != nullptr && parser.model->count() > 0) {
    const std::string given = parser.model->as<std::string>();
    if (!parsed.options.model.empty() && parsed.options.model != given)
      usage_error(
          fmt::format("two models are named: {} and --model {}", given, parsed.options.model));
    parsed.options.model = given;
  }
  check_together(parsed.options);
}

// The command that was named, the lower one of two; nullptr: none was.
const CommandParser* chosen_command(const std::vector<CommandParser>& parsers) {
  const CommandParser* chosen = nullptr;
  for (const CommandParser& parser : parsers) {
    if (!parser.app->parsed()) continue;
    if (chosen != nullptr)
      for (const auto& [spec, option] : chosen->flags)
        if (option->count() > 0)
          usage_error(fmt::format("{} stands before '{}'", spec->name, parser.app->get_name()),
                      fmt::format("write flags behind strata {}", parser.info.name));
    chosen = &parser;
  }
  return chosen;
}

// What stands before the command's own name in its help.
std::string help_prefix(const CommandInfo& info) {
  const std::string name = std::string("strata ") + info.name;
  return name.substr(0, name.rfind(' '));
}

}  // namespace

ParsedCommandLine parse_command_line(std::vector<std::string> arguments,
                                     const Environment& environment) {
  CLI::App root("Strata serves OpenAI's gpt-oss models on the hardware a person has.", "strata");
  root.formatter(std::make_shared<HelpFormatter>());
  root.set_version_flag("--version", fmt::format("strata {}", kVersion));
  root.require_subcommand(1);
  std::vector<CommandParser> parsers;
  for (const CommandInfo& info : kCommands) parsers.push_back(add_command(root, info));

  ParsedCommandLine parsed;
  parsed.options.environment = environment;
  parsed.options.api_keys = environment.api_keys;
  parsed.options.load.api_key = environment.openai_api_key;
  for (std::string& argument : arguments) {
    argument = canonical_argument(argument);
    if (argument.starts_with("--") && argument.ends_with("="))
      usage_error(fmt::format("{} needs a value", argument.substr(0, argument.size() - 1)),
                  "write it behind the = or as the next word");
  }
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  try {
    root.parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    const CommandParser* chosen = chosen_command(parsers);
    parsed.text = chosen == nullptr ? root.help() : chosen->app->help(help_prefix(chosen->info));
    return parsed;
  } catch (const CLI::CallForVersion& version) {
    parsed.text = fmt::format("{}\n", version.what());
    return parsed;
  } catch (const CLI::ParseError& error) {
    usage_error(error.what(), "strata --help lists the commands");
  }
  read_flags(*chosen_command(parsers), parsed);
  return parsed;
}

std::string without_card(const std::string& flag) {
  return fmt::format("{} has no effect because the model computes on the CPU", flag);
}

Options with_backend(Options options, BackendChoice backend) {
  const bool card = backend == BackendChoice::kCuda;
  options.backend = backend;
  if (options.kv_dtype_auto) options.kv_dtype = card ? KvDtype::kBf16 : KvDtype::kF32;
  if (options.max_num_seqs == 0) {
    options.max_num_seqs = card ? 64 : 8;
    if (options.max_num_batched_tokens > 0)
      options.max_num_seqs = std::min(options.max_num_seqs, options.max_num_batched_tokens);
  }
  if (options.max_num_batched_tokens == 0)
    options.max_num_batched_tokens = std::max(card ? 1024 : 256, options.max_num_seqs);
  return options;
}

Environment read_environment() {
  const auto get = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  Environment environment;
  environment.home = get("HOME");
  environment.hf_hub_cache = get("HF_HUB_CACHE");
  environment.huggingface_hub_cache = get("HUGGINGFACE_HUB_CACHE");
  environment.hf_home = get("HF_HOME");
  environment.xdg_cache_home = get("XDG_CACHE_HOME");
  for (const char* name : {"STRATA_API_KEY", "VLLM_API_KEY"}) {
    if (!environment.api_keys.empty()) break;
    if (std::string key = get(name); !key.empty()) environment.api_keys.push_back(std::move(key));
  }
  environment.openai_api_key = get("OPENAI_API_KEY");
  environment.no_color = !get("NO_COLOR").empty();
  return environment;
}

}  // namespace strata::app
