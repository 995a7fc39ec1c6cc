// What every kernel uses: the element type, operands, wide loads, reductions in a fixed order, random numbers.
//
// A family is compiled once for each element type: ELEM is __nv_bfloat16 or __half. Arithmetic is f32; a result is
// rounded once, when it is stored.

#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

using elem = ELEM;
using i64 = long long;
using u32 = unsigned int;
using u64 = unsigned long long;

constexpr int WARP = 32;
// Elements of one 16-byte load: the widest that a thread can do.
constexpr int PACK = 8;

// ---- Operands -------------------------------------------------------------------------------------------------------

// A row-major matrix inside a buffer: element (i, j) is at[i * ld + j].
template <class T> struct Mat {
    T* at;
    i64 ld;
    __device__ T* row(i64 i) const { return at + i * ld; }
};

// How many rows are live. The host plans for a capacity; the number of live tokens lies on the device, so that a captured
// graph can be replayed with another one. Blocks beyond it leave at once.
struct Rows {
    const int* live;  // live tokens; null: always `most` rows
    int times;        // rows for each token
    int start;        // rows before the first one of this operand (a chunk of the tokens)
    int most;         // rows at most
    __device__ int count() const {
        if (live == nullptr) return most;
        int n = times * *live - start;
        return n < 0 ? 0 : n < most ? n : most;
    }
};

// A small operand that is f32 or of the element type: routing weights, router logits, master weights. For operands that
// decide about speed the type is fixed instead.
struct Either {
    void* at;  // null: the operand is absent
    i64 ld;
    int wide;  // 1: f32, 0: elem
};

__device__ inline float widen(elem x) { return float(x); }
__device__ inline elem narrow(float x) { return elem(x); }
// The value after being stored as an element.
__device__ inline float rounded(float x) { return widen(narrow(x)); }

__device__ inline float load(Either m, i64 row, i64 col) {
    i64 i = row * m.ld + col;
    return m.wide ? static_cast<const float*>(m.at)[i] : widen(static_cast<const elem*>(m.at)[i]);
}
__device__ inline void store(Either m, i64 row, i64 col, float value) {
    i64 i = row * m.ld + col;
    if (m.wide) static_cast<float*>(m.at)[i] = value;
    else static_cast<elem*>(m.at)[i] = narrow(value);
}

// ---- Eight elements at once -------------------------------------------------------------------------------------------

struct Pack {
    float v[PACK];
};

// p is a multiple of 16 bytes: the host checks widths, leading dimensions and offsets before it launches.
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

// The thread's number in the grid.
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

// Over a warp, as a butterfly: every lane gets the same bits.
template <class Op> __device__ inline float warp_reduce(float x) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) x = Op::of(x, __shfl_xor_sync(0xffffffff, x, step));
    return x;
}

// Over a block of up to 1024 threads; every thread gets the result. The order depends on the block size only.
template <class Op> __device__ inline float block_reduce(float x) {
    __shared__ float of_warp[WARP];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    x = warp_reduce<Op>(x);
    __syncthreads();  // an earlier reduction may still be read
    if (lane == 0) of_warp[warp] = x;
    __syncthreads();
    return warp_reduce<Op>(lane < warps ? of_warp[lane] : Op::neutral());
}

// ---- Arithmetic that must not be contracted ---------------------------------------------------------------------------

// Bit-exact formulas round after each operation; the compiler would make one fused multiply-add of a * b + c.
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
