// Runs numbered tasks, on the caller's threads or on some of our own.
#pragma once

#include <cstddef>

#include "dvmsr_ops.h"

namespace dvmsr {

// How many tasks run at once.
int threads_of(const dvmsr_executor *executor);

// Calls body(0) ... body(count - 1); returns when all have ended.
template <class Body>
void parallel_for(const dvmsr_executor *executor, size_t count, const Body &body);

void run_tasks(const dvmsr_executor *executor, void (*task)(void *, size_t), size_t count, void *data);

template <class Body>
void parallel_for(const dvmsr_executor *executor, size_t count, const Body &body) {
  run_tasks(
      executor, [](void *data, size_t i) { (*static_cast<const Body *>(data))(i); }, count,
      const_cast<Body *>(&body));
}

}  // namespace dvmsr
