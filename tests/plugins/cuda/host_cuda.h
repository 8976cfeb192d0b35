// The part of CUDA that the kernels use, on the host: plugins/cuda compiles against it as plain C++17
// (Linux, GCC or Clang). Blocks run one after the other, the threads of a block as fibers of one
// thread, switched at barriers and shuffles only: deterministic, and visible to the address
// sanitizer. Shared memory and the streams' workspace start as NaN. A barrier that not all threads
// reach ends the process with a message.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

#include "host_runtime.h"

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

// --- half and bfloat16, from and to float with rounding to nearest, ties to even

namespace host_cuda {

template <class To, class From>
To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace host_cuda

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};

inline float __half2float(__half h) {
  const int exponent = h.bits >> 10 & 31, fraction = h.bits & 1023;
  float magnitude;
  if (exponent == 31)
    magnitude = fraction ? NAN : INFINITY;
  else if (exponent == 0)
    magnitude = std::ldexp(static_cast<float>(fraction), -24);
  else
    magnitude = std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  return h.bits & 0x8000 ? -magnitude : magnitude;
}

inline __half __float2half_rn(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return {0x7fff};
  if (magnitude >= 65520.f) return {static_cast<uint16_t>(sign | 0x7c00)};
  // nearbyint rounds ties to even; a fraction that rounds up to the next power carries by itself.
  int exponent = magnitude < 0x1p-14f ? -14 : std::ilogb(magnitude);
  const int units = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return {static_cast<uint16_t>(sign | (units < 1024 ? units : ((exponent + 14) << 10) + units))};
}

inline float __bfloat162float(__nv_bfloat16 b) {
  return host_cuda::bits_of<float>(static_cast<uint32_t>(b.bits) << 16);
}

inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  const uint32_t bits = host_cuda::bits_of<uint32_t>(value);
  if (std::isnan(value)) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// --- arithmetic

inline float __fdividef(float x, float y) {
  return std::fabs(y) > 0x1p126f && std::isfinite(y) ? 0 * x : x / y;  // as documented
}
// Rounded to nearest, or with the bias in ulp that the environment's HOST_CUDA_EX2_BIAS tells: a GPU's is
// within 2 ulp.
inline float host_exp2(float x) {
  static const char *const told = std::getenv("HOST_CUDA_EX2_BIAS");
  static const double bias = told ? std::atof(told) : 0.;
  float y = std::exp2(x);
  if (bias != 0. && y >= 0x1p-126f && y <= 0x1p126f) {
    const double exact = std::exp2(static_cast<double>(x));
    y = static_cast<float>(exact + std::ldexp(bias, std::ilogb(exact) - 23));
  }
  return y < 0x1p-126f ? 0.f : y;  // flushed to zero
}

// --- the threads of a block

namespace host_cuda {

constexpr size_t kStack = 256 << 10;
constexpr unsigned kWarp = 32;

// A place to go on from: where start() or a switch left off. The compiler's setjmp saves no signal
// mask, hence costs no system call.
struct Fiber {
  std::unique_ptr<char[]> memory;
  const void *stack = nullptr;
  size_t size = 0;
  ucontext_t fresh;
  bool started = false;
  void *resume[5];
};

// Where threads wait for each other. A value left at one meeting stays readable until the next.
struct Meeting {
  std::vector<unsigned> waiting;
  std::vector<uint32_t> values[2];
  unsigned size = 0;
  bool turn = false;
};

class Block {
 public:
  void run(unsigned threads, void (*body)(void *), void *data) {
    while (fibers_.size() < threads) fibers_.push_back(fiber());
    warps_.assign(threads / kWarp, meeting_of(kWarp));
    all_ = meeting_of(threads);
    body_ = body;
    data_ = data;
    ended_ = 0;
    shared_.assign(kShared / sizeof(float4), float4{NAN, NAN, NAN, NAN});
    ready_.clear();
    next_ = 0;
    for (unsigned i = 0; i < threads; ++i) {
      ready_.push_back(i);
      fibers_[i].started = false;
    }
    main_.started = true;
    switch_from(main_);
    if (ended_ != threads) fail("threads wait at a barrier that others never reach");
  }

  // Leaves `value` at the meeting and returns when all have come; then read() tells theirs.
  void meet(Meeting &meeting, unsigned member, uint32_t value) {
    meeting.values[meeting.turn][member] = value;
    if (meeting.waiting.size() + 1 == meeting.size) {
      ready_.insert(ready_.end(), meeting.waiting.begin(), meeting.waiting.end());
      meeting.waiting.clear();
      meeting.turn = !meeting.turn;
    } else {
      meeting.waiting.push_back(threadIdx.x);
      switch_from(fibers_[threadIdx.x]);
    }
  }
  static uint32_t read(const Meeting &meeting, unsigned member) {
    return meeting.values[!meeting.turn][member];
  }
  static uint32_t any(const Meeting &meeting) {
    uint32_t any = 0;
    for (uint32_t value : meeting.values[!meeting.turn]) any |= value;
    return any;
  }
  Meeting &all() { return all_; }
  Meeting &warp() { return warps_[threadIdx.x / kWarp]; }

  template <class S>
  S &shared() {
    static_assert(sizeof(S) <= kShared, "static shared memory is limited to 48 KiB");
    return *reinterpret_cast<S *>(shared_.data());
  }

  static Block &current() {
    static Block block;
    return block;
  }

  [[noreturn]] static void fail(const char *why) {
    std::fprintf(stderr, "host_cuda: block %u: %s\n", blockIdx.x, why);
    std::abort();
  }

 private:
  static constexpr size_t kShared = 48 << 10;

  static Meeting meeting_of(unsigned size) {
    Meeting meeting;
    meeting.size = size;
    meeting.values[0].resize(size);
    meeting.values[1].resize(size);
    return meeting;
  }

  static Fiber fiber() {
    Fiber fiber;
    fiber.memory.reset(new char[kStack]);
    fiber.stack = fiber.memory.get();
    fiber.size = kStack;
    return fiber;
  }

  static void enter() {
    Block &block = current();
    block.arrived(nullptr);
    block.body_(block.data_);
    ++block.ended_;
    block.leave(nullptr, block.next());
  }

  // Goes on with the next thread that can run, or with run() when none can; returns in its turn.
  __attribute__((noinline)) void switch_from(Fiber &from) {
    void *fake = nullptr;
    Fiber &to = next();
    if (!__builtin_setjmp(from.resume)) leave(&fake, to);
    arrived(fake);
  }

  // `fake`: where the address sanitizer keeps what it knows of the stack that is left; null at its end.
  [[noreturn]] __attribute__((noinline)) void leave([[maybe_unused]] void **fake, Fiber &to) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fake, to.stack, to.size);
#endif
    to_ = &to;
    if (to.started) __builtin_longjmp(to.resume, 1);
    to.started = true;
    getcontext(&to.fresh);
    to.fresh.uc_stack.ss_sp = const_cast<void *>(to.stack);
    to.fresh.uc_stack.ss_size = to.size;
    to.fresh.uc_link = nullptr;
    makecontext(&to.fresh, enter, 0);
    setcontext(&to.fresh);
    std::abort();
  }

  void arrived([[maybe_unused]] void *fake) {
#if defined(__SANITIZE_ADDRESS__)
    const void *stack;
    size_t size;
    __sanitizer_finish_switch_fiber(fake, &stack, &size);
    if (from_main_) main_.stack = stack, main_.size = size;
    from_main_ = to_ == &main_;
#endif
    threadIdx.x = running_;
  }

  Fiber &next() {
    if (next_ == ready_.size()) return main_;
    // In even blocks all warps advance in step, in odd ones each runs as far ahead as it can: a missing
    // barrier shows in one of the two.
    if (blockIdx.x % 2) {
      running_ = ready_.back();
      ready_.pop_back();
    } else {
      running_ = ready_[next_++];
    }
    if (next_ >= 4096) {  // forget what has run
      ready_.erase(ready_.begin(), ready_.begin() + static_cast<std::ptrdiff_t>(next_));
      next_ = 0;
    }
    return fibers_[running_];
  }

  std::vector<Fiber> fibers_;
  std::vector<unsigned> ready_;
  std::vector<Meeting> warps_;
  std::vector<float4> shared_;
  Meeting all_;
  Fiber main_, *to_ = nullptr;
  void (*body_)(void *) = nullptr;
  void *data_ = nullptr;
  size_t next_ = 0;
  unsigned running_ = 0, ended_ = 0;
  bool from_main_ = true;  // the switch under way began in run()
};

}  // namespace host_cuda

inline void __syncthreads() {
  auto &block = host_cuda::Block::current();
  block.meet(block.all(), threadIdx.x, 0);
}
inline int __syncthreads_or(int predicate) {
  auto &block = host_cuda::Block::current();
  block.meet(block.all(), threadIdx.x, predicate != 0);
  return static_cast<int>(block.any(block.all()));
}
inline int __any_sync(unsigned, int predicate) {
  auto &block = host_cuda::Block::current();
  block.meet(block.warp(), threadIdx.x % host_cuda::kWarp, predicate != 0);
  return static_cast<int>(block.any(block.warp()));
}
inline float __shfl_xor_sync(unsigned, float value, int mask) {
  auto &block = host_cuda::Block::current();
  const unsigned lane = threadIdx.x % host_cuda::kWarp;
  block.meet(block.warp(), lane, host_cuda::bits_of<uint32_t>(value));
  return host_cuda::bits_of<float>(block.read(block.warp(), lane ^ static_cast<unsigned>(mask)));
}

template <class S>
S &host_shared_memory() {
  return host_cuda::Block::current().shared<S>();
}

template <class... Parameters>
cudaError_t host_launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, cudaStream_t stream,
                        Parameters... arguments) {
  if (blocks == 0 || threads == 0 || threads % host_cuda::kWarp || threads > 1024)
    return cudaErrorInvalidValue;
  return host_cuda::put(stream, [=] {
    auto body = [&] { kernel(arguments...); };
    gridDim = {blocks};
    blockDim = {threads};
    for (unsigned i = 0; i < blocks; ++i) {
      blockIdx = {i};
      host_cuda::Block::current().run(
          threads, [](void *data) { (*static_cast<decltype(body) *>(data))(); }, &body);
    }
  });
}
