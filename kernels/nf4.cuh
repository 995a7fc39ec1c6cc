// 4-bit codes: their levels, and the scales of blocks. Used by nf4 and gemv.

#pragma once
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

// Copies the 16 levels of a codebook to shared memory; the caller must synchronize before it reads them. They occupy 16
// different banks, so lookups have no bank conflicts.
__device__ inline void load_levels(float* levels, int fp4) {
    if (threadIdx.x < 16) levels[threadIdx.x] = fp4 ? FP4_LEVELS[threadIdx.x] : NF4_LEVELS[threadIdx.x];
}

// Code j of the eight in a little-endian word: element j is in byte j / 2, high nibble first.
__device__ inline u32 code_of(u32 word, int j) { return word >> (j / 2 * 8 + (j % 2 ? 0 : 4)) & 15; }

// Scales of blocks: either f32 (absmax) or double-quantized (absmax8, nested and offset). The other pointers are null.
struct Scales {
    const float* absmax;
    const unsigned char* absmax8;
    const float* nested;
    const float* offset;
    __device__ float of(i64 block) const {
        return absmax ? absmax[block] : add(mul(SIGNED[absmax8[block]], nested[block / BLOCK8]), *offset);
    }
};
