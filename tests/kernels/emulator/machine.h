// A CUDA card on a host: what kernels, and the parts of the emulator, see of it.
//
// A CUDA thread is a fiber with a stack of its own. The threads of one cluster share one scheduler,
// which goes on with a randomly chosen thread whenever one waits, so that a seed names a schedule.
// A thread waits in a queue until somebody wakes it. What cannot go on is reported with the places
// where threads wait, and so is every use of the machine that its documents forbid.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace machine {

// A line of a kernel. As a default argument it is the caller's.
struct Place {
  const char* file;
  int line;
  static constexpr Place current(const char* file = __builtin_FILE(),
                                 int line = __builtin_LINE()) {
    return {file, line};
  }
};
#define HERE machine::Place here = machine::Place::current()

void* allocate(size_t bytes);  // zeros, until the cluster is done

template <class T>
struct List {  // of plain values
  T* items = nullptr;
  int size = 0, room = 0;
  void push(const T& item) {
    if (size == room) {
      T* more = static_cast<T*>(allocate(sizeof(T) * (room = 2 * room + 8)));
      if (size) memcpy(static_cast<void*>(more), items, sizeof(T) * size);
      items = more;
    }
    items[size++] = item;
  }
  T take(int i) {  // the last item moves to its place
    T item = items[i];
    items[i] = items[--size];
    return item;
  }
  void drop_first(int count) {
    size -= count;
    memmove(items, items + count, sizeof(T) * size);
  }
  T* begin() { return items; }
  T* end() { return items + size; }
};

struct Index {
  unsigned x, y, z;
};

struct Thread;
using Queue = List<Thread*>;

// 16 bytes on their way to shared memory (cp.async).
struct Chunk {
  unsigned char* to;
  const void* from;  // null: zeros
  int group;
};

// One 16-deep product of a warp on its way (wgmma): 16 rows of a with all of b.
struct Product {
  uint64_t a, b;
  int width, group;
  bool add;
};

struct Warp {
  struct Block* block;
  int rank;  // in the block
  // Collectives: what the lanes that have arrived brought, and what the last meeting left.
  const char* kind;
  Place place;
  int arrived;
  uint64_t brought[32], left[32];
  unsigned words[32][4];
  Queue lanes;
  unsigned meetings;  // for the race check: accesses in the same one are not ordered
  int priority;
  // Products, oldest first. While one is under way the accumulators live here, not in the lanes.
  List<Product> products;
  float* accumulators[32];
  float (*sums)[256];  // [16, 256]
  int width, groups;
  int registers;  // of a thread
  bool fenced;
  uint64_t history;  // what was multiplied: the same in the four warps of a warpgroup
};

struct Thread {
  void* stack;  // its pointer while it waits
  uint64_t* stack_end;
  Warp* warp;
  int lane;
  bool over;
  Index index, block_index;
  const char* waits_for;
  Place place;
  List<Chunk> chunks;
  int groups;
};

struct Numbered {  // a barrier of __syncthreads, bar.sync and bar.arrive
  int arrived, expected;
  Queue queue;
};

struct Phases {  // an mbarrier
  unsigned char* at;
  unsigned count, pending, phase;
  int64_t bytes;
  bool fenced;
  Queue queue;
};

struct Block {
  int rank;  // in the cluster
  unsigned char* memory;
  int running, registers;  // threads not over; registers that no warp holds
  int epoch;               // how often all its threads have met
  Warp* warps;
  Thread* threads;
  Numbered numbered[16];
  List<Phases> phases;
  Queue for_registers;
};

// A matrix of 16-bit numbers as the copy engine knows it: what a TensorMap holds here.
struct Matrix {
  const unsigned short* numbers;
  int64_t rows, columns;
  int box_rows;
};

struct Box {
  Block* block;
  unsigned char* to;
  void* barrier;
  Matrix matrix;
  int column, row;
};

struct Range {
  uint64_t from, to;
};

struct Launch {
  int blocks, threads, cluster, memory;
  uint64_t seed, most_steps;
  const Range* range;  // the global memory that the kernel was given
  int ranges;
};

struct Cluster {
  List<Block*> blocks;
  Queue runnable, meeting;
  List<Box> boxes;
  int arrived;
};

constexpr uint64_t BARRIER_MARK = 0xba44ull << 48;  // what an mbarrier's bytes look like
constexpr int64_t MOST_BYTES = (1 << 20) - 1;         // that an mbarrier can expect
constexpr int FIRST_ADDRESS = 1024 + 16;  // of dynamic shared memory: no multiple of 1024

extern Thread* self;
extern Cluster cluster;
extern Launch launch;
extern Index grid;

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
uint32_t draw(uint32_t below);
void sleep(Queue& queue, const char* what, Place place);
void wake(Queue& queue);
void give_way();
bool meet(const char* kind, uint64_t value, Place place);
void met();

const char* name_of(Place place);
bool is_own(const void* pointer);  // the emulator's memory: stacks
void forget_accesses();
void check_alignment(const void* pointer, size_t bytes);
void touch_atomically(const void* pointer, size_t bytes);
// Where in a block's shared memory `bytes` from a pointer on lie; an error if they do not.
int64_t inside(const Block& block, const void* pointer, size_t bytes, const char* what, Place here);
void* in_block(Block& block, void* pointer);  // the same place in another block of the cluster
void meet_all(const char* kind, Place here);
Phases& phases_of(Block& block, void* barrier, const char* what, Place here);
void settle_phase(Phases& phases);
bool overlap(const void* a, int64_t a_bytes, const void* b, int64_t b_bytes);
void operand_bytes(Block& block, uint64_t descriptor, int rows, unsigned char** at, int64_t* bytes);
void land_box(int i);
void check_quiet(Block& block);
float float_of_half(unsigned short bits);
unsigned short half_of_float(float value);

}  // namespace machine
