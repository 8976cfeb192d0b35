// MambaMixer: blocks of tokens go through three steps, what comes before the scan, the scan, and what
// comes after it. The first and the last need one block alone; the scan of each group of channels goes
// from block to block. Threads take whichever step is due, the oldest block first, so that with one
// thread a block stays in the cache from beginning to end, and with several none waits for another.
#include "mixer.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "call.h"
#include "executor.h"
#include "kernels.h"

struct dvmsr_mixer {
  dvmsr::Mixer mixer;
  dvmsr::Pieces packed;  // one, for the kernels of this machine
};

namespace dvmsr {
namespace {

enum class Step { before, scan, after, wait, end };

struct Task {
  Step step;
  int64_t block;  // of all blocks of all batch elements
  int64_t group;  // of channels
};

// Tasks that are due, the oldest first; there is room for all that can be at once.
class Queue {
 public:
  explicit Queue(int64_t room) : tasks_(static_cast<size_t>(room)) {}
  bool empty() const { return count_ == 0; }
  void push(const Task &task) { tasks_[(first_ + count_++) % tasks_.size()] = task; }
  Task pop() {
    const Task task = tasks_[first_];
    first_ = (first_ + 1) % tasks_.size();
    --count_;
    return task;
  }

 private:
  std::vector<Task> tasks_;
  size_t first_ = 0, count_ = 0;
};

// Which step is due. Blocks are numbered through all batch elements, those in turn: block i is number
// i / batch of element i % batch. `slots` of them are in work at once, block i in slot i % slots.
class Schedule {
 public:
  Schedule(int64_t batch, int64_t blocks, int64_t groups, int64_t slots)
      : batch_(batch),
        blocks_(blocks),
        groups_(groups),
        slots_(static_cast<size_t>(slots)),
        scanned_(static_cast<size_t>(batch * groups)),
        scans_(slots * groups),
        afters_(slots) {
    for (int64_t i = 0; i < slots; ++i) slots_[static_cast<size_t>(i)].block = i;
  }

  // The next task, once `done` has ended.
  Task next(const Task &done) {
    const std::lock_guard<std::mutex> lock(mutex_);
    finish(done);
    if (!afters_.empty()) return afters_.pop();
    if (!scans_.empty()) return scans_.pop();
    if (begun_ < blocks_ && slot(begun_).block == begun_) return {Step::before, begun_++, 0};
    return {ended_ == blocks_ ? Step::end : Step::wait, 0, 0};
  }

 private:
  struct Slot {
    int64_t block;       // that is in it or comes next
    bool ready = false;  // for the scan
    int64_t scanned = 0; // groups
  };

  Slot &slot(int64_t block) { return slots_[static_cast<size_t>(block) % slots_.size()]; }
  // How many blocks of its batch element a group has scanned.
  int64_t &scanned(int64_t block, int64_t group) {
    return scanned_[static_cast<size_t>(block % batch_ * groups_ + group)];
  }

  void finish(const Task &done) {
    Slot &own = slot(done.block);
    switch (done.step) {
      case Step::before:
        own.ready = true;
        for (int64_t group = 0; group < groups_; ++group)
          if (scanned(done.block, group) == done.block / batch_) scans_.push({Step::scan, done.block, group});
        break;
      case Step::scan: {
        const int64_t following = done.block + batch_;
        ++scanned(done.block, done.group);
        if (++own.scanned == groups_) afters_.push({Step::after, done.block, 0});
        if (following < blocks_ && slot(following).block == following && slot(following).ready)
          scans_.push({Step::scan, following, done.group});
        break;
      }
      case Step::after:
        own = {done.block + static_cast<int64_t>(slots_.size())};
        ++ended_;
        break;
      default: break;
    }
  }

  const int64_t batch_, blocks_, groups_;
  std::mutex mutex_;
  std::vector<Slot> slots_;
  std::vector<int64_t> scanned_;
  Queue scans_, afters_;
  int64_t begun_ = 0, ended_ = 0;
};

// Memory for a call, which the thread keeps for its next one unless it is large: what goes back to the system
// is cleared page by page when it is taken again, for as long as a short call computes.
class Kept {
 public:
  explicit Kept(int64_t bytes) : memory_(std::exchange(spare(), {})) {
    if (memory_.bytes < bytes + 64)
      memory_ = {std::unique_ptr<char[]>(new char[static_cast<size_t>(bytes) + 64]), bytes + 64};
    next_ = first_line(memory_.data.get());
  }
  Kept(const Kept &) = delete;
  ~Kept() {
    if (memory_.bytes <= int64_t{1} << 22) spare() = std::move(memory_);
  }
  // The next `bytes` of it.
  char *take(int64_t bytes) { return std::exchange(next_, next_ + bytes); }

 private:
  struct Memory {
    std::unique_ptr<char[]> data;
    int64_t bytes = 0;
  };
  static Memory &spare() {
    static thread_local Memory memory;
    return memory;
  }
  Memory memory_;
  char *next_;
};

// Of a block. Several threads get two blocks each where there are tokens enough; each block reads all weights.
int64_t tokens_at_a_time(int64_t length, int64_t share) {
  const int64_t blocks = ceil_div(length, std::clamp(share, fewest_mixer_tokens, mixer_tokens));
  return ceil_div(ceil_div(length, blocks), 2) * 2;
}

// Bytes of whole lines of the cache.
int64_t lines(int64_t bytes) { return ceil_div(bytes, 64) * 64; }

bool valid(const dvmsr_mixer_weights &w) {
  const bool has_in_proj = w.in_proj_x, has_out_proj = w.out_proj;
  return (w.dtype == DVMSR_F32 || w.dtype == DVMSR_F16) && w.channels > 0 && w.inner > 0 && w.state > 0 &&
         w.rank > 0 && w.width > 0 && w.out_channels > 0 && !w.norm_weight == !w.norm_bias &&
         !w.in_proj_x == !w.in_proj_z && (has_in_proj || w.channels == 2 * w.inner) &&
         (has_out_proj || w.out_channels == w.inner);
}

dvmsr_status pack(const dvmsr_mixer_weights &w, dvmsr_mixer **packed) {
  if (!valid(w)) return DVMSR_INVALID_ARGUMENT;
  const Kernels &k = kernels();
  Mixer m{};
  m.dtype = w.dtype;
  m.epsilon = w.epsilon;
  m.channels = w.channels;
  m.inner = w.inner;
  m.state = w.state;
  m.rank = w.rank;
  m.width = w.width;
  m.out_channels = w.out_channels;
  m.has_norm = w.norm_weight;
  m.has_in_proj = w.in_proj_x;
  m.has_out_proj = w.out_proj;
  Pieces memory(1, k.mixer_packed_size(m) * 4);
  k.mixer_pack[w.dtype](w, m, values(memory, 0));
  std::unique_ptr<dvmsr_mixer> made(new dvmsr_mixer{m, std::move(memory)});
  *packed = made.release();
  return DVMSR_OK;
}

dvmsr_status forward(const Mixer &m, const dvmsr_mixer_inputs &in, const dvmsr_mixer_outputs &out,
                     const dvmsr_executor *executor) {
  if (in.batch < 0 || in.length < 0) return DVMSR_INVALID_ARGUMENT;
  const Kernels &k = kernels();
  const int64_t act = act_size(m.dtype), par = sizeof(float);
  const int64_t L = in.length, D = m.inner, N = m.state, tail = (m.width - 1) * D * act;
  if (in.batch == 0) return DVMSR_OK;
  if (L == 0) {
    if (tail) std::memcpy(out.new_tail, in.tail, static_cast<size_t>(in.batch * tail));
    std::memcpy(out.h_last, in.h0, static_cast<size_t>(in.batch * D * N * par));
    return DVMSR_OK;
  }
  const int64_t threads = threads_of(executor);
  const int64_t share = threads == 1 ? mixer_tokens : ceil_div(L * in.batch, 2 * threads);
  const int64_t tokens = tokens_at_a_time(L, share), blocks = ceil_div(L, tokens) * in.batch;
  const int64_t vectors = ceil_div(D, k.lanes);
  // As many scans at once as threads: with fewer, threads wait for those of the last blocks.
  const int64_t per_group = ceil_div(vectors, std::min(vectors, ceil_div(threads, in.batch)));
  const int64_t groups = ceil_div(vectors, per_group);
  const int64_t slots = threads == 1 ? 1 : std::min(blocks, threads + 2);
  const int64_t workers = std::min(threads, blocks * groups);
  const int64_t rows = tokens * m.stride, states = ceil_div(tokens * N, 16) * 16;
  const int64_t chains = in.batch * groups;
  const int64_t of_block = lines((3 * rows + 2 * states) * par), of_worker = lines(k.mixer_scratch(m) * par);
  const int64_t of_scan = lines(static_cast<int64_t>(k.mixer_scan_size));
  const int64_t of_chain = lines(k.mixer_scan_scratch(per_group * k.lanes, N) * par);
  Kept memory(slots * of_block + workers * of_worker + chains * (of_scan + of_chain));
  char *const block_memory = memory.take(slots * of_block), *const scratch = memory.take(workers * of_worker);
  char *const scans = memory.take(chains * of_scan), *const scan_scratch = memory.take(chains * of_chain);
  Schedule schedule(in.batch, blocks, groups, slots);

  const auto run = [&](const Task &task, int64_t worker) {
    const int64_t b = task.block % in.batch, number = task.block / in.batch;
    MixerTile tile{};
    tile.mixer = &m;
    tile.first_token = number * tokens;
    tile.end_token = std::min(L, tile.first_token + tokens);
    float *const block = reinterpret_cast<float *>(block_memory + task.block % slots * of_block);
    tile.block = {block, block + rows, block + 2 * rows, block + 3 * rows, block + 3 * rows + states};
    if (task.step == Step::scan) {
      const int64_t chain = b * groups + task.group;
      void *const scan = scans + chain * of_scan;
      const int64_t first = task.group * per_group * k.lanes, states_before = b * D * N * par;
      if (number == 0)
        k.mixer_scan_begin(scan, m, first, std::min(D, first + per_group * k.lanes),
                           reinterpret_cast<const float *>(at(in.h0, states_before, 1)),
                           reinterpret_cast<float *>(at(out.h_last, states_before, 1)),
                           scan_scratch + chain * of_chain);
      k.mixer_scan_run(scan, tile.block, tile.end_token - tile.first_token);
      if (tile.end_token == L) k.mixer_scan_end(scan);
      return;
    }
    tile.x = at(in.x, b * L * m.channels, act);
    tile.tail = at(in.tail, b * tail, 1);
    tile.y = at(out.y, b * L * m.out_channels, act);
    tile.new_tail = tile.end_token == L ? at(out.new_tail, b * tail, 1) : nullptr;
    tile.scratch = reinterpret_cast<float *>(scratch + worker * of_worker);
    (task.step == Step::before ? k.mixer_before : k.mixer_after)[m.dtype](tile);
  };

  parallel_for(executor, static_cast<size_t>(workers), [&](size_t worker) {
    Task task{Step::wait, 0, 0};
    for (int turns = 0;; turns = task.step == Step::wait ? turns + 1 : 0) {
      task = schedule.next(task);
      if (task.step == Step::end) return;
      if (task.step != Step::wait)
        run(task, static_cast<int64_t>(worker));
      else if (turns > 100)
        std::this_thread::yield();
    }
  });
  return DVMSR_OK;
}

}  // namespace
}  // namespace dvmsr

dvmsr_status dvmsr_mixer_pack(const dvmsr_mixer_weights *weights, dvmsr_mixer **mixer) {
  return dvmsr::guarded([&] { return dvmsr::pack(*weights, mixer); });
}

void dvmsr_mixer_free(dvmsr_mixer *mixer) { delete mixer; }

dvmsr_status dvmsr_mamba_mixer_forward(const dvmsr_mixer *mixer, const dvmsr_mixer_inputs *in,
                                       const dvmsr_mixer_outputs *out, const dvmsr_executor *executor) {
  return dvmsr::guarded([&] { return dvmsr::forward(mixer->mixer, *in, *out, executor); });
}
