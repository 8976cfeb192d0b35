#include "executor.h"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace dvmsr {

int threads_of(const dvmsr_executor *executor) {
  if (executor && executor->threads > 0) return executor->threads;
  return std::max(1u, std::thread::hardware_concurrency());
}

void run_tasks(const dvmsr_executor *executor, void (*task)(void *, size_t), size_t count, void *data) {
  if (executor && executor->parallel_for) {
    executor->parallel_for(executor->context, task, count, data);
    return;
  }
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < count; i = next++) task(data, i);
  };
  // Threads live for one call: nothing survives a fork, and starting one costs microseconds where
  // a call costs milliseconds. The calling thread works too, so failing to start one is only slower.
  std::vector<std::thread> helpers;
  const size_t wanted = std::min<size_t>(static_cast<size_t>(threads_of(executor)), count);
  helpers.reserve(wanted);
  try {
    while (helpers.size() + 1 < wanted) helpers.emplace_back(work);
  } catch (const std::system_error &) {
  }
  work();
  for (std::thread &helper : helpers) helper.join();
}

}  // namespace dvmsr
