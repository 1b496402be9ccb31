package wan

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A hold is compared with a plain slice of copies.
func TestAHoldGivesBackWhatWasPutIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h hold
		var model [][]byte
		size, serial := 0, 0
		for range rapid.IntRange(1, 600).Draw(t, "steps") {
			if rapid.IntRange(0, 9).Draw(t, "what") < 6 {
				n := rapid.SampledFrom([]int{30, 1500, 40000, roomSize}).Draw(t, "length")
				room := h.room()[:n]
				room[0], room[n-1] = byte(serial), byte(serial>>8)
				if h.push(room, time.Duration(serial), 1, int64(n)) {
					model, size, serial = append(model, bytes.Clone(room)), size+n, serial+1
				}
				continue
			}
			for range rapid.IntRange(1, 50).Draw(t, "pops") {
				if len(model) == 0 {
					break
				}
				if p := h.first(); !bytes.Equal(p.bytes(), model[0]) || int(p.due) != serial-len(model) {
					t.Fatalf("packet %d of %d bytes, want %d of %d", p.due, len(p.bytes()), serial-len(model), len(model[0]))
				}
				size -= len(model[0])
				h.pop()
				model = model[1:]
			}
		}
		if h.size != size || h.count != len(model) || (h.first() == nil) != (len(model) == 0) {
			t.Fatalf("%d packets, %d bytes; want %d, %d", h.count, h.size, len(model), size)
		}
	})
}

func TestAHoldIsBounded(t *testing.T) {
	var h hold
	pushed := 0
	for range 2 * maxHeld / roomSize {
		if h.push(h.room(), 0, 1, 1) {
			pushed++
		}
	}
	if pushed != maxHeld/roomSize {
		t.Errorf("took %d packets of %d bytes", pushed, roomSize)
	}
	chunks := map[*chunk]bool{}
	for range 50000 { // emptied and filled at random it needs no more memory
		if h.first() != nil && rand.IntN(2) == 0 {
			h.pop()
		} else {
			h.push(h.room(), 0, 1, 1)
		}
		chunks[h.current] = true
	}
	if most := maxHeld/(chunkSize/roomSize*roomSize) + 2; len(chunks) > most {
		t.Errorf("used %d chunks, want at most %d", len(chunks), most)
	}
}
