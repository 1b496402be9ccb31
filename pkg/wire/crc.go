package wire

import "hash/crc32"

// castagnoli is the polynomial of record batches v2.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A CRC is the remainder of a polynomial over GF(2), so it is linear: if two
// inputs of equal length differ by D, their CRCs differ by the remainder of D
// (start value and final inversion cancel out). And a D that ends in n zero
// bytes has the remainder of its beginning, times x^(8n), modulo the
// polynomial. Hence a change in the header moves the CRC of the batch by a
// value that depends on the changed bytes and on the length behind them, not
// on what stands there.
//
// Remainders are written the way the hardware computes them, bits reversed:
// the highest bit is the coefficient of x^0.

// crcShift holds x^(8·v·256^k) mod p at [k][v]: the shift by v·256^k bytes.
// An int32 length takes at most four of them.
var crcShift = makeCRCShift()

func makeCRCShift() (t [4][256]uint32) {
	power := uint32(1) << (31 - 8) // x^8, the shift by one byte
	for k := range t {
		t[k][0] = 1 << 31 // x^0
		for v := 1; v < 256; v++ {
			t[k][v] = crcMul(t[k][v-1], power)
		}
		for range 8 {
			power = crcMul(power, power)
		}
	}
	return t
}

// crcMul multiplies two remainders modulo the polynomial.
func crcMul(a, b uint32) uint32 {
	var product uint32
	for range 32 {
		product ^= b & -(a >> 31)
		a <<= 1
		b = b>>1 ^ crc32.Castagnoli&-(b&1) // times x
	}
	return product
}

// crcAdvance is the remainder of what has the remainder crc, followed by n
// zero bytes, 0 <= n < 2^32.
func crcAdvance(crc uint32, n int) uint32 {
	for k := 0; n > 0; k, n = k+1, n>>8 {
		if v := n & 0xff; v != 0 {
			crc = crcMul(crc, crcShift[k][v])
		}
	}
	return crc
}
