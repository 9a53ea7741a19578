// Limits per API key: requests running at once, requests a minute, tokens a minute. Any thread.
//
// Requests and tokens are buckets that hold a minute's worth and fill evenly. A request takes one
// from the first when it arrives, its prompt from the second when the prompt is known, and each
// token of its answer when the answer ends; that last may leave the bucket in debt, which the next
// requests wait for.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/sha256.h"

namespace strata::serve {

// 0: no limit.
struct RateLimits {
  std::int64_t concurrent_requests = 0;
  std::int64_t requests_per_minute = 0;
  std::int64_t tokens_per_minute = 0;
};

class RateLimiter {
 public:
  // `clock` must outlive the limiter.
  RateLimiter(const RateLimits& limits, const Clock& clock);

  // A request's place among the running ones; gives it back when destroyed.
  class Lease {
   public:
    Lease(RateLimiter& limiter, const Sha256Digest& client) : limiter_(&limiter), client_(client) {}
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    // An error when the bucket does not hold the prompt now.
    Result<void> take_prompt(std::int64_t tokens);
    void take_answer(std::int64_t tokens);

   private:
    RateLimiter* limiter_;
    const Sha256Digest client_;
  };

  Result<std::unique_ptr<Lease>> admit(const Sha256Digest& client);

  // x-ratelimit-* of what is limited, as OpenAI sends them.
  using Headers = std::vector<std::pair<std::string, std::string>>;
  Headers headers(const Sha256Digest& client);

 private:
  struct Bucket {
    double level = 0;
    Nanos filled = 0;  // when `level` was right; 0: never used, full
  };
  struct Client {
    std::int64_t running = 0;
    Bucket requests;
    Bucket tokens;
  };
  struct DigestHash {
    std::size_t operator()(const Sha256Digest& digest) const;
  };

  Client& client_of(const Sha256Digest& client);
  void fill(Bucket& bucket, std::int64_t limit) const;
  void release(const Sha256Digest& client);
  Result<void> take_prompt(const Sha256Digest& client, std::int64_t tokens);
  void take_answer(const Sha256Digest& client, std::int64_t tokens);

  const RateLimits limits_;
  const Clock& clock_;
  std::mutex mutex_;
  // GUARDED_BY(mutex_). One entry for each key that is accepted: few.
  std::unordered_map<Sha256Digest, Client, DigestHash> clients_;
};

// "250ms", "1.5s", "6m0s": how OpenAI writes the time until a limit is whole again.
std::string reset_text(double seconds);

}  // namespace strata::serve
