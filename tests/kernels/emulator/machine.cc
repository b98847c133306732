// Fibers, their scheduler, and where the threads of a warp meet.
#include "machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

// Saves the registers a callee must keep, leaves the stack pointer in *from, goes on on `to`.
extern "C" void switch_stack(void** from, void* to);
#if defined(__x86_64__)
asm(".text\n.globl switch_stack\n.hidden switch_stack\n.type switch_stack, @function\n"
    "switch_stack:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\n"
    "ret\n");
constexpr int RETURN = 6, FRAME = 8;  // words: where it returns to; what it pops, and one
#elif defined(__aarch64__)
asm(".text\n.globl switch_stack\n.hidden switch_stack\n.type switch_stack, %function\n"
    "switch_stack:\n"
    "sub sp, sp, #160\n"
    "stp x19, x20, [sp]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\n"
    "stp x25, x26, [sp, #48]\nstp x27, x28, [sp, #64]\nstp x29, x30, [sp, #80]\n"
    "stp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\n"
    "stp d12, d13, [sp, #128]\nstp d14, d15, [sp, #144]\n"
    "mov x9, sp\nstr x9, [x0]\nmov sp, x1\n"
    "ldp x19, x20, [sp]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\n"
    "ldp x25, x26, [sp, #48]\nldp x27, x28, [sp, #64]\nldp x29, x30, [sp, #80]\n"
    "ldp d8, d9, [sp, #96]\nldp d10, d11, [sp, #112]\n"
    "ldp d12, d13, [sp, #128]\nldp d14, d15, [sp, #144]\n"
    "add sp, sp, #160\nret\n");
constexpr int RETURN = 11, FRAME = 20;
#else
#error "the emulator knows x86-64 and aarch64"
#endif

namespace machine {

Thread* self;
Cluster cluster;
Launch launch;
Index grid;

namespace {

constexpr size_t STACK = 64 << 10;
constexpr uint64_t CANARY = 0x5ca1ab1e0ddba11u;
constexpr int MOST_MEMORY = 227 << 10;  // of a block, on Hopper
constexpr size_t SHARED = 1 << 20;  // address space of a block
constexpr size_t BEHIND = 4096;     // watched bytes behind the memory that was asked for

char message[4096];
jmp_buf failed;
void* scheduler;
uint64_t random_state;
int choices;
void (*body)();

unsigned char* map_memory(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) abort();
  return static_cast<unsigned char*>(memory);
}

// One address range, of which the system gives pages when they are touched.
struct Arena {
  static constexpr size_t ROOM = size_t(1) << 30;
  unsigned char* memory = nullptr;
  size_t used = 0;

  void* take(size_t bytes, size_t alignment) {
    if (!memory) memory = map_memory(ROOM);
    used += -(uintptr_t(memory) + used) & (alignment - 1);
    void* taken = memory + used;
    if ((used += bytes) > ROOM) abort();
    return taken;
  }
  void clear() {
    if (memory) munmap(memory, ROOM);
    memory = nullptr;
    used = 0;
  }
} arena;

void start() {
  body();
  Warp& warp = *self->warp;
  if (warp.arrived) fail("a lane of warp %d exits, others wait for it", warp.rank);
  self->over = true;
  --warp.block->running;
  switch_stack(&self->stack, scheduler);
  abort();
}

void prepare(Thread& thread) {
  thread.stack_end = static_cast<uint64_t*>(arena.take(STACK, STACK));
  *thread.stack_end = CANARY;
  void** top = reinterpret_cast<void**>(thread.stack_end) + STACK / sizeof(void*) - 2 - FRAME;
  top[RETURN] = reinterpret_cast<void*>(start);
  thread.stack = top;
}

// Who goes on: the best of a few. Some seeds let warps run far ahead of each other.
Thread* choose() {
  Queue& runnable = cluster.runnable;
  int best = draw(runnable.size);
  for (int tries = choices; tries > 1; --tries) {
    int other = draw(runnable.size);
    if (runnable.items[other]->warp->priority > runnable.items[best]->warp->priority) best = other;
  }
  Thread* thread = runnable.take(best);
  if (draw(512) == 0) thread->warp->priority = draw(1 << 20);
  return thread;
}

void report_deadlock() {
  int used = snprintf(message, sizeof message, "deadlock:");
  for (Block* block : cluster.blocks) {
    for (int i = 0; i < launch.threads && used < int(sizeof message) - 200;) {
      Thread& thread = block->threads[i];
      int alike = 0;
      for (; i < launch.threads; ++i, ++alike) {
        Thread& next = block->threads[i];
        if (next.over != thread.over || next.waits_for != thread.waits_for ||
            next.place.line != thread.place.line || next.warp != thread.warp)
          break;
      }
      if (!thread.over)
        used += snprintf(message + used, sizeof message - used,
                         "\n  block %d warp %d: %d lanes wait for %s at %s:%d", block->rank,
                         thread.warp->rank, alike, thread.waits_for, name_of(thread.place),
                         thread.place.line);
    }
  }
  longjmp(failed, 1);
}

void run_cluster() {
  static const int EARLY[] = {0, 256, 16, 2};  // one in so many: a copy lands before it must
  int early = EARLY[draw(4)];
  choices = 1 << draw(5);
  unsigned long long steps = 0;
  while (true) {
    if (cluster.boxes.size && (!cluster.runnable.size || (early && draw(early) == 0)))
      land_box(draw(cluster.boxes.size));
    if (!cluster.runnable.size) {
      if (cluster.boxes.size) continue;
      break;
    }
    if (++steps > launch.most_steps) fail("no end after %llu steps", steps);
    self = choose();
    switch_stack(&scheduler, self->stack);
    self = nullptr;
  }
  for (Block* block : cluster.blocks) {
    if (block->running) report_deadlock();
    check_quiet(*block);
    for (int i = 0; i < launch.threads; ++i)
      if (*block->threads[i].stack_end != CANARY) fail("the stack of thread %d is too small", i);
    for (size_t i = 0; i < BEHIND; ++i)
      if (block->memory[FIRST_ADDRESS + launch.memory + i] != 0xff)
        fail("block %d has written %zu bytes behind its shared memory", block->rank, i);
  }
}

Block* make_block(int id, int rank) {
  Block& block = *static_cast<Block*>(allocate(sizeof(Block)));
  block.rank = rank;
  block.running = launch.threads;
  block.warps = static_cast<Warp*>(allocate(sizeof(Warp) * launch.threads / 32));
  block.threads = static_cast<Thread*>(allocate(sizeof(Thread) * launch.threads));
  // From a multiple of 1 MiB on, so that the low bits of a pointer are those of the card's address.
  block.memory = static_cast<unsigned char*>(arena.take(SHARED, SHARED));
  memset(block.memory, 0xff, FIRST_ADDRESS + launch.memory + BEHIND);  // NaN, and no barrier
  int registers = 65536 / launch.threads / 8 * 8;
  for (int i = 0; i < launch.threads; ++i) {
    Thread& thread = block.threads[i];
    Warp& warp = block.warps[i / 32];
    warp.block = &block;
    warp.rank = i / 32;
    warp.priority = draw(1 << 20);
    warp.registers = registers;
    thread.warp = &warp;
    thread.lane = i % 32;
    thread.index = {unsigned(i), 0, 0};
    thread.block_index = {unsigned(id), 0, 0};
    prepare(thread);
    cluster.runnable.push(&thread);
  }
  return &block;
}

// Runs the cluster of block `first`. Returns null, or what went wrong.
const char* try_cluster(int first) {
  cluster = Cluster();
  if (setjmp(failed)) return message;
  for (int rank = 0; rank < launch.cluster; ++rank)
    cluster.blocks.push(make_block(first + rank, rank));
  run_cluster();
  return nullptr;
}

}  // namespace

void* allocate(size_t bytes) { return arena.take(bytes, 64); }

bool is_own(const void* pointer) {
  uintptr_t at = uintptr_t(pointer), from = uintptr_t(arena.memory);
  return at >= from && at < from + arena.used;
}

const char* name_of(Place place) {
  const char* slash = strrchr(place.file, '/');
  return slash ? slash + 1 : place.file;
}

void fail(const char* format, ...) {
  int used = 0;
  if (self)
    used = snprintf(message, sizeof message, "block %d warp %d lane %d: ", self->warp->block->rank,
                    self->warp->rank, self->lane);
  va_list values;
  va_start(values, format);
  vsnprintf(message + used, sizeof message - used, format, values);
  va_end(values);
  longjmp(failed, 1);
}

uint32_t draw(uint32_t below) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return uint32_t((random_state >> 32) * below >> 32);
}

void sleep(Queue& queue, const char* what, Place place) {
  self->waits_for = what;
  self->place = place;
  queue.push(self);
  switch_stack(&self->stack, scheduler);
}

void wake(Queue& queue) {
  for (Thread* thread : queue) cluster.runnable.push(thread);
  queue.size = 0;
}

void give_way() {
  cluster.runnable.push(self);
  switch_stack(&self->stack, scheduler);
}

// Brings a value to a meeting of all lanes of the warp. The last lane does not wait: it returns
// true, does the warp's work with what all brought, and calls met(), which lets the others go on.
bool meet(const char* kind, uint64_t value, Place place) {
  Warp& warp = *self->warp;
  if (warp.arrived == 0) {
    warp.kind = kind;
    warp.place = place;
  } else if (strcmp(warp.kind, kind) || warp.place.line != place.line ||
             strcmp(warp.place.file, place.file)) {
    fail("%s at %s:%d, but other lanes of the warp are in %s at %s:%d", kind,
         name_of(place), place.line, warp.kind, name_of(warp.place), warp.place.line);
  }
  warp.brought[self->lane] = value;
  if (++warp.arrived == 32) return true;
  sleep(warp.lanes, kind, place);
  return false;
}

void met() {
  Warp& warp = *self->warp;
  warp.arrived = 0;
  wake(warp.lanes);
}

// Runs a kernel: `call` is what each thread runs. Returns null, or what went wrong.
extern "C" const char* machine_run(void (*call)(), const Launch* wanted) {
  launch = *wanted;
  body = call;
  grid = {unsigned(launch.blocks), 1, 1};
  if (launch.blocks % launch.cluster || launch.threads % 32) return "half a cluster or warp";
  if (launch.memory > MOST_MEMORY) return "too much shared memory";
  random_state = (launch.seed + 1) * 0x9e3779b97f4a7c15u;
  for (int i = 0; i < 64; ++i) draw(2);
  const char* problem = nullptr;
  for (int first = 0; first < launch.blocks && !problem; first += launch.cluster) {
    problem = try_cluster(first);
    self = nullptr;
    arena.clear();
    forget_accesses();
  }
  return problem;
}

}  // namespace machine
