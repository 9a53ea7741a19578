// A run's figures in vLLM's two forms: the printed table and the JSON of --save-result. Pure.
#pragma once

#include <string>

#include "loadgen/figures.h"
#include "loadgen/options.h"
#include "loadgen/runner.h"

namespace strata::loadgen {

// What goes into the JSON besides the figures.
struct RunLabels {
  std::string date;  // YYYYMMDD-HHMMSS
  std::string model;
};

std::string format_table(const Figures& figures, const LoadOptions& options);

// One JSON object without a line end. The lists of single requests are there with
// options.save_detailed. `extra`: further members as JSON text, "" for none.
std::string result_json(const Figures& figures, const RunResult& run, const LoadOptions& options,
                        const RunLabels& labels, const std::string& extra = {});

// As vLLM names it: LABEL-RATEqps[-concurrencyN]-MODEL-DATE.json, or options.result_filename; in
// options.result_dir.
std::string result_path(const LoadOptions& options, const RunLabels& labels);

}  // namespace strata::loadgen
