/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     matrix
 * bits     64
 * proves   products of 128 x 128 matrices in 32-bit integers and in SSE2 doubles agree where both are exact and
 *          pass Freivalds' test; elimination finds det(min(i, j)) = 1 and the known inverse of that matrix.
 * ends     debug-exit 0: all checks hold; 1: a FAIL line names the wrong one
 * mission  18 21
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     compute
 * cflags   -msse2
 */
#include "wx.h"

#define N       128
#define ROUNDS  2

static u32 ia[N][N], ib[N][N], ic[N][N];
static double da[N][N], db[N][N], dc[N][N];
static double left[N][2 * N];                   /* [M | 1], which elimination turns into [1 | M^-1] */

static void multiply_integer(void)
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            u32 sum = 0;
            for (int k = 0; k < N; k++)
                sum += ia[i][k] * ib[k][j];
            ic[i][j] = sum;
        }
}

static void multiply_double(void)
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int k = 0; k < N; k++)
                sum += da[i][k] * db[k][j];
            dc[i][j] = sum;
        }
}

/* C = A B  implies  C v = A (B v), and a wrong C is seen unless v happens to hide it. */
static int freivalds(u32 seed)
{
    static u32 v[N], bv[N];

    for (int i = 0; i < N; i++)
        v[i] = seed = seed * 1664525 + 1013904223;
    for (int i = 0; i < N; i++) {
        bv[i] = 0;
        for (int k = 0; k < N; k++)
            bv[i] += ib[i][k] * v[k];
    }
    for (int i = 0; i < N; i++) {
        u32 abv = 0, cv = 0;
        for (int k = 0; k < N; k++) {
            abv += ia[i][k] * bv[k];
            cv += ic[i][k] * v[k];
        }
        if (abv != cv)
            return 0;
    }
    return 1;
}

/* Gauss-Jordan without pivoting; for min(i, j) every number on the way is a small integer, hence exact. */
static double invert_min_matrix(void)
{
    double det = 1;

    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            left[i][j] = (i < j ? i : j) + 1;
            left[i][N + j] = i == j;
        }
    for (int p = 0; p < N; p++) {
        double pivot = left[p][p];
        det *= pivot;
        for (int j = 0; j < 2 * N; j++)
            left[p][j] /= pivot;
        for (int i = 0; i < N; i++) {
            double factor = left[i][p];
            if (i == p || factor == 0)
                continue;
            for (int j = 0; j < 2 * N; j++)
                left[i][j] -= factor * left[p][j];
        }
    }
    return det;
}

/* The inverse of min(i, j) is tridiagonal: 2 on the diagonal, 1 in its last place, -1 beside it. */
static int inverse_is_tridiagonal(void)
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double want = i == j ? (i == N - 1 ? 1 : 2) : (i - j == 1 || j - i == 1 ? -1 : 0);
            if (left[i][N + j] != want)
                return 0;
        }
    return 1;
}

static u32 round_checksum(u32 seed)
{
    u32 sum = 0;
    int agree = 1;

    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            seed = seed * 1664525 + 1013904223;
            da[i][j] = ia[i][j] = seed >> 20;
            seed = seed * 1664525 + 1013904223;
            db[i][j] = ib[i][j] = seed >> 20;
        }
    multiply_integer();
    multiply_double();
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            agree &= dc[i][j] == (double)ic[i][j];  /* 128 * 4095^2 < 2^31: exact in both */
            sum = sum * 31 + ic[i][j];
        }
    check(agree, "integer and double products agree");
    check(freivalds(seed), "Freivalds' test");
    return sum;
}

int main64(void)
{
    double det;

    protect_memory();
    for (u32 round = 0; round < ROUNDS; round++)
        print("product %08x\n", round_checksum(round + 1));
    det = invert_min_matrix();
    print("determinant %u\n", (u64)det);
    check(det == 1, "determinant");
    check(inverse_is_tridiagonal(), "inverse");
    return 0;
}
