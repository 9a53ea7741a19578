// One HTTP request on its way through the service: its id, its answer's common headers, its line
// in the log and the metrics. Used on the exchange's executor.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "http/server.h"
#include "serve/context.h"

namespace strata::serve {

class Call {
 public:
  Call(std::shared_ptr<Context> context, std::shared_ptr<http::Exchange> exchange);

  Context& context() const { return *context_; }
  http::Exchange& exchange() const { return *exchange_; }
  const std::shared_ptr<http::Exchange>& exchange_ref() const { return exchange_; }
  const http::Request& request() const { return exchange_->request(); }
  const std::string& id() const { return id_; }
  Nanos arrival() const { return arrival_; }
  // The name of the matched route for metrics, a literal.
  void set_route(std::string_view route) { route_ = route; }
  // Whose request it is.
  const Sha256Digest& client() const { return client_; }

  // Takes a place under the key's limits until the call is gone; an error when there is none.
  Result<void> admit();
  Result<void> take_prompt(std::int64_t tokens);
  void take_answer(std::int64_t tokens);

  // A header of the answer, whichever it becomes.
  void add_header(std::string name, std::string value);

  // One of these answers the request; later ones do nothing.
  void respond(http::Response response);
  void fail(const Error& error);
  void begin_events();  // text/event-stream; go on with write()
  void write(std::string events);
  void end_events();

 private:
  void add_headers(http::Response& response);
  void record(int status, std::size_t bytes);

  std::shared_ptr<Context> context_;
  std::shared_ptr<http::Exchange> exchange_;
  std::string id_;
  Nanos arrival_ = 0;
  std::string_view route_ = "none";
  Access::Headers headers_;
  const Sha256Digest client_;
  bool limited_ = false;  // its key's limits are shown
  std::unique_ptr<RateLimiter::Lease> lease_;
  std::size_t bytes_written_ = 0;
  bool answered_ = false;
};

}  // namespace strata::serve
