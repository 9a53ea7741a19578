// The flags of bench_cuda_kernels.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

namespace strata::kernels::cuda {

struct Options {
  std::vector<int> rows{1, 8, 32, 128, 512, 2048};
  int context = 1024;      // keys before the step's rows
  int model_len = 131072;  // what grids of attention have room for
  std::string skew = "uniform";
  bool int8 = false;  // dense weights
  std::string only;
};

// Prints what is wrong, if something is.
inline std::optional<Options> parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--rows") {
      options.rows.clear();
      for (char* at = argv[i + 1]; *at != '\0'; at += *at == ',' ? 1 : 0)
        options.rows.push_back(static_cast<int>(std::strtol(at, &at, 10)));
    } else if (flag == "--context") options.context = std::atoi(argv[i + 1]);
    else if (flag == "--model-len") options.model_len = std::atoi(argv[i + 1]);
    else if (flag == "--skew") options.skew = argv[i + 1];
    else if (flag == "--only") options.only = argv[i + 1];
    else if (flag == "--dense-dtype") options.int8 = std::string(argv[i + 1]) == "int8";
    else {
      std::fprintf(stderr, "unknown flag %s\n", flag.c_str());
      return std::nullopt;
    }
  }
  return options;
}

}  // namespace strata::kernels::cuda
