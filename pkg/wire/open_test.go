package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// diffOpened says where what an Opener visits differs from the records wanted.
func diffOpened(entries [][]byte, from int64, want []srcRecord) (diff string) {
	o := NewOpener(0)
	for _, e := range entries {
		err := o.Records(e, from, func(r Record) {
			if len(want) == 0 {
				diff = fmt.Sprintf("a record too much at offset %d", r.Offset)
				return
			}
			w := want[0]
			want = want[1:]
			headers := binary.AppendVarint(nil, int64(len(w.Headers)))
			for _, h := range w.Headers {
				headers = appendBytes(appendBytes(headers, append([]byte{}, h.Key...)), h.Value)
			}
			key, value, rest := r.Parts()
			same := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
			if r.Offset != w.Offset || r.Timestamp != w.Timestamp || !same(key, w.Key) || !same(value, w.Value) || !bytes.Equal(rest, headers) {
				diff = fmt.Sprintf("got %+v, want %+v", r, w)
			}
		})
		if err != nil {
			return err.Error()
		}
	}
	if diff == "" && len(want) > 0 {
		return fmt.Sprintf("%d records are missing", len(want))
	}
	return diff
}

func TestAnEntryThatLiesIsNotVisited(t *testing.T) {
	good := makeBatch(t, srcBatch{codec: LZ4, lastDelta: 9}, []srcRecord{{Offset: 0, Value: []byte("a")}, {Offset: 9, Value: []byte("b")}})
	bad := bytes.Clone(good)
	bad[atRecordCount+3]++
	visited := 0
	o := NewOpener(0)
	if err := o.Records(bad, 0, func(Record) { visited++ }); err == nil || visited > 0 {
		t.Errorf("%d visited, %v", visited, err)
	}
	if err := o.Records(good, 0, func(Record) { visited++ }); err != nil || visited != 2 {
		t.Errorf("%d visited after a fault, %v", visited, err)
	}
}

func TestSameContentIsWhatACopyLeavesAlone(t *testing.T) {
	records := []srcRecord{{Offset: 0, Timestamp: 5, Value: []byte("a")}, {Offset: 1, Timestamp: 7, Value: []byte("b")}}
	s := srcBatch{codec: None, lastDelta: 1, baseTimestamp: 5}
	a, b := Batch(makeBatch(t, s, records)), Batch(makeBatch(t, s, records))
	b.Stamp(4711, 3, 100)
	if !SameContent(a, b) {
		t.Error("a stamped batch is not the same")
	}
	for name, other := range map[string][]byte{
		"value":     makeBatch(t, s, []srcRecord{records[0], {Offset: 1, Timestamp: 7, Value: []byte("c")}}),
		"timestamp": makeBatch(t, srcBatch{codec: None, lastDelta: 1, baseTimestamp: 6}, []srcRecord{{Offset: 0, Timestamp: 6, Value: []byte("a")}, {Offset: 1, Timestamp: 8, Value: []byte("b")}}),
		"stamped":   makeBatch(t, srcBatch{codec: None, lastDelta: 1, baseTimestamp: 5, attributes: attrLogAppendTime, maxTimestamp: 7}, records),
		"hole":      makeBatch(t, srcBatch{codec: None, lastDelta: 2, baseTimestamp: 5}, records),
		"codec":     makeBatch(t, srcBatch{codec: Gzip, lastDelta: 1, baseTimestamp: 5}, records),
	} {
		if SameContent(a, other) || SameContent(other, a) {
			t.Errorf("another %s is the same", name)
		}
	}
}
