// 4-bit block quantization and dequantization (Dettmers et al. 2023), bit-equal to bitsandbytes.
//
//   dequantize   out = round(level[code] · scale)                     one f32 multiply, one rounding
//                scale = absmax[b], or with double quantization round(map[absmax8[b]] · nested[b / 256]) + offset
//   quantize     absmax = max |x| of a block, code = the level nearest to x · (1 / absmax)
//   scales_mean, nest   double quantization: offset = mean of the scales, then 8-bit codes of scale − offset, in blocks of 256
//
// codes U8 [rows, cols/2], high nibble first; blocks of `block` elements of the flattened weight; x, out [rows, cols].
// dequantize: a thread decodes four packs of 8 elements, 256 packs apart. Each pack is a 4-byte load and a 16-byte store; a
// warp's accesses cover whole 128-byte lines. Bytes per element: 0.516 read, 2 written. Bound by memory.
// quantize: one warp per block, which it reads twice, the second time from L1. Bytes per element: 2 read (4 from F32), 0.56
// written. Runs once, when a model is loaded.

#include "nf4.cuh"

constexpr int THREADS = 256;
constexpr int PACKS = 4;  // per thread

// Scales are either absmax, or absmax8 with nested and offset; the others are null. block_bits: log₂ of the block size.
extern "C" __global__ void __launch_bounds__(THREADS) dequantize(u32 packs, int cols, int block_bits, int fp4, const u32* codes,
                                                                 const float* absmax, const unsigned char* absmax8,
                                                                 const float* nested, const float* offset, Mat<elem> out) {
    __shared__ float levels[16];
    load_levels(levels, fp4);
    __syncthreads();

    // Load
    Scales scales = {absmax, absmax8, nested, offset};
    u32 first = blockIdx.x * THREADS * PACKS + threadIdx.x, code[PACKS];
    float scale[PACKS];
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        u32 item = first + k * THREADS;
        if (item >= packs) break;
        code[k] = codes[item];
        scale[k] = scales.of(i64(item) * PACK >> block_bits);
    }
    // Decode and store
    u32 packs_of_row = cols / PACK;
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        u32 item = first + k * THREADS;
        if (item >= packs) break;
        Pack pack;
#pragma unroll
        for (int j = 0; j < PACK; j++) pack.v[j] = mul(levels[code_of(code[k], j)], scale[k]);
        store(out.row(item / packs_of_row) + item % packs_of_row * PACK, pack);
    }
}

// ---- Quantization -------------------------------------------------------------------------------------------------------

// The NF4 code of a scaled value is the number of thresholds below it.
__device__ const float NF4_THRESHOLDS[15] = {
    -0.8480964004993439f, -0.6106329262256622f, -0.4599952697753906f, -0.33967943489551544f, -0.23460740596055984f,
    -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f, 0.2035212516784668f,
    0.2920137718319893f, 0.3893125355243683f, 0.5016634166240692f, 0.6427869200706482f, 0.8614784181118011f,
};
// The thresholds on |x| for FP4. FP4_CODE_OF_RANK maps the number of thresholds below |x| to the low three bits of the code:
// one nibble per rank.
__device__ const float FP4_THRESHOLDS[7] = {
    0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f, 0.4166667f, 0.583333f, 0.8333333f,
};
constexpr u32 FP4_CODE_OF_RANK = 0x32547610;

// Code of a scaled value. NaN, which only an all-zero block produces (0 · 1/0), becomes code 0.
__device__ inline u32 encode(int fp4, float x) {
    u32 rank = 0;
    if (fp4) {
#pragma unroll
        for (int i = 0; i < 7; i++) rank += fabsf(x) > FP4_THRESHOLDS[i];
        return (FP4_CODE_OF_RANK >> 4 * rank & 7) | (x < 0.0f ? 8 : 0);
    }
#pragma unroll
    for (int i = 0; i < 15; i++) rank += x > NF4_THRESHOLDS[i];
    return rank;
}

// x: n contiguous elements. The block size is even; the last block may be short. If n is odd, the last low nibble is the code
// of zero.
extern "C" __global__ void __launch_bounds__(THREADS) quantize(i64 n, int block, int fp4, F32OrElem x, unsigned char* codes,
                                                               float* absmax) {
    i64 number = (i64(blockIdx.x) * THREADS + threadIdx.x) / WARP, first = number * block;
    int lane = threadIdx.x % WARP;
    if (first >= n) return;
    int count = n - first < block ? n - first : block;
    float largest = 0.0f;
    for (int i = lane; i < count; i += WARP) largest = fmaxf(largest, fabsf(load(x, 0, first + i)));
    largest = warp_reduce<Max>(largest);
    if (lane == 0) absmax[number] = largest;
    float reciprocal = 1.0f / largest;
    for (int i = 2 * lane; i < count; i += 2 * WARP) {
        float high = load(x, 0, first + i), low = i + 1 < count ? load(x, 0, first + i + 1) : 0.0f;
        codes[(first + i) / 2] = encode(fp4, mul(high, reciprocal)) << 4 | encode(fp4, mul(low, reciprocal));
    }
}

constexpr int SUMS = 1024;

// One block. It sums in the order of `device::cpu::nf4::mean`: 1024 interleaved sums, then a binary tree over them.
extern "C" __global__ void __launch_bounds__(SUMS) scales_mean(int count, const float* scales, float* offset) {
    __shared__ double sums[SUMS];
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += SUMS) sum += scales[i];
    sums[threadIdx.x] = sum;
    for (int half = SUMS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) *offset = float(sums[0] / count);
}

// One thread per scale, one thread block per block of scales.
extern "C" __global__ void __launch_bounds__(BLOCK8) nest(int count, const float* scales, const float* offset,
                                                          unsigned char* codes, float* nested) {
    int i = blockIdx.x * BLOCK8 + threadIdx.x;
    float centered = i < count ? add(scales[i], -*offset) : 0.0f;
    float largest = block_reduce<Max>(fabsf(centered));
    if (threadIdx.x == 0) nested[blockIdx.x] = largest;
    if (i < count) codes[i] = nearest(SIGNED, mul(centered, 1.0f / largest));
}
