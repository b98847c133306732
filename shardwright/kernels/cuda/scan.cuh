// What every scan does with a tile of scores: find the few that can matter, and drop the rest.
//
// A scan multiplies rows of x with all rows of y (its columns) tile by tile. Scores live in the
// accumulators of the matrix product and never leave registers. Each row has a threshold below
// which no score can belong to its answer; a tile is first reduced to one maximum per row and
// thread, and only a warp that sees a maximum at or above its threshold looks at single scores
// (the rare path). Thresholds only rise. What the policy is, says Keep:
//
//   best     the threshold is (best so far) - slack: candidates for the nearest column
//   several  the threshold is (k-th best so far) - slack: candidates for the k nearest
//   all      the threshold is given and fixed: pairs above it
//
// slack is twice the bound of a score's error, so a candidate list holds the exact answer, or the
// row is marked as overflowed (count -1) and its threshold tells where to look again.
#pragma once

#include "ptx.cuh"

enum class Keep { best, several, all };

struct Entry {
  float score;
  int column;
};

struct Pair {
  int row;
  int column;
};

struct Scan {
  const float* scale;  // [rows], or null: score = product * scale[row] + bias[column]
  const float* bias;   // [columns + 256], with scale
  const float* slack;  // [rows]
  const float* floor;  // [rows] thresholds to begin with
  const int* lo;       // [rows] a row sees columns lo..hi-1, both non-decreasing, or null: all
  const int* hi;
  const int* order;            // [items] in which items are taken, or null: as they come
  Entry* list;                 // [rows, capacity] candidates (best, several)
  int* count;                  // [rows] how many, or -1: more than the list holds
  float* bound;                // [rows] last threshold: candidates below it are void
  Pair* pairs;                 // [room] (all)
  unsigned long long* total;   // how many pairs there are, also those without room
  unsigned long long room;
  int rows, columns, depth;    // depth: multiples of 8 numbers in a row of x and y
  int items, k, capacity;
};

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }

// Unsigned integers in the order of the floats.
__device__ __forceinline__ unsigned ordered(float value) {
  unsigned bits = __float_as_uint(value);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float unordered(unsigned key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// The columns that rows first..last of an item walk through, in tiles of `width`.
struct Span {
  int begin, tiles;
};

__device__ __forceinline__ Span span_of(const Scan& p, int first, int last, int width) {
  last = last < p.rows ? last : p.rows - 1;
  int begin = p.lo ? p.lo[first] & ~7 : 0;  // bias is read in pairs of columns
  int end = p.hi ? p.hi[last] : p.columns;
  return {begin, end > begin ? (end - begin + width - 1) / width : 0};
}

// The rows of one warp: MB blocks of 16, and what is known of them. A thread holds, as the matrix
// instructions lay accumulators out, of each block rows lane / 4 and lane / 4 + 8, and in every 8
// columns two: 2 (lane % 4) and the next. Four neighbouring lanes share a row.
template <Keep KEEP, bool BIAS, int MB, int NB>
struct WarpRows {
  static constexpr int OWN = 2 * MB;   // rows of a thread
  static constexpr int EACH = 2 * NB;  // scores of a thread per row
  static_assert(EACH <= 64, "pending scores are bits of one word");

  const Scan& p;
  float* threshold_of;  // shared [16 MB] of this warp's rows: written by compact() only
  int* count_of;        // shared [16 MB]
  int first;            // the warp's first row
  int lane;
  float threshold[OWN], slack[OWN], scale[OWN];

  __device__ __forceinline__ int local(int own) const {
    return (own >> 1) * 16 + (own & 1) * 8 + lane / 4;
  }

  __device__ __forceinline__ static float& score(float* acc, int own, int each) {
    return acc[((own >> 1) * NB + (each >> 1)) * 4 + (own & 1) * 2 + (each & 1)];
  }

  __device__ __forceinline__ int column(int base, int each) const {
    return base + (each >> 1) * 8 + (lane & 3) * 2 + (each & 1);
  }

  __device__ __forceinline__ WarpRows(const Scan& p, float* threshold_of, int* count_of, int lane)
      : p(p), threshold_of(threshold_of), count_of(count_of), first(0), lane(lane) {}

  __device__ __forceinline__ void begin(int row) {
    first = row;
    __syncwarp();  // no lane still reads the last rows' counts
#pragma unroll
    for (int own = 0; own < OWN; ++own) {
      int mine = first + local(own);
      bool there = mine < p.rows;
      threshold[own] = there ? p.floor[mine] : infinity();
      slack[own] = there ? p.slack[mine] : 0.0f;
      scale[own] = BIAS && there ? p.scale[mine] : 1.0f;
      if (KEEP != Keep::all && lane % 4 == 0) {
        threshold_of[local(own)] = threshold[own];
        count_of[local(own)] = 0;
      }
    }
    __syncwarp();
  }

  // Takes a tile of products, 16 MB rows by 8 NB columns from `base` on. Overwrites them.
  __device__ __forceinline__ void visit(float* acc, int base) {
    float top[OWN];
#pragma unroll
    for (int own = 0; own < OWN; ++own) top[own] = -infinity();
#pragma unroll
    for (int each = 0; each < EACH; each += 2) {
      float2 bias = {0.0f, 0.0f};
      if (BIAS) bias = *reinterpret_cast<const float2*>(p.bias + column(base, each));
#pragma unroll
      for (int own = 0; own < OWN; ++own) {
        float& left = score(acc, own, each);
        float& right = score(acc, own, each + 1);
        if (BIAS) {
          left = fmaf(left, scale[own], bias.x);
          right = fmaf(right, scale[own], bias.y);
        }
        top[own] = fmaxf(top[own], fmaxf(left, right));
      }
    }
    bool hit = false;
#pragma unroll
    for (int own = 0; own < OWN; ++own) hit |= top[own] >= threshold[own];
    if (__any_sync(~0u, hit)) {
#pragma unroll
      for (int own = 0; own < OWN; ++own) collect(acc, own, base);
    }
  }

  // Leaves counts and thresholds where the host finds them.
  __device__ __forceinline__ void end() {
    if (KEEP == Keep::all) return;
    __syncwarp();
#pragma unroll
    for (int own = 0; own < OWN; ++own) {
      int mine = first + local(own);
      if (lane % 4 == 0 && mine < p.rows) {
        int count = count_of[local(own)];
        p.count[mine] = count;
        if (count >= 0) p.bound[mine] = threshold[own];
      }
    }
  }

 private:
  // The rare path for one row of each thread.
  __device__ __forceinline__ void collect(float* acc, int own, int base) {
    int mine = first + local(own);
    bool there = mine < p.rows;
    int lo = there && p.lo ? p.lo[mine] : 0;
    int hi = there ? (p.hi ? p.hi[mine] : p.columns) : 0;
    unsigned long long pending = 0;
    float top = -infinity();
#pragma unroll
    for (int each = 0; each < EACH; ++each) {
      int at = column(base, each);
      float value = score(acc, own, each);
      if (at >= lo && at < hi && value >= threshold[own]) {
        pending |= 1ull << each;
        top = fmaxf(top, value);
      }
    }
    if (KEEP == Keep::best) {
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      threshold[own] = fmaxf(threshold[own], top - slack[own]);
      keep_pending(acc, own, pending);
    }
    if constexpr (KEEP == Keep::all)
      emit(base, mine, pending);
    else
      enlist(acc, own, base, mine, pending);
  }

  // Moves pending scores to the row's list, which is compacted when it is full.
  __device__ __forceinline__ void enlist(float* acc, int own, int base, int mine,
                                         unsigned long long pending) {
    while (true) {
      push(acc, own, base, mine, pending);
      if (!__any_sync(~0u, pending != 0)) return;
      __syncwarp();  // no lane still reads the last thresholds
      if (lane % 4 == 0) threshold_of[local(own)] = threshold[own];
      __syncwarp();
#pragma unroll 1
      for (int i = 0; i < 8; ++i) {
        int row = (own >> 1) * 16 + (own & 1) * 8 + i;
        if (count_of[row] > p.capacity) compact(row);
      }
      __syncwarp();
      threshold[own] = threshold_of[local(own)];
      keep_pending(acc, own, pending);
    }
  }

  // Clears the bits of scores that a risen threshold rules out.
  __device__ __forceinline__ void keep_pending(float* acc, int own, unsigned long long& pending) {
#pragma unroll
    for (int each = 0; each < EACH; ++each)
      if (!(score(acc, own, each) >= threshold[own])) pending &= ~(1ull << each);
  }

  // Appends pending scores to the row's list; bits stay for those that find it full.
  __device__ __forceinline__ void push(float* acc, int own, int base, int mine,
                                       unsigned long long& pending) {
    Entry* list = p.list + static_cast<long long>(mine) * p.capacity;
#pragma unroll
    for (int each = 0; each < EACH; ++each) {
      if (pending >> each & 1) {
        int slot = atomicAdd(count_of + local(own), 1);
        if (slot < p.capacity) {
          list[slot] = {score(acc, own, each), column(base, each)};
          pending &= ~(1ull << each);
        }
      }
    }
  }

  __device__ __forceinline__ void emit(int base, int mine, unsigned long long pending) {
    while (pending) {
      int each = __ffsll(pending) - 1;
      pending &= pending - 1;
      unsigned long long slot = atomicAdd(p.total, 1ull);
      if (slot < p.room) p.pairs[slot] = {mine, column(base, each)};
    }
  }

  // The whole warp drops from the full list of one row what lies below (k-th best) - slack.
  __device__ __forceinline__ void compact(int row) {
    int mine = first + row;
    int held = count_of[row] < p.capacity ? count_of[row] : p.capacity;
    Entry* list = p.list + static_cast<long long>(mine) * p.capacity;
    unsigned key = 0;  // ends as the largest that k entries reach: the k-th best score
#pragma unroll 1
    for (int bit = 31; bit >= 0; --bit) {
      unsigned trial = key | 1u << bit;
      int reached = 0;
#pragma unroll 1
      for (int i = lane; i < held; i += 32) reached += ordered(list[i].score) >= trial;
      if (__reduce_add_sync(~0u, reached) >= p.k) key = trial;
    }
    float cut = fmaxf(threshold_of[row], unordered(key) - p.slack[mine]);
    int kept = 0;
#pragma unroll 1
    for (int i = lane; i - lane < held; i += 32) {
      Entry entry = {-infinity(), 0};
      if (i < held) entry = list[i];
      bool keep = i < held && entry.score >= cut;
      unsigned keeping = __ballot_sync(~0u, keep);
      __syncwarp();  // a vote orders no memory: all must have read before any writes
      if (keep) list[kept + __popc(keeping & ((1u << lane) - 1))] = entry;
      kept += __popc(keeping);
    }
    if (lane == 0) {
      bool full = kept == p.capacity;  // nothing was void: too many near ties for the list
      threshold_of[row] = full ? infinity() : cut;
      count_of[row] = full ? -1 : kept;
      if (full) p.bound[mine] = cut;
    }
    __syncwarp();
  }
};
