// Where threads meet: votes and shuffles, barriers, register budgets.
#include "prelude.cuh"
#include "ptx.cuh"

using namespace machine;

namespace machine {

int64_t inside(const Block& block, const void* pointer, size_t bytes, const char* what,
               Place here) {
  int64_t at = static_cast<const unsigned char*>(pointer) - block.memory;
  if (at < FIRST_ADDRESS || at + int64_t(bytes) > FIRST_ADDRESS + launch.memory)
    fail("%s at %s:%d: address %lld is not in the block's shared memory", what, name_of(here),
         here.line, static_cast<long long>(at));
  return at;
}

void* in_block(Block& block, void* pointer) {
  return block.memory + (static_cast<unsigned char*>(pointer) - self->warp->block->memory);
}

// A meeting that orders what the lanes do to memory.
void meet_all(const char* kind, Place here) {
  if (!meet(kind, 0, here)) return;
  ++self->warp->meetings;
  met();
}

Phases& phases_of(Block& block, void* barrier, const char* what, Place here) {
  inside(block, barrier, sizeof(uint64_t), what, here);
  uint64_t word = *static_cast<uint64_t*>(barrier);
  if (word >> 48 != BARRIER_MARK >> 48 || int(word & 0xffff) >= block.phases.size)
    fail("%s at %s:%d: no barrier there", what, name_of(here), here.line);
  return block.phases.items[word & 0xffff];
}

void settle_phase(Phases& phases) {
  if (phases.pending || phases.bytes) return;
  ++phases.phase;
  phases.pending = phases.count;
  wake(phases.queue);
}

// What must hold when a block has ended.
void check_quiet(Block& block) {
  for (Numbered& barrier : block.numbered)
    if (barrier.arrived) fail("a numbered barrier is left with %d arrivals", barrier.arrived);
  for (Phases& phases : block.phases)
    if (phases.bytes) fail("a barrier is left waiting for %lld bytes", (long long)phases.bytes);
  for (int i = 0; i < launch.threads; ++i)
    if (block.threads[i].chunks.size) fail("a thread ends before its copies have landed");
  for (int i = 0; i < launch.threads / 32; ++i) {
    if (block.warps[i].products.size) fail("a warp ends before its products are done");
    if (block.warps[i].history != block.warps[i / 4 * 4].history)
      fail("the warps of a warpgroup have not multiplied the same");
  }
}

}  // namespace machine

namespace {

Block& here_block() { return *self->warp->block; }

void arrive(Phases& phases, Place here) {
  if (phases.pending == 0)
    fail("%s:%d: more arrivals than the barrier counts", name_of(here), here.line);
  --phases.pending;
  settle_phase(phases);
}

}  // namespace

// ---- warps and blocks ----

// Atomic additions let others go first at random: they are where threads race.
template <class T>
static T add_atomically(T* to, T value) {
  if (draw(4) == 0) give_way();
  touch_atomically(to, sizeof(T));
  T before = *to;
  *to = before + value;
  return before;
}

int atomicAdd(int* to, int value) { return add_atomically(to, value); }

unsigned long long atomicAdd(unsigned long long* to, unsigned long long value) {
  return add_atomically(to, value);
}

uint64_t exchange(const char* kind, unsigned mask, uint64_t value, int lane, Place here) {
  if (mask != ~0u) fail("%s:%d: not all lanes are in the mask", name_of(here), here.line);
  Warp& warp = *self->warp;
  if (meet(kind, value, here)) {
    memcpy(warp.left, warp.brought, sizeof warp.left);
    met();
  }
  return warp.left[lane];
}

void __syncwarp(unsigned mask, Place here) {
  if (mask != ~0u) fail("%s:%d: not all lanes are in the mask", name_of(here), here.line);
  meet_all("__syncwarp", here);
}

unsigned __ballot_sync(unsigned mask, int vote, Place here) {
  exchange("a vote", mask, vote != 0, 0, here);
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane) votes |= unsigned(self->warp->left[lane]) << lane;
  return votes;
}

int __reduce_add_sync(unsigned mask, int value, Place here) {
  exchange("__reduce_add_sync", mask, unsigned(value), 0, here);
  unsigned sum = 0;
  for (int lane = 0; lane < 32; ++lane) sum += unsigned(self->warp->left[lane]);
  return int(sum);
}

static void count_in(int number, int threads, bool wait, const char* what, Place here) {
  meet_all(what, here);
  if (number < 0 || number > 15 || threads % 32 || threads > launch.threads)
    fail("%s:%d: no such barrier", name_of(here), here.line);
  Block& block = here_block();
  Numbered& barrier = block.numbered[number];
  if (barrier.arrived == 0) barrier.expected = threads;
  if (barrier.expected != threads)
    fail("%s:%d: barrier %d is used for different counts", name_of(here), here.line, number);
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    if (threads == launch.threads) ++block.epoch;
    wake(barrier.queue);
  } else if (wait) {
    sleep(barrier.queue, what, here);
  }
}

void __syncthreads(Place here) { count_in(0, launch.threads, true, "__syncthreads", here); }

void named_sync(int barrier, int threads, Place here) {
  count_in(barrier, threads, true, "named_sync", here);
}

void named_arrive(int barrier, int threads, Place here) {
  count_in(barrier, threads, false, "named_arrive", here);
}

unsigned cluster_rank() { return here_block().rank; }

void cluster_sync(Place here) {
  meet_all("cluster_sync", here);
  if (++cluster.arrived == launch.cluster * launch.threads) {
    cluster.arrived = 0;
    for (Block* block : cluster.blocks) ++block->epoch;
    wake(cluster.meeting);
  } else {
    sleep(cluster.meeting, "cluster_sync", here);
  }
}

// ---- mbarriers ----

void barrier_init(Barrier* barrier, unsigned arrivals, Place here) {
  Block& block = here_block();
  inside(block, barrier, sizeof(Barrier), "barrier_init", here);
  if (uintptr_t(barrier) % 8) fail("%s:%d: a barrier is not aligned", name_of(here), here.line);
  *barrier = BARRIER_MARK | uint64_t(block.phases.size);
  Phases phases = {};
  phases.count = phases.pending = arrivals;
  block.phases.push(phases);
}

void barrier_init_fence(Place) {
  for (Phases& phases : here_block().phases) phases.fenced = true;
}

void barrier_expect(Barrier* barrier, unsigned bytes, Place here) {
  Phases& phases = phases_of(here_block(), barrier, "barrier_expect", here);
  phases.bytes += bytes;
  if (phases.bytes > MOST_BYTES)
    fail("%s:%d: a barrier expects too many bytes", name_of(here), here.line);
  arrive(phases, here);
}

void barrier_arrive(Barrier* barrier, unsigned rank, Place here) {
  if (int(rank) >= launch.cluster) fail("%s:%d: no block %u", name_of(here), here.line, rank);
  Block& block = *cluster.blocks.items[rank];
  if (block.running == 0)
    fail("%s:%d: arrives in a block that has ended", name_of(here), here.line);
  Phases& phases =
      phases_of(block, in_block(block, barrier), "barrier_arrive", here);
  if (&block != &here_block() && !phases.fenced)
    fail("%s:%d: the barrier's initialisation is not fenced", name_of(here), here.line);
  arrive(phases, here);
  if (draw(4) == 0) give_way();
}

void barrier_wait(Barrier* barrier, unsigned parity, Place here) {
  if (parity > 1) fail("%s:%d: parity %u", name_of(here), here.line, parity);
  while (true) {
    Phases& phases = phases_of(here_block(), barrier, "barrier_wait", here);
    if ((phases.phase & 1) != parity) return;
    sleep(phases.queue, "barrier_wait", here);
  }
}

// ---- registers ----

void registers_change(int to, bool raise, Place here) {
  if (to % 8 || to < 24 || to > 256)
    fail("%s:%d: %d registers cannot be had", name_of(here), here.line, to);
  if (!meet("setmaxnreg", to, here)) return;
  Warp& warp = *self->warp;
  Block& block = *warp.block;
  int more = (to - warp.registers) * 32;
  if (raise ? more < 0 : more > 0)
    fail("%s:%d: a change from %d to %d registers", name_of(here), here.line, warp.registers, to);
  while (more > block.registers) sleep(block.for_registers, "registers", here);
  block.registers -= more;
  warp.registers = to;
  if (more < 0) wake(block.for_registers);
  met();
}
