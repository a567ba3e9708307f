/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     crc
 * bits     64
 * proves   CRC-32 (IEEE 802.3, reflected) computed bit by bit, by a table and four bytes at a time agree on
 *          the same data, give the published check value and the published residue.
 * ends     debug-exit 0: all checks hold; 1: a FAIL line names the wrong one
 * mission  18
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     compute
 */
#include "wx.h"

#define POLYNOMIAL  0xedb88320u         /* reflected 0x04c11db7 */
#define CHECK       0xcbf43926u         /* of the nine bytes "123456789" */
#define RESIDUE     0x2144df1cu         /* of any message followed by its own CRC, low byte first */
#define SIZE_BYTES  (512u * 1024)
#define PASSES      4                   /* of the two table variants; the bitwise one runs once */

static u32 table[4][256];
static u8 data[SIZE_BYTES + 4];

static void build_table(void)
{
    for (u32 i = 0; i < 256; i++) {
        u32 c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? c >> 1 ^ POLYNOMIAL : c >> 1;
        table[0][i] = c;
    }
    for (int k = 1; k < 4; k++)
        for (u32 i = 0; i < 256; i++)
            table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
}

static u32 crc_bitwise(const u8 *p, u64 n)
{
    u32 c = ~0u;

    while (n--) {
        c ^= *p++;
        for (int bit = 0; bit < 8; bit++)
            c = c >> 1 ^ (POLYNOMIAL & -(c & 1));
    }
    return ~c;
}

static u32 crc_table(const u8 *p, u64 n)
{
    u32 c = ~0u;

    while (n--)
        c = c >> 8 ^ table[0][(c ^ *p++) & 255];
    return ~c;
}

static u32 crc_slices(const u8 *p, u64 n)
{
    u32 c = ~0u;

    for (; n >= 4; n -= 4, p += 4) {
        c ^= p[0] | p[1] << 8 | p[2] << 16 | (u32)p[3] << 24;
        c = table[3][c & 255] ^ table[2][c >> 8 & 255] ^ table[1][c >> 16 & 255] ^ table[0][c >> 24];
    }
    while (n--)
        c = c >> 8 ^ table[0][(c ^ *p++) & 255];
    return ~c;
}

int main64(void)
{
    static const u8 digits[] = "123456789";
    u32 seed = 12345, crc, sum = 0;

    protect_memory();
    build_table();
    check(crc_bitwise(digits, 9) == CHECK, "check value, bit by bit");
    check(crc_table(digits, 9) == CHECK, "check value, by table");
    check(crc_slices(digits, 9) == CHECK, "check value, four bytes at a time");

    for (u32 i = 0; i < SIZE_BYTES; i++) {
        seed = seed * 1664525 + 1013904223;
        data[i] = seed >> 24;
    }
    crc = crc_bitwise(data, SIZE_BYTES);
    for (u32 pass = 0; pass < PASSES; pass++) {
        u64 skip = pass * 3;            /* odd lengths and unaligned starts */
        u32 c = crc_table(data + skip, SIZE_BYTES - skip);

        check(crc_slices(data + skip, SIZE_BYTES - skip) == c, "table and slices agree");
        check(pass != 0 || c == crc, "table and bits agree");
        sum = sum * 31 + c;
    }
    for (int i = 0; i < 4; i++)
        data[SIZE_BYTES + i] = crc >> 8 * i;
    print("check %08x\n", crc_table(digits, 9));
    print("crc %08x\n", crc);
    print("sum %08x\n", sum);
    print("residue %08x\n", crc_table(data, SIZE_BYTES + 4));
    check(crc_table(data, SIZE_BYTES + 4) == RESIDUE, "residue");
    return 0;
}
