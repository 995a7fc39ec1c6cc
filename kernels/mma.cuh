// PTX instructions without a CUDA C++ equivalent, one wrapper each, and tiles in shared memory. No other kernel file
// contains inline assembly.
//
// The names are PTX's. The PTX manual draws the fragment layouts under mma.m16n8k16 and ldmatrix. Throughout, lane l has
// group g = l / 4 and position t = l % 4 in its group.

#pragma once
#include "common.cuh"

template <class T> constexpr bool is_bf16 = false;
template <> constexpr bool is_bf16<__nv_bfloat16> = true;

// Converts a generic pointer to the 32-bit shared-memory address that the instructions below take.
__device__ inline u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

// ---- Asynchronous copies from global to shared memory -------------------------------------------------------------------

// Copies 16 bytes and bypasses L1, since the data is used once. If not `valid`, writes zeros and reads nothing.
__device__ inline void cp_async_16(u32 to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}

// Copies 4 bytes, for a column of a matrix. If not `valid`, writes zeros and reads nothing.
__device__ inline void cp_async_4(u32 to, const void* from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(valid ? 4 : 0) : "memory");
}

// Commits the copies that this thread has issued since its last commit as one group.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING of this thread's groups are in flight. Other threads see the data after a barrier.
template <int PENDING> __device__ inline void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// Prefetches the 128-byte line of p into L2.
__device__ inline void prefetch_l2(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// ---- Fragments ----------------------------------------------------------------------------------------------------------

// Loads four 8 x 8 matrices of 16-bit elements. Lanes 8i .. 8i + 7 supply the addresses of the eight rows (16 bytes each)
// of matrix i; register i then holds row g, columns 2t and 2t + 1 of that matrix.
__device__ inline void ldmatrix_x4(u32 (&r)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

// As above, but transposes each matrix: register i holds rows 2t and 2t + 1 of column g.
__device__ inline void ldmatrix_x4_trans(u32 (&r)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

// d[16,8] += a[16,16] * b[16,8], with elem inputs and f32 accumulators.
// d holds (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1). a holds pairs along a row, starting at (g, 2t), (g+8, 2t), (g, 2t+8),
// (g+8, 2t+8). b holds pairs along a column, starting at (2t, g), (2t+8, g).
__device__ inline void mma_16816(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    if constexpr (is_bf16<elem>)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Rounds two floats to elements and packs them; `low` is the lower column of a fragment.
__device__ inline u32 narrow_pair(float low, float high) {
    u32 pair;
    if constexpr (is_bf16<elem>) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    else asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// ---- Arithmetic ---------------------------------------------------------------------------------------------------------

// 2^x on the special function unit: relative error 2^-22, and 0 for -inf.
__device__ inline float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Returns x, but hides its origin from the compiler. Values derived from it are then recomputed in each iteration of a
// loop; hoisted out of the loop, they would occupy registers.
__device__ inline u32 recomputed(u32 x) {
    asm volatile("" : "+r"(x));
    return x;
}
__device__ inline i64 recomputed(i64 x) {
    asm volatile("" : "+l"(x));
    return x;
}

// ---- Tiles in shared memory ----------------------------------------------------------------------------------------------

// XOR swizzle. A row of a tile consists of CHUNKS chunks of 16 bytes. ldmatrix reads the same chunk of eight rows at once,
// cp.async writes eight chunks of one row; with the chunks permuted within each row, both are free of bank conflicts.
// Returns the byte offset of (row, chunk).
template <int CHUNKS> __device__ inline u32 swizzled(u32 row, u32 chunk) {
    static_assert(CHUNKS == 2 || CHUNKS == 4 || CHUNKS % 8 == 0, "rows of 32, 64 or a multiple of 128 bytes");
    // Eight rows span two 128-byte lines (all 32 banks) if a row has 32 bytes, four if it has 64 bytes.
    u32 line = CHUNKS == 2 ? row / 4 % 2 : CHUNKS == 4 ? row / 2 % 4 : row % 8;
    return (row * CHUNKS + (chunk ^ line)) * 16;
}

// This thread's share of the copy of a ROWS x COLS tile from global to shared memory: one column of chunks, every STEP-th
// row.
template <int ROWS, int COLS, int THREADS> struct TileCopy {
    static constexpr int CHUNKS = COLS / PACK, STEP = THREADS / CHUNKS, TIMES = (ROWS + STEP - 1) / STEP;
    static_assert(THREADS % CHUNKS == 0);
    const elem* from;  // this thread's first chunk of the next tile
    i64 ld;
    int row, chunk;

    // m starts at the first tile.
    __device__ explicit TileCopy(Mat<const elem> m) : ld(m.ld), row(threadIdx.x / CHUNKS), chunk(threadIdx.x % CHUNKS) {
        from = m.row(row) + chunk * PACK;
    }
    // Copies a tile; elements beyond `rows` and `cols` become zero.
    __device__ void copy(u32 tile, int rows, int cols) const {
        const elem* p = from;
#pragma unroll
        for (int i = 0; i < TIMES; i++, p += STEP * ld) {
            int r = row + i * STEP;
            if (ROWS % STEP == 0 || r < ROWS)
                cp_async_16(tile + swizzled<CHUNKS>(r, chunk), p, r < rows && chunk * PACK < cols);
        }
    }
};

// The ldmatrix_row functions return the address that the lane supplies to ldmatrix for the 16 x 16 fragment at (row, col)
// of a tile. The load functions below reach all other fragments from it with compile-time constants: the swizzle is an XOR,
// so a step along the row is an XOR too.
//
// A tile holds an operand as it is, or transposed: a[m][k] = tile[k][m], b[k][n] = tile[n][k].
template <int CHUNKS> __device__ inline u32 ldmatrix_row_a(u32 tile, int row, int col) {
    int lane = threadIdx.x % WARP;
    return tile + swizzled<CHUNKS>(row + lane % 16, col / PACK + lane / 16);
}
template <int CHUNKS> __device__ inline u32 ldmatrix_row_a_transposed(u32 tile, int row, int col) {
    int lane = threadIdx.x % WARP;
    return tile + swizzled<CHUNKS>(col + lane / 16 * 8 + lane % 8, row / PACK + lane / 8 % 2);
}
template <int CHUNKS> __device__ inline u32 ldmatrix_row_b(u32 tile, int row, int col) {
    return ldmatrix_row_a<CHUNKS>(tile, row, col);
}
template <int CHUNKS> __device__ inline u32 ldmatrix_row_b_transposed(u32 tile, int row, int col) {
    return ldmatrix_row_a_transposed<CHUNKS>(tile, row, col);
}

// Loads the fragment at an offset of (`row`, `col`), multiples of 16, from the one that `lane` addresses. Tiles must start
// at a multiple of the length of a row.
template <int CHUNKS> __device__ inline void load_a(u32 (&a)[4], u32 lane, int row, int col) {
    ldmatrix_x4(a, (lane ^ col * 2) + row * CHUNKS * 16);
}
template <int CHUNKS> __device__ inline void load_a_transposed(u32 (&a)[4], u32 lane, int row, int col) {
    ldmatrix_x4_trans(a, (lane ^ row * 2) + col * CHUNKS * 16);
}
// Registers 0 and 1 hold the first 8 columns of b, registers 2 and 3 the other 8.
template <int CHUNKS> __device__ inline void load_b(u32 (&b)[4], u32 lane, int row, int col) {
    ldmatrix_x4_trans(b, (lane ^ col * 2) + row * CHUNKS * 16);
}
template <int CHUNKS> __device__ inline void load_b_transposed(u32 (&b)[4], u32 lane, int row, int col) {
    ldmatrix_x4(b, (lane ^ row * 2) + col * CHUNKS * 16);
}
