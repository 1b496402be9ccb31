// Package recorded holds parts of logs as producers wrote them and Kafka 4.3.1
// kept and served them: what benchmarks of the hot path are fed with. Nothing in
// it was made by the replicator.
//
// The test in this package wrote the files and can write them again; see there.
package recorded

import (
	"bufio"
	"bytes"
	"embed"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"
)

//go:embed testdata
var files embed.FS

// The shapes of logs. Large and Small exist for every codec, by [Named].
const (
	Large        = "large"        // batches of about 64 KiB on the wire, records of 1,000 bytes
	Medium       = "medium"       // none and lz4 only: batches of a little over 4 KiB on the wire
	Small        = "small"        // batches of ten records of 100 bytes
	Transactions = "transactions" // lz4; four transactional producers and a plain one, a quarter aborted
	Compacted    = "compacted"    // lz4; about half of the records are gone
)

// Codecs are the names of the codecs Large and Small exist for.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// Named is the name of a shape in a codec, as [Get] wants it.
func Named(shape, codec string) string { return shape + "-" + codec }

// Log is a part of a partition's log, in whole batches of format 2.
type Log struct {
	Name    string
	Records []byte // as in the answer to a fetch; the caller's own copy
	Aborted []Aborted
}

// Aborted is an aborted transaction as the answer to a read_committed fetch
// names it.
type Aborted struct{ ProducerID, FirstOffset int64 }

// Get reads a log.
func Get(tb testing.TB, name string) Log {
	tb.Helper()
	l := Log{Name: name}
	var err error
	if l.Records, err = files.ReadFile("testdata/" + name + ".bin"); err != nil {
		tb.Fatal(err)
	}
	text, err := files.ReadFile("testdata/" + name + ".aborted")
	if err != nil {
		return l // nothing is
	}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		var a Aborted
		if _, err := fmt.Sscan(s.Text(), &a.ProducerID, &a.FirstOffset); err != nil {
			tb.Fatalf("read aborted transactions of %s: %q: %v", name, s.Text(), err)
		}
		l.Aborted = append(l.Aborted, a)
	}
	return l
}

// Names lists all logs.
func Names(tb testing.TB) []string {
	tb.Helper()
	entries, err := files.ReadDir("testdata")
	if err != nil {
		tb.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".bin"); ok {
			names = append(names, name)
		}
	}
	return names
}

// Batches are the batches of the log. They alias Records.
func (l *Log) Batches() [][]byte {
	var out [][]byte
	for rest := l.Records; len(rest) > 0; {
		size := sizeOf(rest)
		out = append(out, rest[:size:size])
		rest = rest[size:]
	}
	return out
}

// First is the source offset the log begins with.
func (l *Log) First() int64 { return int64(binary.BigEndian.Uint64(l.Records)) }

// Data is how many batches hold records of consumers: not markers, and not
// empty.
func (l *Log) Data() (batches, records int) {
	for _, b := range l.Batches() {
		if n := countOf(b); n > 0 && b[22]&0x20 == 0 {
			batches++
			records += n
		}
	}
	return batches, records
}

// Until repeats the whole log, with offsets that go on, until it is at least
// size bytes long: a long log of the same shape. It has no aborted transactions.
func (l *Log) Until(size int) Log {
	out := Log{Name: l.Name}
	batches := l.Batches()
	last := batches[len(batches)-1]
	length := int64(binary.BigEndian.Uint64(last)) + int64(binary.BigEndian.Uint32(last[23:])) + 1 - l.First()
	for base := int64(0); len(out.Records) < size; base += length {
		for _, b := range batches {
			at := len(out.Records)
			out.Records = append(out.Records, b...)
			copied := out.Records[at:]
			binary.BigEndian.PutUint64(copied, uint64(base)+binary.BigEndian.Uint64(copied))
		}
	}
	return out
}

// Fresh is a copy of a batch whose records were written a moment ago, in their
// distances: a lane treats records older than an hour in another way.
func Fresh(batch []byte, now time.Time) []byte {
	b := slices.Clone(batch)
	newest := int64(binary.BigEndian.Uint64(b[35:]))
	shift := now.UnixMilli() - newest
	for _, at := range []int{27, 35} { // base and largest timestamp
		binary.BigEndian.PutUint64(b[at:], binary.BigEndian.Uint64(b[at:])+uint64(shift))
	}
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func sizeOf(b []byte) int  { return 12 + int(binary.BigEndian.Uint32(b[8:])) }
func countOf(b []byte) int { return int(int32(binary.BigEndian.Uint32(b[57:]))) }
