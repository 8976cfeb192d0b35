// The part of CUDA that the kernels use, on the host: plugins/cuda compiles against it as plain C++17
// (Linux, GCC or Clang). Blocks run one after the other, the threads of a block as fibers of one
// thread, switched at barriers, shuffles and waits only: deterministic, and visible to the sanitizers
// of addresses and of threads. Shared memory and the streams' workspace start as NaN. A barrier that not
// all threads reach, or a turn that never comes, ends the process with a message.
//
// The environment's HOST_CUDA_SEED has blocks and threads run in a random order of that number, in which one
// warp of a block after the other stands still until no other can go on.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
}
#endif

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

#include "host_runtime.h"

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) float2 {
  float x, y;
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

// The thread sanitizer takes fibers for threads, and barriers alone order them: switches do not, nor do shuffles,
// votes and turns. It does not look at the emulation itself, while one of these lives.
struct Unseen {
#if defined(__SANITIZE_THREAD__)
  Unseen() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unseen() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  Unseen() {}
#endif
};
inline void happens_before([[maybe_unused]] void *what) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(what);
#endif
}
inline void happens_after([[maybe_unused]] void *what) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(what);
#endif
}

// A place to go on from: where start() or a switch left off. The compiler's setjmp saves no signal
// mask, hence costs no system call.
struct Fiber {
  std::unique_ptr<char[]> memory;
  const void *stack = nullptr;
  size_t size = 0;
  ucontext_t fresh;
  bool started = false;
  void *resume[5];
  void *as_thread = nullptr;  // to the thread sanitizer
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
    const Unseen unseen;
    while (fibers_.size() < threads) fibers_.push_back(fiber());
    warps_.assign(threads / kWarp, meeting_of(kWarp));
    all_ = meeting_of(threads);
    body_ = body;
    data_ = data;
    ended_ = 0;
    shared_.assign(kShared / sizeof(float4), float4{NAN, NAN, NAN, NAN});
    ready_.clear();
    polling_.clear();
    still_.clear();
    next_ = 0;
    still_warp_ = random_ ? draw(threads / kWarp) : threads;
    for (unsigned i = 0; i < threads; ++i) {
      can_go_on(i);
      fibers_[i].started = false;
    }
    main_.started = true;
#if defined(__SANITIZE_THREAD__)
    main_.as_thread = __tsan_get_current_fiber();
#endif
    happens_before(&body_);
    switch_from(main_);
    happens_after(&ended_);
    if (ended_ == threads) return;
    fail(polling_.empty() ? "threads wait at a barrier that others never reach" : "threads wait for a turn that never comes");
  }

  // Where the order of blocks and threads is a random one.
  void set_order(const char *seed) {
    random_ = seed;
    if (seed) engine_.seed(static_cast<unsigned>(std::atoi(seed)));
  }
  unsigned draw(size_t count) { return static_cast<unsigned>(engine_() % count); }

  // Returns when `over` does, which only other threads can bring about.
  template <class Over>
  void wait_until(const Over &over) {
    const Unseen unseen;
    while (!over()) {
      polling_.push_back(threadIdx.x);
      switch_from(fibers_[threadIdx.x]);
    }
    progress_ = true;
  }

  // Leaves `value` at the meeting and returns when all have come; then read() tells theirs. A barrier makes
  // what was written before it seen after it.
  void meet(Meeting &meeting, unsigned member, uint32_t value, bool barrier = false) {
    const Unseen unseen;
    std::vector<uint32_t> &values = meeting.values[meeting.turn];
    values[member] = value;
    if (barrier) happens_before(&values);
    progress_ = true;
    if (meeting.waiting.size() + 1 == meeting.size) {
      for (unsigned thread : meeting.waiting) can_go_on(thread);
      meeting.waiting.clear();
      meeting.turn = !meeting.turn;
    } else {
      meeting.waiting.push_back(threadIdx.x);
      switch_from(fibers_[threadIdx.x]);
    }
    if (barrier) happens_after(&values);
  }
  static uint32_t read(const Meeting &meeting, unsigned member) {
    const Unseen unseen;
    return meeting.values[!meeting.turn][member];
  }
  static uint32_t any(const Meeting &meeting) {
    const Unseen unseen;
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
#if defined(__SANITIZE_THREAD__)
    fiber.as_thread = __tsan_create_fiber(0);
#endif
    return fiber;
  }

  static void enter() {
    Block &block = current();
    block.arrived(nullptr);
    happens_after(&block.body_);
    block.body_(block.data_);
    happens_before(&block.ended_);
    block.leave(nullptr, block.next_after_the_end());
  }

  // Goes on with the next thread that can run, or with run() when none can; returns in its turn.
  __attribute__((noinline)) void switch_from(Fiber &from) {
    void *fake = nullptr;
    Fiber &to = next();
    if (!__builtin_setjmp(from.resume)) leave(&fake, to);
    arrived(fake);
  }

  // `fake`: where the address sanitizer keeps what it knows of the stack that is left; null at its end.
  [[noreturn]] __attribute__((noinline, no_sanitize("thread"))) void leave([[maybe_unused]] void **fake, Fiber &to) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fake, to.stack, to.size);
#endif
    to_ = &to;
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to.as_thread, __tsan_switch_to_fiber_no_sync);
#endif
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

  __attribute__((no_sanitize("thread"))) void arrived([[maybe_unused]] void *fake) {
#if defined(__SANITIZE_ADDRESS__)
    const void *stack;
    size_t size;
    __sanitizer_finish_switch_fiber(fake, &stack, &size);
    if (from_main_) main_.stack = stack, main_.size = size;
    from_main_ = to_ == &main_;
#endif
    threadIdx.x = running_;
  }

  void can_go_on(unsigned thread) { (thread / kWarp == still_warp_ ? still_ : ready_).push_back(thread); }

  // Whether there is a thread that can go on, among those that wait for others or stand still if need be.
  bool refill() {
    if (next_ < ready_.size()) return true;
    ready_.clear();
    next_ = 0;
    if (progress_) ready_.swap(polling_);
    progress_ = false;
    if (!ready_.empty()) return true;
    ready_.swap(still_);
    if (ready_.empty()) return false;
    still_warp_ = draw(warps_.size());
    progress_ = true;
    return true;
  }

  Fiber &next_after_the_end() {
    const Unseen unseen;
    ++ended_;
    progress_ = true;
    return next();
  }

  Fiber &next() {
    if (!refill()) return main_;
    // In even blocks all warps advance in step, in odd ones each runs as far ahead as it can: a missing
    // barrier shows in one of the two.
    if (random_) std::swap(ready_[next_ + draw(ready_.size() - next_)], ready_.back());
    if (random_ || blockIdx.x % 2) {
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
  std::vector<unsigned> ready_, polling_, still_;
  std::vector<Meeting> warps_;
  std::vector<float4> shared_;
  Meeting all_;
  Fiber main_, *to_ = nullptr;
  void (*body_)(void *) = nullptr;
  void *data_ = nullptr;
  size_t next_ = 0;
  unsigned running_ = 0, ended_ = 0;
  bool from_main_ = true;  // the switch under way began in run()
  std::mt19937 engine_;
  bool random_ = false;
  unsigned still_warp_ = 0;
  bool progress_ = false;  // since those that poll were last asked
};

}  // namespace host_cuda

inline void __syncthreads() {
  auto &block = host_cuda::Block::current();
  block.meet(block.all(), threadIdx.x, 0, true);
}
inline int __syncthreads_or(int predicate) {
  auto &block = host_cuda::Block::current();
  block.meet(block.all(), threadIdx.x, predicate != 0, true);
  return static_cast<int>(block.any(block.all()));
}
inline int __any_sync(unsigned, int predicate) {
  auto &block = host_cuda::Block::current();
  block.meet(block.warp(), threadIdx.x % host_cuda::kWarp, predicate != 0);
  return static_cast<int>(block.any(block.warp()));
}
inline int __all_sync(unsigned mask, int predicate) { return !__any_sync(mask, !predicate); }
inline void __syncwarp() {
  auto &block = host_cuda::Block::current();
  block.meet(block.warp(), threadIdx.x % host_cuda::kWarp, 0, true);
}

namespace host_cuda {

// The value of another lane; a lane's own where there is no such lane.
inline float value_of(float value, unsigned lane) {
  auto &block = Block::current();
  const unsigned own = threadIdx.x % kWarp;
  block.meet(block.warp(), own, bits_of<uint32_t>(value));
  return bits_of<float>(block.read(block.warp(), lane < kWarp ? lane : own));
}

}  // namespace host_cuda

inline float __shfl_sync(unsigned, float value, int lane) {
  return host_cuda::value_of(value, static_cast<unsigned>(lane));
}
inline float __shfl_xor_sync(unsigned, float value, int mask) {
  return host_cuda::value_of(value, threadIdx.x % host_cuda::kWarp ^ static_cast<unsigned>(mask));
}
inline float __shfl_down_sync(unsigned, float value, int count) {
  return host_cuda::value_of(value, threadIdx.x % host_cuda::kWarp + static_cast<unsigned>(count));
}

// The turns of scan slices: see device.cuh.
template <class Turn>
Turn host_read_turn(const Turn &turn) {
  Turn found;
  __atomic_load(&turn, &found, __ATOMIC_RELAXED);
  return found;
}
template <class Turn>
float host_wait_for_turn(const Turn &turn, uint32_t slice) {
  auto &block = host_cuda::Block::current();
  Turn found;
  block.wait_until([&] {
    found = host_read_turn(turn);
    return found.slice == slice;
  });
  block.meet(block.warp(), threadIdx.x % host_cuda::kWarp, 0);
  return found.value;
}
template <class Turn>
void host_hand_on(Turn &turn, float value, uint32_t slice) {
  Turn next{value, slice};
  __atomic_store(&turn, &next, __ATOMIC_RELAXED);
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
    auto &block = host_cuda::Block::current();
    const char *const seed = std::getenv("HOST_CUDA_SEED");
    block.set_order(seed);
    std::vector<unsigned> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    if (seed) std::shuffle(order.begin(), order.end(), std::mt19937(static_cast<unsigned>(std::atoi(seed))));
    gridDim = {blocks};
    blockDim = {threads};
    for (unsigned i : order) {
      blockIdx = {i};
      block.run(
          threads, [](void *data) { (*static_cast<decltype(body) *>(data))(); }, &body);
    }
  });
}
