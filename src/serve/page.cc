#include "serve/page.h"

#include <array>

// The assembler copies the files of web/ into the read-only data; STRATA_WEB_DIR is given by CMake.
#define STRATA_EMBED(symbol, file)                                              \
  asm(".section .rodata\n"                                                      \
      ".global " #symbol "_begin\n" #symbol                                     \
      "_begin:\n"                                                               \
      ".incbin \"" STRATA_WEB_DIR "/" file                                      \
      "\"\n"                                                                    \
      ".global " #symbol "_end\n" #symbol                                       \
      "_end:\n"                                                                 \
      ".byte 0\n.previous\n");                                                  \
  extern "C" const char symbol##_begin[] __attribute__((visibility("hidden"))); \
  extern "C" const char symbol##_end[] __attribute__((visibility("hidden")))

STRATA_EMBED(strata_web_index, "index.html");
STRATA_EMBED(strata_web_app, "app.js");
STRATA_EMBED(strata_web_stream, "stream.js");
STRATA_EMBED(strata_web_text, "text.js");
STRATA_EMBED(strata_web_messages, "messages.js");
STRATA_EMBED(strata_web_style, "style.css");
STRATA_EMBED(strata_web_icon, "icon.svg");

namespace strata::serve {
namespace {

struct Asset {
  std::string_view path;
  const char* type;
  const char* begin;
  const char* end;
};

constexpr const char* kHtml = "text/html; charset=utf-8";
constexpr const char* kScript = "text/javascript; charset=utf-8";
constexpr const char* kStyle = "text/css; charset=utf-8";
constexpr const char* kIcon = "image/svg+xml";

// The page loads nothing from elsewhere and runs no script but its own.
constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'";

}  // namespace

std::optional<http::Response> page_response(std::string_view path) {
  const std::array<Asset, 9> assets = {{
      {"/", kHtml, strata_web_index_begin, strata_web_index_end},
      {"/chat", kHtml, strata_web_index_begin, strata_web_index_end},
      {"/app.js", kScript, strata_web_app_begin, strata_web_app_end},
      {"/stream.js", kScript, strata_web_stream_begin, strata_web_stream_end},
      {"/text.js", kScript, strata_web_text_begin, strata_web_text_end},
      {"/messages.js", kScript, strata_web_messages_begin, strata_web_messages_end},
      {"/style.css", kStyle, strata_web_style_begin, strata_web_style_end},
      {"/icon.svg", kIcon, strata_web_icon_begin, strata_web_icon_end},
      {"/favicon.ico", kIcon, strata_web_icon_begin, strata_web_icon_end},
  }};
  for (const auto& asset : assets) {
    if (asset.path != path) continue;
    http::Response response;
    response.content_type = asset.type;
    response.body.assign(asset.begin, asset.end);
    response.headers = {{"Content-Security-Policy", kPolicy},
                        {"X-Content-Type-Options", "nosniff"},
                        {"Referrer-Policy", "no-referrer"},
                        {"Cache-Control", "no-cache"}};
    return response;
  }
  return std::nullopt;
}

}  // namespace strata::serve
