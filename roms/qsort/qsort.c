/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     qsort
 * bits     64
 * proves   quicksort, heapsort and merge sort of the same 100,000 numbers give the same ascending sequence
 *          with the multiset of the input: data-dependent branches, recursion, strided and local memory access.
 * ends     debug-exit 0: the three agree; 1: a FAIL line names what does not hold
 * mission  18 22
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     compute
 */
#include "wx.h"

#define COUNT  100000

static u32 input[COUNT], quick[COUNT], heap[COUNT], merged[COUNT], scratch[COUNT];

static void sort_quick(u32 *a, long lo, long hi)
{
    while (lo < hi) {
        u32 pivot = a[lo + (hi - lo) / 2];
        long i = lo, j = hi;

        while (i <= j) {
            while (a[i] < pivot)
                i++;
            while (a[j] > pivot)
                j--;
            if (i <= j) {
                u32 t = a[i];
                a[i++] = a[j];
                a[j--] = t;
            }
        }
        if (j - lo < hi - i) {          /* recurse into the smaller part: depth stays logarithmic */
            sort_quick(a, lo, j);
            lo = i;
        } else {
            sort_quick(a, i, hi);
            hi = j;
        }
    }
}

static void sift_down(u32 *a, long root, long n)
{
    u32 v = a[root];

    for (long child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && a[child + 1] > a[child])
            child++;
        if (a[child] <= v)
            break;
        a[root] = a[child];
    }
    a[root] = v;
}

static void sort_heap(u32 *a, long n)
{
    for (long root = n / 2; root-- > 0;)
        sift_down(a, root, n);
    for (long last = n - 1; last > 0; last--) {
        u32 t = a[0];
        a[0] = a[last];
        a[last] = t;
        sift_down(a, 0, last);
    }
}

static void sort_merge(u32 *a, u32 *tmp, long n)
{
    for (long width = 1; width < n; width *= 2) {
        for (long lo = 0; lo < n; lo += 2 * width) {
            long mid = lo + width < n ? lo + width : n;
            long hi = mid + width < n ? mid + width : n;
            long i = lo, j = mid;

            for (long k = lo; k < hi; k++)
                tmp[k] = i < mid && (j >= hi || a[i] <= a[j]) ? a[i++] : a[j++];
        }
        for (long k = 0; k < n; k++)
            a[k] = tmp[k];
    }
}

/* The same for any order of the elements. */
static u64 multiset(const u32 *a)
{
    u64 sum = 0;

    for (long i = 0; i < COUNT; i++)
        sum += (u64)a[i] * a[i] + a[i];
    return sum;
}

int main64(void)
{
    u64 seed = 20240229, order = 0;
    int ascending = 1, same = 1;

    protect_memory();
    for (long i = 0; i < COUNT; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        input[i] = quick[i] = heap[i] = merged[i] = seed >> 33 & 0x3ffff;      /* some equal keys */
    }
    sort_quick(quick, 0, COUNT - 1);
    sort_heap(heap, COUNT);
    sort_merge(merged, scratch, COUNT);
    for (long i = 0; i < COUNT; i++) {
        ascending &= i == 0 || quick[i - 1] <= quick[i];
        same &= quick[i] == heap[i] && heap[i] == merged[i];
        order = order * 31 + quick[i];
    }
    print("smallest %u\n", quick[0]);
    print("median %u\n", quick[COUNT / 2]);
    print("largest %u\n", quick[COUNT - 1]);
    print("order %016llx\n", order);
    check(ascending, "ascending");
    check(same, "three sorts agree");
    check(multiset(quick) == multiset(input), "multiset");
    return 0;
}
