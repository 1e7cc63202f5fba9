/* Vectors of real numbers, and elementary functions of them.
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
#define EXPM1_LOWEST -20.0f /* expm1 rounds to -1 below */
#define ERF_ONE 4.0f /* erf rounds to 1 from here */
#define LEAST_NORMAL 1.17549435e-38f
#define LIBM(name) name##f
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
#define EXPM1_LOWEST -40.0
#define ERF_ONE 6.0
#define LEAST_NORMAL 2.2250738585072014e-308
#define LIBM(name) name
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
/* Functions of single numbers, lane by lane. The compiler turns those that have an instruction into it. */
#define LANE_BY_LANE(NAME, FUNCTION)                                          \
    INLINE vreal v_##NAME(vreal x) {                                          \
        real lanes[LANES] __attribute__((aligned(VECTOR_BYTES)));             \
        memcpy(lanes, &x, sizeof x);                                          \
        for (long i = 0; i < LANES; i++) lanes[i] = LIBM(FUNCTION)(lanes[i]); \
        memcpy(&x, lanes, sizeof x);                                          \
        return x;                                                             \
    }
#define PAIR_BY_PAIR(NAME, FUNCTION)                                                 \
    INLINE vreal v_##NAME(vreal x, vreal y) {                                        \
        real first[LANES] __attribute__((aligned(VECTOR_BYTES))), second[LANES];     \
        memcpy(first, &x, sizeof x);                                                 \
        memcpy(second, &y, sizeof y);                                                \
        for (long i = 0; i < LANES; i++) first[i] = LIBM(FUNCTION)(first[i], second[i]); \
        memcpy(&x, first, sizeof x);                                                 \
        return x;                                                                    \
    }
LANE_BY_LANE(sqrt, __builtin_sqrt)
LANE_BY_LANE(floor, __builtin_floor)
LANE_BY_LANE(ceil, __builtin_ceil)
LANE_BY_LANE(trunc, __builtin_trunc)
LANE_BY_LANE(rint, __builtin_rint)
LANE_BY_LANE(round, __builtin_round)
LANE_BY_LANE(sin, sin)
LANE_BY_LANE(cos, cos)
LANE_BY_LANE(tan, tan)
LANE_BY_LANE(asin, asin)
LANE_BY_LANE(acos, acos)
LANE_BY_LANE(atan, atan)
LANE_BY_LANE(sinh, sinh)
LANE_BY_LANE(cosh, cosh)
LANE_BY_LANE(asinh, asinh)
LANE_BY_LANE(acosh, acosh)
LANE_BY_LANE(atanh, atanh)
LANE_BY_LANE(exp2, exp2)
LANE_BY_LANE(log2, log2)
LANE_BY_LANE(log10, log10)
LANE_BY_LANE(erfc, erfc)
PAIR_BY_PAIR(pow, pow)
PAIR_BY_PAIR(atan2, atan2)
#define SIGN_BIT ((vmask)splat(-REAL(0.0)))
INLINE vreal v_abs(vreal x) { return (vreal)((vmask)x & ~SIGN_BIT); }
INLINE vreal v_copysign(vreal size, vreal sign) {
    return (vreal)(((vmask)size & ~SIGN_BIT) | ((vmask)sign & SIGN_BIT));
}
INLINE vreal v_normal(vreal x) { /* numbers smaller than LEAST_NORMAL become zero, with their sign */
    return (vreal)((vmask)x & ((vmask)(v_abs(x) >= splat(LEAST_NORMAL)) | v_isnan(x) | SIGN_BIT));
}
#if REAL_BITS == 32
INLINE vreal v_bfloat16(vreal x) { /* the nearest bfloat16 number; numbers smaller than LEAST_NORMAL become zero */
    vmask bits = (vmask)v_normal(x), rounded = (bits + (0x7fff + (bits >> 16 & 1))) & (whole)0xffff0000u;
    return v_select(v_isnan(x), x, (vreal)rounded);
}
#endif
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

/* log(x) of any number: minus infinity at 0, NaN below. */
INLINE vreal v_log_of_any(vreal x) {
    const real scale = (real)((whole)1 << (MANTISSA_BITS + 1)), shift = (MANTISSA_BITS + 1) * REAL(0.69314718055994531);
    vmask small = (vmask)(x < splat(LEAST_NORMAL));
    vreal y = v_log(v_select(small, x * scale, x)) - v_select(small, splat(shift), splat(0));
    y = v_select((vmask)(x == splat(0)), splat(-(real)INFINITY), y);
    y = v_select((vmask)(x < splat(0)), splat((real)NAN), y);
    return v_select((vmask)(x == splat((real)INFINITY)) | v_isnan(x), x, y);
}

/* log(1 + x) with u = 1 + x rounded: log(u), and the derivative times what the rounding lost. */
INLINE vreal v_log1p(vreal x) {
    vreal u = x + REAL(1.0), y = v_log_of_any(u), rest = (x - (u - REAL(1.0))) / u;
    return v_select((vmask)(u > splat(0)) & (vmask)(u < splat((real)INFINITY)), y + rest, y);
}

/* log(1 + exp(x)), by the exponential of a negative number only. */
INLINE vreal v_softplus(vreal x) {
    vreal e = v_exp_of_negative(-v_abs(x)), u = e + REAL(1.0);
    return v_maximum(x, splat(0)) + (v_log(u) + (e - (u - REAL(1.0))) / u);
}

/* exp(x) - 1 = 2^n (q + (1 - 2^-n)), so that nothing is lost near 0. */
INLINE vreal v_expm1(vreal x) {
    vreal q, n = v_reduce(v_at_most(v_at_least(x, EXPM1_LOWEST), EXP_HIGHEST), &q);
    vreal half = n * REAL(0.5) + ROUNDER, rest = (n - (half - ROUNDER)) + ROUNDER;
    vreal below_one = splat(REAL(1.0)) - v_power_of_two(ROUNDER - v_at_most(n, REAL(60.0)));
    return ((q + below_one) * v_power_of_two(half)) * v_power_of_two(rest);
}

/* The value at x of a polynomial, whose coefficients are those of the highest power first. */
INLINE vreal v_polynomial(vreal x, const real *coefficients, int count) {
    vreal sum = splat(coefficients[0]);
#pragma GCC unroll 16
    for (int i = 1; i < count; i++) sum = sum * x + coefficients[i];
    return sum;
}

/* erf(x) is x P(x^2) up to 1, and 1 - exp(-x^2) Q(1 / (x + K)) from there. P and Q interpolate at Chebyshev's points, Q in
 * a variable that runs from -1 to 1; both are within 1e-8 (float) and 2e-17 (double) of the exact value. */
INLINE vreal v_erf(vreal x) {
#if REAL_BITS == 32
    const real near[] = {7.875875063e-5f, -8.016864287e-4f, 5.189087423e-3f, -2.685421201e-2f,
                         1.128359472e-1f, -3.761262667e-1f, 1.128379166f};
    const real far[] = {-1.149486198e-6f, -2.802938326e-5f, 4.607866369e-5f, 2.924752079e-3f,
                        2.685091128e-2f, 1.423953299e-1f, 2.553956763e-1f};
    const real offset = 2, factor = 12, shift = 3;
#else
    const real near[] = {5.9571761477489114e-11, -1.1372848856791674e-9, 1.4659775274047436e-8, -1.6350312701054695e-7,
                         1.6461000484121368e-6, -1.4925595266831182e-5, 1.2055331111642711e-4, -8.5483269808337899e-4,
                         5.2239776248180145e-3, -2.6866170645076793e-2, 1.1283791670954879e-1, -3.7612638903183748e-1,
                         1.1283791670955126};
    const real far[] = {6.0857915906870915e-12, -6.047405945991704e-12, -2.571511429603255e-10, 2.6381508985080733e-10,
                        1.1339538061744707e-8, 4.5267007642487407e-9, -5.5412744784677132e-7, -2.4255574719050316e-6,
                        1.9563583246137114e-5, 3.316029605764125e-4, 2.4793146970781857e-3, 1.2713147695692197e-2,
                        4.9698445403394641e-2, 1.5436117429436917e-1, 2.0798329133342886e-1};
    const real offset = 3, factor = REAL(14.4), shift = REAL(2.6);
#endif
    vreal size = v_at_most(v_abs(x), ERF_ONE), square = size * size;
    vreal close = size * v_polynomial(square, near, sizeof near / sizeof *near);
    vreal ratio = splat(factor) / (size + offset) - shift;
    vreal distant = REAL(1.0) - v_exp_of_negative(-square) * v_polynomial(ratio, far, sizeof far / sizeof *far);
    return v_copysign(v_select((vmask)(size < splat(REAL(1.0))), close, distant), x);
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
