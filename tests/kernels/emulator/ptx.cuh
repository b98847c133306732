// The host's twin of shardwright/kernels/cuda/ptx.cuh: the same names, played by barriers.cc,
// copies.cc and products.cc. Each function says where in a kernel it is called.
#pragma once

#include "machine.h"

typedef unsigned long long Barrier;
struct alignas(64) TensorMap {
  unsigned long long words[16];
};

inline unsigned char* shared_memory() {
  uintptr_t address = uintptr_t(machine::self->warp->block->memory + machine::FIRST_ADDRESS);
  return reinterpret_cast<unsigned char*>((address + 1023) & ~uintptr_t(1023));
}

inline unsigned shared_address(const void* pointer) { return uintptr_t(pointer) & 0xfffff; }

unsigned cluster_rank();
void cluster_sync(HERE);
void barrier_init(Barrier* barrier, unsigned arrivals, HERE);
void barrier_init_fence(HERE);
void barrier_expect(Barrier* barrier, unsigned bytes, HERE);
void barrier_arrive(Barrier* barrier, unsigned rank, HERE);
void barrier_wait(Barrier* barrier, unsigned parity, HERE);
void copy_box(void* to, const TensorMap* map, Barrier* barrier, int column, int row,
              unsigned short blocks, HERE);
inline void copy_box(void* to, const TensorMap* map, Barrier* barrier, int column, int row, HERE) {
  copy_box(to, map, barrier, column, row, 1 << cluster_rank(), here);
}

void wgmma_issue(float* acc, int width, unsigned long long a, unsigned long long b, int add,
                 machine::Place here);
void products_begin(HERE);
void products_commit(HERE);
void products_wait_for(int in_flight, machine::Place here);
template <int IN_FLIGHT>
void products_wait(HERE) {
  products_wait_for(IN_FLIGHT, here);
}
inline void settle(float&) {}

void registers_change(int to, bool raise, machine::Place here);
template <int REGISTERS>
void registers_raise(HERE) {
  registers_change(REGISTERS, true, here);
}
template <int REGISTERS>
void registers_lower(HERE) {
  registers_change(REGISTERS, false, here);
}

void named_sync(int barrier, int threads, HERE);
void named_arrive(int barrier, int threads, HERE);

void copy_async(void* to, const void* from, bool inside, HERE);
void copies_commit();
void copies_wait_for(int in_flight);
template <int IN_FLIGHT>
void copies_wait() {
  copies_wait_for(IN_FLIGHT);
}
void load_matrices(unsigned (&to)[4], const void* row, HERE);
void multiply_add(float* acc, const unsigned (&a)[4], unsigned b0, unsigned b1, HERE);

inline unsigned short half_from(float value) { return machine::half_of_float(value); }
inline float float_from_half(unsigned short bits) { return machine::float_of_half(bits); }
