// Shared by all kernels: the element type, operands, vectorized loads, reductions in a fixed order, random numbers.
//
// Each family is compiled once per element type: ELEM is __nv_bfloat16 or __half. Arithmetic is f32; results are rounded
// once, by the store.

#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

using elem = ELEM;
using i64 = long long;
using u32 = unsigned int;
using u64 = unsigned long long;

constexpr int WARP = 32;
// Elements in one 16-byte load, the widest load of a thread.
constexpr int PACK = 8;

// ---- Operands -------------------------------------------------------------------------------------------------------

// A row-major matrix inside a buffer: element (i, j) is at[i * ld + j].
template <class T> struct Mat {
    T* at;
    i64 ld;
    __device__ T* row(i64 i) const { return at + i * ld; }
};

// The number of live rows. The host sizes the grid for the capacity; the number of live tokens is in device memory, so a
// captured graph can be replayed with a different one. Blocks beyond the live rows return immediately.
struct Rows {
    const int* live;  // live tokens; null: all `capacity` rows are live
    int times;        // rows per token
    int start;        // first row of this operand, when it is a chunk of the tokens
    int capacity;     // upper limit on the rows
    __device__ int count() const {
        if (live == nullptr) return capacity;
        int n = times * *live - start;
        return n < 0 ? 0 : n < capacity ? n : capacity;
    }
};

// An operand whose type (f32 or elem) is chosen at run time: routing weights, router logits, gemm outputs. Operands on a
// kernel's critical path have a fixed type instead.
struct F32OrElem {
    void* at;  // null: the operand is absent
    i64 ld;
    int is_f32;
};

__device__ inline float widen(elem x) { return float(x); }
__device__ inline elem narrow(float x) { return elem(x); }
// x after a round trip through elem.
__device__ inline float rounded(float x) { return widen(narrow(x)); }

__device__ inline float load(F32OrElem m, i64 row, i64 col) {
    i64 i = row * m.ld + col;
    return m.is_f32 ? static_cast<const float*>(m.at)[i] : widen(static_cast<const elem*>(m.at)[i]);
}
__device__ inline void store(F32OrElem m, i64 row, i64 col, float value) {
    i64 i = row * m.ld + col;
    if (m.is_f32) static_cast<float*>(m.at)[i] = value;
    else static_cast<elem*>(m.at)[i] = narrow(value);
}

// ---- 16-byte loads and stores -----------------------------------------------------------------------------------------

struct Pack {
    float v[PACK];
};

// p is 16-byte aligned: the host checks widths, leading dimensions and offsets before the launch.
__device__ inline Pack load(const elem* p) {
    uint4 raw = *reinterpret_cast<const uint4*>(p);
    const elem* e = reinterpret_cast<const elem*>(&raw);
    Pack pack;
#pragma unroll
    for (int i = 0; i < PACK; i++) pack.v[i] = widen(e[i]);
    return pack;
}
__device__ inline void store(elem* p, const Pack& pack) {
    uint4 raw;
    elem* e = reinterpret_cast<elem*>(&raw);
#pragma unroll
    for (int i = 0; i < PACK; i++) e[i] = narrow(pack.v[i]);
    *reinterpret_cast<uint4*>(p) = raw;
}

// Index of the thread in a one-dimensional grid.
__device__ inline u32 global_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

// ---- Reductions -------------------------------------------------------------------------------------------------------

struct Sum {
    __device__ static float neutral() { return 0.0f; }
    __device__ static float of(float a, float b) { return a + b; }
};
struct Max {
    __device__ static float neutral() { return __int_as_float(0xff800000); }  // −∞
    __device__ static float of(float a, float b) { return fmaxf(a, b); }
};

// Butterfly reduction over a warp. All lanes get the same bits.
template <class Op> __device__ inline float warp_reduce(float x) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) x = Op::of(x, __shfl_xor_sync(0xffffffff, x, step));
    return x;
}

// Reduction over a block of up to 1024 threads; all threads get the result. The order depends on the block size only.
template <class Op> __device__ inline float block_reduce(float x) {
    __shared__ float of_warp[WARP];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    x = warp_reduce<Op>(x);
    __syncthreads();  // of_warp may still be read by an earlier call
    if (lane == 0) of_warp[warp] = x;
    __syncthreads();
    return warp_reduce<Op>(lane < warps ? of_warp[lane] : Op::neutral());
}

// ---- Arithmetic that must not be contracted ---------------------------------------------------------------------------

// Bit-exact formulas round after every operation. The compiler would contract a * b + c to a fused multiply-add.
__device__ inline float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ inline float add(float a, float b) { return __fadd_rn(a, b); }

// ---- Random numbers ---------------------------------------------------------------------------------------------------

// Philox4x32-10 (Salmon et al. 2011): four random words for a counter and a key.
__device__ inline uint4 philox(uint4 counter, uint2 key) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        u64 a = u64(counter.x) * 0xD2511F53u, b = u64(counter.z) * 0xCD9E8D57u;
        counter = make_uint4(u32(b >> 32) ^ counter.y ^ key.x, u32(b), u32(a >> 32) ^ counter.w ^ key.y, u32(a));
        key = make_uint2(key.x + 0x9E3779B9u, key.y + 0xBB67AE85u);
    }
    return counter;
}
