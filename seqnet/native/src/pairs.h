/* Pairs of bfloat16 numbers, the operands of products in mixed precision.
 *
 * A bfloat16 number is the upper half of a float, rounded to nearest even. Two numbers that follow each other along the
 * axis that is summed are one word of 32 bits, the first one in the lower half. So a product of words has half the depth,
 * and operands are packed and read as those of float32 are.
 *
 * The sums are in float32. `v_add_pairs` adds two products to each lane, first those of the upper halves, and rounds
 * after each. Numbers smaller than LEAST_NORMAL count as zero, as operands and as sums. These are the rules of the
 * instruction vdpbf16ps (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2), which is used where
 * the processor has it and vectors have 64 bytes. The code for other machines computes the same bits, if the processor
 * multiplies and adds with a single rounding. SEQNET_BFLOAT16=emulate selects it.
 */
#ifndef SEQNET_PAIRS_H
#define SEQNET_PAIRS_H
#include "vector.h"

#if REAL_BITS == 32 && VECTOR_BYTES == 64 && defined(__AVX512BF16__) && defined(__AVX512BW__) && !defined(EMULATE_BFLOAT16)
#define HAS_PAIR_INSTRUCTION 1
#include <immintrin.h>
#else
#define HAS_PAIR_INSTRUCTION 0
#endif

#define ROUNDED_BLOCK 16L /* words of a column that are rounded at a time where packing transposes */

typedef uint32_t word __attribute__((may_alias));

#if REAL_BITS == 32
INLINE word upper_half(real x) { /* the number rounded, in the lower half of the result */
    word bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return bits >> 16 | 0x40; /* stays NaN */
    if (fabsf(x) < LEAST_NORMAL) return bits >> 16 & 0x8000;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
INLINE word pair(real first, real second) { return upper_half(first) | upper_half(second) << 16; }

/* to[i] = the pair of first[i] and second[i]; `second` may be NULL: zeros */
static void pairs_of_rows(const real *first, const real *second, long n, word *to) {
    long i = 0;
#if HAS_PAIR_INSTRUCTION
    static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i turn = _mm512_loadu_si512(order);
    for (; i < n; i += LANES) {
        __mmask16 on = n - i >= LANES ? (__mmask16)-1 : (__mmask16)((1u << (n - i)) - 1);
        __m512 x = _mm512_maskz_loadu_ps(on, first + i);
        __m512 y = second ? _mm512_maskz_loadu_ps(on, second + i) : _mm512_setzero_ps();
        _mm512_mask_storeu_epi32(to + i, on, _mm512_permutexvar_epi16(turn, (__m512i)_mm512_cvtne2ps_pbh(y, x)));
    }
#else
    for (; i < n; i++) to[i] = pair(first[i], second ? second[i] : 0);
#endif
}

/* to[i] = the pair of from[2 i] and from[2 i + 1]; a last number without another one gets a zero */
static void pairs_along(const real *from, long n, word *to) {
    long i = 0;
#if HAS_PAIR_INSTRUCTION
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        _mm512_storeu_si512(to + i / 2,
                            (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + LANES), _mm512_loadu_ps(from + i)));
    if (i < n) {
        uint32_t on = ((uint32_t)1 << (n - i)) - 1;
        __m512 x = _mm512_maskz_loadu_ps((__mmask16)on, from + i);
        __m512 y = n - i > LANES ? _mm512_maskz_loadu_ps((__mmask16)(on >> 16), from + i + LANES) : _mm512_setzero_ps();
        __mmask16 out = (__mmask16)(((uint32_t)1 << (n - i + 1) / 2) - 1);
        _mm512_mask_storeu_epi32(to + i / 2, out, (__m512i)_mm512_cvtne2ps_pbh(y, x));
    }
#else
    for (; i + 1 < n; i += 2) to[i / 2] = pair(from[i], from[i + 1]);
    if (i < n) to[i / 2] = pair(from[i], 0);
#endif
}

INLINE vreal v_add_pairs(vreal sum, vmask x, vmask y) {
#if HAS_PAIR_INSTRUCTION
    return (vreal)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
#else
    const vmask upper = (vmask){0} + (whole)0xffff0000u;
    sum = v_normal((vreal)(x & upper) * (vreal)(y & upper) + v_normal(sum));
    return v_normal((vreal)(x << 16) * (vreal)(y << 16) + sum);
#endif
}
#else /* never called */
INLINE void pairs_of_rows(const real *first, const real *second, long n, word *to) { (void)first, (void)second, (void)n, (void)to; }
INLINE void pairs_along(const real *from, long n, word *to) { (void)from, (void)n, (void)to; }
INLINE vreal v_add_pairs(vreal sum, vmask x, vmask y) { return (void)x, (void)y, sum; }
#endif

/* Columns of `depth` consecutive numbers, `step` apart -> packed (words, full), zeros beyond the width. */
static void pack_pairs_transposed(const real *from, long step, long depth, long width, long full, word *packed) {
    word some[64][ROUNDED_BLOCK];
    for (long k0 = 0; k0 < depth; k0 += 2 * ROUNDED_BLOCK) {
        long numbers = depth - k0 < 2 * ROUNDED_BLOCK ? depth - k0 : 2 * ROUNDED_BLOCK, words = (numbers + 1) / 2;
        for (long c0 = 0; c0 < full; c0 += 64) {
            long columns = full - c0 < 64 ? full - c0 : 64;
            for (long c = 0; c < columns; c++)
                if (c0 + c < width) pairs_along(from + (c0 + c) * step + k0, numbers, some[c]);
            for (long i = 0; i < words; i++)
                for (long c = 0; c < columns; c++) packed[(k0 / 2 + i) * full + c0 + c] = c0 + c < width ? some[c][i] : 0;
        }
    }
}
#endif
