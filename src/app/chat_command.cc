// `strata chat`: a conversation in the terminal, on an engine of its own process.
#include <fmt/chrono.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <utility>

#include "app/chat_view.h"
#include "app/commands.h"
#include "app/exit_code.h"
#include "app/model_setup.h"
#include "base/clock.h"
#include "base/queue.h"
#include "harmony/parser.h"
#include "harmony/render.h"

namespace strata::app {
namespace {

constexpr const char* kHelp =
    "/new                    start a new conversation\n"
    "/effort low|medium|high how long the model thinks\n"
    "/quit                   leave (or Ctrl-D)\n"
    "Ctrl-C stops an answer, and leaves when there is none.\n";

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

std::string today() { return fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::time(nullptr))); }

// The sequence being answered, for the signal watcher; shared, because a signal may come any time.
struct Current {
  std::atomic<SeqId> sequence{0};
};

class Chat {
 public:
  Chat(const Options& options, const ModelSetup& setup, Engine& engine,
       std::shared_ptr<Current> current)
      : options_(options), setup_(setup), engine_(engine), current_(std::move(current)) {
    conversation_.current_date = options.date.empty() ? today() : options.date;
    conversation_.effort = options.effort.value_or(harmony::Effort::kMedium);
    conversation_.instructions = options.system;
    std::random_device entropy;
    seed_ = options.seed.value_or((std::uint64_t{entropy()} << 32) | entropy());
  }

  // Until /quit or the end of the input.
  int run() {
    if (interactive_)
      print(fmt::format("{}; {}. /help lists the commands.\n", setup_.description(),
                        engine_.info()->model.backend));
    int code = kExitOk;
    for (std::string line; read_line(line);) {
      if (line.empty()) continue;
      if (line == "/quit") break;
      if (line[0] == '/') command(line);
      else if (!answer(line)) code = kExitFailure;
    }
    if (interactive_) print("\n");
    return code;
  }

 private:
  bool read_line(std::string& line) {
    if (interactive_) print("> ");
    return static_cast<bool>(std::getline(std::cin, line));
  }

  void command(const std::string& line) {
    if (line == "/new") {
      conversation_.messages.clear();
    } else if (line == "/effort low") {
      conversation_.effort = harmony::Effort::kLow;
    } else if (line == "/effort medium") {
      conversation_.effort = harmony::Effort::kMedium;
    } else if (line == "/effort high") {
      conversation_.effort = harmony::Effort::kHigh;
    } else {
      if (line != "/help") print(fmt::format("there is no command {}\n", line));
      print(kHelp);
    }
  }

  // Asks the model and shows what it says. False when there was no answer.
  bool answer(const std::string& question) {
    harmony::Message message;
    message.role = harmony::Role::kUser;
    message.content = question;
    conversation_.messages.push_back(std::move(message));
    auto stream = std::make_shared<TokenStream>();
    const auto news = std::make_shared<WakeEvent>();
    stream->set_notify([news] { news->set(); });
    const auto sequence = submit(stream);
    if (!sequence) {
      fmt::print(stderr, "strata: {}\n", sequence.error().message);
      conversation_.messages.pop_back();
      return false;
    }
    current_->sequence = *sequence;
    const SequenceEnd end = show(*stream, *news);
    current_->sequence = 0;
    if (end.error) fmt::print(stderr, "strata: {}\n", end.error->message);
    return !end.error;
  }

  Result<SeqId> submit(const std::shared_ptr<TokenStream>& stream) {
    auto prompt = harmony::render(conversation_, setup_.tokenizer());
    if (!prompt) return Unexpected(prompt.error());
    EngineRequest request;
    request.request_id = "chat";
    request.sampling.temperature = static_cast<float>(options_.temperature.value_or(1.0));
    request.sampling.seed = seed_++;
    request.sampling.stop_ids = setup_.tokenizer().stop_ids();
    const std::int32_t room =
        engine_.info()->max_model_len - static_cast<std::int32_t>(prompt->size());
    request.max_new_tokens =
        std::max(options_.max_tokens > 0 ? std::min(options_.max_tokens, room) : room, 1);
    request.prompt = std::move(*prompt);
    request.arrival = Clock().now();
    return engine_.submit(std::move(request), stream);
  }

  SequenceEnd show(TokenStream& stream, WakeEvent& news) {
    harmony::Parser parser(setup_.tokenizer(), {});
    ChatView view(style_);
    std::vector<harmony::Event> events;
    const auto flush = [&] {
      for (const harmony::Event& event : events) print(view.show(event));
      events.clear();
    };
    for (;;) {
      TokenStream::Batch batch = stream.take();
      for (const TokenOutput& output : batch.tokens) parser.push(output.token, events);
      if (batch.end) parser.finish(events);
      flush();
      if (batch.end) {
        print(view.finish());
        remember(view);
        if (interactive_) print(summary(*batch.end));
        return std::move(*batch.end);
      }
      news.wait_for(std::chrono::milliseconds(100));
    }
  }

  void remember(const ChatView& view) {
    const auto add = [this](const char* channel, const std::string& text) {
      if (text.empty()) return;
      harmony::Message message;
      message.role = harmony::Role::kAssistant;
      message.channel = channel;
      message.content = text;
      conversation_.messages.push_back(std::move(message));
    };
    add("analysis", view.reasoning());
    add("final", view.answer());
  }

  std::string summary(const SequenceEnd& end) const {
    const double seconds = to_seconds(end.timings.finished - end.timings.first_token);
    const int later = end.usage.generated_tokens - 1;
    std::string text = fmt::format("{} tokens", end.usage.generated_tokens);
    if (later > 0 && seconds > 0) text += fmt::format(", {:.1f} a second", later / seconds);
    if (end.reason == FinishReason::kLength) text += ", cut off at the length limit";
    if (end.reason == FinishReason::kAborted) text += ", stopped";
    return style_.color ? fmt::format("\033[2m({})\033[0m\n", text) : fmt::format("({})\n", text);
  }

  const Options& options_;
  const ModelSetup& setup_;
  Engine& engine_;
  const std::shared_ptr<Current> current_;
  const bool interactive_ = isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0;
  const ChatStyle style_{.reasoning = isatty(STDOUT_FILENO) != 0,
                         .color = isatty(STDOUT_FILENO) != 0 && !options_.environment.no_color};
  harmony::Conversation conversation_;
  std::uint64_t seed_ = 0;
};

}  // namespace

int run_chat(const Options& options, SignalWatcher& signals) {
  const ModelSetup setup(options);
  const std::shared_ptr<Engine> engine = make_engine(setup);
  const auto current = std::make_shared<Current>();
  signals.on_signal([current, watched = std::weak_ptr<Engine>(engine)](int signal, int) {
    const SeqId sequence = current->sequence;
    const auto alive = watched.lock();
    if (signal != SIGINT || sequence == 0 || !alive) SignalWatcher::exit_now(signal);
    alive->abort(sequence);
  });
  return Chat(options, setup, *engine, current).run();
}

}  // namespace strata::app
