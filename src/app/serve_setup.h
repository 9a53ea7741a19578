// What `serve` derives from Options for the HTTP side. Pure, apart from reading
// generation_config.json and drawing a key.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "app/options.h"
#include "http/server.h"
#include "serve/service.h"

namespace strata::app {

// Whether only this machine can reach a server bound to `host`.
bool is_loopback(std::string_view host);

// http://host:port, with brackets around an IPv6 address.
std::string address_url(const std::string& host, std::uint16_t port);

http::ServerOptions http_options(const Options& options);

// `model_name`: shown unless --served-model-name says otherwise. `directory` holds the model's
// generation_config.json, if any. Throws StartupError when that file is broken.
serve::ServiceOptions service_options(const Options& options, const std::string& model_name,
                                      const std::filesystem::path& directory);

// A fresh random API key.
std::string make_api_key();

}  // namespace strata::app
