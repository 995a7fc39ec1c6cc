// 4-bit block quantisation (Dettmers et al. 2023), bit-equal to bitsandbytes.
//
//   out = round(level[code] · scale)                     one f32 multiply, one rounding
//   scale = absmax[b], or, double quantised, round(map[absmax8[b]] · nested[b / 256]) + offset
//
// codes U8 [rows, cols/2], high nibble first, blocks of `block` elements cut from the flat weight; out [rows, cols].
// A thread decodes four packs of 8 elements, 256 packs apart: 4 bytes in, 16 bytes out, all 128-byte lines whole. The 16
// levels lie in shared memory, in 16 different banks: a look-up never conflicts.
// Bytes per element: 0.516 read, 2 written: bound by memory.

#include "quant8.cuh"

__device__ const float NF4_LEVELS[16] = {
    -0x1p+0f, -0x1.647362p-1f, -0x1.0cd660p-1f, -0x1.946540p-2f, -0x1.23449ap-2f, -0x1.7a6a7ep-3f, -0x1.74f0e2p-4f, 0.0f,
    0x1.45f5fep-4f, 0x1.4995c6p-3f, 0x1.f809bap-3f, 0x1.5a0674p-2f, 0x1.c34970p-2f, 0x1.200f56p-1f, 0x1.722766p-1f, 0x1p+0f,
};
// Bit 3 is the sign, so code 8 is −0.
__device__ const float FP4_LEVELS[16] = {
    0.0f, 0x1.555556p-8f, 0x1.555556p-1f, 0x1p+0f, 0x1.555556p-2f, 0x1p-1f, 0x1.555556p-3f, 0x1p-2f,
    -0.0f, -0x1.555556p-8f, -0x1.555556p-1f, -0x1p+0f, -0x1.555556p-2f, -0x1p-1f, -0x1.555556p-3f, -0x1p-2f,
};

constexpr int THREADS = 256;
constexpr int PACKS = 4;  // of each thread

// absmax (F32) or absmax8 with nested and offset: the other is null. block_bits: log₂ of the block size.
extern "C" __global__ void __launch_bounds__(THREADS) dequantize(u32 packs, int cols, int block_bits, int fp4, const u32* codes,
                                                                 const float* absmax, const unsigned char* absmax8,
                                                                 const float* nested, const float* offset, Mat<elem> out) {
    __shared__ float levels[16];
    if (threadIdx.x < 16) levels[threadIdx.x] = fp4 ? FP4_LEVELS[threadIdx.x] : NF4_LEVELS[threadIdx.x];
    __syncthreads();

    // Load
    u32 first = blockIdx.x * THREADS * PACKS + threadIdx.x, code[PACKS];
    float scale[PACKS];
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        u32 item = first + k * THREADS;
        if (item >= packs) break;
        i64 block = i64(item) * PACK >> block_bits;
        code[k] = codes[item];
        scale[k] = absmax ? absmax[block] : add(mul(SIGNED[absmax8[block]], nested[block / BLOCK8]), *offset);
    }
    // Decode and store
    u32 packs_of_row = cols / PACK;
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        u32 item = first + k * THREADS;
        if (item >= packs) break;
        Pack pack;
#pragma unroll
        for (int j = 0; j < PACK; j++) {
            // Byte j/2 of the little-endian word; its high nibble first.
            u32 shift = j / 2 * 8 + (j % 2 ? 0 : 4);
            pack.v[j] = mul(levels[code[k] >> shift & 15], scale[k]);
        }
        store(out.row(item / packs_of_row) + item % packs_of_row * PACK, pack);
    }
}
