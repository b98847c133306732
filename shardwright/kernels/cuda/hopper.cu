// Scans on Hopper: the copy engine fills a ring of shared memory, warpgroups multiply from it.
//
// Two blocks form a cluster: 256 rows of x, 128 each, against the same columns of y, of which
// each block fetches one half for both (multicast). In a block, warpgroup 0 gives its registers
// away and one of its threads runs the copies; warpgroups 1 and 2 hold 64 rows each. Grids are
// persistent: clusters take items (256 rows and their columns) one after the other, and the ring
// runs on across tiles and items, so copies go on while scores are looked at. The second
// warpgroup starts some slices late, so that one multiplies while the other looks at its tile.
#include "scan.cuh"
#include "wgmma.cuh"

constexpr int ROWS = 128;     // of x in a block
constexpr int SLICE = 64;     // numbers of a row in a stage: 128 bytes, the width of the swizzle
constexpr int BLOCKS = 2;     // in a cluster
constexpr int CONSUMERS = 2;  // warpgroups that multiply
constexpr int THREADS = 128 * (1 + CONSUMERS);

template <int WIDTH>
struct Ring {
  static constexpr int STAGES = WIDTH == 256 ? 4 : 6;
  unsigned short x[STAGES][ROWS][SLICE];
  unsigned short y[STAGES][WIDTH][SLICE];
  float threshold[ROWS];
  int count[ROWS];
  Barrier full[STAGES];
  Barrier empty[STAGES];
};

// Where in the ring a thread is; `parity` flips each time round.
template <int STAGES>
struct Turn {
  int stage = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == STAGES) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// What wgmma needs to know of a tile of 128-byte rows, swizzled: its address and the distance of
// 8 rows, in 16 bytes each; bits 62-63 = 1: 128-byte swizzle ("Shared memory matrix layout").
__device__ __forceinline__ unsigned long long descriptor(const void* tile) {
  unsigned long long address = shared_address(tile);
  return (address & 0x3ffff) >> 4 | 1ull << 16 | (1024ull >> 4) << 32 | 1ull << 62;
}

template <int WIDTH>
__device__ __forceinline__ void produce(Ring<WIDTH>& ring, const TensorMap& x, const TensorMap& y,
                                        const Scan& p, unsigned rank) {
  constexpr int HALF = WIDTH / BLOCKS;
  Turn<Ring<WIDTH>::STAGES> turn;
  int slices = (p.depth * 8 + SLICE - 1) / SLICE;
  for (int i = blockIdx.x / BLOCKS; i < p.items; i += gridDim.x / BLOCKS) {
    int first = (p.order ? p.order[i] : i) * ROWS * BLOCKS;
    Span span = span_of(p, first, first + ROWS * BLOCKS - 1, WIDTH);
    for (int tile = 0; tile < span.tiles; ++tile) {
      int column = span.begin + tile * WIDTH + rank * HALF;
#pragma unroll 1
      for (int slice = 0; slice < slices; ++slice, turn.next()) {
        Barrier* full = &ring.full[turn.stage];
        barrier_wait(&ring.empty[turn.stage], turn.parity ^ 1);  // the first time round: at once
        barrier_expect(full, (ROWS + WIDTH) * SLICE * 2);
        copy_box(ring.x[turn.stage], &x, full, slice * SLICE, first + rank * ROWS);
        copy_box(ring.y[turn.stage][rank * HALF], &y, full, slice * SLICE, column,
                 (1 << BLOCKS) - 1);
      }
    }
  }
}

template <int WIDTH, Keep KEEP, bool BIAS>
__device__ __forceinline__ void consume(Ring<WIDTH>& ring, const Scan& p, unsigned rank,
                                        int group) {
  constexpr int LATE = 1;  // numbered barrier at which the second warpgroup waits once
  int lane = threadIdx.x % 32;
  int local = group * 64 + threadIdx.x / 32 % 4 * 16;  // the warp's first row in the block
  WarpRows<KEEP, BIAS, 1, WIDTH / 8> rows(p, ring.threshold + local, ring.count + local, lane);
  Turn<Ring<WIDTH>::STAGES> turn;
  int slices = (p.depth * 8 + SLICE - 1) / SLICE;
  int lead = slices < 2 ? slices : 2;
  bool started = false;
  float acc[WIDTH / 2];
  for (int i = blockIdx.x / BLOCKS; i < p.items; i += gridDim.x / BLOCKS) {
    int first = (p.order ? p.order[i] : i) * ROWS * BLOCKS;
    Span span = span_of(p, first, first + ROWS * BLOCKS - 1, WIDTH);
    rows.begin(first + rank * ROWS + local);
    for (int tile = 0; tile < span.tiles; ++tile) {
      if (!started && group == 1) named_sync(LATE, 256);
      int last = 0;
#pragma unroll 1
      for (int slice = 0; slice < slices; ++slice, turn.next()) {
        barrier_wait(&ring.full[turn.stage], turn.parity);
        unsigned long long a = descriptor(ring.x[turn.stage][group * 64]);
        unsigned long long b = descriptor(ring.y[turn.stage]);
        products_begin();
#pragma unroll
        for (int k = 0; k < SLICE / 16; ++k)  // 16 numbers on: 32 bytes, 2 units of 16
          wgmma(acc, a + 2 * k, b + 2 * k, slice + k > 0);
        products_commit();
        products_wait<1>();  // all but this slice: the stage before it is free
        if (slice > 0 && lane < BLOCKS) barrier_arrive(&ring.empty[last], lane);
        last = turn.stage;
        if (!started && group == 0 && slice + 1 == lead) named_arrive(LATE, 256);
      }
      started = true;
      products_wait<0>();
#pragma unroll
      for (int i = 0; i < WIDTH / 2; ++i) settle(acc[i]);
      if (lane < BLOCKS) barrier_arrive(&ring.empty[last], lane);
      rows.visit(acc, span.begin + tile * WIDTH);
    }
    rows.end();
  }
}

template <int WIDTH, Keep KEEP, bool BIAS>
__device__ __forceinline__ void scan(const TensorMap& x, const TensorMap& y, const Scan& p) {
  Ring<WIDTH>& ring = *reinterpret_cast<Ring<WIDTH>*>(shared_memory());
  unsigned rank = cluster_rank();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Ring<WIDTH>::STAGES; ++stage) {
      barrier_init(&ring.full[stage], 1);
      barrier_init(&ring.empty[stage], BLOCKS * CONSUMERS * 4);  // every warp of the cluster
    }
    barrier_init_fence();
  }
  cluster_sync();
  int group = threadIdx.x / 128;
  if (group == 0) {
    registers_lower<24>();
    if (threadIdx.x == 0) produce(ring, x, y, p, rank);
    __syncwarp();
  } else {
    registers_raise<240>();
    consume<WIDTH, KEEP, BIAS>(ring, p, rank, group - 1);
  }
  cluster_sync();  // no block leaves while the other can still write to its memory
}

#define SCAN(NAME, WIDTH, KEEP, BIAS)                                                             \
  extern "C" __global__ void __cluster_dims__(BLOCKS, 1, 1) __launch_bounds__(THREADS, 1)        \
      NAME(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap y,             \
           const __grid_constant__ Scan p) {                                                     \
    scan<WIDTH, Keep::KEEP, BIAS>(x, y, p);                                                      \
  }

SCAN(scan_best_128, 128, best, false)
SCAN(scan_best_256, 256, best, false)
SCAN(scan_best_128_bias, 128, best, true)
SCAN(scan_best_256_bias, 256, best, true)
SCAN(scan_several_128, 128, several, false)
SCAN(scan_several_256, 256, several, false)
SCAN(scan_several_128_bias, 128, several, true)
SCAN(scan_several_256_bias, 256, several, true)
SCAN(scan_all_128, 128, all, false)
SCAN(scan_all_256, 256, all, false)
SCAN(scan_all_128_bias, 128, all, true)
SCAN(scan_all_256_bias, 256, all, true)
