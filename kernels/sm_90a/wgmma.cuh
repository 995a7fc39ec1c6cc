// Wrappers of Hopper's instructions: one function for each, named after the PTX instruction. No other file of the sm_90a path
// contains assembly.
//
// The copy engine (TMA, cp.async.bulk.tensor) loads a tile and reports the bytes to a barrier in shared memory (mbarrier). A
// warpgroup (four warps) multiplies it (wgmma). Shared-memory addresses have 32 bits (shared_address).

#pragma once
#include "mma.cuh"

// ---- Barriers in shared memory ----------------------------------------------------------------------------------------

// A phase of the barrier completes after `arrivals` arrivals and all expected bytes. Then the next phase starts.
__device__ inline void mbarrier_init(u32 bar, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory");
}

// Makes initialized barriers visible to the copy engine and to the other blocks of the cluster.
__device__ inline void fence_mbarrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// Arrives once, and adds `bytes` to the bytes that the phase expects from the copy engine.
__device__ inline void mbarrier_expect(u32 bar, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}

// Arrives once at barrier `bar` of block `rank` of the cluster. It does not publish this thread's writes: with
// `.release.cluster`, the compiler would add a GPU-wide fence.
__device__ inline void mbarrier_arrive(u32 bar, u32 rank) {
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(bar), "r"(rank)
                 : "memory");
}

// Arrives once at a barrier of this block.
__device__ inline void mbarrier_arrive(u32 bar) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory"); }

// Arrives once when all earlier cp.async of this thread have completed. The barrier's count must include this arrival.
__device__ inline void mbarrier_arrive_after_cp_async(u32 bar) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(bar) : "memory");
}

// Waits until the phase with this parity completes. The first phase has parity 0, the second 1, and so on.
__device__ inline void mbarrier_wait(u32 bar, u32 parity) {
    asm volatile("{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra AGAIN;\n}" ::"r"(bar), "r"(parity)
                 : "memory");
}

// ---- The copy engine --------------------------------------------------------------------------------------------------

// Describes a tensor in global memory, the box that one copy moves, and the layout of the box in shared memory. The host
// encodes it (cuTensorMapEncodeTiled). Elements of a box outside the tensor are loaded as zeros, and are not stored.
struct alignas(64) TensorMap {
    u64 opaque[16];
};

// Prefetches a map before its first use.
__device__ inline void prefetch_tensormap(const TensorMap& map) { asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory"); }

// Loads the box at (x, y) of a matrix. Coordinates count elements, the innermost first.
__device__ inline void tma_load(u32 to, const TensorMap& map, int x, int y, u32 bar) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(&map), "r"(x), "r"(y), "r"(bar)
                 : "memory");
}

// Loads the box at (x, y) of matrix z.
__device__ inline void tma_load(u32 to, const TensorMap& map, int x, int y, int z, u32 bar) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
                 "l"(&map), "r"(x), "r"(y), "r"(z), "r"(bar)
                 : "memory");
}

// The same for several blocks of the cluster, given as bits of `blocks`: the box goes to the same offset in each block, and its
// bytes are reported to the barrier of each block.
__device__ inline void tma_load_multicast(u32 to, const TensorMap& map, int x, int y, int z, u32 bar, unsigned short blocks) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
                 "l"(&map), "r"(x), "r"(y), "r"(z), "r"(bar), "h"(blocks)
                 : "memory");
}

// Stores the box at (x, y) of a matrix, as a bulk group of its own.
__device__ inline void tma_store(const TensorMap& map, u32 from, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map), "r"(x), "r"(y), "r"(from)
                 : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Waits until at most PENDING of this thread's stores still read shared memory.
template <int PENDING> __device__ inline void tma_store_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
}

// Waits until all of this thread's stores are done.
__device__ inline void tma_store_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

// Makes this thread's writes to shared memory visible to the copy engine and to wgmma.
__device__ inline void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- Threads ----------------------------------------------------------------------------------------------------------

// Synchronizes all threads of the cluster. Without a cluster, those are the threads of the block.
__device__ inline void cluster_sync() { asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory"); }

// Synchronizes the threads of a warpgroup at barrier `id` (1 to 15; __syncthreads uses 0).
__device__ inline void warpgroup_sync(int id) { asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory"); }

// gridDim.x, read from the special register on each use: the loading warp has no register to spare for it.
__device__ inline u32 grid_blocks() {
    u32 n;
    asm volatile("mov.u32 %0, %%nctaid.x;" : "=r"(n));
    return n;
}

// Releases registers of this warpgroup until each thread has COUNT; or requests registers, and waits until they are available.
template <int COUNT> __device__ inline void setmaxnreg_dec() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT)); }
template <int COUNT> __device__ inline void setmaxnreg_inc() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT)); }

// ---- Products of a warpgroup --------------------------------------------------------------------------------------------

// Matrix descriptors for tiles that the copy engine stored with 128-byte swizzle. A row has 128 bytes (64 elements), and eight
// rows form an atom of 1024 bytes. Tiles start at multiples of 1024 bytes.
//
// k_major    The tile is [rows][64 of k]: a[m][k], or b[k][n] = tile[n][k]. The next 8 rows are one atom away. A step of 16 in k
//            is 32 bytes (STEP_K_MAJOR in the descriptor).
// mn_major   The tile is [64 of k][64 of n], b[k][n] = tile[k][n]. The next 64 of n are one tile (8192 bytes) away, the next 8 of
//            k one atom. A step of 16 in k is two atoms (STEP_MN_MAJOR).
//
// Fields, in units of 16 bytes: address in bits 0-13, leading offset in bits 16-29, stride offset in bits 32-45. Bits 62-63 hold
// the swizzle mode: 1 for 128 bytes.
__device__ inline u64 descriptor(u32 tile, u32 leading, u32 stride) {
    return u64((tile & 0x3ffff) >> 4) | u64(leading >> 4) << 16 | u64(stride >> 4) << 32 | u64(1) << 62;
}
__device__ inline u64 k_major(u32 tile) { return descriptor(tile, 16, 1024); }  // the leading offset is not used
__device__ inline u64 mn_major(u32 tile) { return descriptor(tile, 8192, 1024); }
constexpr int STEP_K_MAJOR = 32 >> 4, STEP_MN_MAJOR = 2048 >> 4;

// Orders the following wgmma after this warpgroup's earlier accesses to registers that they use.
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Commits the wgmma issued since the last commit as one group.
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most PENDING groups are in flight. The operands of completed groups can be overwritten.
template <int PENDING> __device__ inline void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory"); }

// The same. `sum` belongs to a completed group; as an operand of the empty asm, its reads cannot move above the wait.
template <int PENDING, int N> __device__ inline void wgmma_wait_for(float (&sum)[N]) {
    wgmma_wait<PENDING>();
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(sum[i])::"memory");
}

// Operand lists for the accumulators of wgmma, and their names in the asm text.
#define ACC_4(i) "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3])
#define ACC_16(i) ACC_4(i), ACC_4(i + 4), ACC_4(i + 8), ACC_4(i + 12)
#define ACC_32(i) ACC_16(i), ACC_16(i + 16)
#define NAMES_32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" \
    ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_64 NAMES_32 \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
    ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NAMES_96 NAMES_64 \
    ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" \
    ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define NAMES_128 NAMES_96 \
    ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
    ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA(WIDTH, TYPE, NAMES, A, B, KEEP, MN, ...)                                                                          \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, " KEEP ", 0;\n"                                                        \
                 "wgmma.mma_async.sync.aligned.m64n" WIDTH "k16.f32." TYPE "." TYPE " {" NAMES "}, " A ", " B ", keep, 1, 1, 0, " MN ";\n}" \
                 : __VA_ARGS__                                                                                                 \
                 : "l"(a), "l"(b), "r"(keep), "n"(int(MN_MAJOR_B)))

#define WGMMA_A(WIDTH, TYPE, NAMES, A0, A1, A2, A3, B, KEEP, MN, ...)                                                            \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, " KEEP ", 0;\n"                                                        \
                 "wgmma.mma_async.sync.aligned.m64n" WIDTH "k16.f32." TYPE "." TYPE                                              \
                 " {" NAMES "}, {" A0 ", " A1 ", " A2 ", " A3 "}, " B ", keep, 1, 1, " MN ";\n}"                                 \
                 : __VA_ARGS__                                                                                                 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(int(MN_MAJOR_B)))

// sum[64,WIDTH] = (keep ? sum : 0) + a[64,16] * b[16,WIDTH], accumulated in f32. a is k_major, b is k_major or mn_major. Warp w of
// the warpgroup holds rows 16w .. 16w + 15. With g = l / 4 and t = l % 4, lane l holds (g, 8j + 2t) and (g, 8j + 2t + 1) in sum[4j]
// and sum[4j+1], and the same columns of row g + 8 in sum[4j+2] and sum[4j+3].
template <bool MN_MAJOR_B> __device__ inline void wgmma(float (&sum)[32], u64 a, u64 b, int keep) {
    if constexpr (is_bf16<elem>) WGMMA("64", "bf16", NAMES_32, "%32", "%33", "%34", "%35", ACC_32(0));
    else WGMMA("64", "f16", NAMES_32, "%32", "%33", "%34", "%35", ACC_32(0));
}
template <bool MN_MAJOR_B> __device__ inline void wgmma(float (&sum)[64], u64 a, u64 b, int keep) {
    if constexpr (is_bf16<elem>) WGMMA("128", "bf16", NAMES_64, "%64", "%65", "%66", "%67", ACC_32(0), ACC_32(32));
    else WGMMA("128", "f16", NAMES_64, "%64", "%65", "%66", "%67", ACC_32(0), ACC_32(32));
}
template <bool MN_MAJOR_B> __device__ inline void wgmma(float (&sum)[96], u64 a, u64 b, int keep) {
    if constexpr (is_bf16<elem>) WGMMA("192", "bf16", NAMES_96, "%96", "%97", "%98", "%99", ACC_32(0), ACC_32(32), ACC_32(64));
    else WGMMA("192", "f16", NAMES_96, "%96", "%97", "%98", "%99", ACC_32(0), ACC_32(32), ACC_32(64));
}
template <bool MN_MAJOR_B> __device__ inline void wgmma(float (&sum)[128], u64 a, u64 b, int keep) {
    if constexpr (is_bf16<elem>) WGMMA("256", "bf16", NAMES_128, "%128", "%129", "%130", "%131", ACC_32(0), ACC_32(32), ACC_32(64), ACC_32(96));
    else WGMMA("256", "f16", NAMES_128, "%128", "%129", "%130", "%131", ACC_32(0), ACC_32(32), ACC_32(64), ACC_32(96));
}

// The same with a in registers, in the layout of an accumulator: a[0] holds columns 2t and 2t + 1 of row g, a[1] those of row
// g + 8; a[2] and a[3] hold columns 2t + 8 and 2t + 9 of the same rows.
template <bool MN_MAJOR_B> __device__ inline void wgmma(float (&sum)[32], const u32 (&a)[4], u64 b, int keep) {
    if constexpr (is_bf16<elem>) WGMMA_A("64", "bf16", NAMES_32, "%32", "%33", "%34", "%35", "%36", "%37", "%38", ACC_32(0));
    else WGMMA_A("64", "f16", NAMES_32, "%32", "%33", "%34", "%35", "%36", "%37", "%38", ACC_32(0));
}
template <bool MN_MAJOR_B> __device__ inline void wgmma(float (&sum)[64], const u32 (&a)[4], u64 b, int keep) {
    if constexpr (is_bf16<elem>)
        WGMMA_A("128", "bf16", NAMES_64, "%64", "%65", "%66", "%67", "%68", "%69", "%70", ACC_32(0), ACC_32(32));
    else WGMMA_A("128", "f16", NAMES_64, "%64", "%65", "%66", "%67", "%68", "%69", "%70", ACC_32(0), ACC_32(32));
}

// ---- Fragments ----------------------------------------------------------------------------------------------------------

// Stores four 8 x 8 matrices of 16-bit elements. This is the inverse of ldmatrix_x4.
__device__ inline void stmatrix_x4(u32 row, u32 r0, u32 r1, u32 r2, u32 r3) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r0), "r"(r1), "r"(r2), "r"(r3)
                 : "memory");
}

// Loads 16 bytes from shared memory, or two floats.
__device__ inline uint4 load_shared_16(u32 from) {
    uint4 x;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "r"(from) : "memory");
    return x;
}
__device__ inline float2 load_shared_8(u32 from) {
    float2 x;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(from) : "memory");
    return x;
}
