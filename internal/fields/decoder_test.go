package fields

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"time"
)

func TestWhatIsWrongFirstIsSaidAndTheRestIsZero(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		read func(*Decoder)
		want string
	}{
		"nothing":                  {nil, func(d *Decoder) { d.Byte() }, "is cut off"},
		"half a varint":            {[]byte{0x80}, func(d *Decoder) { d.Varint() }, "is cut off"},
		"a varint of eleven bytes": {append([]byte(strings.Repeat("\xff", 10)), 1), func(d *Decoder) { d.Uvarint() }, "is cut off"},
		"a string that is shorter": {AppendString(nil, "orders")[:3], func(d *Decoder) { _ = d.String() }, "is cut off"},
		"a string too long":        {binary.AppendUvarint(nil, MaxString+1), func(d *Decoder) { _ = d.String() }, "has a number out of range"},
		"more than an int32":       {binary.AppendVarint(nil, math.MaxInt32+1), func(d *Decoder) { d.Int32() }, "has a number out of range"},
		"a billion items":          {binary.AppendUvarint(nil, 1e9), func(d *Decoder) { d.Count(1) }, "is cut off"},
		"something left":           {[]byte{1, 2}, func(d *Decoder) { d.Byte(); d.End() }, "has bytes left over"},
		"two things":               {[]byte{1}, func(d *Decoder) { d.Fail("is strange"); d.Varint(); d.Take(9) }, "is strange"},
	} {
		d := Decode(c.b)
		c.read(&d)
		if d.Bad != c.want {
			t.Errorf("%s: %q", name, d.Bad)
		}
		if d.Byte() != 0 || d.Uvarint() != 0 || d.Varint() != 0 || d.Int32() != 0 || d.String() != "" || d.Count(1) != 0 {
			t.Errorf("%s: something is read behind it", name)
		}
	}
}

func TestFieldsAreReadAsTheyWereWritten(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123).UTC()
	b := AppendString([]byte{7}, "orders")
	b = binary.AppendVarint(b, -5)
	b = binary.AppendVarint(b, math.MinInt64)
	b = binary.AppendUvarint(b, math.MaxUint64)
	b = binary.AppendVarint(b, at.UnixMilli())
	b = append(b, 1, 2, 3)
	d := Decode(b)
	if v := d.Byte(); v != 7 {
		t.Errorf("byte %d", v)
	}
	if v := d.String(); v != "orders" {
		t.Errorf("string %q", v)
	}
	if v := d.Int32(); v != -5 {
		t.Errorf("int32 %d", v)
	}
	if v := d.Varint(); v != math.MinInt64 {
		t.Errorf("varint %d", v)
	}
	if v := d.Uvarint(); v != math.MaxUint64 {
		t.Errorf("uvarint %d", v)
	}
	if v := d.Time(); !v.Equal(at) {
		t.Errorf("time %v", v)
	}
	if v := d.Take(3); string(v) != "\x01\x02\x03" {
		t.Errorf("bytes %x", v)
	}
	if d.End(); d.Bad != "" {
		t.Error(d.Bad)
	}
}
