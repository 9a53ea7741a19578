// Making of labelled series; internal to metrics/.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <string>
#include <utility>

namespace strata::metrics {

using Labels = prometheus::Labels;
using Buckets = prometheus::Histogram::BucketBoundaries;
using CounterFamily = prometheus::Family<prometheus::Counter>;
using GaugeFamily = prometheus::Family<prometheus::Gauge>;

class SeriesMaker {
 public:
  // Every series carries `labels`.
  SeriesMaker(prometheus::Registry& registry, Labels labels)
      : registry_(registry), labels_(std::move(labels)) {}

  const Labels& labels() const { return labels_; }
  Labels with(const char* name, const std::string& value) const {
    Labels out = labels_;
    out.emplace(name, value);
    return out;
  }
  CounterFamily& counters(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry_);
  }
  prometheus::Counter& counter(const char* name, const char* help) {
    return counters(name, help).Add(labels_);
  }
  GaugeFamily& gauges(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry_);
  }
  prometheus::Gauge& gauge(const char* name, const char* help) {
    return gauges(name, help).Add(labels_);
  }
  template <typename Array>
  prometheus::Histogram& histogram(const char* name, const char* help, const Array& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_).Add(
        labels_, Buckets(buckets.begin(), buckets.end()));
  }

 private:
  prometheus::Registry& registry_;
  const Labels labels_;
};

}  // namespace strata::metrics
