/* Vectors of real numbers, and exp, tanh and sigmoid of them.
 *
 * All numeric code of this folder uses the vector extensions of GCC and Clang:
 * `vreal` is used like a number, and the compiler selects the instructions of
 * the processor. Two macros set the type and the width:
 *
 *   REAL_BITS     32 (float) or 64 (double), given on the command line;
 *   VECTOR_BYTES  16, 32 or 64; by default the widest of the target.
 *
 * The functions are within 4 units in the last place of the exact value over the
 * whole range, have the right limits, and return NaN for NaN; the tests check it.
 */
#ifndef SEQNET_VECTOR_H
#define SEQNET_VECTOR_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef VECTOR_BYTES
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#endif

#if REAL_BITS == 32
typedef float real;
typedef int32_t whole;
#define REAL(x) x##f
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define EXP_LOWEST -104.0f /* exp rounds to 0 below, to infinity above */
#define EXP_HIGHEST 89.0f
#define TANH_ONE 10.0f /* tanh rounds to 1 from here */
#define LN2_HIGH 0.693359375f /* few bits, so that a multiple of it is exact */
#define LN2_LOW -2.12194440054690582e-4f
#define REAL_SQRT __builtin_sqrtf
#else
typedef double real;
typedef int64_t whole;
#define REAL(x) x
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define EXP_LOWEST -746.0
#define EXP_HIGHEST 710.0
#define TANH_ONE 20.0
#define LN2_HIGH 0.693147180369123816490
#define LN2_LOW 1.90821492927058770002e-10
#define REAL_SQRT __builtin_sqrt
#endif

#define LANES ((long)(VECTOR_BYTES / sizeof(real)))
#define INLINE static inline __attribute__((always_inline, unused))

typedef real vreal __attribute__((vector_size(VECTOR_BYTES)));
typedef whole vmask __attribute__((vector_size(VECTOR_BYTES))); /* all ones where true */
typedef real vreal_unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));

INLINE vreal load(const real *p) { return *(const vreal_unaligned *)p; }
INLINE void store(real *p, vreal v) { *(vreal_unaligned *)p = v; }
INLINE vreal splat(real x) { return x - (vreal){0}; } /* x - 0 keeps the sign of -0 */

/* ---- selection, lane by lane -------------------------------------------------- */
INLINE vreal v_select(vmask m, vreal yes, vreal no) {
    return (vreal)((m & (vmask)yes) | (~m & (vmask)no));
}
INLINE vreal v_from_mask(vmask m) { return (vreal)(m & (vmask)splat(REAL(1.0))); }
INLINE vmask v_isnan(vreal a) { return (vmask)(a != a); }
INLINE vreal v_maximum(vreal a, vreal b) { return v_select((vmask)(a > b) | v_isnan(a), a, b); }
INLINE vreal v_minimum(vreal a, vreal b) { return v_select((vmask)(a < b) | v_isnan(a), a, b); }
/* NaN stays NaN, because a comparison with NaN is false. */
INLINE vreal v_at_least(vreal x, real low) { return v_select((vmask)(x < splat(low)), splat(low), x); }
INLINE vreal v_at_most(vreal x, real high) { return v_select((vmask)(x > splat(high)), splat(high), x); }
INLINE vreal v_sqrt(vreal x) { /* no operator exists: the compiler turns the loop into one instruction */
    real lanes[LANES] __attribute__((aligned(VECTOR_BYTES)));
    memcpy(lanes, &x, sizeof x);
    for (long i = 0; i < LANES; i++) lanes[i] = REAL_SQRT(lanes[i]);
    memcpy(&x, lanes, sizeof x);
    return x;
}
#define SIGN_BIT ((vmask)splat(-REAL(0.0)))
INLINE vreal v_abs(vreal x) { return (vreal)((vmask)x & ~SIGN_BIT); }
INLINE vreal v_copysign(vreal size, vreal sign) {
    return (vreal)(((vmask)size & ~SIGN_BIT) | ((vmask)sign & SIGN_BIT));
}
INLINE vreal v_sign(vreal x) { /* -1, 0 or 1; NaN stays NaN */
    return v_select((vmask)(x == splat(0)) | v_isnan(x), x, v_copysign(splat(REAL(1.0)), x));
}

/* ---- exp, tanh and sigmoid ---------------------------------------------------------
 * exp(x) = 2^n (1 + q) with n = round(x / ln 2), r = x - n ln 2 and q = exp(r) - 1. Because |r| <= ln(2)/2 = 0.347, the
 * Taylor series of q ends early: r^8/8! (float) and r^14/14! (double) are below half a unit in the last place of q.
 * The method and the split of ln 2 into two parts are those of Cephes (S. Moshier, netlib.org/cephes).
 */

/* A number this large has no fraction bits, so adding it rounds, and the low bits of the sum hold the integer. */
#define ROUNDER (REAL(1.5) * (real)((whole)1 << MANTISSA_BITS))

INLINE vreal v_power_of_two(vreal rounded) { /* 2^n, given n + ROUNDER */
    vmask one = (vmask)splat(REAL(1.0));
    return (vreal)(((vmask)rounded << MANTISSA_BITS) + one);
}

INLINE vreal v_reduce(vreal x, vreal *q) { /* returns n, and stores exp(r) - 1 */
    vreal n = (x * REAL(1.44269504088896340736) + ROUNDER) - ROUNDER;
    vreal r = (x - n * LN2_HIGH) - n * LN2_LOW;
    vreal p;
#if REAL_BITS == 32
    p = r * REAL(1.984126984126984e-4) + REAL(1.388888888888889e-3); /* 1/7!, 1/6! */
#else
    p = r * REAL(1.605904383682161e-10) + REAL(2.087675698786810e-9); /* 1/13!, 1/12! */
    p = p * r + REAL(2.505210838544172e-8);
    p = p * r + REAL(2.755731922398589e-7);
    p = p * r + REAL(2.755731922398589e-6);
    p = p * r + REAL(2.480158730158730e-5);
    p = p * r + REAL(1.984126984126984e-4);
    p = p * r + REAL(1.388888888888889e-3);
#endif
    p = p * r + REAL(8.333333333333333e-3);
    p = p * r + REAL(4.166666666666666e-2);
    p = p * r + REAL(1.666666666666667e-1);
    p = p * r + REAL(0.5);
    *q = p * (r * r) + r;
    return n;
}

INLINE vreal v_exp_of_negative(vreal x) {
    vreal q, n = v_reduce(v_at_least(x, EXP_LOWEST), &q);
    vreal half = n * REAL(0.5) + ROUNDER; /* two factors, because 2^n alone may not be a normal number */
    vreal rest = (n - (half - ROUNDER)) + ROUNDER;
    return ((q + REAL(1.0)) * v_power_of_two(half)) * v_power_of_two(rest);
}

INLINE vreal v_exp(vreal x) { return v_exp_of_negative(v_at_most(x, EXP_HIGHEST)); }

/* tanh(x) = (1 - e) / (1 + e) with e = exp(-2|x|), computed from d = e - 1 to avoid cancellation near 0. */
INLINE vreal v_tanh(vreal x) {
    vreal q, n = v_reduce(v_at_most(v_abs(x), TANH_ONE) * REAL(-2.0), &q);
    vreal power = v_power_of_two(n + ROUNDER);
    vreal d = power * q + (power - REAL(1.0));
    return v_copysign(d / (d + REAL(2.0)), x);
}

/* 1 / (1 + exp(-x)), with the exponential of a negative number only, to avoid overflow and cancellation. */
INLINE vreal v_sigmoid(vreal x) {
    vreal e = v_exp_of_negative(-v_abs(x));
    return v_select((vmask)(x < splat(0)), e, splat(REAL(1.0))) / (e + REAL(1.0));
}

/* log(x) of positive normal numbers: x = 2^n m with m from 0.7 to 1.4, and log m = 2 atanh(f) with f = (m - 1) / (m + 1),
 * whose series ends early because |f| < 0.172. */
INLINE vreal v_log(vreal x) {
    const vmask half = (vmask)splat(REAL(0.70710678118654752)), below = ((vmask){0} + 1) << MANTISSA_BITS;
    vmask n = ((vmask)x - half) >> MANTISSA_BITS; /* an arithmetic shift: n is rounded down */
    vreal m = (vreal)((vmask)x - n * below), f = (m - REAL(1.0)) / (m + REAL(1.0)), s = f * f, p;
#if REAL_BITS == 32
    p = s * REAL(2.222222222222222e-1) + REAL(2.857142857142857e-1); /* 2/9, 2/7 */
#else
    p = s * REAL(9.523809523809523e-2) + REAL(1.052631578947368e-1); /* 2/21, 2/19 */
    p = p * s + REAL(1.176470588235294e-1);
    p = p * s + REAL(1.333333333333333e-1);
    p = p * s + REAL(1.538461538461538e-1);
    p = p * s + REAL(1.818181818181818e-1);
    p = p * s + REAL(2.222222222222222e-1);
    p = p * s + REAL(2.857142857142857e-1);
#endif
    p = p * s + REAL(4.0e-1);
    p = p * s + REAL(6.666666666666667e-1);
    vreal exponent = __builtin_convertvector(n, vreal);
    return exponent * LN2_HIGH + (exponent * LN2_LOW + (p * (s * f) + (f + f)));
}

/* Pairwise reduction: four steps for 16 lanes instead of 15. */
INLINE real v_sum(vreal x) {
    real some[LANES] __attribute__((aligned(VECTOR_BYTES)));
    memcpy(some, &x, sizeof x);
    for (long half = LANES / 2; half; half /= 2)
        for (long i = 0; i < half; i++) some[i] += some[i + half];
    return some[0];
}
INLINE real v_largest(vreal x) {
    real some[LANES] __attribute__((aligned(VECTOR_BYTES)));
    memcpy(some, &x, sizeof x);
    for (long half = LANES / 2; half; half /= 2)
        for (long i = 0; i < half; i++) some[i] = some[i + half] > some[i] ? some[i + half] : some[i];
    return some[0];
}
#endif
