// Incremental parser of server-sent events: bytes in, the data of complete events out, wherever the
// bytes are split. Of the fields only `data` is kept.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace strata::loadgen {

class SseParser {
 public:
  // `on_event` gets the data of an event, its lines joined by LF; valid during the call only.
  using OnEvent = std::function<void(std::string_view data)>;

  void feed(std::string_view bytes, const OnEvent& on_event);

 private:
  void line(std::string_view text, const OnEvent& on_event);

  std::string partial_;  // a line whose end has not come
  std::string data_;     // of the event that is open
  bool has_data_ = false;
  bool skip_lf_ = false;  // the last byte was a CR, which already ended its line
};

}  // namespace strata::loadgen
