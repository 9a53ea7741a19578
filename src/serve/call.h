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
  const http::Request& request() const { return exchange_->request(); }
  const std::string& id() const { return id_; }
  Nanos arrival() const { return arrival_; }
  // The name of the matched route for metrics, a literal.
  void set_route(std::string_view route) { route_ = route; }
  // A header of the answer, whichever it becomes.
  void add_header(std::string name, std::string value);

  // One of these answers the request; later ones do nothing.
  void respond(http::Response response);
  void fail(const Error& error);
  void begin_events();  // text/event-stream; go on with exchange().write()
  void end_events();

 private:
  void add_headers(http::Response& response) const;
  void record(int status) const;

  std::shared_ptr<Context> context_;
  std::shared_ptr<http::Exchange> exchange_;
  std::string id_;
  Nanos arrival_ = 0;
  std::string_view route_ = "none";
  Access::Headers headers_;
  bool answered_ = false;
};

}  // namespace strata::serve
