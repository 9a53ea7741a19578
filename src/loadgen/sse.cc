#include "loadgen/sse.h"

#include <algorithm>

namespace strata::loadgen {

void SseParser::feed(std::string_view bytes, const OnEvent& on_event) {
  if (skip_lf_ && !bytes.empty()) {
    if (bytes.front() == '\n') bytes.remove_prefix(1);
    skip_lf_ = false;
  }
  while (!bytes.empty()) {
    const std::size_t end = bytes.find_first_of("\r\n");
    if (end == std::string_view::npos) {
      partial_ += bytes;
      return;
    }
    if (partial_.empty()) {
      line(bytes.substr(0, end), on_event);
    } else {
      partial_ += bytes.substr(0, end);
      line(partial_, on_event);
      partial_.clear();
    }
    const bool cr = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    if (cr && bytes.empty()) skip_lf_ = true;
    else if (cr && bytes.front() == '\n') bytes.remove_prefix(1);
  }
}

void SseParser::line(std::string_view text, const OnEvent& on_event) {
  if (text.empty()) {
    if (has_data_) on_event(data_);
    data_.clear();
    has_data_ = false;
    return;
  }
  const std::size_t colon = std::min(text.find(':'), text.size());
  if (text.substr(0, colon) != "data") return;  // a comment, or a field that means nothing here
  std::string_view value = text.substr(std::min(colon + 1, text.size()));
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (has_data_) data_ += '\n';
  data_ += value;
  has_data_ = true;
}

}  // namespace strata::loadgen
