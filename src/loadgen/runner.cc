#include "loadgen/runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/json.h"
#include "base/result.h"
#include "loadgen/arrivals.h"
#include "loadgen/sse.h"
#include "loadgen/stream_chunk.h"

namespace strata::loadgen {
namespace {

// Of an error's body; the rest says nothing more.
constexpr std::size_t kMaxErrorBytes = 4096;

double parse_milliseconds(std::string_view text) {
  double value = -1.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value * 1e-3 : -1.0;
}

// One answer while it arrives.
class Flight final : public Receiver {
 public:
  Flight(Outcome& outcome, const Clock& clock, bool keep_text, std::function<void()> done)
      : outcome_(outcome), clock_(clock), keep_text_(keep_text), done_(std::move(done)) {
    sent_ = last_ = clock_.now();
  }

  void on_head(int status, const Header& header) override {
    outcome_.status = status;
    outcome_.server_time = parse_milliseconds(header("openai-processing-ms"));
  }

  void on_body(std::string_view piece) override {
    if (outcome_.status != 200) {
      error_body_ += piece.substr(0, kMaxErrorBytes - std::min(kMaxErrorBytes, error_body_.size()));
      return;
    }
    now_ = clock_.now();
    parser_.feed(piece, [this](std::string_view data) { on_event(data); });
  }

  void on_end(const std::string& error) override {
    const bool ended = saw_done_ || saw_finish_;
    if (!error.empty()) outcome_.error = error;
    else if (outcome_.status != 200) outcome_.error = http_error();
    else if (!stream_error_.empty()) outcome_.error = "error event: " + stream_error_;
    else if (chunks_ == 0) outcome_.error = "no chunk with a choice came";
    else if (!ended) outcome_.error = "the stream ended without a finish reason";
    outcome_.success = outcome_.error.empty();
    if (!outcome_.success) last_ = clock_.now();
    outcome_.latency = to_seconds(last_ - sent_);
    if (outcome_.output_tokens == 0) outcome_.output_tokens = chunks_;  // no usage was sent
    done_();
  }

 private:
  void on_event(std::string_view data) {
    if (data == "[DONE]") {
      saw_done_ = true;
      return;
    }
    auto chunk = read_chunk(data);
    if (!chunk) {
      stream_error_ = "an event is no JSON object";
      return;
    }
    if (chunk->error) stream_error_ = chunk->error->empty() ? "without a message" : *chunk->error;
    if (chunk->prompt_tokens) outcome_.input_tokens = *chunk->prompt_tokens;
    if (chunk->completion_tokens) outcome_.output_tokens = *chunk->completion_tokens;
    saw_finish_ = saw_finish_ || chunk->has_finish;
    if (!chunk->has_choice) return;
    if (chunks_++ == 0) outcome_.ttft = to_seconds(now_ - sent_);
    else outcome_.itl.push_back(to_seconds(now_ - last_));
    last_ = now_;
    if (keep_text_) outcome_.text += chunk->text;
  }

  std::string http_error() const {
    const auto chunk = read_chunk(error_body_);
    const std::string message = chunk && chunk->error ? *chunk->error : std::string();
    return fmt::format("HTTP {}{}{}", outcome_.status, message.empty() ? "" : ": ", message);
  }

  Outcome& outcome_;
  const Clock& clock_;
  const bool keep_text_;
  const std::function<void()> done_;
  SseParser parser_;
  std::string error_body_;
  std::string stream_error_;
  Nanos sent_ = 0;
  Nanos last_ = 0;  // last chunk with a choice
  Nanos now_ = 0;   // arrival of the bytes that are parsed
  std::int64_t chunks_ = 0;
  bool saw_done_ = false;
  bool saw_finish_ = false;
};

class Run {
 public:
  Run(const Target& target, const LoadOptions& options, const std::vector<Prompt>& prompts)
      : options_(options), prompts_(prompts), client_(target), headers_(request_headers(options)) {
    result_.outcomes.resize(prompts.size());
    due_ = arrival_times(prompts.size(), options.request_rate, options.burstiness, options.seed);
    path_ = endpoint_path(options);
  }

  RunResult run() {
    result_.began = clock_.now();
    send_due();
    client_.run();
    result_.duration = to_seconds(clock_.now() - result_.began);
    return std::move(result_);
  }

 private:
  double elapsed() const { return to_seconds(clock_.now() - result_.began); }

  // Takes up every request whose time has come and sleeps until the next.
  void send_due() {
    while (next_ < prompts_.size() && due_[next_] <= elapsed()) {
      result_.outcomes[next_].due = due_[next_];
      waiting_.push_back(next_++);
    }
    send_waiting();
    if (next_ == prompts_.size()) return;
    client_.at(result_.began + static_cast<Nanos>(due_[next_] * 1e9), [this] { send_due(); });
  }

  void send_waiting() {
    while (!waiting_.empty() &&
           (options_.max_concurrency == 0 || in_flight_ < options_.max_concurrency)) {
      const std::size_t index = waiting_.front();
      waiting_.pop_front();
      send(index);
    }
  }

  void send(std::size_t index) {
    const Prompt& prompt = prompts_[index];
    Outcome& outcome = result_.outcomes[index];
    const HttpRequest request{"POST", path_, headers_, request_body(options_, prompt)};
    ++in_flight_;
    outcome.input_tokens = prompt.input_tokens;
    outcome.start = elapsed();
    outcome.queue = options_.max_concurrency > 0 ? outcome.start - outcome.due : 0.0;
    client_.send(request, std::make_shared<Flight>(outcome, clock_, options_.save_detailed, [this] {
                   --in_flight_;
                   send_waiting();
                 }));
  }

  const LoadOptions& options_;
  const std::vector<Prompt>& prompts_;
  const Clock clock_;
  HttpClient client_;
  const std::vector<std::pair<std::string, std::string>> headers_;
  std::string path_;
  std::vector<double> due_;
  std::size_t next_ = 0;
  std::deque<std::size_t> waiting_;  // due, held back by --max-concurrency
  std::int32_t in_flight_ = 0;
  RunResult result_;
};

}  // namespace

std::vector<std::pair<std::string, std::string>> request_headers(const LoadOptions& options) {
  std::vector<std::pair<std::string, std::string>> headers = {
      {"Content-Type", "application/json"}, {"Accept", "text/event-stream, application/json"}};
  if (!options.api_key.empty()) headers.emplace_back("Authorization", "Bearer " + options.api_key);
  headers.insert(headers.end(), options.headers.begin(), options.headers.end());
  return headers;
}

std::string endpoint_path(const LoadOptions& options) {
  if (!options.endpoint.empty()) return options.endpoint;
  return options.api == Api::kChat ? "/v1/chat/completions" : "/v1/completions";
}

std::string first_model(const Target& target, const LoadOptions& options) {
  const HttpAnswer answer = http_get(target, "/v1/models", request_headers(options));
  const std::string where =
      fmt::format("http://{}{}/v1/models", target.host_header(), target.prefix);
  if (!answer.error.empty())
    throw StartupError(fmt::format("{}: {}", where, answer.error),
                       "is the server up? --base-url says where it is");
  if (answer.status != 200)
    throw StartupError(fmt::format("{} answers with status {}", where, answer.status),
                       answer.status == 401 ? "--api-key or OPENAI_API_KEY names the key"
                                            : "--model names the model without asking");
  const auto json = parse_json(answer.body, where);
  if (json && json->is_object() && json->contains("data") && (*json)["data"].is_array() &&
      !(*json)["data"].empty()) {
    const auto& model = (*json)["data"][0];
    if (model.is_object() && model.contains("id") && model["id"].is_string())
      return model["id"].get<std::string>();
  }
  throw StartupError(where + " lists no model", "--model names the model without asking");
}

RunResult run_load(const Target& target, const LoadOptions& options,
                   const std::vector<Prompt>& prompts) {
  return Run(target, options, prompts).run();
}

}  // namespace strata::loadgen
